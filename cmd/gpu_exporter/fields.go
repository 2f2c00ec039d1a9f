// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"gpu_exporter/collector"
)

// The flags of fields.
const (
	optEntity = "entity"
	optType   = "type"
	optNode   = "node"
)

// fieldQuery says which fields of the catalogue are asked for.
type fieldQuery struct {
	// patterns are ids, globs, or parts of names; one must match. None: all do.
	patterns []string
	// kinds are those of which one must be asked for the field; none is any.
	kinds []string
	// types are words of natures and value types, of which one must be the field's.
	types []string
	// node asks whether the entities of this node have the fields.
	node bool
}

// newFieldQuery checks what was given. The error lists all that is wrong, one line
// each.
func newFieldQuery(patterns, entities, types []string, node bool) (fieldQuery, error) {
	q := fieldQuery{node: node}
	var problems []string
	for _, pattern := range patterns {
		pattern = strings.ToLower(strings.TrimSpace(pattern))
		if _, err := path.Match(pattern, ""); err != nil {
			problems = append(problems, fmt.Sprintf("%q is no pattern: close each [", pattern))
			continue
		}
		q.patterns = append(q.patterns, pattern)
	}
	for _, name := range items(entities) {
		if _, ok := collector.KindByName(name); !ok {
			problems = append(problems, fmt.Sprintf("--%s: %q is no kind of entity: use %s", optEntity, name, listOf(append(collector.KindNames(), collector.KindGlobal.String()))))
			continue
		}
		q.kinds = append(q.kinds, name)
	}
	known := fieldTypes()
	for _, word := range items(types) {
		if !slices.Contains(known, word) {
			problems = append(problems, fmt.Sprintf("--%s: %q is no type: use %s", optType, word, listOf(known)))
			continue
		}
		q.types = append(q.types, word)
	}
	if len(problems) > 0 {
		return q, fmt.Errorf("%s", strings.Join(problems, "\n"))
	}
	return q, nil
}

// items splits values that may be separated by commas.
func items(values []string) []string {
	var list []string
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.ToLower(strings.TrimSpace(item)); item != "" {
				list = append(list, item)
			}
		}
	}
	return list
}

// fieldTypes are the words of all natures and value types that fields have.
func fieldTypes() []string {
	var natures, values []string
	for f := range collector.Fields() {
		if f.Type == collector.ValueNone {
			continue
		}
		if word := f.Nature.String(); f.Nature != collector.MetricNone && !slices.Contains(natures, word) {
			natures = append(natures, word)
		}
		if word := f.Type.String(); !slices.Contains(values, word) {
			values = append(values, word)
		}
	}
	slices.Sort(natures)
	slices.Sort(values)
	return append(natures, values...)
}

func (q fieldQuery) matches(f describedField) bool {
	if len(q.types) > 0 && !slices.Contains(q.types, f.Type) && !slices.Contains(q.types, f.ValueType) {
		return false
	}
	if len(q.kinds) > 0 && !slices.ContainsFunc(q.kinds, func(kind string) bool { return kind == f.Level || slices.Contains(f.Kinds, kind) }) {
		return false
	}
	return len(q.patterns) == 0 || slices.ContainsFunc(q.patterns, f.named)
}

// named says whether a lower-case pattern is the field's id or fits one of its names.
func (f describedField) named(pattern string) bool {
	if id, err := strconv.ParseUint(pattern, 10, 16); err == nil {
		return collector.FieldID(id) == f.ID && !f.Computed
	}
	glob := strings.ContainsAny(pattern, "*?[")
	for _, name := range f.names {
		name = strings.ToLower(name)
		if !glob && strings.Contains(name, pattern) {
			return true
		}
		if fits, _ := path.Match(pattern, name); glob && fits { // the pattern was checked
			return true
		}
	}
	return false
}

// describedField is a field as it is printed. The names of its keys are stable.
type describedField struct {
	ID          collector.FieldID `json:"id"` // 0 if it is computed
	Name        string            `json:"name"`
	LegacyNames []string          `json:"legacy_names"`
	Type        string            `json:"type"`       // gauge, counter, label or none
	ValueType   string            `json:"value_type"` // int64, double, string, timestamp or binary
	Unit        string            `json:"unit"`       // empty where the value is a count, code, state or text
	Level       string            `json:"level"`      // the smallest kind of entity that it is about
	Kinds       []string          `json:"kinds"`      // those that are asked for it
	Profiling   bool              `json:"profiling"`
	Help        string            `json:"help"`
	// Computed says that it is no field of DCGM, but made by the exporter.
	Computed bool `json:"computed"`
	// BaseUnitName is the name under which a counters file has the values in a base
	// unit; empty where there is none.
	BaseUnitName string `json:"base_unit_name"`
	// Node says what there is of it on this node, by kind; nil if it was not asked.
	Node []kindSupport `json:"node,omitzero"`

	names []string // all that it is found by
}

func describe(f collector.Field) describedField {
	d := describedField{
		ID: f.ID, Name: f.Name, LegacyNames: append([]string{}, f.Legacy()...),
		Type: f.Nature.String(), ValueType: f.Type.String(), Unit: f.Unit,
		Level: f.Level.String(), Kinds: []string{}, Profiling: f.Profiling(), Help: f.Help,
		BaseUnitName: f.BaseUnitName(), names: append(f.Legacy(), f.Name),
	}
	if d.BaseUnitName == d.Name { // the values of f are those of the name before
		d.Name, d.LegacyNames = d.LegacyNames[0], d.LegacyNames[1:]
	}
	for _, kind := range collectedKinds() {
		if f.On(kind) {
			d.Kinds = append(d.Kinds, kind.String())
		}
	}
	return d
}

func describeComputed(c collector.Counter) describedField {
	d := describedField{
		Name: c.Name, LegacyNames: []string{}, Type: c.Type.String(), ValueType: collector.ValueInt64.String(),
		Kinds: []string{}, Help: c.Help, Computed: true, names: []string{c.Name},
	}
	for _, kind := range collectedKinds() {
		if c.Computed.On(kind) {
			d.Level = kind.String() // the smallest comes last
			d.Kinds = append(d.Kinds, d.Level)
		}
	}
	return d
}

// describeAll describes all that a counters file can ask for: the fields that have a
// value, and what is computed beside them.
func describeAll() []describedField {
	var all []describedField
	for f := range collector.Fields() {
		if f.Type != collector.ValueNone { // the edge of a range of ids
			all = append(all, describe(f))
		}
	}
	for _, c := range collector.ComputedCounters() {
		all = append(all, describeComputed(c))
	}
	return all
}

// listFields is the fields subcommand: it prints the fields that are asked for and
// returns the exit status.
func listFields(ctx context.Context, line commandLine, stdout, stderr io.Writer, environ []string) int {
	described := slices.DeleteFunc(describeAll(), func(f describedField) bool { return !line.fields.matches(f) })
	if len(described) == 0 {
		printf(stderr, "%s: error: no field matches%s\n", programName, line.fields.suggestion())
		return 1
	}
	if line.fields.node {
		for _, w := range line.warnings {
			printf(stderr, "%s: warning: %s\n", programName, w)
		}
		var fields []collector.Field
		for i := range described {
			if f, ok := collector.FieldByID(described[i].ID); ok && !described[i].Computed {
				fields = append(fields, f)
			}
		}
		support, err := nodeSupport(ctx, line.config, fields, stderr, environ)
		if err != nil {
			printf(stderr, "%s: error: %v\n", programName, err)
			return 1
		}
		for i := range described {
			described[i].Node = support[described[i].ID]
		}
	}
	if err := writeFields(stdout, described, line.fields.node, line.outputJSON); err != nil {
		printf(stderr, "%s: error: printing: %v\n", programName, err)
		return 1
	}
	return 0
}

// suggestion ends a message that nothing was found.
func (q fieldQuery) suggestion() string {
	for _, pattern := range q.patterns {
		if s := collector.SuggestField(pattern); s != "" {
			return fmt.Sprintf(" (did you mean %s?)", s)
		}
	}
	return ""
}

func writeFields(w io.Writer, fields []describedField, node, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(fields)
	}
	where := "ASKED OF"
	if node {
		where = "ON THIS NODE"
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	printf(table, "ID\tNAME\tTYPE\tVALUE\tUNIT\tLEVEL\t%s\tHELP\n", where)
	for _, f := range fields {
		id, here, help := strconv.Itoa(int(f.ID)), strings.Join(f.Kinds, ","), f.Help
		if node {
			here = supportText(f.Node)
		}
		if f.Computed {
			id = ""
			help += " Computed by the exporter."
			if node {
				here = "" // it is not DCGM that has it
			}
		}
		if f.Profiling {
			help += " Needs profiling."
		}
		if len(f.LegacyNames) > 0 {
			help += " Also " + strings.Join(f.LegacyNames, ", ") + "."
		}
		if f.BaseUnitName != "" {
			help += " In base units " + f.BaseUnitName + "."
		}
		printf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(id), f.Name, f.Type, f.ValueType, orDash(f.Unit), f.Level, orDash(here), help)
	}
	return table.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
