// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The table of README.md follows from the dashboards. Each has a picture.
func TestReadmePage(t *testing.T) {
	const start, end = "<!-- dashboards -->\n", "<!-- end -->"
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), start)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the table")
	}
	var b strings.Builder
	b.WriteString("| dashboard | shows | recording rules | groups | groups for collapsed rows |\n|---|---|---|---|---|\n")
	for _, d := range built(t, Default()) {
		needed, details := d.Groups()
		about, _, _ := strings.Cut(*d.Model.Description, " Requires the recording rules")
		required := "not needed"
		if d.Rules {
			required = "**required**"
		}
		fmt.Fprintf(&b, "| [%s](dashboards/%s.json) | %s | %s | %s | %s |\n", strings.TrimPrefix(*d.Model.Title, "GPU / "), d.Name,
			about, required, strings.Join(needed, ", "), strings.Join(details, ", "))
	}
	for _, d := range built(t, Default()) {
		fmt.Fprintf(&b, "\n![%s](images/%s.png)\n", *d.Model.Title, d.Name)
	}
	b.WriteString("\n")
	if fresh := before + start + b.String() + end + after; fresh != string(text) {
		if !*update {
			t.Fatal("README.md differs from a fresh build: run make dashboards")
		}
		if err := os.WriteFile("README.md", []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
