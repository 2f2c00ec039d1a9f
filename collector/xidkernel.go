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

// placeKernelXID counts the XID for the GPU at its address, if one is known.
func (n *Node) placeKernelXID(x KernelXID) bool {
	var gpu *Entity
	known := n.known() // those that are gone first
	for i := range known {
		if at, ok := parsePCIAddress(known[i].PCIBusID); ok && at == (pciAddress{x.Domain, x.Bus, x.Device}) {
			gpu = &known[i]
		}
	}
	if gpu == nil {
		return false
	}
	key := entityKey{uuid: gpu.UUID, instance: Unknown}
	split := false
	for i := range n.latest.Entities {
		if e := &n.latest.Entities[i]; e.Kind == KindGPUInstance {
			if of := instanceKey(n.latest, i); of.uuid == gpu.UUID {
				split = true
				if of.instance == x.GPUInstance {
					key = of
				}
			}
		}
	}
	now := n.now()
	if n.xids.addRecord(key, split, x.Code, x.Time, now) {
		more := []any{"kernel_says", x.Text}
		if x.PID != 0 {
			more = append(more, "pid", x.PID)
		}
		if x.Process != "" {
			more = append(more, "process", x.Process)
		}
		n.report.xid(gpu, xidKey{key, x.Code}, now, more...)
	}
	return true
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
