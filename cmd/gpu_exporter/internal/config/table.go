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

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// subject is a group of flags: those whose names begin with its name and a dot.
type subject struct{ name, title string }

// The groups of other flags: those of the commands, and those of dcgm-exporter.
const (
	commandSubject = "(command)"
	compatSubject  = "(dcgm-exporter)"
)

// subjects returns the groups of flags in the order of --help and FLAGS.md.
func subjects() []subject {
	return []subject{
		{"config", "Configuration file"}, {"", "General"}, {"sample", "Sampling"}, {"counters", "Counters"}, {"devices", "Devices"}, {"dcgm", "DCGM"},
		{"xid", "XIDs"}, {"clock-events", "Clock events"}, {"health", "Health checks"}, {"label", "Labels"},
		{"kubernetes", "Kubernetes"}, {"slurm", "Slurm"}, {"jobs", "Other batch jobs"}, {"docker", "Docker"},
		{"path", "Paths of the host"}, {"web", "HTTP server"}, {"log", "Log"},
	}
}

const (
	// minInterval is the shortest time in which DCGM updates its fields.
	minInterval = 100 * time.Millisecond
	// advisedInterval is the shortest interval without a warning.
	advisedInterval = time.Second
	day             = 24 * time.Hour

	// simulatedAddress is the default address of a simulated node, which is for one user.
	simulatedAddress = "127.0.0.1:9400"
	// noLabel is the value of --label.hostname for no label.
	noLabel = "none"
	// envPrefix begins the variables of our flags.
	envPrefix = "GPU_EXPORTER_"
)

// settings is the table of all flags that make up a configuration.
//
// To add a flag, add a field to [Live] or [Static] and an entry to the table of that
// struct. The flag, its variable, its key in the configuration file, --help, FLAGS.md
// and the comparison at a reload follow from the entry. A name has the form subject.key.
// TestTables checks that entries are complete, and TestReload that each field of Static
// has one.
func (c *Config) settings() []*setting {
	all := append(c.Live.settings(), c.Static.settings()...)
	byName := map[string]*setting{}
	for _, s := range all {
		s.env = envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(s.name))
		byName[s.name] = s
	}
	for _, s := range compatibility() {
		name, _, _ := strings.Cut(s.means, "=")
		if own := byName[name]; own != nil {
			own.compat = s
			if own.kind == toggle {
				s.kind = toggle
			}
		}
		all = append(all, s)
	}
	return all
}

// settings is the table of the flags that a reload reads again.
func (l *Live) settings() []*setting {
	return []*setting{
		{name: "config.file", arg: "FILE", target: text(&l.ConfigFile),
			help: "Configuration file in YAML: the flags, nested by subject, and fields and models. Flags and variables win over it."},
		{name: "families", def: definition.Default.String(), arg: "LIST", target: selection(&l.Families),
			help: "Families of gpu_* and gpu_exporter_* to export: lean, default, full or groups, separated by commas. -NAME removes a group: default,links,-engines. METRICS.md lists the groups."},
		{name: "hostname", needs: "label.hostname", arg: "NAME", target: text(&l.Hostname),
			help: "Value of the hostname label. Default: the host of a remote DCGM engine (without --kubernetes.enabled), else --kubernetes.node-name, else the machine's name."},

		{name: "sample.interval", def: "5s", arg: "DURATION", target: duration(&l.Interval, minInterval, day),
			help: "Time between samples. At least 100ms."},
		{name: "sample.resolution", def: "1s", arg: "DURATION", target: duration(&l.Resolution, minInterval, day),
			help: "Time between the readings of power and utilization from which counters of energy and busy time are computed, where the GPU has no such counter. At most the interval."},
		{name: "sample.histograms", target: boolean(&l.Histograms),
			help: "Add native histograms of utilization, power and temperature. Prometheus must be configured to scrape native histograms."},
		{name: "sample.max-age", arg: "DURATION", target: duration(&l.MaxAge, minInterval, 7*day),
			help: "Age at which a sample is no longer served. Default: 3 intervals, at least 30s."},

		{name: "counters.file", arg: "FILE", target: values(&l.countersFiles, false, notEmpty),
			help: "Counters file: a CSV file of the fields to export, or " + ListOf(builtInCounters()) + ". Repeatable. Default: " + inheritedCounters + " if it exists, else builtin:default."},
		{name: "counters.config-map", arg: "NAMESPACE:NAME", target: optional(&l.CountersConfigMap),
			help: "ConfigMap whose key metrics is the counters file, read from the API server at the start and at each reload. It replaces --counters.file. Needs --kubernetes.kubeconfig or a service account that can get it."},

		{name: "devices.gpus", def: "f", arg: "SELECTOR", target: checked(&l.Devices, selector),
			help: "GPUs and GPU instances to export. f: the instances of MIG GPUs, and the GPUs without MIG; g or g:0,2-4: GPUs; i or i:0,2-4: GPU instances; g:0+i:1: both."},
		{name: "devices.allow-none", target: boolean(&l.AllowNoGPUs),
			help: "Be ready on a node without a GPU that answers."},
		{name: "devices.switches", def: "f", arg: "SELECTOR", target: checked(&l.Switches, selector),
			help: "NVSwitches and their links to export. f: all; g or g:0,2: switches; i or i:0,2: links; g:0+i:1: both."},
		{name: "devices.cpus", def: "f", arg: "SELECTOR", target: checked(&l.CPUs, selector),
			help: "CPUs and their cores to export. f: all; g or g:0: CPUs; i or i:0-71: cores; g:0+i:1: both."},

		{name: "dcgm.log", target: boolean(&l.dcgmLog), help: "Write the log of the embedded DCGM to the exporter's log."},
		{name: "dcgm.log-level", needs: "dcgm.log", def: "ERROR", arg: "LEVEL",
			target: one(&l.DCGMLogLevel, func(s string) (string, error) {
				s = strings.ToUpper(s)
				return s, contained(s, "NONE", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "VERB")
			}),
			help: "Level of DCGM's log: NONE, FATAL, ERROR, WARN, INFO, DEBUG or VERB."},

		{name: "xid.catalogue", arg: "FILE", target: text(&l.xidCatalogue),
			help: "CSV file in the form of etc/xid-catalogue.csv. Its lines replace or extend the built-in XID codes."},
		{name: "xid.last-zero", target: boolean(&l.zeroXID),
			help: "Export DCGM_FI_DEV_XID_ERRORS with the value 0 until the first XID, as dcgm-exporter does if the driver has that value. Default: no series."},
		{name: "xid.window", def: "5m", arg: "DURATION", target: duration(&l.XIDWindow, time.Second, day),
			help: "Window of DCGM_EXP_XID_ERRORS_COUNT."},
		{name: "clock-events.window", def: "5m", arg: "DURATION", target: duration(&l.ClockWindow, time.Second, day),
			help: "Window of DCGM_EXP_CLOCK_EVENTS_COUNT."},
		{name: "health.enabled", def: "true", target: boolean(&l.healthCheck),
			help: "Let DCGM check the health of the devices, and export how the GPUs reach each other."},
		{name: "health.interval", needs: "health.enabled", def: "10s", arg: "DURATION", target: duration(&l.HealthInterval, time.Second, day),
			help: "Time between health checks. It is at least the time between samples."},

		{name: "label.hostname", def: "hostname", arg: "NAME", target: oneOf(&l.HostnameLabel, "hostname", "Hostname", noLabel),
			help: "Name of the hostname label: hostname, Hostname as in dcgm-exporter up to 4.8.2, or none for no label. Its value is --hostname."},
		{name: "label.old-names", target: boolean(&l.UseOldNamespace),
			help: "Use the label names of dcgm-exporter 1.x: uuid, pod_name, pod_namespace, container_name."},
		{name: "label.replace-blanks", target: boolean(&l.ReplaceBlanks), help: "Replace blanks in model names with dashes."},
		{name: "label.nvlink-index", def: "zero-based", arg: "BASE", target: oneOf(&l.linkBase, "zero-based", "one-based"),
			help: "Numbering of the links of a GPU in the label nvlink: zero-based as in DCGM, or one-based as in dcgm-exporter."},
	}
}

// settings is the table of the flags that need a restart.
func (s *Static) settings() []*setting {
	return []*setting{
		{name: "simulate", arg: "SCENARIO", target: text(&s.Simulate),
			help: "Load stand-ins for NVIDIA's libraries that simulate a node: the path of a scenario file, or " + ListOf(Scenarios()) + "."},
		{name: "dcgm.hostengine", arg: "ADDRESS",
			target: checked(&s.Hostengine, func(s string) error { _, err := wire.ParseHostengine(s); return err }),
			help:   "Use the DCGM host engine at this address instead of an embedded one: HOST:PORT, [IPV6]:PORT, the path of a unix socket, tcp://, unix:// or vsock://."},
		{name: "dcgm.library-path", arg: "DIR", target: text(&s.LibraryPath),
			help: "Directory with libdcgm.so.4. It is searched before the system's directories."},

		{name: "xid.kernel-log", def: KernelLogAuto, arg: "MODE", target: oneOf(&s.KernelLog, KernelLogAuto, KernelLogOn, KernelLogOff),
			help: "Count XIDs from the kernel log instead of DCGM: on, off, or auto (if the log is readable and DCGM's engine runs on this machine)."},

		{name: "kubernetes.enabled", target: boolean(&s.Kubernetes), help: "Map devices to pods."},
		{name: "kubernetes.gpu-id-type", def: "uid", arg: "TYPE", target: oneOf(&s.GPUIDType, "uid", "device-name"),
			help: "Meaning of a bare number as device ID: uid (index) or device-name (minor number)."},
		{name: "kubernetes.pod-resources-socket", def: "/var/lib/kubelet/pod-resources/kubelet.sock", arg: "PATH", target: text(&s.KubeletSocket),
			help: "Socket of the kubelet's pod-resources API."},
		{name: "kubernetes.resource-names", arg: "NAME", target: list(&s.ResourceNames),
			help: "More resource names of GPUs. A minus in front excludes a resource below nvidia.com/. Repeatable, or separated by commas."},
		{name: "kubernetes.repeat-shared", needs: "kubernetes.enabled", target: boolean(&s.VirtualGPUs),
			help: "Repeat the series of a shared GPU for each of its pods, as dcgm-exporter does. Sums over pods then count the GPU several times."},
		{name: "kubernetes.pod-usage", def: "true", target: boolean(&s.PodUsage),
			help: "Export what each pod uses of its devices, from their processes. Needs the PID namespace of the host."},
		{name: "kubernetes.dra", needs: "kubernetes.enabled", target: boolean(&s.DRA),
			help: "Map the devices of ResourceClaims (DRA) as well. Needs access to ResourceSlices."},
		{name: "kubernetes.pod-labels", needs: "kubernetes.enabled", target: boolean(&s.PodLabels), help: "Export the labels of pods."},
		{name: "kubernetes.pod-label-allowlist", needs: "kubernetes.pod-labels", arg: "REGEX", target: values(&s.LabelAllow, true, expression),
			help: "Export only the pod labels whose name matches one of the expressions. Repeatable, or separated by commas. Default: all."},
		{name: "kubernetes.pod-annotation-allowlist", needs: "kubernetes.enabled", arg: "REGEX", target: values(&s.AnnotationAllow, false, expression),
			help: "Export the pod annotations whose name matches one of the expressions. Repeatable. Default: none."},
		{name: "kubernetes.pod-labels-form", needs: "kubernetes.pod-labels kubernetes.pod-annotation-allowlist", def: PodLabelsOnSeries, arg: "FORM",
			target: oneOf(&s.PodLabelsForm, PodLabelsOnSeries, PodLabelsInFamily),
			help:   "Place of pod labels and annotations: series (those of the pod's devices) or family (gpu_pod_labels, to join)."},
		{name: "kubernetes.pod-uid", needs: "kubernetes.enabled", target: boolean(&s.PodUID), help: "Add the label pod_uid."},
		{name: "kubernetes.workload", needs: "kubernetes.enabled", target: boolean(&s.Workload),
			help: "Add the labels workload and workload_kind: the topmost owner of the pod, such as a Deployment."},
		{name: "kubernetes.metadata-source", needs: "kubernetes.enabled", def: MetadataAuto, arg: "SOURCE",
			target: oneOf(&s.MetadataSource, MetadataAuto, MetadataKubelet, MetadataAPIServer),
			help:   "Source of pod UIDs, labels, annotations and workloads: kubelet (its Pods API, Kubernetes 1.37 and newer), api-server, or auto (the kubelet if it has the API)."},
		{name: "kubernetes.pods-socket", needs: "kubernetes.enabled", def: "/var/lib/kubelet/pods-api/pods-api.sock", arg: "PATH", target: text(&s.PodsSocket),
			help: "Socket of the kubelet's Pods API."},
		{name: "kubernetes.kubeconfig", arg: "FILE", target: text(&s.Kubeconfig),
			help: "Access to the API server. Default: the pod's service account."},
		{name: "kubernetes.node-name", arg: "NAME", target: optional(&s.NodeName),
			help: "Name of this node in Kubernetes. Default: the host's name."},

		{name: "slurm.jobs", def: SlurmAuto, arg: "MODE", target: oneOf(&s.Slurm, SlurmAuto, SlurmOn, SlurmOff),
			help: "Find Slurm jobs by their cgroups: on, off, or auto (if Slurm's cgroups exist and --kubernetes.enabled is off)."},
		{name: "slurm.user-names", target: boolean(&s.SlurmUserNames),
			help: "Export the names of users and of Slurm jobs, which the jobs can change. Otherwise gpu_job_info has the user's number, if it is known."},
		{name: "jobs.directory", arg: "DIR", target: text(&s.HPCDir),
			help: "Directory with one file per GPU that lists its jobs. A file is named after the GPU's number, or GPU.INSTANCE."},
		{name: "docker.socket", arg: "PATH", target: optional(&s.DockerSocket),
			help: "Socket of a Docker engine, to export the containers that hold GPUs. Empty: none."},
		{name: "docker.label-allowlist", needs: "docker.socket", arg: "REGEX", target: values(&s.DockerLabels, false, expression),
			help: "Export the container labels whose name matches one of the expressions. Repeatable. Default: none."},

		{name: "path.kmsg", needs: "xid.kernel-log", arg: "FILE", target: text(&s.KMsg), help: "The kernel log. Default: " + DefaultKMsg + "."},
		{name: "path.pod-logs", needs: "kubernetes.enabled", def: "/var/log/pods", arg: "DIR", target: text(&s.PodLogs),
			help: "The kubelet's directory of pod logs. The names in it contain the UIDs of pods."},
		{name: "path.procfs", def: "/proc", arg: "DIR", target: text(&s.ProcFS), help: "The host's procfs."},
		{name: "path.cgroupfs", def: "/sys/fs/cgroup", arg: "DIR", target: text(&s.CgroupFS), help: "The host's cgroups."},

		{name: "web.listen-address", def: ":9400", arg: "ADDRESS", target: values(&s.ListenAddresses, false, listenAddress),
			help: "Address to listen on: HOST:PORT, :PORT or vsock://:PORT. Repeatable. With --simulate, the default is " + simulatedAddress + "."},
		{name: "web.systemd-socket", target: boolean(&s.SystemdSocket), help: "Serve on the sockets of systemd's socket activation instead."},
		{name: "web.config.file", arg: "FILE", target: optional(&s.WebConfigFile),
			help: "File with TLS and authentication settings. See https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md."},
		{name: "web.max-requests", def: "40", arg: "N", target: number(&s.MaxRequests, 1, 100000),
			help: "Number of scrapes prepared at the same time. Further ones wait for up to 1s, and then get status 503."},
		{name: "web.status-page", def: "true", target: boolean(&s.StatusPage),
			help: "Serve the state of the node as a page on / and as JSON on /api/v1/status. Without it, / has links only."},
		{name: "web.enable-admin-api", target: boolean(&s.AdminAPI),
			help: "Let clients change the exporter: POST /-/reload, /-/profiling/pause?for=10m and /-/profiling/resume. One flag covers them, because each affects all users of the node. SIGHUP and changes of files reload without it."},
		{name: "web.enable-pprof", target: boolean(&s.Pprof), help: "Serve profiles under /debug/pprof/."},

		{name: "log.level", def: "info", arg: "LEVEL", target: oneOf(&s.LogLevel, promslog.LevelFlagOptions...),
			help: "Lowest level to log: " + ListOf(promslog.LevelFlagOptions) + "."},
		{name: "log.format", def: "logfmt", arg: "FORMAT", target: oneOf(&s.LogFormat, promslog.FormatFlagOptions...),
			help: "Format of the log: " + ListOf(promslog.FormatFlagOptions) + "."},
	}
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
