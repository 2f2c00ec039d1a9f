// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"reflect"
	"strings"
	"testing"

	"gpu_exporter/collector/metrics/definition"
)

func TestExamine(t *testing.T) {
	got, err := Examine(`sum by (hostname) (rate(gpu_busy_seconds_total{GPU_I_ID=""}[5m])) / on (hostname) group_left (rack) count by (hostname, rack) (gpu_up == 1) + 0 * {__name__="up", job="gpu"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := Uses{
		Families: []*definition.Family{&definition.GPUBusySeconds, &definition.GPUUp},
		Others:   []string{"up"},
		Labels:   []string{"GPU_I_ID", "hostname", "job", "rack"},
		Groups:   []string{"busy", "devices"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestExamineRejects(t *testing.T) {
	for expr, want := range map[string]string{
		`rate(gpu_up)`:             "parse",
		`{hostname="a"}`:           "has no fixed name",
		`{__name__=~"gpu_.*"} > 1`: "has no fixed name",
	} {
		if _, err := Examine(expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", expr, err, want)
		}
	}
}
