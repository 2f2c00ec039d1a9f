// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package collector connects the packages below it, through which a value travels:
// dcgm and nvml read it in the sampler process, wire carries it to the exporter,
// supervisor receives it, state keeps it, and metrics publishes it. model has the data
// that they share, field the catalogue of DCGM fields, and xid the XID errors.
//
// This package must not call native code, must not know Kubernetes, HTTP or flags, and
// must never block on anything but the sampler's pipe.
package collector
