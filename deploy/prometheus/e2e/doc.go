// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e has only tests: a real Prometheus and Alertmanager scrape simulated nodes with
// faults. It must not be imported.
//
// Each alert has a case, or is listed in notTriggered with the reason. Three cases need more than
// the stand-in:
//
//   - GPUSamplerUnreapable: the test traces the sampler, so that the exporter cannot reap it.
//   - GPUSampleStale: a proxy shifts the times of the page.
//   - GPUFreeWhilePodsWait: the test serves the metrics of kube-state-metrics.
package e2e
