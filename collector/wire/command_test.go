// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"
	"testing"
)

func TestReadSamplerCommands(t *testing.T) {
	long := strings.Repeat("x", maxCommandLine+1)
	for name, c := range map[string]struct {
		in   string
		want int
		err  string
	}{
		"none":               {"", 0, ""},
		"one without \n":     {`{"ProfilingPause":1}`, 1, ""},
		"garbage is skipped": {"{\"ProfilingPause\":1}\nnonsense\n{}\n", 2, "decoding command"},
		"too long":           {"{}\n" + long, 1, "reading commands"},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			err := ReadSamplerCommands(strings.NewReader(c.in), func(SamplerCommand) { n++ })
			if n != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%d commands, error %v; want %d, %q", n, err, c.want, c.err)
			}
		})
	}
}
