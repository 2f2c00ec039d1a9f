// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/docker"
	"gpu_exporter/podmapper/kubelettest"
	"gpu_exporter/podmapper/metadata"
)

const migUUID = "MIG-0a1b2c3d-0000-4000-8000-000000000001"

// migNode is a GPU without MIG, and a GPU in MIG mode with one instance.
func migNode() *model.Inventory {
	return &model.Inventory{Entities: []model.Entity{
		{Kind: model.KindGPU, Parent: model.Unknown, UUID: gpuUUID, Minor: 0, Selected: true},
		{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-b", ID: 1, Index: 1, Minor: 1, MIGMode: true, Selected: true},
		{Kind: model.KindGPUInstance, Parent: 1, InstanceID: 7, Profile: "1g.10gb", Selected: true},
		{Kind: model.KindComputeInstance, Parent: 2, UUID: migUUID, Index: 3, Selected: true},
	}}
}

// free returns the positions of the devices that count as free.
func free(o *metrics.Ownership) (at []int) {
	for i, h := range o.Entities {
		if o.Known && !h.Unknown && len(h.Owners)+len(h.Jobs)+len(h.Containers) == 0 {
			at = append(at, i)
		}
	}
	return at
}

// startOwners starts a kubelet and the owners that follow it.
func startOwners(t *testing.T, c config.Static) (*kubelettest.Kubelet, *Owners) {
	t.Helper()
	c.Slurm, c.GPUIDType, c.Kubernetes, c.KubeletSocket = config.SlurmOff, "uid", true, filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet := kubelettest.New(c.KubeletSocket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	return kubelet, newOwners(t, c)
}

// A device ID that matches no device may be any device, or any instance of the GPU that it
// names. None of these counts as free.
func TestUnmatchedDeviceIsNotFree(t *testing.T) {
	for id, want := range map[string][]int{
		gpuUUID:              {1, 2, 3}, // the owner of the GPU is known
		"GPU-gone":           nil,
		gpuUUID + "-3":       nil, // the form of a scheduler that shares GPUs
		"MIG-GPU-b/9/0":      {0},
		"nvidia1/gi9":        {0},
		"MIG-" + "0123-gone": nil,
		"whatever":           nil,
	} {
		kubelet, o := startOwners(t, config.Static{})
		inv := migNode()
		o.Observe(wire.Frame{Inventory: inv})
		kubelet.SetPods(kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu", id))
		if err := o.mapper.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.update()
		if got := free(o.Ownership(inv, time.Now())); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: free are %v, want %v", id, got, want)
		}
	}
}

// A container whose devices are unknown may hold any of them. MIG devices by index match.
func TestUnresolvedContainerIsNotFree(t *testing.T) {
	id := func(form device.Form, number, mig int) docker.Devices {
		return docker.Devices{IDs: []device.ID{{Form: form, Number: number, MIGIndex: mig}}}
	}
	for name, tc := range map[string]struct {
		table docker.Table
		want  []int
	}{
		"a GPU":                 {docker.Table{Holds: []docker.Hold{{Devices: id(device.FormIndex, 0, 0)}}}, []int{1, 2, 3}},
		"a MIG device by index": {docker.Table{Holds: []docker.Hold{{Devices: id(device.FormMIGIndex, 1, 3)}}}, []int{0, 1}},
		"no such MIG device":    {docker.Table{Holds: []docker.Hold{{Devices: id(device.FormMIGIndex, 1, 0)}}}, []int{0}},
		"a GPU in MIG mode":     {docker.Table{Holds: []docker.Hold{{Devices: id(device.FormIndex, 1, 0)}}}, []int{0}},
		"an unknown request":    {docker.Table{Unresolved: []docker.Unresolved{{Name: "a", Request: "all devices"}}}, nil},
	} {
		o := newOwners(t, config.Static{Slurm: config.SlurmOff, DockerSocket: filepath.Join(t.TempDir(), "docker.sock")})
		inv := migNode()
		o.Observe(wire.Frame{Inventory: inv})
		o.mu.Lock()
		o.publish(inputs{engine: &tc.table, complete: true}, nil)
		o.mu.Unlock()
		if got := free(o.Ownership(inv, time.Now())); fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: free are %v, want %v", name, got, tc.want)
		}
	}
}

// After a repartition, a pod that the kubelet still lists has none of the new instances, and
// a pod that it lists only since then has its own.
func TestPodOfAFormerInstance(t *testing.T) {
	kubelet, o := startOwners(t, config.Static{})
	refresh := func(pods ...*podresources.PodResources) {
		t.Helper()
		kubelet.SetPods(pods...)
		if err := o.mapper.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.update()
	}
	sample := func() { o.Observe(wire.Frame{Sample: &model.Sample{Time: time.Now()}}) }
	pod := func(inv *model.Inventory) string {
		if h := o.Ownership(inv, time.Now()).Entities[2]; len(h.Owners) > 0 {
			return h.Owners[0].Pod
		}
		return "-"
	}
	a := kubelettest.Pod("ml", "a", "main", "nvidia.com/mig-1g.10gb", "nvidia1/gi7")
	first := migNode()
	o.Observe(wire.Frame{Inventory: first})
	refresh(a)
	for range 4 {
		sample()
	}
	if got := pod(first); got != "a" {
		t.Fatalf("the first instance has %s", got)
	}
	second := migNode()
	second.Entities[2].Profile, second.Entities[3].UUID = "1g.20gb", "MIG-b"
	o.Observe(wire.Frame{Inventory: second})
	refresh(a)
	if got := pod(second); got != "-" {
		t.Errorf("the new instance has %s", got)
	}
	if at := free(o.Ownership(second, time.Now())); fmt.Sprint(at) != "[0 1]" {
		t.Errorf("free are %v", at)
	}
	refresh(kubelettest.Pod("ml", "b", "main", "nvidia.com/mig-1g.20gb", "nvidia1/gi7"))
	if got := pod(second); got != "b" {
		t.Errorf("the new pod's instance has %s", got)
	}
	// A new instance has no pod until the kubelet has listed the pod again.
	third := migNode()
	third.Entities[2].Profile, third.Entities[3].UUID = "2g.20gb", "MIG-c"
	c := kubelettest.Pod("ml", "c", "main", "nvidia.com/mig-2g.20gb", "nvidia1/gi7")
	refresh(c)
	o.Observe(wire.Frame{Inventory: third})
	if got := pod(third); got != "-" {
		t.Errorf("without a confirmation the instance has %s", got)
	}
	refresh(c)
	if got := pod(third); got != "c" {
		t.Errorf("with a confirmation the instance has %s", got)
	}
}

// The pod of a process is the outermost known one, and an ID of a container never overrules
// the pod in its path.
func TestPodOfAProcess(t *testing.T) {
	const a, b = "0a1b2c3d-0000-4000-8000-00000000000a", "0a1b2c3d-0000-4000-8000-00000000000b"
	id := func(c string) string { return strings.Repeat(c, 64) }
	logs := t.TempDir()
	for _, dir := range []string{"pods/ml_a_" + a, "pods/ml_b_" + b, "containers"} {
		if err := os.MkdirAll(filepath.Join(logs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"a_ml_main-" + id("a"), "b_ml_main-" + id("b")} {
		if err := os.WriteFile(filepath.Join(logs, "containers", link+".log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store, err := metadata.New(metadata.Config{LogDir: filepath.Join(logs, "pods"), ContainerLogDir: filepath.Join(logs, "containers"), PodsSocket: filepath.Join(logs, "none")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "both pods are known", func() bool { return len(store.Pods().All()) == 2 })
	in := func(uid, container string) string { return "/kubepods/pod" + uid + "/" + container }
	for path, want := range map[string]metrics.ProcessPlace{
		in(a, id("a")):                        {Namespace: "ml", Pod: "a", Container: "main"},
		in(a, id("c")):                        {Namespace: "ml", Pod: "a"},
		in(a, id("b")):                        {Namespace: "ml", Pod: "a"},                    // the ID is another pod's
		in("unknown", id("b")):                {Trouble: metrics.ProcessUnknownPod},           // as well
		in(a, id("a")) + in(b, id("b")):       {Namespace: "ml", Pod: "a", Container: "main"}, // a privileged pod's imitation
		in(a, id("a")) + "/" + id("d"):        {Namespace: "ml", Pod: "a", Container: "main"}, // the pod's own Docker
		"/docker/" + id("e"):                  {Trouble: metrics.ProcessOutside},
		"/docker/" + id("e") + in(b, id("b")): {Namespace: "ml", Pod: "b", Container: "main"}, // a node in a container
	} {
		if got := podOf(store.Pods(), cgroup.Parse("0::"+path+"\n"), nil); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}
