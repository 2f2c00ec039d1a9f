// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/docker"
	"gpu_exporter/podmapper/kubelettest"
)

const gpuUUID = "GPU-0a1b2c3d-0000-4000-8000-000000000001"

func oneGPU() *model.Inventory {
	return &model.Inventory{Entities: []model.Entity{{
		Kind: model.KindGPU, Parent: model.Unknown, UUID: gpuUUID, Minor: model.Unknown, Selected: true,
	}}}
}

func newOwners(t *testing.T, c config.Static) *Owners {
	t.Helper()
	o, err := New(&c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// pod returns the pod on the only GPU at a time, or a dash.
func (o *Owners) pod(inv *model.Inventory, at time.Time) string {
	ownership := o.Ownership(inv, at)
	if ownership == nil || len(ownership.Entities[0].Owners) == 0 {
		return "-"
	}
	return ownership.Entities[0].Owners[0].Pod
}

func mapping(seconds int64, pod string) *podmapper.Table {
	id, _ := device.ParseID(gpuUUID)
	return &podmapper.Table{Time: time.Unix(seconds, 0), Assignments: []podmapper.Assignment{{
		Owner: podmapper.Owner{Namespace: "ml", Pod: pod, Container: "main"}, ID: gpuUUID, Known: id,
	}}}
}

// A sample is joined with the owners at its own time, also when owners change
// before the sample is shown, and when the inventory changes.
func TestOwnersAtTheTimeOfTheSample(t *testing.T) {
	o := newOwners(t, config.Static{Slurm: config.SlurmOff})
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	set := func(in inputs) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.publish(in, nil)
	}
	expect := func(inv *model.Inventory, want map[int64]string) {
		t.Helper()
		for seconds, pod := range want {
			if got := o.pod(inv, at(seconds)); got != pod {
				t.Errorf("at %d: pod %s, want %s", seconds, got, pod)
			}
		}
	}
	first, second := oneGPU(), oneGPU()
	o.Observe(wire.Frame{Inventory: first})
	expect(first, map[int64]string{10: "-"})
	a, b := mapping(20, "a"), mapping(30, "b")
	set(inputs{mapping: a})
	expect(first, map[int64]string{10: "a", 25: "a"}) // the first owners apply to the time before, too
	set(inputs{mapping: b})
	expect(first, map[int64]string{10: "a", 29: "a", 30: "b", 50: "b"})
	engine := &docker.Table{Time: at(40)}
	set(inputs{mapping: b, engine: engine})
	expect(first, map[int64]string{29: "a", 35: "b", 45: "b"})

	// A new inventory starts with the newest owners; the old one keeps its history.
	o.Observe(wire.Frame{Inventory: second})
	set(inputs{mapping: b, engine: engine})
	expect(second, map[int64]string{10: "b"})
	expect(first, map[int64]string{29: "a", 35: "b"})
	set(inputs{mapping: mapping(60, "c"), engine: engine})
	expect(second, map[int64]string{59: "b", 60: "c"})
	expect(first, map[int64]string{29: "a", 35: "b", 60: "c"})

	// The old inventory is dropped after the second sample of the new one, and so is
	// the history before the sample before the newest.
	for _, seconds := range []int64{61, 62} {
		o.Observe(wire.Frame{Sample: &model.Sample{Time: at(seconds)}})
	}
	set(inputs{mapping: mapping(70, "d"), engine: engine})
	if got := o.Ownership(first, at(35)); got != nil {
		t.Errorf("the old inventory still has %+v", got)
	}
	expect(second, map[int64]string{61: "c", 62: "c", 70: "d"})
	if n := len(o.table.Load().joins); n != 2 {
		t.Errorf("%d joins are kept, want 2", n)
	}
	for i := range int64(2 * maxJoins) {
		set(inputs{mapping: mapping(80+i, fmt.Sprint(i)), engine: engine})
	}
	if n := len(o.table.Load().joins); n > maxJoins {
		t.Errorf("%d joins are kept without a new sample, want at most %d", n, maxJoins)
	}
}

// As long as nothing changes, the table gives the same pointer and no notice.
func TestOwnershipIsStable(t *testing.T) {
	o := newOwners(t, config.Static{Slurm: config.SlurmOff})
	inv := oneGPU()
	o.Observe(wire.Frame{Inventory: inv})
	<-o.Changed()
	before := o.Ownership(inv, time.Now())
	for range 3 {
		o.update()
		o.Observe(wire.Frame{Sample: &model.Sample{Time: time.Now()}})
	}
	if o.Ownership(inv, time.Now()) != before {
		t.Error("another pointer although nothing changed")
	}
	select {
	case <-o.Changed():
		t.Error("a notice although nothing changed")
	default:
	}
	if before.Known {
		t.Error("without a source the owners count as known")
	}
}

// The table follows the kubelet without an exposition being built.
func TestTableFollowsTheKubelet(t *testing.T) {
	root := t.TempDir()
	socket := filepath.Join(root, "pod-resources", "kubelet.sock")
	for _, dir := range []string{"pod-resources", "device-plugins"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kubelet := kubelettest.New(socket)
	kubelet.SetPods(kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu", gpuUUID))
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	started := time.Now()
	o := newOwners(t, config.Static{Slurm: config.SlurmAuto, GPUIDType: "uid", Kubernetes: true, KubeletSocket: socket})
	inv := oneGPU()
	o.Observe(wire.Frame{Inventory: inv})
	t.Cleanup(o.Settle(t.Context()))
	if got := o.pod(inv, time.Now()); got != "a" {
		t.Errorf("pod %s after settling, want a", got)
	}
	if ownership := o.Ownership(inv, time.Now()); !ownership.Known || !ownership.Mapped {
		t.Errorf("known: %v, mapped: %v", ownership.Known, ownership.Mapped)
	}
	for len(o.Changed()) > 0 {
		<-o.Changed()
	}
	beforeChange := time.Now()
	kubelet.SetPods(kubelettest.Pod("ml", "b", "main", "nvidia.com/gpu", gpuUUID))
	if err := kubelettest.WriteCheckpoint(filepath.Join(root, "device-plugins", "kubelet_internal_checkpoint")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new pod is in the table", func() bool { return o.pod(inv, time.Now()) == "b" })
	for name, tc := range map[string]struct {
		at   time.Time
		want string
	}{
		"before the first answer":     {started, "a"},
		"before the change":           {beforeChange, "a"},
		"without the monotonic clock": {beforeChange.Round(0), "a"},
		"in the future":               {time.Now().Add(time.Minute), "b"},
	} {
		if got := o.pod(inv, tc.at); got != tc.want {
			t.Errorf("%s: pod %s, want %s", name, got, tc.want)
		}
	}
	select {
	case <-o.Changed():
	case <-time.After(2 * time.Minute):
		t.Error("no notice of the change")
	}
}

// A kubelet whose answer exceeds the bounds is an incomplete source, so no device
// counts as free.
func TestTruncatedMappingIsIncomplete(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	o := newOwners(t, config.Static{Slurm: config.SlurmOff, GPUIDType: "uid", Kubernetes: true, KubeletSocket: socket})
	inv := oneGPU()
	o.Observe(wire.Frame{Inventory: inv})
	for name, want := range map[string]bool{"pod": true, strings.Repeat("x", 300): false, "next": true} {
		kubelet.SetPods(kubelettest.Pod("ml", name, "main", "nvidia.com/gpu", gpuUUID))
		if err := o.mapper.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.update()
		if got := o.Ownership(inv, time.Now()); got.Known != want || !got.Mapped {
			t.Errorf("pod %s: known %v, mapped %v, want known %v", name, got.Known, got.Mapped, want)
		}
	}
}

// The kubelet that does not answer makes the owners unknown, and Settle returns.
func TestSettleWithoutKubelet(t *testing.T) {
	o := newOwners(t, config.Static{Slurm: config.SlurmAuto, GPUIDType: "uid", Kubernetes: true, KubeletSocket: filepath.Join(t.TempDir(), "kubelet.sock")})
	inv := oneGPU()
	o.Observe(wire.Frame{Inventory: inv})
	o.Settle(t.Context())()
	if ownership := o.Ownership(inv, time.Now()); ownership.Known || ownership.Mapped {
		t.Errorf("known: %v, mapped: %v", ownership.Known, ownership.Mapped)
	}
	if r := o.Examine(inv); len(r.Findings) == 0 || r.Findings[0].State != Broken {
		t.Errorf("the report is %+v", r)
	}
}

// The kind and the numbers of each device are those of the entity.
func TestDevicesOfAnInventory(t *testing.T) {
	inv := &model.Inventory{Entities: []model.Entity{
		{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-a", Index: 1, Minor: 2, PCIBusID: "00000000:18:00.0"},
		{Kind: model.KindGPUInstance, Parent: 0, InstanceID: 9, Profile: "1g.10gb", PlacementStart: 4},
		{Kind: model.KindComputeInstance, Parent: 1, InstanceID: 0, UUID: "MIG-a"},
		{Kind: model.KindLink, Parent: 0},
	}}
	all := devices(inv)
	if gi := all[1]; gi.GPUInstance != 9 || gi.Profile != "1g.10gb" || gi.PlacementStart != 4 || len(gi.MIGUUIDs) != 1 || gi.GPUUUID != "GPU-a" {
		t.Errorf("GPU instance: %+v", gi)
	}
	if ci := all[2]; ci.GPUInstance != 9 || ci.ComputeInstance != 0 || ci.MIGUUIDs[0] != "MIG-a" {
		t.Errorf("compute instance: %+v", ci)
	}
	if all[3].Kind != 0 {
		t.Errorf("a link can be held: %+v", all[3])
	}
}

// hostProc writes a procfs of a host. Only the host's PID namespace has the
// kernel's threads.
func hostProc(t *testing.T, cgroups map[int]string) string {
	t.Helper()
	root := t.TempDir()
	write := func(pid int, name, content string) {
		dir := filepath.Join(root, fmt.Sprint(pid))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(2, "stat", "2 (kthreadd) S 0 0 0 0 -1 2129984"+strings.Repeat(" 0", 43))
	for pid, cgroup := range cgroups {
		write(pid, "stat", fmt.Sprintf("%d (python) R 1 0 0 0 -1 4194304%s", pid, strings.Repeat(" 0", 43)))
		write(pid, "cgroup", "0::"+cgroup+"\n")
	}
	return root
}

// The processes of a reading are located in the background. Until then no places
// are known.
func TestProcessesAreLocated(t *testing.T) {
	pod := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_0000_4000_8000_00000000000a.slice/cri-containerd-" + strings.Repeat("a", 64) + ".scope"
	o := newOwners(t, config.Static{Slurm: config.SlurmAuto, Simulate: "t4x1", CgroupFS: t.TempDir(), ProcFS: hostProc(t, map[int]string{
		1: "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0", 3: pod,
	})})
	if !o.NeedsProcesses() {
		t.Fatal("processes are not read")
	}
	inv := &model.Inventory{Entities: []model.Entity{
		{Kind: model.KindGPU, Parent: model.Unknown}, {Kind: model.KindGPUInstance}, {Kind: model.KindComputeInstance, Parent: 1},
	}}
	processes := &model.Processes{Devices: []model.DeviceProcesses{{Entity: 2, Processes: []model.Process{{PID: 1}, {PID: 3}, {PID: 9}}}}}
	o.Observe(wire.Frame{Inventory: inv})
	<-o.Changed()
	o.Observe(wire.Frame{Processes: processes})
	if _, located := o.Places(processes); located {
		t.Fatal("located before Run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	o.AwaitPlaces(t.Context(), processes)
	places, located := o.Places(processes)
	if !located {
		t.Fatal("not located")
	}
	want := map[uint32]metrics.ProcessTrouble{1: metrics.ProcessOutside, 3: metrics.ProcessUnknownPod, 9: metrics.ProcessGone}
	for pid, trouble := range want {
		if got := places[pid].Trouble; got != trouble {
			t.Errorf("process %d: %q, want %q", pid, got, trouble)
		}
	}
	running := o.table.Load().placed.running
	if len(running[0]) != 0 || len(running[1]) != 1 || !slices.Equal(running[1], running[2]) || running[1][0].ID != "7" || running[1][0].Step != "" {
		t.Errorf("jobs: %+v", running)
	}
	if _, located := o.Places(&model.Processes{}); located {
		t.Error("another reading is located")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
