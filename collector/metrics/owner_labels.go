// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// variants returns the label sets under which the values of an entity are
// written, still without its identity. There is one; or one for each owner and
// for each job, where dcgm-exporter's form of these is asked for.
func (cfg *Config) variants(fields []Label, h *Holders, taken func(string) bool) []variant {
	variants := []variant{{fields: fields, owner: model.Unknown}}
	switch owner, single := h.single(); {
	case cfg.Owners.VirtualGPUs && len(h.Owners) > 0:
		variants = variants[:0]
		for i, o := range h.Owners {
			variants = append(variants, variant{cfg.ownerFields(fields, o, taken), cfg.ownerAttributes(o), nil, i})
		}
	case single:
		variants[0] = variant{cfg.ownerFields(fields, owner, taken), cfg.ownerAttributes(owner), nil, 0}
	}
	if !cfg.Owners.HPCJobs {
		return variants
	}
	var repeated []variant
	for _, job := range h.Jobs {
		if job.Source != JobFile {
			continue
		}
		for _, v := range variants {
			v.attributes = append(slices.Clone(v.attributes), Label{"hpc_job", job.ID})
			slices.SortFunc(v.attributes, byName)
			repeated = append(repeated, v)
		}
	}
	if repeated == nil {
		return variants
	}
	return repeated
}

// ownerFields adds the pod's labels to the label fields of its device.
func (cfg *Config) ownerFields(fields []Label, o Owner, taken func(string) bool) []Label {
	if !cfg.Owners.SeriesLabels {
		return fields
	}
	all := slices.Concat(fields, podLabels(o.Metadata, taken))
	slices.SortFunc(all, byName)
	return all
}

// ownerAttributes returns dcgm-exporter's labels of an owner, sorted by name.
func (cfg *Config) ownerAttributes(o Owner) []Label {
	labels := slices.Concat(cfg.containerLabels(o), cfg.claimLabels(o.Claim), cfg.podAttributes(o.Metadata))
	if cfg.Owners.VirtualGPUs && o.Replica != "" {
		labels = append(labels, Label{"vgpu", o.Replica})
	}
	slices.SortFunc(labels, byName)
	return labels
}

// claimLabels returns dcgm-exporter's labels of a ResourceClaim.
func (cfg *Config) claimLabels(c Claim) []Label {
	if !cfg.Owners.Claims || c == (Claim{}) {
		return nil
	}
	return slices.DeleteFunc([]Label{
		{"dra_claim_name", c.Name}, {"dra_claim_namespace", c.Namespace},
		{"dra_device_name", c.Device}, {"dra_driver_name", c.Driver},
		{"dra_mig_device_uuid", c.MIGUUID}, {"dra_mig_profile", c.MIGProfile},
		{"dra_pool_name", c.Pool},
	}, func(l Label) bool { return l.Value == "" })
}

// containerLabels returns the labels that name a container.
func (cfg *Config) containerLabels(o Owner) []Label {
	if cfg.OldNames {
		return []Label{{"container_name", o.Container}, {"pod_name", o.Pod}, {"pod_namespace", o.Namespace}}
	}
	return []Label{{"container", o.Container}, {"namespace", o.Namespace}, {"pod", o.Pod}}
}

// podAttributes returns what was asked for of a pod beside its name and labels.
func (cfg *Config) podAttributes(m *PodMetadata) []Label {
	if m == nil {
		return nil
	}
	var labels []Label
	if cfg.Owners.UID && m.UID != "" {
		labels = append(labels, Label{"pod_uid", m.UID})
	}
	if cfg.Owners.Workload && m.Workload != "" {
		labels = append(labels, Label{"workload", m.Workload}, Label{"workload_kind", m.WorkloadKind})
	}
	return labels
}

// ownerLayouts renders the labels that the gpu_pod_* families have for each
// owner of one entity. They do not change with OldNames: no family of that name
// was in dcgm-exporter.
func (cfg *Config) ownerLayouts(identity []Label, owners []Owner) []ownerLayout {
	layouts := make([]ownerLayout, len(owners))
	for i, o := range owners {
		base := append(slices.Clone(identity), Label{"container", o.Container}, Label{"namespace", o.Namespace}, Label{"pod", o.Pod})
		layouts[i].info = NewLabelSet(slices.Concat(base, []Label{{"replica", o.Replica}}, cfg.claimLabels(o.Claim), cfg.podAttributes(o.Metadata))...)
		if !cfg.Owners.Usage || i > 0 && o.sameContainer(owners[i-1]) {
			continue
		}
		layouts[i].usage = NewLabelSet(base...)
		for kind := range layouts[i].kinds {
			layouts[i].kinds[kind] = NewLabelSet(append(slices.Clone(base), Label{"type", model.ProcessKind(kind).String()})...)
		}
	}
	return layouts
}

// takenNames returns which label names a pod's label cannot have.
func (cfg *Config) takenNames() func(string) bool {
	taken := map[string]bool{cfg.HostnameLabel: true}
	for _, name := range field.OwnLabelNames() {
		taken[name] = true
	}
	for _, c := range cfg.Counters {
		if c.Type == field.MetricLabel {
			taken[c.Name] = true
		}
	}
	return func(name string) bool { return taken[name] }
}

// Names of Kubernetes' labels and annotations are not names of Prometheus' labels.
// The rules that make them so are deterministic, and never lose a value:
//
//   - each byte that is no letter, digit or underscore becomes an underscore;
//     a name that then begins with a digit gets an underscore in front;
//   - a name that the exporter's own labels have, or that Prometheus reserves
//     (two underscores in front), gets pod_label_ in front;
//   - of several that then are the same, the first by the name in Kubernetes keeps
//     it, and the others get _2, _3 and so on.

// sanitized returns a valid label name for a name in Kubernetes.
func sanitized(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c == '_', c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		default:
			b[i] = '_'
		}
	}
	if len(b) == 0 || b[0] >= '0' && b[0] <= '9' {
		return "_" + string(b)
	}
	return string(b)
}

// podLabels returns pod labels and annotations as labels of a series, sorted by
// name. taken says which names are not free.
func podLabels(m *PodMetadata, taken func(name string) bool) []Label {
	if m == nil {
		return nil
	}
	var labels []Label
	add := func(name, value string) {
		if strings.HasPrefix(name, "__") || taken(name) {
			name = "pod_label_" + name
		}
		labels = append(labels, Label{name, value})
	}
	for _, l := range m.Labels {
		add(sanitized(l.Name), l.Value)
	}
	for _, l := range m.Annotations {
		add("annotation_"+sanitized(l.Name), l.Value)
	}
	return distinct(labels)
}

// prefixed returns labels under a prefix of their own, where no name of ours can
// be, sorted by name.
func prefixed(prefix string, labels []Label) []Label {
	named := make([]Label, len(labels))
	for i, l := range labels {
		named[i] = Label{prefix + sanitized(l.Name), l.Value}
	}
	return distinct(named)
}

// distinct numbers the repetitions of a name and sorts by name.
func distinct(labels []Label) []Label {
	used := make(map[string]bool, len(labels))
	for i, l := range labels {
		name := l.Name
		for n := 2; used[name]; n++ {
			name = l.Name + "_" + strconv.Itoa(n)
		}
		used[name], labels[i].Name = true, name
	}
	slices.SortFunc(labels, byName)
	return labels
}
