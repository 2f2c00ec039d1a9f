// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// startReader starts a sampler that also reads processes.
func (n node) startReader() *process {
	cfg := defaultConfig()
	cfg.Processes = true
	return n.start(cfg, nvmlVariable+"=1")
}

// pids returns the processes on an entity; nil if they are unknown.
func (p *process) pids(r *model.Processes, kind model.EntityKind, id uint32) []uint32 {
	p.t.Helper()
	at := p.entity(kind, id)
	for _, d := range r.Devices {
		if d.Entity == at && d.Listed == model.StatusOK {
			pids := []uint32{}
			for _, process := range d.Processes {
				pids = append(pids, process.PID)
			}
			return pids
		}
	}
	return nil
}

// runs waits until exactly these processes run on an entity.
func (p *process) runs(kind model.EntityKind, id uint32, want ...uint32) {
	p.t.Helper()
	p.processes(fmt.Sprintf("%v on %v %d", want, kind, id), func(r *model.Processes) error {
		if got := p.pids(r, kind, id); got == nil || !slices.Equal(got, want) {
			return fmt.Errorf("processes %v", got)
		}
		return nil
	})
}

// TestProcesses shows readings of the processes between the samples.
func TestProcesses(t *testing.T) {
	n := newNode(t, "h100x8")
	n.command("process none")
	n.command("process gpu 3 pid 42 memory 1000 share 50")
	n.command("load gpu 3 util 60")
	p := n.startReader()
	p.runs(gpu, 3, 42)
	r := p.processes("their utilization", func(r *model.Processes) error {
		if d := r.Devices[3]; d.Utilization != model.StatusOK || len(d.Processes) != 1 || d.Processes[0].SM != 0.3 {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	if len(r.Devices) != 8 || r.Time.IsZero() || r.Duration <= 0 {
		t.Errorf("%d devices, read at %v for %v", len(r.Devices), r.Time, r.Duration)
	}
	n.command("process gpu 3 pid 43")
	p.runs(gpu, 3, 42, 43)
	n.command("process none gpu 3")
	p.runs(gpu, 3)
}

// TestNoProcesses shows that processes are not read by default.
func TestNoProcesses(t *testing.T) {
	p := newNode(t, "t4x1").start(defaultConfig(), nvmlVariable+"=1")
	for samples := 0; samples < 10; {
		switch f := p.frame("samples"); {
		case f.Processes != nil:
			t.Fatalf("unexpected processes: %+v", f.Processes)
		case f.Sample != nil:
			samples++
		}
	}
}

// TestRepartitionProcesses shows that processes on new instances are reported with the
// new inventory, and never on old instances.
func TestRepartitionProcesses(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	p := n.startReader()
	p.runs(compute, 0, 4200001)
	for i, e := range p.inv.Entities {
		if e.Kind == inst && (e.PlacementStart != int(e.ID) || e.Profile != "1g.5gb") {
			t.Errorf("instance %d starts at %d: %+v", i, e.PlacementStart, e)
		}
		if e.Kind != inst && e.PlacementStart != model.Unknown {
			t.Errorf("entity %d starts at %d: %+v", i, e.PlacementStart, e)
		}
	}
	n.command("mig gpu 0 2g.10gb+3g.20gb/1c,2c")
	n.command("process none gpu 0")
	n.command("process gpu 0 pid 77 ci 1")
	first := p.inv.Generation
	p.processes("the new instances", func(r *model.Processes) error {
		if r.Generation == first {
			// None of the old entities has the process.
			for _, d := range r.Devices {
				for _, process := range d.Processes {
					if process.PID == 77 {
						t.Errorf("the process is on entity %d of the old inventory", d.Entity)
					}
				}
			}
			return fmt.Errorf("the inventory has not changed yet")
		}
		if got := p.pids(r, compute, 1); !slices.Equal(got, []uint32{77}) {
			return fmt.Errorf("compute instance 1 has %v", got)
		}
		return nil
	})
	starts := make(map[string]int)
	for _, e := range p.inv.Entities {
		if e.Kind == inst {
			starts[e.Profile] = e.PlacementStart
		}
	}
	if starts["2g.10gb"] != 0 || starts["3g.20gb"] != 2 {
		t.Errorf("the instances start at %v", starts)
	}
}

// TestHungProcesses shows that samples and inventories continue during a hung reading,
// which is logged once, and that readings continue after it.
func TestHungProcesses(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	p := n.startReader()
	p.runs(compute, 0, 4200001)
	n.command("hang nvmlDeviceGetComputeRunningProcesses_v3")
	count := func() int {
		return strings.Count(p.logged(), "reading the processes takes longer")
	}
	// A reading may still be in the pipe; the log record follows a missed reading.
	p.sample("a record of the slow reading", func(*model.Sample) error {
		if count() == 0 {
			return fmt.Errorf("not logged")
		}
		return nil
	})
	logged := time.Now() // frames from before may still be in the pipe
	for samples := 0; samples < 20; {
		switch f := p.frame("samples"); {
		case f.Processes != nil && f.Processes.Time.After(logged):
			t.Fatalf("processes of a hung call: %+v", f.Processes)
		case f.Sample != nil && f.Sample.Time.After(logged):
			samples++
		}
	}
	n.command("mig gpu 0 3g.20gb*2")
	p.inventory("the new instances")
	p.frame("a sample of them")
	if count() != 1 {
		t.Errorf("logged %d times", count())
	}
	n.command("clear")
	p.runs(compute, 1, 4200002)
	p.logs("reading the processes has finished")
}

// TestProcessesFail shows that a failure is logged once and that samples continue.
func TestProcessesFail(t *testing.T) {
	n := newNode(t, "t4x1")
	n.command("fail nvmlInit_v2 9")
	p := n.startReader()
	for samples := 0; samples < 10; {
		switch f := p.frame("samples"); {
		case f.Processes != nil:
			t.Fatalf("processes without NVML: %+v", f.Processes)
		case f.Sample != nil:
			samples++
		}
	}
	if got := strings.Count(p.logged(), "the processes on the devices cannot be read"); got != 1 {
		t.Errorf("logged %d times", got)
	}
	n.command("clear")
	p.runs(gpu, 0, 4200000)
}
