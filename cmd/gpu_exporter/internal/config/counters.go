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

	"gopkg.in/yaml.v3"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/wire"
	"gpu_exporter/etc"
)

const (
	// builtInPrefix marks the name of a built-in counters file, in place of a path.
	builtInPrefix = "builtin:"
	// inheritedCounters is the default counters file of dcgm-exporter. If it exists, it
	// replaces the built-in default, so that changes made there remain in effect.
	inheritedCounters = "/etc/dcgm-exporter/default-counters.csv"
)

// imageCounters returns the built-in name of the counters files in dcgm-exporter's image,
// which its charts and the GPU Operator name. dcp-metrics-included.csv and
// default-counters.csv have the same counters.
func imageCounters(path string) (builtIn string, ok bool) {
	switch path {
	case inheritedCounters, "/etc/dcgm-exporter/dcp-metrics-included.csv":
		return builtInPrefix + "default", true
	case "/etc/dcgm-exporter/1.x-compatibility-metrics.csv":
		return builtInPrefix + "1.x-compatibility", true
	}
	return "", false
}

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

// replaceMissing returns the built-in file in place of a missing file of dcgm-exporter's
// image, or else the same file.
func (l *loader) replaceMissing(path string) string {
	builtIn, ok := imageCounters(path)
	if _, err := os.Stat(path); !ok || !errors.Is(err, fs.ErrNotExist) {
		return path
	}
	l.warn("the counters file %s of dcgm-exporter's image does not exist: %s is used, which has the same counters", path, builtIn)
	l.config.Files = append(l.config.Files, path) // a reload finds it
	return builtIn
}

// counterEntry is a counter and where it is defined.
type counterEntry struct {
	field.Counter
	file                 string
	line, resolutionLine int
}

func (e counterEntry) place() string { return fmt.Sprintf("%s:%d", e.file, e.line) }

func (e counterEntry) problem(format string, args ...any) field.Problem {
	return field.Problem{File: e.file, Line: e.line, Message: fmt.Sprintf(format, args...)}
}

// isSameField reports whether both are exported from one field of DCGM.
func (e counterEntry) isSameField(other counterEntry) bool {
	return e.Computed == 0 && other.Computed == 0 && e.Field.ID == other.Field.ID
}

// find returns the position of the counter with the name, or -1.
func find(list []counterEntry, name string) int {
	return slices.IndexFunc(list, func(e counterEntry) bool { return e.Name == name })
}

// countersFiles returns the counters files to read, and what messages call them.
func (l *loader) countersFiles() (paths []string, name string) {
	if l.settings["counters.file"].set {
		for _, path := range l.config.countersFiles {
			paths = append(paths, l.replaceMissing(path))
		}
		return paths, strings.Join(paths, ", ")
	}
	if _, err := os.Stat(inheritedCounters); err == nil {
		return []string{inheritedCounters}, inheritedCounters
	}
	return []string{builtInPrefix + "default"}, etc.DefaultCountersName
}

// loadCounters reads the counters files and adds the fields of the configuration file.
func (l *loader) loadCounters() {
	c := l.config
	var paths []string
	var name string
	if c.CountersConfigMap != "" && l.configMap != nil {
		name = l.loadConfigMap()
	} else {
		paths, name = l.countersFiles()
	}
	for _, path := range paths {
		if !isBuiltIn(path) {
			c.Files = append(c.Files, path)
		}
		if counters, err := readCounters(path); err != nil {
			l.countersProblem(path, err)
		} else {
			l.addFile(path, counters)
		}
	}
	if len(l.problems) > 0 {
		return // a missing counter may cause more of them
	}
	extra := len(l.fields) > 0
	for _, f := range l.fields {
		l.addField(f)
	}
	general := slices.Clone(l.counters)
	for _, model := range l.models {
		extra = extra || len(model.fields) > 0
		c.ModelMatches = append(c.ModelMatches, model.match)
		l.addModel(model, general)
	}
	l.addHistograms()
	for i := range l.counters {
		l.counters[i].ZeroXID = c.zeroXID && l.counters[i].Field.ID == field.XIDErrors
	}
	l.checkFamilyNames()
	for _, counter := range l.counters {
		c.Counters = append(c.Counters, counter.Counter)
		switch {
		case counter.Computed == 0 && !slices.ContainsFunc(CollectedKinds(), counter.On):
			l.warn("%s has no series: DCGM does not list entities of the kind %s", counter.Name, counter.Field.Level)
		case counter.Computed.Checks() && c.HealthInterval == 0:
			l.warn("%s has no series: it needs the health checks, which --health.enabled=false disables", counter.Name)
		}
	}
	if extra {
		name = strings.TrimPrefix(name+" and ", " and ") + "the fields of " + c.ConfigFile
	}
	c.CountersName = cmp.Or(name, "no counters file")
}

// loadConfigMap reads the counters file in a ConfigMap, and returns what messages call it.
// It replaces all counters files, and an error remains one, as in dcgm-exporter.
func (l *loader) loadConfigMap() (name string) {
	const key = "metrics"
	s := l.settings["counters.config-map"]
	if files := l.settings["counters.file"]; files.set {
		l.warn("%s: no effect: %s names the counters", files.from, s.from)
	}
	namespace, object, ok := strings.Cut(l.config.CountersConfigMap, ":")
	if !ok || namespace == "" || object == "" || strings.ContainsAny(object, ":/") || strings.Contains(namespace, "/") {
		l.failSetting(s, "%q is not the name of a ConfigMap: write NAMESPACE:NAME", l.config.CountersConfigMap)
		return ""
	}
	data, err := l.configMap(l.config.Kubeconfig, namespace, object)
	text, ok := data[key]
	name = "ConfigMap " + l.config.CountersConfigMap
	switch {
	case err != nil:
		l.failSetting(s, "reading %s: %v", name, err)
	case !ok:
		l.failSetting(s, "%s has no key %q with a counters file", name, key)
	default:
		counters, err := field.ParseCounters(strings.NewReader(text), name)
		if err != nil {
			l.fail(err)
			return name
		}
		l.addFile(name, counters)
	}
	return name
}

// countersProblem reports a counters file that cannot be used.
func (l *loader) countersProblem(path string, err error) {
	s := l.settings["counters.file"]
	i := slices.IndexFunc(s.file, func(node *yaml.Node) bool { return l.fromFile(s, node.Value) == path })
	switch {
	case s.line == 0 || i < 0:
		l.fail(err)
	case errors.Is(err, fs.ErrNotExist):
		l.failAt(s.file[i].Line, "counters.file: %s does not exist: check the path (a relative one starts at this file's directory)", path)
	default:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			l.failAt(s.file[i].Line, "counters.file: %s", line)
		}
	}
}

// addFile adds the counters of a file. The first of two with the same name wins.
func (l *loader) addFile(path string, counters *field.Counters) {
	for _, w := range counters.Warnings {
		l.warn("%s", w)
	}
	for _, c := range counters.List {
		entry := counterEntry{Counter: c, file: path, line: counters.Lines[c.Name]}
		if i := find(l.counters, c.Name); i >= 0 {
			l.warn("%s", entry.problem("%s is ignored: it is in %s already", c.Name, l.counters[i].place()))
			continue
		}
		l.counters = append(l.counters, entry)
	}
}

// addField adds a field of the configuration file. It replaces the counter with the
// same name.
func (l *loader) addField(f counterEntry) {
	l.checkOdd(f, l.counters)
	if i := find(l.counters, f.Name); i >= 0 {
		l.counters[i] = f
		return
	}
	l.counters = append(l.counters, f)
}

// checkOdd warns as the parser of counters files does.
func (l *loader) checkOdd(f counterEntry, list []counterEntry) {
	if odd := f.Odd(); odd != "" {
		l.warn("%s", f.problem("%s", odd))
	}
	if i := slices.IndexFunc(list, func(e counterEntry) bool { return f.Repeats(e.Counter) }); i >= 0 {
		l.warn("%s", f.problem("%s is the same field (%d) as %s at %s: its values are exported under both names",
			f.Name, f.Field.ID, list[i].Name, list[i].place()))
	}
}

// addModel adds the fields of the GPUs of some models. A field of the general counters,
// which all GPUs have, is reported and remains on all GPUs.
func (l *loader) addModel(model modelEntry, general []counterEntry) {
	for _, w := range model.without {
		l.config.Models = append(l.config.Models, wire.ModelRule{Field: w.Field.ID, Match: model.match})
	}
	for n, f := range model.fields {
		if i := slices.IndexFunc(general, f.isSameField); i >= 0 {
			l.warn("%s", f.problem("models: %s, for GPUs that match %q, has no effect: the field is exported for all GPUs as %s: remove one of the two",
				f.Name, model.match, general[i].Name))
			continue
		}
		l.checkOdd(f, model.fields[:n])
		l.config.Models = append(l.config.Models, wire.ModelRule{Field: f.Field.ID, Match: model.match, Only: true})
		switch i := find(l.counters, f.Name); {
		case i < 0:
			l.counters = append(l.counters, f)
		case l.counters[i].Counter != f.Counter:
			l.problems = append(l.problems, f.problem(
				"models: %s, for GPUs that match %q, differs from the counter of that name at %s: give it another name, or the same field, type, help and other settings",
				f.Name, model.match, l.counters[i].place()))
		}
	}
}

// checkFamilyNames reports counters that would export the same metric.
func (l *loader) checkFamilyNames() {
	owner := map[string]counterEntry{}
	for _, c := range l.counters {
		for _, name := range c.FamilyNames() {
			first, taken := owner[name]
			if !taken {
				owner[name] = c
				continue
			}
			l.problems = append(l.problems, c.problem(
				"%s and %s (%s) both export the metric %s, by their names, statistics or histograms: give one of them another name",
				c.Name, first.Name, first.place(), name))
		}
	}
}

// addHistograms adds the histograms of --sample.histograms. A histogram has the field's
// own values, so that a counter in another unit gets none.
func (l *loader) addHistograms() {
	if !l.config.Histograms {
		return
	}
	for i := range l.counters {
		c := &l.counters[i]
		if c.Scale != 0 || c.NoStatistics() != "" {
			continue
		}
		switch c.Field.ID {
		case 1001: // a mean since the last reading: frequent readings would shorten it
			c.Histogram = true
		case 140, 150, 155, 203:
			c.Histogram = true
			c.Resolution = cmp.Or(c.Resolution, l.config.Resolution)
		}
	}
}
