// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package goldentest compares what the code produces with files of the repository: golden
// files of tests, and pages and tables that are written from the code. With the flag -update,
// a test writes the files instead. The package must not be imported outside tests.
package goldentest

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files that are compared with the output of the code")

// File compares a file with a text, or writes it. The target of make writes it, too.
func File(t testing.TB, path, text, target string) {
	t.Helper()
	if *update {
		write(t, path, text)
		return
	}
	if got := read(t, path); got != text {
		t.Errorf("%s differs from the output of the code: run make %s if the change is intended\n%s", path, target, FirstDifference(text, got))
	}
}

// Section is File for the part of a page between the line begin and "<!-- end -->".
func Section(t testing.TB, path, begin, text, target string) {
	t.Helper()
	before, rest, begins := strings.Cut(read(t, path), begin+"\n")
	_, after, ends := strings.Cut(rest, "<!-- end -->")
	if !begins || !ends {
		t.Fatalf("%s has no part between %q and %q", path, begin, "<!-- end -->")
	}
	File(t, path, before+begin+"\n"+text+"<!-- end -->"+after, target)
}

// FirstDifference returns the first lines that differ.
func FirstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) {
			return "missing: " + w[i]
		}
		if i >= len(w) {
			return "added: " + g[i]
		}
		if g[i] != w[i] {
			return "got:  " + g[i] + "\nwant: " + w[i]
		}
	}
	return ""
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
