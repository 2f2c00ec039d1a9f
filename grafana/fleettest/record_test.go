// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The clock of the history runs faster than the clock of the recording: a page that an
// exporter serves every realInterval is a scrape every scrapeInterval of the history, which
// is the interval of the recording rules as well.
//
// A counter of busy time ends at the newest value that DCGM has, which is up to one
// resolution older than the sample. So a ratio over two minutes of the history, which is
// four pages, may exceed 1 by resolution/(4*realInterval) = 5 %, and more on a busy machine.
const (
	realInterval   = 500 * time.Millisecond
	resolution     = 100 * time.Millisecond
	scrapeInterval = 30 * time.Second
)

// page is one scrape of an exporter. A failed scrape has no series.
type page struct {
	time   time.Time // of the newest sample, or of the scrape if there is none
	series []point
}

type point struct {
	labels string // as in the text format, without the name
	name   string
	value  float64
	kind   kind
}

// kind says how a value changes when time is stretched.
type kind int

const (
	plain    kind = iota
	integral      // grows with time: seconds, joules, bytes
	instant       // a Unix time
)

// parse reads a page in the text format.
func parse(body []byte) (page, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return page{}, err
	}
	p := page{time: time.Now()}
	for name, family := range families {
		k := kindOf(name, family.GetType())
		for _, m := range family.GetMetric() {
			add := func(suffix string, k kind, v float64, extra ...string) {
				p.series = append(p.series, point{labels: labelText(m.GetLabel(), extra...), name: name + suffix, value: v, kind: k})
			}
			switch {
			case m.Counter != nil:
				add("", k, m.GetCounter().GetValue())
			case m.Gauge != nil:
				add("", k, m.GetGauge().GetValue())
				if name == "gpu_exporter_last_sample_timestamp_seconds" && m.GetGauge().GetValue() > 0 {
					p.time = time.UnixMicro(int64(m.GetGauge().GetValue() * 1e6))
				}
			case m.Untyped != nil:
				add("", k, m.GetUntyped().GetValue())
			case m.Histogram != nil:
				h := m.GetHistogram()
				for _, b := range h.GetBucket() {
					add("_bucket", plain, float64(b.GetCumulativeCount()), "le", formatFloat(b.GetUpperBound()))
				}
				add("_sum", plain, h.GetSampleSum())
				add("_count", plain, float64(h.GetSampleCount()))
			case m.Summary != nil:
				add("_sum", plain, m.GetSummary().GetSampleSum())
				add("_count", plain, float64(m.GetSummary().GetSampleCount()))
			}
		}
	}
	return p, nil
}

func formatFloat(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// kindOf returns how the values of a family change when time is stretched. Counters of
// events do not grow faster: one XID remains one XID.
func kindOf(name string, t dto.MetricType) kind {
	switch {
	case strings.HasSuffix(name, "_timestamp_seconds"), strings.HasSuffix(name, "_start_time_seconds"):
		return instant
	case t != dto.MetricType_COUNTER:
		return plain
	case strings.Contains(name, "_seconds"), strings.Contains(name, "_joules"), strings.Contains(name, "_bytes"),
		strings.Contains(name, "ENERGY"), strings.Contains(name, "VIOLATION"):
		return integral
	}
	return plain
}

func labelText(pairs []*dto.LabelPair, extra ...string) string {
	var b strings.Builder
	for _, l := range pairs {
		b.WriteString(l.GetName() + "\x00" + l.GetValue() + "\x00")
	}
	for _, s := range extra {
		b.WriteString(s + "\x00")
	}
	return b.String()
}

// errDown is the result of a scrape of an exporter that does not run.
var errDown = errors.New("the exporter is down")

// scrape waits for a page with a sample that is newer than the last one. Without one it
// returns the page after two intervals, as Prometheus would scrape it.
func (n *node) scrape(t *testing.T, last time.Time) page {
	t.Helper()
	for deadline := time.Now().Add(2 * realInterval); ; time.Sleep(realInterval / 20) {
		p, err := n.tryScrape(t)
		if errors.Is(err, errDown) {
			time.Sleep(realInterval)
			return page{time: time.Now()}
		}
		if err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
		if p.time.After(last) {
			return p
		}
		if time.Now().After(deadline) {
			return p
		}
	}
}

func (n *node) tryScrape(t *testing.T) (page, error) {
	t.Helper()
	if n.down {
		return page{}, errDown
	}
	body, err := n.Get(t.Context(), "/metrics")
	if err != nil {
		return page{}, errDown
	}
	return parse(body)
}

// stretcher converts the pages of one node to scrapes of the history.
type stretcher struct {
	totals map[string]total // of integrals, by name and labels
	clock  []moment         // of the pages with a new sample
}

type total struct{ recorded, history float64 }

// moment is a time in the recording and in the history.
type moment struct{ recorded, history time.Time }

// next returns the values of a page at a time of the history. While there is no new sample,
// integrals keep their value, so that their growth belongs to the whole time until the next.
func (s *stretcher) next(p page, at time.Time) []point {
	if len(p.series) == 0 {
		s.totals = nil
		return nil
	}
	factor := 0.0
	if n := len(s.clock); n == 0 || p.time.After(s.clock[n-1].recorded) {
		if n > 0 {
			last := s.clock[n-1]
			factor = float64(at.Sub(last.history)) / float64(p.time.Sub(last.recorded))
		}
		s.clock = append(s.clock, moment{p.time, at})
	}
	totals := make(map[string]total, len(p.series))
	points := make([]point, len(p.series))
	for i, v := range p.series {
		points[i] = v
		switch v.kind {
		case integral:
			now := total{v.value, v.value}
			if before, known := s.totals[v.name+v.labels]; known && v.value >= before.recorded {
				now.history = before.history + (v.value-before.recorded)*factor
				if factor == 0 {
					now = before
				}
			}
			totals[v.name+v.labels], points[i].value = now, now.history
		case instant:
			if v.value > 0 {
				points[i].value = float64(s.when(time.UnixMicro(int64(v.value*1e6))).UnixMicro()) / 1e6
			}
		}
	}
	s.totals = totals
	return points
}

// when returns the time in the history of a time in the recording.
func (s *stretcher) when(recorded time.Time) time.Time {
	next, _ := slices.BinarySearchFunc(s.clock, recorded, func(m moment, t time.Time) int { return m.recorded.Compare(t) })
	if next == 0 || next == len(s.clock) {
		near := s.clock[min(next, len(s.clock)-1)]
		return near.history.Add(recorded.Sub(near.recorded) * (scrapeInterval / realInterval))
	}
	from, to := s.clock[next-1], s.clock[next]
	part := float64(recorded.Sub(from.recorded)) / float64(to.recorded.Sub(from.recorded))
	return from.history.Add(time.Duration(part * float64(to.history.Sub(from.history))))
}
