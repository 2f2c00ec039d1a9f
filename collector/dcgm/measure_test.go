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
	"runtime"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector"
)

// measured is what one sample costs, and what the bulk calls alone cost that it
// makes: the floor, a loop in C with the same request into the same library.
type measured struct {
	SampleNanos, FloorNanos float64 // CPU time of the thread
	Bytes, Allocs           float64 // garbage of one sample
	Cells, Calls            int
}

// measureChild measures in its own process and writes the result as JSON.
func measureChild() int {
	const warmUp, times = 50, 400
	cfg, err := collector.ReadSamplerConfig(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	s, err := newSampler(Config{
		Sampler: cfg,
		Frames:  collector.NewFrameWriter(io.Discard),
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range warmUp {
		if err := s.sample(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		time.Sleep(time.Millisecond)
	}
	var m measured
	for _, b := range s.reading.blocks {
		m.Cells += len(b.rows) * len(b.fields)
	}
	callsBefore, _ := s.lib.reads()

	// Turn by turn, so that both see the same of what else goes on.
	var before, after runtime.MemStats
	var sample, floor int64
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range times {
		t := threadCPU()
		if err := s.sample(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		sample += threadCPU() - t
		t = threadCPU()
		for i := range s.reading.blocks {
			if c := s.lib.floor(&s.reading.blocks[i].request, 1); c != codeOK {
				fmt.Fprintln(os.Stderr, "floor:", c)
				return 1
			}
		}
		floor += threadCPU() - t
	}
	runtime.ReadMemStats(&after)
	calls, _ := s.lib.reads()
	m.SampleNanos = float64(sample) / times
	m.FloorNanos = float64(floor) / times
	m.Bytes = float64(after.TotalAlloc-before.TotalAlloc) / times
	m.Allocs = float64(after.Mallocs-before.Mallocs) / times
	m.Calls = int(calls-callsBefore) / times
	if err := json.NewEncoder(os.Stdout).Encode(m); err != nil {
		return 2
	}
	return 0
}

// measure measures sampling a scenario with n fields for each GPU or instance.
func measure(t testing.TB, scenario, dir string, n int) measured {
	t.Helper()
	cfg := collector.SamplerConfig{Interval: time.Second, Fields: make(map[collector.EntityKind][]collector.FieldID)}
	for _, kind := range []collector.EntityKind{gpu, inst} {
		for f := range collector.Fields() {
			if f.ID >= 100 && f.On(kind) && f.Type.Numeric() && len(cfg.Fields[kind]) < n {
				cfg.Fields[kind] = append(cfg.Fields[kind], f.ID)
			}
		}
		slices.Sort(cfg.Fields[kind])
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=measure", "LD_LIBRARY_PATH="+dir, "DCGMSIM_SCENARIO="+scenario)
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
	var m measured
	decodeErr := json.NewDecoder(out).Decode(&m)
	if err := cmd.Wait(); err != nil || decodeErr != nil {
		t.Fatalf("measuring: %v, %v", err, decodeErr)
	}
	return m
}

// TestGarbage shows that sampling leaves next to no garbage.
func TestGarbage(t *testing.T) {
	for _, scenario := range []string{"h100x8", "h100x8-mig"} {
		m := measure(t, scenario, standIn(t), 60)
		t.Logf("%s: %d cells in %d calls: %.0f bytes in %.1f allocations; CPU %.0f µs, floor %.0f µs, ratio %.2f",
			scenario, m.Cells, m.Calls, m.Bytes, m.Allocs, m.SampleNanos/1e3, m.FloorNanos/1e3, m.SampleNanos/m.FloorNanos)
		if m.Bytes > 16<<10 {
			t.Errorf("%s: %.0f bytes of garbage for a sample, at most 16 KiB are allowed", scenario, m.Bytes)
		}
	}
}

// BenchmarkSample prints what one sample of 8 GPUs with 60 fields costs, as a
// ratio to the floor.
func BenchmarkSample(b *testing.B) {
	for _, scenario := range []string{"h100x8", "h100x8-mig"} {
		b.Run(scenario, func(b *testing.B) {
			dir := standIn(b)
			var m measured
			for b.Loop() {
				m = measure(b, scenario, dir, 60)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(m.SampleNanos/1e3, "µs/sample")
			b.ReportMetric(m.FloorNanos/1e3, "µs/floor")
			b.ReportMetric(m.SampleNanos/m.FloorNanos, "ratio")
			b.ReportMetric(m.Bytes, "B/sample")
		})
	}
}
