// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// variants returns the label sets of an entity's values, without its identity. There
// is one. dcgm-exporter's repeated forms have one for each owner, and for each job.
func (cfg *Config) variants(fields []*dto.LabelPair, h *Holders, taken func(string) bool) []variant {
	owners := h.Owners
	if !cfg.Owners.VirtualGPUs {
		owners = nil
		if owner, ok := h.single(); ok {
			owners = []Owner{owner}
		}
	}
	var variants []variant
	for i, o := range owners {
		v := variant{fields: fields, attributes: cfg.ownerAttributes(o), owner: i}
		if cfg.Owners.SeriesLabels {
			v.fields = sortedByName(fields, podLabels(o.Metadata, taken))
		}
		variants = append(variants, v)
	}
	if len(owners) == 0 {
		variants = []variant{{fields: fields, owner: model.Unknown}}
	}
	var repeated []variant
	for _, job := range h.Jobs {
		if !cfg.Owners.HPCJobs || job.Source != JobFile {
			continue
		}
		for _, v := range variants {
			v.attributes = sortedByName(v.attributes, with(nil, "hpc_job", job.ID))
			repeated = append(repeated, v)
		}
	}
	if repeated != nil {
		return repeated
	}
	return variants
}

// ownerAttributes returns dcgm-exporter's labels of an owner, sorted by name.
func (cfg *Config) ownerAttributes(o Owner) []*dto.LabelPair {
	container := nonEmpty(with(nil, "container", o.Container, "namespace", o.Namespace, "pod", o.Pod))
	if cfg.OldNames {
		container = nonEmpty(with(nil, "container_name", o.Container, "pod_name", o.Pod, "pod_namespace", o.Namespace))
	}
	if cfg.Owners.VirtualGPUs && o.Replica != "" {
		container = append(container, pair("vgpu", o.Replica))
	}
	return sortedByName(container, cfg.claimLabels(o.Claim), cfg.podAttributes(o.Metadata))
}

// claimLabels returns dcgm-exporter's labels of a ResourceClaim.
func (cfg *Config) claimLabels(c Claim) []*dto.LabelPair {
	if !cfg.Owners.Claims || c == (Claim{}) {
		return nil
	}
	return nonEmpty(with(nil, "dra_claim_name", c.Name, "dra_claim_namespace", c.Namespace,
		"dra_device_name", c.Device, "dra_driver_name", c.Driver,
		"dra_mig_device_uuid", c.MIGUUID, "dra_mig_profile", c.MIGProfile, "dra_pool_name", c.Pool))
}

// podAttributes returns the configured attributes of a pod.
func (cfg *Config) podAttributes(m *PodMetadata) []*dto.LabelPair {
	if m == nil {
		return nil
	}
	var labels []*dto.LabelPair
	if cfg.Owners.UID && m.UID != "" {
		labels = with(labels, "pod_uid", m.UID)
	}
	if cfg.Owners.Workload && m.Workload != "" {
		labels = with(labels, "workload", m.Workload, "workload_kind", m.WorkloadKind)
	}
	return labels
}

// takenNames returns a function that reports whether a pod's label cannot have a name.
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

// The names of labels and annotations in Kubernetes are converted to label names of
// Prometheus. The rules are deterministic and never lose a value:
//
//   - each byte except letters, digits and underscores becomes an underscore, and a
//     name that begins with a digit gets an underscore in front: 2nd-tier is _2nd_tier;
//   - a name that is taken, or that Prometheus reserves with two underscores, gets
//     pod_label_ in front: gpu is pod_label_gpu;
//   - of several equal names, the first by its name in Kubernetes keeps it, and the
//     rest get _2, _3 and so on.

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

// podLabels returns pod labels and annotations as labels of a series, sorted by name.
func podLabels(m *PodMetadata, taken func(name string) bool) []*dto.LabelPair {
	if m == nil {
		return nil
	}
	named := slices.Clone(m.Labels)
	for _, l := range m.Annotations {
		named = append(named, Label{"annotation_" + sanitized(l.Name), l.Value})
	}
	for i := range named {
		name := sanitized(named[i].Name)
		if strings.HasPrefix(name, "__") || taken(name) {
			name = "pod_label_" + name
		}
		named[i].Name = name
	}
	return distinct(named)
}

// prefixed returns labels under a prefix that no label of ours has, sorted by name.
func prefixed(prefix string, labels []Label) []*dto.LabelPair {
	named := make([]Label, len(labels))
	for i, l := range labels {
		named[i] = Label{prefix + sanitized(l.Name), l.Value}
	}
	return distinct(named)
}

// distinct numbers repeated names, and sorts by name.
func distinct(labels []Label) []*dto.LabelPair {
	used, pairs := make(map[string]bool, len(labels)), make([]*dto.LabelPair, len(labels))
	for i, l := range labels {
		name := l.Name
		for n := 2; used[name]; n++ {
			name = l.Name + "_" + strconv.Itoa(n)
		}
		used[name], pairs[i] = true, pair(name, l.Value)
	}
	return sortedByName(pairs)
}
