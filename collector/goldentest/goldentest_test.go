// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package goldentest

import (
	"fmt"
	"path/filepath"
	"testing"
)

// recorder records errors instead of failing.
type recorder struct {
	testing.TB
	errors string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { r.errors += fmt.Sprintf(format, args...) }

// A file is equal after it was written, and a difference is reported with its lines.
func TestSection(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	write(t, page, "head\n<!-- table -->\nold\n<!-- end -->\ntail\n")
	r := &recorder{TB: t}
	Section(r, page, "<!-- table -->", "new\n", "docs")
	if want := page + " differs from the output of the code: run make docs if the change is intended\ngot:  new\nwant: old"; r.errors != want {
		t.Errorf("the errors are %q, want %q", r.errors, want)
	}
	defer func(before bool) { *update = before }(*update)
	*update = true
	Section(t, page, "<!-- table -->", "new\n", "docs")
	*update = false
	File(t, page, "head\n<!-- table -->\nnew\n<!-- end -->\ntail\n", "docs")
}

func TestFirstDifference(t *testing.T) {
	for _, tt := range []struct{ got, want, difference string }{
		{"a\nb", "a\nb", ""},
		{"a\nb", "a\nc", "got:  b\nwant: c"},
		{"a", "a\nc", "missing: c"},
		{"a\nb", "a", "added: b"},
	} {
		if d := FirstDifference(tt.got, tt.want); d != tt.difference {
			t.Errorf("%q and %q: %q, want %q", tt.got, tt.want, d, tt.difference)
		}
	}
}
