// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
)

func TestPodLabels(t *testing.T) {
	taken := testConfigTakenNames(t)
	for _, tc := range []struct {
		name   string
		labels []Label // sorted by name, as in PodMetadata
		want   []Label
	}{
		{"plain", []Label{{"team", "vision"}}, []Label{{"team", "vision"}}},
		{"dots, dashes and slashes", []Label{{"app.kubernetes.io/managed-by", "x"}}, []Label{{"app_kubernetes_io_managed_by", "x"}}},
		{"a digit in front", []Label{{"2nd", "x"}}, []Label{{"_2nd", "x"}}},
		{"not ASCII", []Label{{"größe", "x"}}, []Label{{"gr____e", "x"}}},
		{"a fixed label of the device", []Label{{"gpu", "x"}, {"modelName", "y"}}, []Label{{"pod_label_gpu", "x"}, {"pod_label_modelName", "y"}}},
		{"a label of the owner", []Label{{"namespace", "x"}, {"pod", "y"}}, []Label{{"pod_label_namespace", "x"}, {"pod_label_pod", "y"}}},
		{"a label field of the counters file", []Label{{"DCGM_FI_DRIVER_VERSION", "x"}}, []Label{{"pod_label_DCGM_FI_DRIVER_VERSION", "x"}}},
		{"reserved by Prometheus", []Label{{"__name__", "x"}}, []Label{{"pod_label___name__", "x"}}},
		{"two of the same name", []Label{{"a-b", "first"}, {"a.b", "second"}, {"a_b", "third"}}, []Label{{"a_b", "first"}, {"a_b_2", "second"}, {"a_b_3", "third"}}},
		{"a number that is taken, too", []Label{{"a-b", "first"}, {"a.b", "second"}, {"a.b.2", "third"}}, []Label{{"a_b", "first"}, {"a_b_2", "second"}, {"a_b_2_2", "third"}}},
		{"a clash with what a clash is renamed to", []Label{{"gpu", "x"}, {"pod_label_gpu", "y"}}, []Label{{"pod_label_gpu", "x"}, {"pod_label_gpu_2", "y"}}},
		{"none", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := named(podLabels(&PodMetadata{Labels: tc.labels}, taken)); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if got := named(podLabels(&PodMetadata{Labels: []Label{{"a", "1"}}, Annotations: []Label{{"b/c", "2"}}}, taken)); !slices.Equal(got, []Label{{"a", "1"}, {"annotation_b_c", "2"}}) {
		t.Errorf("with an annotation: %v", got)
	}
}

// named returns labels in a form that can be compared.
func named(pairs []*dto.LabelPair) (labels []Label) {
	for _, l := range pairs {
		labels = append(labels, Label{l.GetName(), l.GetValue()})
	}
	return labels
}

func testConfigTakenNames(t *testing.T) func(string) bool {
	cfg := testConfig(t)
	return cfg.takenNames()
}

// Each value appears once, under a valid, free and unique name, for any names in
// Kubernetes.
func FuzzPodLabels(f *testing.F) {
	f.Add("gpu", "a-b", "a.b")
	f.Add("", "__x", "9")
	f.Add("pod", "pod_label_pod", "\xff")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		names := []string{a, b, c}
		slices.Sort(names)
		var labels []Label
		for i, name := range slices.Compact(names) {
			labels = append(labels, Label{name, string(rune('0' + i))})
		}
		taken := func(name string) bool { return name == "gpu" || name == "pod" }
		got := named(podLabels(&PodMetadata{Labels: labels}, taken))
		if len(got) != len(labels) {
			t.Fatalf("%q became %q", labels, got)
		}
		seen := map[string]bool{}
		for _, l := range got {
			if seen[l.Name] || taken(l.Name) || !model.LegacyValidation.IsValidLabelName(l.Name) {
				t.Errorf("%q became %q", labels, got)
			}
			seen[l.Name] = true
		}
	})
}
