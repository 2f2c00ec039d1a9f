// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package parsers has tests only: the parsers of scrapers read pages of the exporter. It is a
// module of its own, so that the exporter's does not require the scrapers.
package parsers

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"

	victoria "github.com/VictoriaMetrics/VictoriaMetrics/lib/protoparser/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

var exporter = flag.String("exporter", "../../../build/gpu_exporter", "the program")

// page returns a page of a simulated node in the text format, which all scrapers accept.
func page(t *testing.T, scenario string) []byte {
	t.Helper()
	out, err := exec.Command(*exporter, "once", "--all", "--families=full", "--simulate="+scenario).Output()
	if err != nil {
		t.Fatalf("%s once: %v; run make build", *exporter, err)
	}
	return out
}

// prometheusSeries parses a page with the parser of Prometheus' package scrape. OpenTelemetry's
// Prometheus receiver and Grafana Alloy import that package.
func prometheusSeries(t *testing.T, page []byte, options textparse.ParserOptions) map[string]float64 {
	t.Helper()
	p, err := textparse.New(page, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", nil, options)
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return series
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, _, value := p.Series()
		if _, twice := series[l.String()]; twice {
			t.Errorf("%s occurs twice", l)
		}
		series[l.String()] = value
	}
}

func TestParsers(t *testing.T) {
	for _, scenario := range []string{"h100x8", "h100x8-mig", "dgx-h100", "gb200", "t4x1"} {
		t.Run(scenario, func(t *testing.T) {
			text := page(t, scenario)
			want := prometheusSeries(t, text, textparse.ParserOptions{})
			if len(want) < 100 {
				t.Fatalf("%d series", len(want))
			}
			t.Run("OpenTelemetry and Alloy", func(t *testing.T) {
				got := prometheusSeries(t, text, textparse.ParserOptions{EnableTypeAndUnitLabels: true})
				if len(got) != len(want) {
					t.Errorf("%d series with labels of type and unit, %d without", len(got), len(want))
				}
			})
			t.Run("VictoriaMetrics", func(t *testing.T) {
				var rows victoria.Rows
				rows.UnmarshalWithErrLogger(string(text), func(s string) { t.Error(s) })
				got := map[string]float64{}
				for _, row := range rows.Rows {
					b := labels.NewScratchBuilder(len(row.Tags) + 1)
					b.Add(labels.MetricName, row.Metric)
					for _, tag := range row.Tags {
						b.Add(tag.Key, tag.Value)
					}
					b.Sort()
					got[b.Labels().String()] = row.Value
				}
				if d := difference(got, want); d != "" || len(got) != len(want) {
					t.Errorf("%d series, want %d; %s", len(got), len(want), d)
				}
			})
		})
	}
}

// difference returns the first difference between the series of devices and of the exporter.
// VictoriaMetrics rounds the last bit of numbers.
func difference(got, want map[string]float64) string {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !strings.Contains(name, `__name__="DCGM_`) && !strings.Contains(name, `__name__="gpu_`) {
			continue // Prometheus writes the label quantile differently
		}
		if v, ok := got[name]; !ok || math.Abs(v-want[name]) > 1e-12*math.Abs(want[name]) {
			return fmt.Sprintf("%s is %v, want %v", name, v, want[name])
		}
	}
	return ""
}
