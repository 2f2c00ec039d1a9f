// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestNormalizeArgs(t *testing.T) {
	tests := []struct {
		name string
		args string // separated by blanks
		want string // after "error:", one problem
	}{
		{"nothing", "", ""},
		{"two dashes", "--collectors=a.csv", "--collectors=a.csv"},
		{"one dash", "-collectors=a.csv", "--collectors=a.csv"},
		{"value in the next argument", "-collectors a.csv once", "--collectors=a.csv once"},
		{"alias", "-f a.csv", "--collectors=a.csv"},
		{"alias with two dashes", "--f a.csv", "--collectors=a.csv"},
		{"long alias", "-rbmn", "--replace-blanks-in-model-name"},
		{"long alias with two dashes", "--rbmn", "--replace-blanks-in-model-name"},
		{"value that looks like a flag", "-f --weird", "--collectors=--weird"},
		{"value with an equals sign", "--simulate=a=b", "--simulate=a=b"},
		{"empty value", "--web-config-file=", "--web-config-file="},
		{"switch", "-k", "--kubernetes"},
		{"switch set to true", "-k=true", "--kubernetes"},
		{"switch set to 1", "--kubernetes=1", "--kubernetes"},
		{"switch set to false", "-k=false", "--no-kubernetes"},
		{"switch set to F", "--kubernetes=F", "--no-kubernetes"},
		{"switch negated", "--no-kubernetes", "--no-kubernetes"},
		{"switch negated by alias", "--no-k", "--no-kubernetes"},
		{"switch whose name begins with no", "-n", "--no-hostname"},
		{"that one set to false", "--no-hostname=false", "--no-no-hostname"},
		{"switch before a command", "-k once", "--kubernetes once"},
		{"last one counts", "-c 1000 --kubernetes -collect-interval=2000 --no-k", "--collect-interval=2000 --no-kubernetes"},
		{"lists add up", "--nvidia-resource-names=a --nvidia-resource-names b", "--nvidia-resource-names=a --nvidia-resource-names=b"},
		{"listen addresses add up", "--web.listen-address=:1 --web.listen-address=:2", "--web.listen-address=:1 --web.listen-address=:2"},
		{"help", "-h", "--help"},
		{"version", "-version", "--version"},
		{"version, short", "-v", "--version"},
		{"end of flags", "-k -- -f", "--kubernetes -- -f"},
		{"command first", "check-config -f a.csv", "check-config --collectors=a.csv"},
		{"our own flags", "-simulate h100x8 --dcgm.library-path /opt", "--simulate=h100x8 --dcgm.library-path=/opt"},
		{"selector of CPUs", "-p f", "--cpu-devices=f"},

		{"no value", "--collectors", "error:--collectors: needs a value"},
		{"switch with other value", "-k=maybe", `error:-k: "maybe" is neither true nor false`},
		{"switch with value in the next argument", "--kubernetes true", `error:unexpected argument "true": a switch takes its value after =, as in --kubernetes=true`},
		{"mistyped", "--colectors=a", "error:unknown flag --colectors (did you mean --collectors?)"},
		{"mistyped with one dash", "-collector a.csv", "error:unknown flag -collector (did you mean --collectors?)"},
		{"no such flag", "--frobnicate", "error:unknown flag --frobnicate"},
		{"letters do not add up", "-ko", "error:unknown flag -ko"},
		{"only switches can be negated", "--no-collectors", "error:unknown flag --no-collectors"},
		{"negated twice", "--no-kubernetes=true", "error:unknown flag --no-kubernetes"},
		{"three dashes", "---debug", "error:unknown flag ---debug (did you mean --debug?)"},
	}
	known := spellings(options())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			before := slices.Clone(args)
			out, problems := normalizeArgs(args, known)
			got := strings.Join(out, " ")
			if len(problems) > 0 {
				got = "error:" + strings.Join(problems, "\n")
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !slices.Equal(args, before) {
				t.Errorf("arguments were changed to %q", args)
			}
		})
	}
}

func TestNormalizeArgsListsAllProblems(t *testing.T) {
	_, problems := normalizeArgs([]string{"--one", "-k=2", "--two=x", "-f"}, spellings(options()))
	if len(problems) != 4 {
		t.Errorf("%d problems, want 4:\n%s", len(problems), strings.Join(problems, "\n"))
	}
}

// What comes out is canonical: normalizing it again changes nothing.
func FuzzNormalizeArgs(f *testing.F) {
	f.Add("-f\na.csv\n-k=false\nonce")
	f.Add("--rbmn\n--no-n\n--\n-x")
	f.Add("-c=1\n-c\n2\n--web.listen-address\n:1")
	known := spellings(options())
	f.Fuzz(func(t *testing.T, joined string) {
		out, problems := normalizeArgs(strings.Split(joined, "\n"), known)
		if len(problems) > 0 {
			return
		}
		again, problems := normalizeArgs(out, known)
		if len(problems) > 0 || !slices.Equal(again, out) {
			t.Errorf("%q became %q, and then %q %q", joined, out, again, problems)
		}
	})
}
