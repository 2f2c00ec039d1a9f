// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"context"
	"errors"
	"testing"
	"time"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/kubelettest"
)

// TestAdminAccess checks that a pod that monitors a device by a ResourceClaim with
// adminAccess is no owner, and that each claim is read once.
func TestAdminAccess(t *testing.T) {
	monitor := kubelettest.Claim("gpu", "monitor", "main", "watch", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"))
	train := kubelettest.Claim("ml", "train", "main", "train", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"))
	_, socket := startKubelet(t, monitor, train)
	reads := map[string]int{}
	var failure error
	m := newMapper(t, Config{Socket: socket, DRA: true, AdminAccess: func(_ context.Context, namespace, name string) ([]device.PublishedName, error) {
		reads[namespace+"/"+name]++
		if failure != nil || namespace != "gpu" {
			return nil, failure
		}
		return []device.PublishedName{{Driver: nvidiaDriver, Pool: "node", Device: "gpu-0"}}, nil
	}})
	refresh := func(want string) {
		t.Helper()
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := pods(m.Table()); got != want {
			t.Errorf("owners %q, want %q", got, want)
		}
	}
	failure = poll.WithReason(poll.Forbidden, errors.New("no permission"))
	refresh("monitor train")
	refresh("monitor train")
	if reads["gpu/watch"] != 1 {
		t.Errorf("without a permission: %v", reads)
	}
	failure = nil
	for _, c := range m.claims {
		c.next = time.Time{}
	}
	refresh("train")
	refresh("train")
	if reads["gpu/watch"] != 2 || reads["ml/train"] != 2 {
		t.Errorf("claims are read more than once: %v", reads)
	}
}
