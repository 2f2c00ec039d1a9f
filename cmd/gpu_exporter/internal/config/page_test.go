// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/goldentest"
)

const flagsIntro = `<!-- Written by ` + "`make docs`" + `: change the code, not this page. -->

# Flags

- A flag has one dash or two, and may follow the other arguments. The last value of a flag wins,
  and a repeatable flag collects its values.
- A switch is also written as ` + "`--NAME=false` or `--no-NAME`" + `.
- The name of a flag is its path in the [configuration file](../../etc/gpu_exporter.yaml):
  ` + "`--sample.interval=5s` is `sample: {interval: 5s}`" + `.
- The first of these that is set wins: the flag, its variable, dcgm-exporter's flag, dcgm-exporter's
  variable, the configuration file, the default. If a name of ours wins over one of
  dcgm-exporter, a warning names both.
- A variable that is empty counts as unset. A variable holds one value of a repeatable flag, unless
  commas separate values.
- A duration has a unit: ` + "`5s`, `1m30s`, `500ms`, `1d`" + `. Only flags and variables of dcgm-exporter take
  numbers without a unit, in milliseconds.
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
	section := func(title, header string, flags func(*setting) bool, cells func(*setting) []string) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n%s|\n", title, header, strings.Repeat("|---", strings.Count(header, "|")-1))
		for _, s := range table {
			if !flags(s) {
				continue
			}
			names := s.names()
			for i, name := range names {
				names[i] = code(dashed(name))
			}
			row := append([]string{strings.Join(names, ", ")}, cells(s)...)
			for i, cell := range row {
				row[i] = strings.ReplaceAll(cell, "|", `\|`)
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
	}
	section("Flags of the commands", "| flag | commands | default | meaning |", func(s *setting) bool { return s.env == "" },
		func(s *setting) []string { return []string{strings.Join(s.commands, ", "), code(s.def), s.help} })
	reload := map[string]string{}
	for _, s := range new(Live).settings() {
		reload[s.name] = "yes"
	}
	for _, subject := range subjects() {
		section(subject.title, "| flag | variable | default | reload | meaning |",
			func(s *setting) bool { return s.subject() == subject.name },
			func(s *setting) []string {
				return []string{code(s.env), code(s.def), cmp.Or(reload[s.name], "no"), s.help}
			})
	}
	section("Names of dcgm-exporter", "| flag | variable | the same as |", func(s *setting) bool { return s.means != "" },
		func(s *setting) []string { return []string{code(s.env), code("--" + s.means)} })
	section("Flags of dcgm-exporter that are accepted without effect", "| flag | variable | expected value | reason |", func(s *setting) bool { return s.inert != "" },
		func(s *setting) []string { return []string{code(s.env), code(s.def), s.inert} })
	section("Flags of dcgm-exporter that are not available", "| flag | variable | instead |", func(s *setting) bool { return s.instead != "" },
		func(s *setting) []string { return []string{code(s.env), s.instead} })
	b.WriteString("\nThey are errors, unless they are set to dcgm-exporter's default.\n")
	goldentest.File(t, "../../FLAGS.md", b.String(), "docs")
}

// Every entry of the tables is complete, and its default is valid. A flag of ours has the
// form subject.key, and a variable that follows from its name.
func TestTables(t *testing.T) {
	t.Parallel()
	seen, own, meant := map[string]bool{}, map[string]*setting{}, map[string]string{}
	// Kubernetes sets variables of this form for a Service gpu-exporter.
	service := regexp.MustCompile(`^GPU_EXPORTER_(SERVICE_|PORT)`)
	withoutSubject := []string{"hostname", "simulate", "families"}
	commandFlags := new(CommandLine).settings()
	table := append(commandFlags, new(Config).settings()...)
	for _, s := range table[len(commandFlags):] {
		if s.isOwn() {
			own[s.name] = s
		}
	}
	for _, s := range table {
		for _, name := range append(s.names(), "$"+s.env) {
			if seen[name] && name != "$" {
				t.Errorf("%s belongs to two flags", name)
			}
			seen[name] = true
		}
		if s.def != "" && s.parse != nil {
			if err := s.parse([]string{s.def}); err != nil {
				t.Errorf("%s: default: %v", s.name, err)
			}
		}
		if s.means == "" && s.parse == nil || s.kind == single && s.isOwn() && s.arg == "" || s.isOwn() && s.help == "" {
			t.Errorf("%s: target, placeholder or help is missing", s.name)
		}
		for needed := range strings.FieldsSeq(s.needs) {
			if own[needed] == nil {
				t.Errorf("%s needs %s, which is not a flag", s.name, needed)
			}
		}
		if !s.isOwn() && (s.env == "" || s.help != "" || strings.Contains(s.name, ".")) {
			t.Errorf("%s: a flag of dcgm-exporter has a variable, and neither a help nor a subject", s.name)
		}
		if s.means == "" {
			continue
		}
		means, value, isFixed := strings.Cut(s.means, "=")
		target := own[means]
		if target == nil || target.compat != s {
			t.Errorf("%s%s means %s, which is not a flag", s.name, s.env, means)
			continue
		}
		if isFixed && (s.kind != toggle || target.parse([]string{value}) != nil) {
			t.Errorf("%s means %s, which is not valid", s.name, s.means)
		}
		if meant[means] != "" {
			t.Errorf("%s and %s both mean %s", meant[means], s.name, means)
		}
		meant[means] = s.name + s.env
	}
	for name, s := range own {
		if s.aliases != "" {
			t.Errorf("%s: the names of dcgm-exporter belong in the table of compatibility", name)
		}
		if want := "GPU_EXPORTER_" + strings.ToUpper(regexp.MustCompile(`[.-]`).ReplaceAllString(name, "_")); s.env != want || service.MatchString(want) {
			t.Errorf("%s: variable %s, want %s", name, s.env, want)
		}
		if !slices.ContainsFunc(subjects(), func(u subject) bool { return u.name == s.subject() }) ||
			s.subject() == "" && !slices.Contains(withoutSubject, name) {
			t.Errorf("%s: the subject is missing", name)
		}
		for other := range own {
			if strings.HasPrefix(other, name+".") {
				t.Errorf("%s is a flag and the subject of %s", name, other)
			}
		}
	}
}

// Each flag sets the same by its name, its variable, its key in the configuration file, and
// the names that dcgm-exporter has for it.
func TestFormsOfASetting(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "a.csv", "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	writeFile(t, "xids.csv", "code,name,severity,action,investigation,meaning\n999,OURS,warning,IGNORE,,Ours.\n")
	writeFile(t, "web.yml", "http_server_config: {http2: false}\n")
	values := map[string]string{
		"hostname": "node-7", "simulate": "t4x1", "families": "lean", "counters.file": "a.csv", "counters.config-map": "ns:name",
		"sample.interval": "2s", "sample.resolution": "300ms", "sample.max-age": "7m", "xid.window": "7m", "clock-events.window": "7m", "health.interval": "7m",
		"devices.gpus": "g:0", "devices.switches": "g:0", "devices.cpus": "g:0",
		"dcgm.hostengine": "node:5555", "dcgm.log-level": "DEBUG", "xid.catalogue": "xids.csv", "xid.kernel-log": "off",
		"label.hostname": "none", "label.nvlink-index": "one-based", "kubernetes.gpu-id-type": "device-name", "kubernetes.pod-labels-form": "family",
		"kubernetes.metadata-source": "kubelet", "slurm.jobs": "on", "web.listen-address": ":1", "web.config.file": "web.yml", "web.max-requests": "7", "log.level": "debug", "log.format": "json",
	}
	translations := map[string]string{"label.hostname": "true", "log.level": "true"}
	for _, s := range new(Config).settings() {
		if !s.isOwn() || s.name == "config.file" {
			continue
		}
		value := values[s.name]
		switch {
		case s.kind == toggle:
			value = strconv.FormatBool(s.def == "")
		case value == "" && (s.arg == "FILE" || s.arg == "DIR" || s.arg == "PATH" || s.arg == "NAME" || s.arg == "REGEX"):
			value = "/some/thing"
		}
		parts := strings.Split(s.name, ".")
		path := writeFile(t, "c.yaml", strings.Join(parts, ": {")+": "+strconv.Quote(value)+strings.Repeat("}", len(parts)-1)+"\n")
		if s.kind == toggle {
			writeFile(t, path, strings.Join(parts, ": {")+": "+value+strings.Repeat("}", len(parts)-1)+"\n")
		}
		with := func(args, env []string) Config {
			line, err := parse(t, args, env)
			if err != nil {
				t.Errorf("%q %q: %v", args, env, err)
			}
			line.Config.ConfigFile, line.Config.Files = "", nil
			return line.Config
		}
		want := with([]string{"--" + s.name + "=" + value}, nil)
		if reflect.DeepEqual(want, with(nil, nil)) && s.name != "dcgm.log-level" {
			t.Errorf("%s=%s changes nothing", s.name, value)
		}
		forms := map[string]Config{
			s.env:  with(nil, []string{s.env + "=" + value}),
			"file": with([]string{"--config.file=" + path}, nil),
		}
		if c := s.compat; c != nil {
			translated := cmp.Or(translations[s.name], value)
			forms[c.env] = with(nil, []string{c.env + "=" + translated})
			for _, name := range c.names() {
				forms[name] = with([]string{dashed(name) + "=" + translated}, nil)
			}
		}
		for form, got := range forms {
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s=%s by %s: got\n%+v\nwant\n%+v", s.name, value, form, got, want)
			}
		}
	}
}

// A name of ours wins over one of dcgm-exporter, within each a flag over a variable, and all
// over the configuration file. The warning names the two.
func TestMixedOrder(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "sample: {interval: 15s}\n")
	set := []struct{ arg, env, name string }{
		{"--sample.interval=11s", "", "--sample.interval"},
		{"", "GPU_EXPORTER_SAMPLE_INTERVAL=12s", "GPU_EXPORTER_SAMPLE_INTERVAL"},
		{"--collect-interval=13000", "", "--collect-interval"},
		{"", "DCGM_EXPORTER_INTERVAL=14000", "DCGM_EXPORTER_INTERVAL"},
		{"--config.file=" + path, "", path},
	}
	for mask := range 1 << len(set) {
		var args, env, given []string
		want := 5 * time.Second
		for i, s := range slices.Backward(set) {
			if mask>>i&1 == 0 {
				continue
			}
			if s.arg != "" {
				args = append(args, s.arg)
			}
			if s.env != "" {
				env = append(env, s.env)
			}
			given, want = append([]string{s.name}, given...), time.Duration(11+i)*time.Second
		}
		warning := ""
		if mask&3 != 0 && mask&12 != 0 {
			theirs := "--collect-interval"
			if mask&4 == 0 {
				theirs = "DCGM_EXPORTER_INTERVAL"
			}
			warning = given[0] + " wins over " + theirs + ", which is the same setting: remove one of them"
		}
		line, err := parse(t, args, env)
		if err != nil || line.Config.Interval != want || strings.Join(line.Warnings, "\n") != warning {
			t.Errorf("%q: interval %v, error %v, warnings %q; want %v and %q", given, line.Config.Interval, err, line.Warnings, want, warning)
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
	if merged.Interval != 2 || merged.LogLevel != "info" || merged.Hostengine != "" || strings.Join(restart, " ") != "dcgm.hostengine web.listen-address log.level" {
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
