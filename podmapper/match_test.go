// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/sourcetest"
	"gpu_exporter/podmapper/kubelettest"
)

// TestResolutions checks the explanation of each assignment.
func TestResolutions(t *testing.T) {
	for _, tc := range []struct {
		resource, id string
		idType       device.IDType
		devices      []int
		form, reason string
	}{
		{gpuResource, gpuA, device.IDTypeUID, []int{0}, "UUID of a GPU", ""},
		{gpuResource, "GPU-" + strings.ToUpper(gpuA[4:]) + "::1", device.IDTypeUID, []int{0}, "UUID of a GPU", ""},
		{gpuResource, "nvidia0/gi2::1", device.IDTypeUID, []int{2, 3, 4}, "GPU instance below a device file", ""},
		{gpuResource, migA + "/vgpu1", device.IDTypeUID, []int{2, 3}, "UUID of a MIG device", ""},
		{gpuResource, "MIG-" + gpuB + "/2/1", device.IDTypeUID, []int{2, 4}, "MIG device by GPU and instances", ""},

		{gpuResource, "GPU-gone", device.IDTypeUID, nil, "UUID of a GPU", "no GPU on this node has the UUID GPU-gone"},
		{gpuResource, gpuA + "-3", device.IDTypeUID, nil, "UUID of a GPU", "starts with the UUID of GPU 0"},
		{gpuResource, gpuA + "__1", device.IDTypeUID, nil, "no known form", "starts with the UUID of GPU 0"},
		{gpuResource, "9", device.IDTypeUID, nil, "number of a GPU", "no GPU on this node has the index 9; the node has 2 GPUs"},
		{gpuResource, "9", device.IDTypeDeviceName, nil, "number of a GPU", "no GPU on this node has the device file /dev/nvidia9; the node has 2 GPUs"},
		{gpuResource, "nvidia9", device.IDTypeUID, nil, "device file of a GPU", "no GPU on this node has the device file /dev/nvidia9"},
		{gpuResource, "nvidia9/gi1", device.IDTypeUID, nil, "GPU instance below a device file", "no GPU on this node has the device file /dev/nvidia9"},
		{gpuResource, "nvidia0/gi3", device.IDTypeUID, nil, "GPU instance below a device file", "no instance of GPU 1 matches nvidia0/gi3"},
		{gpuResource, "MIG-gone", device.IDTypeUID, nil, "UUID of a MIG device", "no MIG device on this node has the UUID MIG-gone"},
		{gpuResource, "MIG-GPU-gone/1/0", device.IDTypeUID, nil, "MIG device by GPU and instances", "no GPU on this node has the UUID"},
		{gpuResource, "MIG-" + gpuB + "/3/0", device.IDTypeUID, nil, "MIG device by GPU and instances", "no instance of GPU 1 matches MIG-"},
		{gpuResource, "tegra", device.IDTypeUID, nil, "integrated GPU", "the only GPU of a node; the node has 2 GPUs"},
		{gpuResource, "0000:3b:00.0", device.IDTypeUID, nil, "no known form", "it has no known form"},
		{"nvidia.com/pgpu", "0", device.IDTypeUID, nil, "no known form", "IOMMU groups"},
	} {
		t.Run(fmt.Sprintf("%s %q", tc.resource, tc.id), func(t *testing.T) {
			m := tableOf(t, tc.idType, nil, kubelettest.Pod("ml", "train", "main", tc.resource, tc.id)).Match(node(), nil)
			if len(m.Resolutions) != 1 {
				t.Fatalf("%d resolutions", len(m.Resolutions))
			}
			r := m.Resolutions[0]
			if r.ID != tc.id || r.Owner.Pod != "train" || !slices.Equal(r.Devices, tc.devices) || r.Known.Form.String() != tc.form {
				t.Errorf("pod %s, ID %q: devices %v by the %q, want %v by the %q", r.Owner.Pod, r.ID, r.Devices, r.Known.Form, tc.devices, tc.form)
			}
			if !strings.Contains(r.Reason, tc.reason) || (r.Reason == "") != (tc.reason == "") || (r.Hint == "") != (tc.reason == "") {
				t.Errorf("reason %q, hint %q; want a reason with %q", r.Reason, r.Hint, tc.reason)
			}
			if unmatched := m.Unmatched == 1; unmatched != (tc.devices == nil) {
				t.Errorf("%d unmatched", m.Unmatched)
			}
		})
	}
}

func TestTegra(t *testing.T) {
	m := tableOf(t, device.IDTypeUID, nil, kubelettest.Pod("ml", "train", "main", gpuResource, "tegra")).Match(
		[]device.Device{{}, {Kind: device.KindGPU, GPUUUID: "GPU-orin"}}, nil)
	if len(m.Owners[1]) != 1 || m.Unmatched != 0 {
		t.Errorf("%+v: the only GPU has no owner", m)
	}
}

// TestLogUnmatched checks that each problem is logged once while it lasts, and again
// when it returns.
func TestLogUnmatched(t *testing.T) {
	var log sourcetest.Log
	m := newMapper(t, Config{Socket: "/nowhere", Logger: log.Logger()})
	match := func(pods ...*podresources.PodResources) {
		m.LogUnmatched((&Table{Assignments: unmarshal(t, resourceFilter{claims: true}, pods...)}).Match(node(), nil))
	}

	lost := kubelettest.Pod("ml", "a", "main", gpuResource, "GPU-lost")
	other := kubelettest.Pod("ml", "b", "main", gpuResource, "GPU-lost", "odd")
	match(lost)
	match(lost)
	if n := log.Lines("level=WARN"); n != 1 {
		t.Errorf("%d warnings for one ID, want 1", n)
	}
	for _, text := range []string{"pod=a", "id=GPU-lost", "no GPU on this node has the UUID GPU-lost", "hint="} {
		if log.Lines(text) != 1 {
			t.Errorf("the warning has no %q", text)
		}
	}
	// Before the ResourceSlices are known, their own source logs whether something is wrong.
	match(lost, kubelettest.Claim("ml", "c", "main", "claim", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0")))
	if n := log.Lines("level=WARN"); n != 1 {
		t.Errorf("%d warnings before the ResourceSlices are known", n)
	}
	match(lost, other)
	match(other, lost, kubelettest.Pod("ml", "fine", "main", gpuResource, gpuA))
	if n := log.Lines("level=WARN"); n != 3 {
		t.Errorf("%d warnings, want one for each pod and ID: 3", n)
	}
	match(other)
	match(lost, other)
	if n := log.Lines("level=WARN"); n != 4 {
		t.Errorf("%d warnings, want one more for what came back: 4", n)
	}
	match()
	match(lost)
	if n := log.Lines("level=WARN"); n != 5 {
		t.Errorf("%d warnings, want one more for what came back: 5", n)
	}

	var many []*podresources.PodResources
	for i := range 1000 {
		many = append(many, kubelettest.Pod("ml", fmt.Sprint(i), "main", gpuResource, "GPU-lost"))
	}
	match(many...)
	match(many...)
	if n := log.Lines("level=WARN") - 5; n != maxUnmatchedLines+1 {
		t.Errorf("%d warnings for 1000 pods, want %d and one about the others", n, maxUnmatchedLines)
	}
	if log.Lines("devices=980") != 1 {
		t.Error("the last warning has no number")
	}
}
