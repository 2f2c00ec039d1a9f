// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/nvml"
	"gpu_exporter/collector/wire"
)

// Each sampler of a test is a separate process: the loader's path is fixed when a
// process starts, and an injected fault must not end the test.
const (
	childVariable = "DCGM_TEST_CHILD"
	// migVariable is the result of the child's MIGDevices, as JSON or in a file: @path.
	migVariable = "DCGM_TEST_MIG"
	// nvmlVariable makes the child read MIG devices and processes from NVML.
	nvmlVariable = "DCGM_TEST_NVML"
	// impatientVariable makes the child use impatientTiming.
	impatientVariable = "DCGM_TEST_IMPATIENT"
)

// impatientTiming is the timing of a sampler with impatientVariable. The stall is far
// longer than an interval, so that a busy machine does not cause one.
var impatientTiming = profilingTiming{stall: 3 * time.Second, retry: 300 * time.Millisecond}

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "run":
		os.Exit(runChild())
	case "measure":
		os.Exit(measureChild())
	}
	os.Exit(m.Run())
}

// runChild is a sampler process: it reads its configuration from stdin, ends with stdin,
// and writes frames to descriptor 3.
func runChild() int {
	cfg, err := wire.ReadSamplerConfig(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, cancel := context.WithCancel(context.Background())
	commands := make(chan wire.SamplerCommand)
	go func() {
		defer cancel()
		if err := wire.ReadSamplerCommands(os.Stdin, func(c wire.SamplerCommand) { commands <- c }); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	frames := wire.NewFrameWriter(os.NewFile(3, "frames"))
	c := Config{
		Sampler:  cfg,
		Frames:   frames,
		Commands: commands,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if devices := os.Getenv(migVariable); devices != "" {
		c.MIGDevices = func() ([]model.MIGDevice, error) {
			var list []model.MIGDevice
			text := []byte(devices)
			if path, ok := strings.CutPrefix(devices, "@"); ok {
				var err error
				if text, err = os.ReadFile(path); err != nil {
					return nil, err
				}
			}
			err := json.Unmarshal(text, &list)
			return list, err
		}
	}
	if os.Getenv(impatientVariable) != "" {
		c.timing = impatientTiming
	}
	if os.Getenv(nvmlVariable) != "" {
		reader := nvml.NewReader(c.Logger)
		defer reader.Close()
		c.MIGDevices, c.Processes = reader.MIGDevices, reader.Processes
	}
	err = Run(ctx, c)
	var failed *FailureError
	switch {
	case errors.As(err, &failed):
		if err := frames.Write(wire.Frame{Failure: &failed.Failure}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// node is a simulated node.
type node struct {
	*dcgmsim.Node
	t *testing.T
}

// newNode returns a node of a scenario.
func newNode(t *testing.T, scenario string) node {
	t.Helper()
	dir, err := os.MkdirTemp("", "dcgm") // short enough for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return node{dcgmsim.NewNode(standIn(t), dir, scenario), t}
}

// standIn returns the directory of the stand-ins.
func standIn(t testing.TB) string {
	t.Helper()
	dir, err := dcgmsim.BuildShared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// command steers the node.
func (n node) command(line string) {
	n.t.Helper()
	if _, err := n.Command(n.t.Context(), line); err != nil {
		n.t.Fatal(err)
	}
}

// defaultFields are fields of each type and level, and profiling fields.
func defaultFields() map[model.EntityKind][]model.FieldID {
	return map[model.EntityKind][]model.FieldID{
		model.KindGPU:         {1, 100, 150, 155, 156, 203, 230, 250, 251, 252, 1001, 1002, 1004, 1005, 1010},
		model.KindGPUInstance: {150, 155, 203, 230, 250, 251, 252, 1001, 1002},
	}
}

func defaultConfig() wire.SamplerConfig {
	return wire.SamplerConfig{Interval: 50 * time.Millisecond, Fields: defaultFields()}
}

// process is a sampler process and its output.
type process struct {
	t      *testing.T
	cfg    wire.SamplerConfig
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	frames chan wire.Frame
	broken chan error // why the frames ended; io.EOF at a regular end
	exited chan struct{}

	mu     sync.Mutex
	output strings.Builder // stdout
	log    strings.Builder // stderr

	inv *model.Inventory // the newest received one
	// rewatches is the number of reported re-watches of profiling.
	rewatches uint32
	// xids are the codes of all XIDs so far.
	xids []int64
}

// startProcess starts a sampler in the environment env.
func startProcess(t *testing.T, cfg wire.SamplerConfig, env ...string) *process {
	t.Helper()
	p := &process{t: t, cfg: cfg, frames: make(chan wire.Frame, 4096), broken: make(chan error, 1), exited: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LD_LIBRARY_PATH=") || strings.HasPrefix(v, "DCGMSIM_") || strings.HasPrefix(v, "__DCGM")
	}), append(env, childVariable+"=run")...)
	p.cmd.Stdout = &lockedWriter{&p.mu, &p.output}
	p.cmd.Stderr = &lockedWriter{&p.mu, &p.log}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.ExtraFiles = []*os.File{w}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := cfg.WriteTo(stdin); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer r.Close()
		reader := wire.NewFrameReader(r)
		for {
			f, err := reader.Next()
			if err != nil {
				p.broken <- err
				close(p.frames)
				return
			}
			p.frames <- f
		}
	}()
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		select {
		case <-p.exited:
		case <-time.After(patience):
			t.Error("the sampler did not end with its stdin")
			_ = p.cmd.Process.Kill()
		}
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("the sampler's log:\n%s%s", p.log.String(), p.output.String())
		}
	})
	return p
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (n node) start(cfg wire.SamplerConfig, env ...string) *process {
	n.t.Helper()
	return startProcess(n.t, cfg, append(n.Environ(), env...)...)
}

// patience bounds the wait for a condition.
const patience = 2 * time.Minute

// frame receives the next frame.
func (p *process) frame(what string) wire.Frame {
	p.t.Helper()
	select {
	case f, ok := <-p.frames:
		if !ok {
			p.t.Fatalf("waiting for %s: frames ended: %v", what, <-p.broken)
		}
		switch {
		case f.Wait != 0:
			return p.frame(what)
		case f.Inventory != nil:
			if p.inv != nil && f.Inventory.Generation <= p.inv.Generation {
				p.t.Fatalf("inventory %d after %d", f.Inventory.Generation, p.inv.Generation)
			}
			p.inv = f.Inventory
		case f.Sample != nil:
			p.check(f.Sample)
		case f.Processes != nil && (p.inv == nil || f.Processes.Generation != p.inv.Generation):
			p.t.Fatalf("processes of generation %d do not follow their inventory", f.Processes.Generation)
		case f.Events != nil:
			for _, e := range f.Events.List {
				p.xids = append(p.xids, e.Code)
			}
		case f.Profiling != nil:
			if p.inv == nil || f.Profiling.Generation != p.inv.Generation {
				p.t.Fatalf("profiling of generation %d does not follow its inventory", f.Profiling.Generation)
			}
			for _, g := range f.Profiling.GPUs {
				p.rewatches += g.Rewatches
			}
		}
		return f
	case <-time.After(patience):
		p.t.Fatalf("waiting for %s: no frame", what)
		return wire.Frame{}
	}
}

// check checks the invariants of every sample.
func (p *process) check(s *model.Sample) {
	p.t.Helper()
	if p.inv == nil || s.Generation != p.inv.Generation {
		p.t.Fatalf("a sample of generation %d does not follow its inventory", s.Generation)
	}
	if len(s.Rows) != len(p.inv.Entities) {
		p.t.Fatalf("%d rows for %d entities", len(s.Rows), len(p.inv.Entities))
	}
	for i, row := range s.Rows {
		if len(row) != 0 && len(row) != len(p.inv.Columns[p.inv.Entities[i].Kind]) {
			p.t.Fatalf("row %d has %d cells", i, len(row))
		}
	}
}

// sample receives frames until ok returns nil for a sample.
func (p *process) sample(what string, ok func(s *model.Sample) error) *model.Sample {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	var why error
	for time.Now().Before(deadline) {
		f := p.frame(what)
		if f.Failure != nil {
			p.t.Fatalf("waiting for %s: the sampler failed: %+v", what, *f.Failure)
		}
		if f.Sample != nil {
			if why = ok(f.Sample); why == nil {
				return f.Sample
			}
		}
	}
	p.t.Fatalf("waiting for %s: %v", what, why)
	return nil
}

// inventory receives frames until the next inventory.
func (p *process) inventory(what string) *model.Inventory {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		if time.Now().After(deadline) {
			p.t.Fatalf("waiting for %s: no inventory", what)
		}
		if f := p.frame(what); f.Inventory != nil {
			return f.Inventory
		} else if f.Failure != nil {
			p.t.Fatalf("waiting for %s: the sampler failed: %+v", what, *f.Failure)
		}
	}
}

// processes receives frames until ok returns nil for a reading of processes.
func (p *process) processes(what string, ok func(r *model.Processes) error) *model.Processes {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	why := errors.New("none received")
	for time.Now().Before(deadline) {
		f := p.frame(what)
		if f.Failure != nil {
			p.t.Fatalf("waiting for %s: the sampler failed: %+v", what, *f.Failure)
		}
		if f.Processes != nil {
			if why = ok(f.Processes); why == nil {
				return f.Processes
			}
		}
	}
	p.t.Fatalf("waiting for %s: %v", what, why)
	return nil
}

// logged returns the log of the sampler.
func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// eventually waits for a condition that no frame shows.
func (p *process) eventually(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waiting for %s: timed out", what)
		}
	}
}

// events receives frames until there are n events.
func (p *process) events(what string, n int) (events []model.Event, inv *model.Inventory) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for len(events) < n && time.Now().Before(deadline) {
		if f := p.frame(what); f.Events != nil {
			if f.Events.Generation != p.inv.Generation {
				p.t.Fatalf("events of generation %d, current is %d", f.Events.Generation, p.inv.Generation)
			}
			events, inv = append(events, f.Events.List...), p.inv
		}
	}
	if len(events) != n {
		p.t.Fatalf("waiting for %s: %d events %+v, want %d", what, len(events), events, n)
	}
	return events, inv
}

// failure receives frames until the sampler's failure, and waits for its end.
func (p *process) failure() model.Failure {
	p.t.Helper()
	for {
		f := p.frame("the failure")
		if f.Failure == nil {
			continue
		}
		select {
		case <-p.exited:
		case <-time.After(patience):
			p.t.Fatal("the sampler did not end after its failure")
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 1 {
			p.t.Errorf("exit status %d, want 1", code)
		}
		return *f.Failure
	}
}

// entity returns the position of an entity by DCGM's ID.
func (p *process) entity(kind model.EntityKind, id uint32) int {
	p.t.Helper()
	for i, e := range p.inv.Entities {
		if e.Kind == kind && e.ID == id {
			return i
		}
	}
	p.t.Fatalf("no %v %d in the inventory", kind, id)
	return -1
}

// cell returns the cell of a field.
func (p *process) cell(s *model.Sample, kind model.EntityKind, id uint32, field model.FieldID) model.Cell {
	p.t.Helper()
	row := s.Rows[p.entity(kind, id)]
	column := slices.Index(p.inv.Columns[kind], field)
	if column < 0 || column >= len(row) {
		p.t.Fatalf("%v %d has no cell for field %d", kind, id, field)
	}
	return row[column]
}

// has waits for a sample in which the field has the status.
func (p *process) has(kind model.EntityKind, id uint32, field model.FieldID, want model.Status) *model.Sample {
	p.t.Helper()
	return p.sample(fmt.Sprintf("field %d of %v %d to be %v", field, kind, id, want), func(s *model.Sample) error {
		if c := p.cell(s, kind, id, field); c.Status != want {
			return fmt.Errorf("it is %v (%v)", c.Status, c.Float64())
		}
		return nil
	})
}

// inDevices returns the GPUs and instances.
func inDevices(inv *model.Inventory) []model.Entity {
	var all []model.Entity
	for _, e := range inv.Entities {
		if e.Kind.OfGPU() {
			all = append(all, e)
		}
	}
	return all
}
