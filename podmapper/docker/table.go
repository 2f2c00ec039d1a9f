// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"gpu_exporter/podmapper/device"
)

// Container is a running or paused container.
type Container struct {
	ID    string // 64 hexadecimal digits
	Name  string // without the leading slash
	Image string // the reference with which the container was created
	// ComposeProject and ComposeService are empty outside of Docker Compose.
	ComposeProject, ComposeService string
	// Labels are those that Config.KeepLabel accepts, sorted by key.
	Labels []KeyValue
}

// KeyValue is a label of a container.
type KeyValue struct{ Key, Value string }

func compareContainers(a, b Container) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}

// Devices are the devices of a container, as the engine names them.
type Devices struct {
	// All: every GPU and every MIG device of the node. IDs is empty then.
	All bool
	// IDs are sorted and unique. Their forms are FormIndex, FormDeviceName,
	// FormGPUUUID, FormMIGUUID, FormMIGPath, FormMIGIndex, FormMIGCapability and
	// FormPCIBusID.
	IDs []device.ID
}

// None reports whether there are no devices.
func (d Devices) None() bool { return !d.All && len(d.IDs) == 0 }

// Hold is a container and its devices.
type Hold struct {
	Devices   Devices
	Container Container
	Since     time.Time // when the container was first listed
}

// Unresolved is a request of a container for devices that are unknown.
type Unresolved struct {
	ID, Name string // of the container
	Request  string // in the engine's words
	Reason   string // why the devices are unknown
	Hint     string // what a user can do about it
	// Maybe are the positions of the devices that it may hold. Nil: any. Only Match sets it.
	Maybe []int
}

func compareUnresolved(a, b Unresolved) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID),
		strings.Compare(a.Request, b.Request), strings.Compare(a.Reason, b.Reason))
}

// Table is an immutable list of containers and their devices. The pointer changes
// if and only if the content does.
type Table struct {
	// Time is the start of the refresh that found this content.
	Time time.Time
	// Holds has one entry for each container with devices, sorted by name and ID.
	Holds []Hold
	// Unresolved is sorted by name and ID of the container.
	Unresolved []Unresolved

	containers int // includes containers without devices, except those of Kubernetes
	places     *device.Places
	confirmed  time.Time
}

// At returns the table with the history of the node's devices, and with the start of
// the last refresh that returned it. Without them, a name that depends on the place of
// a device means the current one.
func (t *Table) At(places *device.Places, confirmed time.Time) *Table {
	if t == nil {
		return nil
	}
	at := *t
	at.places, at.confirmed = places, confirmed
	return &at
}

// Match is the join of a table and the devices of the node.
type Match struct {
	// Containers[i] hold device i of the index: sorted by name and ID, unique.
	Containers [][]Container
	// Unmatched are the unresolved requests of the table, and those that match no
	// device of the node. Sorted.
	Unmatched []Unresolved
}

// Match finds the containers that hold the devices of an index. A GPU in MIG mode
// has no holder, because only its MIG devices are usable. Holders of a compute
// instance also hold the GPU instance around it. A nil table has no holds.
func (t *Table) Match(x *device.Index) Match {
	m := Match{Containers: make([][]Container, x.Len())}
	if t == nil {
		return m
	}
	m.Unmatched = slices.Clone(t.Unresolved)
	for i := range t.Holds {
		h := &t.Holds[i]
		var held []int
		if h.Devices.All {
			held = x.Usable()
		}
		holding := x.Holding(t.places, device.Hold{Since: h.Since, Confirmed: t.confirmed})
		for _, id := range h.Devices.IDs {
			found, miss := holding.FindUsable(id)
			if len(found) == 0 {
				m.Unmatched = append(m.Unmatched, Unresolved{ID: h.Container.ID, Name: h.Container.Name,
					Request: id.String(), Reason: miss.Reason, Hint: miss.Hint, Maybe: miss.Maybe})
			}
			held = append(held, found...)
		}
		slices.Sort(held)
		for _, at := range slices.Compact(held) {
			m.Containers[at] = append(m.Containers[at], h.Container)
		}
	}
	slices.SortFunc(m.Unmatched, compareUnresolved)
	return m
}
