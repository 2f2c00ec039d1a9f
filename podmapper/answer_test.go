// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

// wanted is what unmarshal gives, by way of the generated types.
func wanted(f resourceFilter, list *podresources.ListPodResourcesResponse) []Assignment {
	var all []Assignment
	for _, pod := range list.GetPodResources() {
		for _, container := range pod.GetContainers() {
			owner := Owner{Namespace: pod.GetNamespace(), Pod: pod.GetName(), Container: container.GetName()}
			for _, devices := range container.GetDevices() {
				if !f.wants(devices.GetResourceName()) {
					continue
				}
				for _, id := range devices.GetDeviceIds() {
					a := Assignment{Owner: owner, ID: id}
					a.Owner.Resource = devices.GetResourceName()
					a.Known, a.Owner.Replica = ParseDeviceID(id)
					if a.Known.Form == FormNumber && !f.numbersAreGPUs(devices.GetResourceName()) {
						a.Known, a.Owner.Replica = DeviceID{}, ""
					}
					all = append(all, a)
				}
			}
			if !f.claims {
				continue
			}
			for _, claim := range container.GetDynamicResources() {
				for _, r := range claim.GetClaimResources() {
					a := Assignment{Owner: owner, Known: DeviceID{Form: FormClaim}}
					a.Owner.Claim = Claim{
						Namespace: claim.GetClaimNamespace(), Name: claim.GetClaimName(),
						PublishedName: PublishedName{r.GetDriverName(), r.GetPoolName(), r.GetDeviceName()},
						Share:         r.GetShareId(),
					}
					a.ID = a.Owner.Claim.String()
					all = append(all, a)
				}
			}
		}
	}
	slices.SortFunc(all, compareAssignments)
	return slices.Compact(all)
}

func wire(t testing.TB, pods ...*podresources.PodResources) []byte {
	t.Helper()
	b, err := proto.Marshal(&podresources.ListPodResourcesResponse{PodResources: pods})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzAnswer: whatever the generated types can read is read to the same effect,
// and nothing else does harm.
func FuzzAnswer(f *testing.F) {
	share := "share-1"
	claim := kubelettest.Claim("ml", "claims", "main", "gpu", kubelettest.ClaimDevice(nvidiaDriver, "node", "gpu-0"),
		kubelettest.ClaimDevice("dra.net", "node", "nic-0"))
	claim.Containers[0].DynamicResources[0].ClaimResources[0].ShareId = &share
	pods := append(bigNode(9, 2, 3), claim,
		kubelettest.Pod("ml", "numbers", "main", "nvidia.com/pgpu", "3"),
		kubelettest.Pod("ml", "twice", "main", gpuResource, gpuA, gpuA))
	f.Add(wire(f, pods...))
	f.Add(wire(f, claim))
	// A field of a message may come in pieces, and after those that need it.
	late := protowire.AppendTag(nil, podContainers, protowire.BytesType)
	late = protowire.AppendBytes(late, wire(f, kubelettest.Pod("", "", "", gpuResource, gpuA))[4:])
	late = protowire.AppendTag(late, podName, protowire.BytesType)
	late = protowire.AppendString(late, "first")
	late = protowire.AppendTag(late, podName, protowire.BytesType)
	late = protowire.AppendString(late, "last")
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, listPods, protowire.BytesType), late))
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte("HTTP/1.1 400 Bad Request"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, filter := range []resourceFilter{{}, {claims: true, names: map[string]bool{"cpu": true, "": true}}} {
			a := answer{filter: filter}
			a.unmarshal(b)
			if a.err != nil && len(a.assignments) > 0 {
				t.Errorf("%d assignments of an answer that fails with %v", len(a.assignments), a.err)
			}
			var list podresources.ListPodResourcesResponse
			if proto.Unmarshal(b, &list) != nil {
				continue
			}
			want := wanted(filter, &list)
			if errors.Is(a.err, errTooMuch) && len(want) >= maxAssignments {
				continue
			}
			if a.err != nil || !reflect.DeepEqual(a.assignments, want) && len(a.assignments)+len(want) > 0 {
				t.Errorf("gives %+v and the error %v, want %+v", a.assignments, a.err, want)
			}
		}
	})
}

// TestHostileAnswers: a large answer, whatever is in it, costs little more memory
// than its own, and leaves nothing behind.
func TestHostileAnswers(t *testing.T) {
	const size = 16 << 20
	field := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	container := func(fields ...[]byte) []byte {
		return field(listPods, field(podContainers, slices.Concat(fields...)))
	}
	devices := func(ids ...[]byte) []byte {
		return field(containerDevices, append(field(devicesResource, []byte(gpuResource)), slices.Concat(ids...)...))
	}
	fill := func(piece []byte) []byte { return bytes.Repeat(piece, size/len(piece)) }
	numbered := func(make func(i int) []byte) []byte {
		var b []byte
		for i := 0; len(b) < size; i++ {
			b = append(b, make(i)...)
		}
		return b
	}
	for _, tc := range []struct {
		name   string
		answer func() []byte
		err    error
	}{
		{"empty pods", func() []byte { return fill(field(listPods, nil)) }, nil},
		{"empty containers", func() []byte { return field(listPods, fill(field(podContainers, nil))) }, nil},
		{"empty devices", func() []byte { return fill(container(devices())) }, nil},
		{"one ID again and again", func() []byte { return fill(container(devices(field(devicesIDs, []byte("0"))))) }, errTooMuch},
		{"IDs without end", func() []byte {
			return container(devices(numbered(func(i int) []byte { return field(devicesIDs, fmt.Append(nil, i)) })))
		}, errTooMuch},
		{"a long ID", func() []byte { return container(devices(field(devicesIDs, fill([]byte("x"))))) }, errTooMuch},
		{"a long pod", func() []byte {
			return field(listPods, append(field(podName, fill([]byte("x"))), field(podContainers, devices(field(devicesIDs, []byte("0"))))...))
		}, errTooMuch},
		{"resources without end", func() []byte {
			return numbered(func(i int) []byte {
				return container(field(containerDevices, field(devicesResource, fmt.Append(nil, "nvidia.com/", i))))
			})
		}, errTooMuch},
		{"claims without end", func() []byte {
			return numbered(func(i int) []byte {
				return container(field(containerDynamicResources, field(dynamicClaimName, fmt.Append(nil, i))))
			})
		}, errTooMuch},
		{"no protobuf", func() []byte { return fill([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")) }, errMalformed},
		{"no text", func() []byte { return container(devices(field(devicesIDs, []byte("\xff")))) }, errMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.answer()
			before := heap(t)
			a := answer{filter: resourceFilter{claims: true}}
			var start, end runtime.MemStats
			runtime.ReadMemStats(&start)
			a.unmarshal(b)
			runtime.ReadMemStats(&end)
			if !errors.Is(a.err, tc.err) {
				t.Errorf("error %v, want %v", a.err, tc.err)
			}
			if n := end.TotalAlloc - start.TotalAlloc; n > 48<<20 {
				t.Errorf("it took %d MiB to read %d MiB", n>>20, len(b)>>20)
			}
			if after := heap(t); after > before+1<<20 {
				t.Errorf("the heap grew from %d to %d MiB", before>>20, after>>20)
			}
			runtime.KeepAlive(b)
			runtime.KeepAlive(a)
		})
	}
}

// heap is what is in use after a collection.
func heap(t *testing.T) uint64 {
	t.Helper()
	runtime.GC()
	runtime.GC() // what pools had
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
func serveBytes(t *testing.T, answer []byte) (socket string) {
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
				return answer, nil
			},
		}},
	}, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return socket
}

// TestWrongAnswers: an answer that comes as it should and is wrong all the same.
func TestWrongAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer []byte
		reason Reason
	}{
		{"wrong protobuf", []byte("\x0a\xffno message"), ReasonMalformed},
		{"text", []byte(`{"podResources": []}`), ReasonMalformed},
		{"no UTF-8", wireOf(gpuResource, "\xff\xfe"), ReasonMalformed},
		{"64 MiB of pods", bytes.Repeat([]byte{0x0a, 0x00}, maxAnswer/2), ""},
		{"over 64 MiB", bytes.Repeat([]byte{0x0a, 0x00}, maxAnswer/2+1), ReasonTooLarge},
		{"a name of 63 MiB", wireOf(gpuResource, strings.Repeat("x", 63<<20)), ReasonTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := heap(t)
			m := newMapper(t, Config{Socket: serveBytes(t, tc.answer), Timeout: patience})
			err := m.Refresh(t.Context())
			if s := m.Status(); s.Reason != tc.reason || (err == nil) != (tc.reason == "") {
				t.Errorf("error %v, reason %q, want %q", err, s.Reason, tc.reason)
			}
			if m.Table() != nil && len(m.Table().Assignments) > 0 {
				t.Errorf("the table has %+v", m.Table().Assignments)
			}
			if after := heap(t); after > before+4<<20 {
				t.Errorf("the heap grew from %d to %d MiB", before>>20, after>>20)
			}
			runtime.KeepAlive(tc.answer)
		})
	}
}

// wireOf is an answer with one ID, which the generated types might refuse.
func wireOf(resource, id string) []byte {
	var d []byte
	d = protowire.AppendString(protowire.AppendTag(d, devicesResource, protowire.BytesType), resource)
	d = protowire.AppendString(protowire.AppendTag(d, devicesIDs, protowire.BytesType), id)
	c := protowire.AppendBytes(protowire.AppendTag(nil, containerDevices, protowire.BytesType), d)
	p := protowire.AppendBytes(protowire.AppendTag(nil, podContainers, protowire.BytesType), c)
	return protowire.AppendBytes(protowire.AppendTag(nil, listPods, protowire.BytesType), p)
}
