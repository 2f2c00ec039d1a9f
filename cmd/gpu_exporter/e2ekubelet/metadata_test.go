// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import "testing"

// labelled returns the holdings with the labels and UIDs from the kubelet's Pods API.
func (k *kubelet) labelled(t *testing.T, h holdings) holdings {
	t.Helper()
	pods, err := k.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	more := map[string]map[string]string{}
	for _, one := range h {
		pod := pods[one.pod]
		if pod == nil || pod.UID == "" || pod.Labels[teamLabel] == "" {
			t.Fatalf("the kubelet's Pods API has no UID or label of %s", one.pod)
		}
		more[one.pod] = map[string]string{teamLabel: pod.Labels[teamLabel], "pod_uid": string(pod.UID)}
	}
	return h.with(more)
}
