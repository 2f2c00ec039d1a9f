// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Places remembers since when each device has the names that depend on its place,
// such as nvidia0/gi1 or NVML's index. After a repartition a different instance has
// such a name, while the pod that held the former one can still be listed.
//
// It is immutable. A nil Places remembers nothing.
type Places struct {
	names map[ID]place
	gpus  map[string]time.Time // by UUID: when the instances of the GPU were last known
}

// place is the device that has a name.
type place struct {
	occupant
	since  time.Time // a different device, or none, had the name until then; zero: never
	listed time.Time // when the exporter learned of the device; zero: with its GPU
	former occupant  // the device before
	// formerSince is since of the former device.
	formerSince time.Time
}

// occupant identifies a device across inventories.
type occupant struct {
	gpu      string // UUID
	instance bool
	profile  string
	start    int
	uuids    string // of MIG devices; empty: not known
}

func occupantOf(d *Device) occupant {
	o := occupant{gpu: d.GPUUUID, instance: d.isInstance()}
	if o.instance {
		o.profile, o.start, o.uuids = d.Profile, d.PlacementStart, strings.Join(d.MIGUUIDs, " ")
	}
	return o
}

// same compares two devices that have the same name.
func (o occupant) same(p occupant) bool {
	return o.gpu == p.gpu && o.instance == p.instance && o.profile == p.profile && o.start == p.start &&
		(o.uuids == p.uuids || o.uuids == "" || p.uuids == "")
}

// dependsOnPlace reports whether a different device can have a name of this form
// later. The names in job files are left out: the scheduler means the current device.
func (f Form) dependsOnPlace() bool {
	switch f {
	case FormNumber, FormIndex, FormDeviceName, FormDeviceNameInstance, FormMIGPath, FormMIGIndex, FormMIGCapability:
		return true
	}
	return false
}

// Next returns the places of the devices of an index, after those of p. Known reports
// whether all instances of a GPU are in the index. Right is when the devices of p were
// last known to be right, and now is when the devices of x became known.
func (p *Places) Next(x *Index, known func(gpuUUID string) bool, right, now time.Time) *Places {
	next := &Places{names: make(map[ID]place, len(x.byID)), gpus: make(map[string]time.Time)}
	if p != nil {
		maps.Copy(next.names, p.names)
		maps.Copy(next.gpus, p.gpus)
	}
	for gpu := range next.gpus {
		if known(gpu) {
			next.gpus[gpu] = right
		}
	}
	for id, old := range next.names {
		if _, present := x.byID[id]; !present && old.instance && known(old.gpu) { // it was destroyed
			next.names[id] = place{former: old.occupant, formerSince: old.since}
		}
	}
	for id, at := range x.byID {
		if !id.Form.dependsOnPlace() {
			continue
		}
		device := occupantOf(&x.devices[at[0]])
		old, named := next.names[id]
		if named && old.same(device) {
			if device.uuids != "" {
				old.uuids = device.uuids
			}
			next.names[id] = old
			continue
		}
		changed := place{occupant: device}
		if until, seen := next.gpus[device.gpu]; seen {
			changed.since, changed.listed = until, now
		}
		switch {
		case !named:
		case old.gpu != "":
			changed.since, changed.listed = right, now
			changed.former, changed.formerSince = old.occupant, old.since
		default: // destroyed before
			changed.former, changed.formerSince = old.former, old.formerSince
		}
		next.names[id] = changed
	}
	for i := range x.devices {
		if d := &x.devices[i]; d.Kind == KindGPU && known(d.GPUUUID) {
			next.gpus[d.GPUUUID] = now
		}
	}
	return next
}

// Hold is when a holder of devices was first listed, and when it was last known to
// exist.
type Hold struct{ Since, Confirmed time.Time }

// Holding returns an index that resolves the names of one holder. A name that depends
// on the place means the device that had it when the holder was first listed.
func (x *Index) Holding(places *Places, h Hold) *Index {
	y := *x
	y.places, y.hold = places, h
	return &y
}

const (
	hintMoved    = "this ends with the holder, or when its source has listed it again; if it persists, restart the pod or the container"
	reasonFormer = "the device that had this name when its holder was listed does not exist any more"
	// ReasonUnconfirmed ends with the next refresh of the source.
	ReasonUnconfirmed = "a new device has this name, and its source has not confirmed the holder yet"
)

// settle returns the positions that a name means for the holder, given those that it
// means now.
func (x *Index) settle(id ID, at []int) ([]int, Miss) {
	if x.places == nil || !id.Form.dependsOnPlace() {
		return at, Miss{}
	}
	p := x.places.names[id]
	switch {
	case x.hold.Since.Before(p.since):
		if !p.former.instance && p.former.gpu != "" && !x.hold.Since.Before(p.formerSince) {
			if gpu := x.byID[GPUUUID(p.former.gpu)]; len(gpu) == 1 {
				return gpu, Miss{}
			}
		}
		return nil, Miss{Reason: reasonFormer, Hint: hintMoved, Maybe: slices.Clone(at)}
	case x.hold.Confirmed.Before(p.listed):
		return nil, Miss{Reason: ReasonUnconfirmed, Hint: hintMoved, Maybe: slices.Clone(at)}
	}
	return at, Miss{}
}
