// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubelettest is a kubelet for tests. It serves the real pod-resources v1
// API on a unix socket, and fails on request as a kubelet can fail. It must not be
// imported outside tests.
package kubelettest

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	socket string

	connections atomic.Int64
	calls       atomic.Int64

	mu     sync.Mutex
	server *grpc.Server
	done   chan struct{}
	pods   []*podresources.PodResources
	later  []*podresources.PodResources // instead of pods
	wait   int                          // calls until then; 0: never
	delay  time.Duration
	err    error
}

// New makes a kubelet that will listen on socket once it is started.
func New(socket string) *Kubelet { return &Kubelet{socket: socket} }

// Start listens and serves. Like the kubelet, it replaces an old socket file.
func (k *Kubelet) Start() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server != nil {
		return errors.New("the kubelet is running already")
	}
	if err := os.Remove(k.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the old socket: %w", err)
	}
	l, err := net.Listen("unix", k.socket)
	if err != nil {
		return err
	}
	k.serve(l)
	return nil
}

// StartOn serves on a listener instead of the socket. Stop closes the listener.
func (k *Kubelet) StartOn(l net.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serve(l)
}

func (k *Kubelet) serve(l net.Listener) {
	server, done := grpc.NewServer(), make(chan struct{})
	podresources.RegisterPodResourcesListerServer(server, k)
	k.server, k.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(countingListener{l, &k.connections}) // ends with Stop
	}()
}

// Stop ends the kubelet at once: its connections break and its socket disappears.
func (k *Kubelet) Stop() {
	k.mu.Lock()
	server, done := k.server, k.done
	k.server = nil
	k.mu.Unlock()
	if server != nil {
		server.Stop()
		<-done
	}
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

// Connections counts the connections accepted so far.
func (k *Kubelet) Connections() int { return int(k.connections.Load()) }

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

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}
