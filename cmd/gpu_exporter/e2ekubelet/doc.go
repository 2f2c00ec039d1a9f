// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2ekubelet runs the exporter beside a real kubelet: real containerd,
// real containers in real cgroups, and, for what needs it, a real API server. Only
// the GPUs, the device plugin and the DRA driver are simulated. What is asserted
// is seen through /metrics, with the kubelet's own answers as the truth.
//
// Its tests have the build tag e2ekubelet, need root, and are run by make
// e2e-kubelet, which builds and installs what they need. Where they cannot run
// they fail and say why: they never skip.
//
// All of it lives in PID, mount and network namespaces of its own, in one
// temporary directory and in one cgroup of each hierarchy, so that nothing of
// the host is changed and nothing is left, whichever way the tests end. Only the
// exporter is in the host's PID namespace, as it must be to know processes.
package e2ekubelet
