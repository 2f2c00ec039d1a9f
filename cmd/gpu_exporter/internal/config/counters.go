// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/wire"
	"gpu_exporter/etc"
)

const (
	// builtInPrefix marks the name of a built-in counters file, in place of a path.
	builtInPrefix = "builtin:"
	// inheritedCounters is the default counters file of dcgm-exporter. If it exists, it
	// replaces the built-in default, so that changes made there stay in effect.
	inheritedCounters = "/etc/dcgm-exporter/default-counters.csv"
)

// builtInCounters returns the names of the built-in counters files.
func builtInCounters() []string {
	names := etc.CountersNames()
	for i, name := range names {
		names[i] = builtInPrefix + name
	}
	return names
}

func isBuiltIn(path string) bool { return strings.HasPrefix(path, builtInPrefix) }

// readCounters reads the counters file at path, or a built-in one.
func readCounters(path string) (*field.Counters, error) {
	name, builtIn := strings.CutPrefix(path, builtInPrefix)
	if !builtIn {
		return field.LoadCounters(path)
	}
	text, ok := etc.Counters(name)
	if !ok {
		return nil, fmt.Errorf("%s: unknown built-in counters file: use %s, or the path of a file", path, ListOf(builtInCounters()))
	}
	return field.ParseCounters(text, etc.CountersFile(name))
}

// place is where a counter is defined.
type place struct {
	file string
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// merger joins counters files with the fields and models of the configuration file.
type merger struct {
	file     string // path of the configuration file
	list     []field.Counter
	places   map[string]place // of the counters, by name
	rules    []wire.ModelRule
	warnings []string
	problems []field.Problem
}

// countersFiles returns the counters files to read, and what messages call them.
func (l *loader) countersFiles() (files []includedFile, name string) {
	switch _, err := os.Stat(inheritedCounters); {
	case l.file.include != nil && l.settings["collectors"].rank <= byFile:
		files = l.file.include
	case l.config.collectors != "":
		files = []includedFile{{path: l.config.collectors}}
	case err == nil:
		files = []includedFile{{path: inheritedCounters}}
	default:
		return []includedFile{{path: builtInPrefix + "default"}}, etc.DefaultCountersName
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.path)
	}
	return files, strings.Join(paths, ", ")
}

// loadCounters reads the counters files and adds the fields of the configuration file.
func (l *loader) loadCounters() {
	c := l.config
	files, name := l.countersFiles()
	m := merger{file: l.file.path, places: map[string]place{}}
	for _, f := range files {
		if !isBuiltIn(f.path) {
			c.Files = append(c.Files, f.path)
		}
		counters, err := readCounters(f.path)
		if err != nil {
			l.countersProblem(f, err)
			continue
		}
		m.addFile(f.path, counters)
	}
	for _, f := range l.file.fields {
		m.addField(f)
	}
	extra := len(l.file.fields) > 0
	for _, model := range l.file.models {
		extra = extra || len(model.fields) > 0
		c.ModelMatches = append(c.ModelMatches, model.match)
	}
	m.addModels(l.file.models)
	if c.Histograms {
		addHistograms(m.list, c.Resolution)
	}
	m.checkFamilyNames()
	for _, counter := range m.list {
		switch {
		case counter.Computed == 0 && !slices.ContainsFunc(CollectedKinds(), counter.On):
			m.warnings = append(m.warnings, fmt.Sprintf("%s has no series: DCGM does not list entities of the kind %s", counter.Name, counter.Field.Level))
		case counter.Computed.Checks() && c.HealthInterval == 0:
			m.warnings = append(m.warnings, fmt.Sprintf("%s has no series: it needs the health checks, which --health.check=false disables", counter.Name))
		}
	}
	if extra {
		name = strings.TrimPrefix(name+" and ", " and ") + "the fields of " + l.file.path
	}
	c.Counters, c.Models, c.CountersName = m.list, m.rules, cmp.Or(name, "no counters file")
	l.warnings = append(l.warnings, m.warnings...)
	if len(l.problems) == 0 { // a missing counter may cause more of them
		l.problems = m.problems
	}
}

// countersProblem reports a counters file that cannot be used.
func (l *loader) countersProblem(f includedFile, err error) {
	switch {
	case f.line == 0:
		l.fail(err)
	case errors.Is(err, fs.ErrNotExist):
		l.failAt(f.line, "include: the counters file %s does not exist: check the path (a relative one starts at this file's directory)", f.path)
	default:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			l.failAt(f.line, "include: %s", line)
		}
	}
}

func (m *merger) warn(file string, line int, format string, args ...any) {
	m.warnings = append(m.warnings, field.Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)}.String())
}

func (m *merger) find(name string) int {
	return slices.IndexFunc(m.list, func(c field.Counter) bool { return c.Name == name })
}

// addFile adds the counters of a file. The first of two with the same name wins.
func (m *merger) addFile(path string, counters *field.Counters) {
	for _, w := range counters.Warnings {
		m.warnings = append(m.warnings, w.String())
	}
	for _, c := range counters.List {
		line := counters.Lines[c.Name]
		if first, duplicate := m.places[c.Name]; duplicate {
			m.warn(path, line, "%s is ignored: it is in %s already", c.Name, first)
			continue
		}
		m.places[c.Name] = place{path, line}
		m.list = append(m.list, c)
	}
}

// addField adds a field of the configuration file. It replaces the counter with the
// same name.
func (m *merger) addField(f fieldEntry) {
	m.checkOdd(f, m.list)
	m.places[f.Name] = place{m.file, f.line}
	if i := m.find(f.Name); i >= 0 {
		m.list[i] = f.Counter
		return
	}
	m.list = append(m.list, f.Counter)
}

// checkOdd warns as the parser of counters files does.
func (m *merger) checkOdd(f fieldEntry, others []field.Counter) {
	if odd := f.Odd(); odd != "" {
		m.warn(m.file, f.line, "%s", odd)
	}
	if i := slices.IndexFunc(others, f.Repeats); i >= 0 {
		m.warn(m.file, f.line, "%s is the same field (%d) as %s at %s: its values are exported under both names",
			f.Name, f.Field.ID, others[i].Name, m.places[others[i].Name])
	}
}

// addModels adds the fields of some models. A field that all GPUs have is not taken
// from the other models: it is reported and stays as it is.
func (m *merger) addModels(models []modelEntry) {
	general := slices.Clone(m.list)
	for _, model := range models {
		for _, w := range model.without {
			m.rules = append(m.rules, wire.ModelRule{Field: w.Field.ID, Match: model.match})
		}
		var others []field.Counter
		for _, f := range model.fields {
			isSame := func(c field.Counter) bool { return c.Computed == 0 && c.Field.ID == f.Field.ID }
			if i := slices.IndexFunc(general, isSame); i >= 0 {
				m.warn(m.file, f.line, "models: %s, for GPUs that match %q, has no effect: the field is exported for all GPUs as %s: remove one of the two",
					f.Name, model.match, general[i].Name)
				continue
			}
			m.checkOdd(f, others)
			others = append(others, f.Counter)
			m.rules = append(m.rules, wire.ModelRule{Field: f.Field.ID, Match: model.match, Only: true})
			switch i := m.find(f.Name); {
			case i < 0:
				m.places[f.Name] = place{m.file, f.line}
				m.list = append(m.list, f.Counter)
			case m.list[i] != f.Counter:
				m.problems = append(m.problems, field.Problem{File: m.file, Line: f.line, Message: fmt.Sprintf(
					"models: %s, for GPUs that match %q, differs from the counter of that name at %s: give it another name, or the same field, type, help and other settings",
					f.Name, model.match, m.places[f.Name])})
			}
		}
	}
}

// checkFamilyNames reports counters that would export the same metric.
func (m *merger) checkFamilyNames() {
	owner := map[string]string{}
	for _, c := range m.list {
		for _, name := range c.FamilyNames() {
			other, taken := owner[name]
			if !taken {
				owner[name] = c.Name
				continue
			}
			at := m.places[c.Name]
			m.problems = append(m.problems, field.Problem{File: at.file, Line: at.line, Message: fmt.Sprintf(
				"%s and %s (%s) both export the metric %s, by their names, statistics or histograms: give one of them another name",
				c.Name, other, m.places[other], name)})
		}
	}
}

// addHistograms adds the histograms of --sample.histograms. A histogram has the field's
// own values, so that a counter in another unit gets none.
func addHistograms(counters []field.Counter, resolution time.Duration) {
	for i := range counters {
		c := &counters[i]
		if c.Scale != 0 || c.NoStatistics() != "" {
			continue
		}
		switch c.Field.ID {
		case 1001: // a mean since the last reading: frequent readings would shorten it
			c.Histogram = true
		case 140, 150, 155, 203:
			c.Histogram = true
			c.Resolution = cmp.Or(c.Resolution, resolution)
		}
	}
}
