// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"strings"
	"testing"
)

// Profiling can be paused and resumed over HTTP, if that is switched on; a pause
// outlives a sampler, and costs no other value.
func TestProfilingPause(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", append(fast, "--web.enable-admin-api")...)
	const field = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
	values := func(want int) {
		t.Helper()
		n.eventually(t, "profiling is as asked", func() bool {
			body := n.scrape(t)
			_, count := sumOf(body, field)
			_, temperatures := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
			paused, _ := sumOf(body, "gpu_profiling_state", `state="paused"`)
			_, until := sumOf(body, "gpu_exporter_profiling_paused_until_timestamp_seconds")
			return count == want && temperatures == 8 && int(paused) == 8-want && until == min(1, 8-want)
		})
	}
	values(8)
	sampler := n.samplerPID()
	if status, body := n.post(t, "/-/profiling/pause?for=1h"); status != http.StatusOK || !strings.Contains(body, `"paused":true,"until":"`) {
		t.Errorf("pause answers %d: %s", status, body)
	}
	values(0)
	if now := n.samplerPID(); now != sampler {
		t.Error("the sampler was replaced for a pause")
	}
	kill(t, n)
	n.eventually(t, "another sampler works", func() bool {
		up, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_up")
		return up == 1 && n.samplerPID() != sampler
	})
	values(0)
	if status, body := n.post(t, "/-/profiling/resume"); status != http.StatusOK || body != "{\"paused\":false}\n" {
		t.Errorf("resume answers %d: %s", status, body)
	}
	values(8)
	if status, body := n.tryGet(t, "/-/profiling"); status != http.StatusOK || body != "{\"paused\":false}\n" {
		t.Errorf("the state is %d: %s", status, body)
	}
	for path, want := range map[string]int{"/-/profiling/pause?for=soon": 400, "/-/profiling/pause?for=48h": 400, "/-/profiling/pause?for=1ms": 400} {
		if status, body := n.post(t, path); status != want {
			t.Errorf("%s answers %d: %s", path, status, body)
		}
	}
	if status, _ := n.tryGet(t, "/-/profiling/pause"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET answers %d", status)
	}

	off := startNode(t, "h100x8", fast...)
	if status, body := off.post(t, "/-/profiling/pause"); status != http.StatusForbidden || !strings.Contains(body, "--web.enable-admin-api") {
		t.Errorf("without the switch: %d: %s", status, body)
	}
}
