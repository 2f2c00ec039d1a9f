// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestRecordingRules: promtool evaluates the recording rules, and each of them has a test.
func TestRecordingRules(t *testing.T) {
	t.Parallel()
	const path = "../tests/recording.yaml"
	promtool(t, "test", "rules", path)
	var file struct {
		Tests []struct {
			Exprs []struct{ Expr string } `yaml:"promql_expr_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, path)), &file); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, test := range file.Tests {
		for _, e := range test.Exprs {
			mark(t, e.Expr, used)
		}
	}
	for _, g := range RecordGroups() {
		for _, r := range g.Records {
			if !used[r.Name] {
				t.Errorf("no expression in %s uses %s", path, r)
			}
		}
	}
}

// mark adds the records of an expression, and those that they use.
func mark(t *testing.T, expr string, used map[string]bool) {
	t.Helper()
	uses, err := Examine(expr)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range uses.Records {
		used[r.Name] = true
		mark(t, r.Expr, used)
	}
}

// TestRecordLabels: a record has no labels but those that it declares, so that another scraping
// server or a new label does not double its series.
func TestRecordLabels(t *testing.T) {
	for _, g := range RecordGroups() {
		for _, r := range g.Records {
			level, _, _ := strings.Cut(r.Name, ":")
			if want := map[string]string{"gpu": "UUID", "pod": "pod", "job": "job_id", "namespace": "namespace", "user": "user", "node": "hostname", "cluster": "cluster"}[level]; !slices.Contains(r.By, want) {
				t.Errorf("%s has the labels %v, want %q among them", r, r.By, want)
			}
			if r.By[0] != "cluster" {
				t.Errorf("%s has the labels %v, want cluster first", r, r.By)
			}
		}
	}
}
