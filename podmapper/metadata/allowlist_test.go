// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"strings"
	"testing"
)

func TestParseAllowlist(t *testing.T) {
	for _, tc := range []struct {
		name        string
		expressions []string
		allowed     string
		others      string
	}{
		{"none allows all", nil, "app kubernetes.io/name x", ""},
		{"not anchored, as dcgm-exporter", []string{"app"}, "app my-app example.com/app-name", "team"},
		{"anchored explicitly", []string{"^app$"}, "app", "my-app example.com/app app2"},
		{"the key as it is, with its prefix", []string{"^app.kubernetes.io/"}, "app.kubernetes.io/name", "app_kubernetes_io_name"},
		{"any of several", []string{"^team$", "^cost-"}, "team cost-center", "teams app"},
		{"with a comma", []string{"^a{1,2}$"}, "a aa", "aaa"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			allow, err := ParseAllowlist(tc.expressions)
			if err != nil {
				t.Fatal(err)
			}
			for key := range strings.FieldsSeq(tc.allowed) {
				if !allow(key) {
					t.Errorf("%s is not allowed", key)
				}
			}
			for key := range strings.FieldsSeq(tc.others) {
				if allow(key) {
					t.Errorf("%s is allowed", key)
				}
			}
		})
	}
}

// Each bad expression is named, and none is skipped: dcgm-exporter skips them,
// and if all are bad shows all labels.
func TestParseAllowlistErrors(t *testing.T) {
	_, err := ParseAllowlist([]string{"ok", "a(", "", "*"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`expression 2, "a("`, "expression 3 is empty", `expression 4, "*"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}
