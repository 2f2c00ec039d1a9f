// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

// The mean is one over time: a value counts for as long as it stood.
func TestWindow(t *testing.T) {
	var s trackState
	const step = 100 * time.Millisecond
	for _, p := range []Point{{1_000_000, 10}, {1_100_000, 20}, {1_100_000, 20}, {1_300_000, 40}, {9_000_000, 30}} {
		s.add(p, step)
	}
	w := s.window
	// The first and, after a gap, the last stand for what is usual.
	if want := (10*1 + 20*1 + 40*2 + 30*1) / 5.0; w.count != 4 || w.min != 10 || w.max != 40 || w.mean() != want {
		t.Errorf("%d values from %v to %v, mean %v; want 4 from 10 to 40, mean %v", w.count, w.min, w.max, w.mean(), want)
	}
}

// What a counter with statistics and a histogram adds to the exposition.
func TestStatisticsGolden(t *testing.T) {
	cfg := testConfig(t)
	field, _ := FieldByID(155)
	at := slices.IndexFunc(cfg.Counters, func(c Counter) bool { return c.Field.ID == field.ID })
	if at < 0 {
		t.Fatal("the test's counters have no power")
	}
	power := &cfg.Counters[at]
	power.Statistics, power.Histogram, power.Resolution = true, true, 100*time.Millisecond
	f, node, clock := newTestFamilies(t, cfg)
	node.Track(TrackedFields(cfg.Counters, time.Second), time.Second)
	tracks := &Tracks{Generation: 1}
	for e, watts := range [][]float64{{100, 300, 500}, {70}} {
		track := Track{Entity: e, Field: 155}
		for i, v := range watts {
			track.Points = append(track.Points, Point{epoch.UnixMicro() + int64(i)*100_000, v})
		}
		tracks.List = append(tracks.List, track)
	}
	for _, frame := range []Frame{{Tracks: tracks}, {Sample: testSample(testInventory(t))}} {
		if err := node.Deliver(frame); err != nil {
			t.Fatal(err)
		}
	}
	shown := func() []byte {
		var b bytes.Buffer
		for line := range strings.Lines(string(encode(t, f, expfmt.TypeTextPlain))) {
			for _, name := range power.FamilyNames() {
				if strings.Contains(line, name) {
					b.WriteString(line)
					break
				}
			}
		}
		return b.Bytes()
	}
	golden(t, "statistics.prom", shown())

	// A sample that nothing was seen before has no statistics; the histogram stays,
	// also when the sample is too old to be shown.
	if err := node.Deliver(Frame{Sample: testSample(testInventory(t))}); err != nil {
		t.Fatal(err)
	}
	if got := shown(); bytes.Contains(got, []byte("_min{")) || !bytes.Contains(got, []byte("_histogram_count{")) {
		t.Errorf("after an empty window:\n%s", got)
	}
	*clock = epoch.Add(time.Hour)
	if got := shown(); !bytes.Contains(got, []byte("_histogram_count{")) {
		t.Errorf("after an hour:\n%s", got)
	}
}

// A value is written within its own minimum and maximum, however it is rounded.
func TestStatisticsRound(t *testing.T) {
	for _, tc := range []struct {
		field FieldID
		scale float64
		cell  Cell
		want  string
	}{
		{155, 0, DoubleCell(0.1234567), "0.123457"},
		{155, 0, DoubleCell(0.1234562), "0.123456"},
		{155, 1e-3, DoubleCell(100.4567891), "0.100457"},
		{155, 1000, DoubleCell(0.12345678), "123.456780"},
		{203, percent, Int64Cell(37), "0.370000"},
		{150, 0, Int64Cell(2500000), "2.5e+06"},
		{252, 1 << 20, Int64Cell(3), "3.145728e+06"},
	} {
		field, _ := FieldByID(tc.field)
		c := Counter{Field: field, Type: MetricGauge, Scale: tc.scale}
		own := []Series{{Value: fieldValue(tc.cell)}}
		seen := own[0].Value.Float64()
		scale(c, own)
		if got := string(statistic(c, seen).append(nil)); got != tc.want {
			t.Errorf("field %d times %v: %s, want %s", tc.field, tc.scale, got, tc.want)
		}
		value, err := strconv.ParseFloat(string(own[0].Value.append(nil)), 64)
		if err != nil {
			t.Fatal(err)
		}
		if statistic, _ := strconv.ParseFloat(tc.want, 64); statistic != value {
			t.Errorf("field %d times %v: the value is %v, its minimum and maximum %v", tc.field, tc.scale, value, statistic)
		}
	}
}

func TestFamilyNames(t *testing.T) {
	power, _ := FieldByID(155)
	driver, _ := FieldByID(1)
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
