// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestScenariosAreThoseOfTheLibrary(t *testing.T) {
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "dcgmsimd"), "--scenarios").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, Scenarios()) {
		t.Errorf("library %v, package %v", got, Scenarios())
	}
}

func TestScenarioFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "two.scenario")
	text := `# two of a kind, one of another
seed 42
driver 580.10.01
cuda 13.0
model h200 like h100
model h200 name NVIDIA H200
model h200 fb_total_mib 143771
gpu h200 count 2
gpu t4 id 9 minor 4 bus 00000001:02:00.0 serial 123 uuid GPU-11111111-2222-5333-8444-555555555555
mig gpu 0 1g.18gb*2
load gpu 1 util 30 mem 40
at 300ms lose gpu 9
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, path)
	p := embedded(t, n)
	if a := p.ok("attributes 9"); !strings.Contains(a.text, "uuid=GPU-11111111-2222-5333-8444-555555555555 bus=00000001:02:00.0") || !strings.Contains(a.text, "driver=580.10.01") {
		t.Error(a.text)
	}
	if a := p.ok("attributes 1"); !strings.Contains(a.text, "name=NVIDIA H200") || !strings.Contains(a.text, "fb=143771") {
		t.Error(a.text)
	}
	if got := strings.Count(p.ok("hierarchy").text, "4/"); got < 2 {
		t.Errorf("%d instances", got)
	}
	if x, err := n.Truth(t.Context(), 1); err != nil || x.Util != 0.3 {
		t.Errorf("fixed load: %+v, %v", x, err)
	}
	eventually(t, "the timed command was carried out", func() bool { return p.ok("status 9").get(t, "status") == "4" })
}

func TestScenarioMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown statement":  {"base t4x1\nfrobnicate\n", ":2: unknown command frobnicate"},
		"late base":          {"gpu t4\nbase h100x8\n", ":2: base NAME, as the first statement"},
		"late seed":          {"gpu t4\nseed 3\n", ":2: seed comes before anything else"},
		"unknown model":      {"\n\ngpu tpu\n", ":3: no model tpu"},
		"same id twice":      {"gpu t4 id 3\ngpu t4 id 3\n", ":2: GPU id 3 is taken"},
		"bad layout":         {"gpu t4\nmig gpu 0 1g.2gb\n", ":2: MIG layout 1g.2gb on Tesla T4: the model has no MIG"},
		"layout too large":   {"gpu h100\nmig gpu 0 1g.10gb*8\n", ":2: MIG layout"},
		"bad number":         {"model h100 fb_total_mib lots\n", ":1: fb_total_mib: lots is not a number"},
		"bad duration":       {"at soon xid 79 gpu 0\n", ":1: at DURATION COMMAND"},
		"no such GPU":        {"gpu t4\nlose gpu 4\n", ":2: no GPU with DCGM id 4"},
		"too few ports":      {"base h100x8\nswitches 1\n", ":2: a switch has 64 ports"},
		"GPU after switches": {"gpu h100\nswitches 1\ngpu h100\n", ":3: GPUs come before the switches"},
		"trunks of whom":     {"gpu h100\nswitches 3 trunks 1,2\n", ":2: trunks: one number of ports"},
		"too many cores":     {"cpus 8 cores 200\n", ":1: cpus COUNT cores N"},
		"no link there":      {"base h100x8\nlink gpu 0 port 18 down\n", ":2: GPU 0 has no link at port 18"},
		"error in a base":    {"base nowhere\n", "nowhere: neither a built-in name nor a readable file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.scenario")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, path)
			_, err := n.Command(t.Context(), "state")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := n.StartEngine(t.Context()); err == nil {
				t.Error("an engine started all the same")
			}
		})
	}
}

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
	// other processes and calls go on; this one ends when the fault does
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
		t.Error("it lives")
	}
}

func TestStuckDriverStopsSamplesNotCalls(t *testing.T) {
	n := newNode(t, "t4x1")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{150}, [2]int{feGPU, 0})
	n.must(t, "hang sampling")
	time.Sleep(300 * time.Millisecond) // whoever was sampling is through
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
	for range p.answers { // until it is gone
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("ended with %v", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGSEGV {
		t.Errorf("ended with %v, want SIGSEGV", exit)
	}
	// the node outlives it, as does the fault
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
	// the newest engine takes the socket over, and a hanging call does not hold it
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

// Without a state file the two libraries of a process still see one node.
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
		t.Errorf("NVML says %s, DCGM %s", a, b)
	}
	if _, err := Command(t.Context(), control, "fail nvmlDeviceGetUUID 999"); err != nil {
		t.Fatal(err)
	}
	p.expect(999, "nvml 0") // the fault set through DCGM's library is NVML's too
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
	a := p.ok("health %s", g)
	for _, want := range []string{
		"overall=20",
		"1/4:system=0x10:health=20:code=4",         // memory, double-bit error
		"1/5:system=0xffffffff:health=20:code=120", // fallen off the bus
		"1/6:system=0x10:health=10:code=101",       // memory, XID
	} {
		if !strings.Contains(a.text, want) {
			t.Errorf("no %s in %s", want, a.text)
		}
	}
	p.ok("healthset %s 0x2", g) // NVLink only
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("systems not watched: %s", a.text)
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

// engine starts dcgmsimd over the node and a probe connected to it.
func standalone(t *testing.T, n *Node, args []string, env ...string) (*Engine, *probe) {
	t.Helper()
	e, err := n.StartEngine(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Kill() })
	p := startProbe(t, append([]string{"LD_LIBRARY_PATH=" + n.Libraries, "DCGMSIM_STATE=", "DCGMSIM_SCENARIO="}, env...)...)
	p.ok("init")
	return e, p
}

func TestStandaloneAddresses(t *testing.T) {
	n := newNode(t, "h100x8")
	tcp, p := standalone(t, n, nil)
	_, port, err := net.SplitHostPort(tcp.Address)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "engine.sock")
	if _, err := n.StartEngine(t.Context(), "--domain-socket", path); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{tcp.Address, "tcp://" + tcp.Address, "localhost:" + port, path + " 1", "unix://" + path} {
		p.ok("connect %s", address)
		if a := p.ok("devices"); !strings.HasPrefix(a.text, "rc=0 0 1 2 3 4 5 6 7 ") {
			t.Errorf("%s: %s", address, a.text)
		}
		p.ok("disconnect")
	}
	v6, err := n.StartEngine(t.Context(), "--bind", "::1", "--port", "0")
	if err != nil {
		t.Skipf("no IPv6 on this machine: %v", err)
	}
	p.ok("connect %s", v6.Address)
	p.ok("devices")
}

// Everything that embedded shows crosses the socket.
func TestStandaloneServesTheSame(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	e, p := standalone(t, n, nil)
	p.ok("connect %s", e.Address)
	local := embedded(t, n)
	for _, command := range []string{"devices", "supported", "entities 4 0", "hierarchy", "attributes 7", "status 7", "metricgroups 0"} {
		cut := func(a answer) string { return strings.SplitN(a.text, " took_ms", 2)[0] }
		if a, b := cut(p.ok("%s", command)), cut(local.ok("%s", command)); a != b {
			t.Errorf("%s: standalone %s, embedded %s", command, a, b)
		}
	}
	fields := []int{155, 54, 230, 191, 1001}
	g, f := p.watch("w", 100*time.Millisecond, fields, [2]int{feGPU, 7}, [2]int{feGPUI, 0})
	v := p.latest(feGPU, 7, fields...)
	if v[155].float(t) < 70 || !strings.HasPrefix(v[54].text, "GPU-") || v[230].status != stNoData || v[191].text != int64NotSupported {
		t.Errorf("%v", v)
	}
	eventually(t, "samples since the start", func() bool {
		return strings.Count(p.ok("since %s %s 0", g, f).text, "155:d:0:") > 4
	})
	if got := strings.Count(p.ok("all %s %s", g, f).text, ":"); got < 40 {
		t.Errorf("%d", got)
	}
	p.ok("policy %s 0x40 5", g)
	n.must(t, "xid 79 gpu 7")
	eventually(t, "the violation crosses the socket", func() bool {
		return strings.Contains(p.ok("violations").text, "gpu=7,condition=64,xid=79,user=5")
	})
	p.ok("healthset %s -1", g)
	n.must(t, "xid 95 gpu 7")
	if a := p.ok("health %s", g); a.get(t, "overall") != "20" {
		t.Error(a.text)
	}
	// what a connection made goes with it
	p.ok("disconnect")
	p.ok("connect %s", e.Address)
	p.expect(stNotConfigured, "groupinfo %s", g)
	last := p.latest(feGPU, 7, 155)[155] // its samples stay, and no more are taken
	time.Sleep(300 * time.Millisecond)
	if v := p.latest(feGPU, 7, 155)[155]; v != last {
		t.Errorf("%+v, was %+v", v, last)
	}
}

func TestStandaloneKilled(t *testing.T) {
	n := newNode(t, "t4x1")
	path := filepath.Join(t.TempDir(), "engine.sock")
	e, p := standalone(t, n, []string{"--domain-socket", path})
	p.ok("connect %s 1", path)
	p.ok("devices")
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if took := p.expect(stConnNotValid, "devices").number(t, "took_ms"); took > 1000 {
		t.Errorf("took %v ms", took)
	}
	if _, err := n.StartEngine(t.Context(), "--domain-socket", path); err != nil {
		t.Fatal(err)
	}
	p.expect(stConnNotValid, "devices") // the old handle never recovers
	p.ok("disconnect")
	p.ok("connect %s 1", path)
	p.ok("devices")
}

func TestStandaloneFrozen(t *testing.T) {
	n := newNode(t, "t4x1")
	e, p := standalone(t, n, nil, "DCGMSIM_CALL_TIMEOUT=400ms", "DCGMSIM_CONNECT_TIMEOUT=300ms")
	p.ok("connect %s", e.Address)
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := p.expect(stTimeout, "devices").number(t, "took_ms"); took < 400 {
		t.Errorf("took %v ms", took)
	}
	if a := p.do("connect %s", e.Address); a.rc == stOK {
		t.Errorf("connected to a frozen engine: %s", a.text)
	}
	if err := e.Cont(); err != nil {
		t.Fatal(err)
	}
	p.ok("devices") // thawed, the same connection goes on
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	p := startProbe(t, "LD_LIBRARY_PATH="+newNode(t, "none").Libraries, "DCGMSIM_STATE=")
	p.ok("init")
	path := filepath.Join(t.TempDir(), "nobody.sock")
	// the real one's five seconds, without any setting
	if took := p.expect(stConnNotValid, "connect %s 1", path).number(t, "took_ms"); took < 4500 || took > 15000 {
		t.Errorf("took %v ms", took)
	}
}

func TestHangStandalone(t *testing.T) {
	n := newNode(t, "t4x1")
	e, p := standalone(t, n, nil, "DCGMSIM_CALL_TIMEOUT=300ms")
	p.ok("connect %s", e.Address)
	n.must(t, "hang dcgmGetAllDevices")
	p.expect(stTimeout, "devices")
	p.ok("supported") // the engine goes on with other calls of the connection
	n.must(t, "clear")
	p.ok("devices")
	n.must(t, "engine lost")
	eventually(t, "connections drop", func() bool { return p.do("devices").rc == stConnNotValid })
	n.must(t, "engine back")
	p.expect(stConnNotValid, "devices")
	p.ok("disconnect")
	p.ok("connect %s", e.Address)
	p.ok("devices")
}
