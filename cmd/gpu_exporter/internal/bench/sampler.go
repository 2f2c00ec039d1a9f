// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/collector/dcgm"
)

// samplesPerRound is how many samples one round of the sampler takes, 100 ms
// apart.
const samplesPerRound = 100

// sampler compares the CPU time of one sample with that of a C loop that makes
// the same bulk calls. Both run in processes of their own, at the same pace, with
// the same watches: DCGM's own threads are in both.
func (b *bench) sampler(ctx context.Context, scenario, counters string) ([]row, error) {
	var ours, floor, oursThread, floorThread []time.Duration
	var garbage, lookGarbage []float64
	var looks []time.Duration
	var last dcgm.Cost
	for range b.options.rounds {
		sample, err := b.cost(ctx, "sample", scenario, counters)
		if err != nil {
			return nil, err
		}
		loop, err := b.cost(ctx, "floor", scenario, counters)
		if err != nil {
			return nil, err
		}
		ours, floor = append(ours, sample.Process), append(floor, loop.Process)
		oursThread, floorThread = append(oursThread, sample.Thread), append(floorThread, loop.Thread)
		garbage = append(garbage, sample.Bytes/1024)
		looks, lookGarbage = append(looks, sample.Look), append(lookGarbage, sample.LookBytes)
		last = sample
	}
	what := fmt.Sprintf("CPU of a sample, %s, %d values in %d calls", scenario, last.Values, last.Calls)
	return []row{
		against(what+", the process", ours, floor),
		against(what+", the sampling thread alone", oursThread, floorThread),
		atMost("garbage of the sampler for one sample, "+scenario, median(garbage), 16, "KiB"),
		{what: "CPU of a look between samples, " + scenario, measured: median(looks).String(), floor: "-", ratio: "-"},
		atMost("garbage of a look between samples, "+scenario, median(lookGarbage), 16, "B"),
	}, nil
}

// cost measures in a process of its own, which loads the stand-in.
func (b *bench) cost(ctx context.Context, what, scenario, counters string) (dcgm.Cost, error) {
	self, err := os.Executable()
	if err != nil {
		return dcgm.Cost{}, err
	}
	exporter, err := filepath.Abs(b.options.exporter)
	if err != nil {
		return dcgm.Cost{}, err
	}
	cmd := exec.CommandContext(ctx, self, "-measure", what, "-counters", counters)
	cmd.Env = append(os.Environ(),
		"LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(exporter), "sim"),
		"DCGMSIM_SCENARIO="+scenario,
		"__DCGM_DBG_FILE=-", "__DCGM_DBG_LVL=NONE")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		return dcgm.Cost{}, fmt.Errorf("measuring %s: %w: %s", what, err, log.String())
	}
	var c dcgm.Cost
	if err := json.Unmarshal(out.Bytes(), &c); err != nil {
		return dcgm.Cost{}, fmt.Errorf("measuring %s: %w", what, err)
	}
	return c, nil
}

// measureSampler is what cost runs.
func measureSampler(what, countersFile string) error {
	counters, err := collector.LoadCounters(countersFile)
	if err != nil {
		return err
	}
	fields := map[collector.EntityKind][]collector.FieldID{}
	for _, kind := range []collector.EntityKind{collector.KindGPU, collector.KindSwitch, collector.KindLink} {
		for _, c := range counters.List {
			if c.On(kind) {
				fields[kind] = append(fields[kind], c.Field.ID)
			}
		}
	}
	c, err := dcgm.Measure(collector.SamplerConfig{
		Interval: 100 * time.Millisecond,
		Fields:   fields,
		Derived:  collector.DerivedFields(),
		Tracked:  collector.TrackedFields(counters.List, 50*time.Millisecond),
	}, samplesPerRound, what == "floor")
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}
