// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

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
