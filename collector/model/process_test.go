// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"testing"
)

func TestProcessKind(t *testing.T) {
	for kind, want := range map[ProcessKind]string{
		ProcessCompute: "compute", ProcessGraphics: "graphics", ProcessComputeGraphics: "compute+graphics", ProcessMPS: "mps", 9: "kind(9)",
	} {
		if got := kind.String(); got != want {
			t.Errorf("%d is %q, want %q", kind, got, want)
		}
	}
}
