// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package config turns flags, environment variables, the configuration file and
// counters files into one validated configuration.
//
// Every setting is one entry of the flag tables and one struct field. The package
// reads files, but starts nothing, opens no connection and never logs: mistakes and
// warnings are returned, one line each.
package config

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// Config is a complete, validated configuration.
type Config struct {
	Live
	Static
}

// Live holds the settings that a reload replaces.
type Live struct {
	// Counters lists what is exported: the counters files, and the fields of the
	// configuration file.
	Counters     []field.Counter
	CountersName string               // where Counters come from, for messages
	Models       []wire.ModelRule     // which GPUs have which of the fields
	ModelMatches []string             // regular expressions of all entries of models
	Families     definition.Selection // besides the counters
	XIDs         *xid.Catalogue
	ConfigFile   string // path of the configuration file; empty: none
	// CountersConfigMap is NAMESPACE:NAME of a ConfigMap with a counters file; empty: none.
	CountersConfigMap string
	// Files are the files that this configuration was read from.
	Files []string
	Web   WebConfig

	Interval       time.Duration // between samples
	Resolution     time.Duration // between the readings that integrals are computed from
	Histograms     bool
	MaxAge         time.Duration // of a sample that is served
	AllowNoGPUs    bool          // the exporter is ready without GPUs
	Devices        string        // see collector.ParseSelector
	Switches       string        // as Devices, of NVSwitches and their links
	CPUs           string        // as Devices, of CPUs and their cores
	LinksFromOne   bool
	DCGMLogLevel   string        // NONE: silent
	XIDWindow      time.Duration // of DCGM_EXP_XID_ERRORS_COUNT
	ClockWindow    time.Duration // of DCGM_EXP_CLOCK_EVENTS_COUNT
	HealthInterval time.Duration // between health checks; 0: none

	UseOldNamespace bool
	HostnameLabel   string // name of the label; empty: none
	Hostname        string // value of the label; empty: see HostnameValue
	ReplaceBlanks   bool   // in model names

	countersFiles        []string // paths, or names of built-in ones
	xidCatalogue         string   // path
	linkBase             string   // zero-based or one-based
	dcgmLog, healthCheck bool
	zeroXID              bool
}

// Static holds the settings that need a restart. The hostengine is one of them:
// another engine may run on another machine, whose XIDs must not be mixed with these.
type Static struct {
	Hostengine  string // address of a standalone engine; empty: embedded
	LibraryPath string // directory with libdcgm.so.4; empty: the loader's
	Simulate    string // scenario; empty: real libraries
	KernelLog   string // KernelLogAuto, KernelLogOn or KernelLogOff
	KMsg        string // path of the kernel log; empty: DefaultKMsg

	Kubernetes    bool
	GPUIDType     string // uid or device-name
	KubeletSocket string
	ResourceNames []string // in addition to nvidia.com/*
	NodeName      string   // in Kubernetes; empty: not set
	VirtualGPUs   bool
	PodUsage      bool
	DRA           bool

	PodLabels, PodUID, Workload bool
	LabelAllow, AnnotationAllow []string // regular expressions
	PodLabelsForm               string   // PodLabelsOnSeries or PodLabelsInFamily
	MetadataSource              string   // MetadataAuto, MetadataKubelet or MetadataAPIServer
	PodsSocket, Kubeconfig      string

	HPCDir         string // empty: no job files
	Slurm          string // SlurmAuto, SlurmOn or SlurmOff
	SlurmUserNames bool
	DockerSocket   string // empty: no Docker engine
	DockerLabels   []string
	PodLogs        string
	ProcFS         string
	CgroupFS       string

	ListenAddresses []string
	SystemdSocket   bool
	WebConfigFile   string // empty: none
	MaxRequests     int
	StatusPage      bool
	Pprof           bool
	AdminAPI        bool

	LogLevel  string // debug, info, warn, error
	LogFormat string // logfmt, json
}

// Values of settings.
const (
	PodLabelsOnSeries = "series"
	PodLabelsInFamily = "family"

	MetadataAuto      = "auto"
	MetadataKubelet   = "kubelet"
	MetadataAPIServer = "api-server"

	SlurmAuto = "auto"
	SlurmOn   = "on"
	SlurmOff  = "off"

	KernelLogAuto = "auto"
	KernelLogOn   = "on"
	KernelLogOff  = "off"

	DefaultKMsg = "/dev/kmsg"
)

// The time-outs of the HTTP server. dcgm-exporter has flags for them.
const (
	HTTPReadTimeout  = 10 * time.Second
	HTTPWriteTimeout = 30 * time.Second
)

// Scenarios returns the names of the simulated nodes.
func Scenarios() []string {
	return []string{"h100x8", "h100x8-mig", "a100x8", "a100x7-mig", "t4x1", "mixed4", "dgx-h100", "gb200", "none"}
}

// ShowsPodLabels reports whether labels or annotations of pods are exported.
func (s *Static) ShowsPodLabels() bool { return s.PodLabels || len(s.AnnotationAllow) > 0 }

// Host returns the name of this node in Kubernetes, or "" if it is unknown. Without
// --kubernetes.node-name it is the host's name in lower case, the kubelet's default.
func (s *Static) Host() string {
	if s.NodeName != "" {
		return s.NodeName
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return strings.ToLower(name)
}

// SlurmMode returns the mode of --slurm.jobs. In auto mode, a Kubernetes node has no
// Slurm jobs.
func (s *Static) SlurmMode() string {
	if s.Slurm == SlurmAuto && s.Kubernetes {
		return SlurmOff
	}
	return s.Slurm
}

// WebFlags returns the settings of exporter-toolkit. The path is that of its file, or
// empty.
func (s *Static) WebFlags(path string) *web.FlagConfig {
	return &web.FlagConfig{
		WebListenAddresses: &s.ListenAddresses,
		WebSystemdSocket:   &s.SystemdSocket,
		WebConfigFile:      &path,
	}
}

// Source describes where values come from.
func (s *Static) Source() string {
	switch {
	case s.Simulate != "" && s.Hostengine != "":
		return "the host engine at " + s.Hostengine + ", through the stand-ins of scenario " + s.Simulate
	case s.Simulate != "":
		return "the simulated node " + s.Simulate
	case s.Hostengine != "":
		return "the host engine at " + s.Hostengine
	default:
		return "an embedded host engine"
	}
}

// HealthEvery returns the time between health checks, or 0. It is at least the
// interval, because results are published with a sample.
func (l *Live) HealthEvery() time.Duration {
	if l.HealthInterval == 0 {
		return 0
	}
	return max(l.HealthInterval, l.Interval)
}

// Engine returns the host in the address of DCGM's engine, which a socket does not have,
// and whether the engine is known to run on this machine.
func (s *Static) Engine() (host string, isLocal bool) {
	engine, _ := wire.ParseHostengine(s.Hostengine) // an error was reported when it was read
	ip, err := netip.ParseAddr(engine.Host)
	return engine.Host, s.Hostengine == "" || engine.Unix || engine.Host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// HostnameValue returns the value of the hostname label: --hostname, else by dcgm-exporter's
// rule the host of a remote engine if Kubernetes is off, else the name of the node, else
// the machine's name. The address of a local engine names no machine.
func (c *Config) HostnameValue(hostname func() (string, error)) (string, error) {
	if c.HostnameLabel == "" || c.Hostname != "" {
		return c.Hostname, nil
	}
	if host, isLocal := c.Engine(); host != "" && !isLocal && !c.Kubernetes {
		return host, nil
	}
	if c.NodeName != "" {
		return c.NodeName, nil
	}
	name, err := hostname()
	if err != nil {
		return "", fmt.Errorf("reading the machine's name for the %s label: %w (set --hostname, or remove the label with --label.hostname=%s)", c.HostnameLabel, err, noLabel)
	}
	return name, nil
}

// UnmatchedModels returns the entries of models that match none of the GPUs, each once.
func (c Config) UnmatchedModels(gpus []string) (matches []string) {
	for _, match := range c.ModelMatches {
		expression, err := wire.ModelExpression(match)
		if err == nil && !slices.ContainsFunc(gpus, expression.MatchString) && !slices.Contains(matches, match) {
			matches = append(matches, match)
		}
	}
	return matches
}

// CollectedKinds returns the kinds of entities whose fields are read.
func CollectedKinds() []model.EntityKind {
	return []model.EntityKind{
		model.KindGPU, model.KindGPUInstance, model.KindComputeInstance, model.KindSwitch, model.KindLink,
		model.KindCPU, model.KindCPUCore, model.KindConnectX,
	}
}

// Lookup returns a function that looks variables up in an environment in the form of
// os.Environ. The last definition of a variable wins.
func Lookup(environ []string) func(name string) (string, bool) {
	return func(name string) (string, bool) {
		for _, entry := range slices.Backward(environ) {
			if k, v, ok := strings.Cut(entry, "="); ok && k == name {
				return v, true
			}
		}
		return "", false
	}
}

// ListOf joins words as "a, b or c".
func ListOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
