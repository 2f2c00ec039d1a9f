// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// ConfigMap reads the data of a ConfigMap once. It needs no name of the node.
func (a Access) ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error) {
	config, err := a.Config()
	if err != nil {
		return nil, err
	}
	config = dynamic.ConfigFor(config)
	connections, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to the API server: %w", err)
	}
	defer utilnet.CloseIdleConnectionsFor(connections.Transport)
	client, err := dynamic.NewForConfigAndClient(config, connections)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to the API server: %w", err)
	}
	object, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).
		Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	data, _, err := unstructured.NestedStringMap(object.Object, "data")
	return data, err
}
