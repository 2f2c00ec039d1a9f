// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

const (
	// unmatchedLife bounds how long an XID of the kernel log waits for a GPU at its PCI
	// address after an inventory without one. The GPU may be bound to the driver later;
	// after that time it may be another board in the slot.
	unmatchedLife = 10 * time.Minute
	// placementLife bounds how long an XID waits for the sample that confirms its
	// instance: twice the longest usual interval.
	placementLife = time.Minute
	// maxWaitingXIDs bounds each of the two lists.
	maxWaitingXIDs = 4096
)

// kernelXIDs are XIDs of the kernel log that are not counted yet.
type kernelXIDs struct {
	unmatched []waitingXID // no known GPU has the PCI address
	unplaced  []waitingXID // the next sample confirms the instance
	strays    uint64       // total of the XIDs that an inventory had no GPU for
}

type waitingXID struct {
	model.KernelXID
	received time.Time
	stray    bool            // included in strays
	gpu      model.Entity    // of an unplaced XID
	key      model.EntityKey // of an unplaced XID, by the inventory at its arrival
}

// SetKernelLog makes the kernel log the source of XIDs, or DCGM if it is unreadable.
// Call it before the first sampler starts, at each change, and after records were lost.
func (n *Node) SetKernelLog(readable bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if readable && n.latest == nil {
		n.arbiter.StartWithKernelLog()
		return
	}
	n.arbiter.SetKernelLog(readable, n.Clock())
}

// SetEngineReadsKernelLog declares that DCGM's engine may be able to read the kernel
// log; see [xid.Arbiter].
func (n *Node) SetEngineReadsKernelLog() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.arbiter.EngineReadsKernelLog = true
}

// AddKernelXID takes an XID of the kernel log. It appears with the next sample.
func (n *Node) AddKernelXID(x model.KernelXID) {
	n.mu.Lock()
	defer n.unlock()
	w := waitingXID{KernelXID: x, received: n.Clock()}
	if n.latest != nil {
		if n.matchKernelXID(w) {
			return
		}
		w.stray = true
		n.kernel.strays++
	}
	if len(n.kernel.unmatched) == maxWaitingXIDs {
		n.kernel.unmatched = n.kernel.unmatched[1:]
	}
	n.kernel.unmatched = append(n.kernel.unmatched, w)
}

// matchKernelXIDs looks for the GPUs of XIDs that arrived before their GPUs were known.
func (n *Node) matchKernelXIDs() {
	var remaining []waitingXID
	for _, w := range n.kernel.unmatched {
		if w.stray && n.Clock().Sub(w.received) >= unmatchedLife || n.matchKernelXID(w) {
			continue
		}
		if !w.stray {
			w.stray = true
			n.kernel.strays++
		}
		remaining = append(remaining, w)
	}
	n.kernel.unmatched = remaining
}

// matchKernelXID reports whether a known GPU has the XID's address. If so, and if the
// XID is new, the XID counts for the GPU, or waits for its instance to be confirmed.
func (n *Node) matchKernelXID(w waitingXID) bool {
	gpu := n.gpuAt(w.KernelXID)
	if gpu == nil {
		return false
	}
	if !n.arbiter.Logged(gpu.UUID, w.Code, n.Clock()) {
		return true
	}
	w.gpu, w.key = *gpu, instanceKey(n.latest, gpu.UUID, w.GPUInstance)
	if w.GPUInstance != model.Unknown {
		if len(n.kernel.unplaced) == maxWaitingXIDs {
			n.countKernelXID(n.kernel.unplaced[0])
			n.kernel.unplaced = n.kernel.unplaced[1:]
		}
		n.kernel.unplaced = append(n.kernel.unplaced, w)
		return true
	}
	n.countKernelXID(w)
	return true
}

// placeKernelXIDs counts the XIDs whose instances the newest sample confirms. The GPU may
// have been repartitioned between the inventory that was current at their arrival and the
// XID; if the instance may be either of two, the XID counts for the GPU.
func (n *Node) placeKernelXIDs() {
	for _, w := range n.kernel.unplaced {
		key := instanceKey(n.latest, w.key.UUID, w.GPUInstance)
		switch {
		case key == w.key:
		case w.key.Instance == model.Unknown: // created after the inventory
			w.key = key
		case key.Instance == model.Unknown && !n.latest.InstancesUnknown: // destroyed since
		default:
			w.key = model.EntityKey{UUID: w.key.UUID, Instance: model.Unknown}
		}
		n.countKernelXID(w)
	}
	n.kernel.unplaced = nil
}

// expireKernelXIDs counts the XIDs that no sample has confirmed in time.
func (n *Node) expireKernelXIDs(now time.Time) {
	for len(n.kernel.unplaced) > 0 && now.Sub(n.kernel.unplaced[0].received) >= placementLife {
		n.countKernelXID(n.kernel.unplaced[0])
		n.kernel.unplaced = n.kernel.unplaced[1:]
	}
}

func (n *Node) countKernelXID(w waitingXID) {
	now := n.Clock()
	n.xids.Add(w.key, w.Code, w.Time, w.received)
	attrs := []any{"kernel_message", w.Text}
	if w.PID != 0 {
		attrs = append(attrs, "pid", w.PID)
	}
	if w.Process != "" {
		attrs = append(attrs, "process", w.Process)
	}
	n.report.xid(&w.gpu, xid.Key{EntityKey: w.key, Code: w.Code}, now, attrs...)
}

// gpuAt returns the GPU at the address of an XID, or nil. A current GPU takes
// precedence over one that was lost.
func (n *Node) gpuAt(x model.KernelXID) (gpu *model.Entity) {
	known := n.knownGPUs() // lost GPUs first
	for i := range known {
		if at, ok := model.ParsePCIAddress(known[i].PCIBusID); ok && at == (model.PCIAddress{Domain: x.Domain, Bus: x.Bus, Device: x.Device}) {
			gpu = &known[i]
		}
	}
	return gpu
}

// instanceKey returns the key of the GPU's instance with NVML's id, or of the GPU if it
// has no such instance.
func instanceKey(inv *model.Inventory, uuid string, id int) model.EntityKey {
	for i := range inv.Entities {
		if inv.Entities[i].Kind != model.KindGPUInstance {
			continue
		}
		if key := model.KeyOf(inv, i); key.UUID == uuid && key.Instance == id {
			return key
		}
	}
	return model.EntityKey{UUID: uuid, Instance: model.Unknown}
}
