// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// startImpatient starts a sampler with impatientTiming.
func (n node) startImpatient(cfg wire.SamplerConfig) *process {
	n.t.Helper()
	return n.start(cfg, impatientVariable+"=1")
}

// scenario writes a scenario file and returns its path.
func scenario(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scenario")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// send sends a command to the sampler.
func (p *process) send(c wire.SamplerCommand) {
	p.t.Helper()
	if err := json.NewEncoder(p.stdin).Encode(c); err != nil {
		p.t.Fatal(err)
	}
}

// profiling receives frames until the states of all GPUs, by ID, are the wanted ones.
func (p *process) profiling(want ...string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	got := "nothing"
	for time.Now().Before(deadline) {
		f := p.frame("profiling to be " + strings.Join(want, ", "))
		if f.Failure != nil {
			p.t.Fatalf("the sampler failed: %+v", *f.Failure)
		}
		if f.Profiling == nil {
			continue
		}
		var states []string
		for _, g := range f.Profiling.GPUs {
			states = append(states, fmt.Sprintf("%d %v", p.inv.Entities[g.Entity].ID, g.State))
		}
		if slices.Equal(states, want) {
			return
		}
		got = strings.Join(states, ", ")
	}
	p.t.Fatalf("profiling is %s, want %s", got, strings.Join(want, ", "))
}

// TestProfilingStates shows the reason why GPUs have no profiling, and that there are no
// states without profiling fields.
func TestProfilingStates(t *testing.T) {
	n := newNode(t, "mixed4")
	p := n.start(defaultConfig())
	p.profiling("0 active", "1 module_not_loaded", "3 module_not_loaded", "5 module_not_loaded")

	cfg := defaultConfig()
	cfg.Fields[gpu] = []model.FieldID{150}
	p = n.start(cfg)
	for range 5 {
		if f := p.frame("a frame"); f.Profiling != nil {
			t.Fatalf("profiling %+v without profiling fields", *f.Profiling)
		}
	}
}

// TestProfilingFieldsAfterAnError shows that an error, or absurd numbers of profiling fields,
// cost neither memory nor profiling for good.
func TestProfilingFieldsAfterAnError(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	healthy := n.start(defaultConfig())
	healthy.profiling("0 active", "1 active")
	for _, fault := range []string{"fail %s -3", "garbage %s 255"} {
		n.command(fmt.Sprintf(fault, "dcgmProfGetSupportedMetricGroups"))
		p := n.start(defaultConfig())
		p.profiling("0 unsupported", "1 unsupported")
		p.has(gpu, 1, 150, model.StatusOK)
		if got, most := p.peak(), healthy.peak()+1<<30; got > most {
			t.Errorf("%s: the sampler had %d bytes, want at most %d", fault, got, most)
		}
		n.command("clear")
		p.profiling("0 active", "1 active")
	}
}

// peak returns the most memory that the sampler had, touched or not, in bytes.
func (p *process) peak() (bytes int) {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "\nVmPeak:")
	if _, err := fmt.Sscan(peak, &bytes); err != nil {
		p.t.Fatal(err)
	}
	return bytes << 10
}

// TestStalledProfiling shows that values which DCGM does not update are withheld and
// their fields re-watched until they work again.
func TestStalledProfiling(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("load gpu all util 80")
	cfg := defaultConfig()
	cfg.Fields[gpu] = []model.FieldID{150, 1001, 1004}
	cfg.Tracked = []model.TrackedField{{Field: 1001, Kinds: model.Kinds(gpu)}, {Field: 155, Kinds: model.Kinds(gpu)}}
	p := n.startImpatient(cfg)
	p.profiling("0 active", "1 active")
	p.has(gpu, 0, 1001, model.StatusOK)
	n.command("profiling gpu 0 stalled for-good")
	n.command("load gpu all util 40")
	p.profiling("0 frozen", "1 active")
	s := p.has(gpu, 0, 1004, model.StatusStale)
	if c := p.cell(s, gpu, 0, 150); c.Status != model.StatusOK {
		t.Errorf("temperature is %v", c.Status)
	}
	// The other GPU has values in every sample, however often this one is re-watched.
	tracked := make(map[string]bool)
	deadline := time.Now().Add(patience)
	for p.rewatches < 3 {
		if time.Now().After(deadline) {
			t.Fatalf("%d re-watches, want 3", p.rewatches)
		}
		f := p.frame("a frame")
		if f.Tracks != nil {
			for _, track := range f.Tracks.List {
				tracked[fmt.Sprint(track.Entity, " ", track.Field)] = true
			}
		}
		if f.Sample == nil {
			continue
		}
		if c := p.cell(f.Sample, gpu, 1, 1001); c.Status != model.StatusOK {
			t.Fatalf("GPU 1: %v", c.Status)
		}
		if c := p.cell(f.Sample, gpu, 0, 1001); c.Status == model.StatusOK {
			t.Fatalf("GPU 0 shows %v", c.Float64())
		}
	}
	if tracked["0 1001"] || !tracked["1 1001"] || !tracked["0 155"] {
		t.Errorf("tracked by GPU and field: %v", tracked)
	}
	n.command("profiling gpu 0 ok")
	p.profiling("0 active", "1 active")
	if s := p.has(gpu, 0, 1001, model.StatusOK); p.cell(s, gpu, 0, 1001).Float64() > 0.45 {
		t.Errorf("GPU 0 shows %v", p.cell(s, gpu, 0, 1001).Float64())
	}
	if got := strings.Count(p.logged(), "DCGM does not update the profiling values"); got != 1 {
		t.Errorf("the stall was logged %d times", got)
	}
}

// TestConstantProfiling shows that values which stay the same, and zeros, are published:
// they can be true.
func TestConstantProfiling(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("load gpu all util 80")
	p := n.startImpatient(defaultConfig())
	p.profiling("0 active", "1 active")
	p.has(gpu, 0, 1001, model.StatusOK)
	n.command("profiling gpu 0 frozen for-good")
	n.command("profiling gpu 1 zero for-good")
	p.sample("zeros", func(s *model.Sample) error {
		if c := p.cell(s, gpu, 1, 1001); c.Status != model.StatusOK || c.Float64() != 0 {
			return fmt.Errorf("%v, %v", c.Status, c.Float64())
		}
		return nil
	})
	for until := time.Now().Add(2 * impatientTiming.stall); time.Now().Before(until); {
		f := p.frame("a frame")
		if f.Profiling != nil {
			t.Fatalf("profiling %+v", *f.Profiling)
		}
		if f.Sample != nil && p.cell(f.Sample, gpu, 0, 1001).Status != model.StatusOK {
			t.Fatalf("GPU 0: %v", p.cell(f.Sample, gpu, 0, 1001).Status)
		}
	}
}

// TestProfilingRecoversInTurn shows that a re-watched GPU stays watched when GPUs that
// once shared its watch are re-watched.
func TestProfilingRecoversInTurn(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("load gpu all util 90")
	p := n.startImpatient(defaultConfig())
	p.profiling("0 active", "1 active")
	p.has(gpu, 0, 1001, model.StatusOK)
	n.command("profiling gpu 0 stalled")
	p.profiling("0 frozen", "1 active")
	p.profiling("0 active", "1 active")
	n.command("profiling gpu 1 stalled")
	p.profiling("0 active", "1 frozen")
	p.profiling("0 active", "1 active")
	n.command("load gpu all util 40")
	for id := range uint32(2) {
		p.sample(fmt.Sprintf("the new load of GPU %d", id), func(s *model.Sample) error {
			if c := p.cell(s, gpu, id, 1001); c.Status != model.StatusOK || c.Float64() > 0.45 {
				return fmt.Errorf("%v, %v", c.Status, c.Float64())
			}
			return nil
		})
	}
	if p.rewatches != 2 {
		t.Errorf("%d re-watches, want 2: one for each GPU", p.rewatches)
	}
}

// TestStalledInstances shows a stall on a MIG GPU, of which only instances are read.
func TestStalledInstances(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	n.command("load gpu 0 util 90")
	cfg := defaultConfig()
	cfg.Devices = "i:0-6"
	p := n.startImpatient(cfg)
	p.profiling("0 active")
	p.has(inst, 3, 1001, model.StatusOK)
	n.command("profiling gpu 0 stalled for-good")
	p.profiling("0 frozen")
	p.has(inst, 3, 1001, model.StatusStale)
	n.command("profiling gpu 0 ok")
	p.profiling("0 active")
	p.has(inst, 3, 1001, model.StatusOK)
}

// TestLockedProfiling shows retries while another client uses the hardware: of a single
// GPU at the start, and of all GPUs after they were watched.
func TestLockedProfiling(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("profiling gpu 1 locked")
	p := n.startImpatient(defaultConfig())
	p.profiling("0 active", "1 locked")
	s := p.has(gpu, 1, 1001, model.StatusNotWatched)
	if c := p.cell(s, gpu, 1, 150); c.Status != model.StatusOK {
		t.Errorf("temperature is %v", c.Status)
	}
	if c := p.cell(s, gpu, 0, 1001); c.Status == model.StatusNotWatched {
		t.Error("the other GPU is not watched")
	}
	n.command("profiling gpu 1 ok")
	p.profiling("0 active", "1 active")
	p.has(gpu, 1, 1001, model.StatusOK)
	n.command("profiling gpu all locked -34")
	p.profiling("0 locked", "1 locked")
	n.command("profiling gpu all ok")
	p.profiling("0 active", "1 active")
	p.has(gpu, 0, 1001, model.StatusOK)
	if got := strings.Count(p.logged(), "another client uses the profiling hardware"); got != 3 {
		t.Errorf("the lock was logged %d times, want 3: once for each GPU and lock", got)
	}
}

// TestProfilingWithoutFirstValue: a GPU whose profiling fields never have a value is
// found, as one whose values end.
func TestProfilingWithoutFirstValue(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("profiling gpu 1 stalled for-good")
	p := n.startImpatient(defaultConfig())
	p.profiling("0 active", "1 frozen")
	n.command("profiling gpu 1 ok")
	p.profiling("0 active", "1 active")
	p.has(gpu, 1, 1001, model.StatusOK)
}

// TestPausedProfiling shows a pause by command, its expiry, and a pause from the
// configuration.
func TestPausedProfiling(t *testing.T) {
	n := newNode(t, "mixed4")
	p := n.startImpatient(defaultConfig())
	rest := []string{"1 module_not_loaded", "3 module_not_loaded", "5 module_not_loaded"}
	active, paused := append([]string{"0 active"}, rest...), append([]string{"0 paused"}, rest...)
	p.profiling(active...)
	p.has(gpu, 0, 1001, model.StatusOK)
	p.send(wire.SamplerCommand{ProfilingPause: time.Hour})
	p.profiling(paused...)
	s := p.has(gpu, 0, 1001, model.StatusNotWatched)
	if c := p.cell(s, gpu, 0, 150); c.Status != model.StatusOK {
		t.Errorf("temperature is %v", c.Status)
	}
	if c := p.cell(s, gpu, 1, 1001); c.Status != model.StatusModuleMissing {
		t.Errorf("GPU 1 is %v", c.Status)
	}
	p.send(wire.SamplerCommand{})
	p.profiling(active...)
	p.has(gpu, 0, 1001, model.StatusOK)
	p.send(wire.SamplerCommand{ProfilingPause: time.Hour})
	p.profiling(paused...)
	p.send(wire.SamplerCommand{ProfilingPause: 300 * time.Millisecond}) // replaces the end
	p.profiling(active...)
	p.has(gpu, 0, 1001, model.StatusOK)

	cfg := defaultConfig()
	cfg.ProfilingPause = 500 * time.Millisecond
	p = n.startImpatient(cfg)
	p.profiling(paused...)
	p.has(gpu, 0, 1001, model.StatusNotWatched)
	p.profiling(active...)
	p.has(gpu, 0, 1001, model.StatusOK)
}

// TestPauseReleasesHardware shows that another client can use the hardware during a
// pause, and that the sampler retries afterwards.
func TestPauseReleasesHardware(t *testing.T) {
	n := newNode(t, scenario(t, "base a100x8\nprofiling yes"))
	p := n.startImpatient(defaultConfig())
	states := func(state string) (all []string) {
		for i := range 8 {
			all = append(all, fmt.Sprintf("%d %s", i, state))
		}
		return all
	}
	p.profiling(states("active")...)
	p.send(wire.SamplerCommand{ProfilingPause: time.Hour})
	p.profiling(states("paused")...)
	n.command("profiling gpu all locked")
	p.send(wire.SamplerCommand{})
	p.profiling(states("locked")...)
	n.command("profiling gpu all ok")
	p.profiling(states("active")...)
	p.sample("values of all GPUs", func(s *model.Sample) error {
		for i := range uint32(8) {
			if p.cell(s, gpu, i, 1001).Status != model.StatusOK {
				return errors.New("some have none")
			}
		}
		return nil
	})
}

// TestTrackedProfiling shows that profiling fields that are only tracked are paused and
// retried as well.
func TestTrackedProfiling(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("profiling gpu 1 locked")
	cfg := defaultConfig()
	cfg.Fields[gpu] = []model.FieldID{150}
	cfg.Tracked = []model.TrackedField{{Field: 1001, Kinds: model.Kinds(gpu)}}
	p := n.startImpatient(cfg)
	p.profiling("0 active", "1 locked")
	n.command("profiling gpu 1 ok")
	p.profiling("0 active", "1 active")
	p.tracks(0, 1001)
	p.send(wire.SamplerCommand{ProfilingPause: time.Hour})
	p.profiling("0 paused", "1 paused")
	for range 10 {
		if f := p.frame("a frame"); f.Tracks != nil {
			t.Fatalf("tracked values of profiling during a pause: %+v", f.Tracks.List)
		}
	}
	p.send(wire.SamplerCommand{})
	p.profiling("0 active", "1 active")
	p.tracks(1, 1001)
}

// TestAlternativeToProfiling shows that the alternative to a profiling field is tracked
// while the hardware is locked.
func TestAlternativeToProfiling(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 2"))
	n.command("profiling gpu 1 locked")
	cfg := defaultConfig()
	cfg.Tracked = []model.TrackedField{
		{Field: 1001, Kinds: model.Kinds(gpu)},
		{Field: 203, Kinds: model.Kinds(gpu), Unless: 1001, Every: 20 * time.Millisecond},
	}
	p := n.startImpatient(cfg)
	p.profiling("0 active", "1 locked")
	p.tracks(1, 203)
	n.command("profiling gpu 1 ok")
	p.profiling("0 active", "1 active")
	p.tracks(1, 1001)
	n.command("profiling gpu all locked -34") // while the fields are watched
	p.profiling("0 locked", "1 locked")
	p.tracks(0, 203)
}

// tracks receives frames until one has tracked values of a GPU's field.
func (p *process) tracks(id uint32, field model.FieldID) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		f := p.frame("tracked values")
		if f.Tracks == nil {
			continue
		}
		for _, track := range f.Tracks.List {
			if track.Entity == p.entity(gpu, id) && track.Field == field {
				return
			}
		}
	}
	p.t.Fatalf("no tracked values of field %d of GPU %d", field, id)
}

// TestExcludedProfiling shows that a GPU whose profiling fields are excluded has no
// profiling state.
func TestExcludedProfiling(t *testing.T) {
	n := newNode(t, "mixed4")
	cfg := defaultConfig()
	cfg.Fields[gpu] = []model.FieldID{150, 1001}
	cfg.Models = []wire.ModelRule{{Field: 1001, Match: ".*(L4|H100).*"}}
	p := n.start(cfg)
	p.profiling("1 module_not_loaded", "5 module_not_loaded")
}
