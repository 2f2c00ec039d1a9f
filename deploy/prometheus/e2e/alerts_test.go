// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ealerts

package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/podmapper/kubelettest"
)

// factor divides all durations: a minute takes 3 s.
var factor = flag.Int("factor", 20, "divide the durations of the alerts by this number")

// untriggered are alerts that the simulated nodes cannot cause, with the reason. The tests of
// promtool cover them.
var untriggered = map[string]string{
	"GPUFreeWhilePodsWait":      "needs kube-state-metrics",
	"GPUNamespaceInefficient":   "needs a day of recording rules",
	"GPUVersionDrift":           "lasts a day",
	"GPUTemperatureHigh":        "all simulated models have a thermal margin",
	"GPUSamplerUnreapable":      "needs a process that the kernel cannot end",
	"GPULibraryMissing":         "the stand-in is the library",
	"GPUSampleStale":            "needs a different clock",
	"GPUExporterAbsent":         "needs a Prometheus without exporters",
	"GPUApplicationXIDRepeated": "lasts a day",
	"GPUXIDRepeated":            "lasts a day",
}

// alert is a firing alert as Alertmanager shows it.
type alert struct {
	Labels      map[string]string
	Annotations map[string]string
}

// key identifies an alert: its name, node, GPU and state.
func (a alert) key() string {
	parts := []string{a.Labels["alertname"], a.Labels["hostname"]}
	for _, label := range []string{"gpu", "nvswitch", "xid", "action", "source"} {
		if v := a.Labels[label]; v != "" && !(label == "action" && a.Labels["xid"] != "") {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, " ")
}

// fault is a fault, its end, and the alerts that are sent: by their keys a text that the summary
// or the remedy contains.
type fault struct {
	node     *node
	commands []string
	repair   []string
	alerts   map[string]string
}

// TestAlerts injects all faults at once, each on a GPU or node of its own. Each causes its alerts
// and no others, and they end after the repair.
func TestAlerts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	kernelLog, config := filepath.Join(t.TempDir(), "kmsg"), filepath.Join(t.TempDir(), "config.yaml")
	write(t, kernelLog, "")
	write(t, config, "sample:\n  interval: 1s\n")

	memory := startNode(t, "memory", "h100x8")
	lost := startNode(t, "lost", "h100x8")
	fabric := startNode(t, "fabric", "dgx-h100")
	hung := startNode(t, "hung", "h100x8")
	idle := startNode(t, "idle", "h100x8", "--kubernetes.enabled", "--kubernetes.pod-resources-socket="+socket)
	sources := startNode(t, "sources", "h100x8", "--path.kmsg="+kernelLog, "--config.file="+config)
	gone := startNode(t, "gone", "t4x1")
	nodes := []*node{memory, lost, fabric, hung, idle, sources, gone}

	manager := startAlertmanager(t)
	startPrometheus(t, manager, nodes)
	seen := map[string]alert{}
	firing := func() map[string]alert {
		var all []alert
		if err := fetch(t, manager+"/api/v2/alerts?active=true&inhibited=false&silenced=false", &all); err != nil {
			t.Fatal(err)
		}
		now := map[string]alert{}
		for _, a := range all {
			now[a.key()] = a
			if _, ok := seen[a.key()]; !ok {
				t.Logf("%s: %s %s", a.key(), a.Annotations["summary"], a.Annotations["description"])
			}
		}
		maps.Copy(seen, now)
		return now
	}

	idle.command(t, "load gpu all idle")
	kubelet.SetPods(kubelettest.Pod("ml", "notebook", "main", "nvidia.com/gpu", uuid(t, idle, 3)))
	t.Log("quiet time after the start")
	for end := time.Now().Add(20 * time.Minute / time.Duration(*factor)); time.Now().Before(end); time.Sleep(time.Second) {
		firing()
	}
	if len(seen) > 0 {
		t.Fatalf("alerts without a fault: %q", slices.Sorted(maps.Keys(seen)))
	}

	faults := []fault{
		{memory, []string{"xid 79 gpu 0"}, nil, map[string]string{"GPUXIDCritical memory 0 79": "power-cycle the node"}},
		{memory, []string{"xid 94 gpu 1"}, nil, map[string]string{"GPUXIDWarning memory 1 94": "Restart the application"}},
		{memory, []string{"xid 31 gpu 2"}, nil, nil},
		{memory, []string{"remap gpu 3 pending 1"}, []string{"remap gpu 3 pending 0"}, map[string]string{"GPUMemoryRepairPending memory 3": "Reset the GPU"}},
		{memory, []string{"remap gpu 4 failure 1"}, []string{"remap gpu 4 failure 0"}, map[string]string{"GPURowRemapFailed memory 4": "replaced"}},
		{memory, []string{"ecc gpu 5 dbe 2"}, nil, map[string]string{"GPUECCUncorrectable memory 5": "uncorrectable ECC errors"}},
		{memory, []string{"xid 95 gpu 6"}, nil, map[string]string{"GPUMemoryErrorUncontained memory 6 95": "discard the results"}},
		{memory, []string{"heat gpu 7 60"}, []string{"heat gpu 7 0"}, map[string]string{"GPUThermalMarginLow memory 7": "Check fans"}},

		{lost, []string{"lose gpu 0"}, []string{"return gpu 0"}, map[string]string{"GPUDown lost 0": "Drain the node"}},
		{lost, []string{"recovery gpu 1 reset"}, []string{"recovery gpu 1 none"}, map[string]string{"GPURecoveryActionRequested lost 1 gpu_reset": "nvidia-smi --gpu-reset"}},
		{lost, []string{"recovery gpu 2 reboot"}, []string{"recovery gpu 2 none"}, map[string]string{"GPURecoveryActionRequested lost 2 node_reboot": "reboot it"}},
		{lost, []string{"recovery gpu 3 drain-p2p"}, []string{"recovery gpu 3 none"}, map[string]string{"GPURecoveryActionRequested lost 3 drain_p2p": "peer-to-peer"}},
		{lost, []string{"recovery gpu 4 drain-and-reset"}, []string{"recovery gpu 4 none"}, map[string]string{"GPURecoveryActionRequested lost 4 drain_and_reset": "Accept no new jobs"}},
		{lost, []string{"reason gpu 5 hw_power_brake on"}, []string{"reason gpu 5 hw_power_brake auto"}, map[string]string{"GPUPowerBrake lost 5": "power supplies"}},
		{lost, []string{"profiling gpu 6 locked"}, []string{"profiling gpu 6 ok"}, map[string]string{"GPUProfilingFailed lost 6": "End the other client"}},

		{fabric, []string{"fabric gpu 0 failure 5"}, []string{"fabric gpu 0 success"}, map[string]string{"GPUFabricFault fabric 0": "error 5"}},
		{fabric, []string{"link gpu 1 port 3 down"}, []string{"link gpu 1 port 3 up"}, map[string]string{"GPUNVLinkDown fabric 1": "1 NVLinks that were up are down"}},

		{hung, []string{"hang dcgmEntitiesGetLatestValues"}, []string{"clear dcgmEntitiesGetLatestValues"}, map[string]string{"GPUSamplerDown hung": "gpu_exporter doctor"}},
		{idle, nil, []string{"load gpu 3 util 80"}, map[string]string{"GPUHeldIdle idle 3": "held by ml/notebook"}},
	}
	want := map[string]string{
		"GPUKernelLogFailing sources":     "cannot read the kernel log",
		"GPUExporterReloadFailed sources": "rejected its new configuration",
		"GPUExporterDown gone":            "cannot be scraped",
	}
	for _, f := range faults {
		f.node.command(t, f.commands...)
		maps.Copy(want, f.alerts)
	}
	remove(t, kernelLog)
	write(t, config, "sample:\n  interval: never\n")
	signal(t, sources, syscall.SIGHUP)
	signal(t, gone, syscall.SIGSTOP)

	check := func(want map[string]string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d alerts are sent", len(want)), func() bool {
			firing()
			if unwanted := without(seen, want); len(unwanted) > 0 {
				t.Errorf("alerts of no fault: %q", unwanted)
				return true
			}
			return len(seen) == len(want)
		})
		for key, text := range want {
			if a, ok := seen[key]; !ok {
				t.Errorf("%s was not sent", key)
			} else if !strings.Contains(a.Annotations["summary"]+a.Annotations["description"], text) {
				t.Errorf("%s: %q and %q have no %q", key, a.Annotations["summary"], a.Annotations["description"], text)
			}
		}
	}
	check(want)

	// The second round has faults that would suppress some of the first.
	fabric.command(t, "switch 3 lost")
	kubelet.Stop()
	want["GPUNVSwitchDown fabric nvswitch3"] = "nvidia-fabricmanager"
	want["GPUOwnerMappingFailing idle pod_resources"] = "pod_resources fails"
	check(want)

	signal(t, gone, syscall.SIGCONT)
	write(t, kernelLog, "")
	write(t, config, "sample:\n  interval: 1s\n")
	signal(t, sources, syscall.SIGHUP)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	fabric.command(t, "switch 3 back")
	for _, f := range faults {
		f.node.command(t, f.repair...)
	}
	eventually(t, "all alerts end", func() bool { return len(firing()) == 0 })
	for name, reason := range untriggered {
		t.Logf("not triggered: %s: %s", name, reason)
	}
}

// without returns the keys of seen that are not wanted.
func without(seen map[string]alert, want map[string]string) (keys []string) {
	for key := range seen {
		if _, ok := want[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func uuid(t *testing.T, n *node, gpu int) string {
	t.Helper()
	truth, err := n.sim.Truth(t.Context(), gpu)
	if err != nil {
		t.Fatal(err)
	}
	return truth.UUID
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func signal(t *testing.T, n *node, s syscall.Signal) {
	t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// startAlertmanager returns the URL of an Alertmanager with the example's configuration.
func startAlertmanager(t *testing.T) string {
	t.Helper()
	example, err := filepath.Abs("../examples/alertmanager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	start(t, nil, "http://"+address, "/-/ready", built(t, "tools", "alertmanager"), "--config.file="+example,
		"--storage.path="+t.TempDir(), "--web.listen-address="+address, "--cluster.listen-address=")
	return "http://" + address
}

// startPrometheus starts a Prometheus with the scaled alerts. The label instance is the node's
// name, as in the example.
func startPrometheus(t *testing.T, manager string, nodes []*node) {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	write(t, filepath.Join(dir, "alerts.yaml"), string(scaledAlerts(t, *factor)))
	var config strings.Builder
	fmt.Fprintf(&config, `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [alerts.yaml]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
  - job_name: gpu_exporter
    honor_labels: true
    static_configs:
`, strings.TrimPrefix(manager, "http://"))
	for _, n := range nodes {
		fmt.Fprintf(&config, "      - {targets: [%q], labels: {instance: %q}}\n", n.address, n.name)
	}
	write(t, filepath.Join(dir, "prometheus.yml"), config.String())
	start(t, nil, "http://"+address, "/-/ready", built(t, "tools", "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--rules.alert.resend-delay=1s")
}
