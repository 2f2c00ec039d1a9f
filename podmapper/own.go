// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"os"
	"strings"
)

// Pod is the name of a pod. An empty namespace is any.
type Pod struct{ Namespace, Name string }

func (p Pod) is(namespace, name string) bool {
	return p.Name != "" && p.Name == name && (p.Namespace == "" || p.Namespace == namespace)
}

// OwnPod returns the pod in which this process runs: POD_NAME and POD_NAMESPACE, or
// the host name, which is the pod's name without hostNetwork. It is zero outside of
// Kubernetes.
func OwnPod() Pod {
	const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	p := Pod{os.Getenv("POD_NAMESPACE"), os.Getenv("POD_NAME")}
	if p.Name == "" && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		p.Name, _ = os.Hostname() // empty: unknown
	}
	if content, err := os.ReadFile(namespaceFile); err == nil && p.Namespace == "" {
		p.Namespace = strings.TrimSpace(string(content))
	}
	return p
}
