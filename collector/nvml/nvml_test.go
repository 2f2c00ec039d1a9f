// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/collector/goldentest"
)

// patience bounds the wait for a condition.
const patience = 30 * time.Second

func text(gpus []gpuAnswer) string {
	var b strings.Builder
	for _, g := range gpus {
		fmt.Fprintf(&b, "gpu %d %s mig %t", g.Index, g.UUID, g.MIGMode)
		if g.Error != "" {
			fmt.Fprintf(&b, " error %q lost %t", g.Error, g.Lost)
		}
		fmt.Fprintln(&b)
		for _, m := range g.MIGDevices {
			fmt.Fprintf(&b, "  gi %d at %d ci %d %s\n", m.GPUInstanceID, m.PlacementStart, m.ComputeInstanceID, m.UUID)
			if m.ParentUUID != g.UUID {
				fmt.Fprintf(&b, "    parent %s\n", m.ParentUUID)
			}
		}
	}
	return b.String()
}

// TestGPUs lists the identities on each simulated node.
func TestGPUs(t *testing.T) {
	for _, scenario := range dcgmsim.Scenarios() {
		t.Run(scenario, func(t *testing.T) {
			c := startNode(t, scenario)
			c.mustAsk("open")
			got := text(c.mustAsk("gpus").GPUs)
			if again := text(c.mustAsk("gpus").GPUs); again != got {
				t.Errorf("read again:\n%s\nafter\n%s", again, got)
			}
			c.mustAsk("close")

			goldentest.File(t, filepath.Join("testdata", scenario+".golden"), got, "golden")
		})
	}
}

// changed reads the GPUs before and after a command, with the same open library.
func changed(t *testing.T, scenario, command string) (before, after []gpuAnswer) {
	t.Helper()
	n := startNode(t, scenario)
	n.mustAsk("open")
	before = n.mustAsk("gpus").GPUs
	n.command(t, command)
	return before, n.mustAsk("gpus").GPUs
}

// TestRepartition shows that an open library sees a new MIG layout and nothing of the
// old one.
func TestRepartition(t *testing.T) {
	before, after := changed(t, "a100x7-mig", "mig gpu 0 3g.20gb/1c,2c+2g.10gb")
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
			t.Errorf("%s exists before and after", m.UUID)
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

// TestLostGPU shows that a lost GPU is reported and does not affect other GPUs.
func TestLostGPU(t *testing.T) {
	before, after := changed(t, "h100x8", "lose gpu 2")
	if len(after) != 8 || !after[2].Lost || after[2].UUID != "" {
		t.Fatalf("GPU 2 is not lost:\n%s", text(after))
	}
	before[2], after[2] = gpuAnswer{}, gpuAnswer{}
	if text(before) != text(after) {
		t.Errorf("other GPUs changed:\n%s\nafter\n%s", text(after), text(before))
	}
}

// TestDetachedGPU shows that a detached GPU leaves NVML's list, which renumbers the GPUs
// behind it.
func TestDetachedGPU(t *testing.T) {
	before, after := changed(t, "h100x8", "detach gpu 2")
	if len(after) != 7 || after[2].UUID != before[3].UUID || after[2].Index != 2 {
		t.Errorf("got\n%s\nafter\n%s", text(after), text(before))
	}
}

func TestMIGSwitchedOn(t *testing.T) {
	before, after := changed(t, "h100x8", "mig gpu 1 none")
	if before[1].MIGMode || !after[1].MIGMode || len(after[1].MIGDevices) != 0 || after[1].Error != "" {
		t.Errorf("got\n%s\nafter\n%s", text(after), text(before))
	}
}

// TestFaults shows that a failed call is reported and costs only its own data.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name, fault string
		check       func(a answer) bool
	}{
		{"count", "fail nvmlDeviceGetCount_v2 999", func(a answer) bool {
			return strings.Contains(a.Error, "nvmlDeviceGetCount") && strings.Contains(a.Error, "999")
		}},
		{"uuid", "fail nvmlDeviceGetUUID 999", func(a answer) bool {
			return len(a.GPUs) == 1 && len(a.GPUs[0].MIGDevices) == 0 && strings.Contains(a.GPUs[0].Error, "nvmlDeviceGetUUID")
		}},
		{"mig mode", "fail nvmlDeviceGetMigMode 999", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].UUID != "" && strings.Contains(a.GPUs[0].Error, "nvmlDeviceGetMigMode")
		}},
		{"placement refused", "fail nvmlDeviceGetGpuInstanceById 4", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].Error == "" && len(a.GPUs[0].MIGDevices) == 7 && a.GPUs[0].MIGDevices[6].PlacementStart == -1
		}},
		{"placement", "fail nvmlGpuInstanceGetInfo 999", func(a answer) bool {
			return len(a.GPUs) == 1 && len(a.GPUs[0].MIGDevices) == 7 && a.GPUs[0].MIGDevices[6].PlacementStart == -1 &&
				strings.Contains(a.GPUs[0].Error, "nvmlGpuInstanceGetInfo")
		}},
		{"instance ids", "fail nvmlDeviceGetGpuInstanceId 2", func(a answer) bool {
			return len(a.GPUs) == 1 && a.GPUs[0].MIGMode && len(a.GPUs[0].MIGDevices) == 0 && strings.Contains(a.GPUs[0].Error, "nvmlDeviceGetGpuInstanceId")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := startNode(t, "a100x7-mig", tc.fault)
			c.mustAsk("open")
			if a := c.ask("gpus"); !tc.check(a) {
				t.Errorf("error %q\n%s", a.Error, text(a.GPUs))
			}
		})
	}
}

// TestMIGDevices shows that a failing GPU does not affect the MIG devices of others.
func TestMIGDevices(t *testing.T) {
	for _, tc := range []struct {
		name, change string
		want         int
	}{
		{"all well", "state", 18},
		{"one lost", "lose gpu 0", 11},
		{"all unnamed", "fail nvmlDeviceGetUUID 999", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := startNode(t, "h100x8-mig", tc.change)
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
	t.Run("damaged answers", func(t *testing.T) {
		c := startNode(t, "h100x8-mig")
		want := c.mustAsk("mig devices").MIG
		c.command(t, "garbage nvmlDeviceGetUUID noise")
		for range 5 {
			if a := c.ask("mig devices"); a.Error == "" && !slices.Equal(a.MIG, want) {
				t.Errorf("devices %+v, want %+v", a.MIG, want)
			}
		}
		c.command(t, "clear")
		if got := c.mustAsk("mig devices").MIG; !slices.Equal(got, want) {
			t.Errorf("devices %+v, want %+v", got, want)
		}
	})
	t.Run("no library", func(t *testing.T) {
		if a := startChild(t, "LD_LIBRARY_PATH="+t.TempDir()).ask("mig devices"); !a.noLibrary() {
			t.Errorf("answer %+v", a)
		}
	})
}

func TestNoLibrary(t *testing.T) {
	c := startChild(t, "LD_LIBRARY_PATH="+t.TempDir())
	if a := c.ask("open"); !a.noLibrary() {
		t.Errorf("answer %+v", a)
	}
	// A driver container may provide it later.
	if a := c.ask("open"); !a.noLibrary() {
		t.Errorf("second answer %+v", a)
	}
}

func TestNoDriver(t *testing.T) {
	n := startNode(t, "t4x1", "fail nvmlInit_v2 9")
	if a := n.ask("open"); !strings.Contains(a.Error, "nvmlInit") || !strings.Contains(a.Error, "(9)") {
		t.Errorf("answer %+v", a)
	}
	n.command(t, "clear")
	n.mustAsk("open") // the driver is loaded now
}

func TestOpenAgain(t *testing.T) {
	c := startNode(t, "t4x1")
	for range 3 {
		c.mustAsk("open")
		if n := len(c.mustAsk("gpus").GPUs); n != 1 {
			t.Errorf("%d GPUs, want 1", n)
		}
		c.mustAsk("close")
	}
}

// TestOldLibrary shows that missing functions are not called: that would end the process.
func TestOldLibrary(t *testing.T) {
	const one = `
		#include <string.h>
		int nvmlInit(void) { return 0; }
		int nvmlShutdown(void) { return 0; }
		const char *nvmlErrorString(int rc) { return rc ? "failed" : "fine"; }
		int nvmlDeviceGetCount(unsigned *n) { *n = 1; return 0; }
		int nvmlDeviceGetHandleByIndex(unsigned i, void **d) { static int it; *d = &it; return i ? 2 : 0; }
	`
	t.Run("without MIG", func(t *testing.T) {
		dir := compile(t, one+`int nvmlDeviceGetUUID(void *d, char *uuid, unsigned len) { strncpy(uuid, "GPU-old", len); return 0; }`)
		c := startChild(t, "LD_LIBRARY_PATH="+dir)
		c.mustAsk("open")
		if got, want := text(c.mustAsk("gpus").GPUs), "gpu 0 GPU-old mig false\n"; got != want {
			t.Errorf("got %swant %s", got, want)
		}
		c.mustAsk("close")
	})
	t.Run("too old", func(t *testing.T) {
		c := startChild(t, "LD_LIBRARY_PATH="+compile(t, one))
		if a := c.ask("open"); !strings.Contains(a.Error, "has no function nvmlDeviceGetUUID") {
			t.Errorf("error %q", a.Error)
		}
	})
	t.Run("something else", func(t *testing.T) {
		c := startChild(t, "LD_LIBRARY_PATH="+compile(t, "int nothing;"))
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

// TestStuckAndCrash shows that the stand-in can hang and crash: nothing in the same
// process can bound such a call, so the sampler is a separate process.
func TestStuckAndCrash(t *testing.T) {
	n := startNode(t, "t4x1")
	n.mustAsk("open")

	n.command(t, "hang nvmlDeviceGetUUID")
	answered := make(chan error, 1)
	go func() {
		_, err := n.tryAsk("gpus")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a hung call returned: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	n.command(t, "clear")
	if err := <-answered; err != nil {
		t.Fatalf("a released call: %v", err)
	}

	n.command(t, "crash nvmlDeviceGetUUID")
	n.mayDie = true
	if a, err := n.tryAsk("gpus"); err == nil {
		t.Errorf("a crash returned %+v", a)
	}
}
