// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package device describes the devices of a node and resolves the names that
// kubelets, container engines, batch systems and ResourceSlices use for them.
//
// It never guesses: a name that can mean two devices resolves to none. It must
// not read anything from the system, and it must not import other packages of
// this module.
package device

// Kind is the kind of a Device.
type Kind uint8

// The kinds of device that can have an owner. KindOther is for anything else, such
// as a link, so that descriptions can have the positions of an inventory.
const (
	KindOther Kind = iota
	KindGPU
	KindGPUInstance
	KindComputeInstance
)

// Unknown is the value of a number that is not known.
const Unknown = -1

// Device describes one device of the node. An instance has the UUID, the numbers,
// the PCI bus ID and the MIG mode of its GPU.
type Device struct {
	Kind     Kind
	GPUUUID  string
	Index    int    // NVML index
	Minor    int    // N of /dev/nvidiaN, or Unknown
	DCGMID   int    // DCGM's ID, or Unknown
	PCIBusID string // in any spelling; empty if it is not known
	MIGMode  bool   // the GPU is partitioned

	GPUInstance     int      // NVML ID, for both kinds of instance
	ComputeInstance int      // NVML ID, for a compute instance
	MIGUUIDs        []string // of the MIG devices in this instance
	// MIGIndex is NVML's index of the MIG device that this compute instance is, or
	// Unknown.
	MIGIndex int
	Profile  string // of an instance, such as 1g.10gb or 1g.10gb+me
	// PlacementStart is the first memory slice of the GPU instance in its GPU, for
	// both kinds of instance, or Unknown.
	PlacementStart int
}

func (d *Device) isInstance() bool {
	return d.Kind == KindGPUInstance || d.Kind == KindComputeInstance
}

// Usable reports whether programs can use the device. A GPU in MIG mode is
// unusable; its instances are usable.
func (d *Device) Usable() bool { return d.Kind == KindGPU && !d.MIGMode || d.isInstance() }

// minorOrIndex returns N of the GPU's /dev/nvidiaN. It falls back to the index,
// because the two numbers are equal on most nodes.
func (d *Device) minorOrIndex() int {
	if d.Minor == Unknown {
		return d.Index
	}
	return d.Minor
}
