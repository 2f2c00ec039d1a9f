// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHangHoldsOnlyItsCall(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{150}, [2]int{feGPU, 0})
	n.must(t, "hang dcgmGetAllDevices")
	p.send("devices")
	select {
	case a := <-p.answers:
		t.Fatalf("a hanging call answered: %s", a)
	case <-time.After(300 * time.Millisecond):
	}
	// Other processes and calls continue; this call returns when the fault is cleared.
	if answer := n.must(t, "state"); !strings.Contains(answer, "faults=1") {
		t.Error(answer)
	}
	other := startProbe(t, n.Environ()...)
	other.ok("init")
	other.ok("start")
	other.ok("supported")
	n.must(t, "clear dcgmGetAllDevices")
	if a := p.receive("devices"); a.rc != stOK {
		t.Error(a.text)
	}
}

func TestHangDiesBySIGKILL(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	n.must(t, "hang *")
	p.send("devices")
	time.Sleep(100 * time.Millisecond)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case _, ok := <-p.answers:
		if ok {
			t.Error("it answered")
		}
	case <-time.After(10 * time.Second):
		t.Error("it did not end")
	}
}

func TestStuckDriverStopsSamplesNotCalls(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{150}, [2]int{feGPU, 0})
	n.must(t, "hang sampling")
	time.Sleep(300 * time.Millisecond) // the sample in progress ends
	first := p.latest(feGPU, 0, 150)[150].ts
	time.Sleep(400 * time.Millisecond)
	if again := p.latest(feGPU, 0, 150)[150].ts; again != first {
		t.Errorf("a sample of %d after one of %d", again, first)
	}
	n.must(t, "clear sampling")
	eventually(t, "samples again", func() bool { return p.latest(feGPU, 0, 150)[150].ts > first })
}

func TestSlowAndFailingCalls(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	n.must(t, "slow dcgmGetAllDevices 200")
	if took := p.ok("devices").number(t, "took_ms"); took < 200 {
		t.Errorf("took %v ms", took)
	}
	n.must(t, "fail dcgmGet* -8")
	p.expect(-8, "devices")
	p.expect(-8, "status 0")
	p.ok("group g") // not in the pattern
	n.must(t, "clear")
	p.ok("devices")
}

func TestCrash(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	n.must(t, "crash dcgmEntitiesGetLatestValues")
	p.send("latest 1 0 150")
	for range p.answers { // until it ends
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("ended with %v", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGSEGV {
		t.Errorf("ended with %v, want SIGSEGV", exit)
	}
	// The node and the fault outlive the process.
	if answer := n.must(t, "state"); !strings.Contains(answer, "faults=1") {
		t.Error(answer)
	}
}

func TestEngineLostEmbedded(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	n.must(t, "engine lost")
	p.expect(stConnNotValid, "devices")
	p.expect(stConnNotValid, "latest 1 0 150")
	n.must(t, "engine back")
	p.ok("devices")
}

func TestNodeOutlivesItsProcesses(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	uuid := p.ok("attributes 0").get(t, "uuid")
	n.must(t, "lose gpu 3")
	n.must(t, "mig gpu 1 7g.80gb")
	before, err := n.Truth(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	p = embedded(t, n)
	if got := p.ok("attributes 0").get(t, "uuid"); got != uuid {
		t.Errorf("UUID %s, was %s", got, uuid)
	}
	if got := p.ok("status 3").get(t, "status"); got != "4" {
		t.Errorf("status %s", got)
	}
	if !strings.Contains(p.ok("hierarchy").text, "4/7<1/1") {
		t.Error("the MIG layout is gone")
	}
	after, err := n.Truth(t.Context(), 0)
	if err != nil || after.EnergyMillijoules < before.EnergyMillijoules {
		t.Errorf("energy %v after %v (%v)", after.EnergyMillijoules, before.EnergyMillijoules, err)
	}
}

func TestStateOfAnotherScenarioIsRefused(t *testing.T) {
	n := newNode(t, "h100x8")
	n.must(t, "state")
	n.Scenario = "t4x1"
	if _, err := n.Command(t.Context(), "state"); err == nil || !strings.Contains(err.Error(), "holds scenario h100x8") {
		t.Error(err)
	}
}

func TestControlSocket(t *testing.T) {
	n := newNode(t, "h100x8")
	if _, err := Command(t.Context(), n.Control, "state"); err == nil {
		t.Error("a control socket without an engine")
	}
	p := embedded(t, n)
	answer, err := Command(t.Context(), n.Control, "state")
	if err != nil || !strings.Contains(answer, "scenario=h100x8 gpus=8") {
		t.Errorf("%q, %v", answer, err)
	}
	if _, err := Command(t.Context(), n.Control, "lose gpu 99"); err == nil || !strings.Contains(err.Error(), "no GPU with DCGM id 99") {
		t.Error(err)
	}
	// The newest engine serves the socket, and a hanging call does not block it.
	next := embedded(t, n)
	p.ok("stop")
	n.must(t, "hang dcgm*")
	next.send("devices")
	if _, err := Command(t.Context(), n.Control, "clear dcgm*"); err != nil {
		t.Error(err)
	}
	next.receive("devices")
}

func TestPrint(t *testing.T) {
	n := newNode(t, "none")
	p := embedded(t, n)
	n.must(t, "print stdout a line of the library")
	select {
	case line := <-p.answers:
		if line != "a line of the library" {
			t.Errorf("%q", line)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing printed")
	}
}

func TestEngineLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.log")
	n := newNode(t, "t4x1")
	p := startProbe(t, append(n.Environ(), "__DCGM_DBG_FILE="+path, "__DCGM_DBG_LVL=INFO")...)
	p.ok("init")
	p.ok("start")
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "engine started, 1 GPUs") {
		t.Errorf("%q, %v", text, err)
	}
}

// Without a state file the two libraries of a process share one node.
func TestPrivateNodeIsSharedWithinTheProcess(t *testing.T) {
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(t.TempDir(), "control.sock")
	p := startProbe(t, "LD_LIBRARY_PATH="+dir, "DCGMSIM_SCENARIO=t4x1", "DCGMSIM_STATE=", "DCGMSIM_CONTROL="+control)
	p.ok("init")
	p.ok("start")
	if a, b := p.ok("nvml 0").get(t, "uuid"), p.ok("attributes 0").get(t, "uuid"); a != b {
		t.Errorf("NVML returns %s, DCGM %s", a, b)
	}
	if _, err := Command(t.Context(), control, "fail nvmlDeviceGetUUID 999"); err != nil {
		t.Fatal(err)
	}
	p.expect(999, "nvml 0") // a fault set through DCGM's library applies to NVML
}

func TestNoScenarioNoNode(t *testing.T) {
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	p := startProbe(t, "LD_LIBRARY_PATH="+dir, "DCGMSIM_SCENARIO=", "DCGMSIM_STATE=", "DCGMSIM_CONTROL=")
	p.ok("init")
	p.expect(-7, "start")
}

func TestHealth(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	g := p.ok("group g 0").get(t, "id")
	p.ok("healthset %s -1", g)
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("a healthy node: %s", a.text)
	}
	n.must(t, "set field 311 value 2 gpu 4")
	n.must(t, "xid 79 gpu 5")
	n.must(t, "xid 31 gpu 6")
	finds := func(p *probe, g, what string, want ...string) {
		t.Helper()
		eventually(t, what, func() bool {
			text := p.ok("health %s", g).text
			found := strings.Count(text, ":system=")
			for _, w := range want {
				if !strings.Contains(text, w) {
					return false
				}
			}
			return found == len(want)
		})
	}
	const (
		memory = "1/4:system=0x10:health=20:code=4" // double-bit error
		lost   = "1/5:system=0xffffffff:health=20:code=120"
		warned = "1/6:system=0x10:health=10:code=101"
	)
	finds(p, g, "all faults", memory, lost, warned)
	p.ok("healthset %s 0x2", g) // NVLink only
	finds(p, g, "the incident of all systems, which a new check does not end", lost)
	n.must(t, "xid 43 gpu 6") // of a system that no group watches
	n.must(t, "xid 79 gpu 6")
	finds(p, g, "a second incident of all systems", lost, "1/6:system=0xffffffff:health=20:code=120")
	n.must(t, "clear")
	p.ok("healthset %s -1", g)
	finds(p, g, "the same without the fault of a counter", lost, warned, "1/6:system=0xffffffff:health=20:code=120")
	n.must(t, "lose gpu 5")
	finds(p, g, "no incident of a lost GPU", warned, "1/6:system=0xffffffff:health=20:code=120")
	n.must(t, "return gpu 5")
	finds(p, g, "the incident after the GPU is back", lost, warned, "1/6:system=0xffffffff:health=20:code=120")
	p.ok("stop")
	p.ok("start")
	g = p.ok("group g 0").get(t, "id")
	p.ok("healthset %s -1", g)
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("after a restart of the engine: %s", a.text)
	}
}

// TestHealthOfXIDs: an engine records XIDs of whole GPUs since their memory is watched. It finds
// them by the number of the entity.
func TestHealthOfXIDs(t *testing.T) {
	n := newNode(t, "dgx-h100")
	n.must(t, "xid pace 0")
	p := embedded(t, n)
	g := p.ok("group g").get(t, "id")
	for _, entity := range []string{"1 2", "1 3", "3 2", "3 3"} {
		p.ok("add %s %s", g, entity)
	}
	p.ok("healthset %s 0x2", g) // no watch of XIDs
	n.must(t, "xid 79 gpu 3")
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("XIDs are not watched: %s", a.text)
	}
	p.ok("healthset %s 0x10", g)
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("an XID before the watch: %s", a.text)
	}
	n.must(t, "mig gpu 2 1g.10gb*7")
	n.must(t, "xid 95 gpu 2 ci 0")
	n.must(t, "xid 31 gpu 3")
	n.must(t, "xid 95 gpu 3")
	a := p.ok("health %s", g)
	for _, want := range []string{"1/3:system=0x10:", "1/3:system=0xffffffff:", "3/3:system=0xffffffff:"} {
		if !strings.Contains(a.text, want) {
			t.Errorf("no %s in %s", want, a.text)
		}
	}
	if got := strings.Count(a.text, ":system="); got != 3 {
		t.Errorf("%d incidents, want 3: %s", got, a.text)
	}
}

func TestPolicy(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	g := p.ok("group g 0").get(t, "id")
	p.ok("policy %s 0x41 77", g) // double-bit errors and XIDs
	n.must(t, "xid 79 gpu 3")
	n.must(t, "set field 311 value 2 gpu 1")
	n.must(t, "set field 202 value 9 gpu 1") // PCIe replays: no policy
	eventually(t, "both violations are called back", func() bool {
		text := p.ok("violations").text
		return strings.Contains(text, "gpu=3,condition=64,xid=79,user=77") && strings.Contains(text, "gpu=1,condition=1,")
	})
	time.Sleep(1200 * time.Millisecond)
	if got := strings.Count(p.ok("violations").text, "condition="); got != 2 {
		t.Errorf("%d violations, want 2: %s", got, p.ok("violations").text)
	}
}

func TestProcesses(t *testing.T) {
	n := newNode(t, "h100x8")
	n.must(t, "process gpu 2 pid 4242 name trainer memory 2048")
	p := embedded(t, n)
	g := p.ok("group g 0").get(t, "id")
	p.expect(stNotWatched, "pid %s 4242", g)
	p.ok("watchpids %s", g)
	if a := p.ok("pid %s 4242", g); a.get(t, "gpu") != "2" || a.get(t, "memory") != "2147483648" {
		t.Error(a.text)
	}
	p.expect(stNoData, "pid %s 4243", g)
	n.must(t, "process gpu 2 pid 4244 memory unknown graphics also mps yes")
	if a := p.ok("pid %s 4244", g); a.get(t, "memory") != int64Blank {
		t.Error(a.text)
	}
	for _, line := range []string{"process gpu 2", "process gpu 2 pid 1 memory some", "process gpu 2 pid 1 graphics maybe", "process gpu 2 pid 1 mps no"} {
		if answer, err := n.Command(t.Context(), line); err == nil {
			t.Errorf("%s: %s", line, answer)
		}
	}
}
