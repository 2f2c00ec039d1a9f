// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strings"
	"testing"
)

// A label of one's own must not be one that the device has already: Prometheus
// refuses the whole scrape for one series with a label twice.
func TestNewCounterLabelNames(t *testing.T) {
	const version = "DCGM_FI_DRIVER_VERSION"
	for name, good := range map[string]bool{
		"driver": true, "": true,
		"gpu": false, "UUID": false, "nvlink": false, "pod": false, "a:b": false, "__name": false,
	} {
		_, err := NewCounter(version, name, "label", "")
		if good != (err == nil) {
			t.Errorf("%q: error %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), "choose another name") {
			t.Errorf("%q: the error does not say what to do: %v", name, err)
		}
	}
	if _, err := NewCounter("DCGM_FI_DEV_GPU_TEMP", "a:b", "gauge", ""); err != nil {
		t.Errorf("a metric may have a colon: %v", err)
	}
}

// The names of every kind's identity labels are known as taken.
func TestOwnLabelNames(t *testing.T) {
	cfg := testConfig(t)
	for _, inv := range []*Inventory{testInventory(t), fabricInventory()} {
		for i := range inv.Entities {
			for _, l := range cfg.identity(inv, i) {
				if !slices.Contains(ownLabelNames(), l.Name) {
					t.Errorf("%s of a %s is not known as taken", l.Name, inv.Entities[i].Kind)
				}
			}
		}
	}
}
