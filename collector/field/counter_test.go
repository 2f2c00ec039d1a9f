// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"slices"
	"strings"
	"testing"
)

// TestNewCounterLabelNames: a label must not have the name of a device's own label.
// Prometheus rejects the whole scrape if a series has a label twice.
func TestNewCounterLabelNames(t *testing.T) {
	const version = "DCGM_FI_DRIVER_VERSION"
	for name, good := range map[string]bool{
		"driver": true, "": true,
		"gpu": false, "UUID": false, "nvlink": false, "pod": false, "a:b": false, "__name": false,
	} {
		_, err := NewCounter(version, name, "label", "")
		if good != (err == nil) {
			t.Errorf("%q: error %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), "choose another name") {
			t.Errorf("%q: the error names no remedy: %v", name, err)
		}
	}
	if _, err := NewCounter("DCGM_FI_DEV_GPU_TEMP", "a:b", "gauge", ""); err != nil {
		t.Errorf("a metric may have a colon: %v", err)
	}
}

// TestNewCounterPrometheusNames: a metric must not have the name of a series that Prometheus
// generates. A label can.
func TestNewCounterPrometheusNames(t *testing.T) {
	for _, name := range []string{"up", "ALERTS", "ALERTS_FOR_STATE"} {
		_, err := NewCounter("DCGM_FI_DEV_GPU_TEMP", name, "", "")
		if want := `"` + name + `" is the name of a series that Prometheus generates: choose another name`; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if _, err := NewCounter("DCGM_FI_DRIVER_VERSION", name, "label", ""); err != nil {
			t.Error(err)
		}
	}
}

// TestNewCounterComputed: a computed counter is selected by name as in a counters file. Its
// type is fixed, and its name can be changed.
func TestNewCounterComputed(t *testing.T) {
	for _, tc := range []struct {
		name, metricType string
		want             Counter
	}{
		{"", "", Counter{Computed: XIDErrorsCount, Name: "DCGM_EXP_XID_ERRORS_COUNT", Type: MetricGauge, Help: "H."}},
		{"recent_xids", "counter", Counter{Computed: XIDErrorsCount, Name: "recent_xids", Type: MetricGauge, Help: "H."}},
	} {
		got, err := NewCounter("DCGM_EXP_XID_ERRORS_COUNT", tc.name, tc.metricType, "H.")
		if err != nil || got != tc.want {
			t.Errorf("%+v, %v; want %+v", got, err, tc.want)
		}
	}
	for _, c := range ComputedCounters() {
		fromFile, err := ParseCounters(strings.NewReader(c.Name+", gauge, "+c.Help), "x.csv")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := NewCounter(c.Name, "", "", ""); err != nil || got != fromFile.List[0] || got != c {
			t.Errorf("%+v, %v; want %+v as in a counters file", got, err, fromFile.List[0])
		}
	}
}

func TestFamilyNames(t *testing.T) {
	power, _ := ByID(155)
	driver, _ := ByID(1)
	for _, tc := range []struct {
		counter Counter
		want    []string
	}{
		{Counter{Field: power, Name: "P", Type: MetricGauge}, []string{"P"}},
		{Counter{Field: power, Name: "P", Type: MetricGauge, Statistics: true}, []string{"P", "P_min", "P_max", "P_mean"}},
		{Counter{Field: power, Name: "P", Type: MetricGauge, Histogram: true},
			[]string{"P", "P_histogram", "P_histogram_bucket", "P_histogram_count", "P_histogram_sum"}},
		{Counter{Field: driver, Name: "D", Type: MetricLabel, Statistics: true}, nil},
	} {
		if got := tc.counter.FamilyNames(); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %q, want %q", tc.counter, got, tc.want)
		}
	}
}
