// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"gpu_exporter/podmapper/internal/poll"
)

// Resource requests the resource of a kind, and whether it is namespaced. The
// discovery client of client-go would link all typed APIs.
func (c *Client) Resource(ctx context.Context, kind schema.GroupVersionKind) (r schema.GroupVersionResource, namespaced bool, err error) {
	path := []string{"apis", kind.Group, kind.Version}
	if kind.Group == "" {
		path = []string{"api", kind.Version}
	}
	answer, err := c.rest.Get().AbsPath(path...).SetHeader("Accept", "application/json").Do(ctx).Raw()
	var list metav1.APIResourceList
	if err == nil {
		err = json.Unmarshal(answer, &list)
	}
	if err != nil {
		return r, false, fmt.Errorf("listing the resources of %s: %w", kind.GroupVersion(), WithReason(err))
	}
	for _, resource := range list.APIResources {
		if resource.Kind == kind.Kind && !strings.Contains(resource.Name, "/") { // not a subresource
			return kind.GroupVersion().WithResource(resource.Name), resource.Namespaced, nil
		}
	}
	return r, false, poll.WithReason(poll.NotFound, fmt.Errorf("%s has no kind %s", kind.GroupVersion(), kind.Kind))
}
