// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"
	"strings"
	"testing"

	"gpu_exporter/collector/goldentest"
)

// The table of README.md follows from the dashboards. Each has a picture.
func TestReadmePage(t *testing.T) {
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
	goldentest.Section(t, "README.md", "<!-- dashboards -->", b.String(), "dashboards")
}
