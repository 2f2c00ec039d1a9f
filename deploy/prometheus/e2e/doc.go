// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e has only tests: a real Prometheus and Alertmanager scrape simulated nodes with
// faults. It must not be imported.
package e2e
