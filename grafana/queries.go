// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"

	"gpu_exporter/deploy/prometheus/rules"
)

var (
	selection = regexp.MustCompile(`"\$\{?\w+(:\w+)?\}?"`)
	amount    = regexp.MustCompile(`\$\{?\w+(:\w+)?\}?`)
)

// Query is a query of a panel or annotation.
type Query struct {
	Panel  string // title, or the annotation's name
	Expr   string // with the variables of Grafana
	Legend string
	Table  bool
	// Details is whether the panel is in a collapsed row, whose families are outside the
	// default preset.
	Details    bool
	Annotation bool
	Uses       rules.Uses
}

// queries returns the queries of all panels and annotations.
func queries(d Dashboard) ([]Query, error) {
	var list []Query
	add := func(q Query) error {
		uses, err := rules.Examine(Concrete(q.Expr))
		if err != nil {
			return fmt.Errorf("panel %q: %w", q.Panel, err)
		}
		q.Uses = uses
		list = append(list, q)
		return nil
	}
	for panel, details := range d.panels() {
		for _, target := range panel.Targets {
			t := target.(prometheus.Dataquery)
			q := Query{Panel: *panel.Title, Expr: t.Expr, Legend: *t.LegendFormat, Details: details,
				Table: t.Format != nil && *t.Format == prometheus.PromQueryFormatTable}
			if err := add(q); err != nil {
				return nil, err
			}
		}
	}
	for _, a := range d.Model.Annotations.List {
		if err := add(Query{Panel: a.Name, Expr: *a.Expr, Annotation: true}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Groups returns the groups of --families that the panels need, and in addition those that
// the collapsed rows need.
func (d Dashboard) Groups() (needed, details []string) {
	all, more := map[string]bool{}, map[string]bool{}
	for _, q := range d.Queries {
		for _, g := range q.Uses.Groups {
			if q.Details {
				more[g] = true
			} else {
				all[g] = true
			}
		}
	}
	maps.DeleteFunc(more, func(g string, _ bool) bool { return all[g] })
	return slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(more))
}

// panels yields the panels, and whether they are in a collapsed row.
func (d Dashboard) panels() func(func(dashboard.Panel, bool) bool) {
	return func(yield func(dashboard.Panel, bool) bool) {
		for _, p := range d.Model.Panels {
			if p.Panel != nil && !yield(*p.Panel, false) {
				return
			}
			if p.RowPanel == nil {
				continue
			}
			for _, inside := range p.RowPanel.Panels {
				if !yield(inside, true) {
					return
				}
			}
		}
	}
}

// anyValue replaces a selection of values of a label. No other expression is the same.
const anyValue = "(.*)"

// Concrete replaces Grafana's variables by values of their kind, so that Prometheus can
// parse the expression: selections of labels by all, and quantities by 1.
func Concrete(expr string) string {
	expr = strings.NewReplacer("$__rate_interval", "5m", "$__range_s", "10800", "$__range", "3h", "$__interval", "1m").Replace(expr)
	expr = selection.ReplaceAllString(expr, `"`+anyValue+`"`)
	return amount.ReplaceAllString(expr, "1")
}
