// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// newHistogram returns a native histogram of the values of one field of one entity.
func newHistogram() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "values", Help: "Values of a field.", // not published

		NativeHistogramBucketFactor:    1.1, // schema 3: each bucket is 9 % wider than the one before
		NativeHistogramMaxBucketNumber: 160,
	})
}

// snapshot returns the histogram as it is now. The result is immutable.
func snapshot(h prometheus.Histogram) *dto.Histogram {
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		return nil // a histogram without exemplars has no error to return
	}
	return m.Histogram
}
