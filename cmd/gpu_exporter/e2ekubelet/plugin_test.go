// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin is a device plugin for one resource. Like NVIDIA's, it registers with each kubelet
// that starts.
type plugin struct {
	deviceplugin.UnimplementedDevicePluginServer
	resource string
	ids      []string
	dir      string // of the sockets

	mu        sync.Mutex
	server    *grpc.Server
	allocated map[string]time.Time // by device ID: when the kubelet allocated it
}

// startPlugin registers a resource and waits until the kubelet can allocate it.
func startPlugin(t *testing.T, k *kubelet, resource string, ids ...string) *plugin {
	t.Helper()
	p := &plugin{
		resource: resource, ids: ids, dir: filepath.Join(k.m.kubeletDir(), "device-plugins"),
		allocated: make(map[string]time.Time),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		p.stop()
	})
	eventually(t, "the kubelet accepts registrations", func() error {
		_, err := os.Stat(filepath.Join(p.dir, filepath.Base(deviceplugin.KubeletSocket)))
		return err
	})
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	if err := watcher.Add(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.register(ctx); err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		defer watcher.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-watcher.Events:
				if e.Has(fsnotify.Create) && filepath.Base(e.Name) == filepath.Base(deviceplugin.KubeletSocket) {
					if err := p.register(ctx); err != nil && ctx.Err() == nil {
						t.Errorf("registering %s with a new kubelet: %v", p.resource, err)
					}
				}
			}
		}
	})
	eventually(t, resource+" can be allocated", func() error {
		all, err := k.allocatable(t.Context())
		if err == nil && all[resource] != len(ids) {
			err = fmt.Errorf("allocatable: %v", all)
		}
		return err
	})
	return p
}

func (p *plugin) socket() string {
	return filepath.Join(p.dir, "e2e-"+strings.NewReplacer("/", "-").Replace(p.resource)+".sock")
}

// register serves on a new socket, because a kubelet that starts removes all sockets, and
// registers with the kubelet.
func (p *plugin) register(ctx context.Context) error {
	p.stop()
	if err := os.Remove(p.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", p.socket())
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	deviceplugin.RegisterDevicePluginServer(server, p)
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	go server.Serve(l)

	conn, err := grpc.NewClient("unix:"+filepath.Join(p.dir, filepath.Base(deviceplugin.KubeletSocket)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = deviceplugin.NewRegistrationClient(conn).Register(ctx, &deviceplugin.RegisterRequest{
		Version: deviceplugin.Version, Endpoint: filepath.Base(p.socket()), ResourceName: p.resource,
	}, grpc.WaitForReady(true))
	return err
}

// stop stops the server without deregistration.
func (p *plugin) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		p.server.Stop()
	}
}

func (p *plugin) GetDevicePluginOptions(context.Context, *deviceplugin.Empty) (*deviceplugin.DevicePluginOptions, error) {
	return &deviceplugin.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *deviceplugin.Empty, s deviceplugin.DevicePlugin_ListAndWatchServer) error {
	answer := &deviceplugin.ListAndWatchResponse{}
	for _, id := range p.ids {
		answer.Devices = append(answer.Devices, &deviceplugin.Device{
			ID: id, Health: deviceplugin.Healthy, Topology: &deviceplugin.TopologyInfo{Nodes: []*deviceplugin.NUMANode{{ID: 0}}},
		})
	}
	if err := s.Send(answer); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (p *plugin) Allocate(_ context.Context, r *deviceplugin.AllocateRequest) (*deviceplugin.AllocateResponse, error) {
	answer := &deviceplugin.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		p.mu.Lock()
		for _, id := range c.DevicesIds {
			p.allocated[id] = time.Now()
		}
		p.mu.Unlock()
		answer.ContainerResponses = append(answer.ContainerResponses, &deviceplugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(c.DevicesIds, ",")},
		})
	}
	return answer, nil
}

// allocationOf returns the time of the last allocation of a device.
func (p *plugin) allocationOf(id string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allocated[id]
}
