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

// modelEntry is an entry of models: which fields differ on the GPUs of some models.
type modelEntry struct {
	match   string // regular expression of the whole model name
	without []counterEntry
	fields  []counterEntry
}

func (l *loader) readFields(node *yaml.Node) (list []counterEntry) {
	for _, item := range l.readItems(node, "fields is a list: begin each field with -") {
		entry, ok := l.readField(item)
		if !ok {
			continue
		}
		if i := find(list, entry.Name); i >= 0 {
			l.failNode(item, "the metric %s is defined on line %d already: give one of them another name", entry.Name, list[i].line)
			continue
		}
		list = append(list, entry)
	}
	return list
}

// readField reads one field: its name alone, or a mapping.
func (l *loader) readField(node *yaml.Node) (entry counterEntry, ok bool) {
	before := len(l.problems)
	var name, metric, metricType, help, resolution yaml.Node
	var statistics, histogram *bool
	var kinds []*yaml.Node
	if node.Kind == yaml.ScalarNode {
		name = *node
	} else {
		l.readMapping(node, "a field", targets{
			"field": &name, "name": &metric, "type": &metricType, "help": &help, "kinds": &kinds,
			"resolution": &resolution, "statistics": &statistics, "histogram": &histogram,
		})
		if name.Value == "" && len(l.problems) == before {
			l.failNode(node, "the key field is missing: write field: and the name or number of a field")
		}
	}
	every, err := ParseDuration(resolution.Value, minInterval, day)
	if err != nil && resolution.Kind != 0 {
		l.failNode(&resolution, "resolution: %v", err)
	}
	if len(l.problems) > before {
		return entry, false
	}
	c, err := field.NewCounter(name.Value, metric.Value, metricType.Value, help.Value)
	if err != nil {
		l.failNode(&name, "%v", err)
		return entry, false
	}
	c.Resolution, c.Histogram = every, histogram != nil && *histogram
	c.Statistics = every > 0 // a resolution alone enables statistics
	if statistics != nil {
		c.Statistics = *statistics
	}
	sampled := c.Statistics || c.Histogram
	switch reason := c.NoStatistics(); {
	case every > 0 && !sampled:
		l.failNode(&resolution, "resolution has no effect without statistics or histogram: remove it, or enable one of them")
	case c.Computed != 0 && (kinds != nil || sampled):
		l.failNode(&name, "%s is computed by the exporter: remove kinds, resolution, statistics and histogram", c.Name)
	case sampled && reason != "":
		l.failNode(&name, "%s %s", c.Name, reason)
	case c.Histogram && c.Scale != 0:
		l.failNode(&name, "%s is converted to another unit, and a histogram has DCGM's own values: use %s", c.Name, c.Field.DCGMName())
	}
	if c.Computed == 0 {
		c.Kinds = l.readKinds(kinds, c)
	}
	return counterEntry{c, l.config.ConfigFile, node.Line, resolution.Line}, len(l.problems) == before
}

// readKinds reads the kinds of entities on which a field is read.
func (l *loader) readKinds(nodes []*yaml.Node, c field.Counter) (set model.KindSet) {
	for _, node := range nodes {
		kind, ok := model.KindByName(node.Value)
		switch {
		case !ok || kind == model.KindGlobal:
			l.failNode(node, "unknown kind %q: use %s", node.Value, ListOf(model.KindNames()))
		case !c.Field.AnsweredBy(kind):
			var names []string
			for _, kind := range CollectedKinds() {
				if c.Field.AnsweredBy(kind) {
					names = append(names, kind.String())
				}
			}
			l.failNode(node, "kinds: %s has no values on %v: use %s", c.Name, kind, ListOf(names))
		}
		set |= model.Kinds(kind)
	}
	return set
}

func (l *loader) readModels(node *yaml.Node) {
	for _, item := range l.readItems(node, "models is a list: begin each entry with - match:") {
		l.models = append(l.models, l.readModel(item))
	}
}

func (l *loader) readModel(node *yaml.Node) (entry modelEntry) {
	const computed = "%s is computed by the exporter for all GPUs: models cannot add or remove it; use fields or a counters file"
	before := len(l.problems)
	var match yaml.Node
	var without []*yaml.Node
	l.readMapping(node, "an entry of models", targets{
		"match": &match, "without": &without, "fields": func(node *yaml.Node) { entry.fields = l.readFields(node) },
	})
	entry.match = match.Value
	if _, err := wire.ModelExpression(entry.match); err != nil {
		l.failNode(&match, "match: %q is not a regular expression: %v", entry.match, err)
	}
	for _, item := range without {
		switch c, err := field.NewCounter(item.Value, "", "", ""); {
		case err != nil:
			l.failNode(item, "%v", err)
		case c.Computed != 0:
			l.failNode(item, computed, c.Name)
		default:
			entry.without = append(entry.without, counterEntry{Counter: c, line: item.Line})
		}
	}
	for _, f := range entry.fields {
		if f.Computed != 0 {
			l.failAt(f.line, computed, f.Name)
		} else if i := slices.IndexFunc(entry.without, f.isSameField); i >= 0 {
			l.failAt(f.line, "%s is in fields, and in without on line %d: remove one of them", f.Name, entry.without[i].line)
		}
	}
	switch {
	case len(l.problems) > before:
	case entry.match == "":
		l.failNode(node, "an entry of models needs the key match: a regular expression of the GPU's model name")
	case len(entry.without)+len(entry.fields) == 0:
		l.failNode(node, "an entry of models changes nothing: add without or fields, or remove it")
	}
	return entry
}
