// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package status describes the state of the node for people: it builds one value from what
// the exporter has in memory, and renders it as a page and as JSON. The conditions that make a
// GPU unhealthy, and the remedies, are those of the rules for Prometheus; they are in
// collector/metrics/definition.
//
// It must not read devices, owners or files, must not wait, and must do nothing without a
// visitor. A value that is unknown has a reason instead of a number.
package status

import (
	"slices"
	"time"
)

// State is the condition of a GPU or of the node.
type State string

// The states, worst first.
const (
	Lost        State = "lost"         // the GPU does not answer
	Recovery    State = "recovery"     // the driver requests a recovery action
	CriticalXID State = "critical_xid" // a critical XID in the last 24 hours
	Unhealthy   State = "unhealthy"    // a health check failed, or the hardware reports a defect
	Warning     State = "warning"      // something needs attention, and the GPU works
	Unknown     State = "unknown"      // not observed now
	Healthy     State = "healthy"      // observed, and no problem found
)

// states are all states, worst first.
func states() []State {
	return []State{Lost, Recovery, CriticalXID, Unhealthy, Warning, Unknown, Healthy}
}

// rank is 0 for the worst state.
func (s State) rank() int { return slices.Index(states(), s) }

func worst(a, b State) State {
	if b.rank() < a.rank() {
		return b
	}
	return a
}

// Status is the state of the node at one moment. Fields may be added in a minor version.
type Status struct {
	Time     time.Time `json:"time"`     // When the status was built.
	Node     string    `json:"node"`     // Name of the node, as in the hostname label.
	State    State     `json:"state"`    // The worst state of the node and its GPUs.
	Summary  string    `json:"summary"`  // Number of GPUs in each state, in words.
	Ready    bool      `json:"ready"`    // Whether `/-/ready` answers 200.
	NotReady string    `json:"notReady"` // Why not; empty if ready.
	Problems []Problem `json:"problems"` // Of the node and of devices without a row of their own, worst first.
	GPUs     []GPU     `json:"gpus"`     // Worst first.
	Sample   Sample    `json:"sample"`   // The newest sample.
	Sampler  Sampler   `json:"sampler"`  // The process that reads the GPUs.
	Versions Versions  `json:"versions"` // Versions of the software.
	Sources  []Source  `json:"sources"`  // Sources of owners and of XIDs.
	Missing  []Missing `json:"missing"`  // Fields without a value in the newest sample.
	Settings []Setting `json:"settings"` // Effective configuration; it has paths of secrets, but no secrets.
	// The simulated node, or null on a real one.
	Simulation *Simulation `json:"simulation"`
}

// Problem is a reason for a state that is not healthy.
type Problem struct {
	State  State  `json:"state"`  // The state that the problem causes.
	Text   string `json:"text"`   // What is wrong.
	Remedy string `json:"remedy"` // What to do; empty if nothing is known.
}

// Value is a number, or the reason why it is missing. A missing value is never 0.
type Value struct {
	Value   *float64 `json:"value"`   // The number, or null.
	Missing string   `json:"missing"` // Reason: `not_read`, `no_sample`, `per_instance`, or a reason of `gpu_exporter_fields_missing_by_reason`; empty with a value.
}

// Readings are the values of a GPU or GPU instance.
type Readings struct {
	Load        Value  `json:"loadRatio"`        // Share of time in which the GPU worked, 0 to 1.
	LoadField   string `json:"loadField"`        // The field that the load is from; empty without a value.
	MemoryUsed  Value  `json:"memoryUsedBytes"`  // Memory in use.
	MemoryTotal Value  `json:"memoryTotalBytes"` // Memory in total, including what the driver reserves.
}

// GPU is a GPU and its instances.
type GPU struct {
	ID       uint32 `json:"gpu"`          // DCGM's ID: the label `gpu`.
	UUID     string `json:"uuid"`         // UUID of the GPU.
	PCIBusID string `json:"pciBusId"`     // PCI address.
	Model    string `json:"model"`        // Name of the model.
	Serial   string `json:"serial"`       // Serial number of the board; empty if unknown.
	VBIOS    string `json:"vbiosVersion"` // Version of the VBIOS; empty if unknown.
	Minor    *int   `json:"minor"`        // N of `/dev/nvidiaN`, or null.
	MIG      bool   `json:"mig"`          // Whether the GPU is in MIG mode.

	State    State     `json:"state"`    // The worst state of its problems.
	Problems []Problem `json:"problems"` // Worst first.
	Holding

	Readings
	Temperature       Value      `json:"temperatureCelsius"`       // Temperature of the GPU.
	MemoryTemperature Value      `json:"memoryTemperatureCelsius"` // Temperature of the memory.
	ThermalMargin     Value      `json:"thermalMarginCelsius"`     // Distance to the temperature at which the GPU slows down.
	Power             Value      `json:"powerWatts"`               // Power of the board.
	PowerLimit        Value      `json:"powerLimitWatts"`          // Enforced limit of the power.
	ClockReasons      []string   `json:"clockReasons"`             // Reasons why the clocks are reduced, as in `gpu_clock_event_seconds_total` and `gpu_clock_policy_seconds_total`.
	NVLinks           *Links     `json:"nvlinks"`                  // NVLinks, or null without links or a fresh reading.
	XIDs              []XID      `json:"xids"`                     // XIDs since the exporter started, newest first.
	Instances         []Instance `json:"instances"`                // MIG instances.
}

// Instance is a GPU instance of a GPU in MIG mode.
type Instance struct {
	ID      int      `json:"gpuInstance"` // NVML's ID: the label `GPU_I_ID`.
	Profile string   `json:"profile"`     // The label `GPU_I_PROFILE`.
	UUIDs   []string `json:"migUuids"`    // UUIDs of its MIG devices.
	Holding
	Readings
}

// Links are the NVLinks of a GPU. Links that were never up do not count.
type Links struct {
	Up   int `json:"up"`   // Links that are up.
	Down int `json:"down"` // Links that went down.
}

// Holding states who holds a device.
type Holding struct {
	// `held`, `free`, `unknown`, `per_instance` (a GPU in MIG mode) or `no_source` (no
	// source of owners is configured).
	Held   string  `json:"held"`
	Owners []Owner `json:"owners"` // Known owners. With `unknown`, more may exist.
}

// Values of [Holding.Held].
const (
	held        = "held"
	free        = "free"
	notKnown    = "unknown"
	perInstance = "per_instance"
	noSource    = "no_source"
)

// Owner is a container of a pod, a batch job, or a container of a Docker engine.
type Owner struct {
	Kind      string `json:"kind"`      // `pod`, `job` or `container`.
	Namespace string `json:"namespace"` // Namespace of the pod; else empty.
	Name      string `json:"name"`      // Name of the pod or container, ID of the job.
	Container string `json:"container"` // Container of the pod; else empty.
	Detail    string `json:"detail"`    // Workload of the pod; name, user and partition of the job; image of the container.
	Shares    int    `json:"shares"`    // Shares of the device that it holds; 1 for a whole device.
}

// XID is how often an XID occurred on a GPU or one of its instances.
type XID struct {
	Code     int64      `json:"code"`     // The XID.
	Name     string     `json:"name"`     // NVIDIA's name; empty for a code outside the catalogue.
	Meaning  string     `json:"meaning"`  // What it means.
	Severity string     `json:"severity"` // `critical`, `warning` or `application`.
	Action   string     `json:"action"`   // NVIDIA's code of the action; may be empty.
	Remedy   string     `json:"remedy"`   // The action in words; may be empty.
	Count    uint64     `json:"count"`    // Since the exporter started.
	Last     *time.Time `json:"last"`     // When it last occurred, or null.
	Instance string     `json:"instance"` // GPU instance such as `1g.10gb 7`; empty for the GPU itself.
}

// Sample describes the newest sample.
type Sample struct {
	Time     *time.Time `json:"time"`            // When it was taken, or null without one.
	Age      *float64   `json:"ageSeconds"`      // Its age, or null.
	Duration *float64   `json:"durationSeconds"` // How long reading took, or null.
	Fresh    bool       `json:"fresh"`           // Whether its values are those of now.
	MaxAge   float64    `json:"maxAgeSeconds"`   // Age at which values are withheld.
	Interval float64    `json:"intervalSeconds"` // Time between samples.
}

// Sampler is the process that reads the GPUs.
type Sampler struct {
	State          string            `json:"state"`          // `sampling`, `starting`, `waiting` (for the next start) or `stuck` (in the kernel, after it was killed).
	EngineGone     bool              `json:"engineGone"`     // DCGM's engine failed after the newest sample.
	PID            int               `json:"pid"`            // Process ID, or 0.
	Started        *time.Time        `json:"started"`        // When it was started, or null.
	NextStart      *time.Time        `json:"nextStart"`      // When the next one starts, or null.
	Restarts       map[string]uint64 `json:"restarts"`       // Ended samplers by reason.
	FramesRejected map[string]uint64 `json:"framesRejected"` // Rejected frames by reason.
	LastFailure    string            `json:"lastFailure"`    // Why the last sampler ended; empty if none failed.
	PausedUntil    *time.Time        `json:"pausedUntil"`    // When the pause of profiling ends, or null.
}

// Versions are the versions of the software. Unknown ones are empty.
type Versions struct {
	Exporter string `json:"exporter"` // Version of gpu_exporter.
	Revision string `json:"revision"` // Its revision.
	Driver   string `json:"driver"`   // Version of NVIDIA's driver.
	DCGM     string `json:"dcgm"`     // Version of DCGM's engine.
	Engine   string `json:"engine"`   // Where values come from, in words.
}

// Source is the state of a source of owners or XIDs.
type Source struct {
	About  string   `json:"about"`      // Such as `kubelet`.
	Name   string   `json:"name"`       // Such as `pod-resources`.
	State  string   `json:"state"`      // `ok`, `note`, `warn` or `broken`.
	Detail string   `json:"detail"`     // What it has, or what is wrong.
	Advice string   `json:"advice"`     // What to do; may be empty.
	Age    *float64 `json:"ageSeconds"` // Time since its last success, or null. Sources that receive changes may be old.
}

// Missing is a field without a value on some entities.
type Missing struct {
	Field    string `json:"field"`    // Name of the field.
	Kind     string `json:"kind"`     // Kind of the entities, such as `gpu`.
	Reason   string `json:"reason"`   // As in `gpu_exporter_fields_missing_by_reason`.
	Lasting  bool   `json:"lasting"`  // The value remains missing while the sampler runs.
	Entities int    `json:"entities"` // Entities without the value for this reason.
	Of       int    `json:"of"`       // Entities on which the field is read.
}

// Setting is a setting as it is in effect.
type Setting struct {
	Name    string `json:"name"`    // Name of the flag.
	Value   string `json:"value"`   // Its value.
	Changed bool   `json:"changed"` // Whether the value is not the default.
}

// Simulation is the simulated node.
type Simulation struct {
	Summary  string    `json:"summary"`  // What is simulated.
	Steering string    `json:"steering"` // Start of a command line, to which a command is added in quotes; empty without the program.
	Commands []Command `json:"commands"` // Examples.
}

// Command steers a simulated node.
type Command struct {
	Command string `json:"command"` // The command.
	Meaning string `json:"meaning"` // What it does.
}
