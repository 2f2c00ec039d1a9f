// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector/model"
)

// describe returns a reading as text, one device per line.
func describe(inv *model.Inventory, p *model.Processes) string {
	var b strings.Builder
	for _, d := range p.Devices {
		e := &inv.Entities[d.Entity]
		switch e.Kind {
		case model.KindGPU:
			fmt.Fprintf(&b, "gpu %d", e.Index)
		case model.KindGPUInstance:
			fmt.Fprintf(&b, "gpu %d gi %d", inv.Entities[e.Parent].Index, e.InstanceID)
		default:
			gi := &inv.Entities[e.Parent]
			fmt.Fprintf(&b, "gpu %d gi %d ci %d", inv.Entities[gi.Parent].Index, gi.InstanceID, e.InstanceID)
		}
		if d.Listed != model.StatusOK {
			fmt.Fprintf(&b, ": %v", d.Listed)
		}
		for i, process := range d.Processes {
			if i == 0 {
				b.WriteString(":")
			}
			fmt.Fprintf(&b, " %d %v", process.PID, process.Kind)
			if process.MemoryKnown {
				fmt.Fprintf(&b, " %d MiB", process.MemoryBytes>>20)
			}
			if d.Utilization == model.StatusOK {
				fmt.Fprintf(&b, " sm %.2f", process.SM)
			}
			b.WriteString(";")
		}
		if d.Utilization != d.Listed {
			fmt.Fprintf(&b, " utilization %v", d.Utilization)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// reading returns a reading of the newest inventory as text.
func (n *node) reading(inv *model.Inventory) string {
	n.t.Helper()
	a := n.mustAsk("processes")
	if a.Processes.Generation != inv.Generation || a.Processes.Time.IsZero() {
		n.t.Errorf("a reading of generation %d at %v, want %d", a.Processes.Generation, a.Processes.Time, inv.Generation)
	}
	return describe(inv, a.Processes)
}

// becomes waits for the wanted reading.
func (n *node) becomes(inv *model.Inventory, want string) {
	n.t.Helper()
	var got string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = n.reading(inv); got == want {
			return
		}
	}
	n.t.Errorf("got\n%swant\n%s", got, want)
}

// TestProcesses shows each kind of process on whole GPUs.
func TestProcesses(t *testing.T) {
	n := startNode(t, "h100x8",
		"process none",
		"load gpu 0 util 80",
		"process gpu 0 pid 4713 memory 64 graphics yes share 0",
		"process gpu 0 pid 4711 memory 2048 share 60",
		"process gpu 0 pid 4712 memory 512 share 20 graphics also",
		"process gpu 0 pid 4714 memory unknown share 0",
		"process gpu 1 pid 4711 memory 1024 share 100",
		"load gpu 1 idle",
		"process gpu 2 pid 30 memory 100 share 0 mps yes",
		"process gpu 2 pid 20 memory 100 share 0 mps yes graphics also",
	)
	inv := n.mustAsk("inventory").Inventory

	// The first reading has no utilisation.
	idle := "gpu 3 utilization no_data\ngpu 4 utilization no_data\ngpu 5 utilization no_data\ngpu 6 utilization no_data\ngpu 7 utilization no_data\n"
	want := "gpu 0: 4711 compute 2048 MiB; 4712 compute+graphics 512 MiB; 4713 graphics 64 MiB; 4714 compute; utilization no_data\n" +
		"gpu 1: 4711 compute 1024 MiB; utilization no_data\n" +
		"gpu 2: 20 mps 100 MiB; 30 mps 100 MiB; utilization no_data\n" + idle
	if got := n.reading(inv); got != want {
		t.Errorf("first reading\n%swant\n%s", got, want)
	}
	// The stand-in simulates the process's share of the GPU's load.
	n.becomes(inv, "gpu 0: 4711 compute 2048 MiB sm 0.48; 4712 compute+graphics 512 MiB sm 0.16; 4713 graphics 64 MiB sm 0.00; 4714 compute sm 0.00;\n"+
		"gpu 1: 4711 compute 1024 MiB sm 0.00;\n"+
		"gpu 2: 20 mps 100 MiB sm 0.00; 30 mps 100 MiB sm 0.00;\n"+strings.ReplaceAll(idle, " utilization no_data", ""))

	n.command(t, "process gone pid 4711")
	n.command(t, "load gpu 0 idle")
	want = "gpu 0: 4712 compute+graphics 512 MiB sm 0.00; 4713 graphics 64 MiB sm 0.00; 4714 compute sm 0.00;\ngpu 1\n" +
		"gpu 2: 20 mps 100 MiB sm 0.00; 30 mps 100 MiB sm 0.00;\n" + strings.ReplaceAll(idle, " utilization no_data", "")
	if got := n.reading(inv); got != want {
		t.Errorf("after a process has ended\n%swant\n%s", got, want)
	}
}

// TestProcessVideo shows the encoder and decoder utilisation of a process.
func TestProcessVideo(t *testing.T) {
	n := startNode(t, "t4x1", "process none", "load gpu 0 util 100", "process gpu 0 pid 7 share 100")
	n.mustAsk("inventory")
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		d := n.mustAsk("processes").Processes.Devices[0]
		if p := d.Processes[0]; d.Utilization == model.StatusOK && p.SM == 1 {
			if p.Encoder <= 0 || p.Encoder > 0.2 || p.Decoder <= 0 || p.Decoder > 0.3 || p.Encoder == p.Decoder {
				t.Errorf("encoder %v, decoder %v", p.Encoder, p.Decoder)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never busy: %+v", d)
		}
	}
}

// mig is a GPU with a GPU instance of two compute instances, and an idle GPU instance of
// one.
var mig = []string{"mig gpu 0 3g.20gb/1c,2c+2g.10gb", "process none gpu 0",
	"process gpu 0 pid 31 ci 0 memory 300", "process gpu 0 pid 30 ci 0 memory 200 graphics also",
	"process gpu 0 pid 30 ci 1 memory 100"}

const migProcesses = "gpu 0 gi 1 ci 0: 30 compute+graphics 200 MiB; 31 compute 300 MiB; utilization not_supported\n" +
	"gpu 0 gi 1 ci 1: 30 compute 100 MiB; utilization not_supported\n" +
	"gpu 0 gi 3 ci 0 utilization not_supported\n"

// TestMIGProcesses shows that each compute instance has its own processes, whether the
// GPU or the MIG device lists them.
func TestMIGProcesses(t *testing.T) {
	for _, tc := range []struct{ name, change, want string }{
		{"all at once", "state", migProcesses},
		{"one by one", "fail mig-monitor 4", migProcesses},
		{"refused", "fail nvmlDeviceGetComputeRunningProcesses_v3 4",
			"gpu 0 gi 1 ci 0: not_permitted\ngpu 0 gi 1 ci 1: not_permitted\ngpu 0 gi 3 ci 0: not_permitted\n"},
		{"nothing runs", "process none gpu 0",
			"gpu 0 gi 1 ci 0 utilization not_supported\ngpu 0 gi 1 ci 1 utilization not_supported\ngpu 0 gi 3 ci 0 utilization not_supported\n"},
		{"no instances", "mig gpu 0 none", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := startNode(t, "a100x7-mig", append(mig[:len(mig):len(mig)], tc.change)...)
			inv := n.mustAsk("inventory").Inventory
			if got := n.reading(inv); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// TestRepartitionProcesses shows that processes on new instances are not attributed to
// earlier instances with the same IDs.
func TestRepartitionProcesses(t *testing.T) {
	for _, tc := range []struct{ name, change, want string }{
		{"the same again", "mig gpu 0 3g.20gb/1c,2c+2g.10gb",
			"gpu 0 gi 1 ci 0: 4200001 compute 6144 MiB; utilization not_supported\n" +
				"gpu 0 gi 1 ci 1: 4200002 compute 6144 MiB; utilization not_supported\n" +
				"gpu 0 gi 3 ci 0: 4200003 compute 3072 MiB; utilization not_supported\n"},
		{"others", "mig gpu 0 1g.5gb*7", "gpu 0 gi 1 ci 0: not_found\ngpu 0 gi 1 ci 1: not_found\ngpu 0 gi 3 ci 0: not_found\n"},
		{"fewer", "mig gpu 0 3g.20gb/1c",
			"gpu 0 gi 1 ci 0: 4200001 compute 6144 MiB; utilization not_supported\ngpu 0 gi 1 ci 1: not_found\ngpu 0 gi 3 ci 0: not_found\n"},
		{"off", "mig gpu 0 off", "gpu 0 gi 1 ci 0: no_data\ngpu 0 gi 1 ci 1: no_data\ngpu 0 gi 3 ci 0: no_data\n"},
		{"lost", "lose gpu 0", "gpu 0 gi 1 ci 0: entity_lost\ngpu 0 gi 1 ci 1: entity_lost\ngpu 0 gi 3 ci 0: entity_lost\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := startNode(t, "a100x7-mig", mig...)
			inv := n.mustAsk("inventory").Inventory
			if got := n.reading(inv); got != migProcesses {
				t.Fatalf("before\n%swant\n%s", got, migProcesses)
			}
			n.command(t, tc.change)
			if got := n.reading(inv); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
	t.Run("on", func(t *testing.T) {
		n := startNode(t, "h100x8", "process none")
		inv := n.mustAsk("inventory").Inventory
		n.command(t, "mig gpu 7 1g.10gb*7")
		if got := n.reading(inv); !strings.HasSuffix(got, "gpu 7: no_data\n") {
			t.Errorf("got\n%s", got)
		}
		inv = n.mustAsk("inventory").Inventory
		if got := n.reading(inv); !strings.HasSuffix(got, "gpu 7 gi 13 ci 0: 4200707 compute 3033 MiB; utilization not_supported\n") {
			t.Errorf("with the next inventory\n%s", got)
		}
	})
}

// TestProcessFaults shows that a failed call is logged once and does not affect other data.
func TestProcessFaults(t *testing.T) {
	const fine = "gpu 0: 7 compute 10 MiB;"
	for _, tc := range []struct{ name, fault, want, log string }{
		{"refused", "fail nvmlDeviceGetComputeRunningProcesses_v3 4", "gpu 0: not_permitted", "WARN"},
		{"refused in part", "fail nvmlDeviceGetGraphicsRunningProcesses_v3 4", "gpu 0: not_permitted", "WARN"},
		{"failed", "fail nvmlDeviceGetMPSComputeRunningProcesses_v3 999", "gpu 0: error", "WARN"},
		{"no lists", "fail nvmlDeviceGetComputeRunningProcesses_v3 3", "gpu 0: not_supported", "DEBUG"},
		{"no graphics, no MPS", "fail nvmlDeviceGetGraphicsRunningProcesses_v3 3", fine + " utilization no_data", ""},
		{"no utilization", "fail nvmlDeviceGetProcessUtilization 3", fine + " utilization not_supported", "DEBUG"},
		{"utilization refused", "fail nvmlDeviceGetProcessUtilization 4", fine + " utilization not_permitted", "WARN"},
		{"utilization failed", "fail nvmlDeviceGetProcessUtilization 999", fine + " utilization error", "WARN"},
		{"MIG unknown", "fail nvmlDeviceGetMigMode 999", "gpu 0: error", "WARN"},
		{"lost", "lose gpu 0", "gpu 0: entity_lost", ""},
		{"detached", "detach gpu 0", "gpu 0: not_found", "WARN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := startNode(t, "t4x1", "process none", "process gpu 0 pid 7 memory 10")
			inv := n.mustAsk("inventory").Inventory
			n.command(t, tc.fault)
			for range 3 {
				got := strings.TrimSpace(n.reading(inv))
				// The second reading has the utilisation, unless that fails.
				if want := strings.TrimSuffix(tc.want, " utilization no_data"); !strings.HasPrefix(got, strings.TrimSuffix(want, ";")) {
					t.Fatalf("got %q, want %q", got, tc.want)
				}
			}
			log := n.mustAsk("processes").Log
			if got := strings.Count(log, "are not completely known"); got != min(1, len(tc.log)) || !strings.Contains(log, tc.log) {
				t.Errorf("want one line of %q:\n%s", tc.log, log)
			}
			n.command(t, "clear")
			if got := n.reading(inv); !strings.HasPrefix(got, strings.TrimSuffix(fine, ";")) {
				t.Errorf("after the fault: %s", got)
			}
		})
	}
	t.Run("one of many", func(t *testing.T) {
		n := startNode(t, "h100x8", "process none", "process gpu 7 pid 7 memory 10")
		inv := n.mustAsk("inventory").Inventory
		n.command(t, "lose gpu 2")
		got := n.reading(inv)
		if !strings.Contains(got, "gpu 2: entity_lost\n") || !strings.Contains(got, "gpu 7: 7 compute 10 MiB;") || strings.Count(got, "\n") != 8 {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("all", func(t *testing.T) {
		n := startNode(t, "t4x1", "process none")
		inv := n.mustAsk("inventory").Inventory
		n.command(t, "fail nvmlDeviceGetCount_v2 999")
		for range 2 {
			if a := n.ask("processes"); !strings.Contains(a.Error, "nvmlDeviceGetCount") || a.Processes != nil {
				t.Errorf("answer %+v", a)
			}
		}
		n.command(t, "clear")
		if got := n.reading(inv); got != "gpu 0 utilization no_data\n" {
			t.Errorf("after the fault: %s", got)
		}
	})
	t.Run("no library", func(t *testing.T) {
		if a := startChild(t, "LD_LIBRARY_PATH="+t.TempDir()).ask("processes"); !a.noLibrary() {
			t.Errorf("answer %+v", a)
		}
	})
}

// TestHungProcesses shows that a hung list delays neither the MIG devices nor closing.
func TestHungProcesses(t *testing.T) {
	n := startNode(t, "a100x7-mig", "process none", "process gpu 0 pid 7 ci 6")
	inv := n.mustAsk("inventory").Inventory
	n.command(t, "hang nvmlDeviceGetComputeRunningProcesses_v3")
	n.mustAsk("begin processes")
	if devices := n.mustAsk("mig devices").MIG; len(devices) != 7 {
		t.Errorf("%d MIG devices, want 7", len(devices))
	}
	n.mustAsk("close reader")
	n.command(t, "clear")
	a := n.mustAsk("end processes")
	if got := describe(inv, a.Processes); !strings.HasSuffix(got, "gpu 0 gi 13 ci 0: 7 compute 1024 MiB; utilization not_supported\n") {
		t.Errorf("after the hang:\n%s", got)
	}
}

// TestReaderTwice reads MIG devices and processes at the same time, for the race detector.
func TestReaderTwice(t *testing.T) {
	n := startNode(t, "h100x8-mig")
	n.mustAsk("inventory")
	n.mustAsk("both")
}

// TestOddLibrary shows that a library which differs from nvml.h is harmless.
func TestOddLibrary(t *testing.T) {
	const base = `
		#include <stdlib.h>
		#include <string.h>
		int nvmlInit_v2(void) { return 0; }
		int nvmlShutdown(void) { return 0; }
		const char *nvmlErrorString(int rc) { return rc ? "failed" : "fine"; }
		int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
		int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { static int it; *d = &it; return i ? 2 : 0; }
		int nvmlDeviceGetUUID(void *d, char *uuid, unsigned len) { strncpy(uuid, "GPU-odd", len); return 0; }
		int nvmlDeviceGetPciInfo_v3(void *d, char *pci) { memset(pci, 0, 68); return 0; }
		int nvmlDeviceGetMinorNumber(void *d, unsigned *n) { *n = 7; return 0; }
		struct info { unsigned pid; unsigned long long used; unsigned gi, ci; };
		static int list(unsigned *n, struct info *infos, unsigned first, unsigned second) {
			unsigned room = *n;
			*n = 2;
			if (room < 2)
				return 7;
			infos[0] = (struct info){first, 1048576, -1, -1};
			infos[1] = (struct info){second, 2097152, -1, -1};
			return 0;
		}
		int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *n, struct info *infos) { *n = 0; return 0; }
		struct sample { unsigned pid; unsigned long long at; unsigned sm, mem, enc, dec; };
	`
	const lists = `int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct info *infos) { return list(n, infos, 5, 6); }`
	const abort = `int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct info *infos) { abort(); }`
	for _, tc := range []struct{ name, source, want, log string }{
		{"no lists", "", "gpu 0: not_supported", "has no function nvmlDeviceGetComputeRunningProcesses_v3"},
		{"lists alone", lists, "gpu 0: 5 compute 1 MiB; 6 compute 2 MiB; utilization not_supported", "has no nvmlDeviceGetProcessUtilization"},
		{"MPS without a version", lists + `int nvmlDeviceGetMPSComputeRunningProcesses(void *d, unsigned *n, void *infos) { abort(); }`,
			"gpu 0: 5 compute 1 MiB; 6 compute 2 MiB; utilization not_supported", ""},
		{"longer entries", abort + `int nvmlDeviceGetConfComputeMemSizeInfo(void *d, void *i) { return 3; }`,
			"gpu 0: not_supported", "535.43"},
		{"process 0", `int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct info *infos) { return list(n, infos, 5, 0); }`,
			"gpu 0: error", "lists process 0"},
		{"a process twice", `int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct info *infos) { return list(n, infos, 5, 5); }`,
			"gpu 0: 5 compute 2 MiB; utilization not_supported", ""},
		{"more samples than announced", lists + `
			int nvmlDeviceGetProcessUtilization(void *d, void *u, unsigned *n, unsigned long long since) {
				if (!u) { *n = 1; return 7; }
				*n = 100;
				return 0;
			}`, "gpu 0: 5 compute 1 MiB; 6 compute 2 MiB; utilization error", "nvmlDeviceGetProcessUtilization"},
		{"impossible samples", lists + `
			int nvmlDeviceGetProcessUtilization(void *d, struct sample *u, unsigned *n, unsigned long long since) {
				*n = 1;
				if (!u) return 7;
				u[0] = (struct sample){5, since + 1, 37100, 0, 50583, 0};
				return 0;
			}`, "gpu 0: 5 compute 1 MiB; 6 compute 2 MiB; utilization error", "more than 100 % for process 5"},
		{"garbage behind the samples", lists + `
			int nvmlDeviceGetProcessUtilization(void *d, struct sample *u, unsigned *n, unsigned long long since) {
				*n = 4;
				if (!u) return 7;
				u[0] = (struct sample){5, since + 1, 40, 0, 0, 0};
				u[1] = (struct sample){6, since + (1ull << 60), 37100, 0, 0, 0};
				u[2] = (struct sample){6, 49936, 0, 3313, 0, 0};
				u[3] = (struct sample){0, 0, 0, 0, 0, 0};
				return 0;
			}`, "gpu 0: 5 compute 1 MiB sm 0.40; 6 compute 2 MiB sm 0.00;", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &node{child: startChild(t, "LD_LIBRARY_PATH="+compile(t, base+tc.source))}
			inv := c.mustAsk("inventory").Inventory
			c.mustAsk("processes") // the first knows of no utilization
			a := c.mustAsk("processes")
			if got := strings.TrimSpace(describe(inv, a.Processes)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if !strings.Contains(a.Log, tc.log) || tc.log == "" && strings.Contains(a.Log, "WARN") {
				t.Errorf("the log does not contain %q:\n%s", tc.log, a.Log)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	entry := func(pid uint32, kind model.ProcessKind, memory uint64) listed {
		return listed{Process: model.Process{PID: pid, Kind: kind, MemoryBytes: memory, MemoryKnown: memory > 0}}
	}
	const c, g, m = model.ProcessCompute, model.ProcessGraphics, model.ProcessMPS
	for name, tc := range map[string]struct {
		list []listed
		want []model.Process
	}{
		"none":         {nil, nil},
		"order":        {[]listed{entry(2, c, 1), entry(1, g, 2)}, []model.Process{{PID: 1, Kind: g, MemoryBytes: 2, MemoryKnown: true}, {PID: 2, Kind: c, MemoryBytes: 1, MemoryKnown: true}}},
		"both":         {[]listed{entry(1, c, 5), entry(1, g, 5)}, []model.Process{{PID: 1, Kind: model.ProcessComputeGraphics, MemoryBytes: 5, MemoryKnown: true}}},
		"client":       {[]listed{entry(1, c, 5), entry(1, m, 5)}, []model.Process{{PID: 1, Kind: m, MemoryBytes: 5, MemoryKnown: true}}},
		"all":          {[]listed{entry(1, c, 5), entry(1, g, 5), entry(1, m, 5)}, []model.Process{{PID: 1, Kind: m, MemoryBytes: 5, MemoryKnown: true}}},
		"known in one": {[]listed{entry(1, c, 0), entry(1, g, 5)}, []model.Process{{PID: 1, Kind: model.ProcessComputeGraphics, MemoryBytes: 5, MemoryKnown: true}}},
		"unknown":      {[]listed{entry(1, c, 0)}, []model.Process{{PID: 1, Kind: c}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := merge(tc.list); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestNewUsage(t *testing.T) {
	used, newest := newUsage([]nvml.ProcessUtilizationSample{
		{Pid: 1, TimeStamp: 101, SmUtil: 10, EncUtil: 20, DecUtil: 30},
		{Pid: 1, TimeStamp: 103, SmUtil: 30, EncUtil: 0, DecUtil: 31},
		{Pid: 2, TimeStamp: 102, SmUtil: 100},
		{Pid: 3, TimeStamp: 100, SmUtil: 50},            // counted already
		{Pid: 3, TimeStamp: 201, SmUtil: 50},            // still to come
		{Pid: 4, TimeStamp: 150, SmUtil: math.MaxInt32}, // impossible
	}, 100, 200)
	if newest != 150 {
		t.Errorf("newest time %d, want 150", newest)
	}
	for pid, want := range map[uint32][3]float64{1: {0.2, 0.1, 0.305}, 2: {1, 0, 0}, 3: {}} {
		p := used[pid]
		if got := [3]float64{p.mean(p.sm), p.mean(p.encoder), p.mean(p.decoder)}; got != want {
			t.Errorf("process %d: %v, want %v", pid, got, want)
		}
	}
	if p := used[4]; p.mean(p.sm) <= 1 {
		t.Errorf("process 4: %+v, want more than 100 %%", p)
	}
}
