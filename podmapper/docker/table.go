// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"gpu_exporter/podmapper"
)

// Container is a running or paused container.
type Container struct {
	ID    string // 64 hexadecimal digits
	Name  string // without the slash in front
	Image string // as it was asked for when the container was made
	// ComposeProject and ComposeService are empty outside of Docker Compose.
	ComposeProject, ComposeService string
	// Labels are those that Config.KeepLabel lets through, sorted by key.
	Labels []KeyValue
}

// KeyValue is a label of a container, with its key as the engine has it.
type KeyValue struct{ Key, Value string }

func compareContainers(a, b Container) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}

// MIGIndex names a MIG device as NVIDIA's container tools do in "0:1".
type MIGIndex struct {
	GPU int // NVML's index of the GPU
	MIG int // of the MIG device in it, as nvmlDeviceGetMigDeviceHandleByIndex takes it
}

// String gives the form "0:1".
func (m MIGIndex) String() string { return fmt.Sprintf("%d:%d", m.GPU, m.MIG) }

// MIGInstance names a compute instance as the driver's device files do.
type MIGInstance struct {
	Minor           int // N of the GPU's /dev/nvidiaN
	GPUInstance     int // NVML id
	ComputeInstance int // NVML id
}

// String gives the path that the driver has for it in mig-minors.
func (m MIGInstance) String() string {
	return fmt.Sprintf("gpu%d/gi%d/ci%d", m.Minor, m.GPUInstance, m.ComputeInstance)
}

// Devices are those that a container holds, as the engine names them. All lists
// are sorted and have everything once.
type Devices struct {
	// All: every GPU and every MIG device of the node. The lists are empty then.
	All bool
	// IDs have the forms FormNumber (NVML's index), FormDeviceName (the minor
	// number), FormGPUUUID, FormMIGUUID and FormMIGPath.
	IDs          []podmapper.DeviceID
	MIGIndexes   []MIGIndex
	MIGInstances []MIGInstance
}

// None says whether there are no devices.
func (d Devices) None() bool {
	return !d.All && len(d.IDs)+len(d.MIGIndexes)+len(d.MIGInstances) == 0
}

// String lists the devices for people.
func (d Devices) String() string {
	if d.All {
		return "all"
	}
	var names []string
	for _, id := range d.IDs {
		names = append(names, id.String())
	}
	for _, m := range d.MIGIndexes {
		names = append(names, m.String())
	}
	for _, m := range d.MIGInstances {
		names = append(names, m.String())
	}
	return strings.Join(names, " ")
}

// Hold is a container with the devices that it was given.
type Hold struct {
	Devices   Devices
	Container Container
}

// Unresolved is something about a container's devices that cannot be told, and
// is not guessed.
type Unresolved struct {
	ID, Name string // of the container
	Request  string // what asks for devices, as the engine has it
	Reason   string // why it cannot be told
	Hint     string // what to do about it
}

func compareUnresolved(a, b Unresolved) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID),
		strings.Compare(a.Request, b.Request), strings.Compare(a.Reason, b.Reason))
}

// Table says which containers hold which devices. It must not be modified. As
// long as nothing changes it is the same Table, so pointers tell whether
// anything is new.
type Table struct {
	// Version grows by one with each new content.
	Version uint64
	// Time is when the engine was asked for what is new.
	Time time.Time
	// Holds are sorted by name and ID of the container; one for each container
	// that has devices.
	Holds []Hold
	// Unresolved are sorted by name and ID of the container.
	Unresolved []Unresolved

	containers map[string]Container // by ID, also those without devices
}

// Container gives a running container, with devices or without, by its full ID.
// Kubernetes' containers are not among them. A nil table has none.
func (t *Table) Container(id string) (Container, bool) {
	if t == nil {
		return Container{}, false
	}
	c, ok := t.containers[id]
	return c, ok
}
