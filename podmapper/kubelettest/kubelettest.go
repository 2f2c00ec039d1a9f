// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubelettest is a kubelet for tests. It serves the real pod-resources v1
// API on a unix socket, and fails on request as a kubelet can fail. It must not be
// imported outside tests.
package kubelettest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Kubelet is a pod-resources server. Its state can be set at any time.
type Kubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	server
	calls atomic.Int64

	mu    sync.Mutex
	pods  []*podresources.PodResources
	later []*podresources.PodResources // instead of pods
	wait  int                          // calls until then; 0: never
	delay time.Duration
	err   error
}

// New makes a kubelet that will listen on socket once it is started.
func New(socket string) *Kubelet {
	k := &Kubelet{}
	k.socket = socket
	k.register = func(r grpc.ServiceRegistrar) { podresources.RegisterPodResourcesListerServer(r, k) }
	return k
}

// SetPods sets the answer of List.
func (k *Kubelet) SetPods(pods ...*podresources.PodResources) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods, k.wait = pods, 0
}

// SetPodsLater sets the answer of List after that many further calls.
func (k *Kubelet) SetPodsLater(calls int, pods ...*podresources.PodResources) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.later, k.wait = pods, calls+1
}

// SetError makes List fail with err, a grpc status. Nil ends that.
func (k *Kubelet) SetError(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// SetDelay makes List wait before it answers.
func (k *Kubelet) SetDelay(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.delay = d
}

// Calls counts the calls of List so far.
func (k *Kubelet) Calls() int { return int(k.calls.Load()) }

// List implements the pod-resources API.
func (k *Kubelet) List(ctx context.Context, _ *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	k.calls.Add(1)
	k.mu.Lock()
	if k.wait > 0 {
		if k.wait--; k.wait == 0 {
			k.pods = k.later
		}
	}
	pods, delay, err := k.pods, k.delay, k.err
	k.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return &podresources.ListPodResourcesResponse{PodResources: pods}, nil
}

// Pod returns a pod with one container that holds devices of one resource. Like a
// kubelet with topology information, it lists each device in a separate entry.
func Pod(namespace, name, container, resource string, deviceIDs ...string) *podresources.PodResources {
	c := &podresources.ContainerResources{Name: container}
	for _, id := range deviceIDs {
		c.Devices = append(c.Devices, &podresources.ContainerDevices{
			ResourceName: resource,
			DeviceIds:    []string{id},
			Topology:     &podresources.TopologyInfo{Nodes: []*podresources.NUMANode{{}}},
		})
	}
	return &podresources.PodResources{
		Name: name, Namespace: namespace,
		Containers: []*podresources.ContainerResources{c},
	}
}

// Claim returns a pod with one container that holds devices by one ResourceClaim of
// the same namespace.
func Claim(namespace, name, container, claim string, devices ...*podresources.ClaimResource) *podresources.PodResources {
	return &podresources.PodResources{
		Name: name, Namespace: namespace,
		Containers: []*podresources.ContainerResources{{
			Name: container,
			DynamicResources: []*podresources.DynamicResource{{
				ClaimName: claim, ClaimNamespace: namespace, ClaimResources: devices,
			}},
		}},
	}
}

// ClaimDevice returns a device of a DRA driver, with the CDI device of such drivers.
func ClaimDevice(driver, pool, device string) *podresources.ClaimResource {
	return &podresources.ClaimResource{
		DriverName: driver, PoolName: pool, DeviceName: device,
		CdiDevices: []*podresources.CDIDevice{{Name: "k8s." + driver + "/claim=" + device}},
	}
}

// WriteCheckpoint writes a file as the kubelet writes its checkpoints: it renames a
// temporary file of the same directory.
func WriteCheckpoint(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".")
	if err != nil {
		return err
	}
	_, err = f.WriteString("{}")
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
