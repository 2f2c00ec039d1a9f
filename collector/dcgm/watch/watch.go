// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package watch keeps DCGM's watches equal to a list of targets, with as few changes
// as possible: a value of an unchanged watch has no gap. It must not decide what to watch.
package watch

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

const (
	// maxGroups bounds our groups and our field groups while old and new watches
	// exist. An engine has 64 of each for all clients, and uses some itself.
	maxGroups = 48
	// MaxFields is DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP.
	MaxFields = 128
	// MaxEntities is DCGM_GROUP_MAX_ENTITIES_V2 (dcgm_structs.h), the limit of a target.
	MaxEntities = 1024
	// keepXIDs is how long the engine keeps XIDs, in seconds. It is far longer than
	// any time between two reads that this process survives.
	keepXIDs = 600
)

// Target is fields to watch on a set of entities.
type Target struct {
	Entities   []native.Pair
	Identities []string // of the entities: an ID may be reused
	Fields     []uint16
	Profiling  bool
	Events     bool          // keep samples for long
	Attempt    int           // a different number makes a new watch
	Every      time.Duration // between values; 0 means the interval of the samples
}

// kind identifies everything but the entities. A target with a changed kind or changed
// identities needs a new watch.
func (t *Target) kind() string {
	return fmt.Sprint(t.Profiling, t.Events, t.Every, t.Fields, t.Attempt)
}

// Unit is a watched target.
type Unit struct {
	Target
	// Watches is empty if everything was refused.
	Watches     []native.Watch
	Refused     []Refusal
	groups      []uintptr
	fieldGroups []uintptr
}

// Refusal is fields that the engine does not watch on an entity. No fields means all
// fields of the target.
type Refusal struct {
	Entity native.Pair
	Fields []uint16
	Code   native.Code
}

// Watcher makes the watches of one connection.
type Watcher struct {
	lib      *native.Library
	log      *slog.Logger
	interval time.Duration
	// waits is called before each call that waits until DCGM has updated all fields.
	waits func()
	// name is a prefix of group names that is unique among the engine's clients: DCGM
	// refuses a second field group of the same name.
	name                string
	count               int
	units               []*Unit
	groups, fieldGroups int // that exist in the engine
	// lost is the first code that means that the engine is gone.
	lost native.Code
}

// New returns a watcher without watches. interval is the interval of the samples. waits is
// called before each call that waits until DCGM has updated all fields.
func New(lib *native.Library, interval time.Duration, log *slog.Logger, waits func()) *Watcher {
	return &Watcher{lib: lib, log: log, interval: interval, waits: waits, name: fmt.Sprintf("gpu_exporter-%08x", rand.Uint32())}
}

// Units returns the watched targets in the order of the last [Watcher.Set].
func (w *Watcher) Units() []*Unit { return w.units }

// Set makes the watches those of targets. An unchanged unit stays, so that its values
// continue without a gap. With retry, units with refusals are watched again. The code is
// OK or means that the engine is lost.
func (w *Watcher) Set(targets []Target, retry bool) native.Code {
	old := slices.Clone(w.units)
	units := make([]*Unit, len(targets))
	for i, t := range targets {
		at := slices.IndexFunc(old, func(u *Unit) bool {
			return (!retry || len(u.Refused) == 0) && u.kind() == t.kind() && slices.Equal(u.Identities, t.Identities)
		})
		if at >= 0 {
			units[i] = old[at]
			old = slices.Delete(old, at, at+1)
		}
	}
	// Profiling uses hardware counters exclusively: the old watch must end before the
	// new one starts. Other new watches start first. The connection is the watcher of
	// a value, so no sample or XID is missed, and unwatching the old watch would end
	// the new one.
	for _, u := range old {
		if u.Profiling {
			for _, x := range u.Watches {
				w.check(w.lib.Unwatch(x))
			}
			w.end(u)
		}
	}
	for i, t := range targets {
		if units[i] == nil && w.lost == native.OK {
			units[i] = w.begin(t)
		}
	}
	for _, u := range old {
		if !u.Profiling {
			w.end(u)
		}
	}
	w.units = units
	return w.lost
}

// check records a code that means that the engine is gone.
func (w *Watcher) check(c native.Code) native.Code {
	if c.EngineLost() && w.lost == native.OK {
		w.lost = c
	}
	return c
}

func (w *Watcher) begin(t Target) *Unit {
	u := &Unit{Target: t}
	if group, members := w.group(u, t.Entities, nil); len(members) > 0 {
		for fields := range slices.Chunk(t.Fields, MaxFields) {
			w.watch(u, group, members, fields)
		}
	}
	return u
}

// watch watches the fields on the group. If the engine refuses, it bisects entities
// and fields, and watches everything that is not refused.
func (w *Watcher) watch(u *Unit, group uintptr, entities []native.Pair, fields []uint16) {
	if w.lost != native.OK {
		return
	}
	c, unknown := w.tryWatch(u, group, fields)
	if c == native.OK || c.EngineLost() {
		return
	}
	w.log.Debug("watch refused", "entities", len(entities), "fields", fields, "code", int(c))
	// Profiling works or fails per GPU, but DCGM refuses all GPUs of a group because
	// of one.
	byEntity := u.Profiling || len(fields) == 1
	switch {
	case len(entities) > 1 && byEntity && !unknown:
		for _, half := range [][]native.Pair{entities[:len(entities)/2], entities[len(entities)/2:]} {
			if g, members := w.group(u, half, fields); len(members) > 0 {
				w.watch(u, g, members, fields)
			}
		}
	case len(fields) > 1 && !(u.Profiling && (c == native.ModuleNotLoaded || c == native.ProfilingNotSupported || c.Locked())):
		w.watch(u, group, entities, fields[:len(fields)/2])
		w.watch(u, group, entities, fields[len(fields)/2:])
	default:
		if unknown {
			c = native.UnknownField
		}
		for _, e := range entities {
			u.Refused = append(u.Refused, Refusal{e, fields, c})
		}
	}
}

// tryWatch watches all of the fields or none. unknown means that DCGM does not know
// one of the fields, whatever the entity.
func (w *Watcher) tryWatch(u *Unit, group uintptr, fields []uint16) (c native.Code, unknown bool) {
	if w.fieldGroups >= maxGroups {
		return native.NotWatched, false
	}
	w.count++
	fieldGroup, c := w.lib.CreateFieldGroup(fmt.Sprintf("%s-%d", w.name, w.count), fields)
	if w.check(c) != native.OK {
		return c, c == native.BadParam || c == native.UnknownField // dcgmFieldGroupCreate's codes for an unknown field
	}
	w.fieldGroups++
	x := native.Watch{Group: group, Fields: fieldGroup}
	// Only the newest sample is read. DCGM keeps it for at least one second, and for
	// the interval (common/DcgmUtilities.cpp, GetMaxAge).
	keepSeconds, keepSamples := 1.0, 1
	if u.Events {
		keepSeconds, keepSamples = keepXIDs, 0
	}
	w.waits()
	if c = w.check(w.lib.Watch(x, cmp.Or(u.Every, w.interval).Microseconds(), keepSeconds, keepSamples)); c != native.OK {
		w.check(w.lib.DestroyFieldGroup(fieldGroup))
		w.fieldGroups--
		return c, false
	}
	u.fieldGroups = append(u.fieldGroups, fieldGroup)
	u.Watches = append(u.Watches, x)
	return native.OK, false
}

// group makes a group of the entities and returns its members. It records the entities
// that cannot be added as refused, with the fields.
func (w *Watcher) group(u *Unit, entities []native.Pair, fields []uint16) (group uintptr, members []native.Pair) {
	c := native.NotWatched
	if w.groups < maxGroups {
		w.count++
		group, c = w.lib.CreateGroup(fmt.Sprintf("%s-%d", w.name, w.count))
		if w.check(c) == native.OK {
			w.groups++
			u.groups = append(u.groups, group)
		}
	}
	for _, e := range entities {
		added := c
		if c == native.OK && w.lost == native.OK {
			added = w.check(w.lib.AddToGroup(group, e))
		}
		if added == native.OK {
			members = append(members, e)
		} else {
			u.Refused = append(u.Refused, Refusal{e, fields, added})
		}
	}
	return group, members
}

// end destroys the groups of a unit. It does not unwatch: see [Watcher.Set].
func (w *Watcher) end(u *Unit) {
	for _, g := range u.fieldGroups {
		if w.lost == native.OK {
			w.check(w.lib.DestroyFieldGroup(g))
		}
	}
	for _, g := range u.groups {
		if w.lost == native.OK {
			w.check(w.lib.DestroyGroup(g))
		}
	}
	w.fieldGroups -= len(u.fieldGroups)
	w.groups -= len(u.groups)
}

// Covers reports whether the refusal concerns the field.
func (r Refusal) Covers(field uint16) bool {
	return r.Fields == nil || slices.Contains(r.Fields, field)
}

// Status returns the status of the refused cells.
func (r Refusal) Status() model.Status {
	if r.Code.Locked() {
		return model.StatusNotWatched
	}
	if s := r.Code.Status(); s != model.StatusOK {
		return s
	}
	return model.StatusError
}
