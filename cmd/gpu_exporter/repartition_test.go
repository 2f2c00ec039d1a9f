// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var repartitions = flag.Int("repartitions", 10, "how often TestRepartitions repartitions a GPU, twice a second")

// topologyCounters has fields of every kind of entity.
const topologyCounters = `
DCGM_FI_DEV_GPU_TEMP, gauge, Temperature.
DCGM_FI_DEV_FB_TOTAL, gauge, Memory.
DCGM_FI_PROF_GR_ENGINE_ACTIVE, gauge, Engine.
DCGM_FI_DEV_NVLINK_TX_THROUGHPUT_PER_LINK, gauge, Throughput.
DCGM_FI_DEV_NVSWITCH_POWER_VDD, gauge, Power of a switch.
`

// TestRepartition: repartitioning a GPU does not restart the sampler.
func TestRepartition(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a100x7-mig", fast...)
	n.command(t, "mig gpu 0 3g.20gb*2")
	n.eventually(t, "only the new instances exist", func() bool {
		body := n.scrape(t)
		_, all := sumOf(body, "DCGM_FI_DEV_FB_USED", "GPU_I_ID=")
		_, three := sumOf(body, "DCGM_FI_DEV_FB_USED", `GPU_I_PROFILE="3g.20gb"`)
		return all == 2 && three == 2
	})
	if restarts, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total"); restarts != 0 {
		t.Errorf("%v restarts of the sampler", restarts)
	}
}

// TestRepartitions repartitions a GPU twice a second. Every scrape has the instances of one
// layout, the current one or that of one interval ago, with the memory of their profiles.
// The other GPUs keep their values, and no resource leaks.
func TestRepartitions(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", "--sample.interval=100ms", "--counters.file="+countersFile(t, topologyCounters))
	layouts := []string{"3g.40gb*2", "1g.10gb*7", "2g.20gb*3", "4g.40gb+2g.20gb", "none"}
	series := regexp.MustCompile(`^DCGM_FI_DEV_FB_TOTAL\{gpu="0".*GPU_I_PROFILE="([^"]*)",GPU_I_ID="(\d+)".*\} (\d+)`)
	// shape returns the instances of GPU 0 as PROFILE/ID=MEMORY.
	shape := func(body string) string {
		var all []string
		for line := range strings.Lines(body) {
			if m := series.FindStringSubmatch(line); m != nil {
				all = append(all, m[1]+"/"+m[2]+"="+m[3])
			}
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	sampled := func(body string) float64 {
		at, _ := sumOf(body, "gpu_exporter_last_sample_timestamp_seconds")
		return at
	}
	profiles := func(layout string) (list []string) {
		for part := range strings.SplitSeq(layout, "+") {
			profile, times, _ := strings.Cut(part, "*")
			count, _ := strconv.Atoi(times)
			for range max(count, 1) {
				list = append(list, profile)
			}
		}
		if layout == "none" {
			return nil
		}
		slices.Sort(list)
		return list
	}
	is := func(shape, layout string) bool {
		var got []string
		for _, s := range strings.Fields(shape) {
			got = append(got, s[:strings.IndexByte(s, '/')])
		}
		slices.Sort(got)
		return slices.Equal(got, profiles(layout))
	}
	memory := map[string]string{} // by profile
	learn := func(layout string) {
		n.command(t, "mig gpu 0 "+layout)
		n.eventually(t, "the layout "+layout, func() bool { return is(shape(n.scrape(t)), layout) })
		for _, s := range strings.Fields(shape(n.scrape(t))) {
			memory[s[:strings.IndexByte(s, '/')]] = s[strings.IndexByte(s, '=')+1:]
		}
	}
	for _, layout := range layouts {
		learn(layout)
	}
	n.command(t, "xid 94 gpu 3")
	size := func(body string) map[string]float64 {
		sizes := map[string]float64{}
		for _, family := range []string{"go_goroutines", "process_open_fds"} {
			sizes[family], _ = sumOf(body, family)
		}
		_, series := sumOf(body, "gpu_xid_errors_total")
		sizes["series"] = float64(series)
		return sizes
	}
	n.eventually(t, "the XID is counted", func() bool {
		total, _ := sumOf(n.scrape(t), "gpu_xid_code_errors_total", `gpu="3"`, `xid="94"`)
		return total == 1
	})
	n.settledVitals(t) // until then, the process's own metrics may be those of its start
	before, sampler := size(n.scrape(t)), n.samplerPID()

	old := layouts[len(layouts)-1]
	scrapes, slowest := 0, time.Duration(0)
	for i := range *repartitions {
		layout := layouts[i%len(layouts)]
		n.command(t, "mig gpu 0 "+layout)
		begin := time.Now()
		// Scrape for 500 ms, and longer if the new layout is not visible yet. The next
		// repartition must not begin earlier, because a scrape could have three layouts.
		seen := time.Duration(0)
		for time.Since(begin) < 500*time.Millisecond || seen == 0 {
			if time.Since(begin) > patience {
				t.Fatalf("repartition %d into %s did not become visible", i, layout)
			}
			body := n.scrape(t)
			scrapes++
			got := shape(body)
			// A value may lag by one interval of the sampler and one of the engine.
			late := strictDurations && sampled(body) > float64(begin.UnixMilli())/1e3+0.3
			switch {
			case is(got, layout):
				if seen == 0 {
					seen = time.Since(begin)
				}
			case got == "" || seen == 0 && !late && is(got, old): // no value yet, or the previous layout
			default:
				t.Fatalf("repartition %d from %s into %s: a scrape has %s", i, old, layout, got)
			}
			for _, s := range strings.Fields(got) {
				if want := memory[s[:strings.IndexByte(s, '/')]]; s[strings.IndexByte(s, '=')+1:] != want {
					t.Fatalf("repartition %d into %s: %s, want memory %s", i, layout, s, want)
				}
			}
			if _, others := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="6"`); others == 0 {
				t.Fatalf("repartition %d: GPU 6 has no value", i)
			}
			if total, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="3"`, `xid="94"`); total != 1 {
				t.Fatalf("repartition %d: GPU 3 counts %v XIDs", i, total)
			}
			time.Sleep(10 * time.Millisecond)
		}
		slowest = max(slowest, seen)
		old = layout
	}
	learn(layouts[len(layouts)-1])
	var after map[string]float64
	n.eventually(t, fmt.Sprintf("at most 3 more of %v", before), func() bool {
		after = size(n.scrape(t))
		for name := range before {
			if after[name] > before[name]+3 {
				return false
			}
		}
		return true
	})
	if now := n.samplerPID(); now != sampler {
		t.Errorf("the sampler was replaced: %d, %d", sampler, now)
	}
	t.Logf("%d repartitions, %d scrapes, the slowest visible after %v; before %v, after %v", *repartitions, scrapes, slowest, before, after)
	if strictDurations && slowest > 500*time.Millisecond {
		t.Errorf("a repartition was visible after %v, want 500 ms", slowest)
	}
}

// TestUnknownInstances: while the MIG instances cannot be listed, neither they nor their
// GPUs have values, because different instances may have the same IDs by now.
func TestUnknownInstances(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", fast...)
	value := n.valueOf(t)
	instances := func(want int, labels ...string) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%d instances have a temperature", want), func() bool {
			_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", append(labels, "GPU_I_ID=")...)
			return count == want
		})
	}
	instances(17)
	value(1, 1, "gpu_exporter_mig_read_up")
	_, wholes := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
	wholes -= 17 // including GPU 5 in MIG mode, which has no instances
	n.command(t, "fail dcgmGetGpuInstanceHierarchy -3")
	n.command(t, "mig gpu 5 3g.40gb*2")
	withheld := func() {
		t.Helper()
		value(0, 1, "gpu_exporter_mig_read_up")
		instances(0)
		body := n.scrape(t)
		if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP"); count != wholes-1 {
			t.Errorf("%d temperatures, want %d of GPUs that are not in MIG mode", count, wholes-1)
		}
		if _, count := sumOf(body, "gpu_busy_seconds_total", `gpu="5"`); count != 0 {
			t.Errorf("GPU 5 has %d series of gpu_busy_seconds_total", count)
		}
		if up, count := sumOf(body, "gpu_up"); up != 8 || count != 8 {
			t.Errorf("%v of %d GPUs are up", up, count)
		}
	}
	withheld()
	n.killSampler(t)
	value(1, 1, "gpu_exporter_sampler_restarts_by_reason_total", `"killed"`)
	value(1, 1, "gpu_exporter_sampler_up")
	withheld()
	n.command(t, "clear")
	instances(2, `gpu="5"`, `GPU_I_PROFILE="3g.40gb"`)
	value(1, 1, "gpu_exporter_mig_read_up")
}
