// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpu_exporter/collector/dcgm/internal/readloop"
	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// readLoopVariable makes a measuring child replace samples by the C loop.
const readLoopVariable = "DCGM_TEST_READ_LOOP"

// measuredSamples is the number of samples of one measurement.
const measuredSamples = 100

// cost is the cost of one sample.
type cost struct {
	Process, Thread time.Duration // CPU time; Process includes DCGM's threads
	Bytes           float64       // garbage
	PollBytes       float64       // garbage of polling the tracked fields between samples
	Values, Calls   int
}

// measureChild measures in its own process and writes the cost as JSON.
func measureChild() int {
	cfg, err := wire.ReadSamplerConfig(os.Stdin)
	if err == nil {
		var c cost
		if c, err = measureSamples(cfg, os.Getenv(readLoopVariable) != ""); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(c)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func measureSamples(cfg wire.SamplerConfig, readLoop bool) (c cost, err error) {
	s, err := newSampler(Config{Sampler: cfg, Frames: wire.NewFrameWriter(io.Discard), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return c, err
	}
	var requests []*native.Request
	for i := range s.reading.blocks {
		requests = append(requests, &s.reading.blocks[i].Request)
	}
	for _, r := range requests {
		c.Values += len(r.Entities) * len(r.Fields)
		step := native.ChunkSize / min(len(r.Fields), watch.MaxFields)
		c.Calls += (len(r.Entities) + step - 1) / step * ((len(r.Fields) + watch.MaxFields - 1) / watch.MaxFields)
	}
	step := s.sample
	if readLoop {
		step = func() error {
			for _, r := range requests {
				if code := readloop.Read(s.lib, r); code != native.OK {
					return s.lib.Err(code, "reading values")
				}
			}
			return nil
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 10 { // until all memory is allocated
		if err := s.sample(); err != nil {
			return c, err
		}
	}
	ticker := time.NewTicker(cfg.Interval)
	defer ticker.Stop()
	garbage := garbageMeter()
	process := cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	for range measuredSamples {
		<-ticker.C
		thread := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)
		if err := step(); err != nil {
			return c, err
		}
		c.Thread += (cpuTime(unix.CLOCK_THREAD_CPUTIME_ID) - thread) / measuredSamples
	}
	c.Process = (cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID) - process) / measuredSamples
	c.Bytes = garbage()
	garbage = garbageMeter()
	for range measuredSamples {
		if err := s.pollTracked(false); err != nil {
			return c, err
		}
	}
	c.PollBytes = garbage()
	return c, nil
}

// garbageMeter returns a function that returns the bytes allocated since, per sample.
func garbageMeter() func() float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	return func() float64 {
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / measuredSamples
	}
}

// cpuTime returns the CPU time of a clock of the kernel.
func cpuTime(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// measure measures sampling, or the C loop, in a child process.
func measure(t testing.TB, scenario string, cfg wire.SamplerConfig, readLoop bool) (c cost) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=measure", "LD_LIBRARY_PATH="+standIn(t), "DCGMSIM_SCENARIO="+scenario)
	if readLoop {
		cmd.Env = append(cmd.Env, readLoopVariable+"=1")
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.WriteTo(in); err != nil {
		t.Fatal(err)
	}
	decodeErr := json.NewDecoder(out).Decode(&c)
	if err := cmd.Wait(); err != nil || decodeErr != nil {
		t.Fatalf("measuring: %v, %v", err, decodeErr)
	}
	return c
}

// TestGarbage shows that sampling leaves hardly any garbage.
func TestGarbage(t *testing.T) {
	cfg := wire.SamplerConfig{Interval: 10 * time.Millisecond, Fields: make(map[model.EntityKind][]model.FieldID)}
	for _, kind := range []model.EntityKind{gpu, inst} {
		for f := range field.All() {
			if f.ID >= 100 && f.On(kind) && f.Type.Numeric() && len(cfg.Fields[kind]) < 60 {
				cfg.Fields[kind] = append(cfg.Fields[kind], f.ID)
			}
		}
		slices.Sort(cfg.Fields[kind])
	}
	for _, scenario := range []string{"h100x8", "h100x8-mig"} {
		c := measure(t, scenario, cfg, false)
		t.Logf("%s: %+v", scenario, c)
		if c.Bytes > 1<<10 { // the design allows 16 KiB
			t.Errorf("%s: %.0f bytes of garbage for a sample", scenario, c.Bytes)
		}
		if c.Values < 480 || c.Calls < 1 || c.Calls > 8 {
			t.Errorf("%s: %d values in %d calls", scenario, c.Values, c.Calls)
		}
	}
}

// BenchmarkSample compares the CPU time of a sample with that of a C loop which makes
// the same bulk reads at the same interval with the same watches.
func BenchmarkSample(b *testing.B) {
	for scenario, file := range map[string]string{"h100x8": "counters60.csv", "dgx-h100": "counters-fabric.csv"} {
		text, err := os.Open(filepath.Join("..", "..", "cmd", "gpu_exporter", "internal", "bench", file))
		if err != nil {
			b.Fatal(err)
		}
		counters, err := field.ParseCounters(text, file)
		if err != nil {
			b.Fatal(err)
		}
		cfg := wire.SamplerConfig{
			Interval: 100 * time.Millisecond,
			Fields:   make(map[model.EntityKind][]model.FieldID),
			Derived:  allFamilies().DerivedFields(),
			Tracked:  state.TrackedFields(counters.List, allFamilies().Integrates, 50*time.Millisecond),
		}
		for _, kind := range []model.EntityKind{gpu, nvswitch, nvlinks} {
			for _, c := range counters.List {
				if c.On(kind) {
					cfg.Fields[kind] = append(cfg.Fields[kind], c.Field.ID)
				}
			}
		}
		b.Run(scenario, func(b *testing.B) {
			var samples, loops []cost
			for range 5 {
				samples = append(samples, measure(b, scenario, cfg, false))
				loops = append(loops, measure(b, scenario, cfg, true))
			}
			median := func(costs []cost, of func(cost) float64) float64 {
				var all []float64
				for _, c := range costs {
					all = append(all, of(c))
				}
				slices.Sort(all)
				return all[len(all)/2]
			}
			process := func(c cost) float64 { return float64(c.Process.Microseconds()) }
			thread := func(c cost) float64 { return float64(c.Thread.Nanoseconds()) / 1e3 }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(samples[0].Values), "values")
			b.ReportMetric(median(samples, process), "µs/process-sample")
			b.ReportMetric(median(loops, process), "µs/process-loop")
			b.ReportMetric(median(samples, process)/median(loops, process), "process-ratio")
			b.ReportMetric(median(samples, thread), "µs/thread-sample")
			b.ReportMetric(median(loops, thread), "µs/thread-loop")
			b.ReportMetric(median(samples, thread)/median(loops, thread), "thread-ratio")
			b.ReportMetric(median(samples, func(c cost) float64 { return c.Bytes }), "B/sample")
			b.ReportMetric(median(samples, func(c cost) float64 { return c.PollBytes }), "B/poll")
		})
	}
}
