// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite FLAGS.md")

const flagsIntro = `<!-- Written by ` + "`make docs`" + `: change the code, not this page. -->

# Flags

- A flag has one dash or two, and may follow the other arguments. The last value of a flag wins.
- A switch is also written as ` + "`--NAME=false` or `--no-NAME`" + `.
- A flag wins over its environment variable, the variable over the
  [configuration file](../../etc/gpu_exporter.yaml), whose keys are the names of the flags.
- A variable that is empty counts as unset.
- A reload (SIGHUP, ` + "`POST /-/reload`" + `, or a changed file) applies the flags with "yes" under
  reload. The others need a restart, and the log names those that have changed.
- ` + "`gpu_exporter COMMAND --help`" + ` prints the flags of a command.
`

// FLAGS.md lists every flag.
func TestFlagsPage(t *testing.T) {
	t.Parallel()
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	table := append(new(CommandLine).settings(), new(Config).settings()...)
	var b strings.Builder
	b.WriteString(flagsIntro)
	for _, section := range sections() {
		fmt.Fprintf(&b, "\n## %s\n\n", section)
		switch section {
		case sectionCommand:
			b.WriteString("| flag | commands | default | meaning |\n|---|---|---|---|\n")
		case sectionInert:
			b.WriteString("| flag | variable | default | meaning |\n|---|---|---|---|\n")
		case sectionMissing:
			b.WriteString("They are errors, unless they are set to dcgm-exporter's default.\n\n| flag | variable | instead |\n|---|---|---|\n")
		default:
			b.WriteString("| flag | variable | default | reload | meaning |\n|---|---|---|---|---|\n")
		}
		for _, s := range table {
			if s.section != section {
				continue
			}
			names := code("--" + s.name)
			for _, alias := range strings.Fields(s.aliases) {
				names += ", " + code(dashed(alias))
			}
			help := strings.ReplaceAll(s.help, "|", `\|`)
			reload := "no"
			if s.live {
				reload = "yes"
			}
			switch section {
			case sectionCommand:
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", names, strings.Join(s.commands, ", "), code(s.def), help)
			case sectionInert:
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", names, code(s.env), code(s.def), help)
			case sectionMissing:
				fmt.Fprintf(&b, "| %s | %s | %s |\n", names, code(s.env), help)
			default:
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", names, code(s.env), code(s.def), reload, help)
			}
		}
	}
	const page = "../../FLAGS.md"
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

// Every entry of the tables is complete, and its default is valid.
func TestTables(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	names := map[string]bool{}
	table := append(new(CommandLine).settings(), new(Config).settings()...)
	for _, s := range table {
		names[s.name] = true
	}
	for _, s := range table {
		for _, name := range s.names() {
			if seen[name] {
				t.Errorf("%s is the name of two flags", name)
			}
			seen[name] = true
		}
		if s.env != "" && seen["$"+s.env] {
			t.Errorf("%s is the variable of two flags", s.env)
		}
		seen["$"+s.env] = true
		if s.help == "" || !slices.Contains(sections(), s.section) || s.parse == nil {
			t.Errorf("%s: help, section or target is missing", s.name)
		}
		if s.kind == single && s.arg == "" && s.section != sectionInert && s.section != sectionMissing {
			t.Errorf("%s: the placeholder is missing", s.name)
		}
		if s.needs != "" && !names[s.needs] {
			t.Errorf("%s needs %s, which is not a flag", s.name, s.needs)
		}
		if s.def != "" {
			if err := s.parse([]string{s.def}); err != nil {
				t.Errorf("%s: default: %v", s.name, err)
			}
		}
	}
}

// A reload applies live settings, and names the others that have changed. Every field
// of Static is compared.
func TestReload(t *testing.T) {
	t.Parallel()
	running := Config{Live{Interval: 1}, Static{LogLevel: "info", ListenAddresses: []string{":1"}}}
	next := Config{Live{Interval: 2}, Static{LogLevel: "debug", ListenAddresses: []string{":2"}, Hostengine: "node:5555"}}
	merged, restart := Reload(running, next)
	if merged.Interval != 2 || merged.LogLevel != "info" || merged.Hostengine != "" || strings.Join(restart, " ") != "remote-hostengine-info web.listen-address log.level" {
		t.Errorf("%+v, restart %q", merged, restart)
	}
	typ := reflect.TypeFor[Static]()
	for i := range typ.NumField() {
		if !typ.Field(i).IsExported() {
			continue
		}
		var changed Config
		switch field := reflect.ValueOf(&changed.Static).Elem().Field(i); field.Kind() {
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int:
			field.SetInt(1)
		case reflect.String:
			field.SetString("x")
		default:
			field.Set(reflect.ValueOf([]string{"x"}))
		}
		if _, restart := Reload(Config{}, changed); len(restart) != 1 {
			t.Errorf("a change of %s needs a restart for the flags %q, want one flag", typ.Field(i).Name, restart)
		}
	}
}
