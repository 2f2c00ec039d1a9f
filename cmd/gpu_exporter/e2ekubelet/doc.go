// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2ekubelet tests the exporter with a real kubelet, containerd and API server.
// Containers run in real cgroups. Only the GPUs, the device plugin and the DRA driver are
// simulated. The tests compare /metrics with the kubelet's own answers.
//
// The tests have the build tag e2ekubelet and need root. make e2e-kubelet builds and
// installs their requirements and runs them. A missing requirement is a failure with a
// reason; no test skips.
//
// Each test has its own PID, mount and network namespaces, a temporary directory and a
// cgroup in each hierarchy, so the host is not changed. Only the exporter runs in the
// host's PID namespace, because it identifies processes.
package e2ekubelet
