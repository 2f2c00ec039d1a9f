// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"strconv"
	"strings"
)

// Unknown stands in an [XID] for an instance that the driver does not name.
const Unknown = -1

// XID is one XID error as the driver logs it.
type XID struct {
	// Domain, Bus and Device are the GPU's PCI address; the driver does not write
	// the function, which is 0.
	Domain      uint32
	Bus, Device uint8
	Code        int64
	// GPUInstance and ComputeInstance are NVML's ids of what the error is put down
	// to on a GPU in MIG mode, or Unknown.
	GPUInstance, ComputeInstance int
	// PID and Process are those of the process that the driver takes to be the
	// cause; 0 and "" where it names none.
	PID     int
	Process string
	// Text is what the driver says beyond that.
	Text string
}

// record is one record of /dev/kmsg, see Documentation/ABI/testing/dev-kmsg of
// the kernel.
type record struct {
	facility int // 0 is the kernel; user space cannot write as that
	sequence uint64
	text     string
}

// parseRecord reads "priority,sequence,microseconds,flags[,more];text". What
// follows on further lines is a dictionary.
func parseRecord(line string) (record, bool) {
	header, text, ok := strings.Cut(line, ";")
	if !ok {
		return record{}, false
	}
	priority, rest, _ := strings.Cut(header, ",")
	sequence, _, ok := strings.Cut(rest, ",")
	if !ok {
		return record{}, false
	}
	p, err := strconv.ParseUint(priority, 10, 16)
	if err != nil {
		return record{}, false
	}
	seq, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil {
		return record{}, false
	}
	text, _, _ = strings.Cut(text, "\n")
	return record{facility: int(p >> 3), sequence: seq, text: text}, true
}

// parseXID reads the driver's line on an XID. It has one of the forms, with pid
// and name only where a process is known (krcReportXid in kernel_rc.c of
// NVIDIA's open-gpu-kernel-modules; older drivers write the pid alone):
//
//	NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.
//	NVRM: Xid (PCI:0000:18:00 GPU-I:05): 94, pid=7194, name=python3, Contained: …
//	NVRM: Xid (PCI:0000:18:00 GPU-I:05 GPU-CI:00): 13, pid=7194, name=python3, …
//
// Numbers in the address are hexadecimal and those of instances decimal.
//
// The line "NVRM: GPU 0000:18:00.0: GPU has fallen off the bus." carries no XID
// and is not counted: osHandleGpuLost in osinit.c logs XID 79 before it.
func parseXID(text string) (XID, bool) {
	where, rest, ok := strings.Cut(text, "): ")
	if !ok {
		return XID{}, false
	}
	where, ok = strings.CutPrefix(where, "NVRM: Xid (PCI:")
	if !ok {
		return XID{}, false
	}
	x := XID{GPUInstance: Unknown, ComputeInstance: Unknown}
	address, instances, _ := strings.Cut(where, " ")
	if !x.parseAddress(address) {
		return XID{}, false
	}
	for word := range strings.FieldsSeq(instances) {
		switch kind, id, _ := strings.Cut(word, ":"); kind {
		case "GPU-I":
			x.GPUInstance = instance(id)
		case "GPU-CI":
			x.ComputeInstance = instance(id)
		}
	}
	code, rest, _ := strings.Cut(rest, ",")
	n, err := strconv.ParseUint(code, 10, 31)
	if err != nil {
		return XID{}, false
	}
	x.Code = int64(n)
	rest = strings.TrimSpace(rest)
	if pid, after, ok := cutWord(rest, "pid="); ok {
		rest = after
		if n, err := strconv.ParseUint(pid, 10, 31); err == nil { // else '<unknown>'
			x.PID = int(n)
		}
	}
	if name, after, ok := cutWord(rest, "name="); ok {
		rest = after
		if name != "<unknown>" {
			x.Process = name
		}
	}
	x.Text = rest
	return x, true
}

func (x *XID) parseAddress(s string) bool {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return false
	}
	domain, err := strconv.ParseUint(parts[0], 16, 32)
	if err != nil {
		return false
	}
	bus, err := strconv.ParseUint(parts[1], 16, 8)
	if err != nil {
		return false
	}
	device, err := strconv.ParseUint(parts[2], 16, 5)
	if err != nil {
		return false
	}
	x.Domain, x.Bus, x.Device = uint32(domain), uint8(bus), uint8(device)
	return true
}

// instance reads the id of an instance.
func instance(s string) int {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return int(n)
	}
	return Unknown
}

// cutWord takes "key=value, " from the front of s.
func cutWord(s, key string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, key)
	if !ok {
		return "", s, false
	}
	value, rest, _ = strings.Cut(s, ",")
	return value, strings.TrimSpace(rest), true
}
