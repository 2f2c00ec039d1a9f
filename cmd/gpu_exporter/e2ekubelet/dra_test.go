// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	drav1 "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	draDriverName = "gpu.nvidia.com"
	draPool       = nodeName
	draPath       = "/apis/resource.k8s.io/v1"
	slicesPath    = draPath + "/resourceslices"
	claimsPath    = draPath + "/namespaces/" + podNamespace + "/resourceclaims"
	draRequest    = "gpu" // the one request of all claims
)

// draDriver is a driver of dynamic resource allocation (DRA) that prepares every
// allocation.
type draDriver struct {
	drav1.UnimplementedDRAPluginServer
	registration.UnimplementedRegistrationServer
	api        *apiServer
	registered chan *registration.RegistrationStatus
}

// startDRADriver publishes the devices and waits until the driver is registered.
func startDRADriver(t *testing.T, k *kubelet, api *apiServer, devices ...resourcev1.Device) {
	t.Helper()
	d := &draDriver{api: api, registered: make(chan *registration.RegistrationStatus, 1)}
	dir := filepath.Join(k.m.kubeletDir(), "plugins", draDriverName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The kubelet registers a driver as soon as its socket exists.
	for _, socket := range []string{
		filepath.Join(dir, "dra.sock"),
		filepath.Join(k.m.kubeletDir(), "plugins_registry", draDriverName+"-reg.sock"),
	} {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		drav1.RegisterDRAPluginServer(server, d)
		registration.RegisterRegistrationServer(server, d)
		go server.Serve(l)
		t.Cleanup(server.Stop)
	}
	select {
	case status := <-d.registered:
		if !status.PluginRegistered {
			t.Fatalf("the kubelet rejects the DRA driver: %s", status.Error)
		}
	case <-time.After(patience):
		t.Fatalf("the kubelet did not register the DRA driver within %v", patience)
	}
	api.create(t, draPath+"/deviceclasses", &resourcev1.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: draDriverName},
		Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{{
			CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", draDriverName)},
		}}},
	})
	slice := &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName + "-" + draDriverName},
		Spec: resourcev1.ResourceSliceSpec{
			Driver: draDriverName, NodeName: new(nodeName),
			Pool:    resourcev1.ResourcePool{Name: draPool, Generation: 1, ResourceSliceCount: 1},
			Devices: devices,
		},
	}
	api.create(t, slicesPath, slice)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { d.keepPublished(ctx, slice) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// republishAfter is how long drivers wait before they publish a deleted slice again:
// DefaultSyncDelay of k8s.io/dynamic-resource-allocation/resourceslice.
const republishAfter = 30 * time.Second

// keepPublished publishes the slice again after it was deleted. A kubelet that starts
// deletes it (pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go).
func (d *draDriver) keepPublished(ctx context.Context, slice *resourcev1.ResourceSlice) {
	var missing time.Time // since when; zero: it exists
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		switch published, err := d.api.slices(ctx); {
		case err != nil:
			continue
		case published > 0:
			missing = time.Time{}
		case missing.IsZero():
			missing = time.Now()
		case time.Since(missing) > republishAfter:
			again := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: slice.Name}, Spec: slice.Spec}
			_ = d.api.do(ctx, http.MethodPost, slicesPath, again, nil) // an error is retried
		}
	}
}

// slices counts the ResourceSlices.
func (a *apiServer) slices(ctx context.Context) (int, error) {
	var list resourcev1.ResourceSliceList
	err := a.do(ctx, http.MethodGet, slicesPath, nil, &list)
	return len(list.Items), err
}

// GetInfo implements the kubelet's registration of plugins.
func (d *draDriver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.DRAPlugin, Name: draDriverName, SupportedVersions: []string{drav1.DRAPluginService},
		Endpoint: "/var/lib/kubelet/plugins/" + draDriverName + "/dra.sock", // in the kubelet's mount namespace
	}, nil
}

// NotifyRegistrationStatus implements the kubelet's registration of plugins.
func (d *draDriver) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	select {
	case d.registered <- status:
	default: // registered with a later kubelet
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// NodePrepareResources implements a DRA driver.
func (d *draDriver) NodePrepareResources(ctx context.Context, r *drav1.NodePrepareResourcesRequest) (*drav1.NodePrepareResourcesResponse, error) {
	answer := &drav1.NodePrepareResourcesResponse{Claims: map[string]*drav1.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		var claim resourcev1.ResourceClaim
		prepared := &drav1.NodePrepareResourceResponse{}
		if err := d.api.do(ctx, http.MethodGet, claimsPath+"/"+c.Name, nil, &claim); err != nil {
			prepared.Error = err.Error()
		} else {
			for _, a := range claim.Status.Allocation.Devices.Results {
				prepared.Devices = append(prepared.Devices, &drav1.Device{RequestNames: []string{a.Request}, PoolName: a.Pool, DeviceName: a.Device})
			}
		}
		answer.Claims[c.Uid] = prepared
	}
	return answer, nil
}

// NodeUnprepareResources implements a DRA driver.
func (d *draDriver) NodeUnprepareResources(_ context.Context, r *drav1.NodeUnprepareResourcesRequest) (*drav1.NodeUnprepareResourcesResponse, error) {
	answer := &drav1.NodeUnprepareResourcesResponse{Claims: map[string]*drav1.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		answer.Claims[c.Uid] = &drav1.NodeUnprepareResourceResponse{}
	}
	return answer, nil
}

// published describes a device with the attributes of NVIDIA's driver:
// https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin.
func published(name string, attributes ...string) resourcev1.Device {
	d := resourcev1.Device{Name: name, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{}}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		d.Attributes[resourcev1.QualifiedName(key)] = resourcev1.DeviceAttribute{StringValue: &value}
	}
	return d
}

// claim creates a ResourceClaim with an allocated device, in place of the scheduler.
func (a *apiServer) claim(t *testing.T, name, device string) *resourcev1.ResourceClaim {
	t.Helper()
	claim := &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{
			Name: draRequest, Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: draDriverName},
		}}}},
	}
	a.create(t, claimsPath, claim)
	claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Request: draRequest, Driver: draDriverName, Pool: draPool, Device: device}},
	}}
	a.updateClaim(t, claim)
	return claim
}

func (a *apiServer) updateClaim(t *testing.T, claim *resourcev1.ResourceClaim) {
	t.Helper()
	if err := a.do(t.Context(), http.MethodPut, claimsPath+"/"+claim.Name+"/status", claim, claim); err != nil {
		t.Fatal(err)
	}
}

// runClaiming creates a pod on the node that uses a claim, and reserves the claim for it
// in place of the scheduler.
func (a *apiServer) runClaiming(t *testing.T, name string, claim *resourcev1.ResourceClaim) *corev1.Pod {
	t.Helper()
	pod := newPod(name, "", 0)
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "device", ResourceClaimName: &claim.Name}}
	pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "device"}}
	a.run(t, pod)
	claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	a.updateClaim(t, claim)
	return pod
}
