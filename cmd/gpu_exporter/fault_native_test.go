// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// everyCall makes the sampler call every native function that it has: instances, links,
// health checks, topology, processes and profiling.
var everyCall = []string{"--families=full", "--health.interval=1s", "--web.enable-admin-api"}

// callClasses have one function of each kind of native call, for faults that the restart of
// a sampler causes.
var callClasses = []string{
	"dcgmStartEmbedded*", "dcgmGetEntityGroupEntities", "dcgmGroupAddEntity", "dcgmWatchFields", "dcgmEntitiesGetLatestValues",
	"nvmlDeviceGetMigMode",
}

// restartable is a node whose sampler restarts on request, without a back-off.
type restartable struct {
	*node
	config string
	count  int
}

func startRestartable(t *testing.T, scenario string, args ...string) *restartable {
	t.Helper()
	r := &restartable{config: filepath.Join(t.TempDir(), "c.yaml")}
	r.write(t)
	r.node = startNode(t, scenario, append(args, "--config.file="+r.config)...)
	return r
}

func (r *restartable) write(t *testing.T) {
	t.Helper()
	r.count++
	writeFile(t, r.config, fmt.Sprintf("sample: {interval: %dms, max-age: 1s}\n", 200+r.count%2))
}

// restart replaces the sampler by a reload, which does not count as a failure.
func (r *restartable) restart(t *testing.T) {
	t.Helper()
	r.write(t)
	if status, body := r.post(t, "/-/reload"); status != http.StatusOK {
		t.Fatalf("reload: %d %s", status, body)
	}
}

// truthful fails if a known GPU is missing, or up without any value.
func truthful(t *testing.T, when, body string, gpus int) {
	t.Helper()
	up, count := sumOf(body, "gpu_up")
	_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
	if count != gpus || up > 0 && values == 0 {
		t.Errorf("%s: %v of %d GPUs are up, with %d values", when, up, count, values)
	}
}

// TestFaultNativeAtStart: if a call of any class hangs or crashes while the sampler starts,
// scrapes succeed, no GPU is up without a fresh sample, and the sampler works again when
// the fault has ended.
func TestFaultNativeAtStart(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"hang", "crash"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			n := startRestartable(t, "h100x8-mig", everyCall...)
			watch := watchFault(t, n.node)
			watch.maxLog = len(callClasses) * maxFaultLog / 4
			for _, call := range callClasses {
				crashes := func() float64 {
					v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"crash"`)
					return v
				}
				before := crashes()
				n.command(t, fault+" "+call)
				n.restart(t)
				n.eventually(t, "the sampler does not work: "+fault+" "+call, func() bool {
					body := n.scrape(t)
					truthful(t, call, body, 8)
					if fault == "crash" {
						return crashes() > before
					}
					up, _ := sumOf(body, "gpu_up")
					_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
					return up == 0 && values == 0
				})
				n.command(t, "clear")
				n.restart(t) // ends the back-off
				watch.recovers(t, fault+" "+call, func() bool { return gpusUp(n.scrape(t)) == 8 })
			}
		})
	}
}

// TestFaultNativeSlow: a library whose every call is slow costs freshness, and no restart.
func TestFaultNativeSlow(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", append(fast, everyCall...)...)
	watch := watchFault(t, n)
	n.command(t, "slow * 20")
	n.command(t, "mig gpu 0 1g.10gb*2")
	n.eventually(t, "the repartition is visible", func() bool {
		_, instances := sumOf(n.scrape(t), "DCGM_FI_DEV_FB_USED", `gpu="0"`, "GPU_I_ID=")
		return instances == 2
	})
	for range 3 {
		n.nextSample(t)
	}
	if body := n.scrape(t); gpusUp(body) != 8 || !strings.Contains(body, "\ngpu_exporter_sampler_restarts_total 0\n") {
		t.Errorf("a GPU is down, or the sampler was restarted:\n%.3000s", body)
	}
	n.command(t, "clear")
	watch.recovers(t, "samples are fast", func() bool {
		took, _ := sumOf(n.scrape(t), "gpu_exporter_sample_duration_seconds")
		return took < 0.02
	})
}

// answeringCalls are the functions whose answers the sampler uses, and a command that makes
// it call them.
var answeringCalls = []struct{ call, trigger string }{
	{"dcgmEntitiesGetLatestValues", ""},
	{"dcgmGetEntityGroupEntities", ""},
	{"dcgmGetGpuInstanceHierarchy", "mig gpu 0 1g.10gb*3"},
	{"dcgmGetGpuStatus", "lose gpu 6"},
	{"dcgmProfGetSupportedMetricGroups", "mig gpu 0 2g.20gb*2"},
	{"dcgmGetValuesSince_v2", "xid 94 gpu 1"},
	{"dcgmGroupCreate", "mig gpu 0 1g.10gb*2"},
	{"dcgmFieldGroupCreate", "mig gpu 0 1g.10gb*3"},
	{"dcgmGetNvLinkLinkStatus", ""},
	{"dcgmGetNvLinkP2PStatus", ""},
	{"dcgmGetDeviceTopology", ""},
	{"dcgmHealthCheck", "health gpu 1 memory warn"},
	{"nvmlDeviceGetCount*", "mig gpu 0 1g.10gb*2"},
	{"nvmlDeviceGetHandleByIndex*", "mig gpu 0 1g.10gb*3"},
	{"nvmlDeviceGetUUID", "mig gpu 0 1g.10gb*2"},
	{"nvmlDeviceGetM*", "mig gpu 0 1g.10gb*3"},
	{"nvmlDeviceGetGpuInstance*", "mig gpu 0 1g.10gb*2"},
	{"nvmlDeviceGetComputeInstanceId", "mig gpu 0 1g.10gb*3"},
	{"nvmlGpuInstanceGetInfo", "mig gpu 0 1g.10gb*2"},
	{"nvmlDeviceGet*RunningProcesses*", "process gpu 7 pid 4242 memory 100"},
	{"nvmlDeviceGetComputeRunningProcesses*", ""},
	{"nvmlDeviceGetProcessUtilization", ""},
	{"nvml*", ""},
	{"dcgmGet*", ""},
	{"dcgm*Create", "mig gpu 0 1g.10gb*3"},
}

// TestFaultNativeGarbage: absurd counts, ids, numbers and unterminated texts in the answers
// of each call neither crash the sampler nor reach the page as values outside of their unit,
// and the counters survive them.
func TestFaultNativeGarbage(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"255", "noise"} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			_, socket := startKubelet(t)
			n := startNode(t, "h100x8-mig", append(append(fast, everyCall...), "-k", "--kubernetes.pod-resources-socket="+socket)...)
			watch := watchFault(t, n)
			watch.maxLog = len(answeringCalls) * maxFaultLog / 4
			xids := func(body string) float64 { v, _ := sumOf(body, "gpu_xid_errors_total"); return v }
			for _, c := range answeringCalls {
				n.command(t, "garbage "+c.call+" "+pattern)
				if c.trigger != "" {
					n.command(t, c.trigger)
				}
				start := sampleCount(t, n)
				n.eventually(t, "samples with garbage of "+c.call, func() bool {
					body := n.scrape(t)
					plausible(t, c.call, body)
					return sampleCount(t, n) > start+1 || gpusUp(body) == 0
				})
				n.command(t, "clear")
				watch.recovers(t, "after garbage of "+c.call, func() bool { return gpusUp(n.scrape(t)) == 8 })
			}
			body := n.scrape(t)
			if crashes, _ := sumOf(body, "gpu_exporter_sampler_restarts_by_reason_total", `"crash"`); crashes > 0 {
				t.Errorf("%v crashes", crashes)
			}
			truthful(t, "at the end", body, 8)
			before := xids(body)
			n.command(t, "xid 31 gpu 7")
			n.eventually(t, "an XID is counted", func() bool { return xids(n.scrape(t)) == before+1 })
		})
	}
}

// sampleCount is the time of the newest sample in units of the interval.
func sampleCount(t *testing.T, n *node) int {
	t.Helper()
	at, _ := sumOf(n.scrape(t), "gpu_exporter_last_sample_timestamp_seconds")
	return int(at * 5)
}

var bounded = regexp.MustCompile(`(?m)^(DCGM_FI_DEV_(?:GPU|MEM_COPY|ENC|DEC)_UTIL|DCGM_FI_PROF_[A-Z_]+_ACTIVE|DCGM_FI_DEV_GPU_TEMP|DCGM_FI_DEV_POWER_USAGE)\{.* (\S+)$`)

// plausible fails if the page has a value outside of what its unit can be.
func plausible(t *testing.T, when, body string) {
	t.Helper()
	for _, m := range bounded.FindAllStringSubmatch(body, -1) {
		limit := 100000.0 // W or °C; no field has a stricter range
		switch {
		case strings.HasSuffix(m[1], "_ACTIVE"):
			limit = 1
		case strings.HasSuffix(m[1], "_UTIL"):
			limit = 100
		}
		if v, err := strconv.ParseFloat(m[2], 64); err != nil || !(v >= -300 && v <= limit) {
			t.Errorf("%s: %s", when, m[0])
		}
	}
	for line := range strings.Lines(body) {
		if strings.HasSuffix(line, " NaN\n") || strings.HasSuffix(line, "Inf\n") {
			t.Errorf("%s: %s", when, line)
		}
	}
}
