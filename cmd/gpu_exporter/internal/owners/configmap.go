// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"context"
	"time"

	"gpu_exporter/podmapper/metadata"
)

// configMapTimeout bounds the start and each reload with a ConfigMap.
const configMapTimeout = 5 * time.Second

// ReadConfigMap returns the data of a ConfigMap. Without a kubeconfig, it uses the pod's
// service account.
func ReadConfigMap(kubeconfig, namespace, name string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), configMapTimeout)
	defer cancel()
	return metadata.ConfigMap(ctx, kubeconfig, namespace, name)
}
