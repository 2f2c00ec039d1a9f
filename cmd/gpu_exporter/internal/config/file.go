// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"cmp"
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
	f, err := os.Open(l.config.ConfigFile)
	if err != nil { // a mistake in the flag, not in the file
		l.fail(fmt.Errorf("--config.file: reading the configuration file: %w: check the path", err))
		return
	}
	defer func() { _ = f.Close() }() // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	switch {
	case err != nil:
		l.failAt(0, "reading the configuration file: %v", err)
	case len(text) > maxFileSize:
		l.failAt(0, "the file is longer than %d bytes, so it is not a configuration file: check the path", maxFileSize)
	default:
		l.readDocument(text)
	}
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
	keys := l.keys("")
	keys["fields"] = func(node *yaml.Node) { l.fields = l.readFields(node) }
	keys["models"] = l.readModels
	l.readMapping(node, "", keys)
}

// keys returns what the keys below a prefix of the names of flags set.
func (l *loader) keys(prefix string) targets {
	keys := targets{}
	for _, s := range l.table {
		name, found := strings.CutPrefix(s.name, prefix)
		if !found || !s.isOwn() {
			continue
		}
		if key, _, nested := strings.Cut(name, "."); !nested {
			keys[key] = s
		} else if path := prefix + key; keys[key] == nil {
			keys[key] = func(node *yaml.Node) { l.readMapping(node, path, l.keys(path+".")) }
		}
	}
	return keys
}

// fromFile returns a value of the file. Paths are relative to its directory.
func (l *loader) fromFile(s *setting, value string) string {
	if s.arg != "FILE" && s.arg != "DIR" || value == "" || filepath.IsAbs(value) || isBuiltIn(value) {
		return value
	}
	return filepath.Join(filepath.Dir(l.config.ConfigFile), value)
}

// targets are what the keys of a mapping set: a *setting, a text (*yaml.Node), a list of
// texts (*[]*yaml.Node), a **bool that is nil if the key is absent, or a function.
type targets map[string]any

// readMapping reads a mapping, and reports keys that are unknown or duplicate. It is what,
// or a subject, or the whole file if what is empty.
func (l *loader) readMapping(node *yaml.Node, what string, keys targets) {
	isSubject := !strings.Contains(what, " ")
	what = cmp.Or(what, "the file")
	if node.Kind != yaml.MappingNode {
		if s := l.settings[what]; s != nil && s.means != "" && node.Kind != yaml.AliasNode {
			l.failNode(node, "%s is a subject with several keys: write %s", what, nested(s.means))
			return
		}
		l.failNode(node, "%s must be a mapping: lines of key: value", what)
		return
	}
	lines, names := map[string]int{}, slices.Sorted(maps.Keys(keys))
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		target, known := keys[key.Value]
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
		default:
			place := ""
			if isSubject {
				place = l.place(key.Value)
			}
			if suggestion := nearest(key.Value, names); place == "" && suggestion != "" {
				place = "did you mean " + suggestion + "?"
			}
			l.failNode(key, "unknown key %q in %s: %s", key.Value, what, cmp.Or(place, "use "+ListOf(names)))
		}
		lines[key.Value] = key.Line
	}
}

// place returns where the file has a setting that is named in another form: as a flag of
// ours or of dcgm-exporter, or without its subject. It is empty if there is none.
func (l *loader) place(key string) string {
	var places []string
	for _, s := range l.table {
		exact := plain(key) == plain(s.name)
		switch {
		case exact && s.inert != "":
			return "this flag of dcgm-exporter has no effect: " + s.inert + ": remove it"
		case exact && s.instead != "":
			return "this flag of dcgm-exporter is not available: " + s.instead
		case exact:
			return "write " + nested(cmp.Or(s.means, s.name))
		case s.isOwn() && plain(key) == plain(s.name[strings.LastIndex(s.name, ".")+1:]):
			places = append(places, nested(s.name))
		}
	}
	if places == nil {
		return ""
	}
	return "write " + ListOf(places)
}

// nested writes a flag as a key of the file.
func nested(flag string) string {
	name, value, _ := strings.Cut(flag, "=")
	if !strings.Contains(name, ".") {
		return name + ": …, not indented"
	}
	return strings.ReplaceAll(name, ".", ": {") + ": " + cmp.Or(value, "…") + strings.Repeat("}", strings.Count(name, "."))
}

// plain removes the differences between spellings of a name.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "_", "-")
}

// nearest returns the name that a mistyped one most likely means, or "".
func nearest(name string, names []string) string {
	best, limit := "", max(1, len(name)/4)
	if len(name) >= 5 { // two swapped letters are two edits
		limit = max(2, limit)
	}
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
	name := key.Value
	if isSetting {
		name = s.name
	}
	_, isBool := target.(**bool)
	if (isBool || isSetting && s.kind == toggle) && (!isText || node.Tag != "!!bool") {
		l.failNode(node, "%s must be true or false", name)
		return
	}
	switch target := target.(type) {
	case func(*yaml.Node):
		target(node)
	case *[]*yaml.Node:
		*target = l.readTexts(node, name)
	case **bool:
		on := strings.EqualFold(node.Value, "true")
		*target = &on
	case *yaml.Node:
		if !isText {
			l.failNode(node, "%s takes one text", name)
			return
		}
		*target = *node
	case *setting:
		items := []*yaml.Node{node}
		if s.kind == repeatable {
			items = l.readTexts(node, name)
		} else if !isText {
			l.failNode(node, "%s takes one value: write it after the colon, in quotes if it is empty", name)
			return
		}
		s.file, s.line = items, node.Line
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
