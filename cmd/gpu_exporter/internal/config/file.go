// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"gpu_exporter/collector/field"
)

// fileValue is the value of a setting in the configuration file.
type fileValue struct {
	values []string
	key    string // the name by which the file calls the setting
	line   int
}

type includedFile struct {
	path string // or the name of a built-in one
	line int    // 0: not from the configuration file
}

// noAliases rejects an alias. An error about its content could not name a line, and
// expanding aliases could exhaust memory.
const noAliases = "%s: aliases are not supported: write the value itself, or put a text in quotes"

// failAt reports a mistake in the configuration file; line 0 is the file as a whole.
func (l *loader) failAt(line int, format string, args ...any) {
	l.problems = append(l.problems, field.Problem{File: l.config.ConfigFile, Line: line, Message: fmt.Sprintf(format, args...)})
}

func (l *loader) failNode(node *yaml.Node, format string, args ...any) {
	if node.Kind == yaml.AliasNode {
		format, args = noAliases, []any{"*" + node.Value}
	}
	l.failAt(node.Line, format, args...)
}

// readFile reads what is valid in the configuration file.
func (l *loader) readFile() {
	text, err := ReadFile(l.config.ConfigFile)
	if err != nil { // a mistake in the flag, not in the file
		l.fail(fmt.Errorf("--config.file: reading the configuration file: %w: check the path", err))
		return
	}
	l.readDocument(text)
}

func (l *loader) readDocument(text []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) || err == nil && document.Content[0].Tag == "!!null" {
		l.failAt(0, "the file is empty, and may have been truncated: write {} for all defaults")
		return
	}
	if err == nil {
		err = decoder.Decode(&second)
	}
	switch {
	case err == nil:
		l.failAt(second.Line, "a second document starts after ---: write all settings into one")
	case errors.Is(err, io.EOF):
		l.readSettings(document.Content[0])
	default:
		l.syntaxError(strings.Split(string(text), "\n"), err)
	}
}

// syntaxError reports an error of the YAML parser. The parser names no line for a mistake
// on the first line or an unknown alias, and may name another line for a tab.
func (l *loader) syntaxError(lines []string, err error) {
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
	l.failAt(line, "%s", message)
}

// readSettings reads the mapping of the whole file.
func (l *loader) readSettings(node *yaml.Node) {
	keys := targets{"include": l.readInclude, "fields": func(node *yaml.Node) { l.fields = l.readFields(node) }, "models": l.readModels}
	for name, s := range l.settings {
		if s.name != "config.file" && s.name != "config-file" {
			keys[name] = s
		}
	}
	l.readMapping(node, "the file", keys)
	if v := l.settings["collectors"].file; v != nil && l.include != nil {
		l.failAt(v.line, "include and %s both name counters files: remove one of them", v.key)
	}
}

func (l *loader) readInclude(node *yaml.Node) {
	l.include = []includedFile{}
	for _, item := range l.readTexts(node, "include") {
		path := item.Value
		if !filepath.IsAbs(path) && !isBuiltIn(path) {
			path = filepath.Join(filepath.Dir(l.config.ConfigFile), path)
		}
		l.include = append(l.include, includedFile{path, item.Line})
	}
}

// targets are what the keys of a mapping set: a *setting, a text (*yaml.Node), a list of
// texts (*[]*yaml.Node), a **bool that is nil if the key is absent, or a function.
type targets map[string]any

// readMapping reads a mapping, and reports keys that are unknown or duplicate.
func (l *loader) readMapping(node *yaml.Node, what string, keys targets) {
	if node.Kind != yaml.MappingNode {
		l.failNode(node, "%s must be a mapping: lines of key: value", what)
		return
	}
	lines, names := map[string]int{}, slices.Sorted(maps.Keys(keys))
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		target, known := keys[key.Value]
		suggestion := nearest(key.Value, names)
		switch {
		case key.Value == "<<": // merges an alias
			l.failNode(key, noAliases, "<<")
		case key.Kind != yaml.ScalarNode:
			l.failNode(key, "a key of %s must be one text", what)
		case lines[key.Value] > 0:
			l.failNode(key, "%s is set on line %d already: remove one of them", key.Value, lines[key.Value])
			continue
		case known:
			l.readValue(key, value, target)
		case suggestion != "":
			l.failNode(key, "unknown key %q: did you mean %s?", key.Value, suggestion)
		case keys["include"] != nil:
			l.failNode(key, "unknown key %q in the file: the keys are the names of the flags (see --help), include, fields and models", key.Value)
		default:
			l.failNode(key, "unknown key %q in %s: use %s", key.Value, what, ListOf(names))
		}
		lines[key.Value] = key.Line
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

// readValue reads the value of a key into its target.
func (l *loader) readValue(key, node *yaml.Node, target any) {
	isText := node.Kind == yaml.ScalarNode && node.Tag != "!!null"
	s, isSetting := target.(*setting)
	if isSetting && s.file != nil {
		l.failNode(key, "%s is the same setting as %s on line %d: remove one of them", key.Value, s.file.key, s.file.line)
		return
	}
	_, isBool := target.(**bool)
	if (isBool || isSetting && s.kind == toggle) && (!isText || node.Tag != "!!bool") {
		l.failNode(node, "%s must be true or false", key.Value)
		return
	}
	switch target := target.(type) {
	case func(*yaml.Node):
		target(node)
	case *[]*yaml.Node:
		*target = l.readTexts(node, key.Value)
	case **bool:
		on := strings.EqualFold(node.Value, "true")
		*target = &on
	case *yaml.Node:
		if !isText {
			l.failNode(node, "%s takes one text", key.Value)
			return
		}
		*target = *node
	case *setting:
		items := []*yaml.Node{node}
		if s.kind == repeatable {
			items = l.readTexts(node, key.Value)
		} else if !isText {
			l.failNode(node, "%s takes one value: write it after the colon, in quotes if it is empty", key.Value)
			return
		}
		s.file = &fileValue{key: key.Value, line: node.Line}
		for _, item := range items {
			s.file.values = append(s.file.values, item.Value)
		}
	}
}

// readTexts reads a list of texts, or a single one.
func (l *loader) readTexts(node *yaml.Node, what string) (texts []*yaml.Node) {
	items := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		items = node.Content
	}
	for _, item := range items {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" || item.Value == "" {
			l.failNode(item, "%s is a list of texts: write [a, b], or one a line after -", what)
			continue
		}
		texts = append(texts, item)
	}
	return texts
}

// readItems returns the items of a list.
func (l *loader) readItems(node *yaml.Node, hint string) []*yaml.Node {
	if node.Kind != yaml.SequenceNode {
		l.failNode(node, "%s", hint)
		return nil
	}
	return node.Content
}
