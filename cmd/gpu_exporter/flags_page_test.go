// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
)

const flagsIntro = `<!-- Written by ` + "`make docs`" + `: change the code, not this page. -->

# Flags

Flags may be written with one dash or two; switches also as ` + "`--no-NAME`" + ` or
` + "`--NAME=false`" + `. A flag wins over its environment variable, that over the
[configuration file](../../etc/gpu_exporter.yaml), whose keys are the long names. A
variable that is set but empty counts as not set. ` + "`gpu_exporter COMMAND --help`" + ` has
the flags of a command alone.

| flag | variable | default | meaning |
|---|---|---|---|
`

// FLAGS.md has every flag.
func TestFlagsPage(t *testing.T) {
	t.Parallel()
	app := kingpin.New(programName, "")
	kingpinflag.AddFlags(app, defaultListenAddress)
	var b, missing strings.Builder
	b.WriteString(flagsIntro)
	for _, o := range options() {
		o.declare(app)
		code := func(s string) string {
			if s == "" {
				return ""
			}
			return "`" + s + "`"
		}
		names := code("--" + o.name)
		for _, alias := range o.aliases {
			if len(alias) == 1 {
				names += ", " + code("-"+alias)
			}
		}
		if o.missing {
			fmt.Fprintf(&missing, "| %s | %s | %s |\n", names, code(o.env), o.instead)
			continue
		}
		help, def := o.help, o.def
		flags := app.Model().Flags
		at := slices.IndexFunc(flags, func(f *kingpin.FlagModel) bool { return f.Name == o.name })
		if help == "" && at >= 0 {
			help, def = flags[at].Help, strings.Join(flags[at].Default, ", ")
		}
		if o.kind == kindSwitch && def == "false" {
			def = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", names, code(o.env), code(def), strings.ReplaceAll(help, "|", `\|`))
	}
	if missing.Len() > 0 {
		b.WriteString("\nThese flags of dcgm-exporter do not exist here; they are errors that say so, unless they say what is so anyway.\n\n| flag | variable | in its place |\n|---|---|---|\n" + missing.String())
	}
	const page = "FLAGS.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is not up to date: run make docs", page)
	}
}
