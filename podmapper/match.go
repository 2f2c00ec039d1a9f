// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"slices"
	"sync"

	"gpu_exporter/podmapper/device"
)

// nvidiaDriver is the DRA driver whose devices are GPUs and parts of them.
const nvidiaDriver = "gpu.nvidia.com"

// Match joins a table with the devices of the node.
type Match struct {
	// Owners[i] are the owners of devices[i], sorted, each once.
	Owners [][]Owner
	// Resolutions are those of the table's assignments, in their order, without the
	// devices of claims that are not GPUs.
	Resolutions []Resolution
	// Unmatched is the number of resolutions to no device.
	Unmatched int
}

// Resolution is the meaning of an assignment. It must not be modified.
type Resolution struct {
	*Assignment
	Devices     []int // ascending positions of all devices that get an owner
	device.Miss       // why Devices is empty
}

// Match finds the owners of devices. Devices must contain every device of the node,
// including those that are not exported, or their IDs count as unmatched. The
// result is valid for the same devices, table and published. A nil table has no
// assignments.
func (t *Table) Match(devices []device.Device, published *device.Published) Match {
	m := Match{Owners: make([][]Owner, len(devices))}
	if t == nil || len(t.Assignments) == 0 {
		return m
	}
	index := device.NewIndex(devices, t.idType)
	claimed := t.claimed(published)
	m.Resolutions = make([]Resolution, 0, len(t.Assignments))
	for i := range t.Assignments {
		r := Resolution{Assignment: &t.Assignments[i]}
		owner := r.Owner
		x := index.Holding(t.places, device.Hold{Since: r.since, Confirmed: t.confirmed})
		if r.Known.Form == device.FormClaim {
			d, listed := published.Device(owner.Claim.PublishedName)
			if !concerns(&owner.Claim, d, listed) {
				continue
			}
			switch {
			case listed:
				if r.Devices, r.Miss = x.FindPublished(d, claimed); d.IsMIG() {
					owner.Claim.MIGProfile = d.Profile
				}
				owner.Claim.MIGUUID = x.MIGUUIDOf(d, r.Devices)
			case published == nil:
				r.Miss = device.Miss{Reason: reasonNoSlices, Hint: hintNoSlices}
			default:
				r.Miss = device.Miss{Reason: reasonNotInSlices, Hint: hintNotInSlices}
			}
		} else {
			r.Devices, r.Miss = x.FindText(r.Known, r.ID)
		}
		if len(r.Devices) == 0 {
			m.Unmatched++
		}
		for _, i := range r.Devices {
			m.Owners[i] = append(m.Owners[i], owner)
		}
		m.Resolutions = append(m.Resolutions, r)
	}
	for i := range m.Owners {
		slices.SortFunc(m.Owners[i], compareOwners)
		m.Owners[i] = slices.Compact(m.Owners[i])
	}
	return m
}

const (
	reasonNoSlices    = "the ResourceSlices of this node are not known, and only they identify this device"
	hintNoSlices      = "give the exporter's service account get, list and watch on resourceslices (resource.k8s.io)"
	reasonNotInSlices = "no ResourceSlice of this node has this device"
	hintNotInSlices   = "this ends when the driver has published the device; if it persists, check the driver's log"
)

// concerns reports whether a claim's device is, or can be, a GPU or a part of one.
// Other drivers publish network cards, channels between nodes and so on.
func concerns(c *Claim, d device.PublishedDevice, listed bool) bool {
	if listed && d.Type == device.TypeVFIO {
		return false
	}
	return c.Driver == nvidiaDriver ||
		listed && (d.Type == device.TypeGPU || d.Type == device.TypeMIG || d.ID().Form != device.FormUnknown)
}

// claimed returns the published devices that claims hold, each once.
func (t *Table) claimed(published *device.Published) []device.PublishedDevice {
	seen := make(map[device.PublishedName]bool)
	var all []device.PublishedDevice
	for i := range t.Assignments {
		name := t.Assignments[i].Owner.Claim.PublishedName
		if d, ok := published.Device(name); ok && !seen[name] {
			seen[name] = true
			all = append(all, d)
		}
	}
	return all
}

// maxUnmatchedLines bounds the lines of one call of LogUnmatched.
const maxUnmatchedLines = 20

// unmatchedLog remembers which unmatched assignments are logged.
type unmatchedLog struct {
	mu     sync.Mutex
	logged map[unmatchedKey]bool
}

type unmatchedKey struct{ namespace, pod, container, id string }

// LogUnmatched warns about each assignment that matches no device, once while it
// lasts. Call it with every Match of the current table, and of no older table.
func (m *Mapper) LogUnmatched(match Match) {
	m.unmatched.mu.Lock()
	defer m.unmatched.mu.Unlock()
	now := make(map[unmatchedKey]bool, match.Unmatched)
	lines := 0
	for _, r := range match.Resolutions {
		key := unmatchedKey{r.Owner.Namespace, r.Owner.Pod, r.Owner.Container, r.ID}
		// Without ResourceSlices, their source logs why. A new device is confirmed soon.
		if len(r.Devices) > 0 || now[key] || r.Reason == reasonNoSlices || r.Reason == device.ReasonUnconfirmed {
			continue
		}
		now[key] = true
		if m.unmatched.logged[key] {
			continue
		}
		if lines++; lines <= maxUnmatchedLines {
			m.log.Warn("Device of a pod matches no device of this node; its series have no pod labels",
				"namespace", key.namespace, "pod", key.pod, "container", key.container,
				"resource", r.Owner.Resource, "claim", r.Owner.Claim.Name,
				"id", r.ID, "form", r.Known.Form.String(), "reason", r.Reason, "hint", r.Hint)
		}
	}
	if more := lines - maxUnmatchedLines; more > 0 {
		m.log.Warn("More devices of pods match no device of this node", "devices", more, "hint", "gpu_exporter doctor lists all of them")
	}
	m.unmatched.logged = now
}
