// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/etc"
)

// defaults is the configuration without flags and variables, and without the content of
// files.
func defaults() Config {
	families, err := definition.ParseSelection("default")
	if err != nil {
		panic(err)
	}
	return Config{
		Live: Live{
			CountersName: etc.DefaultCountersName,
			Families:     families,
			Interval:     5 * time.Second,
			MaxAge:       30 * time.Second,
			Resolution:   time.Second,
			Devices:      "f", Switches: "f", CPUs: "f",
			DCGMLogLevel:   "NONE",
			XIDWindow:      5 * time.Minute,
			ClockWindow:    5 * time.Minute,
			HealthInterval: 10 * time.Second,
			HostnameLabel:  "hostname",
		},
		Static: Static{
			KernelLog:       "auto",
			GPUIDType:       "uid",
			KubeletSocket:   "/var/lib/kubelet/pod-resources/kubelet.sock",
			PodUsage:        true,
			PodLabelsForm:   "series",
			MetadataSource:  "auto",
			PodsSocket:      "/var/lib/kubelet/pods-api/pods-api.sock",
			Slurm:           "auto",
			PodLogs:         "/var/log/pods",
			ProcFS:          "/proc",
			CgroupFS:        "/sys/fs/cgroup",
			ListenAddresses: []string{":9400"},
			MaxRequests:     40,
			StatusPage:      true,
			LogLevel:        "info",
			LogFormat:       "logfmt",
		},
	}
}

// settings returns a configuration without the content of files.
func settings(c Config) Config {
	c.Counters, c.XIDs, c.Web = nil, nil, WebConfig{}
	c.countersFiles, c.xidCatalogue, c.linkBase = nil, "", ""
	c.dcgmLog, c.healthCheck = false, false
	return c
}

func parse(t *testing.T, args, environ []string) (CommandLine, error) {
	t.Helper()
	var stdout bytes.Buffer
	line, err := Parse(args, environ, &stdout, nil)
	if stdout.Len() > 0 {
		t.Errorf("printed %s", &stdout)
	}
	return line, err
}

func TestFlagsAndVariables(t *testing.T) {
	tests := []struct {
		args    string // separated by blanks
		env     string // separated by blanks
		want    func(*Config)
		warning string
	}{
		{want: func(*Config) {}},

		{args: "--collectors a.csv", want: func(c *Config) { c.CountersName, c.Files = "a.csv", []string{"a.csv"} }},
		{args: "-collectors a.csv", want: func(c *Config) { c.CountersName, c.Files = "a.csv", []string{"a.csv"} }},
		{args: "-f a.csv", want: func(c *Config) { c.CountersName, c.Files = "a.csv", []string{"a.csv"} }},
		{env: "DCGM_EXPORTER_COLLECTORS=a.csv", want: func(c *Config) { c.CountersName, c.Files = "a.csv", []string{"a.csv"} }},
		{args: "-f b.csv", env: "DCGM_EXPORTER_COLLECTORS=a.csv", want: func(c *Config) { c.CountersName, c.Files = "b.csv", []string{"b.csv"} }},
		{env: "DCGM_EXPORTER_COLLECTORS=", want: func(*Config) {}},

		{args: "--collect-interval 30000", want: func(c *Config) { c.Interval, c.MaxAge = 30*time.Second, 90*time.Second }},
		{args: "-c 10000", want: func(c *Config) { c.Interval = 10 * time.Second }},
		{args: "-c 20s", want: func(c *Config) { c.Interval, c.MaxAge = 20*time.Second, time.Minute }},
		{args: "-c 1500ms", want: func(c *Config) { c.Interval = 1500 * time.Millisecond }},
		{args: "-c 1.5s", want: func(c *Config) { c.Interval = 1500 * time.Millisecond }},
		{args: "-c 1d", want: func(c *Config) { c.Interval, c.MaxAge = 24*time.Hour, 72*time.Hour }},
		{env: "DCGM_EXPORTER_INTERVAL=1000", want: func(c *Config) { c.Interval = time.Second }},
		{env: "DCGM_EXPORTER_INTERVAL=", want: func(*Config) {}},
		{args: "-c 100", want: func(c *Config) { c.Interval = 100 * time.Millisecond },
			warning: "--collect-interval: 100ms is shorter than 1s"},
		{env: "DCGM_EXPORTER_INTERVAL=999", want: func(c *Config) { c.Interval = 999 * time.Millisecond },
			warning: "DCGM_EXPORTER_INTERVAL: 999ms is shorter than 1s"},

		{args: "--devices g:0,2-4+i:1", want: func(c *Config) { c.Devices = "g:0,2-4+i:1" }},
		{args: "-d g", want: func(c *Config) { c.Devices = "g" }},
		{args: "-s g:1,2", want: func(c *Config) { c.Switches = "g:1,2" }},
		{env: "DCGM_EXPORTER_OTHER_DEVICES_STR=i", want: func(c *Config) { c.Switches = "i" }},
		{args: "--cpu-devices=g", want: func(c *Config) { c.CPUs = "g" }},
		{env: "DCGM_EXPORTER_CPU_DEVICES_STR=i:0-71", want: func(c *Config) { c.CPUs = "i:0-71" }},
		{args: "--label.nvlink-index=one-based", want: func(c *Config) { c.LinksFromOne = true }},
		{env: "DCGM_EXPORTER_DEVICES_STR=i:0-6", want: func(c *Config) { c.Devices = "i:0-6" }},

		{args: "--remote-hostengine-info localhost:5555", want: func(c *Config) { c.Hostengine = "localhost:5555" }},
		{args: "-r node:5555", want: func(c *Config) { c.Hostengine = "node:5555" }},
		{args: "-r unix:///run/dcgm.sock", want: func(c *Config) { c.Hostengine = "unix:///run/dcgm.sock" }},
		{env: "DCGM_REMOTE_HOSTENGINE_INFO=[::1]:5555", want: func(c *Config) { c.Hostengine = "[::1]:5555" }},
		{env: "DCGM_REMOTE_HOSTENGINE_INFO=", want: func(*Config) {}},

		{args: "--kubernetes", want: func(c *Config) { c.Kubernetes = true }},
		{args: "-k", want: func(c *Config) { c.Kubernetes = true }},
		{args: "-k=true", want: func(c *Config) { c.Kubernetes = true }},
		{env: "DCGM_EXPORTER_KUBERNETES=true", want: func(c *Config) { c.Kubernetes = true }},
		{env: "DCGM_EXPORTER_KUBERNETES=1", want: func(c *Config) { c.Kubernetes = true }},
		{env: "DCGM_EXPORTER_KUBERNETES=false", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_KUBERNETES=", want: func(*Config) {}},
		{args: "-k=false", env: "DCGM_EXPORTER_KUBERNETES=true", want: func(*Config) {}},
		{args: "--no-kubernetes", env: "DCGM_EXPORTER_KUBERNETES=true", want: func(*Config) {}},

		{args: "--kubernetes-gpu-id-type device-name", want: func(c *Config) { c.GPUIDType = "device-name" }},
		{env: "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE=device-name", want: func(c *Config) { c.GPUIDType = "device-name" }},
		{args: "--pod-resources-kubelet-socket /run/k.sock", want: func(c *Config) { c.KubeletSocket = "/run/k.sock" }},
		{env: "DCGM_POD_RESOURCES_KUBELET_SOCKET=/run/k.sock", want: func(c *Config) { c.KubeletSocket = "/run/k.sock" }},
		{args: "--nvidia-resource-names nvidia.com/a100,nvidia.com/a10 --nvidia-resource-names=x/y",
			want: func(c *Config) { c.ResourceNames = []string{"nvidia.com/a100", "nvidia.com/a10", "x/y"} }},
		{env: "NVIDIA_RESOURCE_NAMES=nvidia.com/a100,,nvidia.com/a10,nvidia.com/a100",
			want: func(c *Config) { c.ResourceNames = []string{"nvidia.com/a100", "nvidia.com/a10"} }},
		{args: "--nvidia-resource-names a/b", env: "NVIDIA_RESOURCE_NAMES=c/d", want: func(c *Config) { c.ResourceNames = []string{"a/b"} }},

		{args: "-k --kubernetes-virtual-gpus", want: func(c *Config) { c.Kubernetes, c.VirtualGPUs = true, true }},
		{env: "DCGM_EXPORTER_KUBERNETES=1 KUBERNETES_VIRTUAL_GPUS=true", want: func(c *Config) { c.Kubernetes, c.VirtualGPUs = true, true }},
		{args: "--kubernetes-virtual-gpus", want: func(c *Config) { c.VirtualGPUs = true },
			warning: "--kubernetes-virtual-gpus: no effect without --kubernetes.enabled"},
		{args: "-k --kubernetes-enable-dra", want: func(c *Config) { c.Kubernetes, c.DRA = true, true }},
		{args: "-k", env: "KUBERNETES_ENABLE_DRA=true", want: func(c *Config) { c.Kubernetes, c.DRA = true, true }},
		{args: "-k --kubernetes-enable-pod-labels --kubernetes-pod-label-allowlist-regex ^team$,^app",
			want: func(c *Config) { c.Kubernetes, c.PodLabels, c.LabelAllow = true, true, []string{"^team$", "^app"} }},
		{args: "-k", env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS=true DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX=^team$,^app",
			want: func(c *Config) { c.Kubernetes, c.PodLabels, c.LabelAllow = true, true, []string{"^team$", "^app"} }},
		{args: "-k --kubernetes-enable-pod-uid", want: func(c *Config) { c.Kubernetes, c.PodUID = true, true }},
		{args: "-k", env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID=true", want: func(c *Config) { c.Kubernetes, c.PodUID = true, true }},
		{args: "-k --kubernetes.pod-annotation-allowlist a{1,2} --kubernetes.pod-annotation-allowlist b",
			want: func(c *Config) { c.Kubernetes, c.AnnotationAllow = true, []string{"a{1,2}", "b"} }},
		{args: "-k --kubernetes-enable-pod-labels --kubernetes.pod-labels-form=family --kubernetes.workload",
			want: func(c *Config) { c.Kubernetes, c.PodLabels, c.PodLabelsForm, c.Workload = true, true, "family", true }},
		{args: "-k --kubernetes.pod-labels-form=family", want: func(c *Config) { c.Kubernetes, c.PodLabelsForm = true, "family" },
			warning: "--kubernetes.pod-labels-form: no effect without --kubernetes.pod-labels or"},
		{args: "-k --kubernetes-pod-label-allowlist-regex=x", want: func(c *Config) { c.Kubernetes, c.LabelAllow = true, []string{"x"} },
			warning: "--kubernetes-pod-label-allowlist-regex: no effect without --kubernetes.pod-labels"},
		{args: "-k", env: "KUBERNETES_SERVICE_HOST=10.96.0.1", want: func(c *Config) { c.Kubernetes = true },
			warning: "NODE_NAME is not set"},
		{args: "-k", env: "KUBERNETES_SERVICE_HOST=10.96.0.1 NODE_NAME=a", want: func(c *Config) { c.Kubernetes, c.NodeName = true, "a" }},
		{args: "-k --kubernetes.metadata-source=api-server --kubernetes.kubeconfig=k", want: func(c *Config) { c.Kubernetes, c.MetadataSource, c.Kubeconfig = true, "api-server", "k" }},
		{args: "-k --kubernetes.pods-socket=/p.sock --no-kubernetes.pod-usage", want: func(c *Config) { c.Kubernetes, c.PodsSocket, c.PodUsage = true, "/p.sock", false }},
		{args: "--kubernetes.node-name a", env: "NODE_NAME=b", want: func(c *Config) { c.NodeName = "a" }, warning: "--kubernetes.node-name wins over NODE_NAME, which is the same setting: remove one of them"},
		{env: "NODE_NAME=b", want: func(c *Config) { c.NodeName = "b" }},
		{args: "--hpc-job-mapping-dir /jobs", want: func(c *Config) { c.HPCDir = "/jobs" }},
		{env: "DCGM_HPC_JOB_MAPPING_DIR=/jobs", want: func(c *Config) { c.HPCDir = "/jobs" }},
		{args: "--slurm.jobs=on --path.procfs=/host/proc --path.cgroupfs=/host/cgroup", want: func(c *Config) { c.Slurm, c.ProcFS, c.CgroupFS = "on", "/host/proc", "/host/cgroup" }},
		{args: "--docker.socket=/d.sock --docker.label-allowlist=^org", want: func(c *Config) { c.DockerSocket, c.DockerLabels = "/d.sock", []string{"^org"} }},

		{args: "--use-old-namespace", want: func(c *Config) { c.UseOldNamespace = true }},
		{args: "-o", want: func(c *Config) { c.UseOldNamespace = true }},
		{env: "DCGM_EXPORTER_USE_OLD_NAMESPACE=true", want: func(c *Config) { c.UseOldNamespace = true }},
		{args: "--no-hostname", want: func(c *Config) { c.HostnameLabel = "" }},
		{args: "-n", want: func(c *Config) { c.HostnameLabel = "" }},
		{args: "--no-hostname=false", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_NO_HOSTNAME=true", want: func(c *Config) { c.HostnameLabel = "" }},
		{args: "--label.hostname=Hostname", want: func(c *Config) { c.HostnameLabel = "Hostname" }},
		{args: "--replace-blanks-in-model-name", want: func(c *Config) { c.ReplaceBlanks = true }},
		{args: "-rbmn", want: func(c *Config) { c.ReplaceBlanks = true }},
		{args: "--rbmn", want: func(c *Config) { c.ReplaceBlanks = true }},
		{env: "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME=true", want: func(c *Config) { c.ReplaceBlanks = true }},

		{args: "--web.listen-address=:1 --web.listen-address=[::1]:2", want: func(c *Config) { c.ListenAddresses = []string{":1", "[::1]:2"} }},
		{args: "--web.listen-address=vsock://:9400", want: func(c *Config) { c.ListenAddresses = []string{"vsock://:9400"} }},
		{args: "--address :9500", want: func(c *Config) { c.ListenAddresses = []string{":9500"} }},
		{args: "-a 127.0.0.1:9500", want: func(c *Config) { c.ListenAddresses = []string{"127.0.0.1:9500"} }},
		{env: "DCGM_EXPORTER_LISTEN=:9500", want: func(c *Config) { c.ListenAddresses = []string{":9500"} }},
		{env: "DCGM_EXPORTER_LISTEN=", want: func(*Config) {}},
		{args: "--web.listen-address=:1", env: "DCGM_EXPORTER_LISTEN=:2", want: func(c *Config) { c.ListenAddresses = []string{":1"} }, warning: "--web.listen-address wins over DCGM_EXPORTER_LISTEN, which is the same setting: remove one of them"},
		{args: "-a :1", env: "DCGM_EXPORTER_LISTEN=:2", want: func(c *Config) { c.ListenAddresses = []string{":1"} }},
		{args: "--web.config.file=web.yml", want: func(c *Config) { c.WebConfigFile, c.Files = "web.yml", []string{"web.yml"} }},
		{args: "--web-config-file web.yml", want: func(c *Config) { c.WebConfigFile, c.Files = "web.yml", []string{"web.yml"} }},
		{args: "--web-config-file=", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_WEB_CONFIG_FILE=web.yml", want: func(c *Config) { c.WebConfigFile, c.Files = "web.yml", []string{"web.yml"} }},
		{args: "--web.config.file=a.yml", env: "DCGM_EXPORTER_WEB_CONFIG_FILE=b.yml", want: func(c *Config) { c.WebConfigFile, c.Files = "a.yml", []string{"a.yml"} }, warning: "--web.config.file wins over DCGM_EXPORTER_WEB_CONFIG_FILE, which is the same setting: remove one of them"},
		{args: "--web.systemd-socket", want: func(c *Config) { c.SystemdSocket = true }},
		{args: "--web-systemd-socket", want: func(c *Config) { c.SystemdSocket = true }},
		{env: "DCGM_EXPORTER_SYSTEMD_SOCKET=true", want: func(c *Config) { c.SystemdSocket = true }},
		{args: "--web.systemd-socket=false", env: "DCGM_EXPORTER_SYSTEMD_SOCKET=true", want: func(*Config) {}, warning: "--web.systemd-socket wins over DCGM_EXPORTER_SYSTEMD_SOCKET, which is the same setting: remove one of them"},
		{args: "--web.max-requests=3", want: func(c *Config) { c.MaxRequests = 3 }},
		{args: "--enable-pprof", warning: "restrict access with --web.config.file", want: func(c *Config) { c.Pprof = true }},
		{env: "DCGM_EXPORTER_ENABLE_PPROF=true", warning: "restrict access with --web.config.file", want: func(c *Config) { c.Pprof = true }},

		{args: "--debug", want: func(c *Config) { c.LogLevel = "debug" }},
		{env: "DCGM_EXPORTER_DEBUG=true", want: func(c *Config) { c.LogLevel = "debug" }},
		{args: "--log.level=warn", want: func(c *Config) { c.LogLevel = "warn" }},
		{args: "--log.level=warn", env: "DCGM_EXPORTER_DEBUG=true", want: func(c *Config) { c.LogLevel = "warn" }, warning: "--log.level wins over DCGM_EXPORTER_DEBUG, which is the same setting: remove one of them"},
		{args: "--debug=false --log.level=debug", want: func(c *Config) { c.LogLevel = "debug" }},
		{args: "--log.format=json", want: func(c *Config) { c.LogFormat = "json" }},
		{args: "--log-format=json", want: func(c *Config) { c.LogFormat = "json" }},
		{args: "--log-format=text", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_LOG_FORMAT=json", want: func(c *Config) { c.LogFormat = "json" }},
		{args: "--log.format=logfmt", env: "DCGM_EXPORTER_LOG_FORMAT=json", want: func(*Config) {}, warning: "--log.format wins over DCGM_EXPORTER_LOG_FORMAT, which is the same setting: remove one of them"},
		{args: "--enable-dcgm-log --dcgm-log-level=DEBUG", want: func(c *Config) { c.DCGMLogLevel = "DEBUG" }},
		{args: "--dcgm-log-level=DEBUG", want: func(*Config) {}, warning: "--dcgm-log-level: no effect without --dcgm.log"},
		{env: "DCGM_EXPORTER_DCGM_LOG_LEVEL=NONE", want: func(*Config) {}},
		{args: "--dcgm.log", want: func(c *Config) { c.DCGMLogLevel = "ERROR" }},
		{env: "DCGM_EXPORTER_ENABLE_DCGM_LOG=true DCGM_EXPORTER_DCGM_LOG_LEVEL=WARN", want: func(c *Config) { c.DCGMLogLevel = "WARN" }},

		{args: "--disable-startup-validate", want: func(*Config) {}},
		{env: "DISABLE_STARTUP_VALIDATE=false", want: func(*Config) {},
			warning: "DISABLE_STARTUP_VALIDATE: no effect: the exporter starts without libdcgm, too"},
		{args: "--simulate=h100x8", want: func(c *Config) { c.Simulate, c.ListenAddresses = "h100x8", []string{"127.0.0.1:9400"} }},
		{args: "--simulate=h100x8 --web.listen-address=:9400", want: func(c *Config) { c.Simulate = "h100x8" }},
		{args: "--simulate=h100x8", env: "DCGM_EXPORTER_LISTEN=:1", want: func(c *Config) { c.Simulate, c.ListenAddresses = "h100x8", []string{":1"} }},
		{args: "--dcgm.library-path=/opt/dcgm", want: func(c *Config) { c.LibraryPath = "/opt/dcgm" }},
		{args: "--sample.resolution=200ms --sample.histograms", want: func(c *Config) { c.Resolution, c.Histograms = 200*time.Millisecond, true }},
		{args: "--sample.max-age=2m", want: func(c *Config) { c.MaxAge = 2 * time.Minute }},
		{args: "--xid.kernel-log=on --path.kmsg=/host/dev/kmsg", want: func(c *Config) { c.KernelLog, c.KMsg = "on", "/host/dev/kmsg" }},
		{args: "--xid.kernel-log=off --path.kmsg=/dev/kmsg", want: func(c *Config) { c.KernelLog, c.KMsg = "off", "/dev/kmsg" },
			warning: "--path.kmsg: no effect"},
		{args: "--xid.catalogue=xids.csv", want: func(c *Config) { c.Files = []string{"xids.csv"} }},
		{args: "--clock-events-count-window-size=60000", want: func(c *Config) { c.ClockWindow = time.Minute }},
		{env: "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE=600000", want: func(c *Config) { c.ClockWindow = 10 * time.Minute }},
		{args: "--health.interval=1m", want: func(c *Config) { c.HealthInterval = time.Minute }},
		{args: "--no-health.enabled", want: func(c *Config) { c.HealthInterval = 0 }},
		{args: "-x 600000", want: func(c *Config) { c.XIDWindow = 10 * time.Minute }},
		{env: "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE=60000", want: func(c *Config) { c.XIDWindow = time.Minute }},
		{args: "--enable-gpu-bind-unbind-watch", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH=true", want: func(*Config) {}},
		{args: "--enable-gpu-bind-unbind-watch=false", want: func(*Config) {},
			warning: "--enable-gpu-bind-unbind-watch: no effect: GPUs that come and go are always detected"},
		{env: "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL=1s", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL=2s", want: func(*Config) {},
			warning: "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL: no effect"},

		// Flags of dcgm-exporter 4.8.3 and 4.8.4.
		{args: "--max-concurrent-scrapes=7", want: func(c *Config) { c.MaxRequests = 7 }},
		{env: "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES=16", want: func(c *Config) { c.MaxRequests = 16 }},
		{args: "--web.max-requests=3", env: "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES=16", want: func(c *Config) { c.MaxRequests = 3 }, warning: "--web.max-requests wins over DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES, which is the same setting: remove one of them"},
		{args: "--container-runtime-socket /d.sock", want: func(c *Config) { c.DockerSocket = "/d.sock" }},
		{args: "--container-runtime-socket=", want: func(*Config) {}},
		{env: "DCGM_CONTAINER_RUNTIME_SOCKET=/d.sock", want: func(c *Config) { c.DockerSocket = "/d.sock" }},
		{args: "--docker.socket=/a.sock", env: "DCGM_CONTAINER_RUNTIME_SOCKET=/d.sock", want: func(c *Config) { c.DockerSocket = "/a.sock" }, warning: "--docker.socket wins over DCGM_CONTAINER_RUNTIME_SOCKET, which is the same setting: remove one of them"},
		{args: "--enable-exporter-metrics", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS=true", want: func(*Config) {}},
		{args: "--enable-exporter-metrics=false", want: func(*Config) {}, warning: "--enable-exporter-metrics: no effect: metrics of the exporter itself are always served"},
		{env: "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS=false", want: func(*Config) {}, warning: "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS: no effect: metrics of the exporter itself are always served"},
		{args: "--web-read-timeout=10s --web-write-timeout 30s --watch-max-keep-age=10m --watch-max-keep-samples=0", want: func(*Config) {}},
		{args: "--web-read-timeout=5s", want: func(*Config) {}, warning: "--web-read-timeout: no effect: a request must arrive within 10s"},
		{env: "DCGM_EXPORTER_WEB_WRITE_TIMEOUT=1m", want: func(*Config) {}, warning: "DCGM_EXPORTER_WEB_WRITE_TIMEOUT: no effect: a client must read the response within 30s"},
		{env: "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE=1h", want: func(*Config) {}, warning: "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE: no effect"},
		{args: "--watch-max-keep-samples=5", want: func(*Config) {}, warning: "--watch-max-keep-samples: no effect"},

		// The last value of a flag wins, and a name of ours wins over one of dcgm-exporter.
		{args: "-a :1 --address :2", want: func(c *Config) { c.ListenAddresses = []string{":2"} }},
		{args: "-f b.csv --collectors a.csv", want: func(c *Config) { c.CountersName, c.Files = "a.csv", []string{"a.csv"} }},
		{args: "--counters.file b.csv --counters.file=a.csv", want: func(c *Config) { c.CountersName, c.Files = "b.csv, a.csv", []string{"b.csv", "a.csv"} },
			warning: "a.csv:1: DCGM_FI_DEV_GPU_TEMP is ignored: it is in b.csv:1 already"},
		{args: "-a :1 --web.listen-address=:2 --address :1", want: func(c *Config) { c.ListenAddresses = []string{":2"} }, warning: "--web.listen-address wins over --address, which is the same setting: remove one of them"},
		{args: "--web.systemd-socket=false --web-systemd-socket", want: func(*Config) {}, warning: "--web.systemd-socket wins over --web-systemd-socket, which is the same setting: remove one of them"},
		{args: "--log.format=logfmt --log-format=json", want: func(*Config) {}, warning: "--log.format wins over --log-format, which is the same setting: remove one of them"},
		{args: "-n --label.hostname=Hostname", want: func(c *Config) { c.HostnameLabel = "Hostname" }, warning: "--label.hostname wins over --no-hostname, which is the same setting: remove one of them"},
		{args: "--debug --log.level=warn", want: func(c *Config) { c.LogLevel = "warn" }, warning: "--log.level wins over --debug, which is the same setting: remove one of them"},
		{args: "--docker.socket=/a --docker.socket=", want: func(*Config) {}},

		// A converted value that sets nothing is no contradiction.
		{args: "--no-debug --log.level=warn --no-hostname=false --label.hostname=Hostname -m none --counters.config-map=a:b",
			want: func(c *Config) { c.LogLevel, c.HostnameLabel, c.CountersConfigMap = "warn", "Hostname", "a:b" }},
		{args: "-m a:b", want: func(c *Config) { c.CountersConfigMap = "a:b" }},
		{args: "--hostname=node-7", want: func(c *Config) { c.Hostname = "node-7" }},
		{args: "--hostname=node-7 -n", want: func(c *Config) { c.Hostname, c.HostnameLabel = "node-7", "" }, warning: "--hostname: no effect without --label.hostname"},
		{args: "--no-health.enabled --health.interval=1m", want: func(c *Config) { c.HealthInterval = 0 }, warning: "--health.interval: no effect without --health.enabled"},

		// Values that match the fixed behaviour are accepted, by flag or by variable.
		{args: "-m none --fake-gpus=false --dump-enabled=false --dump-directory=/tmp/dcgm-exporter-debug --dump-retention=24 --dump-compression " +
			"--config-file= --container-labels=false --health-require-gpus=false", want: func(*Config) {}},
		{args: "-m= --no-dump-enabled", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_DUMP_ENABLED=false DCGM_EXPORTER_DUMP_RETENTION=24 DCGM_EXPORTER_CONTAINER_LABELS=false DCGM_EXPORTER_CONFIG_FILE= " +
			"DCGM_EXPORTER_HEALTH_REQUIRE_GPUS=0", want: func(*Config) {}},
		{env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS=false KUBERNETES_VIRTUAL_GPUS=0 DCGM_EXPORTER_CPU_DEVICES_STR=f " +
			"DCGM_EXPORTER_CONFIGMAP_DATA=none DCGM_EXPORTER_DUMP_COMPRESSION=true DCGM_HPC_JOB_MAPPING_DIR=", want: func(*Config) {}},
	}
	t.Chdir(t.TempDir())
	for _, name := range []string{"a.csv", "b.csv"} {
		writeFile(t, name, "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	}
	for _, name := range []string{"web.yml", "a.yml"} {
		writeFile(t, name, "http_server_config: {http2: false}\n")
	}
	writeFile(t, "xids.csv", "code,name,severity,action,investigation,meaning\n999,OURS,warning,IGNORE,,Ours.\n")
	for _, tt := range tests {
		t.Run(strings.TrimSpace(tt.env+" "+tt.args), func(t *testing.T) {
			line, err := parse(t, strings.Fields(tt.args), strings.Fields(tt.env))
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			tt.want(&want)
			if got := settings(line.Config); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if line.Command != Serve {
				t.Errorf("command %q", line.Command)
			}
			if got := strings.Join(line.Warnings, "\n"); (tt.warning == "") != (got == "") || !strings.Contains(got, tt.warning) {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	tests := []struct {
		args string
		env  string
		want []string // lines, each of which begins so
	}{
		{args: "--collectors=", want: []string{"--collectors: the value is empty"}},
		{args: "-c 99", want: []string{"--collect-interval: 99ms is not between 100ms and 24h0m0s"}},
		{args: "-c 3", want: []string{"--collect-interval: 3ms is not between 100ms and 24h0m0s"}},
		{args: "-c 0", want: []string{"--collect-interval: 0s is not between"}},
		{args: "-c -5s", want: []string{"--collect-interval: -5s is not between"}},
		{args: "-c soon", want: []string{`--collect-interval: "soon" is not a duration from 100ms to 24h0m0s: write one such as 5s`}},
		{args: "--sample.interval=30000", want: []string{"--sample.interval: 30000 has no unit: write 30000s or 30000ms"}},
		{env: "GPU_EXPORTER_SAMPLE_INTERVAL=5.5", want: []string{"GPU_EXPORTER_SAMPLE_INTERVAL: 5.5 has no unit: write 5.5s or 5.5ms"}},
		{args: "--xid.window=-300 --clock-events.window=300 --sample.max-age=60 --sample.resolution=1", want: []string{"--sample.resolution: 1 has no unit", "--sample.max-age: 60 has no unit", "--xid.window: -300 has no unit", "--clock-events.window: 300 has no unit"}},
		{args: "-c 99999999999999999", want: []string{`--collect-interval: "99999999999999999ms" is not a duration from 100ms to 24h0m0s`}},
		{args: "-c 99999999999999999999", want: []string{`--collect-interval: 99999999999999999999 has no unit`}},
		{args: "-c 10000000h", want: []string{`--collect-interval: "10000000h" is not a duration`}},
		{args: "--sample.max-age=10000000h --sample.resolution=1000000y", want: []string{`--sample.resolution: "1000000y" is not a duration`, `--sample.max-age: "10000000h" is not a duration`}},
		{args: "-x 99999999999999999999", want: []string{`--xid-count-window-size: 99999999999999999999 has no unit`}},
		{args: "--web.max-requests=99999999999999999999", want: []string{`--web.max-requests: "99999999999999999999" is not a number from 1 to 100000`}},
		{args: "-c 1s --sample.resolution=2s", want: []string{"--sample.resolution: 2s is longer than the 1s between samples (--collect-interval): make it shorter, or remove it"}},
		{args: "--sample.resolution=6s", want: []string{"--sample.resolution: 6s is longer than the 5s between samples (the default of --sample.interval): make it shorter, or remove it"}},
		{args: "-c 1 --sample.resolution=2s", want: []string{"--collect-interval: 1ms is not between"}},
		{env: "DCGM_EXPORTER_INTERVAL=5x", want: []string{`DCGM_EXPORTER_INTERVAL: "5x" is not a duration`}},
		{args: "-d x:1", want: []string{`--devices: device selector "x:1"`}},
		{env: "DCGM_EXPORTER_DEVICES_STR=g:", want: []string{`DCGM_EXPORTER_DEVICES_STR: device selector "g:"`}},
		{args: "-r=", want: []string{`--remote-hostengine-info: "": the address is empty; write host`}},
		{args: "-r node:http", want: []string{`--remote-hostengine-info: "node:http": the port is not a number from 1 to 65535`}},
		{env: "DCGM_EXPORTER_KUBERNETES=yes", want: []string{`DCGM_EXPORTER_KUBERNETES: "yes" is neither true nor false`}},
		{args: "--kubernetes-gpu-id-type=uuid", want: []string{`--kubernetes-gpu-id-type: "uuid" is unknown: use uid or device-name`}},
		{args: "--pod-resources-kubelet-socket=", want: []string{"--pod-resources-kubelet-socket: the value is empty"}},
		{args: "--label.hostname=node", want: []string{`--label.hostname: "node" is unknown: use hostname, Hostname or none`}},
		{args: "--hostname=", want: []string{"--hostname: the value is empty"}},
		{env: "DCGM_EXPORTER_DEBUG=x", want: []string{`DCGM_EXPORTER_DEBUG: "x" is neither true nor false`}},
		{args: "--web.listen-address=", want: []string{`--web.listen-address: "" is not an address to listen on`}},
		{args: "-a 9400", want: []string{`--address: "9400" is not an address to listen on: write HOST:PORT or :PORT`}},
		{env: "DCGM_EXPORTER_LISTEN=:99999", want: []string{`DCGM_EXPORTER_LISTEN: ":99999": "99999" is not a port`}},
		{args: "--web.listen-address=vsock://:x", want: []string{`--web.listen-address: "vsock://:x": "x" is not a port`}},
		{args: "--health.interval=10", want: []string{"--health.interval: 10 has no unit: write 10s or 10ms"}},
		{args: "--clock-events-count-window-size=0", want: []string{"--clock-events-count-window-size: 0s is not between 1s and 24h0m0s"}},
		{args: "-x 0", want: []string{"--xid-count-window-size: 0s is not between 1s and 24h0m0s"}},
		{args: "-x long", want: []string{`--xid-count-window-size: "long" is not a duration from 1s to 24h0m0s`}},
		{args: "--xid.kernel-log=maybe", want: []string{`--xid.kernel-log: "maybe" is unknown: use auto, on or off`}},
		{args: "--web.max-requests=0", want: []string{`--web.max-requests: "0" is not a number from 1 to 100000`}},
		{args: "--web.max-requests=many", want: []string{`--web.max-requests: "many" is not a number from 1 to 100000`}},
		{args: "--log.level=loud", want: []string{`--log.level: "loud" is unknown: use debug, info, warn or error`}},
		{args: "--log.format=txt", want: []string{`--log.format: "txt" is unknown: use logfmt or json`}},
		{env: "DCGM_EXPORTER_LOG_FORMAT=txt", want: []string{`DCGM_EXPORTER_LOG_FORMAT: "txt" is unknown: use logfmt or json`}},
		{args: "--dcgm-log-level=LOUD", want: []string{`--dcgm-log-level: "LOUD" is unknown: use NONE, FATAL, ERROR, WARN, INFO, DEBUG or VERB`}},
		{args: "--sample.max-age=1s", want: []string{"--sample.max-age: 1s is shorter than the interval of 5s"}},
		{args: "--sample.max-age=-3s", want: []string{"--sample.max-age: -3s is not between 100ms and 168h0m0s"}},
		{args: "--sample.max-age=-3s -c soon", want: []string{"--collect-interval: ", "--sample.max-age: -3s is not between"}},
		{args: "--sample.max-age=3s -c soon", want: []string{"--collect-interval: "}},
		{args: "--sample.max-age=x", want: []string{`--sample.max-age: "x" is not a duration`}},
		{args: "--simulate=h100x8 --dcgm.library-path=/opt", want: []string{"--simulate and --dcgm.library-path exclude each other"}},
		{args: "--simulate=", want: []string{"--simulate: the value is empty"}},
		{args: "--max-concurrent-scrapes=0", want: []string{`--max-concurrent-scrapes: "0" is not a number from 1 to 100000`}},
		{env: "DCGM_EXPORTER_WEB_READ_TIMEOUT=10x", want: []string{`DCGM_EXPORTER_WEB_READ_TIMEOUT: "10x" is not a duration`}},
		{args: "--watch-max-keep-age=x --watch-max-keep-samples=-1", want: []string{`--watch-max-keep-age: "x" is not a duration`, `--watch-max-keep-samples: "-1" is not a number from 0`}},
		{args: "--gpu-bind-unbind-poll-interval=x", want: []string{`--gpu-bind-unbind-poll-interval: "x" is not a duration`}},

		{args: "-c 1 -d x -a y", env: "DCGM_EXPORTER_KUBERNETES=x DCGM_EXPORTER_USE_FAKE_GPUS=true", want: []string{
			"--collect-interval: ", "--devices: ", "DCGM_EXPORTER_KUBERNETES: ", "--address: ", "DCGM_EXPORTER_USE_FAKE_GPUS: "}},
		{args: "--colectors=a -k=2", want: []string{"unknown flag --colectors: did you mean --collectors?", `-k: "2" is neither true nor false`}},
		{args: "-k --kubernetes-pod-label-allowlist-regex=( --kubernetes.pod-labels-form=x --slurm.jobs=maybe --kubernetes.metadata-source=x", want: []string{
			`--kubernetes-pod-label-allowlist-regex: "(" is not a regular expression`, "--kubernetes.pod-labels-form: ", "--kubernetes.metadata-source: ", "--slurm.jobs: "}},
		{args: "doctor --output=yaml", want: []string{`--output: "yaml" is unknown: use text or json`}},
		{args: "serv", want: []string{`unknown command "serv": use serve, once, check-config, doctor, fields or ready`}},
	}
	for _, tt := range tests {
		t.Run(strings.TrimSpace(tt.env+" "+tt.args), func(t *testing.T) {
			_, err := parse(t, strings.Fields(tt.args), strings.Fields(tt.env))
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("problem %q, want %q", lines[i], want)
				}
			}
		})
	}
}

// A flag or variable of dcgm-exporter up to 4.8.4 that is not available is an error with
// advice.
func TestMissingOptions(t *testing.T) {
	for _, tt := range []struct{ flag, variable, want string }{
		{"--config-file=a.yaml", "DCGM_EXPORTER_CONFIG_FILE=a.yaml", "write its settings in the form of etc/gpu_exporter.yaml, and pass that file with --config.file"},
		{"--container-labels", "DCGM_EXPORTER_CONTAINER_LABELS=true", "use --docker.socket, and join gpu_container_info, which has the names of containers"},
		{"--health-require-gpus", "DCGM_EXPORTER_HEALTH_REQUIRE_GPUS=true", "/health reports that the exporter answers: point the probe at /-/ready, and alert on absent(gpu_up)"},
		{"--fake-gpus", "DCGM_EXPORTER_USE_FAKE_GPUS=true", "use --simulate"},
		{"--dump-enabled", "DCGM_EXPORTER_DUMP_ENABLED=true", "remove it"},
		{"--dump-directory=/x", "DCGM_EXPORTER_DUMP_DIRECTORY=/x", "remove it"},
		{"--dump-retention=9", "DCGM_EXPORTER_DUMP_RETENTION=9", "remove it"},
		{"--dump-compression=false", "DCGM_EXPORTER_DUMP_COMPRESSION=false", "remove it"},
	} {
		name, _, _ := strings.Cut(tt.flag, "=")
		env, _, _ := strings.Cut(tt.variable, "=")
		const text = ": this flag of dcgm-exporter is not available: "
		if _, err := parse(t, []string{tt.flag}, nil); err == nil || err.Error() != name+text+tt.want {
			t.Errorf("%s: error %v, want %q", tt.flag, err, name+text+tt.want)
		}
		if _, err := parse(t, nil, []string{tt.variable}); err == nil || err.Error() != env+text+tt.want {
			t.Errorf("%s: error %v, want %q", tt.variable, err, env+text+tt.want)
		}
	}
}

func TestCommands(t *testing.T) {
	for args, want := range map[string]string{
		"":                            Serve,
		"serve":                       Serve,
		"once":                        Once,
		"once --simulate=h100x8":      Once,
		"--simulate=h100x8 once -k":   Once,
		"check-config":                CheckConfig,
		"doctor":                      Doctor,
		"doctor --output=json":        Doctor,
		"doctor -output json -k":      Doctor,
		"--kubernetes.node-name once": Serve,
		"--kubernetes.node-name once check-config": CheckConfig,
	} {
		line, err := parse(t, strings.Fields(args), nil)
		if err != nil || line.Command != want {
			t.Errorf("%q: command %q, error %v; want %q", args, line.Command, err, want)
		}
	}
}

// --help has each flag with its variable and its default, and the names of dcgm-exporter
// after them.
func TestHelpIsComplete(t *testing.T) {
	var stdout bytes.Buffer
	if _, err := Parse([]string{"--help"}, nil, &stdout, nil); err != nil {
		t.Fatal(err)
	}
	ours, theirs, _ := strings.Cut(stdout.String(), "\nNames of dcgm-exporter")
	for _, s := range new(Config).settings() {
		_, flag, _ := strings.Cut(ours, "\n  --"+s.name)
		flag, _, _ = strings.Cut(flag, "\n  --")
		switch {
		case s.isOwn() && (!strings.Contains(flag+"\n", "$"+s.env+"\n") || s.def != "" && !strings.Contains(strings.Join(strings.Fields(flag), " "), "Default: "+s.def+".")):
			t.Errorf("the help of --%s is not complete:\n%s", s.name, flag)
		case s.means != "" && s.name != "" && !strings.Contains(theirs, "--"+s.name+" "):
			t.Errorf("no --%s in\n%s", s.name, theirs)
		}
	}
	if lines := strings.Count(theirs, "\n"); lines > 40 {
		t.Errorf("%d lines of names of dcgm-exporter", lines)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, want := range map[string][]string{
		"--help":       {"check-config", "--web.listen-address=ADDRESS", "Time between samples. At least 100ms. Default: 5s. $GPU_EXPORTER_SAMPLE_INTERVAL", "-f, --collectors ", "--simulate=SCENARIO", "Kubernetes:"},
		"-h":           {"usage: gpu_exporter"},
		"once --help":  {"Take one sample"},
		"ready --help": {"usage: gpu_exporter ready [FLAG...] [URL]", "http://localhost:9400"},
		"--version":    {"gpu_exporter, version ", "go version:"},
		"-version":     {"gpu_exporter, version "},
		"-v":           {"gpu_exporter, version "},
	} {
		t.Run(args, func(t *testing.T) {
			var stdout bytes.Buffer
			line, err := Parse(strings.Fields(args), []string{"DCGM_EXPORTER_INTERVAL=broken"}, &stdout, nil)
			if err != nil || line.Command != "" {
				t.Errorf("command %q, error %v", line.Command, err)
			}
			for _, text := range want {
				if !strings.Contains(stdout.String(), text) {
					t.Errorf("no %q in\n%s", text, &stdout)
				}
			}
			for line := range strings.Lines(stdout.String()) {
				if utf8.RuneCountInString(line) > 101 {
					t.Errorf("more than 100 columns: %s", line)
				}
			}
			hiddens := []string{"sampler ", "--dump-enabled", "--fake-gpus"}
			if strings.HasPrefix(args, Ready) {
				hiddens = append(hiddens, "--sample.interval", "-f")
			}
			for _, hidden := range hiddens {
				if strings.Contains(stdout.String(), "\n  "+hidden) {
					t.Errorf("%q is not hidden in\n%s", hidden, &stdout)
				}
			}
		})
	}
}
