// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the generated files")

// The files equal a fresh build.
func TestFiles(t *testing.T) {
	for _, n := range []Names{Default(), BaseUnits()} {
		dashboards, err := All(n)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]byte{}
		for _, d := range dashboards {
			file := filepath.Join(n.Folder, d.Name+".json")
			if want[file], err = d.JSON(); err != nil {
				t.Fatal(file, err)
			}
		}
		found, err := filepath.Glob(filepath.Join(n.Folder, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.MkdirAll(n.Folder, 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range want {
				if err := os.WriteFile(file, text, 0o644); err != nil {
					t.Fatal(err)
				}
				found = append(found, file)
			}
		}
		for _, file := range found {
			if want[file] == nil {
				t.Errorf("%s belongs to no dashboard: delete it", file)
			}
		}
		for file, text := range want {
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s differs from a fresh build: run make dashboards", file)
			}
		}
	}
}
