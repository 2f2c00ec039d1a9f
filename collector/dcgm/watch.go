// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/collector/dcgm/native"
)

const (
	// maxGroups bounds our groups and our field groups while old and new watches
	// exist. An engine has 64 of each for all clients, and uses some itself.
	maxGroups = 48
	// maxFields is DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP.
	maxFields = 128
	// maxEntities is DCGM_GROUP_MAX_ENTITIES_V2 (dcgm_structs.h).
	maxEntities = 1024
	// keepXIDs is how long the engine keeps XIDs, in seconds. It is far longer than
	// any time between two reads that this process survives.
	keepXIDs = 600
)

// unit is a watched target.
type unit struct {
	target
	watches     []native.Watch
	groups      []uintptr
	fieldGroups []uintptr
	refused     []refusal
}

// refusal is fields that the engine does not watch on an entity. No fields means all
// fields of the target.
type refusal struct {
	entity native.Pair
	fields []uint16
	code   native.Code
}

// watcher keeps the engine's watches equal to the targets.
type watcher struct {
	lib      *native.Library
	log      *slog.Logger
	interval time.Duration
	// name is a prefix of group names that is unique among the engine's clients: DCGM
	// refuses a second field group of the same name.
	name                string
	count               int
	units               []*unit
	groups, fieldGroups int // that exist in the engine
	// lost is the first code that means that the engine is gone.
	lost native.Code
}

func newWatcher(lib *native.Library, interval time.Duration, log *slog.Logger) *watcher {
	return &watcher{lib: lib, log: log, interval: interval, name: fmt.Sprintf("gpu_exporter-%08x", rand.Uint32())}
}

// set makes the watches those of targets. An unchanged unit stays, so that its values
// continue without a gap. A profiling unit that only loses entities stays as well.
// With retry, units with refusals are watched again.
func (w *watcher) set(targets []target, retry bool) native.Code {
	old := make(map[string]*unit, len(w.units))
	for _, u := range w.units {
		old[u.key] = u
	}
	units := make([]*unit, len(targets))
	for i, t := range targets {
		if u := old[t.key]; u != nil && (!retry || len(u.refused) == 0) {
			units[i] = u
			delete(old, t.key)
		}
	}
	for i, t := range targets {
		if units[i] != nil || !t.profiling {
			continue
		}
		for _, u := range old {
			if u.kind == t.kind && len(without(t.identities, u.identities)) == 0 && (!retry || len(u.refused) == 0) {
				delete(old, u.key)
				w.shrink(u, t)
				units[i] = u
				break
			}
		}
	}
	// Profiling uses hardware counters exclusively: the old watch must end before the
	// new one starts. Other new watches start first. The connection is the watcher of
	// a value, so no sample or XID is missed, and unwatching the old watch would end
	// the new one.
	for _, u := range old {
		if u.profiling {
			for _, x := range u.watches {
				w.check(w.lib.Unwatch(x))
			}
		}
	}
	for i, t := range targets {
		if units[i] == nil && w.lost == native.OK {
			units[i] = w.begin(t)
		}
	}
	for _, u := range old {
		w.end(u)
	}
	if w.lost != native.OK {
		return w.lost
	}
	w.units = units
	return native.OK
}

// shrink removes the entities from a unit that t does not have. They leave its groups
// too: another unit may watch them, and unwatching this unit would end that.
func (w *watcher) shrink(u *unit, t target) {
	each := func(do func(uintptr, native.Pair) native.Code, entities []native.Pair) {
		for _, g := range u.groups {
			for _, e := range entities {
				if w.lost == native.OK {
					w.check(do(g, e))
				}
			}
		}
	}
	// A destroyed instance can leave a group but not enter one. So the remaining
	// entities leave the group while the others are unwatched.
	each(w.lib.RemoveFromGroup, t.entities)
	for _, x := range u.watches {
		if w.lost == native.OK {
			w.check(w.lib.Unwatch(x))
		}
	}
	each(w.lib.RemoveFromGroup, without(u.entities, t.entities))
	each(w.lib.AddToGroup, t.entities)
	u.target = t
	u.refused = slices.DeleteFunc(u.refused, func(r refusal) bool { return !slices.Contains(t.entities, r.entity) })
}

// check records a code that means that the engine is gone.
func (w *watcher) check(c native.Code) native.Code {
	if c.EngineLost() && w.lost == native.OK {
		w.lost = c
	}
	return c
}

func (w *watcher) begin(t target) *unit {
	u := &unit{target: t}
	group, c := w.group(u, t.entities)
	if c != native.OK {
		for _, e := range t.entities {
			u.refused = append(u.refused, refusal{entity: e, code: c})
		}
		return u
	}
	entities := t.entities
	for _, r := range u.refused { // lost since the topology was read
		entities = without(entities, []native.Pair{r.entity})
	}
	if len(entities) == 0 {
		return u
	}
	for fields := range slices.Chunk(t.fields, maxFields) {
		w.watch(u, group, entities, fields)
	}
	return u
}

// without returns the elements of list that are not in excluded.
func without[E comparable](list, excluded []E) []E {
	var out []E
	for _, x := range list {
		if !slices.Contains(excluded, x) {
			out = append(out, x)
		}
	}
	return out
}

// watch watches the fields on the group. If the engine refuses, it bisects entities
// and fields, and watches everything that is not refused.
func (w *watcher) watch(u *unit, group uintptr, entities []native.Pair, fields []uint16) {
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
	byEntity := u.profiling || len(fields) == 1
	switch {
	case len(entities) > 1 && byEntity && !unknown:
		for _, half := range [][]native.Pair{entities[:len(entities)/2], entities[len(entities)/2:]} {
			g, c := w.group(u, half)
			if c != native.OK {
				for _, e := range half {
					u.refused = append(u.refused, refusal{e, fields, c})
				}
				continue
			}
			w.watch(u, g, half, fields)
		}
	case len(fields) > 1 && !(u.profiling && (c == native.ModuleNotLoaded || c == native.ProfilingNotSupported || c.Locked())):
		w.watch(u, group, entities, fields[:len(fields)/2])
		w.watch(u, group, entities, fields[len(fields)/2:])
	default:
		if unknown {
			c = native.UnknownField
		}
		for _, e := range entities {
			u.refused = append(u.refused, refusal{e, fields, c})
		}
	}
}

// tryWatch watches all of the fields or none. unknown means that DCGM does not know
// one of the fields, whatever the entity.
func (w *watcher) tryWatch(u *unit, group uintptr, fields []uint16) (c native.Code, unknown bool) {
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
	if u.events {
		keepSeconds, keepSamples = keepXIDs, 0
	}
	if c = w.check(w.lib.Watch(x, cmp.Or(u.every, w.interval).Microseconds(), keepSeconds, keepSamples)); c != native.OK {
		w.check(w.lib.DestroyFieldGroup(fieldGroup))
		w.fieldGroups--
		return c, false
	}
	u.fieldGroups = append(u.fieldGroups, fieldGroup)
	u.watches = append(u.watches, x)
	return native.OK, false
}

// group makes a group of the entities. It records entities that cannot be added as
// refused, and continues without them.
func (w *watcher) group(u *unit, entities []native.Pair) (uintptr, native.Code) {
	if w.groups >= maxGroups {
		return 0, native.NotWatched
	}
	w.count++
	group, c := w.lib.CreateGroup(fmt.Sprintf("%s-%d", w.name, w.count))
	if w.check(c) != native.OK {
		return 0, c
	}
	w.groups++
	u.groups = append(u.groups, group)
	for _, e := range entities {
		if c := w.check(w.lib.AddToGroup(group, e)); c.EngineLost() {
			return 0, c
		} else if c != native.OK {
			u.refused = append(u.refused, refusal{entity: e, code: c})
		}
	}
	return group, native.OK
}

// end destroys the groups of a unit. It does not unwatch: see set.
func (w *watcher) end(u *unit) {
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

// covers reports whether the refusal concerns the field.
func (r refusal) covers(field uint16) bool {
	return r.fields == nil || slices.Contains(r.fields, field)
}

// status returns the status of the refused cells.
func (r refusal) status() collector.Status {
	if r.code.Locked() {
		return collector.StatusNotWatched
	}
	if s := r.code.Status(); s != collector.StatusOK {
		return s
	}
	return collector.StatusError
}
