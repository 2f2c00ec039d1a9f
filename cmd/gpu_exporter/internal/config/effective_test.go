// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The effective configuration has every flag of ours once, marks what is not the default,
// and has the path of the web configuration but not its content.
func TestEffective(t *testing.T) {
	t.Parallel()
	webConfig := writeFile(t, filepath.Join(t.TempDir(), "web.yml"), "basic_auth_users: {x: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}\n")
	for _, test := range []struct {
		args    string
		changed map[string]string
	}{
		{"", map[string]string{}},
		{"--sample.interval=20s -k", map[string]string{"sample.interval": "20s", "sample.max-age": "1m0s", "kubernetes.enabled": "true"}},
		{"--web.config.file=" + webConfig + " --simulate=t4x1", map[string]string{
			"web.config.file": webConfig, "simulate": "t4x1", "web.listen-address": simulatedAddress,
		}},
	} {
		line, err := Parse(strings.Fields(test.args), nil, io.Discard, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen, changed := map[string]int{}, map[string]string{}
		for _, s := range line.Config.Effective() {
			seen[s.Name]++
			if s.Changed {
				changed[s.Name] = s.Value
			}
			if strings.Contains(s.Value, "$2y$") {
				t.Errorf("%s has the content of a file: %s", s.Name, s.Value)
			}
		}
		if !maps.Equal(changed, test.changed) {
			t.Errorf("%q: changed %v, want %v", test.args, changed, test.changed)
		}
		for _, s := range new(Config).settings() {
			if s.isOwn() && seen[s.name] != 1 {
				t.Errorf("%s is listed %d times", s.name, seen[s.name])
			}
		}
		if n := len(slices.DeleteFunc(new(Config).settings(), func(s *setting) bool { return !s.isOwn() })); n != len(seen) {
			t.Errorf("%d settings of %d", len(seen), n)
		}
	}
}
