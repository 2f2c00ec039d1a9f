// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"syscall"
	"time"

	"gpu_exporter/collector"
)

// Cost is what sampling cost, for each sample.
type Cost struct {
	// Process is the CPU time of the whole process, DCGM's own threads included.
	Process time.Duration
	// Thread is the CPU time of the thread that samples.
	Thread time.Duration
	// Bytes and Allocations are the garbage that Go made.
	Bytes, Allocations float64
	// Values and Calls are what was read, and in how many bulk calls.
	Values, Calls int
	// Look is the CPU time of the thread for one look between samples, and
	// LookBytes the garbage of it. They are measured with the samples, not with the floor.
	Look      time.Duration
	LookBytes float64
}

// Measure takes n samples, one each interval, and says what each cost. With floor it
// sets up the same, and then only makes the bulk calls of a sample, in C: what
// reading costs at least, whoever does it. It is there for benchmarks, and
// wants a process of its own for each call.
func Measure(cfg collector.SamplerConfig, n int, floor bool) (Cost, error) {
	s, err := newSampler(Config{
		Sampler: cfg,
		Frames:  collector.NewFrameWriter(io.Discard),
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return Cost{}, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	step := s.sample
	if floor {
		step = s.readOnly
	}
	for range 10 { // until nothing is new any more
		if err := s.sample(); err != nil {
			return Cost{}, err
		}
	}

	var (
		before, after runtime.MemStats
		cost          Cost
		thread        int64
	)
	for _, b := range s.reading.blocks {
		cost.Values += len(b.entities) * len(b.fields)
	}
	for _, b := range s.reading.derived.blocks {
		cost.Values += len(b.entities) * len(b.fields)
	}
	for _, b := range s.tracker.blocks {
		if b.own {
			cost.Values += len(b.entities) * len(b.fields)
		}
	}
	ticker := time.NewTicker(cfg.Interval)
	defer ticker.Stop()
	runtime.GC()
	runtime.ReadMemStats(&before)
	calls, _ := s.lib.reads()
	process, err := processCPU()
	if err != nil {
		return Cost{}, err
	}
	for range n {
		<-ticker.C
		start := threadCPU()
		if err := step(); err != nil {
			return Cost{}, err
		}
		thread += threadCPU() - start
	}
	end, err := processCPU()
	if err != nil {
		return Cost{}, err
	}
	callsAfter, _ := s.lib.reads()
	runtime.ReadMemStats(&after)
	cost.Process = (end - process) / time.Duration(n)
	cost.Thread = time.Duration(thread) / time.Duration(n)
	cost.Bytes = float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
	cost.Allocations = float64(after.Mallocs-before.Mallocs) / float64(n)
	cost.Calls = int(callsAfter-calls) / n
	if floor {
		return cost, nil
	}
	return cost, s.measureLooks(n, &cost)
}

// measureLooks looks n times between samples.
func (s *sampler) measureLooks(n int, cost *Cost) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := threadCPU()
	for range n {
		if err := s.look(false); err != nil {
			return err
		}
	}
	cost.Look = time.Duration(threadCPU()-start) / time.Duration(n)
	runtime.ReadMemStats(&after)
	cost.LookBytes = float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
	return nil
}

// readOnly makes the bulk calls of a sample.
func (s *sampler) readOnly() error {
	for _, blocks := range [][]block{s.reading.blocks, s.reading.derived.blocks} {
		for i := range blocks {
			if c := s.lib.floor(&blocks[i].request, 1); c != codeOK {
				return s.failed(c, collector.FailureHostengineLost, "reading values")
			}
		}
	}
	for i := range s.tracker.blocks {
		if !s.tracker.blocks[i].own {
			continue
		}
		if c := s.lib.floor(&s.tracker.blocks[i].request, 1); c != codeOK {
			return s.failed(c, collector.FailureHostengineLost, "reading values")
		}
	}
	return nil
}

func processCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("reading the CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
