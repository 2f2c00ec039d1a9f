// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

// patience is for what must happen, but not at a certain time.
const patience = 30 * time.Second

func text(gpus []gpuAnswer) string {
	var b strings.Builder
	for _, g := range gpus {
		fmt.Fprintf(&b, "gpu %d %s minor %d pci %s mig %t", g.Index, g.UUID, g.Minor, g.PCIBusID, g.MIGMode)
		if g.Error != "" {
			fmt.Fprintf(&b, " error %q lost %t", g.Error, g.Lost)
		}
		fmt.Fprintln(&b)
		for _, m := range g.MIGDevices {
			fmt.Fprintf(&b, "  gi %d ci %d %s\n", m.GPUInstanceID, m.ComputeInstanceID, m.UUID)
			if m.ParentUUID != g.UUID {
				fmt.Fprintf(&b, "    parent %s\n", m.ParentUUID)
			}
		}
	}
	return b.String()
}

// TestGPUs lists the identities on each simulated node.
func TestGPUs(t *testing.T) {
	dir := standIn(t)
	for _, scenario := range []string{"h100x8", "h100x8-mig", "a100x7-mig", "t4x1", "mixed4", "none"} {
		t.Run(scenario, func(t *testing.T) {
			c := startChild(t, dir, "DCGMSIM_SCENARIO="+scenario)
			c.mustAsk("open")
			got := text(c.mustAsk("gpus").GPUs)
			if again := text(c.mustAsk("gpus").GPUs); again != got {
				t.Errorf("read again:\n%s\nafter\n%s", again, got)
			}
			c.mustAsk("close")

			golden := filepath.Join("testdata", scenario+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// changing starts a child on a node that changes by itself after a while, and
// returns what was read before and after.
func changing(t *testing.T, scenario string) (c *child, before, after []gpuAnswer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "changing.scenario")
	if err := os.WriteFile(file, []byte(scenario), 0o666); err != nil {
		t.Fatal(err)
	}
	c = startChild(t, standIn(t), "DCGMSIM_SCENARIO="+file)
	c.mustAsk("open")
	before = c.mustAsk("gpus").GPUs
	after = before
	for deadline := time.Now().Add(patience); text(after) == text(before); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing has changed after %s:\n%s", patience, text(before))
		}
		after = c.mustAsk("gpus").GPUs
	}
	return c, before, after
}

// TestResplit: the same open library sees a new MIG layout, without a trace of
// the old one.
func TestResplit(t *testing.T) {
	_, before, after := changing(t, "base a100x7-mig\nat 2s mig gpu 0 3g.20gb/1c,2c+2g.10gb\n")
	if n := len(before[0].MIGDevices); n != 7 {
		t.Errorf("%d MIG devices before, want 7:\n%s", n, text(before))
	}
	old := make(map[string]bool)
	for _, m := range before[0].MIGDevices {
		old[m.UUID] = true
	}
	var got []string
	for _, m := range after[0].MIGDevices {
		if old[m.UUID] {
			t.Errorf("%s is there before and after", m.UUID)
		}
		got = append(got, fmt.Sprintf("%d/%d", m.GPUInstanceID, m.ComputeInstanceID))
	}
	if want := "1/0 1/1 3/0"; strings.Join(got, " ") != want {
		t.Errorf("instances %q, want %s", got, want)
	}
	if after[0].UUID != before[0].UUID || after[0].Error != "" {
		t.Errorf("the GPU itself changed:\n%s", text(after))
	}
}

// TestLostGPU: a lost GPU says so and costs no other GPU anything.
func TestLostGPU(t *testing.T) {
	_, before, after := changing(t, "base h100x8\nat 2s lose gpu 2\n")
	if len(after) != 8 || !after[2].Lost || after[2].UUID != "" {
		t.Fatalf("GPU 2 is not lost:\n%s", text(after))
	}
	before[2], after[2] = gpuAnswer{}, gpuAnswer{}
	if text(before) != text(after) {
		t.Errorf("others changed:\n%s\nafter\n%s", text(after), text(before))
	}
}

// TestDetachedGPU: a GPU that was taken from the driver is not in NVML's list,
// and the ones behind it move up.
func TestDetachedGPU(t *testing.T) {
	_, before, after := changing(t, "base h100x8\nat 2s detach gpu 2\n")
	if len(after) != 7 || after[2].UUID != before[3].UUID || after[2].Minor != before[3].Minor || after[2].Index != 2 {
		t.Errorf("got\n%s\nafter\n%s", text(after), text(before))
	}
}

func TestMIGSwitchedOn(t *testing.T) {
	_, before, after := changing(t, "base h100x8\nat 2s mig gpu 1 none\n")
	if before[1].MIGMode || !after[1].MIGMode || len(after[1].MIGDevices) != 0 || after[1].Error != "" {
		t.Errorf("got\n%s\nafter\n%s", text(after), text(before))
	}
}

// TestFaults: what fails is told where it fails; the rest is there.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name, faults string
		check        func(a answer) bool
	}{
		{"count", "fail nvmlDeviceGetCount_v2 999", func(a answer) bool {
			return strings.Contains(a.Error, "nvmlDeviceGetCount") && strings.Contains(a.Error, "999")
		}},
		{"minor not supported", "fail nvmlDeviceGetMinorNumber 3", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].Minor == -1 && a.GPUs[0].Error == "" && len(a.GPUs[0].MIGDevices) == 7
		}},
		{"uuid", "fail nvmlDeviceGetUUID 999", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].PCIBusID != "" && strings.Contains(a.GPUs[0].Error, "nvmlDeviceGetUUID")
		}},
		{"mig mode", "fail nvmlDeviceGetMigMode 999", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].UUID != "" && strings.Contains(a.GPUs[0].Error, "nvmlDeviceGetMigMode")
		}},
		{"instance ids", "fail nvmlDeviceGetGpuInstanceId 2", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].MIGMode && len(a.GPUs[0].MIGDevices) == 0 && strings.Contains(a.GPUs[0].Error, "nvmlDeviceGetGpuInstanceId")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "faulty.scenario")
			if err := os.WriteFile(file, []byte("base a100x7-mig\n"+tc.faults+"\n"), 0o666); err != nil {
				t.Fatal(err)
			}
			c := startChild(t, standIn(t), "DCGMSIM_SCENARIO="+file)
			c.mustAsk("open")
			if a := c.ask("gpus"); !tc.check(a) {
				t.Errorf("error %q\n%s", a.Error, text(a.GPUs))
			}
		})
	}
}

// TestMIGDevices: the devices of all GPUs, whatever is wrong with some.
func TestMIGDevices(t *testing.T) {
	for _, tc := range []struct {
		name, change string
		want         int
	}{
		{"all well", "", 18},
		{"one lost", "lose gpu 0", 11},
		{"all unnamed", "fail nvmlDeviceGetUUID 999", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "some.scenario")
			if err := os.WriteFile(file, []byte("base h100x8-mig\n"+tc.change+"\n"), 0o666); err != nil {
				t.Fatal(err)
			}
			c := startChild(t, standIn(t), "DCGMSIM_SCENARIO="+file)
			for range 2 {
				devices := c.mustAsk("mig devices").MIG
				if len(devices) != tc.want {
					t.Errorf("%d devices, want %d: %+v", len(devices), tc.want, devices)
				}
				for _, d := range devices {
					if !strings.HasPrefix(d.UUID, "MIG-") || !strings.HasPrefix(d.ParentUUID, "GPU-") {
						t.Errorf("device %+v", d)
					}
				}
			}
		})
	}
	t.Run("no library", func(t *testing.T) {
		if a := startChild(t, t.TempDir()).ask("mig devices"); !a.NoLibrary {
			t.Errorf("answer %+v", a)
		}
	})
}

func TestNoLibrary(t *testing.T) {
	c := startChild(t, t.TempDir())
	if a := c.ask("open"); !a.NoLibrary || a.NoDriver || !strings.Contains(a.Error, libraryName) {
		t.Errorf("answer %+v", a)
	}
	// It may come later: a driver container that is not up yet.
	if a := c.ask("open"); !a.NoLibrary {
		t.Errorf("second answer %+v", a)
	}
}

func TestNoDriver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broken.scenario")
	if err := os.WriteFile(file, []byte("base t4x1\nfail nvmlInit_v2 9\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, standIn(t), "DCGMSIM_SCENARIO="+file)
	if a := c.ask("open"); !a.NoDriver || a.NoLibrary {
		t.Errorf("answer %+v", a)
	}
}

func TestOpenAgain(t *testing.T) {
	c := startChild(t, standIn(t), "DCGMSIM_SCENARIO=t4x1")
	for range 3 {
		c.mustAsk("open")
		if n := len(c.mustAsk("gpus").GPUs); n != 1 {
			t.Errorf("%d GPUs, want 1", n)
		}
		c.mustAsk("close")
	}
}

// TestOldLibrary: functions that a library lacks are not called, since that
// would end the process.
func TestOldLibrary(t *testing.T) {
	const one = `
		#include <string.h>
		int nvmlInit(void) { return 0; }
		int nvmlShutdown(void) { return 0; }
		const char *nvmlErrorString(int rc) { return rc ? "failed" : "fine"; }
		int nvmlDeviceGetCount(unsigned *n) { *n = 1; return 0; }
		int nvmlDeviceGetHandleByIndex(unsigned i, void **d) { static int it; *d = &it; return i ? 2 : 0; }
		int nvmlDeviceGetUUID(void *d, char *uuid, unsigned len) { strncpy(uuid, "GPU-old", len); return 0; }
		int nvmlDeviceGetPciInfo(void *d, void *pci) {
			struct { char legacy[16]; unsigned domain, bus, device, id; } *p = pci;
			p->domain = 0; p->bus = 0x3b; p->device = 0;
			return 0;
		}
	`
	t.Run("without MIG", func(t *testing.T) {
		dir := compile(t, one+`int nvmlDeviceGetMinorNumber(void *d, unsigned *n) { *n = 7; return 0; }`)
		c := startChild(t, dir)
		c.mustAsk("open")
		if got, want := text(c.mustAsk("gpus").GPUs), "gpu 0 GPU-old minor 7 pci 00000000:3B:00.0 mig false\n"; got != want {
			t.Errorf("got %swant %s", got, want)
		}
		c.mustAsk("close")
	})
	t.Run("too old", func(t *testing.T) {
		c := startChild(t, compile(t, one))
		if a := c.ask("open"); !strings.Contains(a.Error, "has no function nvmlDeviceGetMinorNumber") {
			t.Errorf("error %q", a.Error)
		}
	})
	t.Run("something else", func(t *testing.T) {
		c := startChild(t, compile(t, "int nothing;"))
		if a := c.ask("open"); !strings.Contains(a.Error, "has no function nvmlInit") {
			t.Errorf("error %q", a.Error)
		}
	})
}

// compile makes a libnvidia-ml.so.1 and returns its directory.
func compile(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", filepath.Join(dir, libraryName))
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return dir
}

// TestProcesses is of the stand-in: the processes of a device and of its MIG
// devices, with NVML's ids of the instances.
func TestProcesses(t *testing.T) {
	scenario := `base h100x8-mig
mig gpu 0 3g.40gb/1c,2c
at 0s process gone pid 20700 # which the node makes up
process gpu 7 pid 4711 memory 2048 share 60
process gpu 7 pid 4712 memory 512 share 0
process gpu 7 pid 4713 memory 64 graphics yes
load gpu 7 util 80
`
	file := filepath.Join(t.TempDir(), "processes.scenario")
	if err := os.WriteFile(file, []byte(scenario), 0o666); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, standIn(t), "DCGMSIM_SCENARIO="+file)
	c.mustAsk("open")
	want := map[string]string{
		"gpu 0 ":       "gpu 0 pid 20001 MiB 12211 gi 1 ci 0; gpu 0 pid 20002 MiB 12211 gi 1 ci 1; gpu 0 utilisation not supported",
		"gpu 0 mig 0 ": "gpu 0 mig 0 pid 20001 MiB 12211 gi 1 ci 0; gpu 0 mig 0 utilisation not supported",
		"gpu 0 mig 1 ": "gpu 0 mig 1 pid 20002 MiB 12211 gi 1 ci 1; gpu 0 mig 1 utilisation not supported",
		"gpu 7 ":       "gpu 7 pid 4711 MiB 2048 gi -1 ci -1; gpu 7 pid 4712 MiB 512 gi -1 ci -1; gpu 7 pid 4713 MiB 64 graphics; gpu 7 pid 4711 busy",
	}
	var got map[string]string
	matches := func() bool {
		list := c.mustAsk("processes").Processes
		got = make(map[string]string)
		for prefix := range want {
			var lines []string
			for _, line := range list {
				if strings.HasPrefix(line, prefix) && (strings.Contains(prefix, "mig") || !strings.Contains(line, "mig")) {
					lines = append(lines, line)
				}
			}
			got[prefix] = strings.Join(lines, "; ")
		}
		for prefix := range want {
			if got[prefix] != want[prefix] {
				return false
			}
		}
		return true
	}
	// The first sample of the utilisation comes after a sampling period.
	for deadline := time.Now().Add(5 * time.Second); !matches(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			for prefix := range want {
				if got[prefix] != want[prefix] {
					t.Errorf("%s: got\n%s\nwant\n%s", prefix, got[prefix], want[prefix])
				}
			}
			return
		}
	}
}
