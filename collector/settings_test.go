// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// What no selected family or counter needs is not in the sampler's configuration.
func TestConfigureReadsWhatIsSelected(t *testing.T) {
	t.Parallel()
	engines := []model.FieldID{1002, 1004, 1005, 1006, 1007, 1008, 206, 207}
	traffic := []model.FieldID{1009, 1010, 1011, 1012}
	for name, tc := range map[string]struct {
		families         string
		counter          field.Counter
		peers, health    bool
		tracked, derived []model.FieldID // at least
		not              []model.FieldID // neither tracked nor derived
		switches         []model.FieldID
	}{
		"lean": {
			families: "lean", tracked: []model.FieldID{1001, 203}, derived: []model.FieldID{1523},
			not: slices.Concat(engines, traffic, []model.FieldID{155, 156, 112, 150, 153, 310, 409}),
		},
		"default": {
			families: "default", health: true,
			tracked: slices.Concat(engines, traffic, []model.FieldID{1001, 203, 155, 156}), derived: []model.FieldID{1523, 112, 153, 310, 409},
			not: []model.FieldID{240, 246, 312, 385}, switches: []model.FieldID{858, 864},
		},
		"default without engines": {
			families: "-engines,-usage,-health,-nvlink", tracked: traffic, derived: []model.FieldID{1523}, not: append(engines, 409),
		},
		"peers":            {families: "lean,peers", peers: true, health: true, not: engines},
		"full":             {families: "full", peers: true, health: true, tracked: engines, derived: []model.FieldID{240, 246, 312, 385}, switches: []model.FieldID{858, 864}},
		"a P2P counter":    {families: "lean", counter: field.Counter{Computed: field.P2PStatus}, peers: true, health: true},
		"a health counter": {families: "lean", counter: field.Counter{Computed: field.GPUHealthStatus}, health: true},
		"a clock counter":  {families: "lean", counter: field.Counter{Computed: field.ClockEventsTotal}, derived: []model.FieldID{112, 1420}},
	} {
		selected, err := definition.ParseSelection(tc.families)
		if err != nil {
			t.Fatal(err)
		}
		settings := Settings{Resolution: time.Second}
		settings.Metrics.XIDs = &xid.Catalogue{}
		settings.Metrics.Selected = selected
		settings.Metrics.Counters = []field.Counter{tc.counter}
		settings.Metrics.HealthInterval = time.Minute
		settings.Sampler.HealthInterval, settings.Sampler.Peers = time.Minute, true
		got := (&Collector{}).configure(settings)
		if got.sampler.Peers != tc.peers || (got.sampler.HealthInterval > 0) != tc.health {
			t.Errorf("%s: peers %v, health checks every %v", name, got.sampler.Peers, got.sampler.HealthInterval)
		}
		if got.Metrics.HealthInterval != got.sampler.HealthInterval {
			t.Errorf("%s: the families expect health checks every %v", name, got.Metrics.HealthInterval)
		}
		isTracked := func(id model.FieldID) bool {
			return slices.ContainsFunc(got.sampler.Tracked, func(f model.TrackedField) bool { return f.Field == id })
		}
		for _, id := range tc.tracked {
			if !isTracked(id) {
				t.Errorf("%s: field %d is not tracked", name, id)
			}
		}
		for _, id := range tc.derived {
			if !slices.Contains(got.sampler.Derived, id) {
				t.Errorf("%s: field %d is not read", name, id)
			}
		}
		for _, id := range tc.not {
			if isTracked(id) || slices.Contains(got.sampler.Derived, id) {
				t.Errorf("%s: field %d is read", name, id)
			}
		}
		if fields := got.sampler.Fields[model.KindSwitch]; !slices.Equal(fields, tc.switches) {
			t.Errorf("%s: fields of switches %v, want %v", name, fields, tc.switches)
		}
	}
	// The options of the configuration remain the upper bound.
	full, err := definition.ParseSelection("full")
	if err != nil {
		t.Fatal(err)
	}
	none := (&Collector{}).configure(Settings{Metrics: metrics.Config{Selected: full, XIDs: &xid.Catalogue{}}, Resolution: time.Second})
	if none.sampler.Processes || none.sampler.HealthInterval != 0 || none.Metrics.Owners.Usage {
		t.Errorf("without owners and health checks: %+v", none.sampler)
	}
}

// A change of order keeps the sampler; any other change replaces it.
func TestInOrder(t *testing.T) {
	t.Parallel()
	config := func() wire.SamplerConfig {
		return wire.SamplerConfig{
			Interval: time.Second,
			Fields:   map[model.EntityKind][]model.FieldID{model.KindGPU: {150, 155}, model.KindLink: {1525}},
			Models:   []wire.ModelRule{{Field: 150, Match: "a"}, {Field: 150, Match: "b"}, {Field: 155, Match: "a", Only: true}},
			Tracked:  []model.TrackedField{{Field: 155, Every: time.Second}, {Field: 203}},
		}
	}
	for name, tc := range map[string]struct {
		change func(*wire.SamplerConfig)
		same   bool
	}{
		"nothing": {func(*wire.SamplerConfig) {}, true},
		"order": {func(c *wire.SamplerConfig) {
			slices.Reverse(c.Fields[model.KindGPU])
			slices.Reverse(c.Models)
			slices.Reverse(c.Tracked)
		}, true},
		"a field more":   {func(c *wire.SamplerConfig) { c.Fields[model.KindLink] = []model.FieldID{1525, 1526} }, false},
		"another kind":   {func(c *wire.SamplerConfig) { c.Fields[model.KindSwitch] = []model.FieldID{858} }, false},
		"another rule":   {func(c *wire.SamplerConfig) { c.Models[0].Only = true }, false},
		"another step":   {func(c *wire.SamplerConfig) { c.Tracked[0].Every = time.Minute }, false},
		"other interval": {func(c *wire.SamplerConfig) { c.Interval = time.Minute }, false},
	} {
		c := config()
		tc.change(&c)
		if same := reflect.DeepEqual(inOrder(c), inOrder(config())); same != tc.same {
			t.Errorf("%s: same %v, want %v", name, same, tc.same)
		}
	}
}
