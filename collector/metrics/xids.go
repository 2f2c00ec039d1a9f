// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"strconv"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/xid"
)

// The families about XID errors.
var (
	gpuXIDErrors        = definition{"gpu_xid_errors_total", field.MetricCounter, "XID errors since the exporter started, by code.", []string{"xid"}}
	gpuXIDLastTimestamp = definition{"gpu_xid_last_timestamp_seconds", field.MetricGauge, "When the XID was last seen.", []string{"xid"}}
	gpuXIDInfo          = definition{"gpu_xid_info", field.MetricGauge, "What is known of an XID code that calls for action or was seen on this node; always 1. Of a code that is in no catalogue, the severity is unknown.",
		[]string{"action", "name", "severity", "xid"}}

	kernelLogUp     = definition{"gpu_exporter_kernel_log_up", field.MetricGauge, "Whether XIDs are counted from the kernel log, too: 0 while it cannot be read. Absent where it is not to be.", nil}
	kernelLogLost   = definition{"gpu_exporter_kernel_log_lost_records_total", field.MetricCounter, "Records that the kernel overwrote before they were read; XIDs may be among them.", nil}
	kernelLogStrays = definition{"gpu_exporter_kernel_log_unmatched_xids_total", field.MetricCounter, "XIDs of the kernel log at PCI addresses where no GPU was known.", nil}
)

// appendXIDs appends the XID counters. A counter born at 1 hides its first event
// from increase(), so the codes that call for action exist from the start.
func (f *Families) appendXIDs(families []Family, v state.View) []Family {
	total, last := gpuXIDErrors.family(), gpuXIDLastTimestamp.family()
	action := f.cfg.XIDs.CallsForAction()
	total.Series = f.buffer(total.Name)
	add := func(key model.EntityKey, labelsOf func(n int, code int64) *LabelSet) {
		for n, code := range seenOr(action, v.XIDs, key) {
			count, labels := v.XIDs[xid.Key{EntityKey: key, Code: code}], labelsOf(n, code)
			total.Series = append(total.Series, Series{labels, Number(float64(count.Total))})
			if !count.Last.IsZero() {
				last.Series = append(last.Series, Series{labels, Number(seconds(count.Last))})
			}
		}
	}
	for i := range f.layout.entities {
		l := &f.layout.entities[i]
		if l.own == nil {
			continue
		}
		add(model.KeyOf(v.Inventory, i), func(n int, code int64) *LabelSet {
			// The codes are the same ones in nearly every sample.
			if n == len(l.xids) {
				l.xids = append(l.xids, xidLabelSet{})
			}
			if l.xids[n].labels == nil || l.xids[n].code != code {
				l.xids[n] = xidLabelSet{code, NewLabelSet(withXID(l.identity, code)...)}
			}
			return l.xids[n].labels
		})
	}
	// What happened to a GPU that is gone may be why it is.
	for i := range v.Gone {
		if gone := &v.Gone[i]; model.FindGPU(v.Inventory, gone.UUID) == nil {
			add(model.EntityKey{UUID: gone.UUID, Instance: model.Unknown}, func(_ int, code int64) *LabelSet {
				return NewLabelSet(withXID(f.cfg.goneIdentity(gone), code)...)
			})
		}
	}
	// An XID is no less true for its instance being gone.
	for _, key := range formerInstances(v) {
		labels, count := NewLabelSet(withXID(f.cfg.formerIdentity(v.GPU(key.UUID), key.EntityKey), key.Code)...), v.XIDs[key]
		total.Series = append(total.Series, Series{labels, Number(float64(count.Total))})
		if !count.Last.IsZero() {
			last.Series = append(last.Series, Series{labels, Number(seconds(count.Last))})
		}
	}
	return append(families, total, last, f.xidInfo(action, v))
}

// formerInstances returns the keys of XIDs on instances that a GPU no longer has, in
// order.
func formerInstances(v state.View) []xid.Key {
	var keys []xid.Key
	for key := range v.XIDs {
		if key.Instance == model.Unknown || v.GPU(key.UUID) == nil {
			continue
		}
		here := slices.ContainsFunc(v.Inventory.Entities, func(e model.Entity) bool {
			return e.Kind == model.KindGPUInstance && e.InstanceID == key.Instance && e.Profile == key.Profile &&
				v.Inventory.Entities[e.Parent].UUID == key.UUID
		})
		if !here {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b xid.Key) int {
		return cmp.Or(cmp.Compare(a.UUID, b.UUID), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Code, b.Code))
	})
	return keys
}

// formerIdentity returns the identity labels of an instance that is gone.
func (cfg *Config) formerIdentity(gpu *model.Entity, key model.EntityKey) []Label {
	labels := cfg.gpuLabels(gpu)
	return cfg.withHostname(append(labels, Label{"GPU_I_PROFILE", key.Profile}, Label{"GPU_I_ID", strconv.Itoa(key.Instance)}))
}

// xidInfo returns the family that says what the codes mean, to be joined
// on(instance, xid): of those that have a series on every GPU, and those seen. All
// would be three times as many, on every node.
func (f *Families) xidInfo(action []int64, v state.View) Family {
	family := gpuXIDInfo.family()
	codes := slices.Clone(action)
	for k := range v.XIDs {
		codes = append(codes, k.Code)
	}
	slices.Sort(codes)
	for _, code := range slices.Compact(codes) {
		labels, ok := f.xidInfos[code]
		if !ok {
			labels = NewLabelSet(xidInfoLabels(f.cfg.XIDs, code)...)
			f.xidInfos[code] = labels
		}
		family.Series = append(family.Series, Series{labels, Number(1)})
	}
	return family
}

func xidInfoLabels(c *xid.Catalogue, code int64) []Label {
	labels := []Label{{"severity", "unknown"}, {"xid", strconv.FormatInt(code, 10)}}
	if x, ok := c.Lookup(code); ok {
		labels[0].Value = x.Severity.String()
		labels = append([]Label{{"action", x.Action}, {"name", x.Name}}, labels...)
	}
	return slices.DeleteFunc(labels, func(l Label) bool { return l.Value == "" })
}

// appendKernelLog appends the state of the kernel log.
func (f *Families) appendKernelLog(families []Family, v state.View) []Family {
	if f.cfg.KernelLog == nil {
		return families
	}
	status, followed := f.cfg.KernelLog()
	if !followed {
		return families
	}
	return append(families,
		kernelLogUp.single(Bool(status.Up)),
		kernelLogLost.single(Number(float64(status.Lost))),
		kernelLogStrays.single(Number(float64(v.StrayXIDs))))
}

func withXID(identity []Label, code int64) []Label {
	return append(slices.Clone(identity), Label{"xid", strconv.FormatInt(code, 10)})
}

// seenOr returns the codes of always together with those counted for key, sorted.
func seenOr(always []int64, seen map[xid.Key]xid.Count, key model.EntityKey) []int64 {
	codes := always
	for k := range seen {
		if k.EntityKey == key && !slices.Contains(always, k.Code) {
			if len(codes) == len(always) {
				codes = slices.Clone(always)
			}
			codes = append(codes, k.Code)
		}
	}
	if len(codes) > len(always) {
		slices.SortFunc(codes, cmp.Compare)
	}
	return codes
}
