// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector"
)

// startHealth starts a sampler that checks the health often.
func (n node) startHealth(devices string) *process {
	cfg := defaultConfig()
	cfg.HealthInterval = 100 * time.Millisecond
	cfg.Devices = devices
	return n.start(cfg)
}

// health takes frames until a health check fulfils ok, which gives a reason why not.
func (p *process) health(what string, ok func(h *collector.Health) error) *collector.Health {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	why := errors.New("there is none")
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

// finds waits until a check finds just this on a GPU; "" is nothing.
func (p *process) finds(id uint32, want string) *collector.Health {
	p.t.Helper()
	return p.health(fmt.Sprintf("%q on GPU %d", want, id), func(h *collector.Health) error {
		var found []string
		for _, i := range h.Incidents {
			if i.Entity == p.entity(gpu, id) {
				found = append(found, fmt.Sprintf("%v %v %s", i.System, i.Result, collector.HealthErrorName(i.Code)))
			}
		}
		slices.Sort(found)
		if got := strings.Join(slices.Compact(found), ", "); got != want || h.Failure != "" {
			return fmt.Errorf("it finds %q %s", got, h.Failure)
		}
		return nil
	})
}

// logs waits until the log, which comes another way than the frames, has the text.
func (p *process) logs(text string) {
	p.t.Helper()
	p.sample("the log to say "+text, func(*collector.Sample) error {
		if !strings.Contains(p.logged(), text) {
			return errors.New("it does not")
		}
		return nil
	})
}

// TestHealth shows what checks find, and that they follow the topology.
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
			t.Errorf("after %s GPU 3 is checked anew", c.command)
		}
	}
	n.command("sxid 19084 switch 2 port 1 fatal")
	p.health("the SXid", func(h *collector.Health) error {
		want := collector.HealthIncident{Entity: p.entity(collector.KindSwitch, 2), System: 11, Result: collector.HealthFail, Code: 15}
		if !slices.Contains(h.Incidents, want) {
			return fmt.Errorf("%+v", h.Incidents)
		}
		return nil
	})
	n.command("lose gpu 5")
	h = p.health("a check without GPU 5", func(h *collector.Health) error {
		if len(h.Checked) != 7+4 {
			return fmt.Errorf("%d are checked: %s", len(h.Checked), h.Failure)
		}
		return nil
	})
	if slices.ContainsFunc(h.Checked, func(c collector.CheckedEntity) bool { return c.Entity == p.entity(gpu, 5) }) {
		t.Errorf("a lost GPU is checked: %+v", h.Checked)
	}
	n.command("return gpu 5")
	p.health("a check with GPU 5 again", func(h *collector.Health) error {
		if len(h.Checked) != 8+4 {
			return fmt.Errorf("%d are checked: %s", len(h.Checked), h.Failure)
		}
		if !h.Checked[5].Since.After(h.Checked[4].Since) {
			return fmt.Errorf("it was watched all the time")
		}
		return nil
	})
}

// TestHealthOfSelected: only the selected GPUs are checked, and an XID of an instance
// is on its GPU.
func TestHealthOfSelected(t *testing.T) {
	p := newNode(t, "h100x8").startHealth("g:2,4")
	h := p.finds(4, "")
	if len(h.Checked) != 2 || h.Checked[0].Entity != p.entity(gpu, 2) {
		t.Errorf("checked are %+v", h.Checked)
	}
	p = newNode(t, "a100x7-mig").startHealth("")
	if h := p.finds(0, ""); len(h.Checked) != 1 {
		t.Errorf("of a split GPU, checked are %+v", h.Checked)
	}
}

// TestNoHealth: it is checked only on request.
func TestNoHealth(t *testing.T) {
	p := newNode(t, "t4x1").start(defaultConfig())
	for samples := 0; samples < 10; {
		switch f := p.frame("samples"); {
		case f.Health != nil || f.Peers != nil:
			t.Fatalf("health that nobody asked for: %+v", f)
		case f.Sample != nil:
			samples++
		}
	}
}

// TestHungHealth: a check that hangs costs no sample and is told once; when it ends,
// the next one comes.
func TestHungHealth(t *testing.T) {
	for _, call := range []string{"dcgmHealthCheck", "dcgmGetDeviceTopology"} {
		t.Run(call, func(t *testing.T) {
			n := newNode(t, "h100x8")
			p := n.startHealth("")
			p.finds(0, "")
			n.command("hang " + call)
			if call == "dcgmGetDeviceTopology" {
				n.command("detach gpu 7") // with a new inventory it is read anew
			}
			told := func() int { return strings.Count(p.logged(), "a health check takes longer") }
			p.logs("a health check takes longer")
			for samples := 0; samples < 20; {
				switch f := p.frame("samples"); {
				case f.Health != nil:
					t.Fatalf("health from a call that hangs: %+v", f.Health)
				case f.Sample != nil:
					samples++
				}
			}
			n.command("lose gpu 1")
			p.inventory("a new topology meanwhile")
			p.frame("a sample of it")
			if told() != 1 {
				t.Errorf("it is logged %d times", told())
			}
			n.command("clear")
			p.health("a check of the new topology", func(h *collector.Health) error {
				if h.Failure != "" || slices.ContainsFunc(h.Checked, func(c collector.CheckedEntity) bool { return c.Entity == p.entity(gpu, 1) }) {
					return fmt.Errorf("%+v", h)
				}
				return nil
			})
			p.logs("has come to an end")
		})
	}
}

// TestHungHealthAtTheEnd: a check that hangs does not keep the sampler from its end,
// nor from telling what came since the last sample; that the process has ended is seen
// when the test is cleaned up.
func TestHungHealthAtTheEnd(t *testing.T) {
	n := newNode(t, "t4x1")
	n.command("hang dcgmHealthSet")
	cfg := defaultConfig()
	cfg.Interval, cfg.HealthInterval = 20*time.Second, 100*time.Millisecond
	p := n.start(cfg)
	p.logs("a health check takes longer")
	n.command("xid 79 gpu 0")
	time.Sleep(300 * time.Millisecond) // until DCGM has heard
	p.stdin.Close()
	<-p.exited
	xids := 0
	for f := range p.frames {
		if f.Events != nil {
			xids += len(f.Events.List)
		}
	}
	if xids != 1 {
		t.Errorf("%d XIDs were told, want 1", xids)
	}
	if !strings.Contains(p.logged(), "DCGM did not end in time") {
		t.Errorf("the log does not say that the call was left behind")
	}
}

// TestHealthFails: checks that fail are told once and counted, and cost no sample.
func TestHealthFails(t *testing.T) {
	for _, call := range []string{"dcgmHealthSet", "dcgmHealthCheck"} {
		t.Run(call, func(t *testing.T) {
			n := newNode(t, "t4x1")
			n.command("fail " + call + " -33")
			p := n.startHealth("")
			for failures, samples := 0, 0; failures < 3 || samples < 3; {
				switch f := p.frame("failed checks and samples"); {
				case f.Health != nil && (!strings.Contains(f.Health.Failure, "(-33)") || f.Health.Checked != nil):
					t.Fatalf("health from a call that fails: %+v", f.Health)
				case f.Health != nil:
					failures++
				case f.Sample != nil:
					samples++
				}
			}
			p.logs("the health cannot be checked")
			if got := strings.Count(p.logged(), "the health cannot be checked"); got != 1 {
				t.Errorf("it is logged %d times", got)
			}
			n.command("clear")
			p.finds(0, "")
		})
	}
}

// peers takes frames until the topology between GPUs comes.
func (p *process) peers(what string) *collector.Peers {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if f := p.frame(what); f.Peers != nil {
			return f.Peers
		}
	}
	p.t.Fatalf("waiting for %s: there is none", what)
	return nil
}

// TestPeers shows how GPUs reach each other, anew with each topology.
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
		if pair.P2P != 0 || pair.NVLinks != links && pair.Peer != p.entity(gpu, 2) || pair.Path == collector.PeerPathUnknown {
			t.Errorf("%+v, want %d links", pair, links)
		}
	}
	n.command("lose gpu 5")
	if next := p.peers("the topology without GPU 5"); len(next.Pairs) != 7*6 {
		t.Errorf("%d pairs without GPU 5, want 42", len(next.Pairs))
	}

	// What cannot be read costs only itself.
	n = newNode(t, "h100x8")
	n.command("fail dcgmGetNvLinkP2PStatus -6")
	p = n.startHealth("")
	for _, pair := range p.peers("the topology").Pairs {
		if pair.P2P != collector.Unknown || pair.Path == collector.PeerPathUnknown {
			t.Errorf("%+v without a P2P status", pair)
		}
	}
}

func TestPeerPath(t *testing.T) {
	for _, c := range []struct {
		v     uint64
		path  string
		links int
	}{
		{0, "", 0}, {0x1, "BOARD", 0}, {0x2, "PIX", 0}, {0x8, "PHB", 0}, {0x20, "SYS", 0}, {0x210, "NODE", 2},
		{0x2000000 | 0x20, "SYS", 18}, {0x20000000000, "", 34}, {0x40, "", 0},
	} {
		if path, links := peerPath(c.v); path.String() != c.path || links != c.links {
			t.Errorf("%#x is %v with %d links, want %s with %d", c.v, path, links, c.path, c.links)
		}
	}
}

// TestHealthErrorNames compares the names with DCGM's header.
func TestHealthErrorNames(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(goDCGM(t), "dcgm_errors.h"))
	if err != nil {
		t.Fatal(err)
	}
	codes, _, _ := strings.Cut(string(source), "} dcgmError_t;")
	checked := 0
	for _, m := range regexp.MustCompile(`DCGM_FR_(\w+)\s*=\s*(\d+)`).FindAllStringSubmatch(codes, -1) {
		code, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		want := m[1]
		if want == "ERROR_SENTINEL" {
			want = m[2] // the first that has no name
		}
		if got := collector.HealthErrorName(uint32(code)); got != want {
			t.Errorf("code %d is %s, want %s", code, got, want)
		}
		checked++
	}
	if checked < 130 {
		t.Errorf("only %d names are in the header", checked)
	}
}
