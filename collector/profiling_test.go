// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

func TestNodeRejectsProfiling(t *testing.T) {
	for name, tc := range map[string]struct {
		profiling Profiling
		reason    string
	}{
		"as it should be":      {Profiling{1, []GPUProfiling{{Entity: 0}, {Entity: 1}}}, ""},
		"of no GPU":            {Profiling{1, nil}, ""},
		"of another inventory": {Profiling{2, nil}, rejectInventory},
		"of nothing":           {Profiling{1, []GPUProfiling{{Entity: 6}}}, rejectInvalid},
		"before everything":    {Profiling{1, []GPUProfiling{{Entity: Unknown}}}, rejectInvalid},
		"out of order":         {Profiling{1, []GPUProfiling{{Entity: 1}, {Entity: 0}}}, rejectInvalid},
		"of a GPU twice":       {Profiling{1, []GPUProfiling{{Entity: 1}, {Entity: 1}}}, rejectInvalid},
		"of an instance":       {Profiling{1, []GPUProfiling{{Entity: 2}}}, rejectInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			node := NewNode(slog.New(slog.DiscardHandler), nil)
			var reject *RejectError
			if err := node.Deliver(Frame{Profiling: &tc.profiling}); !errors.As(err, &reject) || reject.Reason != rejectInventory {
				t.Fatalf("before any inventory: %v", err)
			}
			if err := node.Deliver(Frame{Inventory: processInventory(1)}); err != nil {
				t.Fatal(err)
			}
			err := node.Deliver(Frame{Profiling: &tc.profiling})
			got := ""
			if errors.As(err, &reject) {
				got = reject.Reason
			}
			if got != tc.reason {
				t.Errorf("%v, want reason %q", err, tc.reason)
			}
		})
	}
}

// A garbled state would be an index further on.
func TestProfilingFrameGarbled(t *testing.T) {
	b := frameBytes(t, Frame{Profiling: &Profiling{GPUs: []GPUProfiling{{State: ProfilingState(profilingStates)}}}})
	if _, err := NewFrameReader(bytes.NewReader(b)).Next(); !errors.Is(err, ErrBadFrame) {
		t.Errorf("got %v, want ErrBadFrame", err)
	}
}

// The state of each GPU is shown while it is known; the counters outlive the
// sampler that counted.
func TestProfilingFamilies(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	deliver := func(frames ...Frame) {
		t.Helper()
		for _, frame := range frames {
			if err := node.Deliver(frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	shows := func(when string, want ...string) {
		t.Helper()
		body := encode(t, f, expfmt.TypeTextPlain)
		got := profilingLines(body)
		if got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", when, got, strings.Join(want, "\n"))
		}
	}
	shows("before a sampler has said anything")
	deliver(Frame{Profiling: &Profiling{Generation: 1, GPUs: []GPUProfiling{{Entity: 0}, {Entity: 1, State: ProfilingFrozen, Rewatches: 2}}}})
	shows("at first", "GPU-aaaa 0 active", "GPU-bbbb 2 frozen")
	deliver(Frame{Profiling: &Profiling{Generation: 1, GPUs: []GPUProfiling{{Entity: 0, State: ProfilingPaused}, {Entity: 1, State: ProfilingActive, Rewatches: 1}}}})
	shows("later", "GPU-aaaa 0 paused", "GPU-bbbb 3 active")
	if got := series(encode(t, f, expfmt.TypeTextPlain), gpuProfilingState.Name); strings.Count(got, "GPU-aaaa") != profilingStates {
		t.Errorf("not all states of a GPU are there:\n%s", got)
	}

	inv := testInventory(t)
	deliver(Frame{Inventory: inv}, Frame{Profiling: &Profiling{Generation: 1, GPUs: []GPUProfiling{{Entity: 0, State: ProfilingPaused}, {Entity: 1, Rewatches: 1}}}}, Frame{Sample: testSample(inv)})
	shows("by another sampler", "GPU-aaaa 0 paused", "GPU-bbbb 4 active")
	next := testInventory(t)
	next.Generation = 2
	told := Frame{Profiling: &Profiling{Generation: 2, GPUs: []GPUProfiling{{Entity: 0}, {Entity: 1}}}}
	deliver(Frame{Inventory: next})
	shows("before anything else of a new inventory", "GPU-aaaa 0 paused", "GPU-bbbb 4 active")
	deliver(told)
	shows("before a sample of it", "GPU-aaaa 0 active", "GPU-bbbb 4 active")
	sample := testSample(next)
	deliver(Frame{Sample: sample})
	shows("with a sample of it", "GPU-aaaa 0 active", "GPU-bbbb 4 active")
	next = testInventory(t)
	next.Generation = 3
	deliver(Frame{Inventory: next})
	shows("before a sampler that profiles nothing samples", "GPU-aaaa 0 active", "GPU-bbbb 4 active")
	deliver(Frame{Sample: testSample(next)})
	shows("when it does")
	deliver(Frame{Profiling: &Profiling{Generation: 3, GPUs: told.Profiling.GPUs}})
	*clock = clock.Add(time.Hour)
	shows("without a fresh sample", "GPU-aaaa 0 ", "GPU-bbbb 4 ")
}

// profilingLines sums up the families of profiling: UUID, counter, and the state
// that the GPU is in.
func profilingLines(body []byte) string {
	label := func(line, name string) string {
		_, rest, _ := strings.Cut(line, name+`="`)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	states := map[string]string{}
	for line := range strings.Lines(series(body, gpuProfilingState.Name)) {
		if strings.HasSuffix(line, " 1\n") {
			states[label(line, "UUID")] += label(line, "state")
		}
	}
	var lines []string
	for line := range strings.Lines(series(body, gpuProfilingRewatches.Name)) {
		fields := strings.Fields(line)
		uuid := label(line, "UUID")
		lines = append(lines, uuid+" "+fields[len(fields)-1]+" "+states[uuid])
	}
	return strings.Join(lines, "\n")
}

// Until when profiling is paused is shown while it is.
func TestPauseFamily(t *testing.T) {
	f, _, _ := newTestFamilies(t, testConfig(t))
	if got := series(encode(t, f, expfmt.TypeTextPlain), profilingPausedUntil.Name); got != "" {
		t.Errorf("without a pause: %s", got)
	}
	f.supervisor = fixedSupervisor{ProfilingPausedUntil: epoch}
	if got, want := series(encode(t, f, expfmt.TypeTextPlain), profilingPausedUntil.Name), profilingPausedUntil.Name+" 1.70000000025e+09\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
