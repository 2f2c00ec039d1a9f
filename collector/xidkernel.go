// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"strconv"
	"strings"
	"time"
)

const (
	// strayLife is how long an XID of the kernel log is kept for a GPU at whose
	// address DCGM knows none: it may start later, or be bound later.
	strayLife = 10 * time.Minute
	// maxStrays bounds how many are kept.
	maxStrays = 4096
)

// KernelXID is an XID error that the kernel log tells of.
type KernelXID struct {
	// Domain, Bus and Device are the PCI address of the GPU.
	Domain      uint32
	Bus, Device uint8
	Code        int64
	// GPUInstance is NVML's id of the GPU instance that the driver puts it down
	// to, or [Unknown].
	GPUInstance int
	Time        time.Time
	// Process is the name of the process that the driver names, PID its id; empty
	// and 0 if there is none. Text is what else the driver says.
	Process string
	PID     int
	Text    string
}

// KernelLogStatus says how the kernel log is followed.
type KernelLogStatus struct {
	Up bool
	// Lost is how many records were overwritten before they were read.
	Lost uint64
}

// kernelXIDs are those of the kernel log at addresses without a known GPU.
type kernelXIDs struct {
	waiting []strayXID
	strays  uint64 // since the start, where an inventory was known
}

type strayXID struct {
	KernelXID
	told    time.Time
	counted bool // among the strays
}

// AddKernelXID takes an XID of the kernel log. The same XID may come from DCGM,
// before or after; it counts once. It shows with the next sample.
func (n *Node) AddKernelXID(x KernelXID) {
	n.mu.Lock()
	defer n.unlock()
	stray := strayXID{KernelXID: x, told: n.now()}
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
	n.xids.twins = true
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
		if n.now().Sub(x.told) < strayLife {
			still = append(still, x)
		}
	}
	n.kernel.waiting = still
}

// placeKernelXID takes the XID as one of the GPU at its address, if one is known.
func (n *Node) placeKernelXID(x KernelXID) bool {
	gpu := n.gpuAt(x)
	if gpu == nil {
		return false
	}
	now := n.now()
	r := loggedXID{code: x.Code, at: x.Time, number: x.GPUInstance}
	r.key, r.split = instanceOf(n.latest, gpu.UUID, x.GPUInstance)
	if !n.xids.addRecord(r, now) {
		return true
	}
	more := []any{"kernel_says", x.Text}
	if x.PID != 0 {
		more = append(more, "pid", x.PID)
	}
	if x.Process != "" {
		more = append(more, "process", x.Process)
	}
	n.report.xid(gpu, xidKey{r.key, x.Code}, now, more...)
	return true
}

// decideXIDs says of which instances those XIDs are whose instance the driver has
// named: the GPU may have been split anew between the newest inventory and the XID, and
// that is known as of now.
func (n *Node) decideXIDs() {
	n.xids.decide(func(told entityKey, number int) entityKey {
		key, _ := instanceOf(n.latest, told.uuid, number)
		switch {
		case key == told || told.instance == Unknown: // it is as it was, or new
			return key
		case key.instance == Unknown && !n.latest.InstancesUnknown:
			return told // it is gone, and no other has its number
		}
		return entityKey{uuid: told.uuid, instance: Unknown} // of either
	})
}

// gpuAt returns the GPU at the address of an XID, or nil.
func (n *Node) gpuAt(x KernelXID) (gpu *Entity) {
	known := n.known() // those that are gone first
	for i := range known {
		if at, ok := parsePCIAddress(known[i].PCIBusID); ok && at == (pciAddress{x.Domain, x.Bus, x.Device}) {
			gpu = &known[i]
		}
	}
	return gpu
}

// instanceOf returns the key of a GPU's instance with NVML's id or, if it has none, of
// the GPU, and whether the GPU is split.
func instanceOf(inv *Inventory, uuid string, id int) (key entityKey, split bool) {
	key = entityKey{uuid: uuid, instance: Unknown}
	for i := range inv.Entities {
		if inv.Entities[i].Kind != KindGPUInstance {
			continue
		}
		if of := instanceKey(inv, i); of.uuid == uuid {
			split = true
			if of.instance == id {
				key = of
			}
		}
	}
	return key, split
}

// pciAddress is where a GPU is, without the function.
type pciAddress struct {
	domain      uint32
	bus, device uint8
}

// parsePCIAddress reads a bus id as DCGM writes it: 00000000:18:00.0.
func parsePCIAddress(busID string) (pciAddress, bool) {
	busID, _, _ = strings.Cut(busID, ".")
	parts := strings.Split(busID, ":")
	if len(parts) != 3 {
		return pciAddress{}, false
	}
	var n [3]uint64
	for i, bits := range []int{32, 8, 8} {
		v, err := strconv.ParseUint(parts[i], 16, bits)
		if err != nil {
			return pciAddress{}, false
		}
		n[i] = v
	}
	return pciAddress{uint32(n[0]), uint8(n[1]), uint8(n[2])}, true
}
