// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/status"
	"gpu_exporter/podmapper/kubelettest"
)

// status returns the status as JSON, and checks that the page is served as well.
func (n *node) status(t *testing.T) (s status.Status) {
	t.Helper()
	if code, page := n.tryGet(t, "/"); code != http.StatusOK || !strings.HasSuffix(page, "</html>\n") {
		t.Fatalf("the page: %d %.300s", code, page)
	}
	code, body := n.tryGet(t, "/api/v1/status")
	if code != http.StatusOK {
		t.Fatalf("the status: %d %.300s", code, body)
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v\n%.300s", err, body)
	}
	return s
}

// gpu returns the GPU with the number.
func gpuOf(t *testing.T, s *status.Status, id uint32) status.GPU {
	t.Helper()
	i := slices.IndexFunc(s.GPUs, func(g status.GPU) bool { return g.ID == id })
	if i < 0 {
		t.Fatalf("no GPU %d in %+v", id, s.GPUs)
	}
	return s.GPUs[i]
}

// TestStatus: the status shows the GPUs and instances of the metrics with their owners, and a
// stranger's name does not become markup.
func TestStatus(t *testing.T) {
	t.Parallel()
	const hostile = `<script>alert(1)</script>`
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8-mig", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket)...)
	kubelet.SetPods(
		kubelettest.Pod("ml", hostile, "main", "nvidia.com/gpu", n.uuid(t, "6")),
		kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", firstMIGDevice),
	)
	n.eventually(t, "the pods are on their devices", func() bool {
		_, count := sumOf(n.scrape(t), "gpu_pod_info")
		return count == 2
	})
	s := n.status(t)
	if g := gpuOf(t, &s, 6); g.UUID != n.uuid(t, "6") || len(g.Owners) != 1 || g.Owners[0].Name != hostile || g.Held != "held" || g.Temperature.Value == nil {
		t.Errorf("GPU 6 is %+v", g)
	}
	if g := gpuOf(t, &s, 7); g.Held != "free" {
		t.Errorf("GPU 7 is %s", g.Held)
	}
	mig := gpuOf(t, &s, 0)
	at := slices.IndexFunc(mig.Instances, func(i status.Instance) bool { return slices.Contains(i.UUIDs, firstMIGDevice) })
	if at < 0 || len(mig.Instances[at].Owners) != 1 || mig.Instances[at].Owners[0].Name != "slice" || mig.Instances[at].MemoryTotal.Value == nil {
		t.Errorf("GPU 0 has the instances %+v", mig.Instances)
	}
	if s.State != status.Healthy || !s.Ready || !s.Sample.Fresh || s.Sampler.State != "sampling" || s.Versions.Driver == "" || s.Versions.DCGM == "" {
		t.Errorf("the node is %s, %+v, %+v, %+v, %+v", s.State, s.Problems, s.Sample, s.Sampler, s.Versions)
	}
	if !strings.Contains(n.scrape(t), `hostname="`+s.Node+`"`) {
		t.Errorf("the node is %q, unlike the label hostname", s.Node)
	}
	if _, page := n.tryGet(t, "/"); strings.Contains(page, hostile) || !strings.Contains(page, "&lt;script&gt;alert(1)") {
		t.Error("the name of a pod is not escaped")
	}
	kubelet.Stop()
	n.eventually(t, "the page warns about the kubelet", func() bool {
		s := n.status(t)
		return s.State == status.Warning && len(s.Problems) == 1 && strings.Contains(s.Problems[0].Text, "kubelet")
	})
}

// TestStatusSteering: a simulated node lists commands that it accepts, and the states follow
// from them with the names of the metrics.
func TestStatusSteering(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	for action, command := range map[string]string{"gpu_reset": "reset", "node_reboot": "reboot", "drain_p2p": "drain-p2p", "drain_and_reset": "drain-and-reset"} {
		n.command(t, "recovery gpu 5 "+command)
		n.has(t, 1, "gpu_recovery_action_info", `gpu="5"`, `"`+action+`"`)
		s := n.status(t)
		if g := s.GPUs[0]; g.ID != 5 || g.State != status.Recovery || !strings.HasSuffix(g.Problems[0].Text, " "+action) {
			t.Errorf("%s: the first GPU is %d, %s, %+v", action, g.ID, g.State, g.Problems)
		}
	}
	n.command(t, "clear")
	simulation := n.status(t).Simulation
	if simulation == nil || !regexp.MustCompile(`^DCGMSIM_STATE=\S+ \S+/dcgmsimd --command$`).MatchString(simulation.Steering) {
		t.Fatalf("simulation %+v", simulation)
	}
	for _, c := range simulation.Commands {
		n.command(t, c.Command)
	}
	// The engine, which was lost meanwhile, reports only XIDs after its start.
	n.eventually(t, "the XID is counted", func() bool {
		n.command(t, "xid 79 gpu 3")
		sum, _ := sumOf(n.scrape(t), "gpu_xid_code_errors_total", `gpu="3"`)
		return sum > 0
	})
	n.command(t, "lose gpu 3")
	n.eventually(t, "the lost GPU with its XID is first", func() bool {
		s := n.status(t)
		return s.GPUs[0].ID == 3 && s.GPUs[0].State == status.Lost && len(s.GPUs[0].XIDs) == 1 && s.GPUs[0].XIDs[0].Code == 79 && s.GPUs[0].XIDs[0].Remedy != ""
	})
}

// TestStatusOff: the flag removes the page and its JSON.
func TestStatusOff(t *testing.T) {
	t.Parallel()
	n := startNode(t, "t4x1", "--no-web.status-page")
	if code, _ := n.tryGet(t, "/api/v1/status"); code != http.StatusNotFound {
		t.Errorf("the JSON: status %d", code)
	}
	if code, page := n.tryGet(t, "/"); code != http.StatusOK || strings.Contains(page, "Tesla") || !strings.Contains(page, `href="/metrics"`) {
		t.Errorf("the page: %d %s", code, page)
	}
}

// TestFaultHTTPStatus: the page answers while the driver hangs, while the sampler is suspended
// and after it crashed. It shows no old value, and recovers.
func TestFaultHTTPStatus(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		begin func(*node)
		end   func(*node)
	}{
		"hung driver":      {func(n *node) { n.command(t, "hang sampling") }, func(n *node) { n.command(t, "clear") }},
		"hung library":     {func(n *node) { n.command(t, "hang *") }, func(n *node) { n.command(t, "clear") }},
		"crashing sampler": {func(n *node) { n.command(t, "crash dcgmEntitiesGetLatestValues") }, func(n *node) { n.command(t, "clear") }},
		// The watchdog cannot distinguish a suspended sampler from a slow one for 10 s, so the
		// recovery is measured from its end.
		"suspended sampler": {func(n *node) { n.stopSampler(t) }, func(n *node) {
			suspended := n.samplerPID()
			n.eventually(t, "the suspended sampler is gone", func() bool { return n.samplerPID() != suspended })
		}},
		// It continues, or the watchdog has just replaced it.
		"resumed sampler": {func(n *node) { n.stopSampler(t) }, func(n *node) {
			if pid := n.samplerPID(); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", fast...)
			n.status(t) // parses the page
			watch := watchFault(t, n)
			var slowest time.Duration
			timed := func() status.Status {
				start := time.Now()
				defer func() { slowest = max(slowest, time.Since(start)) }()
				return n.status(t)
			}
			fault.begin(n)
			n.eventually(t, "every GPU is unknown", func() bool {
				s := timed()
				for _, g := range s.GPUs {
					if g.State != status.Unknown {
						return false
					}
					if g.Temperature.Value != nil && !s.Sample.Fresh {
						t.Errorf("GPU %d has a temperature of an old sample", g.ID)
					}
				}
				return s.State == status.Unknown && !s.Ready && len(s.GPUs) == 8
			})
			fault.end(n)
			watch.recovers(t, "every GPU is healthy", func() bool { return timed().Summary == "8 GPUs: 8 healthy" })
			t.Logf("the slowest pair of page and JSON took %v", slowest.Round(time.Millisecond))
			if strictTimes && slowest > maxScrapeTime {
				t.Errorf("the slowest answer took longer than %v", maxScrapeTime)
			}
		})
	}
}
