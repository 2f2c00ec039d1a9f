// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector"
)

// floorVariable makes the child measure the floor.
const floorVariable = "DCGM_TEST_FLOOR"

// measureChild measures in its own process and writes the result as JSON.
func measureChild() int {
	cfg, err := collector.ReadSamplerConfig(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cost, err := Measure(cfg, 200, os.Getenv(floorVariable) != "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(cost); err != nil {
		return 2
	}
	return 0
}

// measure measures sampling a scenario with n fields for each GPU or instance,
// or, with floor, the calls alone.
func measure(t testing.TB, scenario, dir string, n int, floor bool) Cost {
	t.Helper()
	cfg := collector.SamplerConfig{Interval: 10 * time.Millisecond, Fields: make(map[collector.EntityKind][]collector.FieldID)}
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
	if floor {
		cmd.Env = append(cmd.Env, floorVariable+"=1")
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
	var cost Cost
	decodeErr := json.NewDecoder(out).Decode(&cost)
	if err := cmd.Wait(); err != nil || decodeErr != nil {
		t.Fatalf("measuring: %v, %v", err, decodeErr)
	}
	return cost
}

// TestGarbage shows that sampling leaves next to no garbage.
func TestGarbage(t *testing.T) {
	for _, scenario := range []string{"h100x8", "h100x8-mig"} {
		c := measure(t, scenario, standIn(t), 60, false)
		t.Logf("%s: %+v", scenario, c)
		if c.Bytes > 1<<10 { // 16 KiB are allowed
			t.Errorf("%s: %.0f bytes of garbage for a sample", scenario, c.Bytes)
		}
		if c.Values < 480 || c.Calls < 1 || c.Calls > 8 {
			t.Errorf("%s: %d values in %d calls", scenario, c.Values, c.Calls)
		}
	}
}

// BenchmarkSample prints what one sample of 8 GPUs with 60 fields costs, as a
// ratio to the floor.
func BenchmarkSample(b *testing.B) {
	for _, scenario := range []string{"h100x8", "h100x8-mig"} {
		b.Run(scenario, func(b *testing.B) {
			dir := standIn(b)
			var sample, floor Cost
			for b.Loop() {
				sample, floor = measure(b, scenario, dir, 60, false), measure(b, scenario, dir, 60, true)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(sample.Thread.Nanoseconds())/1e3, "µs/sample")
			b.ReportMetric(float64(floor.Thread.Nanoseconds())/1e3, "µs/floor")
			b.ReportMetric(float64(sample.Thread)/float64(floor.Thread), "ratio")
			b.ReportMetric(float64(sample.Process.Nanoseconds())/1e3, "µs/process-sample")
			b.ReportMetric(float64(floor.Process.Nanoseconds())/1e3, "µs/process-floor")
			b.ReportMetric(float64(sample.Process)/float64(floor.Process), "process-ratio")
			b.ReportMetric(sample.Bytes, "B/sample")
		})
	}
}
