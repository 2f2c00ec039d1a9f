// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"

	"gopkg.in/yaml.v3"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// fieldEntry is an entry of fields.
type fieldEntry struct {
	field.Counter
	line, resolutionLine int
}

// modelEntry is an entry of models: which fields differ on the GPUs of some models.
type modelEntry struct {
	match   string // regular expression of the whole model name
	without []fieldEntry
	fields  []fieldEntry
}

// fields reads a list of fields.
func (r *fileReader) fields(node *yaml.Node) (list []fieldEntry) {
	if node.Kind != yaml.SequenceNode {
		r.fail(node, "fields is a list: begin each field with -")
		return nil
	}
	for _, item := range node.Content {
		entry, ok := r.field(item)
		if !ok {
			continue
		}
		if i := slices.IndexFunc(list, func(f fieldEntry) bool { return f.Name == entry.Name }); i >= 0 {
			r.fail(item, "the metric %s is defined on line %d already: give one of them another name", entry.Name, list[i].line)
			continue
		}
		list = append(list, entry)
	}
	return list
}

// field reads one field: its name alone, or a mapping.
func (r *fileReader) field(node *yaml.Node) (entry fieldEntry, ok bool) {
	entry.line = node.Line
	before := len(r.problems)
	failed := func() bool { return len(r.problems) > before }
	var f, name, metricType, help string
	var more field.Counter // what a counters file cannot contain
	var kinds []*yaml.Node
	noStatistics := false
	at := node // of the field's name
	if node.Kind == yaml.ScalarNode {
		f = node.Value
	} else {
		r.mapping(node, "a field", handlers{
			"field": func(key, value *yaml.Node) {
				r.text(&f)(key, value)
				at = value
			},
			"name": r.text(&name),
			"type": r.text(&metricType),
			"help": r.text(&help),
			"resolution": func(key, value *yaml.Node) {
				var text string
				r.text(&text)(key, value)
				if err := duration(&more.Resolution, minInterval, day).parse([]string{text}); err != nil && !failed() {
					r.fail(value, "resolution: %v", err)
				}
				entry.resolutionLine = value.Line
			},
			"statistics": func(key, value *yaml.Node) {
				r.boolean(&more.Statistics)(key, value)
				noStatistics = !more.Statistics
			},
			"histogram": r.boolean(&more.Histogram),
			"kinds":     func(key, value *yaml.Node) { kinds = r.texts(value, key.Value) },
		})
		if f == "" && !failed() {
			r.fail(node, "the key field is missing: write field: and the name or number of a field")
		}
	}
	if failed() {
		return entry, false
	}
	c, err := field.NewCounter(f, name, metricType, help)
	if err != nil {
		r.fail(at, "%v", err)
		return entry, false
	}
	// A resolution alone asks for statistics.
	more.Statistics = more.Statistics || more.Resolution > 0 && !noStatistics
	sampled := more.Statistics || more.Histogram
	switch reason := c.NoStatistics(); {
	case more.Resolution > 0 && !sampled:
		r.failAt(entry.resolutionLine, "resolution has no effect without statistics or histogram: remove it, or enable one of them")
	case c.Computed != 0 && (kinds != nil || sampled):
		r.fail(at, "%s is computed by the exporter: remove kinds, resolution, statistics and histogram", c.Name)
	case sampled && reason != "":
		r.fail(at, "%s %s", c.Name, reason)
	case more.Histogram && c.Scale != 0:
		r.fail(at, "%s is converted to another unit, and a histogram has DCGM's own values: use %s", c.Name, c.Field.DCGMName())
	}
	more.Kinds = r.kinds(kinds, c)
	c.Kinds, c.Resolution, c.Statistics, c.Histogram = more.Kinds, more.Resolution, more.Statistics, more.Histogram
	entry.Counter = c
	return entry, !failed()
}

// kinds reads the kinds of entities on which a field is read.
func (r *fileReader) kinds(nodes []*yaml.Node, c field.Counter) (set model.KindSet) {
	if c.Computed != 0 {
		return 0
	}
	for _, node := range nodes {
		kind, ok := model.KindByName(node.Value)
		switch {
		case !ok || kind == model.KindGlobal:
			r.fail(node, "unknown kind %q: use %s", node.Value, ListOf(model.KindNames()))
		case !c.Field.AnsweredBy(kind):
			var names []string
			for _, kind := range CollectedKinds() {
				if c.Field.AnsweredBy(kind) {
					names = append(names, kind.String())
				}
			}
			r.fail(node, "kinds: %s has no values on %v: use %s", c.Name, kind, ListOf(names))
		}
		set |= model.Kinds(kind)
	}
	return set
}

// models reads the list of differences between models.
func (r *fileReader) models(_, node *yaml.Node) {
	if node.Kind != yaml.SequenceNode {
		r.fail(node, "models is a list: begin each entry with - match:")
		return
	}
	for _, item := range node.Content {
		r.file.models = append(r.file.models, r.model(item))
	}
}

func (r *fileReader) model(node *yaml.Node) (entry modelEntry) {
	const computed = "%s is computed by the exporter for all GPUs: models cannot add or remove it; use fields or a counters file"
	before := len(r.problems)
	r.mapping(node, "an entry of models", handlers{
		"match": func(key, value *yaml.Node) {
			r.text(&entry.match)(key, value)
			if _, err := wire.ModelExpression(entry.match); err != nil {
				r.fail(value, "match: %q is not a regular expression: %v", entry.match, err)
			}
		},
		"without": func(_, value *yaml.Node) {
			for _, item := range r.texts(value, "without") {
				switch c, err := field.NewCounter(item.Value, "", "", ""); {
				case err != nil:
					r.fail(item, "%v", err)
				case c.Computed != 0:
					r.fail(item, computed, c.Name)
				default:
					entry.without = append(entry.without, fieldEntry{Counter: c, line: item.Line})
				}
			}
		},
		"fields": func(_, value *yaml.Node) {
			entry.fields = r.fields(value)
			for _, f := range entry.fields {
				if f.Computed != 0 {
					r.failAt(f.line, computed, f.Name)
				}
			}
		},
	})
	for _, f := range entry.fields {
		i := slices.IndexFunc(entry.without, func(w fieldEntry) bool { return f.Computed == 0 && f.Field.ID == w.Field.ID })
		if i >= 0 {
			r.failAt(f.line, "%s is in fields, and in without on line %d: remove one of them", f.Name, entry.without[i].line)
		}
	}
	switch {
	case len(r.problems) > before:
	case entry.match == "":
		r.fail(node, "an entry of models needs the key match: a regular expression of the GPU's model name")
	case len(entry.without)+len(entry.fields) == 0:
		r.fail(node, "an entry of models changes nothing: add without or fields, or remove it")
	}
	return entry
}
