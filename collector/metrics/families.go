// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/xid"
)

// Config says how values become families.
type Config struct {
	// Counters are what the counters file lists.
	Counters []field.Counter
	// XIDs is the catalogue behind err_msg and the XID counters created at 0.
	XIDs *xid.Catalogue
	// HostnameLabel is the label's name, hostname or Hostname; Hostname its value.
	// An empty value leaves the label out.
	HostnameLabel, Hostname string
	// OldNames gives dcgm-exporter's labels from before 2.0: uuid, pod_name, …
	OldNames bool
	// ReplaceBlanks writes model names with dashes for blanks.
	ReplaceBlanks bool
	// LinksFromOne numbers the NVLinks of GPUs from 1, as dcgm-exporter does.
	LinksFromOne bool
	// MaxAge is how old a sample may be before its series are withheld.
	MaxAge time.Duration
	// XIDWindow is how far DCGM_EXP_XID_ERRORS_COUNT looks back.
	XIDWindow time.Duration
	// KernelLog says how the kernel log is followed, or that it is not; nil if it
	// never is.
	KernelLog func() (model.KernelLogStatus, bool)
	Owners    OwnerForm
	// HealthInterval is the time between health checks; 0 if there are none.
	HealthInterval time.Duration
	// ClockEventsWindow is how long DCGM_EXP_CLOCK_EVENTS_COUNT looks back.
	ClockEventsWindow time.Duration
}

// OwnerForm says how owners become labels and series. The zero value is
// dcgm-exporter's default form, but for shared devices.
type OwnerForm struct {
	// UID and Workload add the pod's UID, and the topmost object it belongs to.
	UID, Workload bool
	// SeriesLabels puts the pod's labels and annotations on its devices' series;
	// LabelsFamily puts them into gpu_pod_labels.
	SeriesLabels, LabelsFamily bool
	// Claims adds the ResourceClaim that gave the device.
	Claims bool
	// HPCJobs repeats the series of a device for each job from a job file, with
	// the label hpc_job, as dcgm-exporter does.
	HPCJobs bool
	// VirtualGPUs repeats the series of a device for each of its owners, as
	// dcgm-exporter does with --kubernetes-virtual-gpus.
	VirtualGPUs bool
	// Usage adds the gpu_pod_* families that tell what each owner uses.
	Usage bool
}

// Families builds the families of a node. It is not safe for concurrent use: it
// keeps what does not change from sample to sample, such as rendered labels.
type Families struct {
	cfg        Config
	node       *state.Node
	supervisor interface{ Status() model.SamplerStatus }
	owners     OwnerSource // nil if nobody is asked for owners
	layout     layout
	usage      usage
	xidInfos   map[int64]*LabelSet // by code
	lengths    map[string]int      // how many series each family last had
	single     map[Label]*LabelSet // label sets of one label, such as a reason
	count      int                 // how many families there were before those without series were taken out
}

// New returns a builder of the families of node, which is put to use by
// [Families.Keep]. owners may be nil.
func New(cfg Config, node *state.Node, supervisor interface{ Status() model.SamplerStatus }, owners OwnerSource) *Families {
	return &Families{cfg: cfg, node: node, supervisor: supervisor, owners: owners, xidInfos: map[int64]*LabelSet{}, lengths: map[string]int{}, single: map[Label]*LabelSet{}}
}

// Keep has the node keep what these families need of the past. It is to be called
// when they take the place of others.
func (f *Families) Keep() {
	f.node.KeepXIDs(f.cfg.xidWindow())
	f.node.KeepClockEvents(f.cfg.clockEventsWindow())
}

// buffer returns an empty list for the series of a family, with room for as many as
// it had the last time: that is how many it has nearly always.
func (f *Families) buffer(name string) []Series { return make([]Series, 0, f.lengths[name]) }

// Build returns the families at this moment, sorted by name.
func (f *Families) Build() []Family {
	v := f.node.View()
	fresh := v.Sample != nil && v.Age <= f.cfg.MaxAge
	var ownership *Ownership
	if f.owners != nil && v.Inventory != nil {
		at := f.node.Clock()
		if fresh {
			at = v.Sample.Time // its values are of those who held the devices then
		}
		ownership = f.owners.Ownership(Moment{Inventory: v.Inventory, Processes: v.Processes, At: at})
	}
	if v.Inventory != nil && !f.layout.covers(v, ownership, f.cfg.Counters) {
		f.layout = newLayout(&f.cfg, v, ownership)
	}
	f.attribute(v, ownership)
	families := make([]Family, 0, f.count)
	if fresh {
		families = f.appendFields(families, v)
		families = f.appendDerived(families, v)
	}
	if v.Inventory != nil {
		families = f.appendClockEvents(families, v, fresh)
		families = f.appendPeers(families, v)
	}
	families = f.appendHealth(families, v)
	families = f.appendDevices(families, v, ownership, fresh)
	families = f.appendState(families, v, ownership)
	f.count = len(families)
	for i := range families {
		f.lengths[families[i].Name] = len(families[i].Series)
	}
	families = slices.DeleteFunc(families, func(f Family) bool { return len(f.Series)+len(f.Histograms) == 0 })
	slices.SortFunc(families, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	return families
}

// appendFields appends one family for each counter with a value somewhere.
func (f *Families) appendFields(families []Family, v state.View) []Family {
	for i, c := range f.cfg.Counters {
		if c.Type == field.MetricLabel {
			continue
		}
		if c.Computed != 0 {
			families = append(families, f.computed(c, v))
			continue
		}
		family := Family{Name: c.Name, Help: c.Help, Type: c.Type, Series: f.buffer(c.Name)}
		for e := range v.Inventory.Entities {
			cell, ok := f.layout.cell(v.Sample, i, e)
			if !ok || !cell.Type.Numeric() {
				continue
			}
			l := &f.layout.entities[e]
			if l.device != nil && perProcess(c.Field.ID) {
				family.Series = f.appendPerProcess(family.Series, e, c.Field.ID, cell)
				continue
			}
			for n := range l.variants {
				labels := l.variants[n].series
				if c.Field.ID == field.XIDErrors {
					labels = f.xidLabels(e, n, cell.Int64())
				}
				family.Series = append(family.Series, Series{labels, fieldValue(cell)})
			}
		}
		scale(c, family.Series)
		families = append(families, family)
	}
	return families
}

// xidLabels returns the labels of the last-XID gauge, which dcgm-exporter gives
// the code and its text as attributes.
func (f *Families) xidLabels(entity, n int, code int64) *LabelSet {
	return f.layout.render(renderedKey{entity, "last_xid", code, n}, func() []Label {
		e := &f.layout.entities[entity]
		v := &e.variants[n]
		attributes := append(slices.Clone(v.attributes),
			Label{"err_code", strconv.FormatInt(code, 10)},
			Label{"err_msg", f.cfg.XIDs.Message(code)})
		slices.SortFunc(attributes, byName)
		return slices.Concat(e.identity, v.fields, attributes)
	})
}
