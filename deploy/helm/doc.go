// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package helm tests the Helm chart in gpu-exporter, and generates its schema and README
// from the comments of values.yaml. It has no code of the exporter.
package helm
