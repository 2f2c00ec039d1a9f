// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// TestStretch: in the history, rates are those of the recording, events keep their number,
// and a time without samples neither loses nor repeats growth.
func TestStretch(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1_700_000_000, 0)
	recorded := func(after time.Duration, busy, xids float64) page {
		return page{time: begin.Add(after), series: []point{
			{name: "busy_seconds_total", value: busy, kind: integral},
			{name: "xids_total", value: xids},
			{name: "xid_timestamp_seconds", value: float64(begin.UnixMilli()+1000) / 1000, kind: instant},
		}}
	}
	pages := []page{
		recorded(0, 100, 1),
		recorded(500*time.Millisecond, 100.25, 1), // busy half of the time
		recorded(500*time.Millisecond, 100.25, 2), // no new sample
		recorded(1500*time.Millisecond, 100.75, 3),
		{time: begin.Add(2 * time.Second)}, // the exporter restarts
		recorded(2500*time.Millisecond, 0.25, 0),
		recorded(3*time.Second, 0.5, 0),
	}
	want := []float64{100, 115, 115, 145, math.NaN(), 0.25, 15.25}
	start := begin.Add(time.Hour)
	var s stretcher
	for i, p := range pages {
		at := start.Add(time.Duration(i) * scrapeInterval)
		points := s.next(p, at)
		if len(p.series) == 0 {
			if len(points) != 0 {
				t.Errorf("page %d: a failed scrape has series", i)
			}
			continue
		}
		if got := points[0].value; math.Abs(got-want[i]) > 1e-6 {
			t.Errorf("page %d: busy time %v, want %v", i, got, want[i])
		}
		if points[1].value != p.series[1].value {
			t.Errorf("page %d: %v events, want %v", i, points[1].value, p.series[1].value)
		}
		// 1 s after the first sample is in the middle of the third and the fourth page.
		if got, want := points[2].value-float64(start.Unix()), 60.0; i >= 3 && math.Abs(got-want) > 1e-3 {
			t.Errorf("page %d: the XID is %v s after the start, want %v", i, got, want)
		}
	}
}

// TestStaleMarkers: a series that ends, or that pauses, has a stale marker.
func TestStaleMarkers(t *testing.T) {
	t.Parallel()
	at := func(i int) time.Time { return time.Unix(1_700_000_000, 0).Add(time.Duration(i) * scrapeInterval) }
	s := series{samples: []sample{{at(0), 1}, {at(1), 1}, {at(4), 1}}}
	s.endGaps(at(9), scrapeInterval)
	var got []int
	for _, v := range s.samples {
		if math.Float64bits(v.value) == math.Float64bits(stale()) {
			got = append(got, int(v.at.Sub(at(0))/scrapeInterval))
		}
	}
	if len(got) != 2 || got[0] != 2 || got[1] != 5 {
		t.Errorf("stale markers at %v, want 2 and 5", got)
	}
}

// TestExpand replaces variables as Grafana's Prometheus data source does.
func TestExpand(t *testing.T) {
	t.Parallel()
	to := time.Unix(1_700_000_000, 0)
	c := choice{
		"node": {text: "a.b", values: []string{"a.b"}},
		"gpu":  {text: "All", values: []string{"GPU-1", "GPU-2.x"}, multi: true},
		"job":  {text: "All", values: []string{"x"}, all: ".+", multi: true},
	}
	p := panel{}
	p.GridPos.W = 12
	for text, want := range map[string]string{
		`up{node="$node"}`:           `up{node="a.b"}`,
		`up{gpu=~"$gpu"}`:            `up{gpu=~"(GPU-1|GPU-2\\.x)"}`,
		`up{gpu=~"${gpu:pipe}"}`:     `up{gpu=~"GPU-1|GPU-2.x"}`,
		`up{job=~"$job"}`:            `up{job=~".+"}`,
		`rate(x[$__rate_interval])`:  `rate(x[120s])`,
		`increase(x[${__range}])`:    `increase(x[10800s])`,
		`x offset $__interval + $no`: `x offset 30s + $no`,
	} {
		if got := (dashboard{}).expand(text, c, to.Add(-3*time.Hour), to, p, target{}); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
	}
}

// TestPanelTypes: grafana/render can draw every type of panel that the dashboards have.
func TestPanelTypes(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(root, "grafana/render/app/panels.jsx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range generations {
		for _, d := range readDashboards(t, g.folder) {
			for _, p := range d.flat() {
				if !regexp.MustCompile(`(?m)^  '?` + regexp.QuoteMeta(p.Type) + `'?: \{ draw:`).Match(source) {
					t.Errorf("%s: panel %q has the type %q, which app/panels.jsx cannot draw", d.file, p.Title, p.Type)
				}
			}
		}
	}
}
