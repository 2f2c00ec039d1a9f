// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/kube"
	"gpu_exporter/podmapper/internal/poll"
)

// The relevant part of a ResourceClaim in resource.k8s.io v1, v1beta2 and v1beta1.
type wireClaim struct {
	Status struct {
		Allocation struct {
			Devices struct {
				Results []struct {
					Driver      string `json:"driver"`
					Pool        string `json:"pool"`
					Device      string `json:"device"`
					AdminAccess bool   `json:"adminAccess"`
				} `json:"results"`
			} `json:"devices"`
		} `json:"allocation"`
	} `json:"status"`
}

// errNotConnected means that no ResourceSlice has been listed yet.
var errNotConnected = poll.WithReason(poll.Unavailable, errors.New("the API server has not answered yet"))

// AdminAccess returns the devices that a ResourceClaim has with adminAccess: they are
// monitored or managed, and a different claim can hold them.
func (w *Watcher) AdminAccess(ctx context.Context, namespace, name string) ([]device.PublishedName, error) {
	w.mu.Lock()
	version := w.version
	w.mu.Unlock()
	client := w.client.Load()
	if client == nil || version == "" {
		return nil, errNotConnected
	}
	resource := schema.GroupVersionResource{Group: groupName, Version: version, Resource: "resourceclaims"}
	object, err := client.Dynamic.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the ResourceClaim %s/%s: %w", namespace, name, kube.WithReason(err))
	}
	var claim wireClaim
	if err := fromUnstructured(object.Object, &claim); err != nil {
		return nil, poll.WithReason(poll.Malformed, fmt.Errorf("decoding the ResourceClaim %s/%s: %w", namespace, name, err))
	}
	var names []device.PublishedName
	for _, r := range claim.Status.Allocation.Devices.Results {
		if r.AdminAccess {
			names = append(names, device.PublishedName{Driver: r.Driver, Pool: r.Pool, Device: r.Device})
		}
	}
	return names, nil
}
