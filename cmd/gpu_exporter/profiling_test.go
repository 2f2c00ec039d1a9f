// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"gpu_exporter/collector/model"
)

// TestProfilingPause: with the admin API, profiling is paused and resumed over HTTP. A pause
// outlives a sampler and affects profiling values only.
func TestProfilingPause(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", append(fast, "--web.enable-admin-api")...)
	const field = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
	values := func(want int) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%d GPUs have profiling values", want), func() bool {
			body := n.scrape(t)
			_, count := sumOf(body, field)
			_, temperatures := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
			paused, _ := sumOf(body, "gpu_profiling_state_info", `state="paused"`)
			states, gpus := sumOf(body, "gpu_profiling_state")
			_, until := sumOf(body, "gpu_exporter_profiling_paused_until_timestamp_seconds")
			return count == want && temperatures == 8 && int(paused) == 8-want && gpus == 8 && states == float64(model.ProfilingPaused)*paused && until == min(1, 8-want)
		})
	}
	values(8)
	sampler := n.samplerPID()
	// The response arrives when the hardware is free.
	if status, body := n.post(t, "/-/profiling/pause?for=1h"); status != http.StatusOK || !strings.Contains(body, `{"paused":true,"until":"`) || strings.Count(body, `"state":"paused"`) != 8 {
		t.Errorf("pause answers %d: %s", status, body)
	}
	values(0)
	if now := n.samplerPID(); now != sampler {
		t.Error("a pause replaced the sampler")
	}
	n.killSampler(t)
	n.eventually(t, "the next sampler works", func() bool {
		up, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_up")
		now := n.samplerPID()
		return up == 1 && now != 0 && now != sampler
	})
	values(0)
	if status, body := n.post(t, "/-/profiling/resume"); status != http.StatusOK || !strings.HasPrefix(body, `{"paused":false,"gpus":[{"gpu":"0","uuid":"GPU-`) || strings.Count(body, `"state":"active"`) != 8 {
		t.Errorf("resume answers %d: %s", status, body)
	}
	values(8)
	if status, body := n.tryGet(t, "/-/profiling"); status != http.StatusOK || !strings.HasPrefix(body, `{"paused":false,"gpus":[`) {
		t.Errorf("the state is %d: %s", status, body)
	}
	// A web page of a different origin cannot pause profiling.
	foreign, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.address+"/-/profiling/pause", nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(foreign)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a cross-site request: status %d", resp.StatusCode)
	}
	for path, want := range map[string]int{"/-/profiling/pause?for=soon": 400, "/-/profiling/pause?for=48h": 400, "/-/profiling/pause?for=1ms": 400} {
		if status, body := n.post(t, path); status != want {
			t.Errorf("%s answers %d: %s", path, status, body)
		}
	}
	if status, _ := n.tryGet(t, "/-/profiling/pause"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET answers %d", status)
	}

	// A sampler that hangs does not delay the response. The next sampler pauses profiling.
	n.stopSampler(t)
	if status, body := n.post(t, "/-/profiling/pause"); status != http.StatusAccepted || !strings.Contains(body, `{"paused":true`) {
		t.Errorf("while the sampler hangs, pause answers %d: %s", status, body)
	}
	n.signal(t, syscall.SIGKILL)
	values(0)

	off := startNode(t, "h100x8", fast...)
	if status, body := off.post(t, "/-/profiling/pause"); status != http.StatusForbidden || !strings.Contains(body, "--web.enable-admin-api") {
		t.Errorf("without the flag: %d: %s", status, body)
	}
}
