// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// TestStatesAgree: the page and the record gpu:state:code agree on the state of each GPU, for
// values of the fields that decide it, health checks and an old sample. The record is computed from
// the families of the same node by the conditions from which its expression is made.
func TestStatesAgree(t *testing.T) {
	t.Parallel()
	fields := map[model.FieldID][]int64{
		1523: {-1, 0, 1, 4, 7, 9}, 395: {0, 1}, 1507: {0, 1}, 346: {0, 1}, 396: {1}, 392: {1}, 389: {1}, 112: {1 << 7},
		170: {0, 1, 2, 3, 4, 5, 6}, 174: {0, 2, 1, 1 << 8, 2 << 8, 1 << 4}, 175: {0, 1, 2, 3},
	}
	seen := map[float64]int{}
	check := func(name string, change func(*Input)) {
		t.Helper()
		in := testInput(t)
		in.Inventory.Derived = slices.Sorted(maps.Keys(fields))
		for gpu, status := range []model.Status{model.StatusNotSupported, model.StatusNotSupported, model.StatusEntityLost} {
			in.Sample.Derived[gpu] = slices.Repeat([]model.Cell{model.NoValue(status)}, len(fields))
		}
		change(in)
		codes := recordedStates(t, in)
		for _, g := range Build(in).GPUs {
			code, ok := codes[g.UUID]
			want := map[State]float64{Lost: 2, Unknown: 2, Recovery: 1, Unhealthy: 1}[g.State]
			if !ok || code != want {
				t.Errorf("%s: the page has %s for %s, and the record %v (exists: %t)", name, g.State, g.UUID, code, ok)
			}
			seen[code]++
		}
	}
	set := func(in *Input, gpu int, f model.FieldID, value int64) {
		in.Sample.Derived[gpu][slices.Index(in.Inventory.Derived, f)] = model.Int64Cell(value)
	}
	for f, values := range fields {
		for _, v := range values {
			for gpu := range 2 { // the second one is in MIG mode
				check("a field", func(in *Input) { set(in, gpu, f, v) })
			}
		}
	}
	for _, mask := range fields[174] {
		for _, summary := range fields[175] {
			check("fabric health", func(in *Input) { set(in, 0, 174, mask); set(in, 0, 175, summary) })
		}
	}
	for _, result := range []model.HealthResult{model.HealthWarn, model.HealthFail} {
		for entity := range 4 { // the last one is an instance of the second GPU
			check("health check", func(in *Input) {
				in.Checked = &model.Health{Generation: 1, Time: epoch,
					Checked:   []model.CheckedEntity{{Entity: entity, Since: epoch.Add(-time.Hour)}},
					Incidents: []model.HealthIncident{{Entity: entity, System: model.HealthThermal, Result: result, Code: 1}}}
			})
		}
	}
	check("old sample", func(in *Input) { in.Time, in.Age, in.Fresh = epoch.Add(time.Minute), time.Minute, false })
	if seen[0] == 0 || seen[1] == 0 || seen[2] == 0 {
		t.Errorf("GPUs by state: %v", seen)
	}
}

// recordedStates returns what the record has for each GPU of the input.
func recordedStates(t *testing.T, in *Input) map[string]float64 {
	t.Helper()
	node := state.NewNode(slog.New(slog.DiscardHandler), in.Catalogue)
	node.Clock = func() time.Time { return epoch }
	frames := []wire.Frame{{Inventory: in.Inventory}, {Sample: in.Sample}}
	if in.Checked != nil {
		frames = append(frames, wire.Frame{Health: in.Checked})
	}
	for _, f := range frames {
		if err := node.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
	node.Clock = func() time.Time { return in.Time }
	selected, err := definition.ParseSelection(definition.Default.String())
	if err != nil {
		t.Fatal(err)
	}
	families := metrics.New(metrics.Config{Selected: selected, XIDs: in.Catalogue, MaxAge: in.MaxAge, HealthInterval: time.Minute}, node, sampling(in.Sampler), nil).Build()
	// The record takes the maximum of all series of a GPU.
	codes := map[string]float64{}
	each := func(f *definition.Family, code func(value float64) float64) {
		for _, family := range families {
			for _, m := range family.Metric {
				if uuid := label(m, "UUID"); family.GetName() == f.Name && uuid != "" {
					codes[uuid] = max(codes[uuid], code(m.GetGauge().GetValue()))
				}
			}
		}
	}
	each(&definition.GPUUp, func(up float64) float64 { return 2 - 2*up })
	for _, c := range definition.Unhealthy() {
		each(c.Family, func(value float64) float64 {
			if value > c.Above {
				return 1
			}
			return 0
		})
	}
	return codes
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// sampling is a supervisor with a constant state.
type sampling model.SamplerStatus

func (s sampling) Status() model.SamplerStatus { return model.SamplerStatus(s) }
