// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the alerts with a real Prometheus and a real Alertmanager, which observe
// simulated nodes while faults are injected: `make test-alerts`.
//
// All durations of the rules are divided by one factor: for, keep_firing_for, the ranges of
// selectors, and numbers that a difference from time() is compared with. Thresholds of rates and
// counts are unchanged. Prometheus scrapes and evaluates once a second.
package e2e
