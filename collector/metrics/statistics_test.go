// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// takenAt returns the sample with another time.
func takenAt(s *model.Sample, at time.Time) *model.Sample {
	s.Time = at
	return s
}

// The energy counter is read with each sample, and power every second. Power does not
// replace the counter between samples.
func TestEnergyFromTheCounterOnly(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	node.Track(state.TrackedFields(nil, f.cfg.Integrates, time.Second), 5*time.Second)
	inv, _ := node.Newest()
	start := *clock
	for second := range 61 {
		at := start.Add(time.Duration(second) * time.Second)
		*clock = at
		values := map[model.FieldID]float64{155: 300}
		if second%5 == 0 {
			values[156] = 1e6 + 500e3*float64(second)
		}
		deliver(t, node, tracksOf(at, 0, values), wire.Frame{Sample: takenAt(testSample(inv), at)})
	}
	body := string(encode(t, f, expfmt.TypeTextPlain))
	if want := `gpu_energy_joules_total{gpu="0",UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1"} 30000`; !strings.Contains(body, want+"\n") {
		t.Errorf("no %s in\n%s", want, body)
	}
	if want := `gpu_exporter_integrated_gap_seconds_total{family="gpu_energy_joules_total"} 0`; !strings.Contains(body, want+"\n") {
		t.Errorf("no %s", want)
	}
}

// tracksOf returns a frame with one value for each field of an entity.
func tracksOf(at time.Time, entity int, values map[model.FieldID]float64) wire.Frame {
	t := &model.Tracks{Generation: 1}
	for field, v := range values {
		t.List = append(t.List, model.Track{Entity: entity, Field: field, Points: []model.Point{{At: at.UnixMicro(), Value: v}}})
	}
	return wire.Frame{Tracks: t}
}

// Integrals start at 0, continue after a restart of the sampler, distinguish instances
// with a reused ID, and remain when their GPU is gone.
func TestIntegralsThroughTheNode(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	node.Track(state.TrackedFields(nil, f.cfg.Integrates, time.Second), time.Second)
	deliver := func(frames ...wire.Frame) {
		t.Helper()
		var errs []error
		for _, frame := range frames {
			errs = append(errs, node.Deliver(frame))
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	busy := func(labels string) string {
		t.Helper()
		for line := range strings.Lines(string(encode(t, f, expfmt.TypeTextPlain))) {
			if strings.HasPrefix(line, "gpu_busy_seconds_total{") && strings.Contains(line, labels) {
				return strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])
			}
		}
		return "none"
	}
	inv := testInventory(t)
	instance := -1
	for i, e := range inv.Entities {
		if e.Kind == model.KindGPUInstance && instance < 0 {
			instance = i
		}
	}
	label := fmt.Sprintf(`GPU_I_ID="%d"`, inv.Entities[instance].InstanceID)
	sample := func() wire.Frame { return wire.Frame{Sample: testSample(testInventory(t))} }

	if got := busy(label); got != "none" {
		t.Errorf("before any value: %s", got)
	}
	deliver(tracksOf(epoch, instance, map[model.FieldID]float64{1001: 0.5}), sample())
	if got := busy(label); got != "0" {
		t.Errorf("with the first value: %s", got)
	}
	deliver(tracksOf(epoch.Add(time.Second), instance, map[model.FieldID]float64{1001: 0.5}))
	if got := busy(label); got != "0" {
		t.Errorf("before its sample: %s", got)
	}
	deliver(sample())
	if got := busy(label); got != "0.5" {
		t.Errorf("after a second at 0.5: %s", got)
	}

	// The first value of a new sampler is four seconds later.
	*clock = epoch.Add(5 * time.Second)
	deliver(wire.Frame{Inventory: testInventory(t)}, tracksOf(epoch.Add(5*time.Second), instance, map[model.FieldID]float64{1001: 0.5}), sample())
	if got := busy(label); got != "2.5" {
		t.Errorf("after a gap of four seconds: %s", got)
	}
	if body := encode(t, f, expfmt.TypeTextPlain); !strings.Contains(string(body), `gpu_exporter_integrated_gap_seconds_total{family="gpu_busy_seconds_total"} 3`) {
		t.Errorf("three seconds are not bridged: %s", series(body, "gpu_exporter_integrated_gap_seconds_total"))
	}

	// A different instance has the ID.
	other := testInventory(t)
	other.Entities[instance].InstanceID += 100
	deliver(wire.Frame{Inventory: other}, tracksOf(epoch.Add(6*time.Second), instance, map[model.FieldID]float64{1001: 1}), sample())
	if got := busy(label); got != "none" {
		t.Errorf("instance that is gone: %s", got)
	}
	// The instance returns and its integral continues without the time in between.
	deliver(wire.Frame{Inventory: testInventory(t)}, tracksOf(epoch.Add(7*time.Second), instance, map[model.FieldID]float64{1001: 1}), sample())
	if got := busy(label); got != "2.5" {
		t.Errorf("instance that returned: %s", got)
	}

	*clock = epoch.Add(10 * time.Second)
	deliver(tracksOf(epoch.Add(8*time.Second), 0, map[model.FieldID]float64{156: 1000}),
		tracksOf(epoch.Add(9*time.Second), 0, map[model.FieldID]float64{156: 3500}), sample())
	gone := testInventory(t)
	uuid := gone.Entities[0].UUID
	gone.Entities = []model.Entity{{Kind: model.KindGPU, Selected: true, ID: 9, Parent: model.Unknown, UUID: "GPU-new", Index: model.Unknown, Minor: model.Unknown}}
	gone.Columns = [model.KindCount][]model.FieldID{}
	deliver(wire.Frame{Inventory: gone}, wire.Frame{Sample: &model.Sample{Generation: 1, Time: epoch.Add(9 * time.Second), Rows: make([][]model.Cell, 1)}})
	if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_energy_joules_total"); !strings.Contains(got, uuid) || !strings.Contains(got, "} 2.5\n") {
		t.Errorf("GPU that is gone:\n%s", got)
	}
}

// A counter with statistics and a histogram adds four families.
func TestStatisticsGolden(t *testing.T) {
	cfg := testConfig(t)
	dcgmField, _ := field.ByID(155)
	at := slices.IndexFunc(cfg.Counters, func(c field.Counter) bool { return c.Field.ID == dcgmField.ID })
	if at < 0 {
		t.Fatal("the test's counters have no power")
	}
	power := &cfg.Counters[at]
	power.Statistics, power.Histogram, power.Resolution = true, true, 100*time.Millisecond
	f, node, clock := newTestFamilies(t, cfg)
	node.Track(state.TrackedFields(cfg.Counters, cfg.Integrates, time.Second), time.Second)
	tracks := &model.Tracks{Generation: 1}
	for e, watts := range [][]float64{{100, 300, 500}, {70}} {
		track := model.Track{Entity: e, Field: 155}
		for i, v := range watts {
			track.Points = append(track.Points, model.Point{At: epoch.UnixMicro() + int64(i)*100_000, Value: v})
		}
		tracks.List = append(tracks.List, track)
	}
	deliver(t, node, wire.Frame{Tracks: tracks}, wire.Frame{Sample: testSample(testInventory(t))})
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

	// A sample without tracked values has no statistics. The histogram remains, even
	// without a fresh sample.
	deliver(t, node, wire.Frame{Sample: testSample(testInventory(t))})
	if got := shown(); bytes.Contains(got, []byte("_min{")) || !bytes.Contains(got, []byte("_histogram_count{")) {
		t.Errorf("after an empty window:\n%s", got)
	}
	*clock = epoch.Add(time.Hour)
	if got := shown(); !bytes.Contains(got, []byte("_histogram_count{")) {
		t.Errorf("after an hour:\n%s", got)
	}
}

// Values, minimum, maximum and mean are in the unit of the counter. A value that was
// tracked alone equals all of them.
func TestStatisticsInUnitOfCounter(t *testing.T) {
	for _, tc := range []struct {
		field model.FieldID
		scale float64
		cell  model.Cell
		want  float64
	}{
		{155, 0, model.DoubleCell(0.1234567), 0.1234567},
		{155, 1e-3, model.DoubleCell(100.4567891), 0.1004567891},
		{155, 1000, model.DoubleCell(0.12345678), 123.45678},
		{203, field.Percent, model.Int64Cell(37), 0.37},
		{150, 0, model.Int64Cell(2500000), 2500000},
		{252, 1 << 20, model.Int64Cell(3), 3145728},
	} {
		cfg := testConfig(t)
		dcgmField, _ := field.ByID(tc.field)
		c := field.Counter{Field: dcgmField, Name: "x", Type: field.MetricGauge, Scale: tc.scale, Statistics: true, Resolution: 100 * time.Millisecond}
		cfg.Counters = []field.Counter{c}
		f, node, _ := newTestFamilies(t, cfg)
		node.Track(state.TrackedFields(cfg.Counters, cfg.Integrates, time.Second), time.Second)
		inv := testInventory(t)
		inv.Columns[model.KindGPU], inv.Columns[model.KindGPUInstance] = []model.FieldID{tc.field}, nil
		sample := &model.Sample{Generation: 1, Time: epoch, Rows: make([][]model.Cell, len(inv.Entities))}
		sample.Rows[0] = []model.Cell{tc.cell}
		deliver(t, node, wire.Frame{Inventory: inv}, tracksOf(epoch, 0, map[model.FieldID]float64{tc.field: tc.cell.Float64()}), wire.Frame{Sample: sample})
		body := encode(t, f, expfmt.TypeTextPlain)
		value := func(name string) float64 {
			line := strings.TrimSpace(series(body, name))
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return v
		}
		got := value("x")
		if math.Abs(got-tc.want) > 1e-9*tc.want {
			t.Errorf("field %d times %v: %v, want %v", tc.field, tc.scale, got, tc.want)
		}
		for _, suffix := range []string{field.SuffixMin, field.SuffixMax, field.SuffixMean} {
			if statistic := value("x" + suffix); statistic != got {
				t.Errorf("field %d times %v: %s is %v, the value %v", tc.field, tc.scale, suffix, statistic, got)
			}
		}
	}
}
