// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"

	"gpu_exporter/collector/field"
)

// Names is the names of DCGM's fields in one generation of counters files.
type Names struct {
	Folder string // of the generated files
	// Suffix distinguishes uid, tag and title, so that both generations can be imported.
	Suffix string

	SMClock, MemoryClock              Metric // Hz
	GPUTemperature, MemoryTemperature Metric // degrees Celsius
	Power                             Metric // W
	GPUUtilization, MemoryUtilization Metric // ratios
	Encoder, Decoder                  Metric // ratios
	MemoryFree, MemoryUsed            Metric // bytes
	MemoryReserved                    Metric // bytes
	GraphicsEngine, Tensor, DRAM      Metric // ratios
	PCIeSent, PCIeReceived            Metric // bytes per second
	NVLinkThroughput                  Metric // bytes per second
	RemappedUncorrectable             Metric
	RemappedCorrectable               Metric

	// Fields that are not among the default counters: a label and a gauge.
	ChassisSerial, ChassisSlot Metric
}

// Metric is the family of a field of a counters file.
type Metric struct {
	Name string
	// toBase is the end of an expression that converts values to the base unit.
	toBase string
}

// String returns the name of the family.
func (m Metric) String() string { return m.Name }

// By returns an expression in the base unit with one series for each value of the labels.
// Fields have labels that change over time, such as the driver's version and the pod.
func (m Metric) By(labels, selector string) string {
	return fmt.Sprint("max by (", labels, ") (", m, selector, ")", m.toBase)
}

// Sum returns an expression in the base unit that adds up the MIG instances of a GPU.
func (m Metric) Sum(labels, selector string) string {
	return fmt.Sprint("sum by (", labels, ") (max by (", deviceID, ") (", m, selector, "))", m.toBase)
}

// Default returns the names of etc/default-counters.csv, in DCGM's units.
func Default() Names {
	n := names(func(f field.Field) Metric {
		name := f.Name
		if legacy := f.Legacy(); len(legacy) > 0 && legacy[0] != "" && !lower(legacy[0]) {
			name = legacy[0]
		}
		return Metric{name, toBase(f.Unit)}
	})
	n.Folder = "dashboards"
	return n
}

// BaseUnits returns the names of etc/dcgm-4.9-counters.csv, in base units.
func BaseUnits() Names {
	n := names(func(f field.Field) Metric {
		if name := f.BaseUnitName(); name != "" {
			return Metric{Name: name}
		}
		return Metric{f.Name, toBase(f.Unit)}
	})
	n.Folder, n.Suffix = "dashboards-dcgm-4.9", "-dcgm-4-9"
	return n
}

// lower reports whether the name is one of dcgm-exporter 1.x.
func lower(name string) bool { return name[0] >= 'a' }

// toBase returns the conversion from one of DCGM's units.
func toBase(unit string) string {
	switch unit {
	case "MHz":
		return " * 1e6"
	case "MiB":
		return " * 1048576"
	case "percent":
		return " / 100"
	case "MB/s":
		return " * 1024000" // KiB/s divided by 1000
	}
	return ""
}

func names(metric func(field.Field) Metric) Names {
	of := func(f field.Field, _ bool) Metric { return metric(f) }
	return Names{
		SMClock:               of(field.ByID(100)),
		MemoryClock:           of(field.ByID(101)),
		MemoryTemperature:     of(field.ByID(140)),
		GPUTemperature:        of(field.ByID(150)),
		Power:                 of(field.ByID(155)),
		GPUUtilization:        of(field.ByID(203)),
		MemoryUtilization:     of(field.ByID(204)),
		Encoder:               of(field.ByID(206)),
		Decoder:               of(field.ByID(207)),
		MemoryFree:            of(field.ByID(251)),
		MemoryUsed:            of(field.ByID(252)),
		MemoryReserved:        of(field.ByID(253)),
		RemappedUncorrectable: of(field.ByID(393)),
		RemappedCorrectable:   of(field.ByID(394)),
		NVLinkThroughput:      of(field.ByID(449)),
		GraphicsEngine:        of(field.ByID(1001)),
		Tensor:                of(field.ByID(1004)),
		DRAM:                  of(field.ByID(1005)),
		PCIeSent:              of(field.ByID(1009)),
		PCIeReceived:          of(field.ByID(1010)),
		ChassisSerial:         of(field.ByID(572)),
		ChassisSlot:           of(field.ByID(573)),
	}
}
