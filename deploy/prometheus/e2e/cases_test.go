// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/podmapper/kubelettest"
)

// gpu is the labels of the GPU with DCGM's id n, which has the default model.
func gpu(n int) map[string]string { return gpuOf(n, "NVIDIA H100 80GB HBM3") }

func gpuOf(n int, model string) map[string]string {
	return map[string]string{"gpu": fmt.Sprint(n), "modelName": model}
}

// with adds a label.
func with(labels map[string]string, name, value string) map[string]string {
	labels[name] = value
	return labels
}

// cases: the slow ones first, because cases run in parallel.
var cases = []faultCase{
	{
		name:   "idle owner",
		inject: commands("load gpu 0 idle"),
		end:    commands("load gpu 0 steady"),
		want: []wanted{{alert: "GPUHeldIdle", labels: with(with(gpu(0), "pod", "train"), "namespace", "ml"),
			summary: `is held, but has been idle for an hour: busy during 0% of`, action: "Ask the owner"}},
	},
	{
		name: "driver drift",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			other := startNode(t, e.hostname+"-b", "seed 77\ndriver 560.35.03\ngpu h100 count 1\nload gpu all steady\n", "--xid.kernel-log=off")
			e.other = other
			e.m.target(t, e.cluster+"-b", other.Address, map[string]string{"cluster": e.cluster, "instance": other.hostname + ":9400"})
		},
		end: func(t *testing.T, e *env) { t.Helper(); e.other.Stop(t); e.m.untarget(e.cluster + "-b") },
		want: []wanted{{alert: "GPUVersionDrift", labels: map[string]string{"component": "driver", "modelName": "NVIDIA H100 80GB HBM3"},
			summary: `^2 versions of driver are in use for NVIDIA H100 80GB HBM3 in cluster driver-drift\.$`}},
	},
	{
		name:   "VBIOS drift",
		node:   "model updated like h100\nmodel updated vbios 96.00.74.00.01\ngpu h100\ngpu updated",
		inject: func(t *testing.T, e *env) { t.Helper(); e.replace(t, "96.00.74.00.01", "96.00.89.00.01") },
		end:    func(t *testing.T, e *env) { t.Helper(); e.replace(t, "96.00.89.00.01", "96.00.74.00.01") },
		want: []wanted{{alert: "GPUVersionDrift", labels: map[string]string{"component": "vbios", "modelName": "NVIDIA H100 80GB HBM3"},
			summary: `^2 versions of vbios are in use for NVIDIA H100 80GB HBM3 in cluster VBIOS-drift\.$`}},
	},
	{
		name:   "pods wait for a free GPU",
		inject: waitingPods,
		end:    func(_ *testing.T, e *env) { e.m.untarget(e.cluster + "-b") },
		want:   []wanted{{alert: "GPUFreeWhilePodsWait", summary: `^1 GPUs or GPU instances are free in cluster pods-wait-for-a-free-GPU while pods wait`}},
	},
	{
		name: "XID repeats",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			for range 6 {
				e.xid(t, "94")
			}
		},
		want: []wanted{
			{alert: "GPUXIDRepeated", labels: with(gpu(0), "xid", "94"), summary: `^XID 94 \(ROBUST_CHANNEL_CONTAINED_ERROR\) occurred again [45] times within a day on GPU 0`},
			{alert: "GPUXIDWarning", labels: with(gpu(0), "xid", "94"), inhibited: true},
		},
	},
	{
		name: "XID 31",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			e.xid(t, "31") // harmless
			e.m.eventually(t, fmt.Sprintf(`count_over_time(gpu_xid_code_last_timestamp_seconds{cluster=%q, xid="31"}[5m]) > 15`, e.cluster))
			if alerts := e.m.alerts(t, e.cluster, true); len(alerts) > 0 {
				t.Errorf("a single XID of an application caused %v", alerts)
			}
			e.xid(t, "31")
			e.xid(t, "31")
		},
		want: []wanted{{alert: "GPUApplicationXIDRepeated", labels: with(gpu(0), "xid", "31"),
			summary: `^XID 31 occurred again [23] times within a day on no GPU of the node but GPU 0`, action: "dcgmi diag"}},
	},
	{
		name:   "uncorrectable ECC error",
		inject: commands("ecc gpu 0 dbe 3"),
		want: []wanted{{alert: "GPUECCUncorrectable", labels: gpu(0),
			summary: `^About [34] uncorrectable ECC errors within an hour on GPU 0`, action: "Restart the affected jobs"}},
	},
	{
		name:   "missing GPU", // of which the exporter knows nothing after its restart
		inject: func(t *testing.T, e *env) { t.Helper(); e.replace(t, "count 2", "count 1") },
		end:    func(t *testing.T, e *env) { t.Helper(); e.replace(t, "count 1", "count 2") },
		want:   []wanted{{alert: "GPUMissing", summary: `^Node node-missing-GPU has 1 GPUs, fewer than within the last hour\.$`, action: "power-cycle"}},
	},
	{
		name: "sampler crashes",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			e.Command(t, "crash dcgmEntitiesGetLatestValues")
			e.m.eventually(t, fmt.Sprintf(`sum(gpu_exporter_sampler_restarts_by_reason_total{cluster=%q}) > 4`, e.cluster))
			e.Command(t, "clear")
		},
		want: []wanted{{alert: "GPUSamplerRestarting", summary: `restarted its sampler about \d+ times within an hour\.$`}},
		may:  "GPUSamplerDown",
	},
	{
		name:   "sampler hang",
		inject: commands("hang *"),
		end:    commands("clear"),
		want: []wanted{
			{alert: "GPUSamplerDown", summary: `has no samples: the state of its GPUs is unknown\.$`, action: "hung driver"},
			{alert: "GPUSamplerRestarting", inhibited: true},
		},
	},
	{
		name: "sampler that cannot be reaped",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			e.trace(t)
			e.Command(t, "hang *")
		},
		end: func(t *testing.T, e *env) { t.Helper(); e.Command(t, "clear"); e.release() },
		want: []wanted{
			{alert: "GPUSamplerUnreapable", summary: `cannot end its sampler, which hangs in the driver\.$`, action: "reboot"},
			{alert: "GPUSamplerDown", inhibited: true},
		},
	},
	{
		name:   "wrong clock",
		inject: behind,
		end:    func(t *testing.T, e *env) { t.Helper(); e.m.target(t, e.cluster, e.Address, e.labels) },
		want:   []wanted{{alert: "GPUSampleStale", summary: `has a newest sample whose time differs by 1h 0m \d+s from Prometheus' clock\.$`, action: "clocks"}},
	},
	{
		name: "no library",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			library := filepath.Join(e.Sim.Libraries, "libdcgm.so.4")
			if err := os.Rename(library, library+".gone"); err != nil {
				t.Fatal(err)
			}
			e.Command(t, "crash dcgmEntitiesGetLatestValues")
		},
		end: func(t *testing.T, e *env) {
			t.Helper()
			e.Command(t, "clear")
			library := filepath.Join(e.Sim.Libraries, "libdcgm.so.4")
			if err := os.Rename(library+".gone", library); err != nil {
				t.Fatal(err)
			}
		},
		want: []wanted{
			{alert: "GPULibraryMissing", labels: map[string]string{"reason": "library_missing"}, summary: `cannot load DCGM's library: library_missing\.$`, action: "Install DCGM 4"},
			{alert: "GPUSamplerDown", inhibited: true},
			{alert: "GPUSamplerRestarting", inhibited: true},
		},
	},
	{
		name:   "exporter down",
		inject: func(t *testing.T, e *env) { t.Helper(); e.Stop(t) },
		end:    func(t *testing.T, e *env) { t.Helper(); e.restart(t, func() {}) },
		want:   []wanted{{alert: "GPUExporterDown", summary: `^The exporter of node node-exporter-down \(node-exporter-down:9400\) cannot be scraped`}},
	},
	{
		name:   "thermal slowdown",
		inject: commands("reason gpu 0 sw_thermal on"),
		end:    commands("reason gpu 0 sw_thermal auto"),
		want:   []wanted{{alert: "GPUThermalSlowdown", labels: gpu(0), summary: `^Heat reduced the clocks during [0-9.]+% of 15 minutes on GPU 0`, action: "Check fans"}},
	},
	{
		name:   "power brake",
		inject: commands("reason gpu 0 hw_power_brake on"),
		end:    commands("reason gpu 0 hw_power_brake auto"),
		want:   []wanted{{alert: "GPUPowerBrake", labels: gpu(0), summary: `^The power brake reduced the clocks during [0-9.]+% of 15 minutes on GPU 0`, action: "power supplies"}},
	},
	{
		name:   "hot GPU",
		inject: commands("heat gpu 0 60"),
		end:    commands("heat gpu 0 0"),
		want: []wanted{
			{alert: "GPUThermalMarginLow", labels: gpu(0), summary: `^The thermal margin is -\d+ °C on GPU 0`},
			{alert: "GPUThermalSlowdown", labels: gpu(0), inhibited: true},
		},
	},
	{
		name:   "hot GPU without a margin",
		node:   "gpu t4 count 2\nprofiling yes",
		inject: commands("heat gpu 0 60"),
		end:    commands("heat gpu 0 0"),
		want: []wanted{
			{alert: "GPUTemperatureHigh", labels: gpuOf(0, "Tesla T4"), summary: `^A temperature is \d+ °C on GPU 0`, action: "Check fans"},
			{alert: "GPUThermalSlowdown", labels: gpuOf(0, "Tesla T4"), inhibited: true},
		},
	},
	{
		name:   "stalled job",
		inject: commands("load gpu 0 util 100", "set field 156 value 1000000000 gpu 0"),
		end:    commands("unset field 156 gpu 0", "load gpu 0 steady"),
		want: []wanted{{alert: "GPUJobStalled", labels: with(with(gpu(0), "pod", "train"), "namespace", "ml"),
			summary: `is busy, but uses only [0-9.]+% of its power limit`}},
	},
	{
		name:   "NVLink down",
		inject: commands("link gpu 0 port 3 down", "link gpu 0 port 4 down"),
		end:    commands("link gpu 0 port 3 up", "link gpu 0 port 4 up"),
		want: []wanted{
			{alert: "GPUNVLinkDown", labels: gpu(0), inhibited: true},
			{alert: "GPUFabricFault", labels: with(gpu(0), "fault", "degraded_bandwidth"),
				summary: `^The NVLink fabric is in the state limited_capacity, fault degraded_bandwidth for GPU 0`},
		},
	},
	{
		name:   "NVLink down without a fabric",
		node:   "gpu a100-80 count 2\nprofiling yes",
		inject: commands("link gpu 0 port 3 down", "link gpu 0 port 4 down"),
		end:    commands("link gpu 0 port 3 up", "link gpu 0 port 4 up"),
		want: []wanted{{alert: "GPUNVLinkDown", labels: gpuOf(0, "NVIDIA A100-SXM4-80GB"),
			summary: `^2 NVLinks that were up are down on GPU 0`, action: "NVSwitch"}},
	},
	{
		name:   "NVLink errors",
		inject: commands("link gpu 0 port 3 error crc 5000"),
		want:   []wanted{{alert: "GPUNVLinkErrors", labels: gpu(0), summary: `^[0-9.]+ NVLink errors per second on GPU 0`}},
	},
	{
		name:   "PCIe replays",
		inject: commands("set field 202 value 5000 gpu 0"),
		want:   []wanted{{alert: "GPUPCIeReplays", labels: gpu(0), summary: `^[0-9.]+k? PCIe replays per minute on GPU 0`}},
	},
	{
		name:   "PCIe width",
		inject: commands("set field 238 value 8 gpu 0"),
		end:    commands("unset field 238 gpu 0"),
		want:   []wanted{{alert: "GPUPCIeWidthReduced", labels: gpu(0), summary: `^PCIe uses only 8 lanes under load on GPU 0`}},
	},
	{
		name:   "XID 79",
		inject: commands("xid 79 gpu 0"),
		end:    restartEngine(),
		want: []wanted{
			{alert: "GPUXIDCritical", labels: with(gpu(0), "xid", "79"),
				summary: `^XID 79 \(ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS\) [0-9.m ]+s ago on GPU 0`, action: "power-cycle it"},
			{alert: "GPUHealthCheckFailed", labels: map[string]string{"gpu": "0", "system": "device", "error": "FALLEN_OFF_BUS"}, inhibited: true},
		},
	},
	{
		name:   "XID 94",
		inject: commands("xid 94 gpu 0"),
		want: []wanted{{alert: "GPUXIDWarning", labels: with(gpu(0), "xid", "94"),
			summary: `^XID 94 \(ROBUST_CHANNEL_CONTAINED_ERROR\) [0-9.m ]+s ago on GPU 0`, action: "Restart the application"}},
	},
	{
		name:   "XID 95",
		inject: func(t *testing.T, e *env) { t.Helper(); e.xidWithHealth(t, "95") },
		end:    restartEngine(),
		want: []wanted{
			{alert: "GPUMemoryErrorUncontained", labels: with(gpu(0), "xid", "95"),
				summary: `^An uncontained memory error \(XID 95\) [0-9.m ]+s ago affects all processes on GPU 0`, action: "discard the results"},
			{alert: "GPUHealthCheckFailed", labels: map[string]string{"gpu": "0", "system": "device", "error": "UNCONTAINED_ERROR"}, inhibited: true},
		},
	},
	{
		name:   "lost GPU",
		inject: commands("xid 79 gpu 0", "lose gpu 0"),
		end:    restartEngine("return gpu 0"), // as when the node is power-cycled
		want: []wanted{
			{alert: "GPUDown", labels: gpu(0), summary: `^GPU 0 .* does not answer`, action: "power-cycle"},
			{alert: "GPUXIDCritical", labels: with(gpu(0), "xid", "79"), inhibited: true},
		},
	},
	{
		name:   "detached GPU",
		inject: commands("detach gpu 1"),
		end:    commands("attach gpu 1"),
		want:   []wanted{{alert: "GPUDown", labels: gpu(1), summary: `^GPU 1 .* does not answer`, action: "power-cycle"}},
	},
	{
		name:   "remap pending",
		inject: commands("remap gpu 0 pending 1"),
		end:    commands("remap gpu 0 pending 0"),
		want:   []wanted{{alert: "GPUMemoryRepairPending", labels: gpu(0), summary: `^A memory repair waits for a reset of GPU 0`, action: "Reset the GPU"}},
	},
	{
		name:   "remap failed",
		inject: commands("remap gpu 0 failure 1", "remap gpu 0 pending 1"),
		end:    commands("remap gpu 0 failure 0", "remap gpu 0 pending 0"),
		want: []wanted{
			{alert: "GPUMemoryUnrepairable", labels: gpu(0), summary: `on GPU 0`},
			{alert: "GPUMemorySpareRowsExhausted", labels: gpu(0), inhibited: true},
			{alert: "GPURowRemapFailed", labels: gpu(0), summary: `^A memory row could not be remapped on GPU 0`, action: "replacement"},
			{alert: "GPUMemoryRepairPending", labels: gpu(0), inhibited: true},
		},
	},
	{
		name:   "unrepairable memory",
		inject: commands("set field 1507 value 1 gpu 0"),
		end:    commands("unset field 1507 gpu 0"),
		want:   []wanted{{alert: "GPUMemoryUnrepairable", labels: gpu(0), summary: `^Memory has an error that cannot be repaired on GPU 0`, action: "replacement"}},
	},
	{
		name:   "SRAM threshold",
		inject: commands("set field 346 value 1 gpu 0"),
		end:    commands("unset field 346 gpu 0"),
		want:   []wanted{{alert: "GPUSRAMThresholdExceeded", labels: gpu(0), summary: `SRAM errors exceed .* on GPU 0`, action: "replacement"}},
	},
	{
		name:   "no spare rows",
		inject: commands("set field 389 value 2 gpu 0"),
		end:    commands("unset field 389 gpu 0"),
		want:   []wanted{{alert: "GPUMemorySpareRowsExhausted", labels: gpu(0), summary: `^2 memory banks have no spare rows on GPU 0`, action: "replacement"}},
	},
	{
		name:   "NVSwitch lost",
		node:   "gpu h100 count 2\nswitches 4",
		inject: commands("switch 0 lost"),
		end:    commands("switch 0 back"),
		want: []wanted{
			{alert: "GPUNVSwitchDown", labels: map[string]string{"nvswitch": "nvswitch0"}, summary: `^nvswitch0 on node node-NVSwitch-lost does not answer\.$`, action: "nvidia-fabricmanager"},
			{alert: "GPUNVLinkDown", labels: gpu(0), inhibited: true},
			{alert: "GPUNVLinkDown", labels: gpu(1), inhibited: true},
			{alert: "GPUFabricFault", inhibited: true},
		},
	},
	{
		name:   "fabric fault",
		inject: commands("fabric gpu 0 failure 15"),
		end:    commands("fabric gpu 0 success"),
		want: []wanted{{alert: "GPUFabricFault", labels: with(gpu(0), "state", "failure"),
			summary: `^The NVLink fabric is in the state failure, error 15 for GPU 0`, action: "nvidia-fabricmanager"}},
	},
	{
		name: "recovery actions",
		node: "gpu h100 count 7",
		inject: commands("recovery gpu 0 reset", "recovery gpu 1 reboot", "recovery gpu 2 drain-p2p", "recovery gpu 3 drain-and-reset",
			"set field 1523 value 5 gpu 4", "set field 1523 value 6 gpu 5", "set field 1523 value 7 gpu 6"),
		end: commands("recovery gpu 0 none", "recovery gpu 1 none", "recovery gpu 2 none", "recovery gpu 3 none",
			"unset field 1523 gpu 4", "unset field 1523 gpu 5", "unset field 1523 gpu 6"),
		want: recoveries("gpu_reset", "nvidia-smi --gpu-reset -i GPU-", "node_reboot", "reboot it", "drain_p2p", "peer-to-peer",
			"drain_and_reset", "Accept no new jobs", "recover_imex_domain", "IMEX", "bus_reset", "PCIe bus", "system_reboot", "whole system"),
	},
	{
		name:   "health check",
		inject: commands("health gpu 0 inforom fail"),
		end:    commands("health gpu 0 inforom pass"),
		want: []wanted{{alert: "GPUHealthCheckFailed", labels: map[string]string{"gpu": "0", "system": "inforom"},
			summary: `^DCGM's health check of inforom fails with \S+ on node node-health-check, GPU 0 \(GPU-`, action: "dcgmi diag"}},
	},
	{
		name:   "kubelet gone",
		inject: func(_ *testing.T, e *env) { e.kubelet.Stop() },
		end: func(t *testing.T, e *env) {
			t.Helper()
			if err := e.kubelet.Start(); err != nil {
				t.Fatal(err)
			}
		},
		want: []wanted{{alert: "GPUOwnerMappingFailing", labels: map[string]string{"source": "pod_resources"}, summary: `does not know all owners: the source pod_resources fails\.$`}},
	},
	{
		name: "unmatched device",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			e.kubelet.SetPods(kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", e.uuid(t, 0)),
				kubelettest.Pod("ml", "ghost", "main", "nvidia.com/gpu", "GPU-00000000-0000-0000-0000-000000000000"))
		},
		end: func(t *testing.T, e *env) {
			t.Helper()
			e.kubelet.SetPods(kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", e.uuid(t, 0)))
		},
		want: []wanted{{alert: "GPUOwnerMappingFailing", labels: map[string]string{"source": "pod_resources"}, summary: `pod_resources has 1 devices that match no GPU\.$`}},
	},
	{
		name: "kernel log gone",
		args: []string{"--xid.kernel-log=on"},
		inject: func(t *testing.T, e *env) {
			t.Helper()
			if err := errors.Join(os.Remove(e.kernelLog), os.Mkdir(e.kernelLog, 0o700)); err != nil {
				t.Fatal(err)
			}
		},
		end: func(t *testing.T, e *env) {
			t.Helper()
			if err := os.Remove(e.kernelLog); err != nil {
				t.Fatal(err)
			}
			write(t, e.kernelLog, "")
		},
		want: []wanted{{alert: "GPUKernelLogFailing", summary: `cannot read the kernel log, so XIDs may be missing\.$`, action: "CAP_SYSLOG"}},
	},
	{
		name:   "failed reload",
		inject: func(t *testing.T, e *env) { t.Helper(); write(t, e.config, "no such key: 1\n") },
		end:    func(t *testing.T, e *env) { t.Helper(); write(t, e.config, "{}\n") },
		want:   []wanted{{alert: "GPUExporterReloadFailed", summary: `rejected its new configuration, and uses the old one\.$`, action: "check-config"}},
	},
	{
		name:   "profiling locked",
		inject: commands("profiling gpu 0 locked"),
		end:    commands("profiling gpu 0 ok"),
		want:   []wanted{{alert: "GPUProfilingFailed", labels: gpu(0), summary: `^Profiling fields have no values \(locked\) for GPU 0`, action: "Nsight"}},
	},
	{
		name:   "persistence mode off",
		inject: commands("set field 66 value 0 gpu 0"),
		end:    commands("unset field 66 gpu 0"),
		want:   []wanted{{alert: "GPUPersistenceModeOff", labels: gpu(0), summary: `^Persistence mode is off for GPU 0`, action: "nvidia-persistenced"}},
	},
	{
		name:   "target labels",
		target: map[string]string{"namespace": "monitoring", "pod": "gpu-exporter-x"},
		end: func(t *testing.T, e *env) {
			t.Helper()
			e.m.target(t, e.cluster, e.Address, map[string]string{"cluster": e.cluster, "instance": e.hostname + ":9400"})
		},
		want: []wanted{{alert: "GPUScrapeMisconfigured", labels: map[string]string{"job": "gpu_exporter"}, summary: `^Labels of the scrape target replace the owners of 2 series of job gpu_exporter\.$`}},
	},
	{
		name: "healthy", // with MIG, NVSwitches, shared GPUs and programs that end
		node: "base h100x8-mig\nswitches 4",
		inject: func(t *testing.T, e *env) {
			t.Helper()
			e.kubelet.SetPods(kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", e.uuid(t, 6)),
				kubelettest.Pod("ml", "shared-a", "main", "nvidia.com/gpu.shared", e.uuid(t, 7)+"::0"),
				kubelettest.Pod("ml", "shared-b", "main", "nvidia.com/gpu.shared", e.uuid(t, 7)+"::1"))
			e.Command(t, "xid 43 gpu 6")
			e.Command(t, "ecc gpu 6 sbe 5")
			e.m.eventually(t, fmt.Sprintf(`count_over_time(gpu_pod_info{cluster=%q, pod="shared-b"}[5m]) > 30`, e.cluster))
		},
	},
}

// recoveries has an alert per GPU: the action and a part of its remedy.
func recoveries(pairs ...string) []wanted {
	var all []wanted
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, wanted{alert: "GPURecoveryActionRequested", labels: with(gpu(i/2), "action", pairs[i]),
			summary: "^The driver requests " + pairs[i] + " for GPU", action: pairs[i+1]})
	}
	return all
}

// waitingPods serves the metrics of kube-state-metrics about a pod that waits for a GPU.
func waitingPods(t *testing.T, e *env) {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, `kube_pod_status_unschedulable{namespace="ml",pod="waiting"} 1
kube_pod_container_resource_requests{namespace="ml",pod="waiting",container="main",resource="nvidia_com_gpu",unit="integer"} 1
`)
	}))
	t.Cleanup(page.Close)
	e.m.target(t, e.cluster+"-b", strings.TrimPrefix(page.URL, "http://"), map[string]string{"cluster": e.cluster, "job": "kube-state-metrics"})
}

// behind serves the page of a node whose clock is an hour behind that of Prometheus. The clock of
// the stand-in is the engine's, which the exporter corrects.
func behind(t *testing.T, e *env) {
	t.Helper()
	timestamp := regexp.MustCompile(`(?m)^(\w+_timestamp_seconds(?:\{.*\})?) (\S+)$`)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+e.Address+"/metrics", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		_, _ = io.WriteString(w, timestamp.ReplaceAllStringFunc(string(body), func(line string) string {
			m := timestamp.FindStringSubmatch(line)
			value, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return line // NaN of a time that is unknown
			}
			return fmt.Sprintf("%s %f", m[1], value-time.Hour.Seconds())
		}))
	}))
	t.Cleanup(page.Close)
	e.m.target(t, e.cluster, strings.TrimPrefix(page.URL, "http://"), e.labels)
}

// trace attaches to the sampler as a debugger does. The kernel reports the end of a traced process
// to its tracer, so that the exporter cannot reap it (ptrace(2)): it remains as if it were stuck in
// the driver.
func (e *env) trace(t *testing.T) {
	t.Helper()
	sampler := e.SamplerPID()
	attached, end := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the thread is the tracer, and its end releases the process
		attached <- syscall.PtraceAttach(sampler)
		<-end
	}()
	e.release = sync.OnceFunc(func() { close(end) })
	t.Cleanup(e.release)
	if err := <-attached; err != nil {
		t.Skipf("the sampler, process %d, cannot be traced: %v", sampler, err)
	}
}
