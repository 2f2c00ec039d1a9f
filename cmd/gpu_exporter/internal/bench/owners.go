// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/supervisor"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
	"gpu_exporter/etc"
)

// heldNode is a node of 16 GPUs with seven instances each, all of whose values
// are there, and 256 owners, so that most instances are shared.
type heldNode struct {
	inventory *model.Inventory
	processes *model.Processes // one of each owner
	counters  *field.Counters
	xids      *xid.Catalogue
	places    map[uint32]metrics.ProcessPlace
	owners    *metrics.Ownership
}

const heldOwners = 256

func newHeldNode(countersPath string) (*heldNode, error) {
	counters, err := field.LoadCounters(countersPath)
	if err != nil {
		return nil, err
	}
	xids, err := xid.ParseCatalogue(etc.XIDCatalogue(), etc.XIDCatalogueName)
	if err != nil {
		return nil, err
	}
	inv := &model.Inventory{Generation: 1, Time: time.Now(), DriverVersion: "570.133.20"}
	for _, c := range counters.List {
		inv.Columns[model.KindGPUInstance] = append(inv.Columns[model.KindGPUInstance], c.Field.ID)
	}
	entity := func(kind model.EntityKind, id, parent int) model.Entity {
		return model.Entity{Kind: kind, ID: uint32(id), Parent: parent, Selected: true, Index: model.Unknown, Minor: model.Unknown,
			InstanceID: model.Unknown, Port: model.Unknown, PlacementStart: model.Unknown}
	}
	for g := range 16 {
		gpu := entity(model.KindGPU, g, model.Unknown)
		gpu.UUID, gpu.PCIBusID, gpu.Model, gpu.MIGMode = fmt.Sprintf("GPU-%08x-9b29-4a1c-b0a6-0f6c8f5ed3a0", g), fmt.Sprintf("00000000:%02X:00.0", g), "NVIDIA H100 80GB HBM3", true
		inv.Entities = append(inv.Entities, gpu)
	}
	o := &metrics.Ownership{Known: true, Mapped: true, Entities: make([]metrics.Holders, 16, 16+16*7)}
	for i := range 16 * 7 {
		instance := entity(model.KindGPUInstance, i, i/7)
		instance.InstanceID, instance.Profile = 7+i%7, "1g.10gb"
		inv.Entities = append(inv.Entities, instance)
		o.Entities = append(o.Entities, metrics.Holders{})
	}
	h := &heldNode{inventory: inv, counters: counters, xids: xids, owners: o, places: map[uint32]metrics.ProcessPlace{}, processes: &model.Processes{Generation: 1, Time: time.Now()}}
	for i := range 16 * 7 {
		h.processes.Devices = append(h.processes.Devices, model.DeviceProcesses{Entity: 16 + i, Utilization: model.StatusNotSupported})
	}
	for n := range heldOwners {
		h.places[uint32(n)] = metrics.ProcessPlace{Namespace: "research", Pod: heldPod(n), Container: "main"}
		d := &h.processes.Devices[n%(16*7)]
		d.Processes = append(d.Processes, model.Process{PID: uint32(n), MemoryBytes: 1 << 30, MemoryKnown: true, SM: 0.25})
		holders := &o.Entities[16+n%(16*7)]
		holders.Owners = append(holders.Owners, metrics.Owner{Namespace: "research", Pod: heldPod(n), Container: "main", Replica: fmt.Sprint(n / (16 * 7))})
	}
	return h, nil
}

func (h *heldNode) Ownership(*model.Inventory, time.Time) *metrics.Ownership { return h.owners }

func (h *heldNode) Places(*model.Processes) (map[uint32]metrics.ProcessPlace, bool) {
	return h.places, true
}

func heldPod(n int) string { return fmt.Sprintf("llm-training-%d", n) }

func (h *heldNode) MappingStatus() (metrics.SourceStatus, bool) {
	return metrics.SourceStatus{}, true
}

func (h *heldNode) Sources() map[string]metrics.SourceStatus { return nil }

// encoding returns the CPU time that building and encoding the families of one
// sample takes, and the size of the text.
func (h *heldNode) encoding(owners metrics.OwnerSource, usage bool, rounds int) (time.Duration, int, error) {
	node := state.NewNode(slog.New(slog.DiscardHandler), h.xids)
	families := metrics.New(metrics.Config{
		Counters: h.counters.List, XIDs: h.xids, HostnameLabel: "hostname", Hostname: "node-1.example.com", MaxAge: time.Minute,
		Owners: metrics.OwnerForm{Usage: usage},
	}, node, supervisor.New(supervisor.Config{}), owners)
	err := node.Deliver(wire.Frame{Inventory: h.inventory})
	if err != nil {
		return 0, 0, err
	}
	var body []byte
	var begin time.Duration
	for n := range rounds + 1 {
		if n == 1 { // the first one renders the labels
			runtime.GC()
			if begin, err = cpu(os.Getpid()); err != nil {
				return 0, 0, err
			}
		}
		sample := &model.Sample{Generation: 1, Time: time.Now(), Rows: make([][]model.Cell, len(h.inventory.Entities))}
		for i := range h.inventory.Entities {
			for range h.inventory.Columns[h.inventory.Entities[i].Kind] {
				sample.Rows[i] = append(sample.Rows[i], model.DoubleCell(float64(i)+0.25))
			}
		}
		processes := *h.processes // a new reading for each sample
		if err := errors.Join(node.Deliver(wire.Frame{Processes: &processes}), node.Deliver(wire.Frame{Sample: sample})); err != nil {
			return 0, 0, err
		}
		body, err = (&metrics.Exposition{Families: families.Build()}).Append(body[:0], expfmt.NewFormat(expfmt.TypeTextPlain))
		if err != nil {
			return 0, 0, err
		}
	}
	end, err := cpu(os.Getpid())
	return (end - begin) / time.Duration(rounds), len(body), err
}

// joining compares encoding a large node with and without owners.
func (b *bench) joining(context.Context) ([]row, error) {
	h, err := newHeldNode(b.counters())
	if err != nil {
		return nil, err
	}
	const rounds, reach = 1000, 1.2
	var bare, joined, used []time.Duration
	var sizes [3]int
	for range b.options.rounds {
		for i, kind := range []struct {
			owners metrics.OwnerSource
			usage  bool
			times  *[]time.Duration
		}{{nil, false, &bare}, {h, false, &joined}, {h, true, &used}} {
			d, size, err := h.encoding(kind.owners, kind.usage, rounds)
			if err != nil {
				return nil, err
			}
			*kind.times, sizes[i] = append(*kind.times, d), size
		}
	}
	join := against(fmt.Sprintf("CPU of encoding 16 x 7 instances x 60 fields with %d owners, %d bytes, against %d without owners", heldOwners, sizes[1], sizes[0]), joined, bare)
	join.reach, join.ok = fmt.Sprintf("<= %.1f", reach), float64(median(joined)) <= reach*float64(median(bare))
	use := against(fmt.Sprintf("the same with what each owner uses, %d bytes", sizes[2]), used, bare)
	use.reach = ""
	return []row{join, use}, nil
}
