// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strconv"
	"time"
)

// compatibility is the table of the flags and variables of dcgm-exporter 4.5.3-4.8.2 to
// 4.8.4. Most of them set a flag of ours.
func compatibility() []*setting {
	const always = "GPUs that come and go are always detected within one interval"
	const retention = "DCGM keeps samples for as long as it takes to read them"
	listed := target{kind: repeatable}
	return []*setting{
		{name: "collectors", aliases: "f", env: "DCGM_EXPORTER_COLLECTORS", means: "counters.file"},
		{name: "configmap-data", aliases: "m", env: "DCGM_EXPORTER_CONFIGMAP_DATA", means: "counters.config-map", convert: renamed("none", "")},
		{name: "collect-interval", aliases: "c", env: "DCGM_EXPORTER_INTERVAL", means: "sample.interval", convert: milliseconds},
		{name: "devices", aliases: "d", env: "DCGM_EXPORTER_DEVICES_STR", means: "devices.gpus"},
		{name: "switch-devices", aliases: "s", env: "DCGM_EXPORTER_OTHER_DEVICES_STR", means: "devices.switches"},
		{name: "cpu-devices", aliases: "p", env: "DCGM_EXPORTER_CPU_DEVICES_STR", means: "devices.cpus"},
		{name: "remote-hostengine-info", aliases: "r", env: "DCGM_REMOTE_HOSTENGINE_INFO", means: "dcgm.hostengine"},
		{name: "enable-dcgm-log", env: "DCGM_EXPORTER_ENABLE_DCGM_LOG", means: "dcgm.log"},
		{name: "dcgm-log-level", env: "DCGM_EXPORTER_DCGM_LOG_LEVEL", means: "dcgm.log-level"},
		{name: "xid-count-window-size", aliases: "x", env: "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE", means: "xid.window", convert: milliseconds},
		{name: "clock-events-count-window-size", env: "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE", means: "clock-events.window", convert: milliseconds},
		{name: "no-hostname", aliases: "n", env: "DCGM_EXPORTER_NO_HOSTNAME", means: "label.hostname=" + noLabel, target: target{kind: toggle}},
		{name: "use-old-namespace", aliases: "o", env: "DCGM_EXPORTER_USE_OLD_NAMESPACE", means: "label.old-names"},
		{name: "replace-blanks-in-model-name", aliases: "rbmn", env: "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", means: "label.replace-blanks"},
		{name: "kubernetes", aliases: "k", env: "DCGM_EXPORTER_KUBERNETES", means: "kubernetes.enabled"},
		{name: "kubernetes-gpu-id-type", env: "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", means: "kubernetes.gpu-id-type"},
		{name: "pod-resources-kubelet-socket", env: "DCGM_POD_RESOURCES_KUBELET_SOCKET", means: "kubernetes.pod-resources-socket"},
		{name: "nvidia-resource-names", env: "NVIDIA_RESOURCE_NAMES", means: "kubernetes.resource-names", target: listed},
		{name: "kubernetes-virtual-gpus", env: "KUBERNETES_VIRTUAL_GPUS", means: "kubernetes.repeat-shared"},
		{name: "kubernetes-enable-dra", env: "KUBERNETES_ENABLE_DRA", means: "kubernetes.dra"},
		{name: "kubernetes-enable-pod-labels", env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", means: "kubernetes.pod-labels"},
		{name: "kubernetes-pod-label-allowlist-regex", env: "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX", means: "kubernetes.pod-label-allowlist", target: listed},
		{name: "kubernetes-enable-pod-uid", env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", means: "kubernetes.pod-uid"},
		{env: "NODE_NAME", means: "kubernetes.node-name"},
		{name: "hpc-job-mapping-dir", env: "DCGM_HPC_JOB_MAPPING_DIR", means: "jobs.directory"},
		{name: "container-runtime-socket", env: "DCGM_CONTAINER_RUNTIME_SOCKET", means: "docker.socket"},
		{name: "address", aliases: "a", env: "DCGM_EXPORTER_LISTEN", means: "web.listen-address"},
		{name: "web-systemd-socket", env: "DCGM_EXPORTER_SYSTEMD_SOCKET", means: "web.systemd-socket"},
		{name: "web-config-file", env: "DCGM_EXPORTER_WEB_CONFIG_FILE", means: "web.config.file"},
		{name: "max-concurrent-scrapes", env: "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES", means: "web.max-requests"},
		{name: "enable-pprof", env: "DCGM_EXPORTER_ENABLE_PPROF", means: "web.enable-pprof"},
		{name: "debug", env: "DCGM_EXPORTER_DEBUG", means: "log.level=debug", target: target{kind: toggle}},
		{name: "log-format", env: "DCGM_EXPORTER_LOG_FORMAT", means: "log.format", convert: renamed("text", "logfmt")},

		{name: "disable-startup-validate", env: "DISABLE_STARTUP_VALIDATE", def: "true", target: boolean(new(bool)), inert: "the exporter starts without libdcgm, too, and retries"},
		{name: "enable-gpu-bind-unbind-watch", env: "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH", def: "true", target: boolean(new(bool)), inert: always},
		{name: "gpu-bind-unbind-poll-interval", env: "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL", def: "1s", target: duration(new(time.Duration), 0, day), convert: milliseconds, inert: always},
		{name: "watch-max-keep-age", env: "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE", def: "10m", target: duration(new(time.Duration), 0, 7*day), convert: milliseconds, inert: retention},
		{name: "watch-max-keep-samples", env: "DCGM_EXPORTER_WATCH_MAX_KEEP_SAMPLES", def: "0", target: number(new(int), 0, 1<<31-1), inert: retention},
		{name: "web-read-timeout", env: "DCGM_EXPORTER_WEB_READ_TIMEOUT", def: HTTPReadTimeout.String(), target: duration(new(time.Duration), 0, day), convert: milliseconds, inert: fmt.Sprintf("a request must arrive within %v", HTTPReadTimeout)},
		{name: "web-write-timeout", env: "DCGM_EXPORTER_WEB_WRITE_TIMEOUT", def: HTTPWriteTimeout.String(), target: duration(new(time.Duration), 0, day), convert: milliseconds, inert: fmt.Sprintf("a client must read the response within %v", HTTPWriteTimeout)},
		{name: "enable-exporter-metrics", env: "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS", def: "true", target: boolean(new(bool)), inert: "metrics of the exporter itself are always served"},

		{name: "config-file", env: "DCGM_EXPORTER_CONFIG_FILE", target: optional(new(string)), instead: "write its settings in the form of etc/gpu_exporter.yaml, and pass that file with --config.file"},
		{name: "container-labels", env: "DCGM_EXPORTER_CONTAINER_LABELS", target: boolean(new(bool)), instead: "use --docker.socket, and join gpu_container_info, which has the names of containers"},
		{name: "health-require-gpus", env: "DCGM_EXPORTER_HEALTH_REQUIRE_GPUS", target: boolean(new(bool)), instead: "/health reports that the exporter answers: point the probe at /-/ready, and alert on absent(gpu_up)"},
		{name: "fake-gpus", env: "DCGM_EXPORTER_USE_FAKE_GPUS", target: boolean(new(bool)), instead: "use --simulate"},
		{name: "dump-enabled", env: "DCGM_EXPORTER_DUMP_ENABLED", target: boolean(new(bool)), instead: "remove it"},
		{name: "dump-directory", env: "DCGM_EXPORTER_DUMP_DIRECTORY", def: "/tmp/dcgm-exporter-debug", target: optional(new(string)), instead: "remove it"},
		{name: "dump-retention", env: "DCGM_EXPORTER_DUMP_RETENTION", def: "24", target: optional(new(string)), instead: "remove it"},
		{name: "dump-compression", env: "DCGM_EXPORTER_DUMP_COMPRESSION", def: "true", target: boolean(new(bool)), instead: "remove it"},
	}
}

// milliseconds adds the unit of dcgm-exporter's bare numbers.
func milliseconds(s string) string {
	if _, err := strconv.ParseUint(s, 10, 64); err == nil {
		return s + "ms"
	}
	return s
}

// renamed converts a value that dcgm-exporter names differently.
func renamed(from, to string) func(string) string {
	return func(s string) string {
		if s == from {
			return to
		}
		return s
	}
}
