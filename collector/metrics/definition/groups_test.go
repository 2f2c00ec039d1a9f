// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package definition

import (
	"slices"
	"strings"
	"testing"
)

func TestParseSelection(t *testing.T) {
	lean := []string{"devices", "xids", "owners", "busy", "exporter"}
	def := append(slices.Clone(lean), "usage", "energy", "engines", "traffic", "clocks", "limits", "errors", "nvlink", "fabric", "health", "profiling")
	all := groupNames(Groups())
	without := func(list []string, names ...string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return slices.Contains(names, n) })
	}
	for list, want := range map[string][]string{
		"lean":                          lean,
		"default":                       def,
		"full":                          all,
		"lean,full":                     all,
		"energy":                        {"energy"},
		"peers, xids ,devices":          {"devices", "xids", "peers"}, // in the order of the page
		"xids,xids":                     {"xids"},
		"default,links,-engines":        append(without(def, "engines"), "links"),
		"-engines":                      without(def, "engines"),
		" -engines , -xids ":            without(def, "engines", "xids"),
		"-engines,default":              without(def, "engines"),
		"default,-engines,engines":      without(def, "engines"),
		"lean,-links":                   lean,
		"full,-default":                 without(all, def...),
		"-full":                         nil,
		"devices,-devices":              nil,
		"full,-peers,-links,-health":    without(all, "peers", "links", "health"),
		"lean,health-detail,-xids,busy": append(without(lean, "xids"), "health-detail"),
	} {
		s, err := ParseSelection(list)
		if err != nil {
			t.Errorf("%q: %v", list, err)
			continue
		}
		if !slices.Equal(s.Groups(), want) {
			t.Errorf("%q selects %v, want %v", list, s.Groups(), want)
		}
		if s.String() != list {
			t.Errorf("%q is printed as %q", list, s)
		}
		for _, g := range Groups() {
			for _, d := range g.Families {
				if s.Has(d) != slices.Contains(want, g.Name) {
					t.Errorf("%q: %s is selected: %v", list, d.Name, s.Has(d))
				}
			}
		}
	}
	choose := ` is neither a group nor a preset of families: choose from lean, default, full, ` + strings.Join(all, ", ")
	for list, want := range map[string]string{
		"":              `""` + choose,
		" ":             `""` + choose,
		"-":             `""` + choose,
		"default,":      `""` + choose,
		"Default":       `"Default"` + choose,
		"default,-link": `"link"` + choose,
		"lean links":    `"lean links"` + choose,
		"--engines":     `"-engines"` + choose,
	} {
		if s, err := ParseSelection(list); err == nil || err.Error() != want {
			t.Errorf("%q selects %v, error %v, want %s", list, s.Groups(), err, want)
		}
	}
	var none Selection
	if none.Has(&GPUUp) || len(none.Groups()) > 0 || none.String() != "" {
		t.Error("the zero value selects families")
	}
}

// The names of presets and groups do not collide, and each preset contains the one before.
func TestPresets(t *testing.T) {
	names := append(presetNames[:], groupNames(Groups())...)
	slices.Sort(names)
	if n := len(slices.Compact(slices.Clone(names))); n != len(names) {
		t.Errorf("a name is used twice: %v", names)
	}
	last := Lean
	for _, g := range Groups() {
		if g.Preset < last {
			t.Errorf("%s of %s follows a group of %s", g.Name, g.Preset, last)
		}
		last = g.Preset
		if g.About == "" || g.Churn == "" || strings.HasSuffix(g.About, ".") {
			t.Errorf("%s: the texts of METRICS.md are missing", g.Name)
		}
	}
}
