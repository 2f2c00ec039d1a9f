// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"gpu_exporter/collector/metrics/definition"
)

// Uses is what an expression refers to. Each list is sorted and has each item once.
type Uses struct {
	Families []*definition.Family
	Records  []*Record
	// Others is the names that are neither: DCGM's fields, and metrics of Prometheus such as
	// up.
	Others []string
	// Labels is the labels that the expression matches on, groups by, joins on or replaces.
	Labels []string
	// Groups is the --families groups that the expression needs, including those of its
	// records. A family without a group is always published.
	Groups []string
}

// Examine parses an expression and returns what it refers to. Grafana's variables must be
// replaced before. A selector without a fixed name is an error.
func Examine(expr string) (Uses, error) {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return Uses{}, fmt.Errorf("parse %q: %w", expr, err)
	}
	names, used := map[string]bool{}, map[string]bool{}
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			name := n.Name
			for _, m := range n.LabelMatchers {
				switch {
				case m.Name != model.MetricNameLabel:
					used[m.Name] = true
				case m.Type == labels.MatchEqual:
					name = m.Value
				}
			}
			if name == "" {
				err = fmt.Errorf("%s in %q has no fixed name", n, expr)
			}
			names[name] = true
		case *parser.AggregateExpr:
			add(used, n.Grouping)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				add(used, n.VectorMatching.MatchingLabels)
				add(used, n.VectorMatching.Include)
			}
		case *parser.Call:
			if n.Func.Name == "label_replace" || n.Func.Name == "label_join" {
				if dst, ok := n.Args[1].(*parser.StringLiteral); ok {
					used[dst.Val] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		return Uses{}, err
	}
	u := Uses{Labels: slices.Sorted(maps.Keys(used))}
	groups := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if f := familyByName(name); f != nil {
			u.Families = append(u.Families, f)
			for _, g := range definition.Groups() {
				if slices.Contains(g.Families, f) {
					groups[g.Name] = true
				}
			}
			continue
		}
		r := recordByName(name)
		if r == nil {
			u.Others = append(u.Others, name)
			continue
		}
		u.Records = append(u.Records, r)
		needs, err := Examine(r.Expr)
		if err != nil {
			return Uses{}, err
		}
		add(groups, needs.Groups)
	}
	u.Groups = slices.Sorted(maps.Keys(groups))
	return u, nil
}

func add(set map[string]bool, names []string) {
	for _, name := range names {
		set[name] = true
	}
}

func recordByName(name string) *Record {
	for _, g := range RecordGroups() {
		for _, r := range g.Records {
			if r.Name == name {
				return r
			}
		}
	}
	return nil
}

func familyByName(name string) *definition.Family {
	for _, g := range definition.Groups() {
		for _, f := range g.Families {
			if f.Name == name {
				return f
			}
		}
	}
	return nil
}
