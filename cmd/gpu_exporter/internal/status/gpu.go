// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
)

// gpus returns the GPUs, worst first.
func (b *builder) gpus() []GPU {
	all := []GPU{}
	for i := range b.Inventory.Entities {
		if e := &b.Inventory.Entities[i]; e.Kind == model.KindGPU && (e.Selected || b.hasSelected(i)) {
			all = append(all, b.gpu(i))
		}
	}
	for i := range b.Gone {
		all = append(all, b.goneGPU(&b.Gone[i]))
	}
	slices.SortStableFunc(all, func(x, y GPU) int {
		return cmp.Or(cmp.Compare(x.State.rank(), y.State.rank()), cmp.Compare(x.ID, y.ID))
	})
	return all
}

// hasSelected reports whether an instance of the GPU at position i is selected.
func (b *builder) hasSelected(i int) bool {
	return slices.ContainsFunc(b.Inventory.Entities, func(e model.Entity) bool {
		return e.Kind == model.KindGPUInstance && e.Parent == i && e.Selected
	})
}

// identity returns a GPU without values.
func (b *builder) identity(e *model.Entity) GPU {
	g := GPU{
		ID: e.ID, UUID: e.UUID, PCIBusID: e.PCIBusID, Model: e.Model, Serial: e.Serial, VBIOS: e.VBIOS, MIG: e.MIGMode,
		Problems: []Problem{}, Holding: Holding{noSource, []Owner{}}, ClockReasons: []string{}, Instances: []Instance{},
		XIDs: b.xids(e.UUID),
	}
	if e.Minor != model.Unknown {
		g.Minor = new(e.Minor)
	}
	return g
}

// goneGPU returns a GPU that the inventory does not list.
func (b *builder) goneGPU(e *model.Entity) GPU {
	g := b.identity(e)
	lost := Value{Missing: model.StatusEntityLost.String()}
	g.Load, g.MemoryUsed, g.MemoryTotal, g.Temperature, g.MemoryTemperature = lost, lost, lost, lost, lost
	g.ThermalMargin, g.Power, g.PowerLimit = lost, lost, lost
	if b.hasOwnerSource() {
		g.Held = notKnown
	}
	g.Problems = append(g.Problems, Problem{Lost, "DCGM no longer lists it", definition.RemedyLost.For(e.UUID)})
	b.finish(&g)
	return g
}

func (b *builder) gpu(i int) GPU {
	e := &b.Inventory.Entities[i]
	g := b.identity(e)
	g.Holding, g.Readings = b.holding(i), b.readings(i)
	g.Temperature, g.MemoryTemperature, g.ThermalMargin = b.value(i, 150), b.value(i, 140), b.value(i, 153)
	g.Power, g.PowerLimit = b.value(i, 155), b.value(i, 164)
	if reasons := b.value(i, field.ClocksEventReasons); reasons.Value != nil {
		for bit := range field.ClockEventReasonCount {
			if int64(*reasons.Value)>>bit&1 != 0 {
				g.ClockReasons = append(g.ClockReasons, field.ClockEventReason(bit))
			}
		}
	}
	g.NVLinks = b.links(i)
	for at := i + 1; at < len(b.Inventory.Entities); at++ {
		if in := &b.Inventory.Entities[at]; in.Kind == model.KindGPUInstance && in.Parent == i {
			g.Instances = append(g.Instances, b.instance(at))
		}
	}
	b.addAvailability(&g, i)
	b.addHardware(&g, i)
	b.addHealth(&g, i)
	b.finish(&g)
	return g
}

// finish adds the problems that every GPU can have, and sets the state.
func (b *builder) finish(g *GPU) {
	for i := range g.XIDs {
		if p, ok := xidProblem(&g.XIDs[i], b.Time); ok {
			g.Problems = append(g.Problems, p)
		}
	}
	sortProblems(g.Problems)
	g.State = Healthy
	if len(g.Problems) > 0 {
		g.State = g.Problems[0].State
	}
}

// instance returns the GPU instance at position i.
func (b *builder) instance(i int) Instance {
	e := &b.Inventory.Entities[i]
	in := Instance{ID: e.InstanceID, Profile: e.Profile, UUIDs: []string{}, Holding: b.holding(i), Readings: b.readings(i)}
	for at := i + 1; at < len(b.Inventory.Entities); at++ {
		if c := &b.Inventory.Entities[at]; c.Kind == model.KindComputeInstance && c.Parent == i && c.UUID != "" {
			in.UUIDs = append(in.UUIDs, c.UUID)
		}
	}
	return in
}

// links returns the NVLinks of the GPU at position i.
func (b *builder) links(i int) *Links {
	if _, fresh := b.LinksFresh(b.MaxAge); !fresh {
		return nil
	}
	var l Links
	for at := i + 1; at < len(b.Inventory.Entities); at++ {
		e := &b.Inventory.Entities[at]
		switch {
		case e.Kind != model.KindLink || e.Parent != i || e.State != model.EntityUp:
		case e.LinkDown != slices.Contains(b.Sample.LinksChanged, at):
			l.Down++
		default:
			l.Up++
		}
	}
	if l.Up+l.Down == 0 {
		return nil
	}
	return &l
}

// xids returns the XIDs of the GPU with the UUID and its instances, newest first.
func (b *builder) xids(uuid string) []XID {
	all := []XID{}
	for key, count := range b.XIDs {
		if key.UUID != uuid {
			continue
		}
		described := b.Catalogue.Describe(key.Code)
		x := XID{
			Code: key.Code, Name: described.Name, Meaning: b.Catalogue.Message(key.Code), Severity: described.Severity.String(),
			Action: described.Action, Remedy: xidRemedy(described, uuid), Count: count.Total, Last: timeOf(count.Last),
		}
		if key.Instance != model.Unknown {
			x.Instance = fmt.Sprintf("%s %d", key.Profile, key.Instance)
		}
		all = append(all, x)
	}
	last := func(x *XID) time.Time {
		if x.Last == nil {
			return time.Time{}
		}
		return *x.Last
	}
	slices.SortFunc(all, func(x, y XID) int {
		return cmp.Or(last(&y).Compare(last(&x)), cmp.Compare(x.Code, y.Code), cmp.Compare(x.Instance, y.Instance))
	})
	return all
}

// hasOwnerSource reports whether a source of owners is configured.
func (b *builder) hasOwnerSource() bool { return len(b.Owners) > 0 }

// holding returns who holds the entity at position i.
func (b *builder) holding(i int) Holding {
	h := Holding{noSource, []Owner{}}
	known := false
	if b.Ownership != nil && i < len(b.Ownership.Entities) {
		holders := &b.Ownership.Entities[i]
		known = b.Ownership.Known && !holders.Unknown
		h.Owners = ownersOf(holders)
	}
	switch {
	case len(h.Owners) > 0:
		h.Held = held
	case b.Inventory.Entities[i].MIGMode && !b.Inventory.InstancesUnknown:
		h.Held = perInstance
	case known:
		h.Held = free
	case b.hasOwnerSource():
		h.Held = notKnown
	}
	return h
}

// ownersOf converts the holders of a device. The shares of one container are one owner.
func ownersOf(h *metrics.Holders) []Owner {
	all := []Owner{}
	for _, o := range h.Owners {
		owner := Owner{Kind: "pod", Namespace: o.Namespace, Name: o.Pod, Container: o.Container, Shares: 1}
		if m := o.Metadata; m != nil && m.Workload != "" {
			owner.Detail = m.WorkloadKind + " " + m.Workload
		}
		if n := len(all); n > 0 && all[n-1].Namespace == o.Namespace && all[n-1].Name == o.Pod && all[n-1].Container == o.Container {
			all[n-1].Shares++
			continue
		}
		all = append(all, owner)
	}
	for _, j := range h.Jobs {
		all = append(all, Owner{Kind: "job", Name: j.ID, Detail: joined(j.Name, j.User, j.Partition), Shares: 1})
	}
	for _, c := range h.Containers {
		all = append(all, Owner{Kind: "container", Name: cmp.Or(c.Name, c.ID), Detail: c.Image, Shares: 1})
	}
	return all
}

// joined joins the texts that are not empty.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), ", ")
}
