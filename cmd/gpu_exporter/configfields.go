// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"gpu_exporter/collector"
)

// fields reads a list of fields.
func (r *configReader) fields(node *yaml.Node) []fieldEntry {
	if node.Kind != yaml.SequenceNode {
		r.fail(node, "%s is a list: begin each field with -", keyFields)
		return nil
	}
	var list []fieldEntry
	for _, item := range node.Content {
		if entry, ok := r.field(item); ok {
			if i := slices.IndexFunc(list, func(f fieldEntry) bool { return f.Name == entry.Name }); i >= 0 {
				r.fail(item, "the metric %s stands on line %d already: give one of them another name", entry.Name, list[i].line)
				continue
			}
			list = append(list, entry)
		}
	}
	return list
}

// field reads one field: its name alone, or a mapping.
func (r *configReader) field(node *yaml.Node) (fieldEntry, bool) {
	entry := fieldEntry{line: node.Line}
	problems := len(r.problems)
	var field, name, metric, help string
	var more collector.Counter
	statistics := false // it says whether there are to be any
	at := node
	var kinds []kindAt
	if node.Kind == yaml.ScalarNode {
		field = node.Value
	} else {
		keys := []string{"field", "name", "type", "help", "resolution", "statistics", "histogram", "kinds"}
		r.mapping(node, "a field", keys, func(key, value *yaml.Node) {
			switch key.Value {
			case "field":
				field, at = r.text(value, "field"), value
			case "name":
				name = r.text(value, "name")
			case "type":
				metric = r.text(value, "type")
			case "help":
				help = r.text(value, "help")
			case "resolution":
				more.Resolution, entry.resolutionLine = r.resolution(value), value.Line
			case "statistics":
				more.Statistics, statistics = r.boolean(value, "statistics"), true
			case "histogram":
				more.Histogram = r.boolean(value, "histogram")
			case "kinds":
				kinds = r.kinds(value)
			}
		})
		if field == "" && len(r.problems) == problems {
			r.fail(node, "a field needs the key field: write field: and the name or number of one")
		}
	}
	if len(r.problems) > problems {
		return entry, false
	}
	c, err := collector.NewCounter(field, name, metric, help)
	if err != nil {
		r.fail(at, "%v", err)
		return entry, false
	}
	if more.Resolution > 0 && !statistics { // who looks so often wants to see it
		more.Statistics = true
	}
	if more.Resolution > 0 && !more.Statistics && !more.Histogram {
		r.failAt(entry.resolutionLine, "resolution: without statistics and histogram nothing tells of what lies between samples: leave it out, or one of them in")
		return entry, false
	}
	if c.Computed != 0 && (len(kinds) > 0 || more.Resolution != 0 || more.Statistics || more.Histogram) {
		r.fail(at, "%s is computed by the exporter, and not read: leave kinds, resolution, statistics and histogram out", c.Name)
		return entry, false
	}
	for _, kind := range kinds {
		more.Kinds |= collector.Kinds(kind.EntityKind)
		if !c.Field.AnsweredBy(kind.EntityKind) {
			r.failAt(kind.line, "kinds: %s has no values on %v: use %s", c.Name, kind, listOf(kindsOf(c.Field)))
		}
	}
	if len(r.problems) > problems {
		return entry, false
	}
	if reason := c.NoStatistics(); reason != "" && (more.Statistics || more.Histogram) {
		r.fail(at, "%s %s", c.Name, reason)
		return entry, false
	}
	if more.Histogram && c.Scale != 0 {
		r.fail(at, "%s is made of a field in another unit, and histograms are of DCGM's own values: use %s", c.Name, c.Field.DCGMName())
		return entry, false
	}
	c.Kinds, c.Resolution, c.Statistics, c.Histogram = more.Kinds, more.Resolution, more.Statistics, more.Histogram
	entry.Counter = c
	return entry, true
}

func (r *configReader) resolution(node *yaml.Node) time.Duration {
	problems := len(r.problems)
	text := r.text(node, "resolution")
	if len(r.problems) > problems {
		return 0
	}
	d, err := parseDuration(text, "100ms")
	switch {
	case err != nil:
		r.fail(node, "resolution: %v", err)
	case d < minInterval:
		r.fail(node, "resolution: %v is too short: DCGM cannot keep up below %v", d, minInterval)
	}
	return d
}

// kindAt is a kind of entity, and the line that names it.
type kindAt struct {
	collector.EntityKind
	line int
}

func (r *configReader) kinds(node *yaml.Node) (list []kindAt) {
	for _, item := range r.texts(node, "kinds") {
		kind, ok := collector.KindByName(item.Value)
		if !ok || kind == collector.KindGlobal {
			r.fail(item, "unknown kind %q: use %s", item.Value, listOf(collector.KindNames()))
			continue
		}
		list = append(list, kindAt{kind, item.Line})
	}
	return list
}

// kindsOf names the kinds of entities that can be asked for the field.
func kindsOf(f collector.Field) (names []string) {
	for _, kind := range collectedKinds() {
		if f.AnsweredBy(kind) {
			names = append(names, kind.String())
		}
	}
	return names
}

// models reads the list of what is other on some models.
func (r *configReader) models(node *yaml.Node) {
	if node.Kind != yaml.SequenceNode {
		r.fail(node, "%s is a list: begin each entry with - match:", keyModels)
		return
	}
	for _, item := range node.Content {
		var entry modelEntry
		problems := len(r.problems)
		r.mapping(item, "an entry of models", []string{"match", "without", "fields"}, func(key, value *yaml.Node) {
			switch key.Value {
			case "match":
				entry.match = r.text(value, "match")
				if _, err := collector.ModelExpression(entry.match); err != nil {
					r.fail(value, "match: %q is not a regular expression: %v", entry.match, err)
				}
			case "without":
				for _, item := range r.texts(value, "without") {
					c, err := collector.NewCounter(item.Value, "", "", "")
					switch {
					case err != nil:
						r.fail(item, "%v", err)
						continue
					case c.Computed != 0:
						r.fail(item, computedForAll, c.Name)
						continue
					}
					entry.without = append(entry.without, withoutEntry{c, item.Line})
				}
			case "fields":
				entry.fields = r.fields(value)
				for _, f := range entry.fields {
					if f.Computed != 0 {
						r.failAt(f.line, computedForAll, f.Name)
					}
				}
			}
		})
		r.both(entry)
		if entry.match == "" && len(r.problems) == problems {
			r.fail(item, "an entry of models needs the key match: a regular expression of the GPU's model name")
		}
		if len(entry.without)+len(entry.fields) == 0 && len(r.problems) == problems {
			r.fail(item, "an entry of models says nothing of the GPUs that match: add without or fields, or remove it")
		}
		r.file.models = append(r.file.models, entry)
	}
}

// both finds fields that an entry of models adds and takes away at once.
func (r *configReader) both(entry modelEntry) {
	for _, f := range entry.fields {
		for _, without := range entry.without {
			if f.Computed == 0 && f.Field.ID == without.Field.ID {
				r.failAt(f.line, "%s is in fields and, on line %d, in without: remove one of them", f.Name, without.line)
				break
			}
		}
	}
}

// computedForAll is said of what an entry of models cannot have.
const computedForAll = "%s is computed by the exporter for all GPUs: models can neither add nor remove it, fields and counters files can add it"
