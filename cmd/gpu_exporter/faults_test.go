// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gpu_exporter/collector/dcgmsim"
)

// TestFaultGPULost: a lost GPU keeps its labels with gpu_up 0, also after a sampler restart.
func TestFaultGPULost(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	before := n.scrape(t)
	identity := regexp.MustCompile(`(?m)^gpu_up(\{gpu="3".*\}) 1$`).FindStringSubmatch(before)
	if identity == nil {
		t.Fatalf("GPU 3 is not up:\n%s", before)
	}
	watch := watchFault(t, n)
	n.command(t, "lose gpu 3")
	lost := "gpu_up" + identity[1] + " 0\n"
	n.eventually(t, "the GPU is down under its own labels", func() bool { return strings.Contains(n.scrape(t), lost) })
	body := n.scrape(t)
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP"); count != 7 {
		t.Errorf("%d GPUs have a temperature, want 7", count)
	}
	// A sampler that starts now cannot read the identity of the lost GPU.
	n.killSampler(t)
	n.eventually(t, "a new sampler has taken over", func() bool {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"killed"`)
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
		return v == 1 && count == 7
	})
	if !strings.Contains(n.scrape(t), lost) {
		t.Errorf("the new sampler has lost the identity:\n%s", n.scrape(t))
	}
	n.command(t, "return gpu 3")
	watch.recovers(t, "the GPU has values again", func() bool {
		body := n.scrape(t)
		_, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
		return count == 8 && strings.Contains(body, "gpu_up"+identity[1]+" 1\n")
	})
	if restarts, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total"); restarts != 1 {
		t.Errorf("%v restarts, want 1", restarts)
	}
}

// TestFaultNativeHang: if a native call hangs, scrapes still succeed, stale series disappear and the
// sampler is replaced. The values return when the calls work again.
func TestFaultNativeHang(t *testing.T) {
	t.Parallel()
	for call, node := range map[string]struct {
		scenario string
		trigger  string // command that makes the sampler call the function
	}{
		"dcgmEntitiesGetLatestValues": {"h100x8", ""},
		"dcgmGetEntityGroupEntities":  {"h100x8", ""},
		"dcgmGetGpuInstanceHierarchy": {"h100x8-mig", ""},
		"dcgmGetValuesSince_v2":       {"h100x8", "xid 31 gpu 2"},
		"dcgmGetGpuStatus":            {"h100x8", "lose gpu 2"},
		"nvmlInit_v2":                 {"h100x8-mig", "mig gpu 0 1g.10gb*2"},
		"*":                           {"h100x8", ""},
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, node.scenario, fast...)
			watch := watchFault(t, n)
			n.command(t, "hang "+call)
			if node.trigger != "" {
				n.command(t, node.trigger)
			}
			n.eventually(t, "values are withheld and every GPU is down", func() bool {
				body := n.scrape(t)
				_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
				up, gpus := sumOf(body, "gpu_up")
				return values == 0 && gpus == 8 && up == 0
			})
			if status, why := n.tryGet(t, "/-/ready"); status != http.StatusServiceUnavailable || !strings.Contains(why, "old") {
				t.Errorf("/-/ready: %d %s", status, why)
			}
			if status, body := n.tryGet(t, "/health"); status != http.StatusOK || body != "OK" {
				t.Errorf("/health: %d %s", status, body)
			}
			n.eventually(t, "the hanging sampler is replaced", func() bool {
				v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"timeout"`)
				return v >= 1
			})
			n.command(t, "clear") // also returns the lost GPU
			watch.recovers(t, "the values return", func() bool {
				body := n.scrape(t)
				up, _ := sumOf(body, "gpu_up")
				_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
				return up == 8 && values >= 8
			})
		})
	}
}

// TestFaultNativeCrash: a crash of the sampler is counted, and the next sampler works.
func TestFaultNativeCrash(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	watch := watchFault(t, n)
	n.command(t, "crash dcgmEntitiesGetLatestValues")
	n.eventually(t, "the crash is counted", func() bool {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"crash"`)
		return v >= 1
	})
	n.command(t, "clear")
	watch.recovers(t, "the values return", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
		return count == 8
	})
}

// TestFaultNativeFailingCall: if reading the values fails, scrapes still succeed.
func TestFaultNativeFailingCall(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	watch := watchFault(t, n)
	n.command(t, "fail dcgmEntitiesGetLatestValues -3")
	n.eventually(t, "values are withheld", func() bool {
		up, gpus := sumOf(n.scrape(t), "gpu_up")
		return gpus == 8 && up == 0
	})
	n.command(t, "clear")
	watch.recovers(t, "the values return", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
		return count == 8
	})
}

// TestFaultNativeNoLibrary: a missing libdcgm is reported, and the exporter retries.
func TestFaultNativeNoLibrary(t *testing.T) {
	t.Parallel()
	n := launchNode(t, "", fast...)
	n.eventually(t, "the missing library is counted", func() bool {
		status, body := n.tryGet(t, "/metrics")
		v, _ := sumOf(body, "gpu_exporter_sampler_restarts_by_reason_total", `"library_missing"`)
		return status == http.StatusOK && v >= 2 // retried
	})
	if status, why := n.tryGet(t, "/-/ready"); status != http.StatusServiceUnavailable || !strings.Contains(why, "libdcgm.so.4") {
		t.Errorf("/-/ready: %d %s", status, why)
	}
	if log := n.log.String(); !strings.Contains(log, "libdcgm.so.4") {
		t.Errorf("the log does not name the library:\n%s", log)
	}
}

// TestFaultHostengineLost: while a host engine is killed or frozen, values are withheld and scrapes
// succeed. The exporter reconnects to the next engine, and to one that answers again.
func TestFaultHostengineLost(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fail   func(*dcgmsim.Engine) error
		reason string
	}{
		"killed": {(*dcgmsim.Engine).Kill, "hostengine_lost"},
		"frozen": {(*dcgmsim.Engine).Stop, "timeout"},
		"thawed": {(*dcgmsim.Engine).Stop, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "he.sock")
			n := launchNode(t, "h100x8", append(fast, "-r", socket)...)
			start := func() *dcgmsim.Engine {
				engine, err := n.sim.StartEngine(t.Context(), "--domain-socket", socket)
				if err != nil {
					t.Fatal(err)
				}
				return engine
			}
			flows := func() bool {
				_, body := n.tryGet(t, "/metrics")
				_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
				return values == 8
			}
			engine := start()
			n.eventually(t, "values come from the engine", flows)
			watch := watchFault(t, n)
			if err := tc.fail(engine); err != nil {
				t.Fatal(err)
			}
			n.eventually(t, "the loss is counted and every GPU is down", func() bool {
				body := n.scrape(t)
				lost, _ := sumOf(body, "gpu_exporter_sampler_restarts_by_reason_total", `"`+tc.reason+`"`)
				up, gpus := sumOf(body, "gpu_up")
				return lost >= 1 && gpus == 8 && up == 0
			})
			if name == "thawed" {
				if err := engine.Cont(); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := engine.Kill(); err != nil && name == "frozen" {
					t.Fatal(err)
				}
				engine = start()
			}
			defer engine.Close()
			watch.recovers(t, "the values return", flows)
		})
	}
}

// TestFaultNativeHealthCheck: a health check that hangs is reported and does not delay samples.
func TestFaultNativeHealthCheck(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=200ms", "--sample.max-age=5s", "--health.interval=1s")
	up := func() float64 {
		v, found := sumOf(n.scrape(t), "gpu_exporter_health_check_up")
		if found != 1 {
			t.Fatal("gpu_exporter_health_check_up is missing")
		}
		return v
	}
	n.eventually(t, "the health is checked", func() bool { return up() == 1 })
	watch := watchFault(t, n)
	sampler := n.samplerPID()
	n.command(t, "hang dcgmHealthCheck")
	n.eventually(t, "the health is not checked", func() bool { return up() == 0 })
	body := n.scrape(t)
	if _, found := sumOf(body, "gpu_health_status"); found != 0 {
		t.Errorf("%d series of gpu_health_status without a check", found)
	}
	n.nextSample(t)
	if v, found := sumOf(n.scrape(t), "gpu_up"); v != 8 || found != 8 {
		t.Errorf("%v of %d GPUs are up: samples are delayed", v, found)
	}
	if n.samplerPID() != sampler {
		t.Error("the sampler was replaced")
	}
	n.command(t, "clear")
	watch.recovers(t, "the health is checked again", func() bool { return up() == 1 })
}
