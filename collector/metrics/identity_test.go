// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"testing"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// field.OwnLabelNames has the identity labels of every kind.
func TestOwnLabelNames(t *testing.T) {
	cfg := testConfig(t)
	for _, inv := range []*model.Inventory{testInventory(t), fabricInventory()} {
		for i := range inv.Entities {
			for _, l := range cfg.identity(inv, i) {
				if !slices.Contains(field.OwnLabelNames(), l.GetName()) {
					t.Errorf("%s of a %s is not in OwnLabelNames", l.GetName(), inv.Entities[i].Kind)
				}
			}
		}
	}
}
