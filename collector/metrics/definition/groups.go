// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package definition

import (
	"fmt"
	"slices"
	"strings"
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
	Families []*Family
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
		{"devices", "Identity and state of the devices", Lean, churnDevice + ", or its driver or VBIOS is updated", []*Family{
			&GPUUp, &GPUInfo, &GPURecoveryAction, &GPURecoveryActionInfo}},
		{"xids", "XID errors", Lean, churnCode, []*Family{&GPUXIDErrors, &GPUXIDCodeErrors, &GPUXIDCodeLastTimestamp}},
		{"owners", "Pods, jobs and containers that hold devices", Lean, churnOwner, []*Family{
			&GPUOwners, &GPUPodInfo, &GPUPodLabels, &GPUJobInfo, &GPUContainerInfo}},
		{"busy", "Busy time of the devices", Lean, churnDevice, []*Family{&GPUBusySeconds}},
		{"exporter", "State of the exporter and its sources", Lean, churnNode + ", except for new reasons and owner sources", []*Family{
			&SelectedGroup, &ExporterGPUs, &SamplerUp, &SamplerRestarts, &SamplerRestartsByReason, &SamplerUnreapable, &FramesRejected, &FramesRejectedByReason,
			&LastSample, &SampleDuration, &FieldsMissing, &FieldsMissingByReason, &MIGReadUp, &NVLinkReadUp, &SourceInfo, &HealthCheckUp, &HealthCheckFailures,
			&KernelLogUp, &KernelLogLost, &KernelLogUnmatched, &ProfilingPausedUntil,
			&OwnerSourceUp, &OwnerSourceLastSuccess, &OwnerSourceUnmatchedDevices, &OwnerSourceFailures, &OwnerSourceFailuresByReason}},

		{"usage", "What pods use of their devices", Default, churnOwner, []*Family{&GPUPodProcesses, &GPUPodMemoryUsed, &GPUPodSMUtilization}},
		{"energy", "Energy of the boards", Default, churnGPU, []*Family{&GPUEnergyJoules}},
		{"engines", "Active time of engines and pipes", Default, churnDevice, []*Family{&GPUEngineActiveSeconds}},
		{"traffic", "Data moved over NVLink and PCIe", Default, churnGPU, []*Family{&GPUNVLinkBytes, &GPUPCIeBytes}},
		{"clocks", "Time with reduced clocks", Default, churnGPU, []*Family{&GPUClockEventSeconds}},
		{"limits", "Limits and settings", Default, churnGPU, []*Family{
			&GPUThermalMargin, &GPUSlowdownTemperature, &GPUTemperature, &GPUPowerLimit, &GPUPCIeLinkWidth, &GPUPCIeLinkWidthMax, &GPUPersistenceMode}},
		{"errors", "Errors of memory and PCIe", Default, churnGPU, []*Family{
			&GPUECCErrors, &GPURowRemapPending, &GPURowRemapFailed, &GPURowRemapExhaustedBanks, &GPURetiredPagesPending, &GPUMemoryUnrepairable, &GPUSRAMThresholdExceeded, &GPUPCIeReplays}},
		{"nvlink", "NVLinks of a GPU together, and NVSwitches", Default, churnGPU, []*Family{&GPUNVLinks, &GPUNVLinkErrors, &GPUNVSwitchUp}},
		{"fabric", "NVLink fabric", Default, churnIncident, []*Family{
			&GPUFabricState, &GPUFabricStateInfo, &GPUFabricHealth, &GPUFabricHealthInfo, &GPUFabricInfo}},
		{"health", "DCGM's health checks", Default, churnIncident, []*Family{&GPUHealthStatus, &GPUHealthIncidentInfo}},
		{"profiling", "State of the profiling fields", Default, churnIncident, []*Family{&GPUProfilingState, &GPUProfilingStateInfo}},

		{"usage-detail", "Usage by type of process, and of video engines", Full, churnOwner, []*Family{&GPUPodProcessMemoryUsed, &GPUPodEncoderUtilization, &GPUPodDecoderUtilization}},
		{"links", "Every NVLink and the identity of NVSwitches", Full, churnGPU, []*Family{&GPUNVLinkUp, &GPUNVSwitchInfo}},
		{"peers", "Connections between GPUs", Full, churnGPU, []*Family{&GPUP2PStatus, &GPUPeerNVLinks, &GPUTopologyInfo}},
		{"clocks-detail", "Clocks by setting or idleness, and the reasons at the moment", Full, churnGPU, []*Family{
			&GPUClockPolicySeconds, &GPUClockEventActive}},
		{"violations", "Driver's counters of time by policy, which repeat clock events", Full, churnGPU, []*Family{&GPUViolationSeconds, &GPUClocksBelowSeconds}},
		{"errors-detail", "ECC errors by memory, over the life of the GPU, and spare rows", Full, churnGPU, []*Family{
			&GPUECCLocationErrors, &GPUECCLifetimeErrors, &GPUECCLifetimeLocationErrors, &GPURemappedRows, &GPURowRemapBanks, &GPURetiredPages}},
		{"health-detail", "DCGM's health checks by system", Full, churnGPU, []*Family{&GPUHealthSystemStatus}},
		{"exporter-detail", "Durations and times of the exporter's readings", Full, churnNode, []*Family{
			&NVLinkLastRead, &IntegratedGap, &HealthCheckLastSuccess, &HealthCheckDuration, &PodResourcesRefreshDuration, &ProcessesLastRead, &ProcessesUnattributed, &ProcessesUnreadDevices,
			&GPUProfilingRewatches}},
	}
}

// Selection is the groups that are published. The zero value has none.
type Selection struct {
	list   string
	groups []string // in the order of Groups
	has    map[*Family]bool
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
	s := Selection{list: list, has: map[*Family]bool{}}
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
func (s Selection) Has(d *Family) bool { return s.has[d] }
