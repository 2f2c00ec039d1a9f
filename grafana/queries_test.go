// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/promql/parser"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
)

// programMetrics are the constants of exporter.go.
var programMetrics = []string{buildInfo, reloadSuccessful, reloadTime, droppedRecords, processCPU, processMemory, targetUp, scrapeDuration, scrapedSamples}

// Queries use metrics that exist: families, records, the fields of the counters file of the
// generation, and the metrics of programs. They use labels that exist.
func TestMetricsAndLabels(t *testing.T) {
	counters := map[string][]string{Default().Folder: counterNames(t, "default-counters.csv"), BaseUnits().Folder: counterNames(t, "dcgm-4.9-counters.csv")}
	each(t, func(t *testing.T, n Names, d Dashboard) {
		labels := slices.Concat(field.OwnLabelNames(), []string{"cluster", "job", "instance", "state", "version", "server", "model", "from", "finding", "owner", n.ChassisSerial.Name})
		for _, g := range definition.Groups() {
			for _, f := range g.Families {
				labels = append(labels, f.Labels...)
			}
		}
		for _, g := range rules.RecordGroups() {
			for _, r := range g.Records {
				labels = append(labels, r.By...)
			}
		}
		for _, q := range d.Queries {
			for _, name := range q.Uses.Others {
				known := isInference(name) && d.Name == "workloads" || slices.Contains(counters[n.Folder], name) || slices.Contains(programMetrics, name) && d.Name == "exporter" ||
					name == buildInfo || name == n.ChassisSlot.Name && d.Name == "fleet"
				if !known {
					t.Errorf("panel %q uses %s, which is neither a family, nor a record, nor in the counters file", q.Panel, name)
				}
			}
			for _, label := range q.Uses.Labels {
				if !slices.Contains(labels, label) {
					t.Errorf("panel %q uses the label %s, which no metric has", q.Panel, label)
				}
			}
		}
	})
}

func counterNames(t *testing.T, file string) (names []string) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "etc", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	counters, err := field.ParseCounters(f, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counters.List {
		names = append(names, c.FamilyNames()...)
	}
	return names
}

// The program defines the metrics that this package names by literals.
func TestProgramMetrics(t *testing.T) {
	var code strings.Builder
	for _, file := range []string{"log.go", "exporter.go", "internal/reload/reload.go"} {
		text, err := os.ReadFile(filepath.Join("..", "cmd", "gpu_exporter", file))
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	for _, name := range []string{reloadSuccessful, reloadTime, droppedRecords, "versioncollector.NewCollector(config.ProgramName)"} {
		if !strings.Contains(code.String(), name) {
			t.Errorf("cmd/gpu_exporter does not define %s", name)
		}
	}
}

var templates = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// Two series of a query differ in the labels that the legend shows. So a restart, an update
// of the driver or a new owner does not split a line into two with the same legend. Labels
// that the variables of the dashboard fix to one value need not be in the legend, nor the
// UUID of a GPU, which belongs to node and index.
func TestLegends(t *testing.T) {
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		var fixed []string
		if v := variable(d, "node"); v != nil && !*v.Multi {
			fixed = append(fixed, "cluster", "hostname")
		}
		if v := variable(d, "gpu"); v != nil && !*v.Multi {
			fixed = append(fixed, "UUID", "gpu")
		}
		legends := map[string]map[string]bool{}
		for _, q := range d.Queries {
			if q.Annotation || q.Table {
				continue
			}
			if legends[q.Panel] == nil {
				legends[q.Panel] = map[string]bool{}
			}
			if legends[q.Panel][q.Legend] {
				t.Errorf("panel %q: two queries have the legend %q", q.Panel, q.Legend)
			}
			legends[q.Panel][q.Legend] = true
			labels, ok := outputLabels(t, q.Expr)
			if !ok {
				t.Errorf("panel %q: %s has all labels of its series: aggregate it", q.Panel, q.Expr)
			}
			var shown []string
			for _, m := range templates.FindAllStringSubmatch(q.Legend, -1) {
				shown = append(shown, m[1])
				if !slices.Contains(labels, m[1]) {
					t.Errorf("panel %q: the legend shows %s, which the result does not have", q.Panel, m[1])
				}
			}
			for _, label := range labels {
				if !slices.Contains(shown, label) && !slices.Contains(fixed, label) && (label != "UUID" || !slices.Contains(shown, "gpu")) {
					t.Errorf("panel %q: two series that differ in %s have the legend %q", q.Panel, label, q.Legend)
				}
			}
		}
	})
}

// outputLabels returns the labels of the result of an expression, if they are limited.
func outputLabels(t *testing.T, expr string) ([]string, bool) {
	t.Helper()
	root, err := parser.NewParser(parser.Options{}).ParseExpr(Concrete(expr))
	if err != nil {
		t.Fatal(err)
	}
	return labelsOfExpr(root)
}

func labelsOfExpr(node parser.Expr) ([]string, bool) {
	switch n := node.(type) {
	case *parser.ParenExpr:
		return labelsOfExpr(n.Expr)
	case *parser.UnaryExpr:
		return labelsOfExpr(n.Expr)
	case *parser.NumberLiteral:
		return nil, true
	case *parser.SubqueryExpr:
		return labelsOfExpr(n.Expr)
	case *parser.AggregateExpr:
		if n.Op == parser.TOPK || n.Op == parser.BOTTOMK {
			return labelsOfExpr(n.Expr)
		}
		return n.Grouping, !n.Without
	case *parser.Call:
		switch n.Func.Name {
		case "time":
			return nil, true
		case "label_replace", "label_join":
			labels, ok := labelsOfExpr(n.Args[0])
			name, _ := n.Args[1].(*parser.StringLiteral)
			if value, _ := n.Args[2].(*parser.StringLiteral); value.Val == "" {
				return slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return l == name.Val }), ok
			}
			return slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(labels), name.Val)))), ok
		}
		for _, a := range n.Args {
			if a.Type() == parser.ValueTypeVector || a.Type() == parser.ValueTypeMatrix {
				return labelsOfExpr(a)
			}
		}
	case *parser.VectorSelector:
		return recordLabels(n.Name)
	case *parser.MatrixSelector:
		return labelsOfExpr(n.VectorSelector)
	case *parser.BinaryExpr:
		left, ok := labelsOfExpr(n.LHS)
		right, ok2 := labelsOfExpr(n.RHS)
		switch {
		case n.LHS.Type() == parser.ValueTypeScalar:
			return right, ok2
		case n.RHS.Type() == parser.ValueTypeScalar, n.Op == parser.LAND, n.Op == parser.LUNLESS:
			return left, ok
		case n.Op == parser.LOR:
			return slices.Compact(slices.Sorted(slices.Values(slices.Concat(left, right)))), ok && ok2
		case n.VectorMatching.Card == parser.CardManyToOne:
			return append(slices.Clone(left), n.VectorMatching.Include...), ok
		case n.VectorMatching.On:
			return n.VectorMatching.MatchingLabels, true
		}
		return left, ok
	}
	return nil, false
}

// recordLabels returns the labels of a record: they are limited, unlike those of a family.
func recordLabels(name string) ([]string, bool) {
	for _, g := range rules.RecordGroups() {
		for _, r := range g.Records {
			if r.Name == name {
				return slices.Clone(r.By), true
			}
		}
	}
	return nil, false
}

// The queries of a table have the table's keys as labels, so that rows match, and a column
// by which the table is sorted.
func TestTables(t *testing.T) {
	for _, n := range []Names{Default(), BaseUnits()} {
		for _, p := range pages(n) {
			for _, r := range p.rows {
				for _, panel := range r.panels {
					if panel.kind == kindTable {
						t.Run(filepath.Join(n.Folder, p.name, panel.title), func(t *testing.T) { checkTable(t, panel) })
					}
				}
			}
		}
	}
}

// ofAnswering is the end of orWhy.
var ofAnswering = regexp.MustCompile(`\(gpu_up\{[^()]*\) - 1000002`)

func checkTable(t *testing.T, p *panel) {
	var keys, titles []string
	for _, k := range p.keys {
		keys, titles = append(keys, k.name), append(titles, k.title)
	}
	slices.Sort(keys)
	for i, c := range p.columns {
		want := slices.Clone(keys)
		for _, l := range c.labels {
			want, titles = append(want, l.name), append(titles, l.title)
		}
		titles = append(titles, c.title)
		if ofAnswering.MatchString(c.expr) && strings.Contains(c.expr, definition.GPUOwners.Name) && slices.Contains(c.style.values, value{notSupported, "not supported", absent}) {
			t.Errorf("column %q: every GPU supports owners", c.title)
		}
		slices.Sort(want)
		labels, ok := outputLabels(t, c.expr)
		slices.Sort(labels)
		// Grafana merges rows by the labels that all results have.
		if !ok || i == 0 && !slices.Equal(labels, want) || slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(want, l) }) {
			t.Errorf("column %q has the labels %q, the table the keys %q", c.title, labels, want)
		}
	}
	if !slices.Contains(titles, p.sortBy) {
		t.Errorf("sorted by %q, which is no column", p.sortBy)
	}
	for i, title := range titles {
		if title != "" && slices.Contains(titles[:i], title) {
			t.Errorf("two columns are named %q", title)
		}
	}
}

var linkTarget = regexp.MustCompile(`^/d/([a-z0-9-]+)\?\$\{datasource:queryparam\}&\$\{cluster:queryparam\}&\$\{job:queryparam\}((?:&var-\w+=\$\{__(?:data\.fields\.\w+|field\.labels\.\w+)\})*)&\$\{__url_time_range\}$`)

// Data links lead to dashboards of the same generation, set variables that these have, and
// keep data source, cluster, job and time range.
func TestLinks(t *testing.T) {
	targets := map[string]Dashboard{}
	for _, n := range []Names{Default(), BaseUnits()} {
		for _, d := range built(t, n) {
			targets[*d.Model.Uid] = d
		}
	}
	each(t, func(t *testing.T, n Names, d Dashboard) {
		count := 0
		for p := range d.panels() {
			links := p.FieldConfig.Defaults.Links
			for _, o := range p.FieldConfig.Overrides {
				for _, property := range o.Properties {
					if list, ok := property.Value.([]dashboard.DashboardLink); ok {
						links = append(links, list...)
					}
				}
			}
			for _, l := range links {
				count++
				m := linkTarget.FindStringSubmatch(*l.Url)
				if m == nil {
					t.Errorf("panel %q: link %s", *p.Title, *l.Url)
					continue
				}
				target, ok := targets[m[1]]
				if !ok || !strings.HasSuffix(m[1], n.Suffix) {
					t.Errorf("panel %q: no dashboard %s", *p.Title, m[1])
					continue
				}
				for _, set := range strings.Split(m[2], "&")[1:] {
					name, _, _ := strings.Cut(strings.TrimPrefix(set, "var-"), "=")
					if variable(target, name) == nil {
						t.Errorf("panel %q: dashboard %s has no variable %s", *p.Title, m[1], name)
					}
				}
			}
		}
		if count == 0 && d.Name != "gpu" && d.Name != "exporter" {
			t.Error("no link leads to details")
		}
	})
}

// Each dashboard works with the default preset, except for its collapsed rows.
func TestGroups(t *testing.T) {
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		needed, details := d.Groups()
		for _, g := range definition.Groups() {
			if slices.Contains(needed, g.Name) && g.Preset > definition.Default {
				t.Errorf("a panel outside of collapsed rows needs the group %s, which the default preset does not have", g.Name)
			}
			if slices.Contains(details, g.Name) && g.Preset <= definition.Default {
				t.Errorf("only collapsed panels need the group %s of the preset %s", g.Name, g.Preset)
			}
		}
	})
}

// Counters of a lost GPU stay on the page and do not increase. A query with their rate also
// asks whether the GPU answers, so that unknown is not 0.
func TestRatesOfLostGPUs(t *testing.T) {
	devices := map[string]bool{}
	for _, g := range definition.Groups() {
		for _, f := range g.Families {
			devices[f.Name] = f.Per == definition.PerDevice || f.Per == definition.PerGPU
		}
	}
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		answers := map[string]bool{} // by expression
		rates := map[string]string{}
		inspect(d, func(q Query, node parser.Node, parents []parser.Node) {
			s, ok := node.(*parser.VectorSelector)
			if !ok {
				return
			}
			answers[q.Expr] = answers[q.Expr] || s.Name == definition.GPUUp.Name
			if devices[s.Name] && len(parents) > 1 && call(parents[:len(parents)-1]) == "rate" {
				rates[q.Expr] = q.Panel
			}
		})
		for expr, panel := range rates {
			if !answers[expr] {
				t.Errorf("panel %q has the rate of a GPU that may not answer: %s", panel, expr)
			}
		}
	})
}

// Annotations look back to the step before, whose length depends on the time range.
func TestAnnotationsLookBackOneStep(t *testing.T) {
	fixed := regexp.MustCompile(`(\[|offset )\d`)
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		for _, a := range d.Model.Annotations.List {
			if fixed.MatchString(*a.Expr) || a.Step != nil {
				t.Errorf("annotation %s has a time of its own: %s", a.Name, *a.Expr)
			}
		}
	})
}

// The columns of a table fit in its panel on a page of 1400 pixels, and those without a width
// have room for a name.
func TestTablesFit(t *testing.T) {
	const page, least = 1400, 75 // pixels
	for _, p := range pages(Default()) {
		for _, r := range p.rows {
			for _, table := range r.panels {
				if table.kind != kindTable {
					continue
				}
				rest, shared := int(table.width)*page/gridWidth-30, 0
				add := func(width int) {
					if rest -= width; width == 0 {
						shared++
					}
				}
				width := func(l label) (width int) {
					for _, o := range l.override() {
						width, _ = o.Properties[0].Value.(int)
					}
					return width
				}
				for _, key := range table.keys {
					if !slices.Contains(table.hidden, key.name) {
						add(width(key))
					}
				}
				for _, c := range table.columns {
					if c.title != "" {
						add(c.width)
					}
					for _, l := range c.labels {
						add(width(l))
					}
				}
				if rest < shared*least {
					t.Errorf("%s: table %q: %d columns share %d pixels", p.name, table.title, shared, rest)
				}
			}
		}
	}
}
