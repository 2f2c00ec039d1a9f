// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"gpu_exporter/collector/field"
)

// maxFileSize bounds a configuration file, in bytes.
const maxFileSize = 1 << 20

// file is the content of a configuration file, as far as it is valid.
type file struct {
	path   string
	values map[*setting]fileValue
	// include are the counters files to read; nil: not set.
	include []includedFile
	fields  []fieldEntry
	models  []modelEntry
}

// fileValue is the value of a setting.
type fileValue struct {
	values []string
	key    string // the name by which the file calls the setting
	line   int
}

type includedFile struct {
	path string // or the name of a built-in one
	line int    // 0: not from the configuration file
}

// fileReader collects the mistakes in a file.
type fileReader struct {
	file     file
	settings map[string]*setting
	problems []field.Problem
}

func (r *fileReader) fail(node *yaml.Node, format string, args ...any) {
	if node.Kind == yaml.AliasNode {
		format, args = noAliases, []any{"*" + node.Value}
	}
	r.failAt(node.Line, format, args...)
}

func (r *fileReader) failAt(line int, format string, args ...any) {
	r.problems = append(r.problems, field.Problem{File: r.file.path, Line: line, Message: fmt.Sprintf(format, args...)})
}

// noAliases rejects an alias. An error about its content could not name a line, and
// expanding aliases could exhaust memory.
const noAliases = "%s: aliases are not supported: write the value itself, or put a text in quotes"

// readFile reads a configuration file. The result has what is valid in it.
func readFile(path string, settings map[string]*setting) (file, []field.Problem) {
	r := fileReader{file: file{path: path, values: map[*setting]fileValue{}}, settings: settings}
	f, err := os.Open(path)
	if err != nil {
		// Not a mistake in the file, but in the flag that names it.
		return r.file, []field.Problem{{File: "--config.file", Message: fmt.Sprintf("reading the configuration file: %v: check the path", err)}}
	}
	defer func() { _ = f.Close() }() // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	switch {
	case err != nil:
		r.failAt(0, "reading the configuration file: %v", err)
	case len(text) > maxFileSize:
		r.failAt(0, "the file is longer than %d bytes, so it is not a configuration file: check the path", maxFileSize)
	default:
		r.read(text)
	}
	return r.file, r.problems
}

func (r *fileReader) read(text []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) || err == nil && document.Content[0].Tag == "!!null" {
		r.failAt(0, "the file is empty, and may have been truncated: write {} for all defaults")
		return
	}
	if err == nil {
		err = decoder.Decode(&second)
	}
	switch {
	case err == nil:
		r.failAt(second.Line, "a second document starts after ---: write all settings into one")
	case errors.Is(err, io.EOF):
		r.top(document.Content[0])
	default:
		r.syntaxError(strings.Split(string(text), "\n"), err)
	}
}

// syntaxError reports an error of the YAML parser. The parser names no line for a mistake
// on the first line or an unknown alias, and may name another line for a tab.
func (r *fileReader) syntaxError(lines []string, err error) {
	line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, rest, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, message = n, rest
		}
	}
	if rest, ok := strings.CutPrefix(message, "unknown anchor '"); ok {
		alias, _, _ := strings.Cut("*"+rest, "'")
		line = 1 + max(0, slices.IndexFunc(lines, func(l string) bool {
			code, _, _ := strings.Cut(l, "#")
			return strings.Contains(code, alias)
		}))
		message = fmt.Sprintf(noAliases, alias)
	}
	indentedWithTab := func(l string) bool { return strings.Contains(l[:len(l)-len(strings.TrimLeft(l, " \t"))], "\t") }
	if i := slices.IndexFunc(lines, indentedWithTab); i >= 0 {
		line, message = i+1, "the line is indented with a tab, which YAML does not allow: use spaces"
	}
	if message == "did not find expected alphabetic or numeric character" {
		message = "a text that begins with * or & must be put in quotes"
	}
	r.failAt(line, "%s", message)
}

// top reads the mapping of the whole file.
func (r *fileReader) top(node *yaml.Node) {
	keys := handlers{
		"include": r.include,
		"fields":  func(_, value *yaml.Node) { r.file.fields = r.fields(value) },
		"models":  r.models,
	}
	for name, s := range r.settings {
		keys[name] = func(key, value *yaml.Node) { r.setting(s, key, value) }
	}
	r.mapping(node, "the file", keys)
	if at, twice := r.file.values[r.settings["collectors"]]; twice && r.file.include != nil {
		r.failAt(at.line, "include and %s both name counters files: remove one of them", at.key)
	}
}

func (r *fileReader) include(_, value *yaml.Node) {
	r.file.include = []includedFile{}
	for _, item := range r.texts(value, "include") {
		path := item.Value
		if !filepath.IsAbs(path) && !isBuiltIn(path) {
			path = filepath.Join(filepath.Dir(r.file.path), path)
		}
		r.file.include = append(r.file.include, includedFile{path, item.Line})
	}
}

// handlers read the values of the keys of a mapping.
type handlers map[string]func(key, value *yaml.Node)

// mapping reads a mapping, and reports keys that are unknown or duplicate.
func (r *fileReader) mapping(node *yaml.Node, what string, known handlers) {
	if node.Kind != yaml.MappingNode {
		r.fail(node, "%s must be a mapping: lines of key: value", what)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		first, duplicate := lines[key.Value]
		read, found := known[key.Value]
		names := slices.Sorted(maps.Keys(known))
		suggestion := nearest(key.Value, names)
		switch {
		case key.Value == "<<": // merges an alias
			r.fail(key, noAliases, "<<")
		case key.Kind != yaml.ScalarNode:
			r.fail(key, "a key of %s must be one text", what)
		case duplicate:
			r.fail(key, "%s is set on line %d already: remove one of them", key.Value, first)
		case found:
			read(key, value)
		case suggestion != "":
			r.fail(key, "unknown key %q: did you mean %s?", key.Value, suggestion)
		case known["include"] != nil:
			r.fail(key, "unknown key %q in the file: the keys are the names of the flags (see --help), include, fields and models", key.Value)
		default:
			r.fail(key, "unknown key %q in %s: use %s", key.Value, what, ListOf(names))
		}
		if !duplicate {
			lines[key.Value] = key.Line
		}
	}
}

// nearest returns the name that a mistyped one most likely means, or "".
func nearest(name string, names []string) string {
	best, limit := "", max(1, len(name)/4)
	if len(name) >= 5 { // two swapped letters are two edits
		limit = max(2, limit)
	}
	plain := func(s string) string { return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(s)) }
	for _, candidate := range names {
		if d := field.EditDistance(plain(name), plain(candidate), limit); len(candidate) > 2 && d <= limit && (best == "" || d < limit) {
			best, limit = candidate, d
		}
	}
	return best
}

// setting reads the value of a setting.
func (r *fileReader) setting(s *setting, key, node *yaml.Node) {
	if other, twice := r.file.values[s]; twice {
		r.fail(key, "%s is the same setting as %s on line %d: remove one of them", key.Value, other.key, other.line)
		return
	}
	v := fileValue{key: key.Value, line: node.Line}
	switch {
	case s.kind == repeatable:
		for _, item := range r.texts(node, key.Value) {
			v.values = append(v.values, item.Value)
		}
	case s.kind == toggle && !isBoolean(node):
		r.fail(node, "%s must be true or false", key.Value)
		return
	case node.Kind != yaml.ScalarNode || node.Tag == "!!null":
		r.fail(node, "%s takes one value: write it after the colon, in quotes if it is empty", key.Value)
		return
	default:
		v.values = []string{node.Value}
	}
	r.file.values[s] = v
}

func isBoolean(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!bool" }

// texts reads a list of texts, or a single one.
func (r *fileReader) texts(node *yaml.Node, what string) []*yaml.Node {
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

// text returns a handler that reads a text.
func (r *fileReader) text(field *string) func(key, value *yaml.Node) {
	return func(key, value *yaml.Node) {
		if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
			r.fail(value, "%s takes one text", key.Value)
			return
		}
		*field = value.Value
	}
}

// boolean returns a handler that reads true or false.
func (r *fileReader) boolean(field *bool) func(key, value *yaml.Node) {
	return func(key, value *yaml.Node) {
		if !isBoolean(value) {
			r.fail(value, "%s must be true or false", key.Value)
			return
		}
		*field = strings.EqualFold(value.Value, "true")
	}
}
