// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestReload: SIGHUP, POST /-/reload and a change of the file apply the new configuration,
// also of a ConfigMap volume, which swaps a symbolic link. An invalid configuration is
// reported and changes nothing. All scrapes meanwhile have the values that both
// configurations contain.
func TestReload(t *testing.T) {
	t.Parallel()
	// A ConfigMap volume: name → ..data/name, ..data → directory of the version.
	dir := t.TempDir()
	version := 0
	publish := func(text string) {
		t.Helper()
		version++
		name := "..v" + string(rune('a'+version))
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name, "c.yaml"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	const base = "sample: {interval: 200ms, max-age: 1m}\nfields: [DCGM_FI_DEV_GPU_TEMP, DCGM_FI_PROF_GR_ENGINE_ACTIVE"
	publish(base + "]\ncounters: {file: []}\n")
	path := filepath.Join(dir, "c.yaml")
	if err := os.Symlink("..data/c.yaml", path); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", "--config.file="+path, "--families=default,peers,health-detail", "--web.enable-admin-api")
	n.command(t, "xid 94 gpu 1")
	n.eventually(t, "the XID is counted, and profiling has values", func() bool {
		body := n.scrape(t)
		total, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="1"`, `xid="94"`)
		_, profiled := sumOf(body, "DCGM_FI_PROF_GR_ENGINE_ACTIVE")
		_, healthy := sumOf(body, "gpu_health_system_status", `system="device"`)
		_, peers := sumOf(body, "gpu_p2p_status")
		states, profiling := sumOf(body, "gpu_profiling_state")
		return total == 1 && profiled == 8 && profiling == 8 && states == 0 && healthy == 8 && peers == 56
	})

	done, scrapes := make(chan struct{}), atomic.Int64{}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
			}
			status, body := n.tryGet(t, "/metrics")
			_, temperatures := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
			_, profiled := sumOf(body, "DCGM_FI_PROF_GR_ENGINE_ACTIVE")
			_, healthy := sumOf(body, "gpu_health_system_status", `system="device"`)
			_, peers := sumOf(body, "gpu_p2p_status")
			_, states := sumOf(body, "gpu_profiling_state")
			up, gpus := sumOf(body, "gpu_up")
			xids, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="1"`, `xid="94"`)
			if status != http.StatusOK || temperatures != 8 || profiled != 8 || states != 8 || healthy != 8 || peers != 56 || up != 8 || gpus != 8 || xids != 1 {
				t.Errorf("scrape %d: status %d, %d temperatures, %d profiling values, %v profiling states, %d health states, %d pairs of peers, %v of %d GPUs up, %v XIDs",
					scrapes.Load(), status, temperatures, profiled, states, healthy, peers, up, gpus, xids)
				return
			}
			scrapes.Add(1)
		}
	}()
	finish := sync.OnceFunc(func() {
		close(done)
		<-stopped
	})
	defer finish()

	shows := func(family string, want int) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%s has %d series", family, want), func() bool {
			_, count := sumOf(n.scrape(t), family)
			return count == want
		})
	}
	successful := func(want float64) {
		t.Helper()
		n.eventually(t, "the metric has the result of the reload", func() bool {
			v, count := sumOf(n.scrape(t), "gpu_exporter_config_last_reload_successful")
			return count == 1 && v == want
		})
	}
	sampler := n.samplerPID()

	publish(base + ", DCGM_FI_DEV_POWER_USAGE]\ncounters: {file: []}\n") // applied because the file changed
	shows("DCGM_FI_DEV_POWER_USAGE", 8)
	if now := n.samplerPID(); now == sampler {
		t.Error("the sampler was not replaced")
	}

	publish(base + ", DCGM_FI_DEV_POWER_USAG, {field: 1, kind: gpu}]\n")
	successful(0)
	if status, body := n.post(t, "/-/reload"); status != http.StatusInternalServerError || strings.Contains(body, "c.yaml") {
		t.Errorf("reload answers %d: %s", status, body)
	}
	n.eventually(t, "each error has a record", func() bool {
		log := n.log.String()
		return strings.Contains(log, "c.yaml:2: unknown field DCGM_FI_DEV_POWER_USAG: did you mean DCGM_FI_DEV_POWER_USAGE?") &&
			strings.Contains(log, "errors=2") && !strings.Contains(log, `\n`)
	})
	shows("DCGM_FI_DEV_POWER_USAGE", 8)
	publish("") // like a truncated file
	if status, body := n.post(t, "/-/reload"); status != http.StatusInternalServerError {
		t.Errorf("reload of an empty file answers %d: %s", status, body)
	}
	n.eventually(t, "the reason is logged", func() bool { return strings.Contains(n.log.String(), "c.yaml: the file is empty") })
	shows("DCGM_FI_DEV_POWER_USAGE", 8)

	publish(base + ", DCGM_FI_DEV_FB_USED, {field: 155, name: my_watts}]\ncounters: {file: []}\n")
	if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Errorf("reload answers %d: %s", status, body)
	}
	successful(1)
	shows("my_watts", 8)
	shows("DCGM_FI_DEV_POWER_USAGE", 0)

	// The same configuration does not replace the sampler.
	sampler = n.samplerPID()
	if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Errorf("reload answers %d: %s", status, body)
	}
	publish(base + ", {field: 155, name: my_watts}, DCGM_FI_DEV_FB_USED]\ncounters: {file: []}\n") // in a different order
	if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Errorf("reload answers %d: %s", status, body)
	}
	shows("my_watts", 8)
	publish("# on different lines\n" + base + ", {field: 155, name: my_watts}, DCGM_FI_DEV_FB_USED]\ncounters: {file: []}\n")
	if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Errorf("reload answers %d: %s", status, body)
	}
	n.eventually(t, "different lines are not a change", func() bool { return strings.Count(n.log.String(), "changed=false") >= 2 })
	if now := n.samplerPID(); now != sampler {
		t.Error("a reload without a change, or in another order, replaced the sampler")
	}

	publish(base + "]\ncounters: {file: []}\nmodels: [{match: .*H100.*, without: [DCGM_FI_DEV_FB_USED]}, {match: .*A100.*, fields: [DCGM_FI_DEV_MEMORY_TEMP]}]\nkubernetes: {enabled: true}\n")
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	shows("my_watts", 0)
	shows("DCGM_FI_DEV_MEMORY_TEMP", 0)
	n.eventually(t, "the log names the setting that needs a restart", func() bool { return strings.Contains(n.log.String(), "settings=kubernetes.enabled\n") })

	for i := range 10 {
		extra := []string{"]", ", DCGM_FI_DEV_POWER_USAGE]"}[i%2]
		publish(base + extra + "\ncounters: {file: []}\n")
		if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
			t.Errorf("reload answers %d: %s", status, body)
		}
		shows("DCGM_FI_DEV_POWER_USAGE", 8*(i%2))
	}
	finish()
	t.Logf("%d scrapes", scrapes.Load())
	if status, _ := n.tryGet(t, "/-/reload"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET /-/reload answers %d", status)
	}
}

// TestReloadMetrics: the metrics have the result of a reload before the next sample.
func TestReloadMetrics(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "sample: {interval: 10m}\n")
	n := startNode(t, "t4x1", "--config.file="+path, "--web.enable-admin-api")
	for _, tc := range []struct {
		text       string
		successful float64
	}{{"sample: 10\n  nonsense", 0}, {"sample: {interval: 10m}\n", 1}} {
		writeFile(t, path, tc.text)
		n.post(t, "/-/reload")
		n.eventually(t, "the metric has the result", func() bool {
			v, count := sumOf(n.scrape(t), "gpu_exporter_config_last_reload_successful")
			return count == 1 && v == tc.successful
		})
	}
}

// TestReloadInABusyDirectory: a changed file is applied although a different file in its
// directory changes continuously.
func TestReloadInABusyDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	writeFile(t, path, "fields: [{field: 150, name: first}]\n")
	n := startNode(t, "t4x1", "--config.file="+path)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if err := os.WriteFile(filepath.Join(dir, "log"), []byte("x"), 0o600); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	writeFile(t, path, "fields: [{field: 150, name: second}]\n")
	n.eventually(t, "the changed file is applied", func() bool {
		_, count := sumOf(n.scrape(t), "second")
		return count == 1
	})
	close(done)
	<-stopped
}
