// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// standalone starts dcgmsimd on the node, and a probe that is not connected yet.
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

// A standalone engine answers like an embedded one.
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
	eventually(t, "the engine receives the XID", func() bool {
		return p.ok("health %s", g).get(t, "overall") == "20"
	})
	// The groups and watches of a connection end with it.
	p.ok("disconnect")
	p.ok("connect %s", e.Address)
	p.expect(stNotConfigured, "groupinfo %s", g)
	last := p.latest(feGPU, 7, 155)[155] // its samples remain, and no new ones are taken
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
	if err := e.Cont(); err != nil {
		t.Fatal(err)
	}
	p.ok("devices") // the connection continues
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	// Connecting waits for two answers, and then succeeds without a connection.
	if took := p.ok("connect %s", e.Address).number(t, "took_ms"); took < 800 {
		t.Errorf("connecting took %v ms", took)
	}
	p.expect(stConnNotValid, "devices")
	if err := e.Cont(); err != nil {
		t.Fatal(err)
	}
	p.expect(stConnNotValid, "devices")
	p.ok("connect %s", e.Address)
	p.ok("devices")
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	p := startProbe(t, "LD_LIBRARY_PATH="+newNode(t, "none").Libraries, "DCGMSIM_STATE=")
	p.ok("init")
	path := filepath.Join(t.TempDir(), "unused.sock")
	// The default is the five seconds of the real library.
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
	p.ok("supported") // other calls of the connection continue
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

// A standalone engine answers like an embedded one about links and cores. A
// different engine may serve a different node at the same address.
func TestFabricAcrossTheSocket(t *testing.T) {
	dgx, grace := newNode(t, "dgx-h100"), newNode(t, "gb200")
	path := filepath.Join(t.TempDir(), "engine.sock")
	cut := func(a answer) string { return strings.SplitN(a.text, " took_ms", 2)[0] }
	commands := []string{"devices", "links", "links 4", "p2p", "topology 3", "entities 3 0", "entities 6 0", "entities 7 0", "entities 8 0", "cpus", "cpus 1", "pause"}
	for _, n := range []*Node{dgx, grace} {
		e, p := standalone(t, n, []string{"--domain-socket", path})
		p.ok("connect %s 1", path)
		local := embedded(t, n)
		for _, command := range commands {
			if a, b := cut(p.do("%s", command)), cut(local.do("%s", command)); a != b {
				t.Errorf("%s on %s: standalone %s, embedded %s", command, n.Scenario, a, b)
			}
		}
		p.watch("w", 100*time.Millisecond, []int{1508}, entities(feLink, gpuLink(3, 17))...)
		if v := p.latest(feLink, gpuLink(3, 17), 1508)[1508]; v.text != "1" {
			t.Errorf("%+v", v)
		}
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		p.expect(stConnNotValid, "links")
	}
}
