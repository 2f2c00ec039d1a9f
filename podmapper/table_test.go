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
	"gpu_exporter/podmapper/kubelettest"
)

const gpuResource = "nvidia.com/gpu"

// node is a GPU without MIG, whose minor number differs from its index, and a
// GPU cut into a 3g instance with two compute instances and a 1g one.
func node() []device.Device {
	return []device.Device{
		{Kind: device.KindGPU, GPUUUID: gpuA, Index: 0, Minor: 1},
		{Kind: device.KindGPU, GPUUUID: gpuB, Index: 1, Minor: 0},
		{Kind: device.KindGPUInstance, GPUUUID: gpuB, Index: 1, Minor: 0, GPUInstance: 2, MIGUUIDs: []string{migA, migB}},
		{Kind: device.KindComputeInstance, GPUUUID: gpuB, Index: 1, Minor: 0, GPUInstance: 2, ComputeInstance: 0, MIGUUIDs: []string{migA}},
		{Kind: device.KindComputeInstance, GPUUUID: gpuB, Index: 1, Minor: 0, GPUInstance: 2, ComputeInstance: 1, MIGUUIDs: []string{migB}},
		{Kind: device.KindGPUInstance, GPUUUID: gpuB, Index: 1, Minor: 0, GPUInstance: 9},
		{}, // an entity that no container can hold
	}
}

var nodeNames = []string{"gpu 0", "gpu 1", "gpu 1 gi 2", "gpu 1 gi 2 ci 0", "gpu 1 gi 2 ci 1", "gpu 1 gi 9", "other"}

func tableOf(t *testing.T, idType device.IDType, names []string, pods ...*podresources.PodResources) *Table {
	t.Helper()
	f := resourceFilter{names: make(map[string]bool), claims: true}
	for _, n := range names {
		f.names[n] = true
	}
	return &Table{idType: idType, Assignments: unmarshal(t, f, pods...)}
}

// unmarshal returns the assignments of an answer with these pods.
func unmarshal(t testing.TB, f resourceFilter, pods ...*podresources.PodResources) []Assignment {
	t.Helper()
	all, truncated := f.collect(&podresources.ListPodResourcesResponse{PodResources: pods})
	if truncated != 0 {
		t.Fatalf("%d truncated", truncated)
	}
	return all
}

// TestMatchForms: each form of ID gives an owner to exactly the devices that
// it means.
func TestMatchForms(t *testing.T) {
	for _, tc := range []struct {
		id     string
		idType device.IDType
		want   []string
	}{
		{gpuA, device.IDTypeUID, []string{"gpu 0"}},
		{gpuA + "::1", device.IDTypeUID, []string{"gpu 0"}},
		{gpuA, device.IDTypeDeviceName, []string{"gpu 0"}},
		{gpuB, device.IDTypeUID, []string{"gpu 1"}},
		{"0", device.IDTypeUID, []string{"gpu 0"}},
		{"0", device.IDTypeDeviceName, []string{"gpu 1"}},
		{"nvidia0", device.IDTypeUID, []string{"gpu 1"}},
		{"nvidia0", device.IDTypeDeviceName, []string{"gpu 1"}},
		{"nvidia1/vgpu2", device.IDTypeUID, []string{"gpu 0"}},
		{"nvidia0/gi2", device.IDTypeUID, []string{"gpu 1 gi 2", "gpu 1 gi 2 ci 0", "gpu 1 gi 2 ci 1"}},
		{"nvidia0/gi9/vgpu1", device.IDTypeUID, []string{"gpu 1 gi 9"}},
		{migA, device.IDTypeUID, []string{"gpu 1 gi 2", "gpu 1 gi 2 ci 0"}},
		{migB + "::0", device.IDTypeUID, []string{"gpu 1 gi 2", "gpu 1 gi 2 ci 1"}},
		{"MIG-" + gpuB + "/2/1", device.IDTypeUID, []string{"gpu 1 gi 2", "gpu 1 gi 2 ci 1"}},
		{"MIG-" + gpuB + "/9/0", device.IDTypeUID, []string{"gpu 1 gi 9"}},
		// Devices that do not exist, and texts without a meaning.
		{"GPU-gone", device.IDTypeUID, nil},
		{"MIG-gone", device.IDTypeUID, nil},
		{"nvidia1/gi2", device.IDTypeUID, nil},
		{"MIG-" + gpuA + "/2/0", device.IDTypeUID, nil},
		{"8", device.IDTypeUID, nil},
		{"nvidia8", device.IDTypeUID, nil},
		{"whatever", device.IDTypeUID, nil},
		{"", device.IDTypeUID, nil},
	} {
		t.Run(fmt.Sprintf("%s %q", tc.idType, tc.id), func(t *testing.T) {
			m := tableOf(t, tc.idType, nil, kubelettest.Pod("ml", "train", "main", gpuResource, tc.id)).Match(node(), nil)
			var got []string
			for i, owners := range m.Owners {
				if len(owners) > 0 {
					got = append(got, nodeNames[i])
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("owners on %q, want %q", got, tc.want)
			}
			if matched := m.Unmatched == 0; matched != (tc.want != nil) {
				t.Errorf("%d unmatched", m.Unmatched)
			}
		})
	}
}

func TestMatchUnknownMinor(t *testing.T) {
	devices := []device.Device{
		{Kind: device.KindGPU, GPUUUID: gpuA, Index: 0, Minor: device.Unknown},
		{Kind: device.KindGPU, GPUUUID: gpuB, Index: 1, Minor: device.Unknown},
	}
	m := tableOf(t, device.IDTypeUID, nil, kubelettest.Pod("ml", "train", "main", gpuResource, "nvidia1")).Match(devices, nil)
	if len(m.Owners[0]) != 0 || len(m.Owners[1]) != 1 {
		t.Errorf("owners %+v, want the index to stand in for the minor number", m.Owners)
	}
}

// TestMatchSharing: owners are sorted and unique; replicas of one
// container are several holds of one container.
func TestMatchSharing(t *testing.T) {
	const shared = "nvidia.com/gpu.shared"
	m := tableOf(t, device.IDTypeUID, nil,
		kubelettest.Pod("web", "b", "main", shared, gpuA+"::10", gpuA+"::9", gpuA+"::9"),
		kubelettest.Pod("ml", "z", "main", shared, gpuA+"::0"),
		kubelettest.Pod("ml", "a", "main", shared, gpuA+"::2"),
		kubelettest.Pod("ml", "a", "side", shared, gpuA+"::1"),
		kubelettest.Pod("ml", "alone", "main", shared, gpuB+"::1", gpuB+"::0"),
		kubelettest.Pod("ml", "two-cis", "main", "nvidia.com/mig-1c.3g.40gb", migA, migB),
	).Match(node(), nil)

	var got []string
	for _, o := range m.Owners[0] {
		got = append(got, strings.Join([]string{o.Namespace, o.Pod, o.Container, o.Replica}, "/"))
	}
	want := []string{"ml/a/main/2", "ml/a/side/1", "ml/z/main/0", "web/b/main/9", "web/b/main/10"}
	if !slices.Equal(got, want) {
		t.Errorf("owners of GPU 0 are %q, want %q", got, want)
	}
	if o, ok := soleContainer(m.Owners[0]); ok {
		t.Errorf("a shared GPU has the sole owner %+v", o)
	}
	if o, ok := soleContainer(m.Owners[1]); !ok || o.Pod != "alone" || len(m.Owners[1]) != 2 {
		t.Errorf("two replicas in one container: owners %+v, sole owner %v", m.Owners[1], ok)
	}
	if o, ok := soleContainer(m.Owners[2]); !ok || o.Pod != "two-cis" {
		t.Errorf("two compute instances in one container: owners %+v, sole owner %v", m.Owners[2], ok)
	}
	if _, ok := soleContainer(m.Owners[5]); ok {
		t.Error("a free instance has a sole owner")
	}
}

// TestMatchOrderIsStable: the kubelet's order does not matter.
func TestMatchOrderIsStable(t *testing.T) {
	pods := []*podresources.PodResources{
		kubelettest.Pod("ml", "a", "main", gpuResource, gpuA, "odd"),
		kubelettest.Pod("ml", "b", "main", gpuResource, gpuA+"::1", migA),
		kubelettest.Pod("dev", "c", "main", gpuResource, gpuA, migA, "GPU-gone"),
	}
	want := fmt.Sprint(tableOf(t, device.IDTypeUID, nil, pods...).Match(node(), nil).Owners)
	slices.Reverse(pods)
	if got := fmt.Sprint(tableOf(t, device.IDTypeUID, nil, pods...).Match(node(), nil).Owners); got != want {
		t.Errorf("reversed pods give\n%s\nwant\n%s", got, want)
	}
}

func TestMatchNothing(t *testing.T) {
	var none *Table
	if m := none.Match(node(), nil); len(m.Owners) != len(node()) || m.Unmatched != 0 {
		t.Errorf("a nil table gives %+v", m)
	}
	m := tableOf(t, device.IDTypeUID, nil, kubelettest.Pod("ml", "a", "main", gpuResource, gpuA)).Match(nil, nil)
	if len(m.Owners) != 0 || m.Unmatched != 1 {
		t.Errorf("a node without devices gives %+v", m)
	}
}

// TestResources: which extended resources count, and where a bare number does.
func TestResources(t *testing.T) {
	for _, tc := range []struct {
		resource, id string
		names        []string
		listed       bool
		form         device.Form
	}{
		{"nvidia.com/gpu", gpuA, nil, true, device.FormGPUUUID},
		{"nvidia.com/gpu.shared", gpuA + "::0", nil, true, device.FormGPUUUID},
		{"nvidia.com/mig-1g.5gb", migA, nil, true, device.FormMIGUUID},
		{"nvidia.com/mig-1g.5gb.shared", migA + "::1", nil, true, device.FormMIGUUID},
		{"nvidia.com/a100-renamed", gpuA, nil, true, device.FormGPUUUID},
		{"example.com/gpu", gpuA, nil, false, 0},
		{"example.com/gpu", gpuA, []string{"example.com/gpu"}, true, device.FormGPUUUID},
		{"cpu", "0", nil, false, 0},
		{"example.nvidia.com/gpu", gpuA, nil, false, 0},
		{"nvidia.com/gpu", "3", nil, true, device.FormNumber},
		{"nvidia.com/gpu.shared", "3::1", nil, true, device.FormNumber},
		{"example.com/gpu", "3", []string{"example.com/gpu"}, true, device.FormNumber},
		// IOMMU groups of NVIDIA's KubeVirt and sandbox plugins, not GPUs.
		{"nvidia.com/GA102GL_A10", "3", nil, true, device.FormUnknown},
		{"nvidia.com/pgpu", "3", nil, true, device.FormUnknown},
		{"nvidia.com/pgpu", "3", []string{"nvidia.com/pgpu"}, true, device.FormNumber},
	} {
		got := tableOf(t, device.IDTypeUID, tc.names, kubelettest.Pod("ml", "a", "main", tc.resource, tc.id)).Assignments
		if len(got) > 0 != tc.listed {
			t.Errorf("%s (names %q): %d assignments, want listed %v", tc.resource, tc.names, len(got), tc.listed)
			continue
		}
		if tc.listed && (got[0].Known.Form != tc.form || got[0].ID != tc.id || got[0].Owner.Resource != tc.resource) {
			t.Errorf("%s %s: %+v, want form %d", tc.resource, tc.id, got[0], tc.form)
		}
	}
}

// BenchmarkMatch is what a change of the table or of the topology costs on a
// node of 16 GPUs with 7 instances each, all of them taken: by device plugin, or
// by claims of instances that were made for them and have no published UUID.
func BenchmarkMatch(b *testing.B) {
	var devices []device.Device
	var plugin, claims []*podresources.PodResources
	slices := make(map[string]device.PublishedDevice)
	for g := range 16 {
		uuid := fmt.Sprintf("GPU-%036d", g)
		devices = append(devices, device.Device{Kind: device.KindGPU, GPUUUID: uuid, Index: g, Minor: g})
		for i := range 7 {
			mig := fmt.Sprintf("MIG-%030d-%05d", g, i)
			devices = append(devices, device.Device{Kind: device.KindGPUInstance, GPUUUID: uuid, Index: g, Minor: g, GPUInstance: i + 7,
				Profile: "1g.10gb", PlacementStart: i, MIGUUIDs: []string{mig}})
			pod, name := fmt.Sprintf("pod-%d-%d", g, i), fmt.Sprintf("gpu-%d-mig-1g10gb-19-%d", g, i)
			plugin = append(plugin, kubelettest.Pod("ml", pod, "main", "nvidia.com/mig-1g.10gb", mig))
			claims = append(claims, claimed(pod, name))
			slices[name] = placed(i, device.PublishedDevice{Type: "mig", ParentUUID: uuid, Profile: "1g.10gb"})
		}
	}
	published := publish(nvidiaDriver, slices)
	for _, bc := range []struct {
		name string
		pods []*podresources.PodResources
	}{{"plugin", plugin}, {"claims", claims}, {"both", append(plugin, claims...)}} {
		b.Run(bc.name, func(b *testing.B) {
			table := &Table{Assignments: unmarshal(b, resourceFilter{claims: true}, bc.pods...)}
			b.ReportAllocs()
			for b.Loop() {
				if m := table.Match(devices, published); m.Unmatched != 0 || len(m.Owners[1]) == 0 {
					b.Fatal("unmatched IDs")
				}
			}
		})
	}
}

// soleContainer returns the container of all owners, if it is one.
func soleContainer(owners []Owner) (o Owner, ok bool) {
	for _, p := range owners {
		if p.Namespace != owners[0].Namespace || p.Pod != owners[0].Pod || p.Container != owners[0].Container {
			return Owner{}, false
		}
		o = owners[0]
	}
	return o, len(owners) > 0
}
