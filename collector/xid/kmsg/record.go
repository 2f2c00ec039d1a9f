// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"strconv"
	"strings"

	"gpu_exporter/collector/model"
)

// record is one record of /dev/kmsg; see Documentation/ABI/testing/dev-kmsg of the kernel.
type record struct {
	facility int // 0: the kernel; programs cannot write it
	sequence uint64
	text     string
}

// parseRecord parses "priority,sequence,microseconds,flags[,more];text". Further lines
// are a dictionary and are ignored.
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

// parseXID parses the driver's line for an XID, without its time. The line has one of these
// forms, with pid and name only if the process is known (krcReportXid in kernel_rc.c of
// NVIDIA's open-gpu-kernel-modules). Older drivers write the pid without the name.
//
//	NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.
//	NVRM: Xid (PCI:0000:18:00 GPU-I:05): 94, pid=7194, name=python3, Contained: …
//	NVRM: Xid (PCI:0000:18:00 GPU-I:05 GPU-CI:00): 13, pid=7194, name=python3, …
//
// The address is hexadecimal; the ids of instances are decimal.
//
// The line "NVRM: GPU 0000:18:00.0: GPU has fallen off the bus." has no XID and is ignored:
// osHandleGpuLost in osinit.c logs XID 79 before it.
func parseXID(text string) (model.KernelXID, bool) {
	where, rest, ok := strings.Cut(text, "): ")
	if !ok {
		return model.KernelXID{}, false
	}
	where, ok = strings.CutPrefix(where, "NVRM: Xid (PCI:")
	if !ok {
		return model.KernelXID{}, false
	}
	address, instances, _ := strings.Cut(where, " ")
	at, ok := model.ParsePCIAddress(address)
	if !ok || at.Device > 31 || strings.Contains(address, ".") {
		return model.KernelXID{}, false
	}
	code, rest, _ := strings.Cut(rest, ",")
	n, err := strconv.ParseUint(code, 10, 31)
	if err != nil {
		return model.KernelXID{}, false
	}
	x := model.KernelXID{Domain: at.Domain, Bus: at.Bus, Device: at.Device, Code: int64(n), GPUInstance: model.Unknown}
	for word := range strings.FieldsSeq(instances) {
		if id, ok := strings.CutPrefix(word, "GPU-I:"); ok {
			if n, err := strconv.ParseUint(id, 10, 16); err == nil {
				x.GPUInstance = int(n)
			}
		}
	}
	rest = strings.TrimSpace(rest)
	pid, rest := cutValue(rest, "pid=")
	if n, err := strconv.ParseUint(pid, 10, 31); err == nil { // it may be '<unknown>'
		x.PID = int(n)
	}
	if x.Process, x.Text = cutValue(rest, "name="); x.Process == "<unknown>" {
		x.Process = ""
	}
	return x, true
}

// cutValue removes "key=value, " from the start of s. The value is empty if s has a
// different start.
func cutValue(s, key string) (value, rest string) {
	after, ok := strings.CutPrefix(s, key)
	if !ok {
		return "", s
	}
	value, rest, _ = strings.Cut(after, ",")
	return value, strings.TrimSpace(rest)
}
