// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"

	"gpu_exporter/podmapper/internal/kube"
)

// ConfigMap reads the data of a ConfigMap once. Without a kubeconfig, it uses the pod's
// service account.
func ConfigMap(ctx context.Context, kubeconfig, namespace, name string) (map[string]string, error) {
	return kube.Access{Kubeconfig: kubeconfig}.ConfigMap(ctx, namespace, name)
}
