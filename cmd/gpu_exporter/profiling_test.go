// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"strings"
	"syscall"
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
	// The answer comes when the hardware is free, and again when it is not.
	if status, body := n.post(t, "/-/profiling/pause?for=1h"); status != http.StatusOK || !strings.Contains(body, `{"paused":true,"until":"`) || strings.Count(body, `"state":"paused"`) != 8 {
		t.Errorf("pause answers %d: %s", status, body)
	}
	values(0)
	if now := n.samplerPID(); now != sampler {
		t.Error("the sampler was replaced for a pause")
	}
	kill(t, n)
	n.eventually(t, "another sampler works", func() bool {
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
	// A web page of somebody else cannot pause anything.
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
		t.Errorf("a cross-site request is answered %d", resp.StatusCode)
	}
	for path, want := range map[string]int{"/-/profiling/pause?for=soon": 400, "/-/profiling/pause?for=48h": 400, "/-/profiling/pause?for=1ms": 400} {
		if status, body := n.post(t, path); status != want {
			t.Errorf("%s answers %d: %s", path, status, body)
		}
	}
	if status, _ := n.tryGet(t, "/-/profiling/pause"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET answers %d", status)
	}

	// A sampler that hangs holds nobody up: what was asked for is done by the next.
	n.signal(t, syscall.SIGSTOP)
	if status, body := n.post(t, "/-/profiling/pause"); status != http.StatusAccepted || !strings.Contains(body, `{"paused":true`) {
		t.Errorf("while the sampler hangs, pause answers %d: %s", status, body)
	}
	n.signal(t, syscall.SIGKILL)
	values(0)

	off := startNode(t, "h100x8", fast...)
	if status, body := off.post(t, "/-/profiling/pause"); status != http.StatusForbidden || !strings.Contains(body, "--web.enable-admin-api") {
		t.Errorf("without the switch: %d: %s", status, body)
	}
}
