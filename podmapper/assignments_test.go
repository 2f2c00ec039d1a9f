// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
	"gpu_exporter/podmapper/kubelettest"
)

func wire(t testing.TB, pods ...*podresources.PodResources) []byte {
	t.Helper()
	b, err := proto.Marshal(&podresources.ListPodResourcesResponse{PodResources: pods})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCollect checks what an answer becomes: repetitions, claims with a share, and
// entries without devices.
func TestCollect(t *testing.T) {
	share := "share-1"
	claim := kubelettest.Claim("ml", "claims", "main", "gpu", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"),
		kubelettest.ClaimDevice("dra.net", "node", "nic-0"))
	claim.Containers[0].DynamicResources[0].ClaimResources[0].ShareId = &share
	got := unmarshal(t, resourceFilter{claims: true}, claim,
		kubelettest.Pod("ml", "twice", "main", gpuResource, gpuA+"::1", gpuA+"::1"),
		kubelettest.Pod("ml", "numbers", "main", "nvidia.com/pgpu", "3"),
		kubelettest.Pod("ml", "none", "main", gpuResource), kubelettest.Pod("ml", "cpus", "main", "cpu", "0"), nil)
	claimed := func(driver, name, share string) Assignment {
		c := Claim{Namespace: "ml", Name: "gpu", PublishedName: device.PublishedName{Driver: driver, Pool: "node", Device: name}, Share: share}
		return Assignment{Owner: Owner{Namespace: "ml", Pod: "claims", Container: "main", Claim: c}, ID: c.String(), Known: device.ID{Form: device.FormClaim}}
	}
	want := []Assignment{
		claimed("dra.net", "nic-0", ""), claimed(nvidiaDriver, "gpu-0", share),
		{Owner: Owner{Namespace: "ml", Pod: "numbers", Container: "main", Resource: "nvidia.com/pgpu"}, ID: "3"},
		{Owner: Owner{Namespace: "ml", Pod: "twice", Container: "main", Resource: gpuResource, Replica: "1"}, ID: gpuA + "::1", Known: device.GPUUUID(gpuA)},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// FuzzCollect checks that no answer that can be decoded exceeds the bounds.
func FuzzCollect(f *testing.F) {
	f.Add(wire(f, append(bigNode(9, 2, 3), kubelettest.Pod("ml", "numbers", "main", "nvidia.com/pgpu", "3"),
		kubelettest.Claim("ml", "claims", "main", "gpu", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0")))...))
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte("HTTP/1.1 400 Bad Request"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answer podresources.ListPodResourcesResponse
		if proto.Unmarshal(b, &answer) != nil {
			return
		}
		filter := resourceFilter{claims: true, names: map[string]bool{"cpu": true, "": true}}
		all, _ := filter.collect(&answer)
		if len(all) > maxAssignments {
			t.Fatalf("%d assignments", len(all))
		}
		if !slices.IsSortedFunc(all, compareAssignments) || len(slices.Compact(slices.Clone(all))) != len(all) {
			t.Errorf("not sorted, or with repetitions: %+v", all)
		}
		for _, a := range all {
			for _, s := range []string{a.Owner.Namespace, a.Owner.Pod, a.Owner.Container, a.Owner.Resource, a.Owner.Claim.Name, a.Owner.Claim.Share} {
				if len(s) > maxName {
					t.Errorf("a name of %d bytes", len(s))
				}
			}
		}
	})
}

// TestBounds checks that one pod cannot take more than its part, and that what
// cannot be a GPU does not count.
func TestBounds(t *testing.T) {
	many := func(n int, prefix string) (ids []string) {
		for i := range n {
			ids = append(ids, fmt.Sprint(prefix, i))
		}
		return ids
	}
	collect := func(pods ...*podresources.PodResources) ([]Assignment, int) {
		return resourceFilter{claims: true, names: map[string]bool{"-nvidia.com/private": true}}.collect(&podresources.ListPodResourcesResponse{PodResources: pods})
	}

	pod := kubelettest.Pod("ml", "greedy", "main", gpuResource, many(70000, "GPU-")...)
	all, truncated := collect(pod, kubelettest.Pod("ml", "modest", "main", gpuResource, gpuA))
	if len(all) != maxPodAssignments+1 || truncated != 70000-maxPodAssignments || all[len(all)-1].Owner.Pod != "modest" {
		t.Errorf("%d assignments, %d truncated", len(all), truncated)
	}

	for _, resource := range []string{"nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/rdma_shared_device_a", "nvidia.com/hostdev", "nvidia.com/private", "example.com/x"} {
		all, truncated = collect(kubelettest.Pod("ml", "pseudo", "main", resource, many(70000, "")...),
			kubelettest.Pod("ml", "modest", "main", gpuResource, gpuA))
		if len(all) != 1 || truncated != 0 {
			t.Errorf("%s: %d assignments, %d truncated", resource, len(all), truncated)
		}
	}

	long := strings.Repeat("é", 1<<20)
	all, truncated = collect(kubelettest.Pod("ml", long, "main", gpuResource, gpuA, long))
	if len(all) != 2 || truncated != 3 {
		t.Fatalf("%d assignments, %d truncated", len(all), truncated)
	}
	for _, s := range []string{all[0].Owner.Pod, all[1].ID} {
		if !strings.HasPrefix(long, s) || len(s) != maxName-1 { // the half of a letter is not kept
			t.Errorf("a name of %d bytes", len(s))
		}
	}

	var pods []*podresources.PodResources
	for i := range 9 {
		pods = append(pods, kubelettest.Pod("ml", fmt.Sprint(i), "main", gpuResource, many(maxPodAssignments, "GPU-")...))
	}
	if all, truncated := collect(pods...); len(all) != maxAssignments || truncated != maxPodAssignments {
		t.Errorf("%d assignments, %d truncated", len(all), truncated)
	}
	if all, truncated := collect(pods[1:]...); len(all) != maxAssignments || truncated != 0 {
		t.Errorf("%d assignments, %d truncated", len(all), truncated)
	}
	// IDs of no known form are few, and do not take the place of devices.
	all, truncated = collect(kubelettest.Pod("ml", "pseudo", "main", "nvidia.com/new", many(70000, "x")...), kubelettest.Pod("ml", "modest", "main", gpuResource, gpuA))
	if len(all) != maxPodUnknown+1 || truncated != 70000-maxPodUnknown {
		t.Errorf("%d assignments, %d truncated", len(all), truncated)
	}
}

// TestTruncatedTable checks that a truncated table is marked and counted.
func TestTruncatedTable(t *testing.T) {
	_, socket := startKubelet(t, kubelettest.Pod("ml", strings.Repeat("x", 300), "main", gpuResource, gpuA))
	var log sourcetest.Log
	m := newMapper(t, Config{Socket: socket, Logger: log.Logger()})
	for range 2 {
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Status(); m.Table().Truncated != 1 || s.Failures[poll.TooLarge] != 1 || !s.Up || log.Lines("truncated=1") != 1 {
		t.Errorf("truncated %d, status %+v", m.Table().Truncated, s)
	}
}

// heap is what is in use after a collection.
func heap(t *testing.T) uint64 {
	t.Helper()
	runtime.GC()
	runtime.GC() // the content of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (bytesCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// serveBytes is a kubelet that answers List with bytes.
func serveBytes(t *testing.T, answer func() []byte) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "kubelet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: podresources.PodResourcesLister_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "List",
			Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
				return answer(), nil
			},
		}},
	}, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return socket
}

// TestWrongAnswers checks answers that arrive and are wrong: the refresh fails with
// a reason, and the last good table remains.
func TestWrongAnswers(t *testing.T) {
	good := wire(t, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
	for _, tc := range []struct {
		name   string
		answer []byte
		reason Reason
	}{
		{"wrong protobuf", []byte("\x0a\xffno message"), poll.Malformed},
		{"text", []byte(`{"podResources": []}`), poll.Malformed},
		{"no UTF-8", wireOf(gpuResource, "\xff\xfe"), poll.Malformed},
		{"over 16 MiB", bytes.Repeat([]byte{0x0a, 0x00}, maxAnswer/2+1), poll.TooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := heap(t)
			answer := good
			m := newMapper(t, Config{Socket: serveBytes(t, func() []byte { return answer }), Timeout: sourcetest.Patience})
			if err := m.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			table := m.Table()
			answer = tc.answer
			err := m.Refresh(t.Context())
			if s := m.Status(); s.Reason != tc.reason || err == nil || s.Failures[tc.reason] != 1 || s.Hint == "" {
				t.Errorf("error %v, status %+v, want %q", err, s, tc.reason)
			}
			if m.Table() != table || pods(table) != "train" {
				t.Errorf("the table is %+v, want the last good one", m.Table())
			}
			if after := heap(t); after > before+4<<20 {
				t.Errorf("the heap grew from %d to %d MiB", before>>20, after>>20)
			}
			runtime.KeepAlive(tc.answer)
		})
	}
}

// wireOf is an answer with one ID, which the generated types refuse to encode if it
// is not UTF-8.
func wireOf(resource, id string) []byte {
	field := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	devices := append(field(1, []byte(resource)), field(2, []byte(id))...)
	return field(1, field(3, field(2, devices))) // pods, containers, devices
}
