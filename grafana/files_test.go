// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"path/filepath"
	"testing"

	"gpu_exporter/collector/goldentest"
)

// The files equal a fresh build.
func TestFiles(t *testing.T) {
	for _, n := range []Names{Default(), BaseUnits()} {
		dashboards, err := All(n)
		if err != nil {
			t.Fatal(err)
		}
		fresh := map[string]bool{}
		for _, d := range dashboards {
			file := filepath.Join(n.Folder, d.Name+".json")
			text, err := d.JSON()
			if err != nil {
				t.Fatal(file, err)
			}
			goldentest.File(t, file, string(text), "dashboards")
			fresh[file] = true
		}
		found, err := filepath.Glob(filepath.Join(n.Folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			if !fresh[file] {
				t.Errorf("%s belongs to no dashboard: delete it", file)
			}
		}
	}
}
