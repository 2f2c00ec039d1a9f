// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/promslog"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// The sections of --help and FLAGS.md, in their order.
const (
	sectionSampling   = "Sampling"
	sectionEvents     = "XIDs, events and health"
	sectionLabels     = "Labels"
	sectionKubernetes = "Kubernetes"
	sectionOwners     = "Jobs and containers outside Kubernetes"
	sectionPaths      = "Paths of the host"
	sectionWeb        = "HTTP server"
	sectionLog        = "Log"
	sectionCommand    = "Flags of the command"
	sectionInert      = "Accepted for compatibility with dcgm-exporter, without effect"
	sectionMissing    = "Flags of dcgm-exporter that are not available"
)

func sections() []string {
	return []string{sectionCommand, sectionSampling, sectionEvents, sectionLabels, sectionKubernetes, sectionOwners, sectionPaths,
		sectionWeb, sectionLog, sectionInert, sectionMissing}
}

const (
	// minInterval is the shortest time in which DCGM updates its fields.
	minInterval = 100 * time.Millisecond
	// advisedInterval is the shortest interval without a warning.
	advisedInterval = time.Second
	day             = 24 * time.Hour

	defaultListenAddress = ":9400"
)

// settings is the table of all flags that make up a configuration.
//
// To add a flag, add a field to [Live] or [Static] and an entry to the table of that
// struct. The flag, its variable, its key in the configuration file, --help, FLAGS.md
// and the comparison at a reload follow from the entry. TestTables checks that entries
// are complete, and TestReload that each field of Static has one.
//
// Names, variables and defaults that dcgm-exporter has too are those of its versions
// 4.5.3-4.8.2 to 4.8.4, except for the defaults of collectors, collect-interval and
// web.max-requests.
func (c *Config) settings() []*setting {
	live := c.Live.settings()
	for _, s := range live {
		s.live = true
	}
	all := append(live, c.Static.settings()...)
	return append(all, compatibility()...)
}

// settings is the table of the flags that a reload reads again.
func (l *Live) settings() []*setting {
	return []*setting{
		{name: "config.file", env: "GPU_EXPORTER_CONFIG_FILE", arg: "FILE", section: sectionSampling, target: text(&l.ConfigFile),
			help: "Configuration file in YAML. Its keys are the names of the flags, and include, fields and models. Flags and variables win over it."},
		{name: "collectors", aliases: "f", env: "DCGM_EXPORTER_COLLECTORS", arg: "FILE", section: sectionSampling, target: text(&l.collectors),
			help: "Counters file: a CSV file of the fields to export, or " + ListOf(builtInCounters()) + ". Without it, the default counters."},
		{name: "families", env: "GPU_EXPORTER_FAMILIES", def: metrics.Default.String(), arg: "LIST", section: sectionSampling,
			target: one(&l.Families, metrics.ParseSelection),
			help:   "Families of gpu_* and gpu_exporter_* to export: lean, default, full or groups, separated by commas. -NAME removes a group: default,links,-engines. METRICS.md lists the groups."},
		{name: "collect-interval", aliases: "c", env: "DCGM_EXPORTER_INTERVAL", def: "5s", arg: "INTERVAL", section: sectionSampling,
			target: duration(&l.Interval, minInterval, day),
			help:   "Time between samples: milliseconds, or a duration such as 5s. At least 100ms."},
		{name: "devices", aliases: "d", env: "DCGM_EXPORTER_DEVICES_STR", def: "f", arg: "SELECTOR", section: sectionSampling,
			target: checked(&l.Devices, selector),
			help:   "GPUs and GPU instances to export. f: the instances of MIG GPUs, and the GPUs without MIG; g or g:0,2-4: GPUs; i or i:0,2-4: GPU instances; g:0+i:1: both."},
		{name: "devices.allow-none", section: sectionSampling, target: boolean(&l.AllowNoGPUs),
			help: "Be ready on a node without a GPU that answers."},
		{name: "switch-devices", aliases: "s", env: "DCGM_EXPORTER_OTHER_DEVICES_STR", def: "f", arg: "SELECTOR", section: sectionSampling,
			target: checked(&l.Switches, selector),
			help:   "NVSwitches and their links to export. f: all; g or g:0,2: switches; i or i:0,2: links; g:0+i:1: both."},
		{name: "cpu-devices", aliases: "p", env: "DCGM_EXPORTER_CPU_DEVICES_STR", def: "f", arg: "SELECTOR", section: sectionSampling,
			target: checked(&l.CPUs, selector),
			help:   "CPUs and their cores to export. f: all; g or g:0: CPUs; i or i:0-71: cores; g:0+i:1: both."},
		{name: "sample.resolution", def: "1s", arg: "DURATION", section: sectionSampling, target: duration(&l.Resolution, minInterval, day),
			help: "Time between the readings of power and utilization from which counters of energy and busy time are computed, where the GPU has no such counter. At most the interval."},
		{name: "sample.histograms", section: sectionSampling, target: boolean(&l.Histograms),
			help: "Add native histograms of utilization, power and temperature. Prometheus must be configured to scrape native histograms."},
		{name: "sample.max-age", arg: "DURATION", section: sectionSampling, target: duration(&l.MaxAge, minInterval, 7*day),
			help: "Age at which a sample is no longer served. Default: 3 intervals, at least 30s."},
		{name: "enable-dcgm-log", env: "DCGM_EXPORTER_ENABLE_DCGM_LOG", section: sectionLog, target: boolean(&l.dcgmLog),
			help: "Write the log of the embedded DCGM to the exporter's log."},
		{name: "dcgm-log-level", env: "DCGM_EXPORTER_DCGM_LOG_LEVEL", def: "NONE", arg: "LEVEL", section: sectionLog,
			target: one(&l.DCGMLogLevel, func(s string) (string, error) {
				s = strings.ToUpper(s)
				return s, contained(s, "NONE", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "VERB")
			}),
			help: "Level of DCGM's log: NONE, FATAL, ERROR, WARN, INFO, DEBUG or VERB. Needs --enable-dcgm-log."},
		{name: "xid.catalogue", arg: "FILE", section: sectionEvents, target: text(&l.xidCatalogue),
			help: "CSV file in the form of etc/xid-catalogue.csv. Its lines replace or extend the built-in XID codes."},
		{name: "xid-count-window-size", aliases: "x", env: "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE", def: "5m", arg: "WINDOW", section: sectionEvents,
			target: duration(&l.XIDWindow, time.Second, day),
			help:   "Window of DCGM_EXP_XID_ERRORS_COUNT: milliseconds, or a duration such as 5m."},
		{name: "clock-events-count-window-size", env: "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE", def: "5m", arg: "WINDOW", section: sectionEvents,
			target: duration(&l.ClockWindow, time.Second, day),
			help:   "Window of DCGM_EXP_CLOCK_EVENTS_COUNT: milliseconds, or a duration such as 5m."},
		{name: "health.check", def: "true", section: sectionEvents, target: boolean(&l.healthCheck),
			help: "Let DCGM check the health of the devices, and export how the GPUs reach each other."},
		{name: "health.interval", def: "10s", arg: "INTERVAL", section: sectionEvents, target: duration(&l.HealthInterval, time.Second, day),
			help: "Time between health checks. It is at least the time between samples."},

		{name: "use-old-namespace", aliases: "o", env: "DCGM_EXPORTER_USE_OLD_NAMESPACE", section: sectionLabels, target: boolean(&l.UseOldNamespace),
			help: "Use the label names of dcgm-exporter 1.x: uuid, pod_name, pod_namespace, container_name."},
		{name: "no-hostname", aliases: "n", env: "DCGM_EXPORTER_NO_HOSTNAME", section: sectionLabels, target: boolean(&l.noHostname),
			help: "Remove the hostname label."},
		{name: "label.hostname", def: "hostname", arg: "NAME", section: sectionLabels, target: oneOf(&l.HostnameLabel, "hostname", "Hostname"),
			help: "Name of the hostname label: hostname, or Hostname as in dcgm-exporter up to 4.8."},
		{name: "replace-blanks-in-model-name", aliases: "rbmn", env: "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", section: sectionLabels,
			target: boolean(&l.ReplaceBlanks), help: "Replace blanks in model names with dashes."},
		{name: "nvlink.index", def: "zero-based", arg: "BASE", section: sectionLabels,
			target: oneOf(&l.linkBase, "zero-based", "one-based"),
			help:   "Numbering of the links of a GPU in the label nvlink: zero-based as in DCGM, or one-based as in dcgm-exporter."},
	}
}

// settings is the table of the flags that need a restart.
func (s *Static) settings() []*setting {
	return []*setting{
		{name: "remote-hostengine-info", aliases: "r", env: "DCGM_REMOTE_HOSTENGINE_INFO", arg: "ADDRESS", section: sectionSampling,
			target: checked(&s.Hostengine, func(s string) error { _, err := wire.ParseHostengine(s); return err }),
			help:   "Use the DCGM host engine at this address instead of an embedded one: HOST:PORT, [IPV6]:PORT, the path of a unix socket, tcp://, unix:// or vsock://."},
		{name: "dcgm.library-path", arg: "DIR", section: sectionSampling, target: text(&s.LibraryPath),
			help: "Directory with libdcgm.so.4. It is searched before the system's directories."},
		{name: "simulate", arg: "SCENARIO", section: sectionSampling, target: text(&s.Simulate),
			help: "Load stand-ins for NVIDIA's libraries that simulate a node: the path of a scenario file, or " + ListOf(Scenarios()) + "."},
		{name: "disable-startup-validate", env: "DISABLE_STARTUP_VALIDATE", section: sectionSampling,
			target: boolean(&s.SkipStartupCheck),
			help:   "Do not check for libdcgm at start."},

		{name: "xid.kernel-log", def: KernelLogAuto, arg: "MODE", section: sectionEvents,
			target: oneOf(&s.KernelLog, KernelLogAuto, KernelLogOn, KernelLogOff),
			help:   "Count XIDs from the kernel log instead of DCGM: on, off, or auto (if the log is readable and DCGM's engine runs on this machine)."},
		{name: "path.kmsg", arg: "FILE", section: sectionPaths, target: text(&s.KMsg),
			help: "The kernel log. Default: " + DefaultKMsg + "."},

		{name: "kubernetes", aliases: "k", env: "DCGM_EXPORTER_KUBERNETES", section: sectionKubernetes, target: boolean(&s.Kubernetes),
			help: "Map devices to pods."},
		{name: "kubernetes-gpu-id-type", env: "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", def: "uid", arg: "TYPE", section: sectionKubernetes,
			target: oneOf(&s.GPUIDType, "uid", "device-name"),
			help:   "Meaning of a bare number as device ID: uid (index) or device-name (minor number)."},
		{name: "pod-resources-kubelet-socket", env: "DCGM_POD_RESOURCES_KUBELET_SOCKET", def: "/var/lib/kubelet/pod-resources/kubelet.sock", arg: "PATH",
			section: sectionKubernetes, target: text(&s.KubeletSocket), help: "Socket of the kubelet's pod-resources API."},
		{name: "nvidia-resource-names", env: "NVIDIA_RESOURCE_NAMES", arg: "NAME", section: sectionKubernetes, target: list(&s.ResourceNames),
			help: "More resource names of GPUs. Repeatable, or separated by commas."},
		{name: "kubernetes-virtual-gpus", needs: "kubernetes", env: "KUBERNETES_VIRTUAL_GPUS", section: sectionKubernetes, target: boolean(&s.VirtualGPUs),
			help: "Repeat the series of a shared GPU for each of its pods, as dcgm-exporter does. Sums over pods then count the GPU several times."},
		{name: "kubernetes.pod-usage", def: "true", section: sectionKubernetes, target: boolean(&s.PodUsage),
			help: "Export what each pod uses of its devices, from their processes. Needs the PID namespace of the host."},
		{name: "kubernetes-enable-dra", needs: "kubernetes", env: "KUBERNETES_ENABLE_DRA", section: sectionKubernetes, target: boolean(&s.DRA),
			help: "Map the devices of ResourceClaims (DRA) as well. Needs access to ResourceSlices."},
		{name: "kubernetes-enable-pod-labels", needs: "kubernetes", env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", section: sectionKubernetes, target: boolean(&s.PodLabels),
			help: "Export the labels of pods."},
		{name: "kubernetes-pod-label-allowlist-regex", needs: "kubernetes-enable-pod-labels", env: "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX", arg: "REGEX", section: sectionKubernetes,
			target: values(&s.LabelAllow, true, expression),
			help:   "Export only the pod labels whose name matches one of the expressions. Repeatable, or separated by commas. Default: all."},
		{name: "kubernetes.pod-annotation-allowlist-regex", needs: "kubernetes", arg: "REGEX", section: sectionKubernetes, target: values(&s.AnnotationAllow, false, expression),
			help: "Export the pod annotations whose name matches one of the expressions. Repeatable. Default: none."},
		{name: "kubernetes.pod-labels-form", needs: "kubernetes", def: PodLabelsOnSeries, arg: "FORM", section: sectionKubernetes,
			target: oneOf(&s.PodLabelsForm, PodLabelsOnSeries, PodLabelsInFamily),
			help:   "Place of pod labels and annotations: series (those of the pod's devices) or family (gpu_pod_labels, to join)."},
		{name: "kubernetes-enable-pod-uid", needs: "kubernetes", env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", section: sectionKubernetes, target: boolean(&s.PodUID),
			help: "Add the label pod_uid."},
		{name: "kubernetes.workload", needs: "kubernetes", section: sectionKubernetes, target: boolean(&s.Workload),
			help: "Add the labels workload and workload_kind: the topmost owner of the pod, such as a Deployment."},
		{name: "kubernetes.metadata-source", needs: "kubernetes", def: MetadataAuto, arg: "SOURCE", section: sectionKubernetes,
			target: oneOf(&s.MetadataSource, MetadataAuto, MetadataKubelet, MetadataAPIServer),
			help:   "Source of pod UIDs, labels, annotations and workloads: kubelet (its Pods API, Kubernetes 1.37 and newer), api-server, or auto (the kubelet if it has the API)."},
		{name: "kubernetes.pods-socket", needs: "kubernetes", def: "/var/lib/kubelet/pods-api/pods-api.sock", arg: "PATH", section: sectionKubernetes, target: text(&s.PodsSocket),
			help: "Socket of the kubelet's Pods API."},
		{name: "kubernetes.kubeconfig", needs: "kubernetes", arg: "FILE", section: sectionKubernetes, target: text(&s.Kubeconfig),
			help: "Access to the API server. Default: the pod's service account."},
		{name: "kubernetes.node-name", env: "NODE_NAME", arg: "NAME", section: sectionKubernetes, target: optional(&s.NodeName),
			help: "Name of this node in Kubernetes. Default: the host's name."},

		{name: "hpc-job-mapping-dir", env: "DCGM_HPC_JOB_MAPPING_DIR", arg: "DIR", section: sectionOwners, target: text(&s.HPCDir),
			help: "Directory with one file per GPU that lists its jobs. A file is named after the GPU's number, or GPU.INSTANCE."},
		{name: "slurm.jobs", def: SlurmAuto, arg: "MODE", section: sectionOwners, target: oneOf(&s.Slurm, SlurmAuto, SlurmOn, SlurmOff),
			help: "Find Slurm jobs by their cgroups: on, off, or auto (if Slurm's cgroups exist and --kubernetes is off)."},
		{name: "docker.socket", aliases: "container-runtime-socket", env: "DCGM_CONTAINER_RUNTIME_SOCKET", arg: "PATH", section: sectionOwners,
			target: optional(&s.DockerSocket), help: "Socket of a Docker engine, to export the containers that hold GPUs. Empty: none."},
		{name: "docker.label-allowlist-regex", needs: "docker.socket", arg: "REGEX", section: sectionOwners, target: values(&s.DockerLabels, false, expression),
			help: "Export the container labels whose name matches one of the expressions. Repeatable. Default: none."},
		{name: "path.pod-logs", needs: "kubernetes", def: "/var/log/pods", arg: "DIR", section: sectionPaths, target: text(&s.PodLogs),
			help: "The kubelet's directory of pod logs. The names in it contain the UIDs of pods."},
		{name: "path.procfs", def: "/proc", arg: "DIR", section: sectionPaths, target: text(&s.ProcFS), help: "The host's procfs."},
		{name: "path.cgroupfs", def: "/sys/fs/cgroup", arg: "DIR", section: sectionPaths, target: text(&s.CgroupFS), help: "The host's cgroups."},

		{name: "web.listen-address", aliases: "address a", env: "DCGM_EXPORTER_LISTEN", def: defaultListenAddress, arg: "ADDRESS", section: sectionWeb,
			target: values(&s.ListenAddresses, false, listenAddress),
			help:   "Address to listen on: HOST:PORT, :PORT or vsock://:PORT. Repeatable."},
		{name: "web.systemd-socket", aliases: "web-systemd-socket", env: "DCGM_EXPORTER_SYSTEMD_SOCKET", section: sectionWeb, target: boolean(&s.SystemdSocket),
			help: "Serve on the sockets of systemd's socket activation instead."},
		{name: "web.config.file", aliases: "web-config-file", env: "DCGM_EXPORTER_WEB_CONFIG_FILE", arg: "FILE", section: sectionWeb, target: optional(&s.WebConfigFile),
			help: "File with TLS and authentication settings. See https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md."},
		{name: "web.max-requests", aliases: "max-concurrent-scrapes", env: "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES", def: "40", arg: "N", section: sectionWeb,
			target: number(&s.MaxRequests, 1, 100000),
			help:   "Number of scrapes served at the same time. Further ones get status 503."},
		{name: "web.enable-admin-api", section: sectionWeb, target: boolean(&s.AdminAPI),
			help: "Let clients pause profiling: POST /-/profiling/pause?for=10m and /-/profiling/resume."},
		{name: "enable-pprof", env: "DCGM_EXPORTER_ENABLE_PPROF", section: sectionWeb, target: boolean(&s.Pprof),
			help: "Serve profiles under /debug/pprof/."},

		{name: "log.level", def: "info", arg: "LEVEL", section: sectionLog, target: oneOf(&s.LogLevel, promslog.LevelFlagOptions...),
			help: "Lowest level to log: " + ListOf(promslog.LevelFlagOptions) + "."},
		{name: "debug", env: "DCGM_EXPORTER_DEBUG", section: sectionLog, target: boolean(&s.debug), help: "Same as --log.level=debug."},
		{name: "log.format", aliases: "log-format", env: "DCGM_EXPORTER_LOG_FORMAT", def: "logfmt", arg: "FORMAT", section: sectionLog,
			target: one(&s.LogFormat, func(s string) (string, error) {
				if s == "text" {
					s = "logfmt" // dcgm-exporter's name of it
				}
				return s, contained(s, promslog.FormatFlagOptions...)
			}),
			help: "Format of the log: logfmt (or text) or json."},
	}
}

// compatibility is the table of the flags of dcgm-exporter that have no effect here.
func compatibility() []*setting {
	const always = "GPUs that come and go are always detected within one interval"
	const retention = "DCGM keeps samples for as long as it takes to read them"
	all := []*setting{
		{name: "enable-gpu-bind-unbind-watch", env: "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH", def: "true", target: boolean(new(bool)), inert: always},
		{name: "gpu-bind-unbind-poll-interval", env: "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL", def: "1s", target: duration(new(time.Duration), 0, day), inert: always},
		{name: "watch-max-keep-age", env: "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE", def: "10m", target: duration(new(time.Duration), 0, 7*day), inert: retention},
		{name: "watch-max-keep-samples", env: "DCGM_EXPORTER_WATCH_MAX_KEEP_SAMPLES", def: "0", target: number(new(int), 0, 1<<31-1), inert: retention},
		{name: "web-read-timeout", env: "DCGM_EXPORTER_WEB_READ_TIMEOUT", def: HTTPReadTimeout.String(), target: duration(new(time.Duration), 0, day),
			inert: fmt.Sprintf("a request must arrive within %v", HTTPReadTimeout)},
		{name: "web-write-timeout", env: "DCGM_EXPORTER_WEB_WRITE_TIMEOUT", def: HTTPWriteTimeout.String(), target: duration(new(time.Duration), 0, day),
			inert: fmt.Sprintf("a client must read the response within %v", HTTPWriteTimeout)},
		{name: "enable-exporter-metrics", env: "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS", def: "true", target: boolean(new(bool)),
			inert: "metrics of the exporter itself are always served"},

		{name: "config-file", env: "DCGM_EXPORTER_CONFIG_FILE", target: optional(new(string)),
			instead: "write its settings in the form of etc/gpu_exporter.yaml, and pass that file with --config.file"},
		{name: "configmap-data", aliases: "m", env: "DCGM_EXPORTER_CONFIGMAP_DATA", def: "none", target: optional(new(string)),
			instead: "mount the ConfigMap, and pass its file with --collectors"},
		{name: "container-labels", env: "DCGM_EXPORTER_CONTAINER_LABELS", target: boolean(new(bool)),
			instead: "use --docker.socket, and join gpu_container_info, which has the names of containers"},
		{name: "health-require-gpus", env: "DCGM_EXPORTER_HEALTH_REQUIRE_GPUS", target: boolean(new(bool)),
			instead: "/health reports that the exporter answers: point the probe at /-/ready, and alert on absent(gpu_up)"},
		{name: "fake-gpus", env: "DCGM_EXPORTER_USE_FAKE_GPUS", target: boolean(new(bool)), instead: "use --simulate"},
		{name: "dump-enabled", env: "DCGM_EXPORTER_DUMP_ENABLED", target: boolean(new(bool)), instead: "remove it"},
		{name: "dump-directory", env: "DCGM_EXPORTER_DUMP_DIRECTORY", def: "/tmp/dcgm-exporter-debug", target: optional(new(string)), instead: "remove it"},
		{name: "dump-retention", env: "DCGM_EXPORTER_DUMP_RETENTION", def: "24", target: optional(new(string)), instead: "remove it"},
		{name: "dump-compression", env: "DCGM_EXPORTER_DUMP_COMPRESSION", def: "true", target: boolean(new(bool)), instead: "remove it"},
	}
	for _, s := range all {
		s.section, s.help = sectionInert, "No effect: "+s.inert+"."
		if s.instead != "" {
			s.section, s.help = sectionMissing, s.instead
		}
	}
	return all
}

func selector(s string) error {
	_, err := model.ParseSelector(s)
	return err
}

func listenAddress(address string) error {
	hostPort, isVsock := strings.CutPrefix(address, "vsock://")
	_, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: write HOST:PORT or :PORT", address)
	}
	if isVsock {
		_, err = strconv.ParseUint(port, 10, 32)
	} else {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("%q: %q is not a port", address, port)
	}
	return nil
}
