// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

const (
	// strayLife is how long an XID of the kernel log is kept for a GPU at whose
	// address DCGM knows none: it may start later, or be bound later.
	strayLife = 10 * time.Minute
	// maxStrays bounds how many are kept.
	maxStrays = 4096
)

// kernelXIDs are those of the kernel log at addresses without a known GPU.
type kernelXIDs struct {
	waiting []strayXID
	strays  uint64 // since the start, where an inventory was known
}

type strayXID struct {
	model.KernelXID
	told    time.Time
	counted bool // among the strays
}

// AddKernelXID takes an XID of the kernel log. The same XID may come from DCGM,
// before or after; it counts once. It shows with the next sample.
func (n *Node) AddKernelXID(x model.KernelXID) {
	n.mu.Lock()
	defer n.unlock()
	stray := strayXID{KernelXID: x, told: n.Clock()}
	if n.latest != nil {
		if n.placeKernelXID(x) {
			return
		}
		stray.counted = true
		n.kernel.strays++
	}
	if len(n.kernel.waiting) == maxStrays {
		n.kernel.waiting = n.kernel.waiting[1:]
	}
	n.kernel.waiting = append(n.kernel.waiting, stray)
}

// ExpectKernelSamples says that DCGM's engine may be able to read the kernel log
// itself. XIDs 79, 119 and 120 may then come from it twice.
func (n *Node) ExpectKernelSamples() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.xids.Twins = true
}

// placeKernelXIDs looks for the GPUs of XIDs that came before they were known.
func (n *Node) placeKernelXIDs() {
	var still []strayXID
	for _, x := range n.kernel.waiting {
		if n.placeKernelXID(x.KernelXID) {
			continue
		}
		if !x.counted {
			x.counted = true
			n.kernel.strays++
		}
		if n.Clock().Sub(x.told) < strayLife {
			still = append(still, x)
		}
	}
	n.kernel.waiting = still
}

// placeKernelXID takes the XID as one of the GPU at its address, if one is known.
func (n *Node) placeKernelXID(x model.KernelXID) bool {
	gpu := n.gpuAt(x)
	if gpu == nil {
		return false
	}
	now := n.Clock()
	r := xid.Record{Code: x.Code, At: x.Time, Number: x.GPUInstance}
	r.Key, r.Partitioned = instanceOf(n.latest, gpu.UUID, x.GPUInstance)
	if !n.xids.AddRecord(r, now) {
		return true
	}
	more := []any{"kernel_says", x.Text}
	if x.PID != 0 {
		more = append(more, "pid", x.PID)
	}
	if x.Process != "" {
		more = append(more, "process", x.Process)
	}
	n.report.xid(gpu, xid.Key{EntityKey: r.Key, Code: x.Code}, now, more...)
	return true
}

// decideXIDs says of which instances those XIDs are whose instance the driver has
// named: the GPU may have been split anew between the newest inventory and the XID, and
// that is known as of now.
func (n *Node) decideXIDs() {
	n.xids.Decide(func(told model.EntityKey, number int) model.EntityKey {
		key, _ := instanceOf(n.latest, told.UUID, number)
		switch {
		case key == told || told.Instance == model.Unknown: // it is as it was, or new
			return key
		case key.Instance == model.Unknown && !n.latest.InstancesUnknown:
			return told // it is gone, and no other has its number
		}
		return model.EntityKey{UUID: told.UUID, Instance: model.Unknown} // of either
	})
}

// gpuAt returns the GPU at the address of an XID, or nil.
func (n *Node) gpuAt(x model.KernelXID) (gpu *model.Entity) {
	known := n.known() // those that are gone first
	for i := range known {
		if at, ok := model.ParsePCIAddress(known[i].PCIBusID); ok && at == (model.PCIAddress{Domain: x.Domain, Bus: x.Bus, Device: x.Device}) {
			gpu = &known[i]
		}
	}
	return gpu
}

// instanceOf returns the key of a GPU's instance with NVML's id or, if it has none, of
// the GPU, and whether the GPU is split.
func instanceOf(inv *model.Inventory, uuid string, id int) (key model.EntityKey, split bool) {
	key = model.EntityKey{UUID: uuid, Instance: model.Unknown}
	for i := range inv.Entities {
		if inv.Entities[i].Kind != model.KindGPUInstance {
			continue
		}
		if of := model.KeyOf(inv, i); of.UUID == uuid {
			split = true
			if of.Instance == id {
				key = of
			}
		}
	}
	return key, split
}
