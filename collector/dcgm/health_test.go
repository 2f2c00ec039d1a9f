// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// startHealth starts a sampler with frequent health checks.
func (n node) startHealth(devices string) *process {
	cfg := defaultConfig()
	cfg.HealthInterval, cfg.Peers = 100*time.Millisecond, true
	cfg.Devices = devices
	return n.start(cfg)
}

// health receives frames until ok returns nil for a health check.
func (p *process) health(what string, ok func(h *model.Health) error) *model.Health {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	why := errors.New("none received")
	for time.Now().Before(deadline) {
		f := p.frame(what)
		if f.Failure != nil {
			p.t.Fatalf("waiting for %s: the sampler failed: %+v", what, *f.Failure)
		}
		if f.Health != nil {
			if f.Health.Failure == "" && f.Health.Generation != p.inv.Generation {
				p.t.Fatalf("health of generation %d does not follow its inventory", f.Health.Generation)
			}
			if why = ok(f.Health); why == nil {
				return f.Health
			}
		}
	}
	p.t.Fatalf("waiting for %s: %v", what, why)
	return nil
}

// finds waits until a check finds exactly the incidents want on a GPU.
func (p *process) finds(id uint32, want string) *model.Health {
	p.t.Helper()
	return p.health(fmt.Sprintf("%q on GPU %d", want, id), func(h *model.Health) error {
		var found []string
		for _, i := range h.Incidents {
			if i.Entity == p.entity(gpu, id) {
				found = append(found, fmt.Sprintf("%v %v %s", i.System, i.Result, model.HealthErrorName(i.Code)))
			}
		}
		slices.Sort(found)
		if got := strings.Join(slices.Compact(found), ", "); got != want || h.Failure != "" {
			return fmt.Errorf("found %q %s", got, h.Failure)
		}
		return nil
	})
}

// logs waits until the log has the text. The log and the frames are separate streams.
func (p *process) logs(text string) {
	p.t.Helper()
	p.sample("the log record "+text, func(*model.Sample) error {
		if !strings.Contains(p.logged(), text) {
			return errors.New("not logged")
		}
		return nil
	})
}

// TestHealth shows the incidents of checks, and checks after topology changes.
func TestHealth(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := n.startHealth("")
	h := p.finds(3, "")
	if len(h.Checked) != 8+4 || h.Time.IsZero() || h.Duration <= 0 || h.Checked[7].Since.IsZero() || h.Checked[7].Since.After(h.Time) {
		t.Errorf("the first check: %+v", h)
	}
	for _, c := range []struct{ command, want string }{
		{"health gpu 3 inforom warn", "inforom warn CORRUPT_INFOROM"},
		{"health gpu 3 inforom pass", ""},
		{"recovery gpu 3 reboot", "driver fail GPU_RECOVERY_REBOOT"},
		{"recovery gpu 3 none", ""},
		{"link gpu 3 port 4 down", "nvlink fail NVLINK_DOWN"},
		{"link gpu 3 port 4 up", ""},
		{"xid 95 gpu 3", "device fail UNCONTAINED_ERROR"},
	} {
		n.command(c.command)
		got := p.finds(3, c.want)
		if got.Checked[3].Since != h.Checked[3].Since {
			t.Errorf("after %s the watch of GPU 3 was interrupted", c.command)
		}
		if slices.ContainsFunc(got.Incidents, func(i model.HealthIncident) bool {
			return i.System == model.HealthDevice && i.Entity != p.entity(gpu, 3)
		}) {
			t.Errorf("after %s NVSwitch 3 has the incident of GPU 3: %+v", c.command, got.Incidents)
		}
	}
	n.command("sxid 19084 switch 2 port 1 fatal")
	p.health("the SXid", func(h *model.Health) error {
		want := model.HealthIncident{Entity: p.entity(model.KindSwitch, 2), System: 11, Result: model.HealthFail, Code: 15}
		if !slices.Contains(h.Incidents, want) {
			return fmt.Errorf("%+v", h.Incidents)
		}
		return nil
	})
	n.command("lose gpu 5")
	h = p.health("a check without GPU 5", func(h *model.Health) error {
		if len(h.Checked) != 7+4 {
			return fmt.Errorf("%d are checked: %s", len(h.Checked), h.Failure)
		}
		return nil
	})
	if slices.ContainsFunc(h.Checked, func(c model.CheckedEntity) bool { return c.Entity == p.entity(gpu, 5) }) {
		t.Errorf("a lost GPU is checked: %+v", h.Checked)
	}
	n.command("return gpu 5")
	p.health("a check with GPU 5 again", func(h *model.Health) error {
		if len(h.Checked) != 8+4 {
			return fmt.Errorf("%d are checked: %s", len(h.Checked), h.Failure)
		}
		if !h.Checked[5].Since.After(h.Checked[4].Since) {
			return fmt.Errorf("its watch was not interrupted")
		}
		return nil
	})
}

// TestHealthOfSelected shows that only selected devices are checked.
func TestHealthOfSelected(t *testing.T) {
	p := newNode(t, "h100x8").startHealth("g:2,4")
	h := p.finds(4, "")
	if len(h.Checked) != 2 || h.Checked[0].Entity != p.entity(gpu, 2) {
		t.Errorf("checked: %+v", h.Checked)
	}
	p = newNode(t, "a100x7-mig").startHealth("")
	if h := p.finds(0, ""); len(h.Checked) != 1 {
		t.Errorf("checked of a MIG GPU: %+v", h.Checked)
	}
}

// TestNoHealth shows that there are no checks by default.
func TestNoHealth(t *testing.T) {
	p := newNode(t, "t4x1").start(defaultConfig())
	for samples := 0; samples < 10; {
		switch f := p.frame("samples"); {
		case f.Health != nil || f.Peers != nil:
			t.Fatalf("unexpected health check: %+v", f)
		case f.Sample != nil:
			samples++
		}
	}
}

// TestHungHealth shows that samples continue during a hung check, which is logged once,
// and that checks continue after it.
func TestHungHealth(t *testing.T) {
	for _, call := range []string{"dcgmHealthCheck", "dcgmGetDeviceTopology"} {
		t.Run(call, func(t *testing.T) {
			n := newNode(t, "h100x8")
			p := n.startHealth("")
			p.finds(0, "")
			n.command("hang " + call)
			if call == "dcgmGetDeviceTopology" {
				n.command("detach gpu 7") // a new inventory causes a read
			}
			logged := func() int { return strings.Count(p.logged(), "a health check takes longer") }
			p.logs("a health check takes longer")
			hung := time.Now() // frames from before may still be in the pipe
			for samples := 0; samples < 20; {
				switch f := p.frame("samples"); {
				case f.Health != nil && f.Health.Time.After(hung):
					t.Fatalf("health of a hung call: %+v", f.Health)
				case f.Sample != nil && f.Sample.Time.After(hung):
					samples++
				}
			}
			n.command("lose gpu 1")
			p.inventory("a new topology meanwhile")
			p.frame("a sample of it")
			if logged() != 1 {
				t.Errorf("logged %d times", logged())
			}
			n.command("clear " + call) // GPU 1 stays lost
			p.health("a check of the new topology", func(h *model.Health) error {
				if h.Failure != "" || slices.ContainsFunc(h.Checked, func(c model.CheckedEntity) bool { return c.Entity == p.entity(gpu, 1) }) {
					return fmt.Errorf("%+v", h)
				}
				return nil
			})
			p.logs("has finished")
		})
	}
}

// TestHungHealthAtTheEnd shows that a hung check delays neither the end of the sampler
// nor the report of XIDs since the last sample.
func TestHungHealthAtTheEnd(t *testing.T) {
	n := newNode(t, "t4x1")
	n.command("hang dcgmHealthSet")
	cfg := defaultConfig()
	cfg.Interval, cfg.HealthInterval, cfg.DCGMLogLevel = 20*time.Second, 100*time.Millisecond, "DEBUG"
	p := n.start(cfg)
	p.eventually("a record of the slow check", func() bool { return strings.Contains(p.logged(), "a health check takes longer") })
	n.command("xid 79 gpu 0")
	p.eventually("DCGM's record of the XID", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return strings.Contains(p.output.String(), "XID 79")
	})
	p.stdin.Close()
	<-p.exited
	xids := 0
	for f := range p.frames {
		if f.Events != nil {
			xids += len(f.Events.List)
		}
	}
	if xids != 1 {
		t.Errorf("%d XIDs reported, want 1", xids)
	}
	if !strings.Contains(p.logged(), "DCGM did not shut down in time") {
		t.Errorf("the abandoned call is not logged")
	}
}

// TestHealthFails shows that failing checks are logged once and reported, and that samples
// continue.
func TestHealthFails(t *testing.T) {
	for _, call := range []string{"dcgmHealthSet", "dcgmHealthCheck"} {
		t.Run(call, func(t *testing.T) {
			n := newNode(t, "t4x1")
			n.command("fail " + call + " -33")
			p := n.startHealth("")
			for failures, samples := 0, 0; failures < 3 || samples < 3; {
				switch f := p.frame("failed checks and samples"); {
				case f.Health != nil && (!strings.Contains(f.Health.Failure, "(-33)") || f.Health.Checked != nil):
					t.Fatalf("health of a failed call: %+v", f.Health)
				case f.Health != nil:
					failures++
				case f.Sample != nil:
					samples++
				}
			}
			p.logs("the health cannot be checked")
			if got := strings.Count(p.logged(), "the health cannot be checked"); got != 1 {
				t.Errorf("logged %d times", got)
			}
			n.command("clear")
			p.finds(0, "")
		})
	}
}

// peers receives frames until the topology between GPUs.
func (p *process) peers(what string) *model.Peers {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if f := p.frame(what); f.Peers != nil {
			return f.Peers
		}
	}
	p.t.Fatalf("waiting for %s: none received", what)
	return nil
}

// TestPeers shows the topology between GPUs, and its update after a change.
func TestPeers(t *testing.T) {
	n := newNode(t, "dgx-h100")
	n.command("link gpu 2 port 0 down")
	p := n.startHealth("")
	first := p.peers("the topology")
	if len(first.Pairs) != 8*7 {
		t.Fatalf("%d pairs, want 56", len(first.Pairs))
	}
	for _, pair := range first.Pairs {
		links := 18
		if pair.Entity == p.entity(gpu, 2) {
			links = 17
		}
		if pair.P2P != 0 || pair.NVLinks != links && pair.Peer != p.entity(gpu, 2) || pair.Path == model.PeerPathUnknown {
			t.Errorf("%+v, want %d links", pair, links)
		}
	}
	n.command("lose gpu 5")
	if next := p.peers("the topology without GPU 5"); len(next.Pairs) != 7*6 {
		t.Errorf("%d pairs without GPU 5, want 42", len(next.Pairs))
	}

	// A failed read only affects its own data.
	n = newNode(t, "h100x8")
	n.command("fail dcgmGetNvLinkP2PStatus -6")
	p = n.startHealth("")
	for _, pair := range p.peers("the topology").Pairs {
		if pair.P2P != model.Unknown || pair.Path == model.PeerPathUnknown {
			t.Errorf("%+v without a P2P status", pair)
		}
	}
}

// TestPeersNotSelected shows that the connections between GPUs are not read unless the
// configuration enables them: DCGM's calls for them fail without a complaint.
func TestPeersNotSelected(t *testing.T) {
	n := newNode(t, "h100x8")
	n.command("fail dcgmGetNvLinkP2PStatus -6")
	n.command("fail dcgmGetDeviceTopology -6")
	cfg := defaultConfig()
	cfg.HealthInterval = 100 * time.Millisecond
	p := n.start(cfg)
	for checks := 0; checks < 5; {
		switch f := p.frame("health checks"); {
		case f.Peers != nil:
			t.Fatalf("the connections were read: %+v", f.Peers)
		case f.Health != nil:
			checks++
		}
	}
	if log := p.logged(); strings.Contains(log, "P2P") || strings.Contains(log, "topology") {
		t.Errorf("the connections were read:\n%s", log)
	}
}
