// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
)

// The names of the flags that more than one file refers to.
const (
	optConfigFile     = "config.file"
	optConfigFile2    = "config-file" // dcgm-exporter's, with another form of file
	optCollectors     = "collectors"
	optAddress        = "address"
	optListenAddress  = "web.listen-address"
	optSystemdSocket  = "web.systemd-socket"
	optSystemdSocket2 = "web-systemd-socket"
	optWebConfig      = "web.config.file"
	optWebConfig2     = "web-config-file"
	optDebug          = "debug"
	optLogLevel       = "log.level"
	optLogFormat      = "log.format"
	optLogFormat2     = "log-format"
	optMaxRequests2   = "max-concurrent-scrapes"
	optReadTimeout    = "web-read-timeout"
	optWriteTimeout   = "web-write-timeout"
	optOwnMetrics     = "enable-exporter-metrics"
	optKeepAge        = "watch-max-keep-age"
	optKeepSamples    = "watch-max-keep-samples"
	optInterval       = "collect-interval"
	optResolution     = "sample.resolution"
	optHistograms     = "sample.histograms"
	optMaxAge         = "sample.max-age"
	optMaxRequests    = "web.max-requests"
	optAdminAPI       = "web.enable-admin-api"
	optSimulate       = "simulate"
	optHostengine     = "remote-hostengine-info"
	optLibraryPath    = "dcgm.library-path"
	optNoHostname     = "no-hostname"
	optSwitches       = "switch-devices"
	optCPUs           = "cpu-devices"
	optLinkIndex      = "nvlink.index"
	optHostnameLabel  = "label.hostname"
	optBindWatch      = "enable-gpu-bind-unbind-watch"
	optBindInterval   = "gpu-bind-unbind-poll-interval"

	optPodLabels      = "kubernetes-enable-pod-labels"
	optPodUID         = "kubernetes-enable-pod-uid"
	optPodLabelAllow  = "kubernetes-pod-label-allowlist-regex"
	optAnnotations    = "kubernetes.pod-annotation-allowlist-regex"
	optPodLabelsForm  = "kubernetes.pod-labels-form"
	optWorkload       = "kubernetes.workload"
	optMetadataSource = "kubernetes.metadata-source"
	optPodsSocket     = "kubernetes.pods-socket"
	optKubeconfig     = "kubernetes.kubeconfig"
	optNodeName       = "kubernetes.node-name"
	optPodUsage       = "kubernetes.pod-usage"
	optVirtualGPUs    = "kubernetes-virtual-gpus"
	optDRA            = "kubernetes-enable-dra"
	optHPCDir         = "hpc-job-mapping-dir"
	optSlurm          = "slurm.jobs"
	optDockerSocket   = "docker.socket"
	optDockerSocket2  = "container-runtime-socket"
	optDockerLabels   = "docker.label-allowlist-regex"
	optPodLogs        = "path.pod-logs"
	optProcFS         = "path.procfs"
	optCgroupFS       = "path.cgroupfs"
	optKMsg           = "path.kmsg"
	optKernelLog      = "xid.kernel-log"
	optXIDCatalogue   = "xid.catalogue"
	optXIDWindow      = "xid-count-window-size"
	optClockWindow    = "clock-events-count-window-size"
	optHealthCheck    = "health.check"
	optHealthInterval = "health.interval"
)

const defaultListenAddress = ":9400"

// optionKind says what values a flag takes.
type optionKind uint8

const (
	kindSwitch optionKind = iota // true or false; needs no value
	kindText
	kindList // repeatable, each time with values separated by commas
)

// option is one flag.
type option struct {
	name    string
	aliases []string // as -x and --x, like name
	env     string
	kind    optionKind
	def     string // used if neither flag nor variable is set
	arg     string // placeholder of the value in --help
	help    string
	// missing marks a flag of dcgm-exporter that does not exist here. def is then
	// dcgm-exporter's default.
	missing bool
	instead string // what to do in place of a missing one; empty: nothing is like it
}

// options lists the flags. Names, aliases, environment variables and defaults of
// those that dcgm-exporter has are those of its pkg/cmd/app.go (4.5.3-4.8.2 to
// 4.8.4), except for the defaults of collectors, collect-interval,
// max-concurrent-scrapes and enable-exporter-metrics.
func options() []option {
	return []option{
		{name: optConfigFile, env: "GPU_EXPORTER_CONFIG_FILE", kind: kindText, arg: "FILE",
			help: "Configuration file in YAML: it can say what flags say, and more on fields. Flags and variables win over it."},

		// What is collected, and from where.
		{name: optCollectors, aliases: []string{"f"}, env: "DCGM_EXPORTER_COLLECTORS", kind: kindText, arg: "FILE",
			help: "CSV file with the fields to collect, or " + listOf(builtInCounters()) + ". Without it, the default set."},
		{name: optInterval, aliases: []string{"c"}, env: "DCGM_EXPORTER_INTERVAL", kind: kindText, def: "5s", arg: "INTERVAL",
			help: "Time between samples: milliseconds, or a duration such as 5s. At least 100ms."},
		{name: "devices", aliases: []string{"d"}, env: "DCGM_EXPORTER_DEVICES_STR", kind: kindText, def: "f", arg: "SELECTOR",
			help: "GPUs and GPU instances to monitor. f: GPU instances where MIG is on, GPUs elsewhere; g or g:0,2-4: GPUs; i or i:0,2-4: GPU instances; g:0+i:1: both."},
		{name: optHostengine, aliases: []string{"r"}, env: "DCGM_REMOTE_HOSTENGINE_INFO", kind: kindText, arg: "ADDRESS",
			help: "Use the running DCGM host engine at this address instead of an embedded one: HOST:PORT, [IPV6]:PORT, the path of a unix socket, tcp://, unix:// or vsock://."},
		{name: optLibraryPath, kind: kindText, arg: "DIR",
			help: "Directory with libdcgm.so.4, searched before the system's."},
		{name: optSimulate, kind: kindText, arg: "SCENARIO",
			help: "Load stand-ins for NVIDIA's libraries that simulate a node: a scenario's name (" + scenarioList() + ") or the path of a scenario file."},
		{name: optResolution, kind: kindText, def: "1s", arg: "DURATION",
			help: "How often power and utilization are looked at for the counters of energy and busy time, where the GPU does not count by itself. At least 100ms, at most the time between samples."},
		{name: optHistograms, kind: kindSwitch,
			help: "Add native histograms of utilization, power and temperature, as far as the counters have them. Prometheus must be told to scrape native histograms."},
		{name: optMaxAge, kind: kindText, arg: "DURATION",
			help: "Age from which on a sample is not served. Default: 3 intervals, at least 30s."},
		{name: "disable-startup-validate", env: "DISABLE_STARTUP_VALIDATE", kind: kindSwitch,
			help: "Do not check for libdcgm at start."},
		{name: "enable-dcgm-log", env: "DCGM_EXPORTER_ENABLE_DCGM_LOG", kind: kindSwitch,
			help: "Include the log of the embedded DCGM in the exporter's."},
		{name: "dcgm-log-level", env: "DCGM_EXPORTER_DCGM_LOG_LEVEL", kind: kindText, def: "NONE", arg: "LEVEL",
			help: "Level of DCGM's log: NONE, FATAL, ERROR, WARN, INFO, DEBUG or VERB. Only with --enable-dcgm-log."},
		{name: optBindWatch, env: "DCGM_EXPORTER_ENABLE_GPU_BIND_UNBIND_WATCH", kind: kindSwitch,
			help: "Accepted for compatibility: GPUs that come and go are always noticed within one interval."},
		{name: optBindInterval, env: "DCGM_EXPORTER_GPU_BIND_UNBIND_POLL_INTERVAL", kind: kindText, arg: "DURATION",
			help: "Accepted for compatibility, without effect: --collect-interval counts."},
		{name: optKeepAge, env: "DCGM_EXPORTER_WATCH_MAX_KEEP_AGE", kind: kindText, arg: "DURATION",
			help: "Accepted for compatibility, without effect: DCGM keeps samples for as long as they take to be read."},
		{name: optKeepSamples, env: "DCGM_EXPORTER_WATCH_MAX_KEEP_SAMPLES", kind: kindText, arg: "N",
			help: "Accepted for compatibility, without effect, like --watch-max-keep-age."},
		{name: optKernelLog, kind: kindText, def: kernelLogAuto, arg: "WHEN",
			help: "Count XIDs of the kernel log beside those of DCGM, each once: on, off, or auto (where it is readable, and DCGM's engine runs on this machine)."},
		{name: optKMsg, kind: kindText, arg: "FILE",
			help: "The kernel log. Default: " + defaultKMsg + "."},
		{name: optXIDCatalogue, kind: kindText, arg: "FILE",
			help: "CSV file in the form of etc/xid-catalogue.csv with the XID codes that are to differ from it, or to be added: their lines take the place of the built-in ones."},
		{name: optXIDWindow, aliases: []string{"x"}, env: "DCGM_EXPORTER_XID_COUNT_WINDOW_SIZE", kind: kindText, def: "300000", arg: "MILLISECONDS",
			help: "Window of DCGM_EXP_XID_ERRORS_COUNT: milliseconds, or a duration such as 5m."},
		{name: optClockWindow, env: "DCGM_EXPORTER_CLOCK_EVENTS_COUNT_WINDOW_SIZE", kind: kindText, def: "300000", arg: "MILLISECONDS",
			help: "Window of DCGM_EXP_CLOCK_EVENTS_COUNT: milliseconds, or a duration such as 5m."},
		{name: optHealthCheck, kind: kindSwitch, def: "true",
			help: "Have DCGM check the health of what it reads, and tell how the GPUs reach each other."},
		{name: optHealthInterval, kind: kindText, def: "10s", arg: "INTERVAL",
			help: "Time between health checks, if longer than that between samples: milliseconds, or a duration."},

		{name: optSwitches, aliases: []string{"s"}, env: "DCGM_EXPORTER_OTHER_DEVICES_STR", kind: kindText, def: "f", arg: "DEVICES",
			help: "NVSwitches and links to read: f (all), g[:ids] (switches), i[:ports] (their links), or both."},
		{name: optCPUs, aliases: []string{"p"}, env: "DCGM_EXPORTER_CPU_DEVICES_STR", kind: kindText, def: "f", arg: "DEVICES",
			help: "CPUs to read: f (all), g[:ids] (CPUs), i[:ids] (cores), or both."},
		{name: optLinkIndex, kind: kindText, def: linksFromZero, arg: "BASE",
			help: "How the label nvlink numbers the links of a GPU: zero-based as DCGM does, or one-based as dcgm-exporter does."},

		// Labels.
		{name: "use-old-namespace", aliases: []string{"o"}, env: "DCGM_EXPORTER_USE_OLD_NAMESPACE", kind: kindSwitch,
			help: "Use the label names of dcgm-exporter 1.x: uuid, pod_name, pod_namespace, container_name."},
		{name: optNoHostname, aliases: []string{"n"}, env: "DCGM_EXPORTER_NO_HOSTNAME", kind: kindSwitch,
			help: "Leave the hostname label out."},
		{name: optHostnameLabel, kind: kindText, def: "hostname", arg: "NAME",
			help: "Name of the hostname label: hostname, or Hostname as in dcgm-exporter up to 4.8."},
		{name: "replace-blanks-in-model-name", aliases: []string{"rbmn"}, env: "DCGM_EXPORTER_REPLACE_BLANKS_IN_MODEL_NAME", kind: kindSwitch,
			help: "Write the model name with dashes for blanks."},

		// Kubernetes.
		{name: "kubernetes", aliases: []string{"k"}, env: "DCGM_EXPORTER_KUBERNETES", kind: kindSwitch,
			help: "Map devices to pods."},
		{name: "kubernetes-gpu-id-type", env: "DCGM_EXPORTER_KUBERNETES_GPU_ID_TYPE", kind: kindText, def: "uid", arg: "TYPE",
			help: "What a bare number means as a device ID: uid (index) or device-name (minor number)."},
		{name: "pod-resources-kubelet-socket", env: "DCGM_POD_RESOURCES_KUBELET_SOCKET", kind: kindText, def: "/var/lib/kubelet/pod-resources/kubelet.sock", arg: "PATH",
			help: "Socket of the kubelet's pod-resources API."},
		{name: "nvidia-resource-names", env: "NVIDIA_RESOURCE_NAMES", kind: kindList, arg: "NAME",
			help: "Further resource names that stand for GPUs. Repeatable, or separated by commas."},
		{name: optVirtualGPUs, env: "KUBERNETES_VIRTUAL_GPUS", kind: kindSwitch,
			help: "Repeat the series of a shared GPU for each pod on it, as dcgm-exporter does. Sums over pods then count it several times."},
		{name: optPodUsage, kind: kindSwitch, def: "true",
			help: "With --kubernetes, tell what each pod uses of its devices, from the processes on them. Needs the PID namespace of the host."},
		{name: optDRA, env: "KUBERNETES_ENABLE_DRA", kind: kindSwitch,
			help: "Map devices of ResourceClaims (DRA), too. Needs access to ResourceSlices."},
		{name: optPodLabels, env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_LABELS", kind: kindSwitch,
			help: "Show the labels of pods."},
		{name: optPodLabelAllow, env: "DCGM_EXPORTER_KUBERNETES_POD_LABEL_ALLOWLIST_REGEX", kind: kindList, arg: "REGEX",
			help: "Which labels of pods to show: those with a name that one of the expressions matches. Repeatable, or separated by commas. Without it, all."},
		{name: optAnnotations, kind: kindList, arg: "REGEX",
			help: "Which annotations of pods to show. Repeatable. Without it, none."},
		{name: optPodLabelsForm, kind: kindText, def: podLabelsOnSeries, arg: "FORM",
			help: "Where labels and annotations of pods go: series (of the pod's devices) or family (gpu_pod_labels, to join)."},
		{name: optPodUID, env: "DCGM_EXPORTER_KUBERNETES_ENABLE_POD_UID", kind: kindSwitch,
			help: "Add the label pod_uid."},
		{name: optWorkload, kind: kindSwitch,
			help: "Add the labels workload and workload_kind: the topmost object that the pod belongs to, such as a Deployment."},
		{name: optMetadataSource, kind: kindText, def: metadataAuto, arg: "SOURCE",
			help: "Where UIDs, labels, annotations and workloads of pods come from: kubelet (its Pods API, Kubernetes 1.37 and newer), api-server, or auto (the kubelet where it has them)."},
		{name: optPodsSocket, kind: kindText, def: "/var/lib/kubelet/pods-api/pods-api.sock", arg: "PATH",
			help: "Socket of the kubelet's Pods API."},
		{name: optKubeconfig, kind: kindText, arg: "FILE",
			help: "How to reach the API server. Without it, as pods do."},
		{name: optNodeName, env: "NODE_NAME", kind: kindText, arg: "NAME",
			help: "Name of this node in Kubernetes. Without it, the host's name."},

		// Outside Kubernetes.
		{name: optHPCDir, env: "DCGM_HPC_JOB_MAPPING_DIR", kind: kindText, arg: "DIR",
			help: "Directory with a file for each GPU (named after its number, or GPU.INSTANCE) that lists the jobs on it."},
		{name: optSlurm, kind: kindText, def: slurmAuto, arg: "WHEN",
			help: "Find Slurm's jobs by their cgroups: on, off, or auto (where Slurm's cgroups are, but not with --kubernetes)."},
		{name: optDockerSocket, kind: kindText, arg: "PATH",
			help: "Socket of a Docker engine. With it, containers that hold GPUs are shown."},
		{name: optDockerSocket2, env: "DCGM_CONTAINER_RUNTIME_SOCKET", kind: kindText, arg: "PATH",
			help: "Same as --docker.socket."},
		{name: optDockerLabels, kind: kindList, arg: "REGEX",
			help: "Which labels of containers to show. Repeatable. Without it, none."},
		{name: optPodLogs, kind: kindText, def: "/var/log/pods", arg: "DIR",
			help: "Where the kubelet's directory of logs is mounted: its names tell the UIDs of pods."},
		{name: optProcFS, kind: kindText, def: "/proc", arg: "DIR",
			help: "Where the host's procfs is mounted."},
		{name: optCgroupFS, kind: kindText, def: "/sys/fs/cgroup", arg: "DIR",
			help: "Where the host's cgroups are mounted."},

		// Web.
		{name: optListenAddress, kind: kindList},
		{name: optSystemdSocket, kind: kindSwitch},
		{name: optWebConfig, kind: kindText},
		{name: optAddress, aliases: []string{"a"}, env: "DCGM_EXPORTER_LISTEN", kind: kindText, arg: "ADDRESS",
			help: "Same as --web.listen-address, once."},
		{name: optSystemdSocket2, env: "DCGM_EXPORTER_SYSTEMD_SOCKET", kind: kindSwitch,
			help: "Same as --web.systemd-socket."},
		{name: optWebConfig2, env: "DCGM_EXPORTER_WEB_CONFIG_FILE", kind: kindText, arg: "FILE",
			help: "Same as --web.config.file."},
		{name: optMaxRequests, kind: kindText, def: "40", arg: "N",
			help: "Scrapes served at the same time; further ones get status 503."},
		{name: optMaxRequests2, env: "DCGM_EXPORTER_MAX_CONCURRENT_SCRAPES", kind: kindText, arg: "N",
			help: "Same as --web.max-requests."},
		{name: optReadTimeout, env: "DCGM_EXPORTER_WEB_READ_TIMEOUT", kind: kindText, def: defaultTimeouts().read.String(), arg: "DURATION",
			help: "Accepted for compatibility, without effect: the time to send a request in is fixed."},
		{name: optWriteTimeout, env: "DCGM_EXPORTER_WEB_WRITE_TIMEOUT", kind: kindText, def: defaultTimeouts().write.String(), arg: "DURATION",
			help: "Accepted for compatibility, without effect: the time to take an answer in is fixed."},
		{name: optOwnMetrics, env: "DCGM_EXPORTER_ENABLE_EXPORTER_METRICS", kind: kindSwitch, def: "true",
			help: "Accepted for compatibility: metrics of the exporter itself are always served."},
		{name: optAdminAPI, kind: kindSwitch,
			help: "Let clients pause profiling: POST /-/profiling/pause?for=10m and /-/profiling/resume."},
		{name: "enable-pprof", env: "DCGM_EXPORTER_ENABLE_PPROF", kind: kindSwitch,
			help: "Serve profiles under /debug/pprof/."},

		// Log.
		{name: optLogLevel, kind: kindText, def: "info", arg: "LEVEL",
			help: "Lowest level to log: " + listOf(promslog.LevelFlagOptions) + "."},
		{name: optLogFormat, kind: kindText, def: "logfmt", arg: "FORMAT",
			help: "Format of the log: " + listOf(promslog.FormatFlagOptions) + "."},
		{name: optDebug, env: "DCGM_EXPORTER_DEBUG", kind: kindSwitch,
			help: "Same as --log.level=debug."},
		{name: optLogFormat2, env: "DCGM_EXPORTER_LOG_FORMAT", kind: kindText, arg: "FORMAT",
			help: "Same as --log.format, as text or json."},

		// Flags of dcgm-exporter that do not exist here.
		{name: optConfigFile2, env: "DCGM_EXPORTER_CONFIG_FILE", kind: kindText, missing: true,
			instead: "its file has another form than ours: say what it says in the form of etc/gpu_exporter.yaml, and give that with --" + optConfigFile},
		{name: "configmap-data", aliases: []string{"m"}, env: "DCGM_EXPORTER_CONFIGMAP_DATA", kind: kindText, def: "none", missing: true,
			instead: "mount the ConfigMap, and give its file with --" + optCollectors},
		{name: "container-labels", env: "DCGM_EXPORTER_CONTAINER_LABELS", kind: kindSwitch, missing: true,
			instead: "names of containers are not on series, but in gpu_container_info, to be joined: give --" + optDockerSocket + " alone"},
		{name: "health-require-gpus", env: "DCGM_EXPORTER_HEALTH_REQUIRE_GPUS", kind: kindSwitch, missing: true,
			instead: "/health tells that the exporter answers: let the probe ask /-/ready, and alert on absent(gpu_up)"},
		{name: "fake-gpus", env: "DCGM_EXPORTER_USE_FAKE_GPUS", kind: kindSwitch, missing: true,
			instead: "use --" + optSimulate},
		{name: "dump-enabled", env: "DCGM_EXPORTER_DUMP_ENABLED", kind: kindSwitch, missing: true},
		{name: "dump-directory", env: "DCGM_EXPORTER_DUMP_DIRECTORY", kind: kindText, def: "/tmp/dcgm-exporter-debug", missing: true},
		{name: "dump-retention", env: "DCGM_EXPORTER_DUMP_RETENTION", kind: kindText, def: "24", missing: true},
		{name: "dump-compression", env: "DCGM_EXPORTER_DUMP_COMPRESSION", kind: kindSwitch, def: "true", missing: true},
	}
}

// notHere says that a missing flag is asked for, and what to do.
func (o option) notHere(from string) string {
	if o.instead == "" {
		return from + ": this option of dcgm-exporter is not available: remove it"
	}
	return fmt.Sprintf("%s: this option of dcgm-exporter is not available: %s", from, o.instead)
}

// declare adds the flag to app, unless exporter-toolkit has added it already, and
// returns how to read it after parsing.
// Values are taken as text: checking them is newConfig's work, which can say
// where a value came from and reports all that is wrong at once.
func (o option) declare(app *kingpin.Application) func() given {
	clause := app.GetFlag(o.name)
	if clause == nil {
		help := o.help
		if o.env != "" {
			help += " ($" + o.env + ")"
		}
		clause = app.Flag(o.name, help)
		if o.arg != "" {
			clause.PlaceHolder(o.arg)
		}
		if o.def != "" && o.kind == kindText {
			clause.PlaceHolder(o.def)
		}
		for _, alias := range o.aliases {
			if len(alias) == 1 {
				clause.Short(rune(alias[0]))
			}
		}
		if o.missing {
			clause.Hidden()
		}
	}
	set := new(bool)
	clause.IsSetByUser(set)
	switch o.kind {
	case kindSwitch:
		v := clause.Bool()
		return func() given { return given{set: *set, text: strconv.FormatBool(*v)} }
	case kindList:
		v := clause.Strings()
		return func() given { return given{set: *set, list: *v} }
	default:
		v := clause.String()
		return func() given { return given{set: *set, text: *v} }
	}
}

// given is what the command line says of one flag.
type given struct {
	set  bool
	text string
	list []string // of a flag that can be repeated
}
