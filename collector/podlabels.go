// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strconv"
	"strings"
)

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

// ownLabelNames are the names that a device's series can have without any pod's
// label, whatever the configuration.
func ownLabelNames() []string {
	return []string{
		"gpu", "UUID", "uuid", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "GPU_CI_ID", "hostname", "Hostname",
		"nvlink", "nvswitch", "gpu_uuid", "model_name", "cpu", "cpucore", "connectx",
		"container", "namespace", "pod", "container_name", "pod_name", "pod_namespace", "pod_uid", "vgpu",
		"workload", "workload_kind", "hpc_job", "err_code", "err_msg",
		"dra_claim_name", "dra_claim_namespace", "dra_driver_name", "dra_pool_name", "dra_device_name",
		"dra_mig_profile", "dra_mig_device_uuid",
	}
}
