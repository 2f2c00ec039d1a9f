// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/xid"
)

// Config configures the families.
type Config struct {
	// Counters are the content of the counters file.
	Counters []field.Counter
	// Selected are the families to publish besides the counters.
	Selected definition.Selection
	// XIDs is the source of err_msg and of the names, severities and actions of XIDs.
	XIDs *xid.Catalogue
	// HostnameLabel is the name of the label, hostname or Hostname. An empty Hostname
	// leaves the label out.
	HostnameLabel, Hostname string
	// OldNames selects dcgm-exporter's labels from before 2.0: uuid, pod_name, …
	OldNames bool
	// ReplaceBlanks replaces blanks in model names by dashes.
	ReplaceBlanks bool
	// LinksFromOne numbers the NVLinks of GPUs from 1, as dcgm-exporter does.
	LinksFromOne bool
	// MaxAge is the age at which a sample's series are withheld.
	MaxAge time.Duration
	// XIDWindow is the window of DCGM_EXP_XID_ERRORS_COUNT, and ClockEventsWindow
	// that of DCGM_EXP_CLOCK_EVENTS_COUNT.
	XIDWindow, ClockEventsWindow time.Duration
	// KernelLog returns the status of the kernel log, and false if it is not
	// followed. It may be nil.
	KernelLog func() (model.KernelLogStatus, bool)
	Owners    OwnerForm
	// HealthInterval is the time between health checks, or 0 without them.
	HealthInterval time.Duration
}

// OwnerForm selects how owners become labels and series. The zero value is
// dcgm-exporter's default form, except for shared devices.
type OwnerForm struct {
	// UID and Workload add the pod's UID, and the topmost object that it belongs to.
	UID, Workload bool
	// SeriesLabels adds the pod's labels and annotations to its devices' series;
	// LabelsFamily publishes them in gpu_pod_labels.
	SeriesLabels, LabelsFamily bool
	// Claims adds the ResourceClaim that allocated the device.
	Claims bool
	// HPCJobs repeats the series of a device for each job of a job file, with the
	// label hpc_job, as dcgm-exporter does.
	HPCJobs bool
	// VirtualGPUs repeats the series of a device for each of its owners, as
	// dcgm-exporter does with --kubernetes-virtual-gpus.
	VirtualGPUs bool
	// Usage adds the gpu_pod_* families about what each owner uses.
	Usage bool
}

// Families builds the families of a node. It keeps labels from sample to sample and
// is not safe for concurrent use.
type Families struct {
	cfg        Config
	node       *state.Node
	supervisor interface{ Status() model.SamplerStatus }
	owners     OwnerSource // nil without a source of owners
	calling    []int64     // the XIDs that call for action
	layout     layout
	usage      usage
	cache      map[labelsKey][]*dto.LabelPair // of this layout
}

// New returns a builder of the families of node. Call [Families.Keep] when it
// replaces another one. owners may be nil.
func New(cfg Config, node *state.Node, supervisor interface{ Status() model.SamplerStatus }, owners OwnerSource) *Families {
	return &Families{cfg: cfg, node: node, supervisor: supervisor, owners: owners,
		calling: cfg.XIDs.CallsForAction(), cache: map[labelsKey][]*dto.LabelPair{}}
}

// Keep makes the node keep the history that these families need.
func (f *Families) Keep() {
	window := func(computed field.ComputedCounter, length time.Duration) time.Duration {
		if slices.ContainsFunc(f.cfg.Counters, func(c field.Counter) bool { return c.Computed == computed }) {
			return length
		}
		return 0
	}
	f.node.DescribeXIDs(f.cfg.XIDs)
	f.node.KeepXIDs(window(field.XIDErrorsCount, f.cfg.XIDWindow))
	f.node.KeepClockEvents(window(field.ClockEventsCount, f.cfg.ClockEventsWindow))
}

// Build returns the families of this moment, sorted by name. They must not be
// modified: they share labels with those of later samples.
func (f *Families) Build() []*dto.MetricFamily {
	v := f.node.View()
	p := page{
		Families: f, v: v, status: f.supervisor.Status(), fresh: v.Sample != nil && v.Age <= f.cfg.MaxAge,
		defined: make(map[*definition.Family]*family, len(f.cfg.Counters)+64),
	}
	if v.Inventory != nil {
		if f.owners != nil {
			at := f.node.Clock()
			if p.fresh {
				at = v.Sample.Time // the values are those of the owners at that time
			}
			p.ownership = f.owners.Ownership(v.Inventory, at)
		}
		if !f.layout.covers(v, p.ownership, f.cfg.Counters) {
			f.layout = newLayout(&f.cfg, v, p.ownership)
			clear(f.cache)
		}
	}
	f.attribute(v, p.ownership)
	if p.fresh {
		p.addFields()
		p.addHardware()
	}
	if v.Inventory != nil {
		p.addClockEvents()
		p.addPeers()
		p.addDevices()
		p.addLinks()
		p.addProfiling()
		p.addOwners()
		p.addUsage()
		p.addStatistics()
		p.addIntegrals()
		p.addXIDs()
	}
	p.addHealth()
	p.addExporter()
	p.families = slices.DeleteFunc(p.families, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 })
	slices.SortFunc(p.families, compareFamilies)
	return p.families
}

// page is the families of one moment under construction.
type page struct {
	*Families
	v         state.View
	status    model.SamplerStatus
	ownership *Ownership
	fresh     bool // the sample is young enough to publish its values
	families  []*dto.MetricFamily
	defined   map[*definition.Family]*family
}

// newFamily appends a family. It is left out if it has no series in the end.
func (p *page) newFamily(name, help string, typ field.MetricType) *family {
	f := newFamily(name, help, typ)
	p.families = append(p.families, f.MetricFamily)
	return f
}

// selected returns the family of the definition, or nil if it is not selected.
func (p *page) selected(d *definition.Family) *family {
	f, known := p.defined[d]
	if !known {
		if p.cfg.Selected.Has(d) {
			f = p.newFamily(d.Name, d.Help, d.Type)
		}
		p.defined[d] = f
	}
	return f
}

// add appends a series to the family of the definition if that is selected.
func (p *page) add(d *definition.Family, labels []*dto.LabelPair, value float64) {
	if f := p.selected(d); f != nil {
		f.add(labels, value)
	}
}

// addEntity appends a series of the entity at position i with the values of the
// definition's labels.
func (p *page) addEntity(d *definition.Family, i int, value float64, labels ...string) {
	if f := p.selected(d); f != nil {
		f.add(p.labels(d, i, p.layout.entities[i].identity, labels...), value)
	}
}

// addInfo appends the n-th series, always 1, of a family about the entity at position i.
func (p *page) addInfo(d *definition.Family, i, n int, labels func() []*dto.LabelPair) {
	if f := p.selected(d); f != nil {
		f.add(p.cached(labelsKey{family: d.Name, entity: i, variant: n}, labels), 1)
	}
}

// addOwn appends a series about the exporter with the values of the definition's
// labels.
func (p *page) addOwn(d *definition.Family, value float64, labels ...string) {
	if f := p.selected(d); f != nil {
		f.add(p.labels(d, model.Unknown, nil, labels...), value)
	}
}

// labelsKey identifies cached labels of an entity; without one, entity is Unknown.
type labelsKey struct {
	family          string
	entity, variant int
	values          [4]string
}

// labels returns the identity with the values of the definition's labels, without empty
// ones. It caches the result by definition, entity and values.
func (f *Families) labels(d *definition.Family, entity int, identity []*dto.LabelPair, values ...string) []*dto.LabelPair {
	if len(values) == 0 {
		return identity
	}
	key := labelsKey{family: d.Name, entity: entity}
	copy(key.values[:], values)
	return f.cached(key, func() []*dto.LabelPair {
		return labelsOf(d, identity, key.values[:len(values)]...)
	})
}

// labelsOf returns the identity with the values of the definition's labels, without empty
// ones.
func labelsOf(d *definition.Family, identity []*dto.LabelPair, values ...string) []*dto.LabelPair {
	labels := with(identity)
	for i, value := range values {
		if value != "" {
			labels = append(labels, pair(d.Labels[i], value))
		}
	}
	return labels
}

// cached returns the labels for the key, which the first call makes.
func (f *Families) cached(key labelsKey, labels func() []*dto.LabelPair) []*dto.LabelPair {
	known, ok := f.cache[key]
	if !ok {
		known = labels()
		f.cache[key] = known
	}
	return known
}
