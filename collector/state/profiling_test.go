// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"log/slog"
	"testing"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

func TestNodeRejectsProfiling(t *testing.T) {
	for name, tc := range map[string]struct {
		profiling model.Profiling
		reason    string
	}{
		"valid":             {model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 0}, {Entity: 1}}}, ""},
		"no GPU":            {model.Profiling{Generation: 1, GPUs: nil}, ""},
		"another inventory": {model.Profiling{Generation: 2, GPUs: nil}, model.RejectInventory},
		"unknown entity":    {model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 6}}}, model.RejectInvalid},
		"negative entity":   {model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: model.Unknown}}}, model.RejectInvalid},
		"out of order":      {model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 1}, {Entity: 0}}}, model.RejectInvalid},
		"GPU twice":         {model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 1}, {Entity: 1}}}, model.RejectInvalid},
		"instance":          {model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 2}}}, model.RejectInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			node := NewNode(slog.New(slog.DiscardHandler), nil)
			var reject *model.RejectError
			if err := node.Deliver(wire.Frame{Profiling: &tc.profiling}); !errors.As(err, &reject) || reject.Reason != model.RejectInventory {
				t.Fatalf("before any inventory: %v", err)
			}
			if err := node.Deliver(wire.Frame{Inventory: processInventory(1)}); err != nil {
				t.Fatal(err)
			}
			err := node.Deliver(wire.Frame{Profiling: &tc.profiling})
			got := ""
			if errors.As(err, &reject) {
				got = reject.Reason
			}
			if got != tc.reason {
				t.Errorf("%v, want reason %q", err, tc.reason)
			}
		})
	}
}
