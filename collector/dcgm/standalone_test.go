// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/collector/model"
)

// standalone starts a standalone engine and a sampler that uses it.
func standalone(t *testing.T, scenario string, address func(*dcgmsim.Engine) string, args ...string) (node, *dcgmsim.Engine, *process) {
	t.Helper()
	n := newNode(t, scenario)
	t.Setenv("__DCGM_DBG_FILE", filepath.Join(t.TempDir(), "engine.log")) // of the engine only
	engine, err := n.StartEngine(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Kill(); err != nil {
			t.Error(err)
		}
	})
	cfg := defaultConfig()
	cfg.Hostengine = address(engine)
	return n, engine, n.start(cfg)
}

// TestStandalone shows a standalone engine at each kind of address.
func TestStandalone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "he.sock")
	for _, tt := range []struct {
		name    string
		args    []string
		address func(*dcgmsim.Engine) string
	}{
		{"host and port", nil, func(e *dcgmsim.Engine) string { return e.Address }},
		{"tcp URI", nil, func(e *dcgmsim.Engine) string { return "tcp://" + e.Address }},
		{"path", []string{"--domain-socket", socket}, func(*dcgmsim.Engine) string { return socket }},
		{"unix URI", []string{"--domain-socket", socket}, func(*dcgmsim.Engine) string { return "unix://" + socket }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, _, p := standalone(t, "h100x8-mig", tt.address, tt.args...)
			p.has(gpu, 7, 1001, model.StatusOK)
			s := p.has(inst, 0, 252, model.StatusOK)
			if c := p.cell(s, gpu, 7, 1); s.String(c) != p.inv.DriverVersion || p.inv.DriverVersion == "" {
				t.Errorf("driver %q, value %q", p.inv.DriverVersion, s.String(c))
			}
			if p.inv.DCGMVersion != "4.6.0" {
				t.Errorf("DCGM version %q", p.inv.DCGMVersion)
			}
			n.command("xid 43 gpu 0 ci 1")
			n.command("xid 45 gpu 0 ci 1")
			events, inv := p.events("two XIDs", 2)
			if e := inv.Entities[events[1].Entity]; events[0].Code != 43 || events[1].Code != 45 || e.Kind != compute || e.ID != 1 {
				t.Errorf("events %+v", events)
			}
			n.command("lose gpu 6")
			p.has(gpu, 6, 150, model.StatusEntityLost)
		})
	}
}

// TestStandaloneHistory shows that samplers do not report the XIDs from before their
// start that the engine still has, also those of a lost GPU.
func TestStandaloneHistory(t *testing.T) {
	n, _, other := standalone(t, "h100x8", func(e *dcgmsim.Engine) string { return e.Address })
	other.has(gpu, 0, 150, model.StatusOK)
	n.command("xid 31 gpu 1")
	other.events("XID 31", 1)
	n.command("xid 79 gpu 3")
	n.command("lose gpu 3")
	other.events("XID 79", 1)
	for round := range 3 {
		p := n.start(other.cfg)
		s := p.has(gpu, 1, 230, model.StatusOK) // the value remains
		if c := p.cell(s, gpu, 1, 230); round == 0 && c.Int64() != 31 {
			t.Errorf("XID %d, want 31", c.Int64())
		}
		n.command(fmt.Sprintf("xid %d gpu 1", 60+round))
		if events, _ := p.events("the next XID", 1); events[0].Code != int64(60+round) {
			t.Errorf("round %d: events %+v", round, events)
		}
		// New XIDs of a lost GPU are reported.
		n.command(fmt.Sprintf("xid %d gpu 3", 70+round))
		if events, _ := p.events("the next XID of the lost GPU", 1); events[0].Code != int64(70+round) || events[0].Entity != 3 {
			t.Errorf("round %d: events %+v", round, events)
		}
		if round%2 == 0 { // either end removes its watches from the engine
			_ = p.cmd.Process.Kill()
		} else {
			p.stdin.Close()
		}
		<-p.exited
	}
	if events, _ := other.events("six XIDs", 6); events[4].Code != 62 || events[5].Code != 72 {
		t.Errorf("events %+v", events)
	}
}

// TestHostengineKilled shows that the sampler ends with its engine.
func TestHostengineKilled(t *testing.T) {
	_, engine, p := standalone(t, "h100x8", func(e *dcgmsim.Engine) string { return e.Address })
	p.has(gpu, 0, 150, model.StatusOK)
	if err := engine.Kill(); err != nil {
		t.Fatal(err)
	}
	if f := p.failure(); f.Reason != model.FailureHostengineLost || f.Message == "" {
		t.Errorf("failure %+v", f)
	}
}

// TestHostengineFrozen shows that the sampler ends if a call times out.
func TestHostengineFrozen(t *testing.T) {
	n := newNode(t, "h100x8")
	t.Setenv("__DCGM_DBG_FILE", filepath.Join(t.TempDir(), "engine.log"))
	engine, err := n.StartEngine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Kill() })
	cfg := defaultConfig()
	cfg.Hostengine = engine.Address
	p := n.start(cfg, "DCGMSIM_CALL_TIMEOUT=1s") // 60 s in a real DCGM
	p.has(gpu, 0, 150, model.StatusOK)
	if err := engine.Stop(); err != nil {
		t.Fatal(err)
	}
	if f := p.failure(); f.Reason != model.FailureHostengineLost {
		t.Errorf("failure %+v", f)
	}
}

// TestHostengineUnreachable shows the failure if nothing listens.
func TestHostengineUnreachable(t *testing.T) {
	n := newNode(t, "h100x8")
	cfg := defaultConfig()
	cfg.Hostengine = filepath.Join(t.TempDir(), "missing.sock")
	p := n.start(cfg, "DCGMSIM_CONNECT_TIMEOUT=250ms") // 5 s in a real DCGM
	if f := p.failure(); f.Reason != model.FailureHostengineUnreached || !strings.Contains(f.Message, cfg.Hostengine) {
		t.Errorf("failure %+v", f)
	}
}
