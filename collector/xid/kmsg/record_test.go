// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"strings"
	"testing"

	"gpu_exporter/collector/model"
)

// xid returns an XID of the GPU at 0000:18:00, without an instance or a process.
func xid(code int64, change func(*model.KernelXID)) *model.KernelXID {
	x := &model.KernelXID{Bus: 0x18, Code: code, GPUInstance: model.Unknown}
	if change != nil {
		change(x)
	}
	return x
}

func TestParseXID(t *testing.T) {
	for text, want := range map[string]*model.KernelXID{
		"NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.": xid(79, func(x *model.KernelXID) { x.Text = "GPU has fallen off the bus." }),
		"NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.": xid(79, func(x *model.KernelXID) {
			x.Text = "GPU has fallen off the bus."
		}),
		"NVRM: Xid (PCI:0000:18:00): 31, pid=4242, Ch 00000008, intr 10000000": xid(31, func(x *model.KernelXID) { x.PID, x.Text = 4242, "Ch 00000008, intr 10000000" }),
		"NVRM: Xid (PCI:0000:18:00 GPU-I:05): 94, pid=7194, name=python3, Contained: CE User Channel (0x9). RST: No, D-RST: No": xid(94, func(x *model.KernelXID) {
			x.GPUInstance, x.PID, x.Process, x.Text = 5, 7194, "python3", "Contained: CE User Channel (0x9). RST: No, D-RST: No"
		}),
		"NVRM: Xid (PCI:0000:18:00 GPU-I:13 GPU-CI:02): 13, pid=1, name=a b (c): d, Graphics Exception": xid(13, func(x *model.KernelXID) {
			x.GPUInstance, x.PID, x.Process, x.Text = 13, 1, "a b (c): d", "Graphics Exception"
		}),
		"NVRM: Xid (PCI:0000:18:00): 45, pid=9, name=x, Ch 3 caused by previous Xid 31": xid(45, func(x *model.KernelXID) {
			x.PID, x.Process, x.Text = 9, "x", "Ch 3 caused by previous Xid 31"
		}),
		"NVRM: Xid (PCI:b8d4a:c1:1f): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)": xid(154, func(x *model.KernelXID) {
			x.Domain, x.Bus, x.Device, x.Text = 0xb8d4a, 0xc1, 0x1f, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
		}),
		"NVRM: Xid (PCI:0000:18:00): 8": xid(8, nil),

		"NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.":     nil,
		"nvidia-nvswitch0: SXid (PCI:0000:18:00.0): 12028, Fatal": nil,
		"[42.0] NVRM: Xid (PCI:0000:18:00): 79, gone":             nil, // not at the start: a quotation
		"NVRM: Xid (PCI:0000:18:00.0): 79, gone":                  nil,
		"NVRM: Xid (PCI:0000:18): 79, gone":                       nil,
		"NVRM: Xid (PCI:0000:18:20): 79, gone":                    nil,
		"NVRM: Xid (PCI:0000:18:1ff): 79, gone":                   nil,
		"NVRM: Xid (PCI:0000:18:00): -79, gone":                   nil,
		"NVRM: Xid (PCI:0000:18:00): , gone":                      nil,
		"NVRM: Xid (PCI:0000:18:00) 79":                           nil,
		"":                                                        nil,
	} {
		switch got, ok := parseXID(text); {
		case ok != (want != nil):
			t.Errorf("%q: %+v, %v", text, got, ok)
		case ok && got != *want:
			t.Errorf("%q:\ngot  %+v\nwant %+v", text, got, *want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	for line, want := range map[string]record{
		"3,7,1234,-;text":                {0, 7, "text"},
		"6,18,0,-,caller=T1;a;b":         {0, 18, "a;b"},
		"4,1,1,c;text\n SUBSYSTEM=pci\n": {0, 1, "text"},
		"30,5,1,-;by a program":          {3, 5, "by a program"},
	} {
		if got, ok := parseRecord(line); !ok || got != want {
			t.Errorf("%q: %+v, %v; want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", ";", "3;x", "3,7;x", "x,7,1,-;x", "3,-1,1,-;x", " SUBSYSTEM=pci;x", "text without a header"} {
		if got, ok := parseRecord(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

// FuzzParse: no input panics, and the texts of an XID occur in its line.
func FuzzParse(f *testing.F) {
	f.Add("3,7,1234,-;NVRM: Xid (PCI:0000:18:00 GPU-I:05 GPU-CI:00): 13, pid=7194, name=python3, Graphics Exception")
	f.Add("3,7,1234,-;NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, gone")
	f.Add("3,7,1234,-;NVRM: Xid (PCI:0000:18:00): 79")
	f.Fuzz(func(t *testing.T, line string) {
		r, ok := parseRecord(line)
		if !ok {
			return
		}
		x, ok := parseXID(r.text)
		if !ok {
			return
		}
		if x.Code < 0 || x.Device > 31 || x.GPUInstance < model.Unknown || x.PID < 0 {
			t.Errorf("%q: %+v", line, x)
		}
		if !strings.Contains(line, x.Process) || !strings.Contains(line, x.Text) {
			t.Errorf("%q: %+v", line, x)
		}
	})
}
