// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gpu_exporter/collector/field"
)

func code(s string) string { return "`" + s + "`" }

func codes(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = code(s)
	}
	return strings.Join(quoted, ", ")
}

// cell makes a text fit for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// checkFile compares a file with what it must be, or writes it.
func checkFile(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not up to date, run make docs:\n%s", path, firstDifference(string(got), want))
	}
}

// asPage puts a page together.
func asPage(title, intro, body string) string {
	return "<!-- Written by `make docs`: change the code, not this page. -->\n\n# " + title + "\n\n" + strings.TrimSpace(intro) + "\n" + body
}

const metricsIntro = `
The families that are the exporter's own, beside those that a counters file names:
DCGM's fields (see [FIELDS.md](../field/FIELDS.md)) and dcgm-exporter's ` + "`DCGM_EXP_*`" + `. Families
without a series are left out.

The labels in the table come on top of the identity of what the family is about: for
a GPU ` + "`gpu`, `UUID`, `pci_bus_id`, `device`, `modelName`" + `, for an instance also
` + "`GPU_I_PROFILE` and `GPU_I_ID`" + `, and ` + "`hostname`" + ` on all. ` + "`gpu_exporter_*`" + ` have none of them, nor
have ` + "`gpu_xid_info`" + ` and ` + "`gpu_pod_labels`" + ` a device's.

A field of the configuration file with ` + "`statistics: true`" + ` adds the gauges ` + "`NAME_min`, `NAME_max`" + `
and ` + "`NAME_mean`" + `, of the time since the sample before; one with ` + "`histogram: true`" + ` adds the
native histogram ` + "`NAME_histogram`" + `.
`

// METRICS.md has every family of ours: what the definitions in the source say.
func TestMetricsPage(t *testing.T) {
	own := slices.Concat(definitions(t, "*.go"), gaugeOptions(t, "../../cmd/gpu_exporter/*.go"), gaugeOptions(t, "../../cmd/gpu_exporter/internal/*/*.go"))
	slices.SortFunc(own, func(a, b definition) int { return strings.Compare(a.Name, b.Name) })
	var b strings.Builder
	for _, part := range []struct {
		title string
		state bool
	}{{"Devices and who holds them", false}, {"The exporter", true}} {
		fmt.Fprintf(&b, "\n## %s\n\n| family | type | labels | meaning |\n|---|---|---|---|\n", part.title)
		for i, d := range own {
			if i > 0 && own[i-1].Name == d.Name {
				t.Errorf("%s is defined twice", d.Name)
			}
			if strings.HasPrefix(d.Name, "gpu_exporter_") == part.state {
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(d.Name), d.Type, codes(d.Labels), cell(d.Help))
			}
		}
	}
	b.WriteString("\nBeside these there are the usual `go_*`, `process_*`, `promhttp_*` and `gpu_exporter_build_info`.\n")
	checkFile(t, "METRICS.md", asPage("Metrics of our own", metricsIntro, b.String()))
}

// definitions are all values of type definition in the source files. They are read
// from there, so that none can be forgotten.
func definitions(t *testing.T, pattern string) (found []definition) {
	types := map[string]field.MetricType{
		"MetricGauge": field.MetricGauge, "MetricCounter": field.MetricCounter, "MetricLabel": field.MetricLabel, "MetricHistogram": field.MetricHistogram,
	}
	literals(t, pattern, func(at token.Position, typ ast.Expr, elements []ast.Expr) {
		if name, ok := typ.(*ast.Ident); !ok || name.Name != "definition" {
			return
		}
		if len(elements) != 4 {
			t.Fatalf("%s: a definition has %d elements, not name, type, help and labels", at, len(elements))
		}
		metric, ok := elements[1].(*ast.SelectorExpr)
		if !ok || types[metric.Sel.Name] == field.MetricNone {
			t.Fatalf("%s: the type of the definition is not a plain MetricType", at)
		}
		d := definition{Name: text(t, at, elements[0]), Type: types[metric.Sel.Name], Help: text(t, at, elements[2])}
		switch labels := elements[3].(type) {
		case *ast.CompositeLit:
			for _, label := range labels.Elts {
				d.Labels = append(d.Labels, text(t, at, label))
			}
		case *ast.Ident:
			if labels.Name != "nil" {
				t.Fatalf("%s: the labels of the definition are not written out", at)
			}
		default:
			t.Fatalf("%s: the labels of the definition are not written out", at)
		}
		found = append(found, d)
	})
	if len(found) == 0 {
		t.Fatalf("no definition in %s", pattern)
	}
	return found
}

// gaugeOptions are the gauges that the program makes with client_golang.
func gaugeOptions(t *testing.T, pattern string) (found []definition) {
	literals(t, pattern, func(at token.Position, typ ast.Expr, elements []ast.Expr) {
		name, ok := typ.(*ast.SelectorExpr)
		if !ok || !strings.HasSuffix(name.Sel.Name, "Opts") || name.X.(*ast.Ident).Name != "prometheus" {
			return
		}
		d := definition{Type: field.MetricGauge}
		if name.Sel.Name == "CounterOpts" {
			d.Type = field.MetricCounter
		}
		for _, e := range elements {
			pair := e.(*ast.KeyValueExpr)
			switch pair.Key.(*ast.Ident).Name {
			case "Name":
				d.Name = text(t, at, pair.Value)
			case "Help":
				d.Help = text(t, at, pair.Value)
			}
		}
		found = append(found, d)
	})
	return found
}

// literals calls each for the composite literals in source files that are no tests.
func literals(t *testing.T, pattern string, each func(token.Position, ast.Expr, []ast.Expr)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.CompositeLit); ok {
				each(set.Position(literal.Pos()), literal.Type, literal.Elts)
			}
			return true
		})
	}
}

// text returns the value of a string in the source.
func text(t *testing.T, at token.Position, e ast.Expr) string {
	t.Helper()
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		t.Fatalf("%s: a text of the definition is not written out", at)
	}
	s, err := strconv.Unquote(literal.Value)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	return s
}
