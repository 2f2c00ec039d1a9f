// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"slices"
	"time"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/docker"
	"gpu_exporter/podmapper/jobs"
	"gpu_exporter/podmapper/metadata"
)

const (
	// maxJoins bounds the history if no sample comes while owners change.
	maxJoins = 64
	// maxLatency bounds the time from a sample to its frame.
	maxLatency = 5 * time.Second
)

// table is what the families read. It is immutable.
type table struct {
	// joins are ordered by inventory and time: the last one that fits applies.
	joins  []*join
	placed *placed // nil until the first reading of processes is located
}

// join is who owned the devices of a node from one moment on. It is immutable.
type join struct {
	*node
	from      time.Time
	inputs    inputs
	running   [][]cgroup.SlurmJob // jobs of the processes on each entity
	match     podmapper.Match
	ownership *metrics.Ownership
}

// inputs are the tables of the sources. They are immutable, so a pointer changes
// if and only if a source has news. A source without data is nil.
type inputs struct {
	mapping   *podmapper.Table
	published *device.Published
	pods      *metadata.Pods
	jobs      *jobs.Table
	engine    *docker.Table
	// When each source last returned its table, as far as that matters: no later than
	// the newest device with a reused name became known.
	mapped, contained time.Time
	complete          bool // every configured source has recent data
}

// inputs reads the sources.
func (o *Owners) inputs() inputs {
	var in inputs
	configured := o.mapper != nil || o.engine != nil
	in.complete = true
	if o.mapper != nil {
		in.mapping, in.mapped = o.mapper.Confirmed()
		in.complete = in.mapping != nil && in.mapping.Truncated == 0 && !in.mapping.Partial
	}
	if o.published != nil {
		in.published = o.published.Published()
		in.complete = in.complete && in.published != nil
	}
	if o.engine != nil {
		in.engine, in.contained = o.engine.Confirmed()
		in.complete = in.complete && in.engine != nil
	}
	if o.pods != nil {
		in.pods = o.pods.Pods()
	}
	if o.jobs != nil {
		in.jobs = o.jobs.Table()
		status := o.jobs.Status()
		// A search for Slurm on a node without Slurm is no source of owners.
		configured = configured || status.Files.Enabled || status.Slurm.Found
		for _, s := range []jobs.SourceStatus{status.Files, status.Slurm} {
			in.complete = in.complete && (!s.Enabled || s.Known)
		}
	}
	in.complete = in.complete && configured
	return in
}

// until limits the times of confirmation, so that inputs remain equal afterwards.
func (in inputs) until(at time.Time) inputs {
	for _, t := range []*time.Time{&in.mapped, &in.contained} {
		if t.After(at) {
			*t = at
		}
	}
	return in
}

// since returns when the inputs became different from old. It is zero if a source
// only has its first data, which then also applies to the time before.
func (in *inputs) since(old *inputs) time.Time {
	oldJobs := old.jobs
	if oldJobs != nil && oldJobs.Time.IsZero() { // nothing has been read
		oldJobs = nil
	}
	return slices.MaxFunc([]time.Time{
		replaced(oldJobs, in.jobs, func(t *jobs.Table) time.Time { return t.Time }),
		replaced(old.mapping, in.mapping, func(t *podmapper.Table) time.Time { return t.Time }),
		replaced(old.engine, in.engine, func(t *docker.Table) time.Time { return t.Time }),
		// These have no time of their own.
		replaced(old.published, in.published, func(*device.Published) time.Time { return time.Now() }),
		replaced(old.pods, in.pods, func(*metadata.Pods) time.Time { return time.Now() }),
	}, time.Time.Compare)
}

// replaced returns the time of a source's data if they took the place of old
// data, and zero if not. Data that expire do so now.
func replaced[T any](old, data *T, at func(*T) time.Time) time.Time {
	switch {
	case data == old || old == nil:
		return time.Time{}
	case data == nil:
		return time.Now()
	}
	return at(data)
}

// Observe takes a frame of the sampler that the node has accepted.
func (o *Owners) Observe(f wire.Frame) {
	switch {
	case f.Inventory != nil:
		o.mu.Lock()
		o.latest = o.next(f.Inventory, time.Now())
		if o.shown == nil {
			o.shown = o.latest
		}
		o.mu.Unlock()
		if o.mapper != nil {
			o.mapper.Confirm()
		}
		if o.engine != nil {
			o.engine.Confirm()
		}
		o.update()
	case f.Sample != nil:
		o.mu.Lock()
		copy(o.taken[1:], o.taken[:])
		o.taken[0] = takenAt(f.Sample.Time, time.Now())
		if o.before = nil; o.shown != o.latest {
			o.before, o.shown = o.shown, o.latest
		}
		o.sampledBefore, o.sampled = o.sampled, f.Sample.Time
		o.mu.Unlock()
	case f.Processes != nil:
		o.mu.Lock()
		latest := o.latest.inventory
		o.mu.Unlock()
		o.locateLater(reading{latest, f.Processes})
	}
}

// takenAt returns when a sample was taken, on the monotonic clock. A step of the wall
// clock, which is the sample's, therefore matters for the age of one sample at most.
func takenAt(at, now time.Time) time.Time {
	return now.Add(-min(max(0, now.Round(0).Sub(at)), maxLatency))
}

// next returns the node after the latest one. o.mu must be held.
func (o *Owners) next(inv *model.Inventory, now time.Time) *node {
	known := make(map[string]bool)
	for i := range inv.Entities {
		e := &inv.Entities[i]
		known[e.UUID] = e.Kind == model.KindGPU && e.State == model.EntityUp && !inv.InstancesUnknownOf(i)
	}
	x := device.NewIndex(devices(inv), device.IDType(o.cfg.GPUIDType))
	right := o.taken[len(o.taken)-1]
	var places *device.Places
	if o.latest != nil {
		places = o.latest.places
	}
	return &node{inv, places.Next(x, func(uuid string) bool { return known[uuid] }, right, now), now}
}

// placesOf returns the places of an inventory, or nil if it is not in use.
func (o *Owners) placesOf(inv *model.Inventory) *device.Places {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range []*node{o.latest, o.shown, o.before} {
		if n != nil && n.inventory == inv {
			return n.places
		}
	}
	return nil
}

// update joins the tables of the sources with the inventories in use, and
// publishes the result if anything changed.
func (o *Owners) update() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.publish(o.inputs(), o.table.Load().placed)
}

// publish publishes the join of the inputs and the places of processes with the
// inventories in use. o.mu must be held.
func (o *Owners) publish(in inputs, where *placed) {
	old := o.table.Load()
	next := &table{placed: where}
	changed := where != old.placed
	for i, n := range []*node{o.before, o.shown, o.latest} {
		if n == nil || i == 2 && n == o.shown {
			continue
		}
		joins := o.relevant(old.joins, n.inventory)
		var last *join
		if len(joins) > 0 {
			last = joins[len(joins)-1]
		}
		if j := o.join(n, in, where, last); j != last {
			joins, changed = append(joins, j), true
		}
		next.joins = append(next.joins, joins...)
	}
	o.table.Store(next)
	if changed {
		o.notify()
	}
}

// relevant returns the joins of an inventory that a sample may still need: that
// of the sample before the newest, which may be being shown, and later ones.
func (o *Owners) relevant(all []*join, inv *model.Inventory) []*join {
	var joins []*join
	for _, j := range all {
		if j.inventory != inv {
			continue
		}
		switch {
		case !j.from.After(o.sampledBefore):
			joins = nil
		case len(joins) == maxJoins-1:
			joins = joins[1:]
		}
		joins = append(joins, j)
	}
	return joins
}

// join returns the join of a node, which is last if nothing has changed.
func (o *Owners) join(n *node, in inputs, where *placed, last *join) *join {
	in = in.until(o.latest.since)
	j := &join{node: n, inputs: in}
	if last == nil {
		last = &join{}
	}
	if o.jobs != nil && o.jobs.Status().Slurm.Found {
		j.running = last.running // until the newest reading is located
		if where != nil && where.inventory == n.inventory {
			j.running = where.running
		}
	}
	if last.ownership != nil && in == last.inputs && slices.EqualFunc(j.running, last.running, slices.Equal[[]cgroup.SlurmJob]) {
		return last
	}
	if j.from = in.since(&last.inputs); j.from.IsZero() {
		j.from = last.from
	}
	switch {
	case last.ownership != nil && in.mapping == last.inputs.mapping && in.mapped.Equal(last.inputs.mapped) && in.published == last.inputs.published:
		j.match = last.match
	case in.mapping != nil:
		j.match = in.mapping.At(j.places, in.mapped).Match(devices(n.inventory), in.published)
		if n == o.latest && o.mapper != nil {
			o.mapper.LogUnmatched(j.match)
		}
	}
	j.ownership = j.owners()
	return j
}

// Ownership returns the owners of an inventory at a time. It returns nil for an
// inventory that is not in use.
func (o *Owners) Ownership(inv *model.Inventory, at time.Time) *metrics.Ownership {
	var oldest *metrics.Ownership
	for _, j := range slices.Backward(o.table.Load().joins) {
		if j.inventory != inv {
			continue
		}
		if !j.from.After(at) {
			return j.ownership
		}
		oldest = j.ownership
	}
	return oldest
}
