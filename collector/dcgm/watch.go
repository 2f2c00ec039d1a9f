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
)

const (
	// maxGroups bounds our groups and our field groups, the old and the new ones
	// while the watches change. An engine has 64 of each for all its clients, and
	// some are its own.
	maxGroups = 48
	// maxFields is DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP.
	maxFields = 128
	// maxEntities is DCGM_GROUP_MAX_ENTITIES_V2 (dcgm_structs.h).
	maxEntities = 1024
	// keepXIDs is how long the engine keeps XIDs; far longer than the longest
	// time between two readings that this process survives.
	keepXIDs = 600
)

// watch is one call of dcgmWatchFields.
type watch struct{ group, fields uintptr }

// target is a set of entities and the fields to be watched on them.
type target struct {
	// key tells apart what must be watched anew: it changes with the entities,
	// their identity, and the fields.
	key        string
	what       string   // the part of the key that is not of the entities,
	identities []string // and the parts that are, in their order
	entities   []pair
	fields     []uint16
	profiling  bool
	events     bool
	round      int           // tells apart watches of the same
	every      time.Duration // between values; 0 is the interval of the samples
}

// unit is a target that is being watched.
type unit struct {
	target
	watches     []watch
	groups      []uintptr
	fieldGroups []uintptr
	refused     []refusal
}

// refusal says that the engine does not watch fields on an entity. No fields
// means none of the target's.
type refusal struct {
	entity pair
	fields []uint16
	code   code
}

// watcher keeps the watches of the engine in step with what is wanted.
type watcher struct {
	lib      *library
	log      *slog.Logger
	interval time.Duration
	// name makes the names of groups unique among all clients of an engine;
	// DCGM refuses a field group of the same name.
	name  string
	count int
	units []*unit
	// groups and fieldGroups are what we have in the engine.
	groups, fieldGroups int
	// lost is set by the first call that found the engine gone.
	lost code
}

func newWatcher(lib *library, interval time.Duration, log *slog.Logger) *watcher {
	return &watcher{
		lib:      lib,
		log:      log,
		interval: interval,
		name:     fmt.Sprintf("gpu_exporter-%08x", rand.Uint32()),
	}
}

// set makes the watches those of targets. A unit that is wanted unchanged stays,
// so that its values go on without a gap; one of profiling that is wanted without
// some of its entities, too. With retry, only if nothing of it was refused.
func (w *watcher) set(targets []target, retry bool) code {
	var keep, drop []*unit
	old := make(map[string]*unit, len(w.units))
	for _, u := range w.units {
		old[u.key] = u
	}
	units := make([]*unit, len(targets))
	for i, t := range targets {
		if u := old[t.key]; u != nil && (!retry || len(u.refused) == 0) {
			units[i] = u
			keep = append(keep, u)
			delete(old, t.key)
		}
	}
	// Those that some entities have left are there for the rest.
	for i, t := range targets {
		if units[i] != nil || !t.profiling {
			continue
		}
		for _, u := range old {
			if u.what == t.what && len(without(t.identities, u.identities)) == 0 && (!retry || len(u.refused) == 0) {
				delete(old, u.key)
				w.shrink(u, t)
				units[i] = u
				keep = append(keep, u)
				break
			}
		}
	}
	for _, u := range old {
		drop = append(drop, u)
	}
	// Profiling has exclusive use of hardware counters: give it up before asking
	// for it anew. All else is watched anew first, because the watcher of a value
	// is the connection: no sample and no XID falls between old and new, and
	// unwatching the old one would end the new one.
	for _, u := range drop {
		if u.profiling {
			for _, x := range u.watches {
				w.check(w.lib.unwatch(x))
			}
		}
	}
	w.units = append(keep, drop...) // for close, should the engine be lost here
	for i, t := range targets {
		if units[i] == nil && w.lost == codeOK {
			units[i] = w.begin(t)
			w.units = append(w.units, units[i])
		}
	}
	for _, u := range drop {
		w.end(u)
	}
	if w.lost != codeOK {
		return w.lost
	}
	w.units = units
	return codeOK
}

// shrink takes out of a unit the entities that t has not. They leave its groups,
// too: another unit may come to watch them, and unwatching this one would end that.
func (w *watcher) shrink(u *unit, t target) {
	each := func(do func(uintptr, pair) code, entities []pair) {
		for _, g := range u.groups {
			for _, e := range entities {
				if w.lost == codeOK {
					w.check(do(g, e))
				}
			}
		}
	}
	// An instance that is no more can leave a group, but not enter one: what stays
	// makes way while it is unwatched.
	each(w.lib.removeFromGroup, t.entities)
	for _, x := range u.watches {
		if w.lost == codeOK {
			w.check(w.lib.unwatch(x))
		}
	}
	each(w.lib.removeFromGroup, without(u.entities, t.entities))
	each(w.lib.addToGroup, t.entities)
	u.target = t
	u.refused = slices.DeleteFunc(u.refused, func(r refusal) bool { return !slices.Contains(t.entities, r.entity) })
}

// check notes a code that means that the engine is gone.
func (w *watcher) check(c code) code {
	if c.lost() && w.lost == codeOK {
		w.lost = c
	}
	return c
}

func (w *watcher) begin(t target) *unit {
	u := &unit{target: t}
	group, c := w.group(u, t.entities)
	if c != codeOK {
		for _, e := range t.entities {
			u.refused = append(u.refused, refusal{entity: e, code: c})
		}
		return u
	}
	entities := t.entities
	for _, r := range u.refused { // lost since the topology was read
		entities = without(entities, []pair{r.entity})
	}
	if len(entities) == 0 {
		return u
	}
	for fields := t.fields; len(fields) > 0; {
		n := min(len(fields), maxFields)
		w.watch(u, group, entities, fields[:n])
		fields = fields[n:]
	}
	return u
}

// without returns those of list that are none of these.
func without[E comparable](list, these []E) []E {
	var out []E
	for _, x := range list {
		if !slices.Contains(these, x) {
			out = append(out, x)
		}
	}
	return out
}

// watch watches the fields on the group. When the engine refuses, it finds out
// for which fields and entities, and watches the rest.
func (w *watcher) watch(u *unit, group uintptr, entities []pair, fields []uint16) {
	if w.lost != codeOK {
		return
	}
	c, unknown := w.tryWatch(u, group, fields)
	if c == codeOK || c.lost() {
		return
	}
	w.log.Debug("watch refused", "entities", len(entities), "fields", fields, "code", int(c))
	// Whether profiling works is a matter of the GPU, whereas DCGM refuses all
	// GPUs of a group for the sake of one.
	byEntity := u.profiling || len(fields) == 1
	switch {
	case len(entities) > 1 && byEntity && !unknown:
		for _, half := range [][]pair{entities[:len(entities)/2], entities[len(entities)/2:]} {
			g, c := w.group(u, half)
			if c != codeOK {
				for _, e := range half {
					u.refused = append(u.refused, refusal{e, fields, c})
				}
				continue
			}
			w.watch(u, g, half, fields)
		}
	case len(fields) > 1 && !(u.profiling && (c == codeModuleNotLoaded || c == codeProfNotSupported || c.locked())):
		w.watch(u, group, entities, fields[:len(fields)/2])
		w.watch(u, group, entities, fields[len(fields)/2:])
	default:
		if unknown {
			c = codeUnknownField
		}
		for _, e := range entities {
			u.refused = append(u.refused, refusal{e, fields, c})
		}
	}
}

// tryWatch watches all of the fields, or none. unknown says that DCGM does not
// know one of them, whatever the entity.
func (w *watcher) tryWatch(u *unit, group uintptr, fields []uint16) (c code, unknown bool) {
	if w.fieldGroups >= maxGroups {
		return codeNotWatched, false
	}
	w.count++
	fieldGroup, c := w.lib.createFieldGroup(fmt.Sprintf("%s-%d", w.name, w.count), fields)
	if w.check(c) != codeOK {
		// dcgmFieldGroupCreate has this code for an id that is in no table of its.
		return c, c == codeBadParam || c == codeUnknownField
	}
	w.fieldGroups++
	x := watch{group, fieldGroup}
	// DCGM takes whole seconds, and keeps a sample for at least one of them and
	// for as long as the number of samples takes (common/DcgmUtilities.cpp,
	// GetMaxAge). Only the newest sample is ever read.
	keepSeconds, keepSamples := 1.0, 1
	if u.events {
		keepSeconds, keepSamples = keepXIDs, 0
	}
	if c = w.check(w.lib.watch(x, cmp.Or(u.every, w.interval).Microseconds(), keepSeconds, keepSamples)); c != codeOK {
		w.check(w.lib.destroyFieldGroup(fieldGroup))
		w.fieldGroups--
		return c, false
	}
	u.fieldGroups = append(u.fieldGroups, fieldGroup)
	u.watches = append(u.watches, x)
	return codeOK, false
}

// group makes a group of the entities. Those that cannot be added are noted as
// refused, the group goes on without them.
func (w *watcher) group(u *unit, entities []pair) (uintptr, code) {
	if w.groups >= maxGroups {
		return 0, codeNotWatched
	}
	w.count++
	group, c := w.lib.createGroup(fmt.Sprintf("%s-%d", w.name, w.count))
	if w.check(c) != codeOK {
		return 0, c
	}
	w.groups++
	u.groups = append(u.groups, group)
	for _, e := range entities {
		if c := w.check(w.lib.addToGroup(group, e)); c.lost() {
			return 0, c
		} else if c != codeOK {
			u.refused = append(u.refused, refusal{entity: e, code: c})
		}
	}
	return group, codeOK
}

func (w *watcher) end(u *unit) {
	for _, g := range u.fieldGroups {
		if w.lost == codeOK {
			w.check(w.lib.destroyFieldGroup(g))
		}
	}
	for _, g := range u.groups {
		if w.lost == codeOK {
			w.check(w.lib.destroyGroup(g))
		}
	}
	w.fieldGroups -= len(u.fieldGroups)
	w.groups -= len(u.groups)
}

// covers says whether the refusal concerns the field.
func (r refusal) covers(field uint16) bool {
	if r.fields == nil {
		return true
	}
	for _, f := range r.fields {
		if f == field {
			return true
		}
	}
	return false
}

// status says what a refused watch means for the cell.
func (r refusal) status() collector.Status {
	if r.code.locked() {
		return collector.StatusNotWatched
	}
	if s := r.code.status(); s != collector.StatusOK {
		return s
	}
	return collector.StatusError
}
