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

// migNode has a GPU without MIG, a GPU with three instances whose places are
// known, and a GPU with instances whose places are not known.
func migNode() []device.Device {
	const c = "GPU-c"
	instance := func(gpu string, index, id int, profile string, start int, uuid string) device.Device {
		return device.Device{Kind: device.KindGPUInstance, GPUUUID: gpu, Index: index, Minor: index, GPUInstance: id,
			Profile: profile, PlacementStart: start, MIGUUIDs: []string{uuid}}
	}
	return []device.Device{
		0: {Kind: device.KindGPU, GPUUUID: gpuA, Index: 0, Minor: 0, PCIBusID: "00000000:3B:00.0"},
		1: {Kind: device.KindGPU, GPUUUID: gpuB, Index: 1, Minor: 1, PCIBusID: "00000000:AF:00.0"},
		2: {Kind: device.KindGPU, GPUUUID: c, Index: 2, Minor: 2},
		3: instance(gpuB, 1, 1, "3g.40gb", 0, migA),
		4: instance(gpuB, 1, 7, "1g.10gb", 4, migB),
		5: instance(gpuB, 1, 8, "1g.10gb", 5, "MIG-5"),
		6: instance(gpuB, 1, 9, "1g.10gb+me", 6, "MIG-6"),
		7: instance(c, 2, 1, "3g.40gb", device.Unknown, "MIG-7"),
		8: instance(c, 2, 2, "1g.10gb", device.Unknown, "MIG-8"),
		9: instance(c, 2, 3, "1g.10gb", device.Unknown, "MIG-9"),
		10: {Kind: device.KindComputeInstance, GPUUUID: c, Index: 2, Minor: 2, GPUInstance: 1, ComputeInstance: 0, Profile: "1c.3g.40gb",
			PlacementStart: device.Unknown, MIGUUIDs: []string{"MIG-7"}},
	}
}

// publish returns published devices of one driver and pool.
func publish(driver string, devices map[string]device.PublishedDevice) *device.Published {
	p := &device.Published{Version: 1, Devices: make(map[device.PublishedName]device.PublishedDevice)}
	for name, d := range devices {
		p.Devices[device.PublishedName{Driver: driver, Pool: "node", Device: name}] = d
	}
	return p
}

// silent is a device of which no numbers are published.
func silent(d device.PublishedDevice) device.PublishedDevice {
	d.PlacementStart, d.Index, d.Minor = device.Unknown, device.Unknown, device.Unknown
	return d
}

func placed(start int, d device.PublishedDevice) device.PublishedDevice {
	d = silent(d)
	d.PlacementStart = start
	return d
}

func claimed(pod string, devices ...string) *podresources.PodResources {
	return claimedFrom(nvidiaDriver, pod, devices...)
}

func claimedFrom(driver, pod string, devices ...string) *podresources.PodResources {
	var list []*podresources.ClaimResource
	for _, d := range devices {
		list = append(list, kubelettest.ClaimDevice(driver, "node", d))
	}
	return kubelettest.Claim("ml", pod, "main", "claim-of-"+pod, list...)
}

// TestClaims checks how a claim's device is found by its ResourceSlice.
func TestClaims(t *testing.T) {
	for _, tc := range []struct {
		name    string
		device  device.PublishedDevice
		others  map[string]device.PublishedDevice // claimed by another pod
		want    []int
		profile string
		uuid    string
		reason  string
	}{
		{name: "GPU by UUID", device: silent(device.PublishedDevice{Type: "gpu", UUID: gpuA}), want: []int{0}},
		{name: "UUID in capitals", device: silent(device.PublishedDevice{Type: "gpu", UUID: "GPU-" + strings.ToUpper(gpuA[4:])}), want: []int{0}},
		{name: "UUID before everything else", device: device.PublishedDevice{Type: "gpu", UUID: gpuA, Index: 1, Minor: 1, PCIBusID: "0000:af:00.0"}, want: []int{0}},
		{name: "GPU that is gone", device: device.PublishedDevice{Type: "gpu", UUID: "GPU-gone", Index: 1, PCIBusID: "0000:af:00.0"},
			reason: "published as GPU-gone, and no GPU on this node has the UUID GPU-gone"},
		{name: "GPU by PCI bus ID", device: silent(device.PublishedDevice{Type: "gpu", PCIBusID: "0000:af:00.0"}), want: []int{1}},
		{name: "PCI bus ID without a domain", device: silent(device.PublishedDevice{Type: "gpu", PCIBusID: "af:00.0"}), want: []int{1}},
		{name: "PCI bus ID before the index, which moves", device: device.PublishedDevice{Type: "gpu", PCIBusID: "0000:ff:00.0", Index: 1, Minor: 1},
			reason: "no GPU on this node has the PCI bus ID 0000:ff:00.0"},
		{name: "GPU by index", device: device.PublishedDevice{Type: "gpu", Index: 2, Minor: device.Unknown}, want: []int{2}},
		{name: "GPU by minor number", device: device.PublishedDevice{Type: "gpu", Index: device.Unknown, Minor: 2}, want: []int{2}},
		{name: "GPU by a UUID of another kind and index", device: device.PublishedDevice{UUID: "gpu-18db0e85", Index: 0, Minor: device.Unknown}, want: []int{0}},
		{name: "GPU by nothing", device: silent(device.PublishedDevice{Type: "gpu"}), reason: "neither UUID, PCI bus ID, index nor minor"},

		{name: "MIG device by UUID", device: placed(4, device.PublishedDevice{Type: "mig", UUID: migB, ParentUUID: gpuB, Profile: "1g.10gb"}),
			want: []int{4}, profile: "1g.10gb", uuid: migB},
		{name: "MIG device that is gone", device: placed(4, device.PublishedDevice{Type: "mig", UUID: "MIG-gone", ParentUUID: gpuB, Profile: "1g.10gb"}),
			reason: "published as MIG-gone, and no MIG device"},
		{name: "MIG device by place", device: placed(5, device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "1g.10gb"}),
			want: []int{5}, profile: "1g.10gb", uuid: "MIG-5"},
		{name: "profile with a suffix", device: placed(6, device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "1g.10gb.me"}),
			want: []int{6}, profile: "1g.10gb.me", uuid: "MIG-6"},
		{name: "suffix that the inventory omits", device: placed(5, device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "1g.10gb+gfx"}),
			want: []int{5}, profile: "1g.10gb+gfx", uuid: "MIG-5"},
		{name: "parent by PCI bus ID", device: placed(0, device.PublishedDevice{Type: "mig", PCIBusID: "0000:AF:00.0", Profile: "3g.40gb"}),
			want: []int{3}, profile: "3g.40gb", uuid: migA},
		{name: "place that is free", device: placed(3, device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "1g.10gb"}),
			reason: "GPU 1 has no instance 1g.10gb at slice 3"},
		{name: "place with another profile", device: placed(0, device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "1g.10gb"}),
			reason: "GPU 1 has no instance 1g.10gb at slice 0"},
		{name: "parent that is gone", device: placed(0, device.PublishedDevice{Type: "mig", ParentUUID: "GPU-gone", Profile: "1g.10gb"}),
			reason: "no GPU on this node has the UUID GPU-gone"},
		{name: "no profile", device: placed(0, device.PublishedDevice{Type: "mig", ParentUUID: gpuB}), reason: "neither UUID nor profile"},

		{name: "only instance of a profile, place unknown to us", device: placed(4, device.PublishedDevice{Type: "mig", ParentUUID: "GPU-c", Profile: "3g.40gb"}),
			want: []int{7, 10}, profile: "3g.40gb", uuid: "MIG-7"},
		{name: "only instance of a profile, place not published", device: silent(device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "3g.40gb"}),
			want: []int{3}, profile: "3g.40gb", uuid: migA},
		{name: "only instance with a suffix", device: silent(device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "1g.10gb+me"}),
			want: []int{6}, profile: "1g.10gb+me", uuid: "MIG-6"},
		{name: "one of two instances", device: placed(4, device.PublishedDevice{Type: "mig", ParentUUID: "GPU-c", Profile: "1g.10gb"}),
			reason: "GPU 2 has 2 instances 1g.10gb, and their placement does not identify one"},
		{name: "one instance for two claims", device: placed(0, device.PublishedDevice{Type: "mig", ParentUUID: "GPU-c", Profile: "3g.40gb"}),
			others: map[string]device.PublishedDevice{"other": placed(4, device.PublishedDevice{Type: "mig", ParentUUID: "GPU-c", Profile: "3g.40gb"})},
			reason: "GPU 2 has one instance 3g.40gb, but claims hold 2 such devices"},
		{name: "claims elsewhere do not count", device: placed(4, device.PublishedDevice{Type: "mig", ParentUUID: "GPU-c", Profile: "3g.40gb"}),
			others: map[string]device.PublishedDevice{"other": placed(0, device.PublishedDevice{Type: "mig", ParentUUID: gpuB, Profile: "3g.40gb"})},
			want:   []int{7, 10}, profile: "3g.40gb", uuid: "MIG-7"},
		{name: "compute instance", device: silent(device.PublishedDevice{Type: "mig", ParentUUID: "GPU-c", Profile: "1c.3g.40gb"}),
			want: []int{7, 10}, profile: "1c.3g.40gb", uuid: "MIG-7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := map[string]device.PublishedDevice{"dev": tc.device}
			pods := []*podresources.PodResources{claimed("train", "dev")}
			for name, d := range tc.others {
				all[name] = d
				pods = append(pods, claimed("other", name))
			}
			m := tableOf(t, device.IDTypeUID, nil, pods...).Match(migNode(), publish(nvidiaDriver, all))
			r := m.Resolutions[slices.IndexFunc(m.Resolutions, func(r Resolution) bool { return r.Owner.Pod == "train" })]
			got := slices.Sorted(slices.Values(r.Devices))
			if !slices.Equal(got, tc.want) || r.ID != nvidiaDriver+"/node/dev" || r.Known.Form != device.FormClaim {
				t.Errorf("%q, a %s, gives owners to %v, want %v (%s)", r.ID, r.Known.Form, got, tc.want, r.Reason)
			}
			if (r.Reason == "") != (tc.reason == "") || !strings.Contains(r.Reason, tc.reason) || (r.Hint == "") != (tc.reason == "") {
				t.Errorf("reason %q and hint %q, want a reason with %q", r.Reason, r.Hint, tc.reason)
			}
			for _, i := range tc.want {
				at := slices.IndexFunc(m.Owners[i], func(o Owner) bool { return o.Pod == "train" })
				if at < 0 {
					t.Fatalf("device %d has the owners %+v", i, m.Owners[i])
				}
				want := Claim{Namespace: "ml", Name: "claim-of-train", PublishedName: device.PublishedName{Driver: nvidiaDriver, Pool: "node", Device: "dev"},
					MIGProfile: tc.profile, MIGUUID: tc.uuid}
				if got := m.Owners[i][at].Claim; got != want {
					t.Errorf("device %d is held by %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

// TestClaimsOfOtherDrivers checks that only devices that are or must be GPUs count.
func TestClaimsOfOtherDrivers(t *testing.T) {
	for _, tc := range []struct {
		name      string
		driver    string
		published *device.PublishedDevice
		known     bool // any slice
		counted   bool
		reason    string
	}{
		{name: "channel between nodes", driver: "compute-domain.nvidia.com", published: &device.PublishedDevice{Type: "channel"}},
		{name: "network card", driver: "dra.net", published: &device.PublishedDevice{Index: 0, PCIBusID: "0000:3b:00.0"}},
		{name: "network card, no slices", driver: "dra.net"},
		{name: "GPU for a virtual machine", driver: nvidiaDriver, published: &device.PublishedDevice{Type: "vfio", UUID: "b3f1", PCIBusID: "0000:3b:00.0"}},
		{name: "GPU of another driver, by its type", driver: "gpu.example.com", published: &device.PublishedDevice{Type: "gpu", Index: 0}, counted: true},
		{name: "GPU of another driver, by its UUID", driver: "gpu.example.com", published: &device.PublishedDevice{UUID: gpuA}, counted: true},
		{name: "simulated GPU of another driver", driver: "gpu.example.com", published: &device.PublishedDevice{UUID: "gpu-1", Index: 0}},
		{name: "no slices", driver: nvidiaDriver, counted: true, reason: reasonNoSlices},
		{name: "not in a slice", driver: nvidiaDriver, known: true, counted: true, reason: reasonNotInSlices},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p *device.Published
			if tc.published != nil {
				p = publish(tc.driver, map[string]device.PublishedDevice{"dev": *tc.published})
			} else if tc.known {
				p = publish(tc.driver, nil)
			}
			table := tableOf(t, device.IDTypeUID, nil, claimedFrom(tc.driver, "train", "dev"))
			m := table.Match(migNode(), p)
			if counted := len(m.Resolutions) == 1; counted != tc.counted {
				t.Fatalf("resolutions %+v, want some: %v", m.Resolutions, tc.counted)
			}
			owned := len(m.Owners[0]) == 1
			if want := tc.counted && tc.reason == ""; owned != want || (m.Unmatched == 1) != (tc.reason != "") {
				t.Errorf("owned %v, want %v; %d unmatched", owned, want, m.Unmatched)
			}
			if tc.reason != "" && m.Resolutions[0].Reason != tc.reason {
				t.Errorf("reason %q, want %q", m.Resolutions[0].Reason, tc.reason)
			}
		})
	}
}

// TestClaimsShared checks shared claims, several requests, several drivers, shares of
// a device, and a device that a device plugin allocated as well.
func TestClaimsShared(t *testing.T) {
	p := publish(nvidiaDriver, map[string]device.PublishedDevice{
		"gpu-0": silent(device.PublishedDevice{Type: "gpu", UUID: gpuA}),
		"gpu-1": silent(device.PublishedDevice{Type: "gpu", UUID: gpuB}),
	})
	p.Devices[device.PublishedName{Driver: "compute-domain.nvidia.com", Pool: "node", Device: "channel-0"}] = silent(device.PublishedDevice{Type: "channel"})

	two := kubelettest.Claim("ml", "two-requests", "main", "both",
		kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"), kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-1"),
		kubelettest.ClaimDevice("compute-domain.nvidia.com", "node", "channel-0"))
	// The kubelet lists a device for each request that it satisfies.
	resources := two.Containers[0].DynamicResources[0]
	resources.ClaimResources = append(resources.ClaimResources, kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-1"))

	side := kubelettest.Claim("ml", "shared-a", "side", "shared", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"))
	sharedA := kubelettest.Claim("ml", "shared-a", "main", "shared", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"))
	sharedA.Containers = append(sharedA.Containers, side.Containers...)

	half := kubelettest.Claim("ml", "half", "main", "halves",
		kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-1"), kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-1"))
	for i, share := range []string{"share-b", "share-a"} {
		half.Containers[0].DynamicResources[0].ClaimResources[i].ShareId = &share
	}

	m := tableOf(t, device.IDTypeUID, nil, two, sharedA, half,
		kubelettest.Claim("ml", "shared-b", "main", "shared", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0")),
		kubelettest.Pod("ml", "plugin", "main", gpuResource, gpuA),
	).Match(migNode(), p)
	if m.Unmatched != 0 {
		t.Errorf("%d unmatched", m.Unmatched)
	}
	for i, want := range [][]string{
		{"plugin/main", "shared-a/main shared", "shared-a/side shared", "shared-b/main shared", "two-requests/main both"},
		{"half/main halves share-a", "half/main halves share-b", "two-requests/main both"},
	} {
		var got []string
		for _, o := range m.Owners[i] {
			got = append(got, strings.TrimRight(fmt.Sprintf("%s/%s %s %s", o.Pod, o.Container, o.Claim.Name, o.Claim.Share), " "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("owners of GPU %d are\n%q, want\n%q", i, got, want)
		}
	}
}

// TestClaimsOff checks that claims are ignored without the setting.
func TestClaimsOff(t *testing.T) {
	if got := unmarshal(t, resourceFilter{}, claimed("train", "gpu-0")); len(got) != 0 {
		t.Errorf("assignments %+v", got)
	}
}
