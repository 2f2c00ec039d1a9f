// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The package documentation lists every statement and command as dcgmsimd --help
// prints them from its tables.
func TestDocumentedCommandsAreThoseOfTheTables(t *testing.T) {
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.CommandContext(t.Context(), filepath.Join(dir, "dcgmsimd"), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ helpTitle, docTitle string }{
		{"Commands:\n", "// # Commands\n"},
		{"Statements of a scenario file:\n", "// # Scenario files\n"},
	} {
		_, list, _ := strings.Cut(string(help), c.helpTitle)
		list, _, _ = strings.Cut(list, "\n\n")
		var want []string
		for line := range strings.Lines(list) {
			want = append(want, strings.TrimSpace(line))
		}
		_, section, _ := strings.Cut(string(doc), c.docTitle)
		_, section, _ = strings.Cut(section, "//\t")
		section, _, _ = strings.Cut(section, "\n//\n")
		var got []string
		for line := range strings.Lines(section) {
			got = append(got, strings.TrimSpace(strings.TrimPrefix(line, "//")))
		}
		if len(want) < 15 || !slices.Equal(got, want) {
			t.Errorf("%s in doc.go:\n%s\nin --help:\n%s", c.docTitle, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// An error in the arguments of a command or statement is answered with its forms.
func TestUsage(t *testing.T) {
	n := newNode(t, "dgx-h100")
	for line, want := range map[string]string{
		"xid":                                    "usage: xid pace MS, or xid N gpu I [gi G|ci C] [count TIMES] [kmsg only|both|twice]",
		"switch 0 sideways":                      "usage: switch S lost|back",
		"lose":                                   "lose: gpu I is missing",
		"sxid 3":                                 "sxid: switch S is missing",
		"heat cpu 0 3":                           "no CPU 0",
		"process gpu 0 pid 0":                    "process: pid 0 is not a number from 1 to 4194304",
		"slow dcgmGetAllDevices never":           "never is not a number from 0 to 600000",
		"reason gpu 0 boredom on":                "unknown reason boredom",
		"health gpu 0 mood fail":                 "unknown system mood",
		"frobnicate":                             "unknown command frobnicate",
		" ":                                      "empty command",
		"load gpu 0 " + strings.Repeat("a ", 60): "more than 40 words",
	} {
		if answer, err := n.Command(t.Context(), line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %q", line, answer, err, want)
		}
	}
}
