// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
)

// A device is free only if all its possible holders are known. A known holder counts
// in any case.
func TestOwnersOfDevices(t *testing.T) {
	job := []Job{{ID: "42"}}
	for name, tc := range map[string]struct {
		known  bool
		first  Holders // of GPU 0; GPU 3 has no holders
		counts []string
	}{
		"all holders are known":     {true, Holders{Jobs: job}, []string{`gpu="0" 1`, `gpu="3" 0`}},
		"some holders are unknown":  {false, Holders{Jobs: job}, []string{`gpu="0" 1`}},
		"no holder is known":        {false, Holders{}, nil},
		"unknown on one GPU":        {true, Holders{Unknown: true}, []string{`gpu="3" 0`}},
		"partly unknown on one GPU": {true, Holders{Unknown: true, Jobs: job}, []string{`gpu="0" 1`, `gpu="3" 0`}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, _ := newTestFamilies(t, testConfig(t))
			f.owners = fixedOwners{ownership: &Ownership{Known: tc.known, Entities: []Holders{tc.first}}}
			var got []string
			for line := range strings.Lines(series(encode(t, f, expfmt.TypeTextPlain), "gpu_owners")) {
				if !strings.Contains(line, "GPU_I_ID") {
					labels, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
					gpu, _, _ := strings.Cut(strings.TrimPrefix(labels, "gpu_owners{"), ",")
					got = append(got, gpu+" "+value)
				}
			}
			if strings.Join(got, "; ") != strings.Join(tc.counts, "; ") {
				t.Errorf("got %q, want %q", got, tc.counts)
			}
		})
	}
}
