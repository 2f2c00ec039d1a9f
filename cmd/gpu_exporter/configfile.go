// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"gpu_exporter/collector"
)

// maxConfigFile bounds what is read as a configuration file.
const maxConfigFile = 1 << 20

// The keys of a configuration file that are no flags.
const (
	keyInclude = "include"
	keyFields  = "fields"
	keyModels  = "models"
)

// configFile is a configuration file that was read: what it says of each flag, by
// name, and what only it can say.
type configFile struct {
	path   string
	values map[string]fileValue
	// include are the counters files to use; nil is to use the default.
	include []includedFile
	fields  []fieldEntry
	models  []modelEntry
}

// fileValue is what the file says of a flag.
type fileValue struct {
	given
	line int
}

// includedFile is one of include.
type includedFile struct {
	path string // or the name of a built-in one
	line int
}

// fieldEntry is one of fields.
type fieldEntry struct {
	collector.Counter
	line, resolutionLine int
}

// modelEntry is one of models: what is other on GPUs of some models.
type modelEntry struct {
	match   string // regular expression of the whole model name
	without []withoutEntry
	fields  []fieldEntry
}

// withoutEntry is one of without.
type withoutEntry struct {
	collector.Counter
	line int
}

// configReader collects what is wrong in a file.
type configReader struct {
	file     *configFile
	options  map[string]option // by name and alias
	names    []string
	problems []string
}

func (r *configReader) fail(node *yaml.Node, format string, args ...any) {
	if node.Kind == yaml.AliasNode { // whatever was to stand here
		format, args = noAliases, []any{"*" + node.Value}
	}
	r.failAt(node.Line, format, args...)
}

func (r *configReader) failAt(line int, format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("%s:%d: %s", r.file.path, line, fmt.Sprintf(format, args...)))
}

// noAliases is said of an alias, which is not looked through: a line of it could not be
// told, nor how large the file comes to be.
const noAliases = "%s: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes"

// loadConfigFile reads a configuration file. The error has a line for each thing
// that is wrong in it; the file is then what could be understood, or nil.
func loadConfigFile(path string, opts []option) (*configFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration file: %w: check the path given with --%s", err, optConfigFile)
	}
	defer func() { _ = f.Close() }() // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration file %s: %w", path, err)
	}
	if len(text) > maxConfigFile {
		return nil, fmt.Errorf("%s: the file is longer than %d bytes, so it is no configuration file: check the path", path, maxConfigFile)
	}
	return parseConfigFile(path, text, opts)
}

func parseConfigFile(path string, text []byte, opts []option) (*configFile, error) {
	r := configReader{
		file:    &configFile{path: path, values: map[string]fileValue{}},
		options: map[string]option{},
		names:   []string{keyInclude, keyFields, keyModels},
	}
	for _, o := range opts {
		if o.name == optConfigFile || o.name == optConfigFile2 {
			continue
		}
		r.options[o.name] = o
		r.names = append(r.names, o.name)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF), err == nil && document.Content[0].Tag == "!!null":
		// Of a file that is about to be written, or was cut off, not much is there.
		return r.file, fmt.Errorf("%s: there is nothing in it but comments: if all is to be as without the file, write {}", path)
	case err != nil:
		return r.file, syntaxError(path, text, err)
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case err == nil:
		return r.file, fmt.Errorf("%s:%d: there is a second document after ---: write all into one", path, second.Line)
	case !errors.Is(err, io.EOF):
		return r.file, syntaxError(path, text, err)
	}
	r.top(document.Content[0])
	if len(r.problems) > 0 {
		return r.file, errors.New(strings.Join(r.problems, "\n"))
	}
	return r.file, nil
}

// syntaxError gives what the YAML parser says the form that all mistakes have. Of what
// is wrong on the first line, it names no line; nor for an anchor that is not there.
func syntaxError(path string, text []byte, err error) error {
	line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, rest, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, message = n, rest
		}
	}
	lines := strings.Split(string(text), "\n")
	if rest, ok := strings.CutPrefix(message, "unknown anchor '"); ok {
		alias, _, _ := strings.Cut(rest, "'")
		alias = "*" + alias
		line = 1 + max(0, slices.IndexFunc(lines, func(l string) bool {
			code, _, _ := strings.Cut(l, "#")
			return strings.Contains(code, alias)
		}))
		message = fmt.Sprintf(noAliases, alias)
	}
	near := []int{line}
	if strings.Contains(message, "tab character") { // of which the line is not told exactly
		near = []int{line, line + 1, line - 1}
	}
	for _, n := range near {
		if n >= 1 && n <= len(lines) && tabIndents(lines[n-1]) {
			line, message = n, "the line is indented with a tab, which YAML does not allow: use spaces"
			break
		}
	}
	if message == "did not find expected alphabetic or numeric character" {
		message = "a text that begins with * or & must be put in quotes"
	}
	return fmt.Errorf("%s:%d: %s", path, line, message)
}

// tabIndents says whether there is a tab in what a line begins with.
func tabIndents(line string) bool {
	return strings.Contains(line[:len(line)-len(strings.TrimLeft(line, " \t"))], "\t")
}

// top reads the mapping of the whole file.
func (r *configReader) top(node *yaml.Node) {
	counters := "" // which of the two keys that name counters files there was
	r.mapping(node, "the file", r.names, func(key, value *yaml.Node) {
		if key.Value == keyInclude || key.Value == optCollectors {
			if counters != "" {
				r.fail(key, "%s and %s say the same, which counters files to read: remove one of them", counters, key.Value)
				return
			}
			counters = key.Value
		}
		switch key.Value {
		case keyInclude:
			r.file.include = []includedFile{}
			for _, item := range r.texts(value, keyInclude) {
				path := item.Value
				if !filepath.IsAbs(path) && !isBuiltIn(path) {
					path = filepath.Join(filepath.Dir(r.file.path), path)
				}
				r.file.include = append(r.file.include, includedFile{path, item.Line})
			}
		case keyFields:
			r.file.fields = r.fields(value)
		case keyModels:
			r.models(value)
		default:
			r.option(r.options[key.Value], value)
		}
	})
}

// mapping calls each for the keys of a mapping, and complains of those that are
// not known or come twice.
func (r *configReader) mapping(node *yaml.Node, what string, known []string, each func(key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		r.fail(node, "%s must be a mapping: lines of key: value", what)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		switch {
		case key.Value == "<<": // merges what an alias stands for
			r.fail(key, noAliases, "<<")
			continue
		case key.Kind != yaml.ScalarNode:
			r.fail(key, "a key of %s must be one text", what)
			continue
		}
		if at, twice := lines[key.Value]; twice {
			r.fail(key, "%s stands on line %d already: remove one of them", key.Value, at)
			continue
		}
		lines[key.Value] = key.Line
		if !slices.Contains(known, key.Value) {
			if s := nearest(key.Value, known); s != "" {
				r.fail(key, "unknown key %q: did you mean %s?", key.Value, s)
			} else {
				r.fail(key, "unknown key %q in %s: %s", key.Value, what, knownKeys(known))
			}
			continue
		}
		each(key, value)
	}
}

func knownKeys(known []string) string {
	if len(known) > 12 {
		return "the keys are the long names of the flags (see --help), include, fields and models"
	}
	return "use " + listOf(known)
}

// nearest returns the name that a mistyped one most likely means, or "".
func nearest(name string, names []string) string {
	best, limit := "", max(1, len(name)/4)
	if len(name) >= 5 { // two letters that changed places count twice
		limit = max(2, limit)
	}
	plain := func(s string) string { return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(s)) }
	for _, candidate := range names {
		if d := collector.EditDistance(plain(name), plain(candidate), limit); d <= limit && (best == "" || d < limit) {
			best, limit = candidate, d
		}
	}
	return best
}

// option reads the value of a flag.
func (r *configReader) option(o option, node *yaml.Node) {
	v := fileValue{line: node.Line}
	v.set = true
	switch o.kind {
	case kindSwitch:
		if node.Kind != yaml.ScalarNode || node.Tag != "!!bool" {
			r.fail(node, "%s is a switch: write true or false", o.name)
			return
		}
		v.text = strconv.FormatBool(strings.EqualFold(node.Value, "true"))
	case kindList:
		for _, item := range r.texts(node, o.name) {
			v.list = append(v.list, item.Value)
		}
	default:
		if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
			r.fail(node, "%s takes one value: write it after the colon, in quotes if it is empty", o.name)
			return
		}
		v.text = node.Value
	}
	r.file.values[o.name] = v
}

// texts reads a list of texts; one alone may stand without being a list.
func (r *configReader) texts(node *yaml.Node, what string) []*yaml.Node {
	items := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		items = node.Content
	}
	var list []*yaml.Node
	for _, item := range items {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" || item.Value == "" {
			r.fail(item, "%s is a list of texts: write [a, b], or one a line after -", what)
			continue
		}
		list = append(list, item)
	}
	return list
}

func (r *configReader) text(node *yaml.Node, what string) string {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		r.fail(node, "%s takes one text", what)
		return ""
	}
	return node.Value
}

func (r *configReader) boolean(node *yaml.Node, what string) bool {
	if node.Kind != yaml.ScalarNode || node.Tag != "!!bool" {
		r.fail(node, "%s takes true or false", what)
		return false
	}
	return strings.EqualFold(node.Value, "true")
}

// value returns what the file says of a flag.
func (f *configFile) value(name string) (fileValue, bool) {
	if f == nil {
		return fileValue{}, false
	}
	v, ok := f.values[name]
	return v, ok
}

// loadFile reads the configuration file, if one is given by flag or variable.
func (r *resolver) loadFile(opts []option, flags map[string]given, lookupEnv func(string) (string, bool)) {
	i := slices.IndexFunc(opts, func(o option) bool { return o.name == optConfigFile })
	if i < 0 {
		return
	}
	v := r.resolve(opts[i], flags[optConfigFile], lookupEnv)
	if v.text == "" {
		return
	}
	file, err := loadConfigFile(v.text, opts)
	if err != nil {
		r.problems = append(r.problems, strings.Split(err.Error(), "\n")...)
		r.mistaken = true
	}
	r.file = file // as far as it goes: all that is wrong is told at once
}

// known says whether a value is what was meant. It is not where a mistake in the
// file may have hidden another one.
func (r *resolver) known(name string) bool { return r.values[name].set || !r.mistaken }

// addFile adds what only a configuration file can say. A counters file that is
// given by flag or variable stands in the place of those that the file includes.
func (r *resolver) addFile(c *config) {
	file := r.file
	if file == nil {
		return
	}
	c.ConfigFile = file.path
	c.Lines = map[fieldKey]int{}
	if file.include != nil && r.values[optCollectors].rank <= byFile {
		c.Include = []string{}
		for _, included := range file.include {
			c.Include = append(c.Include, included.path)
			r.checkIncluded(included)
		}
	}
	for _, f := range file.fields {
		r.checkResolution(f, c.Interval)
		c.Fields = append(c.Fields, f.Counter)
		c.Lines[fieldKey{-1, f.Name}] = f.line
	}
	for at, m := range file.models {
		other := modelConfig{Match: m.match}
		for _, without := range m.without {
			other.Without = append(other.Without, without.Field.ID)
		}
		for _, f := range m.fields {
			r.checkResolution(f, c.Interval)
			other.Fields = append(other.Fields, f.Counter)
			c.Lines[fieldKey{at, f.Name}] = f.line
		}
		c.Models = append(c.Models, other)
	}
}

// checkIncluded reads a counters file only to tell what is wrong with it, beside
// what else is.
func (r *resolver) checkIncluded(included includedFile) {
	_, err := readCounters(included.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.problem("%s:%d: include: there is no counters file %s: check the path (a relative one begins where this file lies)", r.file.path, included.line, included.path)
	case err != nil:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.problem("%s:%d: include: %s", r.file.path, included.line, line)
		}
	}
}

func (r *resolver) checkResolution(f fieldEntry, interval time.Duration) {
	r.notLonger(fmt.Sprintf("%s:%d: resolution", r.file.path, f.resolutionLine), f.Resolution, interval)
}
