// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FamiliesConfig says how values become families.
type FamiliesConfig struct {
	// Counters are what the counters file lists.
	Counters []Counter
	// XIDs is the catalogue behind err_msg and the XID counters created at 0.
	XIDs *XIDCatalogue
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
	KernelLog func() (KernelLogStatus, bool)
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
	cfg        FamiliesConfig
	node       *Node
	supervisor interface{ Status() SupervisorStatus }
	owners     OwnerSource // nil if nobody is asked for owners
	layout     layout
	usage      usage
	xidInfos   map[int64]*LabelSet // by code
	rooms      map[string]int      // how many series each family last had
	words      map[Label]*LabelSet // label sets of one label, such as a reason
	count      int                 // how many families there were before those without series were taken out
}

// NewFamilies returns a builder of the families of node, which is put to use by
// [Families.Keep]. owners may be nil.
func NewFamilies(cfg FamiliesConfig, node *Node, supervisor *Supervisor, owners OwnerSource) *Families {
	return &Families{cfg: cfg, node: node, supervisor: supervisor, owners: owners, xidInfos: map[int64]*LabelSet{}, rooms: map[string]int{}, words: map[Label]*LabelSet{}}
}

// Keep has the node keep what these families need of the past. It is to be called
// when they take the place of others.
func (f *Families) Keep() {
	f.node.keepXIDs(f.cfg.xidWindow())
	f.node.keepClockEvents(f.cfg.clockEventsWindow())
}

// room returns an empty list for the series of a family, with room for as many as
// it had the last time: that is how many it has nearly always.
func (f *Families) room(name string) []Series { return make([]Series, 0, f.rooms[name]) }

// Build returns the families at this moment, sorted by name.
func (f *Families) Build() []Family {
	v := f.node.view()
	fresh := v.sample != nil && v.age <= f.cfg.MaxAge
	var ownership *Ownership
	if f.owners != nil && v.inventory != nil {
		at := f.node.now()
		if fresh {
			at = v.sample.Time // its values are of those who held the devices then
		}
		ownership = f.owners.Ownership(v.inventory, at)
	}
	if v.inventory != nil && !f.layout.covers(v, ownership, f.cfg.Counters) {
		f.layout = newLayout(&f.cfg, v, ownership)
	}
	f.attribute(v, ownership)
	families := make([]Family, 0, f.count)
	if fresh {
		families = f.appendFields(families, v)
		families = f.appendFromFields(families, v)
	}
	if v.inventory != nil {
		families = f.appendClockEvents(families, v, fresh)
		families = f.appendPeers(families, v)
	}
	families = f.appendHealth(families, v)
	families = f.appendDerived(families, v, ownership, fresh)
	families = f.appendState(families, v, ownership)
	f.count = len(families)
	for i := range families {
		f.rooms[families[i].Name] = len(families[i].Series)
	}
	families = slices.DeleteFunc(families, func(f Family) bool { return len(f.Series)+len(f.Histograms) == 0 })
	slices.SortFunc(families, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	return families
}

// layout is what stays the same between samples as long as nobody joins, leaves
// or changes owner: the rendered labels, and where each counter's cells are.
type layout struct {
	inventory *Inventory
	ownership *Ownership
	entities  []entityLayout
	// columns are, for each counter and kind, the column of the counter's field,
	// or -1.
	columns [][kindCount]int
	global  []bool // whether the counter's field is about the node
	// labelCounters are the positions of the counters of type label.
	labelCounters []int
	rendered      map[renderedKey]*LabelSet
	derived       derivedLayout
	// podLabels are the series of gpu_pod_labels; nil until they are asked for.
	podLabels []Series
}

// entityLayout is one entity's labels.
type entityLayout struct {
	identity []Label       // gpu, UUID, …, hostname
	fields   []Label       // values of the counters of type label, sorted by name
	variants []variant     // what the entity's values carry: one, unless a compatibility form repeats them
	device   *LabelSet     // of the device as a whole, where variants are its owners'; else nil
	self     *LabelSet     // identity alone
	own      *LabelSet     // the same of a GPU or GPU instance, nil of all else: what the gpu_* families carry
	owners   []ownerLayout // in the order of its owners
	xids     []xidLabelSet // in the order of the codes shown
	// integrals are those of each integral with a label; nil until they are asked for.
	integrals []*LabelSet
}

// xidLabelSet is the identity of an entity with an XID.
type xidLabelSet struct {
	code   int64
	labels *LabelSet
}

// variant is one of the label sets that the values of an entity are written with.
type variant struct {
	fields     []Label // values of the counters of type label, and pod labels
	attributes []Label // owner and job
	series     *LabelSet
	owner      int // position among the owners, or Unknown
}

// ownerLayout is the labels of one owner of an entity.
type ownerLayout struct {
	info  *LabelSet // of gpu_pod_info
	usage *LabelSet // of its container; nil for a replica after the first in one container
	kinds [processKinds]*LabelSet
}

// renderedKey names a label set that an entity needs beside its usual ones.
type renderedKey struct {
	entity  int
	family  string
	code    int64
	variant int
}

func newLayout(cfg *FamiliesConfig, v nodeView, ownership *Ownership) layout {
	l := layout{
		inventory: v.inventory,
		ownership: ownership,
		entities:  make([]entityLayout, len(v.inventory.Entities)),
		columns:   make([][kindCount]int, len(cfg.Counters)),
		global:    make([]bool, len(cfg.Counters)),
		rendered:  map[renderedKey]*LabelSet{},
		derived:   newDerivedLayout(v.inventory),
	}
	for i, c := range cfg.Counters {
		if c.Type == MetricLabel {
			l.labelCounters = append(l.labelCounters, i)
		}
		l.global[i] = c.Field.Level == KindGlobal
		for kind := range l.columns[i] {
			l.columns[i][kind] = -1 // also where the field is read there for another counter
			if c.On(EntityKind(kind)) {
				l.columns[i][kind] = slices.Index(v.inventory.Columns[kind], c.Field.ID)
			}
		}
	}
	taken := cfg.takenNames()
	for i := range l.entities {
		e := &l.entities[i]
		e.identity = cfg.identity(v.inventory, i)
		if e.identity == nil {
			continue
		}
		for _, c := range l.labelCounters {
			if value := l.labelValue(v.sample, c, i); value != "" {
				e.fields = append(e.fields, Label{cfg.Counters[c].Name, value})
			}
		}
		slices.SortFunc(e.fields, byName)
		e.self = NewLabelSet(e.identity...)
		if kind := v.inventory.Entities[i].Kind; kind == KindGPU || kind == KindGPUInstance {
			e.own = e.self
		}
		holders := ownership.of(holderOf(v.inventory, i))
		e.variants = cfg.variants(e.fields, holders, taken)
		for v := range e.variants {
			e.variants[v].series = NewLabelSet(slices.Concat(e.identity, e.variants[v].fields, e.variants[v].attributes)...)
		}
		if cfg.Owners.VirtualGPUs && len(holders.Owners) > 0 {
			e.device = NewLabelSet(slices.Concat(e.identity, e.fields)...)
		}
		if e.own == nil {
			continue // it is held by its GPU's owners, and does not count by itself
		}
		e.owners = cfg.ownerLayouts(e.identity, holders.Owners)
	}
	return l
}

func byName(a, b Label) int { return cmp.Compare(a.Name, b.Name) }

// covers says whether the layout is still right for the view.
func (l *layout) covers(v nodeView, ownership *Ownership, counters []Counter) bool {
	if l.inventory != v.inventory || l.ownership != ownership {
		return false
	}
	for i := range l.entities {
		fields, found := l.entities[i].fields, 0
		for _, c := range l.labelCounters {
			value := l.labelValue(v.sample, c, i)
			if value == "" {
				continue
			}
			if !slices.Contains(fields, Label{counters[c].Name, value}) {
				return false
			}
			found++
		}
		if found != len(fields) {
			return false
		}
	}
	return true
}

// labelValue returns the text of a label counter on an entity, or "" where there
// is none.
func (l *layout) labelValue(s *Sample, counter, entity int) string {
	cell, ok := l.cell(s, counter, entity)
	if !ok {
		cell, ok = l.globalCell(s, counter, entity)
	}
	if !ok {
		return ""
	}
	if !cell.Type.Numeric() {
		return s.String(cell)
	}
	return string(fieldValue(cell).append(nil))
}

// cell returns the value of a counter's field on an entity, if there is one.
func (l *layout) cell(s *Sample, counter, entity int) (Cell, bool) {
	kind := l.inventory.Entities[entity].Kind
	column := l.columns[counter][kind]
	if s == nil || column < 0 || len(s.Rows[entity]) == 0 {
		return Cell{}, false
	}
	cell := s.Rows[entity][column]
	return cell, cell.Status == StatusOK
}

// globalCell returns the value of a label counter that is about the node, for an
// entity of a kind that is not asked for it.
func (l *layout) globalCell(s *Sample, counter, entity int) (Cell, bool) {
	if !l.global[counter] || l.inventory.Entities[entity].Kind.OfGPU() && l.inventory.Entities[entity].Kind != KindComputeInstance {
		return Cell{}, false
	}
	for i := range l.inventory.devices() {
		if cell, ok := l.cell(s, counter, i); ok {
			return cell, true
		}
	}
	return Cell{}, false
}

// render returns the label set for key, made by the first call for it.
func (l *layout) render(key renderedKey, labels func() []Label) *LabelSet {
	set, ok := l.rendered[key]
	if !ok {
		set = NewLabelSet(labels()...)
		l.rendered[key] = set
	}
	return set
}

func (cfg *FamiliesConfig) gpuLabels(gpu *Entity) []Label {
	uuidName := "UUID"
	if cfg.OldNames {
		uuidName = "uuid"
	}
	id := strconv.FormatUint(uint64(gpu.ID), 10)
	return []Label{
		{"gpu", id}, {uuidName, gpu.UUID}, {"pci_bus_id", gpu.PCIBusID},
		{"device", "nvidia" + id}, {"modelName", cfg.modelName(gpu)},
	}
}

func (cfg *FamiliesConfig) modelName(gpu *Entity) string {
	if cfg.ReplaceBlanks {
		return strings.Join(strings.Fields(gpu.Model), "-")
	}
	return gpu.Model
}

func (cfg *FamiliesConfig) withHostname(labels []Label) []Label {
	if cfg.Hostname == "" {
		return labels
	}
	return append(labels, Label{cfg.HostnameLabel, cfg.Hostname})
}

// appendFields appends one family for each counter with a value somewhere.
func (f *Families) appendFields(families []Family, v nodeView) []Family {
	for i, c := range f.cfg.Counters {
		if c.Type == MetricLabel {
			continue
		}
		if c.Computed != 0 {
			families = append(families, f.computed(c, v))
			continue
		}
		family := Family{Name: c.Name, Help: c.Help, Type: c.Type, Series: f.room(c.Name)}
		for e := range v.inventory.Entities {
			cell, ok := f.layout.cell(v.sample, i, e)
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
				if c.Field.ID == FieldXID {
					labels = f.xidLabels(e, n, cell.Int64())
				}
				family.Series = append(family.Series, Series{labels, fieldValue(cell)})
			}
		}
		c.scale(family.Series)
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
