// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/podmapper/kubelettest"
)

// The tests in this file run the built binary over simulated nodes: a real
// sampler process, real HTTP, real signals.

// fast are the flags of nodes that should notice things soon.
var fast = []string{"--collect-interval=200ms", "--sample.max-age=2s"}

var labelValue = regexp.MustCompile(`="(?:[^"\\]|\\.)*"`)

// skeleton reduces an exposition to a line for each DCGM family: name, type
// and label names in their order.
func skeleton(body string) string {
	types, lines := map[string]string{}, map[string]string{}
	for line := range strings.Lines(body) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" {
			types[fields[2]] = fields[3]
		}
		name, rest, ok := strings.Cut(line, "{")
		if !ok || !strings.HasPrefix(name, "DCGM_") {
			continue
		}
		labels, _, _ := strings.Cut(rest, "} ")
		lines[name] = fmt.Sprintf("%s %s %s", name, types[name], labelValue.ReplaceAllString(labels, ""))
	}
	var all []string
	for _, line := range lines {
		all = append(all, line)
	}
	slices.Sort(all)
	return strings.Join(all, "\n") + "\n"
}

// testdata/dcgm-exporter-h100x8.txt is the skeleton of what dcgm-exporter prints
// on a node of eight H100.
func TestSameShapeAsDCGMExporter(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/dcgm-exporter-h100x8.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", fast...)
	var got string
	n.eventually(t, "the profiling fields have values", func() bool {
		got = n.scrape(t)
		_, count := sumOf(got, "DCGM_FI_PROF_DRAM_ACTIVE")
		return count == 8
	})
	if s := skeleton(got); s != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", s, want)
	}
	series := 0
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, "DCGM_") {
			series++
		}
	}
	if series != 192 {
		t.Errorf("%d DCGM series, dcgm-exporter has 192", series)
	}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	for scenario, want := range map[string]struct{ gpus, instances int }{
		"h100x8": {8, 0}, "h100x8-mig": {8, 17}, "a100x8": {8, 0}, "a100x7-mig": {1, 7},
		"t4x1": {1, 0}, "mixed4": {4, 0}, "none": {0, 0},
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, scenario, fast...)
			body := n.scrape(t)
			if up, gpus := sumOf(body, "gpu_up"); gpus != want.gpus || int(up) != want.gpus {
				t.Errorf("%d GPUs, %v of them up, want %d", gpus, up, want.gpus)
			}
			if _, instances := sumOf(body, "DCGM_FI_DEV_FB_USED", "GPU_I_ID="); instances != want.instances {
				t.Errorf("%d GPU instances, want %d", instances, want.instances)
			}
			if got := strings.Count(body, `UUID=""`); got != 0 {
				t.Errorf("%d series without a UUID", got)
			}
		})
	}
}

// Profiling capability is each GPU's own: H100 has it, A100 and T4 need a module.
func TestProfilingPerGPU(t *testing.T) {
	t.Parallel()
	n := startNode(t, "mixed4", fast...)
	n.eventually(t, "some GPU has profiling values", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_PROF_GR_ENGINE_ACTIVE")
		return count > 0
	})
	body := n.scrape(t)
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "DCGM_FI_PROF_") && !strings.Contains(line, "H100") {
			t.Errorf("a GPU without the module has a profiling value: %s", line)
		}
	}
	if v, _ := sumOf(body, "gpu_exporter_fields_unsupported", `"module_not_loaded"`); v == 0 {
		t.Error("no field counted as lacking its module")
	}
}

func TestXID(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", fast...)
	if v, count := sumOf(n.scrape(t), "gpu_xid_errors_total", `gpu="6"`, `xid="79"`); v != 0 || count != 1 {
		t.Fatalf("at the start: %v in %d series, want one at 0", v, count)
	}
	n.command(t, "xid 79 gpu 6")
	n.command(t, "xid 79 gpu 6")
	n.command(t, "xid 31 gpu 7")
	n.eventually(t, "the XIDs are counted", func() bool {
		body := n.scrape(t)
		two, _ := sumOf(body, "gpu_xid_errors_total", `gpu="6"`, `xid="79"`)
		one, _ := sumOf(body, "gpu_xid_errors_total", `gpu="7"`, `xid="31"`)
		return two == 2 && one == 1
	})
	body := n.scrape(t)
	if v, _ := sumOf(body, "gpu_xid_last_timestamp_seconds", `gpu="6"`); time.Since(time.Unix(int64(v), 0)) > time.Minute {
		t.Errorf("last seen at %v", v)
	}
	if !strings.Contains(body, `err_code="79",err_msg="`) {
		t.Error("the last-XID gauge lacks its attributes")
	}
	// The counter outlives the sampler.
	kill(t, n)
	n.eventually(t, "a new sampler has taken over", func() bool {
		body := n.scrape(t)
		up, _ := sumOf(body, "gpu_exporter_sampler_up")
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total")
		return up == 1 && restarts >= 1
	})
	if v, _ := sumOf(n.scrape(t), "gpu_xid_errors_total", `gpu="6"`, `xid="79"`); v != 2 {
		t.Errorf("after the restart: %v", v)
	}
}

// XID 119 leaves every field of every GPU blank until DCGM starts anew.
func TestFatalXID(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	n.command(t, "xid 119 gpu 2")
	n.eventually(t, "every GPU is down", func() bool {
		up, gpus := sumOf(n.scrape(t), "gpu_up")
		return gpus == 8 && up == 0
	})
	if _, values := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP"); values != 0 {
		t.Errorf("%d blank values are shown", values)
	}
	n.eventually(t, "a new sampler has brought the values back", func() bool {
		body := n.scrape(t)
		up, _ := sumOf(body, "gpu_up")
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total", `"engine_blank"`)
		return up == 8 && restarts == 1
	})
	if v, _ := sumOf(n.scrape(t), "gpu_xid_errors_total", `xid="119"`); v != 1 {
		t.Errorf("counted %v times", v)
	}
}

func kill(t *testing.T, n *node) {
	t.Helper()
	pid := n.samplerPID()
	if pid == 0 {
		t.Fatal("no sampler to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestLostGPU(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	before := n.scrape(t)
	identity := regexp.MustCompile(`(?m)^gpu_up(\{gpu="3".*\}) 1$`).FindStringSubmatch(before)
	if identity == nil {
		t.Fatalf("GPU 3 is not up:\n%s", before)
	}
	n.command(t, "lose gpu 3")
	lost := "gpu_up" + identity[1] + " 0\n"
	n.eventually(t, "the GPU is down under its own labels", func() bool { return strings.Contains(n.scrape(t), lost) })
	body := n.scrape(t)
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP"); count != 7 {
		t.Errorf("%d GPUs have a temperature, want the 7 others", count)
	}
	// A sampler that starts now cannot read who the lost GPU is.
	kill(t, n)
	n.eventually(t, "a new sampler has taken over", func() bool {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total", `"killed"`)
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
		return v == 1 && count == 7
	})
	if !strings.Contains(n.scrape(t), lost) {
		t.Errorf("identity lost with the sampler:\n%s", n.scrape(t))
	}
	n.command(t, "return gpu 3")
	n.eventually(t, "the GPU is back", func() bool {
		body := n.scrape(t)
		_, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
		return count == 8 && strings.Contains(body, "gpu_up"+identity[1]+" 1\n")
	})
	if restarts, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total"); restarts != 1 {
		t.Errorf("%v restarts, want only the one of the test", restarts)
	}
}

func TestMIGResplit(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a100x7-mig", fast...)
	n.command(t, "mig gpu 0 3g.20gb*2")
	n.eventually(t, "the new instances are there and the old ones are not", func() bool {
		body := n.scrape(t)
		_, all := sumOf(body, "DCGM_FI_DEV_FB_USED", "GPU_I_ID=")
		_, three := sumOf(body, "DCGM_FI_DEV_FB_USED", `GPU_I_PROFILE="3g.20gb"`)
		return all == 2 && three == 2
	})
	if restarts, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total"); restarts != 0 {
		t.Errorf("it took %v restarts of the sampler", restarts)
	}
}

// Any native call may hang. Scrapes go on; series go once they are stale; the
// sampler is replaced; and all is well again when the calls return.
func TestHang(t *testing.T) {
	t.Parallel()
	for call, node := range map[string]struct {
		scenario string
		trigger  string // what makes the sampler call it
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
				v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total", `"timeout"`)
				return v >= 1
			})
			n.command(t, "clear") // which also returns the lost GPU
			n.eventually(t, "values are back", func() bool {
				body := n.scrape(t)
				up, _ := sumOf(body, "gpu_up")
				_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
				return up == 8 && values >= 8
			})
		})
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	n.command(t, "crash dcgmEntitiesGetLatestValues")
	n.eventually(t, "the crash is counted", func() bool {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total", `"crash"`)
		return v >= 1
	})
	n.command(t, "clear")
	n.eventually(t, "values are back", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
		return count == 8
	})
}

func TestFailingCallCostsNoScrape(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	n.command(t, "fail dcgmEntitiesGetLatestValues -3")
	n.eventually(t, "values are withheld", func() bool {
		up, gpus := sumOf(n.scrape(t), "gpu_up")
		return gpus == 8 && up == 0
	})
	n.command(t, "clear")
	n.eventually(t, "values are back", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
		return count == 8
	})
}

func TestNoLibrary(t *testing.T) {
	t.Parallel()
	n := launchNode(t, "", fast...)
	n.eventually(t, "the missing library is counted", func() bool {
		status, body := n.tryGet(t, "/metrics")
		v, _ := sumOf(body, "gpu_exporter_sampler_restarts_total", `"library_missing"`)
		return status == http.StatusOK && v >= 2 // it keeps trying
	})
	if status, why := n.tryGet(t, "/-/ready"); status != http.StatusServiceUnavailable || !strings.Contains(why, "libdcgm.so.4") {
		t.Errorf("/-/ready: %d %s", status, why)
	}
	if log := n.log.String(); !strings.Contains(log, "libdcgm.so.4") {
		t.Errorf("the log does not name the library:\n%s", log)
	}
}

func TestExporterKilledLeavesNoOrphan(t *testing.T) {
	t.Parallel()
	for _, hang := range []bool{false, true} {
		t.Run(fmt.Sprintf("hang=%v", hang), func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", fast...)
			sampler := n.samplerPID()
			if hang {
				n.command(t, "hang *")
			}
			if err := n.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-n.exited
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				err := syscall.Kill(sampler, 0)
				if errors.Is(err, syscall.ESRCH) || zombie(sampler) {
					return
				}
				if time.Now().After(deadline) {
					_ = syscall.Kill(sampler, syscall.SIGKILL)
					t.Fatalf("sampler %d is still there", sampler)
				}
			}
		})
	}
}

// zombie says whether a process is dead and only waits for its new parent, which
// in a container may never ask.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat[bytes.LastIndexByte(stat, ')')+1:][:3]), "Z")
}

func TestOnce(t *testing.T) {
	t.Parallel()
	once := func(t *testing.T, args ...string) (stdout, stderr string, err error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), built(t), append([]string{"once"}, args...)...)
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		err = cmd.Run()
		return out.String(), log.String(), err
	}
	t.Run("prints one sample", func(t *testing.T) {
		t.Parallel()
		out, log, err := once(t, "--simulate=h100x8")
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if _, count := sumOf(out, "DCGM_FI_PROF_GR_ENGINE_ACTIVE"); count != 8 {
			t.Errorf("%d GPUs with a profiling value, want 8", count)
		}
	})
	t.Run("fails in one line without a library", func(t *testing.T) {
		t.Parallel()
		out, log, err := once(t)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || out != "" {
			t.Errorf("got %v and %q", err, out)
		}
		if !strings.Contains(log, "libdcgm.so.4") {
			t.Errorf("the reason is missing:\n%s", log)
		}
	})
}

// A host engine that is killed or frozen costs values, not scrapes, and the
// exporter finds it again.
func TestHostengine(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fail   func(*dcgmsim.Engine) error
		reason string
	}{
		"killed": {(*dcgmsim.Engine).Kill, "hostengine_lost"},
		"frozen": {(*dcgmsim.Engine).Stop, "timeout"},
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
			if err := tc.fail(engine); err != nil {
				t.Fatal(err)
			}
			n.eventually(t, "the loss is noticed and every GPU is down", func() bool {
				body := n.scrape(t)
				lost, _ := sumOf(body, "gpu_exporter_sampler_restarts_total", `"`+tc.reason+`"`)
				up, gpus := sumOf(body, "gpu_up")
				return lost >= 1 && gpus == 8 && up == 0
			})
			if err := engine.Kill(); err != nil && name == "frozen" {
				t.Fatal(err)
			}
			defer start().Close()
			n.eventually(t, "values come again", flows)
		})
	}
}

// A host engine goes on listening while no sampler does.
func TestXIDBetweenSamplers(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "he.sock")
	n := launchNode(t, "h100x8", append(fast, "-r", socket)...)
	engine, err := n.sim.StartEngine(t.Context(), "--domain-socket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	n.eventually(t, "values come from the engine", func() bool {
		_, body := n.tryGet(t, "/metrics")
		_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
		return values == 8
	})
	kill(t, n)
	n.command(t, "xid 79 gpu 1")
	for range 2 { // and the one after that does not count it again
		n.eventually(t, "a sampler has taken over and the XID is counted", func() bool {
			body := n.scrape(t)
			up, _ := sumOf(body, "gpu_exporter_sampler_up")
			xids, _ := sumOf(body, "gpu_xid_errors_total", `gpu="1"`, `xid="79"`)
			return up == 1 && xids == 1
		})
		kill(t, n)
		n.eventually(t, "the sampler is gone", func() bool {
			up, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_up")
			return up == 0
		})
	}
}

// The program names the scenarios without linking the package that has them.
func TestScenarioNames(t *testing.T) {
	if got, want := slices.Sorted(slices.Values(config.Scenarios())), slices.Sorted(slices.Values(dcgmsim.Scenarios())); !slices.Equal(got, want) {
		t.Errorf("--simulate knows %q, the stand-in %q", got, want)
	}
}

// A mistake in a scenario file is one line at the start, not a sampler that is
// tried for ever.
func TestScenarioWithAMistake(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "node.scenario")
	if err := os.WriteFile(file, []byte("gpu t4 cuont 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"serve", "once", "check-config"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := exec.CommandContext(ctx, built(t), command, "--simulate="+file, "--web.listen-address=127.0.0.1:0").CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), file+":1: ") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// firstMIGDevice is on GPU 0 of scenario h100x8-mig; see collector/nvml/testdata.
const firstMIGDevice = "MIG-bebc783d-a031-524e-9ca3-055daed0bee5"

func TestPods(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	defer kubelet.Stop()

	n := startNode(t, "h100x8-mig", append(fast, "-k", "--pod-resources-kubelet-socket="+socket)...)
	uuid := func(gpu string) string {
		m := regexp.MustCompile(`gpu_up\{gpu="` + gpu + `",UUID="([^"]+)"`).FindStringSubmatch(n.scrape(t))
		if m == nil {
			t.Fatalf("no GPU %s", gpu)
		}
		return m[1]
	}
	kubelet.SetPods(
		kubelettest.Pod("ml", "whole", "main", "nvidia.com/gpu", uuid("6")),
		kubelettest.Pod("ml", "shared-a", "main", "nvidia.com/gpu.shared", uuid("7")+"::0"),
		kubelettest.Pod("ml", "shared-b", "main", "nvidia.com/gpu.shared", uuid("7")+"::1"),
		kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", firstMIGDevice),
		kubelettest.Pod("ml", "stranger", "main", "nvidia.com/gpu", "GPU-00000000-0000-0000-0000-000000000000"),
	)
	n.eventually(t, "the pods are on their devices", func() bool {
		body := n.scrape(t)
		_, whole := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="6"`, `container="main",namespace="ml",pod="whole"`)
		_, slice := sumOf(body, "DCGM_FI_DEV_FB_USED", `GPU_I_ID=`, `pod="slice"`)
		return whole == 1 && slice == 1
	})
	body := n.scrape(t)
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`); count != 1 {
		t.Errorf("%d series of the shared GPU, want one", count)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, "pod="); count != 0 {
		t.Error("a shared GPU's series is labelled with a pod")
	}
	if _, count := sumOf(body, "gpu_pod_info", `gpu="7"`); count != 2 {
		t.Errorf("%d owners of the shared GPU, want 2", count)
	}
	if v, _ := sumOf(body, "gpu_exporter_pod_mapping_unmatched_devices"); v != 1 {
		t.Errorf("%v unmatched devices, want 1", v)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_FB_USED", `pod="slice"`); count != 1 {
		t.Errorf("the MIG pod is on %d series, want only its instance's", count)
	}
	// The kubelet goes: owners stay, and a metric tells.
	kubelet.Stop()
	n.eventually(t, "the mapping is down", func() bool {
		v, count := sumOf(n.scrape(t), "gpu_exporter_pod_mapping_up")
		return count == 1 && v == 0
	})
	if _, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `pod="whole"`); count != 1 {
		t.Error("the owners went with the kubelet")
	}
}
