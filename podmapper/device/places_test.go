// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func at(seconds int64) time.Time { return time.Unix(seconds, 0) }

// partitioned returns a GPU with one GPU instance and its compute instance.
func partitioned(gi int, profile string, start int, uuid string) []Device {
	gpu := Device{Kind: KindGPU, GPUUUID: gpuA, MIGMode: true, GPUInstance: Unknown, ComputeInstance: Unknown}
	instance := gpu
	instance.Kind, instance.GPUInstance, instance.Profile, instance.PlacementStart = KindGPUInstance, gi, profile, start
	if uuid != "" {
		instance.MIGUUIDs = []string{uuid}
	}
	compute := instance
	compute.Kind, compute.ComputeInstance = KindComputeInstance, 0
	return []Device{gpu, instance, compute}
}

// TestReusedPlace checks that a name by place means the instance that had it when the
// holder was first listed, and a new instance only for a confirmed newer holder.
func TestReusedPlace(t *testing.T) {
	all := func(string) bool { return true }
	none := func(string) bool { return false }
	first := NewIndex(partitioned(1, "3g.20gb", 0, migA), IDTypeUID)
	second := NewIndex(partitioned(1, "1g.5gb", 0, migB), IDTypeUID)
	empty := NewIndex(partitioned(1, "", 0, "")[:1], IDTypeUID)
	old, young := Hold{at(5), at(95)}, Hold{at(98), at(99)}
	confirmed := Hold{at(98), at(101)}
	for _, tc := range []struct {
		name   string
		now    *Index
		places func() *Places
		hold   Hold
		reason string // empty: the holder has the instance
	}{
		{"no history", first, func() *Places { return nil }, old, ""},
		{"the first inventory", first, func() *Places { return (*Places)(nil).Next(first, all, time.Time{}, at(10)) }, old, ""},
		{"the same instance", first, func() *Places {
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(first, all, at(90), at(100))
		}, old, ""},
		{"a different instance", second, func() *Places {
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(second, all, at(90), at(100))
		}, Hold{at(5), at(200)}, reasonFormer},
		{"a different instance, not confirmed", second, func() *Places {
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(second, all, at(90), at(100))
		}, young, ReasonUnconfirmed},
		{"a different instance, confirmed", second, func() *Places {
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(second, all, at(90), at(100))
		}, confirmed, ""},
		{"the same profile again, after none", first, func() *Places {
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(empty, all, at(40), at(50)).Next(first, all, at(90), at(100))
		}, Hold{at(5), at(200)}, reasonFormer},
		{"the first instance of a GPU in MIG mode", first, func() *Places {
			return (*Places)(nil).Next(empty, all, time.Time{}, at(10)).Next(first, all, at(90), at(100))
		}, young, ReasonUnconfirmed},
		{"the instances were not known for a time", first, func() *Places {
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(empty, none, at(40), at(50)).Next(first, all, at(90), at(100))
		}, old, ""},
		{"the UUID was not known for a time", first, func() *Places {
			unnamed := NewIndex(partitioned(1, "3g.20gb", 0, ""), IDTypeUID)
			return (*Places)(nil).Next(first, all, time.Time{}, at(10)).Next(unnamed, all, at(40), at(50)).Next(first, all, at(90), at(100))
		}, old, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := tc.now.Holding(tc.places(), tc.hold)
			for _, id := range []ID{parsed("nvidia0/gi1"), parsed("MIG-" + gpuA + "/1/0"), {Form: FormMIGCapability, GPUInstance: 1}} {
				found, miss := x.Find(id)
				if (len(found) > 0) != (tc.reason == "") || miss.Reason != tc.reason || tc.reason != "" && !slices.Contains(miss.Maybe, 1) {
					t.Errorf("%s: %v, %+v", id, found, miss)
				}
			}
			if found, _ := x.Find(ID{Form: FormDCGMInstance, GPUInstance: 1}); len(found) == 0 {
				t.Error("a job file does not name the current instance")
			}
			// A placed instance of a ResourceClaim has no UUID either.
			d := PublishedDevice{Type: TypeMIG, ParentUUID: gpuA, Profile: tc.now.devices[1].Profile}
			if found, miss := x.FindPublished(d, nil); (len(found) > 0) != (tc.reason == "") {
				t.Errorf("a published device: %v, %+v", found, miss)
			}
		})
	}
}

// TestMovedIndex checks that an index means the GPU that had it, after a GPU is lost and
// the indexes move.
func TestMovedIndex(t *testing.T) {
	all := func(string) bool { return true }
	gpus := func(uuids ...string) *Index {
		var devices []Device
		for i, uuid := range uuids {
			devices = append(devices, Device{Kind: KindGPU, GPUUUID: uuid, Index: i, Minor: Unknown})
		}
		return NewIndex(devices, IDTypeUID)
	}
	before, after := gpus("GPU-a", "GPU-b", "GPU-c"), gpus("GPU-a", "GPU-c")
	places := (*Places)(nil).Next(before, all, time.Time{}, at(10)).Next(after, all, at(90), at(100))
	old := after.Holding(places, Hold{at(5), at(200)})
	if found, _ := old.Find(parsed("0")); !slices.Equal(found, []int{0}) {
		t.Errorf("the GPU that did not move: %v", found)
	}
	if found, miss := old.Find(parsed("1")); found != nil || miss.Reason != reasonFormer {
		t.Errorf("the lost GPU: %v, %+v", found, miss)
	}
	if found, miss := after.Holding(places, Hold{at(95), at(200)}).Find(parsed("1")); !slices.Equal(found, []int{1}) {
		t.Errorf("a new holder: %v, %+v", found, miss)
	}
	back := gpus("GPU-c", "GPU-a", "GPU-b")
	places = places.Next(back, all, at(190), at(200))
	if found, miss := back.Holding(places, Hold{at(150), at(300)}).Find(parsed("1")); !slices.Equal(found, []int{0}) {
		t.Errorf("an index that moved with its GPU: %v, %+v", found, miss)
	}
	if found, _ := back.Holding(places, Hold{at(5), at(300)}).Find(parsed("1")); found != nil {
		t.Errorf("an index of two moves ago: %v", found)
	}
	if !strings.Contains(old.explain(parsed("7")).Reason, "no GPU") {
		t.Error("an index that never existed")
	}
}
