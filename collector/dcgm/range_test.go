// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"testing"

	"gpu_exporter/collector/model"
)

// TestImpossibleValues shows that values that are impossible in the unit of their field are
// withheld, also from the tracked values, and that the next good value is reported.
func TestImpossibleValues(t *testing.T) {
	for _, tc := range []struct {
		field model.FieldID
		value string
	}{
		{1001, "1e308"}, {1001, "inf"}, {1001, "-0.5"}, {1001, "1.5"},
		{155, "inf"}, {155, "-inf"}, {155, "1e308"}, {155, "-1"},
		{150, "-9223372036854775808"}, {100, "-1"}, {156, "-9223372036854775808"}, {203, "1000"}, {203, "-1"},
	} {
		t.Run(fmt.Sprintf("%d is %s", tc.field, tc.value), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "h100x8")
			cfg := defaultConfig()
			cfg.Tracked = []model.TrackedField{{Field: tc.field, Kinds: model.Kinds(gpu)}}
			p := n.start(cfg)
			p.has(gpu, 0, tc.field, model.StatusOK)
			n.command(fmt.Sprintf("set field %d value %s gpu 0", tc.field, tc.value))
			p.has(gpu, 0, tc.field, model.StatusOutOfRange)
			for range 5 {
				if f := p.frame("tracks"); f.Tracks != nil {
					for _, track := range f.Tracks.List {
						if p.inv.Entities[track.Entity].ID == 0 {
							t.Errorf("the value is tracked: %+v", track)
						}
					}
				}
			}
			n.command(fmt.Sprintf("unset field %d gpu 0", tc.field))
			p.has(gpu, 0, tc.field, model.StatusOK)
		})
	}
}
