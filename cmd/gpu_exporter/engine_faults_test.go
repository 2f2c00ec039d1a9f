// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
)

// until waits until the exporter answers /-/ready with the status, and returns the body
// and the time that passed.
func (n *node) until(t *testing.T, status int) (string, time.Duration) {
	t.Helper()
	start, body := time.Now(), ""
	n.eventually(t, "/-/ready to change", func() bool {
		got, text := n.tryGet(t, "/-/ready")
		body = text
		return got == status
	})
	return body, time.Since(start).Round(time.Millisecond)
}

// TestFaultEngineGone shows that no GPU is up as soon as the engine is known to be gone,
// although its last values are young enough to be published.
func TestFaultEngineGone(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=200ms", "--sample.max-age=10m")
	n.command(t, "engine lost")
	why, took := n.until(t, http.StatusServiceUnavailable)
	t.Logf("not ready after %v: %s", took, why)
	n.eventually(t, "no GPU is up", func() bool { return strings.Count(n.scrape(t), "\ngpu_up{") == 8 && gpusUp(n.scrape(t)) == 0 })
	page := n.scrape(t)
	if !strings.Contains(page, "\nDCGM_FI_DEV_GPU_TEMP{") || !strings.Contains(page, "\ngpu_exporter_sampler_up 0\n") {
		t.Errorf("the values or the state of the sampler are missing:\n%s", page)
	}
	n.command(t, "engine back")
	_, took = n.until(t, http.StatusOK)
	t.Logf("ready %v after the engine is back", took)
	n.eventually(t, "all GPUs are up", func() bool { return gpusUp(n.scrape(t)) == 8 })
}

// TestFaultEngineHangsOrCrashes: no GPU is up as soon as the sampler is known to hang, or a
// second one has ended without a sample, although the values are young enough.
func TestFaultEngineHangsOrCrashes(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"hang", "crash"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", "--sample.interval=200ms", "--sample.max-age=10m")
			watch := watchFault(t, n)
			start := time.Now()
			n.command(t, fault+" dcgmEntitiesGetLatestValues")
			why, _ := n.until(t, http.StatusServiceUnavailable)
			n.eventually(t, "every GPU is down", func() bool { return gpusUp(n.scrape(t)) == 0 })
			body := n.scrape(t)
			t.Logf("down after %v: %s", time.Since(start).Round(time.Millisecond), why)
			if _, gpus := sumOf(body, "gpu_up"); gpus != 8 || !strings.Contains(body, "\ngpu_exporter_sampler_up 0\n") {
				t.Errorf("%d GPUs are known, or the sampler is up", gpus)
			}
			n.command(t, "clear")
			watch.recovers(t, "every GPU is up", func() bool { return gpusUp(n.scrape(t)) == 8 })
			n.until(t, http.StatusOK)
		})
	}
}

func gpusUp(page string) (up int) {
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "gpu_up{") && strings.HasSuffix(line, " 1\n") {
			up++
		}
	}
	return up
}

// TestFaultNoGPUs shows that the exporter is not ready without a GPU that answers, unless
// the node is declared to have none.
func TestFaultNoGPUs(t *testing.T) {
	t.Parallel()
	t.Run("none", func(t *testing.T) {
		n := launchNode(t, "none")
		n.eventually(t, "a sample", func() bool { return strings.Contains(n.scrape(t), "\ngpu_exporter_gpus 0\n") })
		if status, why := n.tryGet(t, "/-/ready"); status != http.StatusServiceUnavailable || !strings.Contains(why, "no GPU was found") {
			t.Errorf("/-/ready answers %d: %s", status, why)
		}
	})
	t.Run("none is selected", func(t *testing.T) {
		n := launchNode(t, "h100x8", append(fast, "-d", "g:99")...)
		n.eventually(t, "the selector is reported", func() bool {
			status, why := n.tryGet(t, "/-/ready")
			return status == http.StatusServiceUnavailable && strings.Contains(why, `the device selector "g:99" matches none of the 8 GPUs`)
		})
	})
	t.Run("declared", func(t *testing.T) { startNode(t, "none", "--devices.allow-none") })
	t.Run("all are lost", func(t *testing.T) {
		n := startNode(t, "t4x1", "--sample.interval=200ms")
		n.command(t, "lose gpu 0")
		why, _ := n.until(t, http.StatusServiceUnavailable)
		if !strings.Contains(why, "none of the 1 GPUs answers") {
			t.Errorf("/-/ready: %s", why)
		}
		// The page follows in a moment.
		n.eventually(t, "the GPU is down", func() bool {
			page := n.scrape(t)
			return gpusUp(page) == 0 && strings.Contains(page, "\ngpu_exporter_gpus 1\n")
		})
		n.command(t, "return gpu 0")
		n.until(t, http.StatusOK)
	})
}

// TestFaultMuteGPU shows that a GPU is not up, and has no values, while DCGM repeats its
// last values with status 0.
func TestFaultMuteGPU(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=200ms")
	n.command(t, "mute gpu 2")
	start := time.Now()
	n.eventually(t, "the GPU is down", func() bool { return gpusUp(n.scrape(t)) == 7 })
	t.Logf("down after %v", time.Since(start).Round(time.Millisecond))
	if page := n.scrape(t); strings.Contains(page, `DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="2"`) {
		t.Error("an old value of the GPU is published")
	}
	n.command(t, "return gpu 2")
	n.eventually(t, "the GPU is back", func() bool { return gpusUp(n.scrape(t)) == 8 })
}

// TestFaultImpossibleValues shows that no counter has counted a value that is impossible in
// its unit.
func TestFaultImpossibleValues(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=200ms")
	busy := regexp.MustCompile(`(?m)^gpu_busy_seconds_total\{gpu="0".* (\S+)$`)
	seconds := func() float64 {
		m := busy.FindStringSubmatch(n.scrape(t))
		if m == nil {
			return 0
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	n.eventually(t, "busy time", func() bool { return seconds() > 0 })
	start, before := time.Now(), seconds()
	for _, value := range []string{"1e308", "inf", "-5", "nan", "-inf", "-1e308", "2"} {
		n.command(t, "set field 1001 value "+value+" gpu 0")
		n.eventually(t, "the value is dropped", func() bool {
			page := n.scrape(t)
			return strings.Contains(page, `reason="out_of_range"`) && !strings.Contains(page, `DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0"`)
		})
	}
	n.command(t, "unset field 1001 gpu 0")
	energy := func() float64 {
		joules, _ := sumOf(n.scrape(t), "gpu_energy_joules_total", `gpu="0"`)
		return joules
	}
	joules := energy()
	for _, value := range []string{"9.3e18", "-9.3e18", "-1", "nan"} { // of an integer field
		n.command(t, "set field 156 value "+value+" gpu 0")
		n.eventually(t, "the energy is dropped", func() bool {
			_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", `gpu="0"`)
			return count == 0
		})
	}
	// It is possible as a value, but not as an increase.
	n.command(t, "set field 156 value 1e15 gpu 0")
	n.eventually(t, "the energy is published", func() bool {
		v, _ := sumOf(n.scrape(t), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", `gpu="0"`)
		return v == 1e15
	})
	n.command(t, "unset field 156 gpu 0")
	n.eventually(t, "energy is counted again", func() bool { return energy() > joules })
	if grown, passed := energy()-joules, time.Since(start).Seconds(); grown > (passed+1)*1000 { // 1 kW
		t.Errorf("%v J counted in %v s", grown, passed)
	}
	paused := seconds()
	n.eventually(t, "busy time continues", func() bool { return seconds() > paused })
	if counted, passed := seconds()-before, time.Since(start).Seconds(); counted < 0 || counted > passed+1 {
		t.Errorf("%v s counted in %v s", counted, passed)
	}
}

// TestFaultSlowDriver shows that a driver that takes longer than the watchdog's limit for
// each watch causes no restart.
func TestFaultSlowDriver(t *testing.T) {
	t.Parallel()
	n := launchNode(t, "h100x8", "--sample.interval=1s")
	n.command(t, "slow dcgmWatchFields 4000")
	start := time.Now()
	n.until(t, http.StatusOK)
	t.Logf("ready after %v", time.Since(start).Round(time.Millisecond))
	if page := n.scrape(t); !strings.Contains(page, "\ngpu_exporter_sampler_restarts_total 0\n") || gpusUp(page) != 8 {
		t.Errorf("the sampler was restarted, or a GPU is down:\n%s", page)
	}
}

// TestFaultCrashIsLoggedBriefly shows that a crash of the sampler causes at most 3 records.
func TestFaultCrashIsLoggedBriefly(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=200ms")
	before := len(n.log.String())
	n.command(t, "crash dcgmEntitiesGetLatestValues")
	n.eventually(t, "the crash", func() bool { return strings.Contains(n.log.String()[before:], "Sampler ended and is restarted") })
	n.command(t, "clear")
	n.eventually(t, "the sampler is back", func() bool { return strings.Contains(n.log.String()[before:], "sampling started") })
	after := n.log.String()[before:]
	crashes, records := strings.Count(after, "Sampler ended and is restarted"), strings.Count(after, "\n")
	t.Logf("%d crashes: %d records, %d bytes of log", crashes, records, len(after))
	if records > 3*crashes || len(after) > crashes*(8<<10) {
		t.Errorf("%d records of %d crashes in %d bytes:\n%s", records, crashes, len(after), after)
	}
}

// TestSamplerHasOneArena shows that the threads of the sampler share one arena of the C
// library: each thread's own would keep the memory of its largest message.
func TestSamplerHasOneArena(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=200ms", "--health.interval=1s")
	n.eventually(t, "a health check", func() bool { return strings.Contains(n.scrape(t), "\ngpu_health_status{") })
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", n.samplerPID()))
	if err != nil {
		t.Fatal(err)
	}
	// An additional arena has the size and alignment HEAP_MAX_SIZE (malloc/arena.c of glibc).
	// Only its first part is accessible. It lies near the libraries. Go's heap may have the same
	// shape, but lies elsewhere.
	const size, near = 64 << 20, 1 << 40
	var libraries uint64
	if _, err := fmt.Sscanf(regexp.MustCompile(`(?m)^.*/libc\.so\.6$`).FindString(string(maps)), "%x-", &libraries); err != nil {
		t.Fatalf("the C library in %s: %v", maps, err)
	}
	var usedStart, usedEnd uint64
	for line := range strings.Lines(string(maps)) {
		var start, end uint64
		var access string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &access); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if access == "---p" && start == usedEnd && end == usedStart+size && usedStart%size == 0 &&
			libraries-usedStart < near {
			t.Errorf("an arena at %x has %d KiB", usedStart, (usedEnd-usedStart)>>10)
		}
		usedStart, usedEnd = start, end
	}
}

// TestFaultEngineBack shows how soon a hostengine that was away for a while is used again.
func TestFaultEngineBack(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "he.sock")
	n := launchNodeWith(t, "h100x8", func(n *node) {
		n.cmd.Env = append(n.cmd.Env, "DCGMSIM_CONNECT_TIMEOUT=1s")
	}, "--sample.interval=200ms", "-r", socket)
	start := func() *dcgmsim.Engine {
		engine, err := n.sim.StartEngine(t.Context(), "--domain-socket", socket)
		if err != nil {
			t.Fatal(err)
		}
		return engine
	}
	engine := start()
	n.until(t, http.StatusOK)
	if err := engine.Kill(); err != nil {
		t.Fatal(err)
	}
	n.until(t, http.StatusServiceUnavailable)
	n.eventually(t, "the back-off grows", func() bool {
		failures, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"hostengine_unreachable"`)
		return failures >= 3
	})
	defer start().Close()
	_, took := n.until(t, http.StatusOK)
	t.Logf("ready %v after the engine is back", took)
	if strictTimes && took > maxRecoveryTime {
		t.Errorf("ready %v after the engine is back, want at most %v", took, maxRecoveryTime)
	}
}
