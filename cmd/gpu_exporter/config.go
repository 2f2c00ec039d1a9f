// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"time"

	"gpu_exporter/collector"
)

// config is what the flags and environment variables add up to: complete,
// checked, and plain data.
type config struct {
	ConfigFile string // empty: none
	// Include are the counters files of the configuration file; nil: Collectors, or the default.
	Include []string
	// Fields are counters beside those of the counters files, or in place of those
	// with the same name.
	Fields []collector.Counter
	Models []modelConfig
	// Lines are those of ConfigFile on which Fields and those of Models stand, if they
	// come from there.
	Lines map[fieldKey]int

	Collectors    string // path of the counters file; empty: the default counters
	Interval      time.Duration
	Resolution    time.Duration // between looks at what integrals are made of
	Histograms    bool          // of utilization, power and temperature
	MaxAge        time.Duration
	Devices       string // see collector.ParseSelector
	Switches      string // likewise, of NVSwitches and their links
	CPUs          string // likewise, of CPUs and their cores
	LinksFromOne  bool   // number the NVLinks of GPUs from 1
	Hostengine    string // address of a standalone engine; empty: embedded
	LibraryPath   string // directory with libdcgm.so.4; empty: the loader's
	Simulate      string // scenario; empty: real libraries
	DCGMLogLevel  string // DCGM's name of it; NONE: silent
	StartupChecks bool
	KernelLog     string        // on, off, auto
	KMsg          string        // path of the kernel log; empty: the default
	XIDCatalogue  string        // path of what differs from the built-in one; empty: nothing
	XIDWindow     time.Duration // of DCGM_EXP_XID_ERRORS_COUNT
	ClockWindow   time.Duration // of DCGM_EXP_CLOCK_EVENTS_COUNT
	// HealthInterval is the time between health checks; 0 if there are none.
	HealthInterval time.Duration

	UseOldNamespace bool
	HostnameLabel   string // name of the label; empty: none
	ReplaceBlanks   bool   // in model names

	Kubernetes    bool
	GPUIDType     string // uid or device-name
	KubeletSocket string
	ResourceNames []string // in addition to nvidia.com/*
	NodeName      string   // in Kubernetes; empty: not given
	VirtualGPUs   bool
	PodUsage      bool
	DRA           bool

	PodLabels, PodUID, Workload   bool
	LabelAllow, AnnotationAllow   []string // regular expressions
	PodLabelsForm, MetadataSource string
	PodsSocket, Kubeconfig        string

	HPCDir       string // empty: no job files
	Slurm        string // on, off, auto
	DockerSocket string // empty: no Docker engine is asked
	DockerLabels []string
	PodLogs      string
	ProcFS       string
	CgroupFS     string

	ListenAddresses []string
	SystemdSocket   bool
	WebConfigFile   string // empty: none
	MaxRequests     int
	Pprof           bool
	AdminAPI        bool // POST /-/profiling/pause and the like

	LogLevel  string // debug, info, warn, error
	LogFormat string // logfmt, json
}

// modelConfig is what is other on GPUs of some models.
type modelConfig struct {
	Match   string              // as for collector.ModelExpression
	Without []collector.FieldID // what they are not asked for
	Fields  []collector.Counter // what only they are asked for
}

// fieldKey names one of Fields, or of those of a model.
type fieldKey struct {
	model int // position in Models; -1: of Fields
	name  string
}

// showsPodLabels says whether labels or annotations of pods are asked for.
func (c config) showsPodLabels() bool { return c.PodLabels || len(c.AnnotationAllow) > 0 }

// nodeName is this node's in Kubernetes.
func (c config) nodeName() string {
	if c.NodeName != "" {
		return c.NodeName
	}
	name, err := os.Hostname()
	if err != nil {
		return "" // which the sources that need it refuse
	}
	return strings.ToLower(name) // as the kubelet takes it by default
}

// Values of flags.
const (
	linksFromZero = "zero-based"
	linksFromOne  = "one-based"

	podLabelsOnSeries = "series"
	podLabelsInFamily = "family"

	metadataAuto      = "auto"
	metadataKubelet   = "kubelet"
	metadataAPIServer = "api-server"

	slurmAuto = "auto"
	slurmOn   = "on"
	slurmOff  = "off"

	kernelLogAuto = "auto"
	kernelLogOn   = "on"
	kernelLogOff  = "off"
)

const (
	minInterval      = 100 * time.Millisecond
	advisedInterval  = time.Second
	maxAgeIntervals  = 3
	minDefaultMaxAge = 30 * time.Second

	minHealthInterval = time.Second
	minWindow         = time.Second
	maxWindow         = 24 * time.Hour
)

// newConfig checks what was given and completes it with defaults. A flag wins
// over its environment variable, that over the configuration file, and a variable
// that is set but empty counts as not set. The error lists all that is wrong, one
// line each; the configuration then still tells which files it is made of. Warnings
// are what works but is probably not meant.
func newConfig(opts []option, flags map[string]given, lookupEnv func(string) (string, bool)) (c config, warnings []string, err error) {
	r := resolver{values: make(map[string]value, len(opts))}
	r.loadFile(opts, flags, lookupEnv)
	for _, o := range opts {
		r.values[o.name] = r.resolve(o, flags[o.name], lookupEnv)
	}

	c = config{
		Collectors:      r.path(optCollectors),
		Interval:        r.interval(),
		Devices:         r.devices("devices"),
		Switches:        r.devices(optSwitches),
		CPUs:            r.devices(optCPUs),
		LinksFromOne:    r.oneOf(optLinkIndex, linksFromZero, linksFromOne) == linksFromOne,
		Hostengine:      r.hostengine(),
		LibraryPath:     r.path(optLibraryPath),
		Simulate:        r.path(optSimulate),
		DCGMLogLevel:    r.dcgmLogLevel(),
		StartupChecks:   !r.on("disable-startup-validate"),
		KernelLog:       r.oneOf(optKernelLog, kernelLogAuto, kernelLogOn, kernelLogOff),
		KMsg:            r.path(optKMsg),
		XIDCatalogue:    r.path(optXIDCatalogue),
		XIDWindow:       r.window(optXIDWindow),
		ClockWindow:     r.window(optClockWindow),
		UseOldNamespace: r.on("use-old-namespace"),
		HostnameLabel:   r.oneOf(optHostnameLabel, "hostname", "Hostname"),
		ReplaceBlanks:   r.on("replace-blanks-in-model-name"),
		Kubernetes:      r.on("kubernetes"),
		GPUIDType:       r.oneOf("kubernetes-gpu-id-type", "uid", "device-name"),
		KubeletSocket:   r.path("pod-resources-kubelet-socket"),
		ResourceNames:   r.items("nvidia-resource-names"),
		NodeName:        r.values[optNodeName].text,
		VirtualGPUs:     r.on(optVirtualGPUs),
		PodUsage:        r.on(optPodUsage),
		DRA:             r.on(optDRA),
		PodLabels:       r.on(optPodLabels),
		PodUID:          r.on(optPodUID),
		Workload:        r.on(optWorkload),
		LabelAllow:      r.expressions(optPodLabelAllow, r.items(optPodLabelAllow)),
		AnnotationAllow: r.expressions(optAnnotations, r.values[optAnnotations].list),
		PodLabelsForm:   r.oneOf(optPodLabelsForm, podLabelsOnSeries, podLabelsInFamily),
		MetadataSource:  r.oneOf(optMetadataSource, metadataAuto, metadataKubelet, metadataAPIServer),
		PodsSocket:      r.path(optPodsSocket),
		Kubeconfig:      r.path(optKubeconfig),
		HPCDir:          r.path(optHPCDir),
		Slurm:           r.oneOf(optSlurm, slurmAuto, slurmOn, slurmOff),
		DockerSocket:    r.dockerSocket(),
		DockerLabels:    r.expressions(optDockerLabels, r.values[optDockerLabels].list),
		PodLogs:         r.path(optPodLogs),
		ProcFS:          r.path(optProcFS),
		CgroupFS:        r.path(optCgroupFS),
		ListenAddresses: r.listenAddresses(),
		SystemdSocket:   r.either(optSystemdSocket, optSystemdSocket2).text == "true",
		WebConfigFile:   r.either(optWebConfig, optWebConfig2).text,
		MaxRequests:     r.maxRequests(),
		Pprof:           r.on("enable-pprof"),
		AdminAPI:        r.on(optAdminAPI),
		LogLevel:        r.logLevel(),
		LogFormat:       r.logFormat(),
	}
	c.MaxAge = r.maxAge(c.Interval)
	c.Resolution = r.resolution(c.Interval)
	c.Histograms = r.on(optHistograms)
	c.HealthInterval = r.healthInterval()
	r.addFile(&c)
	if r.on(optNoHostname) {
		c.HostnameLabel = ""
	}
	r.checkTogether(c, lookupEnv)
	return c, r.warnings, r.err()
}

// checkTogether finds settings that exclude each other, and those without effect.
func (r *resolver) checkTogether(c config, lookupEnv func(string) (string, bool)) {
	if a, b := r.values[optSimulate], r.values[optLibraryPath]; a.set && b.set {
		r.problem("%s and %s exclude each other: both say which libdcgm.so.4 to load", a.from, b.from)
	}
	if r.values[optKMsg].set && c.KernelLog == kernelLogOff {
		r.warn("%s: without effect with --%s=%s", r.values[optKMsg].from, optKernelLog, kernelLogOff)
	}
	r.checkCompatible()
	r.needsKubernetes(lookupEnv)
	if r.values[optPodLabelAllow].set && !c.PodLabels {
		r.warn("%s: without effect unless --%s is given", r.values[optPodLabelAllow].from, optPodLabels)
	}
	if r.values[optPodLabelsForm].set && !c.showsPodLabels() {
		r.warn("%s: without effect unless labels or annotations of pods are asked for", r.values[optPodLabelsForm].from)
	}
	if r.values[optDockerLabels].set && c.DockerSocket == "" {
		r.warn("%s: without effect unless --%s is given", r.values[optDockerLabels].from, optDockerSocket)
	}
}
