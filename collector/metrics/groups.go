// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"slices"
	"strings"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/state"
)

// Preset is a named choice of groups. Each preset has all groups of the one before.
type Preset int

// The presets.
const (
	Lean    Preset = iota // whether the GPUs work, who holds them and whether they are busy
	Default               // in addition what the alerts and dashboards need
	Full                  // everything
)

var presetNames = [...]string{"lean", "default", "full"}

func (p Preset) String() string { return presetNames[p] }

// Group is the families that --families selects together.
type Group struct {
	Name   string
	About  string
	Preset Preset // the smallest that has the group
	// Churn is when series end and others begin.
	Churn    string
	Families []*Definition
}

const (
	churnGPU      = "when a GPU is replaced"
	churnDevice   = "when a GPU is replaced or repartitioned"
	churnOwner    = "when a pod, job or container starts or ends"
	churnIncident = "info families when a state begins or ends, the rest when a GPU is replaced"
	churnCode     = "by code when it occurs for the first time, the rest when a GPU is replaced"
	churnNode     = "never"
)

// Groups returns all definitions, each in one group.
func Groups() []Group {
	return []Group{
		{"devices", "Identity and state of the devices", Lean, churnDevice + ", or its driver or VBIOS is updated", []*Definition{
			&gpuUp, &gpuInfo, &gpuRecoveryAction, &gpuRecoveryInfo}},
		{"xids", "XID errors", Lean, churnCode, []*Definition{&gpuXIDErrors, &gpuXIDCodeErrors, &gpuXIDCodeLast}},
		{"owners", "Pods, jobs and containers that hold devices", Lean, churnOwner, []*Definition{
			&gpuOwners, &gpuPodInfo, &gpuPodLabels, &gpuJobInfo, &gpuContainerInfo}},
		{"busy", "Busy time of the devices", Lean, churnDevice, []*Definition{&gpuBusySeconds}},
		{"exporter", "State of the exporter and its sources", Lean, churnNode + ", except for new reasons and owner sources", []*Definition{
			&familyGroup, &gpusFound, &samplerUp, &samplerRestarts, &samplerReasons, &samplerUnreapable, &framesRejected, &framesReasons,
			&lastSample, &sampleDuration, &fieldsMissing, &fieldsReasons, &migUp, &linksUp, &sourceInfo, &healthUp, &healthFailures,
			&kernelLogUp, &kernelLogLost, &kernelLogUnmatched, &profilingPausedUntil,
			&sourceUp, &sourceLast, &sourceUnmatched, &sourceFailures, &sourceReasons}},

		{"usage", "What pods use of their devices", Default, churnOwner, []*Definition{&gpuPodProcesses, &gpuPodMemory, &gpuPodSM}},
		{"energy", "Energy of the boards", Default, churnGPU, []*Definition{&gpuEnergyJoules}},
		{"engines", "Active time of engines and pipes", Default, churnDevice, []*Definition{&gpuEngineActiveSeconds}},
		{"traffic", "Data moved over NVLink and PCIe", Default, churnGPU, []*Definition{&gpuNVLinkBytes, &gpuPCIeBytes}},
		{"clocks", "Time with reduced clocks", Default, churnGPU, []*Definition{&gpuClockEventSeconds}},
		{"limits", "Limits and settings", Default, churnGPU, []*Definition{
			&gpuThermalMargin, &gpuSlowdownTemperature, &gpuTemperature, &gpuPowerLimit, &gpuPCIeWidth, &gpuPCIeMaxWidth, &gpuPersistenceMode}},
		{"errors", "Errors of memory and PCIe", Default, churnGPU, []*Definition{
			&gpuECC, &gpuRemapPending, &gpuRemapFailed, &gpuRemapExhausted, &gpuRetiredPending, &gpuUnrepairable, &gpuSRAMExceeded, &gpuPCIeReplays}},
		{"nvlink", "NVLinks of a GPU together, and NVSwitches", Default, churnGPU, []*Definition{&gpuNVLinks, &gpuNVLinkErrors, &gpuNVSwitchUp}},
		{"fabric", "NVLink fabric", Default, churnIncident, []*Definition{
			&gpuFabricState, &gpuFabricStateInfo, &gpuFabricHealth, &gpuFabricHealthInfo, &gpuFabricInfo}},
		{"health", "DCGM's health checks", Default, churnIncident, []*Definition{&gpuHealthStatus, &gpuHealthIncident}},
		{"profiling", "State of the profiling fields", Default, churnIncident, []*Definition{&gpuProfilingState, &gpuProfilingInfo}},

		{"usage-detail", "Usage by type of process, and of video engines", Full, churnOwner, []*Definition{&gpuPodKinds, &gpuPodEncoder, &gpuPodDecoder}},
		{"links", "Every NVLink and the identity of NVSwitches", Full, churnGPU, []*Definition{&gpuNVLinkUp, &gpuNVSwitchInfo}},
		{"peers", "Connections between GPUs", Full, churnGPU, []*Definition{&gpuP2PStatus, &gpuPeerLinks, &gpuTopologyInfo}},
		{"clocks-detail", "Clocks by setting or idleness, and the reasons at the moment", Full, churnGPU, []*Definition{
			&gpuClockPolicySeconds, &gpuClockEventActive}},
		{"violations", "Driver's counters of time by policy, which repeat clock events", Full, churnGPU, []*Definition{&gpuViolation, &gpuBelowClocks}},
		{"errors-detail", "ECC errors by memory, over the life of the GPU, and spare rows", Full, churnGPU, []*Definition{
			&gpuECCLocation, &gpuECCLife, &gpuECCLifeLocation, &gpuRemappedRows, &gpuRemapBanks, &gpuRetiredPages}},
		{"health-detail", "DCGM's health checks by system", Full, churnGPU, []*Definition{&gpuHealthSystem}},
		{"exporter-detail", "Durations and times of the exporter's readings", Full, churnNode, []*Definition{
			&linksLast, &integratedGap, &healthLast, &healthDuration, &refreshDuration, &processesRead, &processesUnattributed, &processesUnread,
			&gpuProfilingRewatches}},
	}
}

// Selection is the groups that are published. The zero value has none.
type Selection struct {
	list   string
	groups []string // in the order of Groups
	has    map[*Definition]bool
}

// ParseSelection reads a list of presets and groups such as
// "default,links,-engines". A minus removes a preset or group, regardless of the order.
// A list that only removes starts from the default preset.
func ParseSelection(list string) (Selection, error) {
	groups := Groups()
	added, removed := map[string]bool{}, map[string]bool{}
	names := strings.Split(list, ",")
	if !slices.ContainsFunc(names, func(name string) bool { return !strings.HasPrefix(strings.TrimSpace(name), "-") }) {
		names = append(names, Default.String())
	}
	for _, name := range names {
		name, remove := strings.CutPrefix(strings.TrimSpace(name), "-")
		preset := slices.Index(presetNames[:], name)
		known := preset >= 0
		for _, g := range groups {
			if g.Name != name && preset < int(g.Preset) {
				continue
			}
			known = true
			if remove {
				removed[g.Name] = true
			} else {
				added[g.Name] = true
			}
		}
		if !known {
			return Selection{}, fmt.Errorf("%q is neither a group nor a preset of families: choose from %s, %s", name,
				strings.Join(presetNames[:], ", "), strings.Join(groupNames(groups), ", "))
		}
	}
	s := Selection{list: list, has: map[*Definition]bool{}}
	for _, g := range groups {
		if !added[g.Name] || removed[g.Name] {
			continue
		}
		s.groups = append(s.groups, g.Name)
		for _, d := range g.Families {
			s.has[d] = true
		}
	}
	return s, nil
}

func groupNames(groups []Group) []string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	return names
}

// String returns the list that the selection was read from.
func (s Selection) String() string { return s.list }

// Groups returns the names of the selected groups, in the order of [Groups].
func (s Selection) Groups() []string { return s.groups }

// Has reports whether a family is selected.
func (s Selection) Has(d *Definition) bool { return s.has[d] }

// Integrates reports whether the family of an integral is selected.
func (s Selection) Integrates(q state.Quantity) bool { return s.Has(integralFamilies[q]) }

// NeedsPeers reports whether a family or counter needs the connections between GPUs.
func (cfg *Config) NeedsPeers() bool {
	return cfg.Selected.Has(&gpuP2PStatus) || cfg.counts(field.P2PStatus)
}

// NeedsHealth reports whether a family or counter needs DCGM's health checks, which
// also read the connections between GPUs.
func (cfg *Config) NeedsHealth() bool {
	return cfg.Selected.Has(&gpuHealthStatus) || cfg.Selected.Has(&gpuHealthSystem) || cfg.NeedsPeers() || cfg.counts(field.GPUHealthStatus)
}

// NeedsUsage reports whether a series needs the processes on the devices.
func (cfg *Config) NeedsUsage() bool {
	return cfg.Selected.Has(&gpuPodProcesses) || cfg.Selected.Has(&gpuPodKinds) || cfg.Owners.VirtualGPUs
}

// counts reports whether the counters include one of the computed ones.
func (cfg *Config) counts(computed ...field.ComputedCounter) bool {
	return slices.ContainsFunc(cfg.Counters, func(c field.Counter) bool { return slices.Contains(computed, c.Computed) })
}
