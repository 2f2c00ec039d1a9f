// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ealerts

package e2e

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"

	"gpu_exporter/deploy/prometheus/rules"
)

// scaled divides the durations of an expression.
func scaled(t *testing.T, expr string, factor int) string {
	t.Helper()
	root, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatal(err)
	}
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.MatrixSelector:
			n.Range = max(n.Range/time.Duration(factor), 4*time.Second) // a rate needs samples
		case *parser.BinaryExpr:
			if number, ok := n.RHS.(*parser.NumberLiteral); ok && n.Op.IsComparisonOperator() && strings.Contains(n.LHS.String(), "time()") {
				number.Val /= float64(factor)
			}
		}
		return nil
	})
	return root.String()
}

// scaledAlerts returns a rule file of all alerts.
func scaledAlerts(t *testing.T, factor int) []byte {
	t.Helper()
	shorter := func(d time.Duration) string { return model.Duration(d / time.Duration(factor)).String() }
	var groups []map[string]any
	for _, g := range rules.AlertGroups() {
		var alerts []map[string]any
		for _, a := range g.Alerts {
			labels := map[string]string{"severity": string(a.Severity)}
			for name, value := range a.Labels {
				labels[name] = value
			}
			alerts = append(alerts, map[string]any{
				"alert": a.Name, "expr": scaled(t, a.Expr, factor), "for": shorter(a.For), "keep_firing_for": shorter(a.KeepFiringFor), "labels": labels,
				"annotations": map[string]string{"summary": a.Summary, "description": a.Action},
			})
		}
		groups = append(groups, map[string]any{"name": g.Name, "rules": alerts})
	}
	var b bytes.Buffer
	if err := yaml.NewEncoder(&b).Encode(map[string]any{"groups": groups}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestScale: durations change, and other numbers do not.
func TestScale(t *testing.T) {
	for expr, want := range map[string]string{
		`rate(x[15m]) > 8`:                    `rate(x[45s]) > 8`,
		`time() - max by (a) (x) < 600`:       `time() - max by (a) (x) < 30`,
		`abs(time() - x) > 300 unless y == 0`: `abs(time() - x) > 15 unless y == 0`,
	} {
		if got := scaled(t, expr, 20); got != want {
			t.Errorf("%s became %s, want %s", expr, got, want)
		}
	}
}
