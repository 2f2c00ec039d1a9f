// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// Fields implements the command fields. It prints the fields that the arguments select, and
// returns the exit status.
func Fields(ctx context.Context, line config.CommandLine, open Open, stdout, stderr io.Writer) int {
	q, err := newQuery(line)
	if err != nil {
		return fail(stderr, err)
	}
	fields := slices.DeleteFunc(describeAll(), func(f description) bool { return !q.matches(f) })
	if len(fields) == 0 {
		return fail(stderr, errors.New("no field matches"+q.suggestion()))
	}
	if line.Node {
		for _, w := range line.Warnings {
			fmt.Fprintf(stderr, "%s: warning: %s\n", config.ProgramName, w)
		}
		if err := addSupport(ctx, line.Config, open, fields); err != nil {
			return fail(stderr, err)
		}
	}
	write := writeFields
	if line.Output == config.OutputJSON {
		write = func(w io.Writer, fields []description, _ bool) error { return writeJSON(w, fields) }
	}
	if err := write(stdout, fields, line.Node); err != nil {
		return fail(stderr, fmt.Errorf("printing: %w", err))
	}
	return 0
}

// query selects fields of the catalogue.
type query struct {
	// A field must match one element of each list. An empty list matches all fields.
	patterns []string // IDs, globs or parts of names
	kinds    []string // kinds of entities
	types    []string // metric types and value types
}

// newQuery validates the arguments of the command fields. The error has one line per
// mistake.
func newQuery(line config.CommandLine) (q query, err error) {
	lower := func(texts []string) (all []string) {
		for _, text := range texts {
			all = append(all, strings.ToLower(strings.TrimSpace(text)))
		}
		return all
	}
	q = query{lower(line.FieldNames), lower(line.FieldKinds), lower(line.FieldTypes)}
	for _, pattern := range q.patterns {
		if _, bad := path.Match(pattern, ""); bad != nil {
			err = errors.Join(err, fmt.Errorf("%q is not a pattern: close each [", pattern))
		}
	}
	for _, name := range q.kinds {
		if _, ok := model.KindByName(name); !ok {
			err = errors.Join(err, fmt.Errorf("--entity: unknown kind of entity %q: use %s", name, config.ListOf(append(model.KindNames(), model.KindGlobal.String()))))
		}
	}
	known := fieldTypes()
	for _, word := range q.types {
		if !slices.Contains(known, word) {
			err = errors.Join(err, fmt.Errorf("--type: unknown type %q: use %s", word, config.ListOf(known)))
		}
	}
	return q, err
}

// fieldTypes returns the metric types and value types of all fields.
func fieldTypes() []string {
	var metrics, values []string
	for f := range field.All() {
		if f.Type == model.ValueNone {
			continue
		}
		if f.Nature != field.MetricNone {
			metrics = append(metrics, f.Nature.String())
		}
		values = append(values, f.Type.String())
	}
	slices.Sort(metrics)
	slices.Sort(values)
	return append(slices.Compact(metrics), slices.Compact(values)...)
}

func (q query) matches(f description) bool {
	ofType := func(word string) bool { return word == f.Type || word == f.ValueType }
	ofKind := func(kind string) bool { return kind == f.Level || slices.Contains(f.Kinds, kind) }
	return (len(q.types) == 0 || slices.ContainsFunc(q.types, ofType)) &&
		(len(q.kinds) == 0 || slices.ContainsFunc(q.kinds, ofKind)) &&
		(len(q.patterns) == 0 || slices.ContainsFunc(q.patterns, f.matches))
}

// suggestion returns the end of the message that no field matches.
func (q query) suggestion() string {
	for _, pattern := range q.patterns {
		if s := field.Suggest(pattern); s != "" {
			return fmt.Sprintf(" (did you mean %s?)", s)
		}
	}
	return ""
}

// description is a field in the output. The JSON keys are a stable interface.
type description struct {
	ID          model.FieldID `json:"id"` // 0: computed
	Name        string        `json:"name"`
	LegacyNames []string      `json:"legacy_names"`
	Type        string        `json:"type"`       // gauge, counter, label or none
	ValueType   string        `json:"value_type"` // int64, double, string, timestamp or binary
	Unit        string        `json:"unit"`       // empty: a count, code, state or text
	Level       string        `json:"level"`      // the smallest kind of entity that has the field
	Kinds       []string      `json:"kinds"`      // the kinds on which it is read
	Profiling   bool          `json:"profiling"`
	Help        string        `json:"help"`
	Computed    bool          `json:"computed"` // by the exporter, not by DCGM
	// BaseUnitName is the name that selects the values in base units, or empty.
	BaseUnitName string `json:"base_unit_name"`
	// Node is the support on this node, by kind of entity; nil without --node.
	Node []kindSupport `json:"node,omitzero"`

	names []string // all names, for the query
}

// matches reports whether a lower-case pattern is the ID of the field or matches one of its
// names.
func (f description) matches(pattern string) bool {
	if id, err := strconv.ParseUint(pattern, 10, 16); err == nil {
		return model.FieldID(id) == f.ID && !f.Computed
	}
	glob := strings.ContainsAny(pattern, "*?[")
	return slices.ContainsFunc(f.names, func(name string) bool {
		name = strings.ToLower(name)
		if !glob {
			return strings.Contains(name, pattern)
		}
		matched, _ := path.Match(pattern, name) // newQuery has checked the pattern
		return matched
	})
}

// describeAll returns all fields with a value and all computed counters.
func describeAll() []description {
	var all []description
	for f := range field.All() {
		if f.Type == model.ValueNone {
			continue // the edge of a range of IDs
		}
		d := description{
			ID: f.ID, Name: f.Name, LegacyNames: append([]string{}, f.Legacy()...),
			Type: f.Nature.String(), ValueType: f.Type.String(), Unit: f.Unit,
			Level: f.Level.String(), Kinds: kindNames(f.On), Profiling: f.Profiling(), Help: f.Help,
			BaseUnitName: f.BaseUnitName(), names: f.Names(),
		}
		if d.BaseUnitName == d.Name { // the values in DCGM's own unit have the legacy name
			d.Name, d.LegacyNames = d.LegacyNames[0], d.LegacyNames[1:]
		}
		all = append(all, d)
	}
	for _, c := range field.ComputedCounters() {
		kinds := kindNames(c.Computed.On)
		all = append(all, description{
			Name: c.Name, LegacyNames: []string{}, Type: c.Type.String(), ValueType: model.ValueInt64.String(),
			Level: kinds[len(kinds)-1], Kinds: kinds, Help: c.Help, Computed: true, names: []string{c.Name},
		})
	}
	return all
}

// kindNames returns the names of the collected kinds for which on returns true.
func kindNames(on func(model.EntityKind) bool) []string {
	names := []string{}
	for _, kind := range config.CollectedKinds() {
		if on(kind) {
			names = append(names, kind.String())
		}
	}
	return names
}

// outputWidth is the maximum number of columns. A field with a long name needs most of it.
const outputWidth = 100

// writeFields prints a line for each field, and its description below, so that the output
// fits a terminal. The JSON output has more.
func writeFields(w io.Writer, fields []description, node bool) error {
	const indent = "      "
	width := 0
	for _, f := range fields {
		width = max(width, len(f.Name))
	}
	out := bufio.NewWriter(w)
	row := func(id, name, metric, value, unit string) {
		fmt.Fprintf(out, "%-4s  %-*s  %-7s  %-6s  %s\n", id, width, name, metric, value, unit)
	}
	row("ID", "NAME", "TYPE", "VALUE", "UNIT")
	for _, f := range fields {
		id := strconv.Itoa(int(f.ID))
		if f.Computed {
			id = "-"
		}
		row(id, f.Name, f.Type, f.ValueType, cmp.Or(f.Unit, "-"))
		text := f.text(node)
		for line := range config.Wrapped(text, outputWidth-len(indent)) {
			fmt.Fprintf(out, "%s%s\n", indent, line)
		}
	}
	return out.Flush()
}

// text returns the description of a field in sentences.
func (f description) text(node bool) string {
	text := f.Help
	if f.Computed {
		text += " Computed by the exporter."
	}
	if f.Profiling {
		text += " Needs profiling."
	}
	switch {
	case node && !f.Computed:
		text += " On this node: " + supportText(f.Node) + "."
	case len(f.Kinds) > 0:
		text += " Read on " + strings.Join(f.Kinds, ", ") + "."
	}
	if len(f.LegacyNames) > 0 {
		text += " Also " + strings.Join(f.LegacyNames, ", ") + "."
	}
	if f.BaseUnitName != "" {
		text += " In base units " + f.BaseUnitName + "."
	}
	return text
}
