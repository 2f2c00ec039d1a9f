// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package fleettest has the tests of the dashboards with a real Prometheus. They start
// exporters on simulated nodes, record their pages while nodes fail, restart and change,
// and stretch the recording into hours of history. Every query of every dashboard runs on
// this history, and the pictures of the dashboards are drawn from it. The pages have the
// names of all counters files, so that one recording serves all outputs. The report of a
// month runs on records that the test computes.
//
// The tests read only the files of dashboards and rules. They run with
// make test-dashboards, and the pictures are drawn with make render-dashboards.
package fleettest
