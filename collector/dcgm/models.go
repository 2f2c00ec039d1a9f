// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"regexp"

	"gpu_exporter/collector"
)

// modelRules are the rules of the configuration on GPUs of some models.
type modelRules []modelRule

type modelRule struct {
	field collector.FieldID
	match *regexp.Regexp
	only  bool
}

func compileModelRules(rules []collector.ModelRule) (modelRules, error) {
	var all modelRules
	for _, r := range rules {
		match, err := regexp.Compile("^(?:" + r.Match + ")$")
		if err != nil {
			return nil, fmt.Errorf("reading the rule on models %q: %w", r.Match, err)
		}
		all = append(all, modelRule{r.Field, match, r.Only})
	}
	return all, nil
}

// exclude says whether GPUs of the model are not asked for the field.
func (rules modelRules) exclude(field collector.FieldID, model string) bool {
	limited, allowed := false, false
	for _, r := range rules {
		if r.field != field {
			continue
		}
		matches := r.match.MatchString(model)
		switch {
		case r.only:
			limited, allowed = true, allowed || matches
		case matches:
			return true
		}
	}
	return limited && !allowed
}

// sameFields are rows that are asked for the same fields.
type sameFields struct {
	fields []uint16
	rows   []int
}

// byExclusion groups rows of one kind by which of the fields they are asked for.
func (p *plan) byExclusion(fields []uint16, rows []int) []sameFields {
	var groups []sameFields
	at := make(map[string]int)
	for _, row := range rows {
		asked := make([]uint16, 0, len(fields))
		excluded := make(map[uint16]bool)
		for j, f := range p.inv.Columns[p.inv.Entities[row].Kind] {
			if p.fixed[row][j] == collector.StatusExcluded {
				excluded[uint16(f)] = true
			}
		}
		for _, f := range fields {
			if !excluded[f] {
				asked = append(asked, f)
			}
		}
		key := fmt.Sprint(asked)
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups = append(groups, sameFields{fields: asked})
		}
		groups[i].rows = append(groups[i].rows, row)
	}
	return groups
}
