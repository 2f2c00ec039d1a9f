// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"gpu_exporter/collector/metrics/definition"
)

// exclusion is violations that are intended.
type exclusion struct {
	check     string
	dashboard string // "*": all; "!NAME": all but one
	panel     string // "*": all
	metric    func(string) bool
	reason    string
}

// exclusions are all exclusions. The check fails if one of them matches nothing.
// [TestSelections] checks what the queries select by instead.
var exclusions = []exclusion{
	{"template-instance-rule", "!exporter", "", anyMetric, "dashboards select devices by the label hostname, which does not change with the scrape configuration; only the dashboard of the exporters selects targets"},
	{"target-instance-rule", "!exporter", "*", anyMetric, "see template-instance-rule"},
	{"target-instance-rule", "exporter", "*", only(definition.SamplerUp.Name), "a target that is down is an exporter's if a different target of its job is"},
	{"target-job-rule", "*", "*", isRecord, "records have no label of a target: two servers that scrape a target must not double them"},
	{"target-job-rule", "workloads", "*", isInference, "inference servers are not targets of the exporter's jobs"},
	{"target-rate-interval-rule", "mig", "*", anyMetric, "an instance is idle by the last five minutes, as in the recording rules"},
	{"target-counter-agg-rule", "*", "XIDs", only(definition.GPUXIDCodeErrors.Name), "the series of a code begins with its first XID, so an increase would omit it; the table shows the errors since the exporter started"},
}

func anyMetric(string) bool { return true }

func only(name string) func(string) bool { return func(n string) bool { return n == name } }

func isRecord(name string) bool {
	_, ok := recordLabels(name)
	return ok
}

// isInference reports whether the metric is one of Triton or vLLM.
func isInference(name string) bool {
	return strings.HasPrefix(name, "nv_") || strings.HasPrefix(name, "vllm:")
}

func (x exclusion) matches(check, dashboard string, v violation) bool {
	except, negated := strings.CutPrefix(x.dashboard, "!")
	return x.check == check && (x.dashboard == "*" || x.dashboard == dashboard || negated && except != dashboard) &&
		(x.panel == "*" || x.panel == v.panel) && x.metric(v.metric)
}

// linter is the checks of github.com/grafana/dashboard-linter, by their names there. Each
// returns violations as panel and message.
var linter = map[string]func(Dashboard) []violation{
	"template-datasource-rule":            checkDataSourceVariable,
	"template-job-rule":                   func(d Dashboard) []violation { return checkTargetVariable(d, "job") },
	"template-instance-rule":              func(d Dashboard) []violation { return checkTargetVariable(d, "instance") },
	"template-label-promql-rule":          checkLabelVariables,
	"template-on-time-change-reload-rule": checkReload,
	"panel-datasource-rule":               checkPanelDataSource,
	"panel-title-description-rule":        checkTitles,
	"panel-units-rule":                    checkUnits,
	"panel-no-targets-rule":               checkTargets,
	"target-promql-rule":                  checkExpressions,
	"target-rate-interval-rule":           checkRateInterval,
	"target-job-rule":                     func(d Dashboard) []violation { return checkMatcher(d, "job") },
	"target-instance-rule":                func(d Dashboard) []violation { return checkMatcher(d, "instance") },
	"target-counter-agg-rule":             checkCounters,
	"uneditable-dashboard":                checkUneditable,
	"target-logql-rule":                   checkOnlyPrometheus,
	"target-logql-auto-rule":              checkOnlyPrometheus,
}

type violation struct{ panel, message, metric string }

// Both generations, built once for all tests.
var (
	defaults  = sync.OnceValues(func() ([]Dashboard, error) { return All(Default()) })
	baseUnits = sync.OnceValues(func() ([]Dashboard, error) { return All(BaseUnits()) })
)

func built(t *testing.T, n Names) []Dashboard {
	t.Helper()
	all := defaults
	if n.Folder == BaseUnits().Folder {
		all = baseUnits
	}
	dashboards, err := all()
	if err != nil {
		t.Fatal(err)
	}
	return dashboards
}

func each(t *testing.T, test func(*testing.T, Names, Dashboard)) {
	t.Helper()
	for _, n := range []Names{Default(), BaseUnits()} {
		for _, d := range built(t, n) {
			t.Run(filepath.Join(n.Folder, d.Name), func(t *testing.T) { test(t, n, d) })
		}
	}
}

func TestLinter(t *testing.T) {
	if len(linter) != 17 {
		t.Errorf("%d checks, the linter has 17", len(linter))
	}
	used := map[int]bool{}
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		for name, check := range linter {
			for _, v := range check(d) {
				i := slices.IndexFunc(exclusions, func(x exclusion) bool { return x.matches(name, d.Name, v) })
				if i < 0 {
					t.Errorf("%s: panel %q: %s", name, v.panel, v.message)
				}
				used[i] = true
			}
		}
	})
	for i, x := range exclusions {
		if !used[i] {
			t.Errorf("the exclusion of %s for panel %q matches nothing", x.check, x.panel)
		}
		if x.reason == "" {
			t.Errorf("the exclusion of %s has no reason", x.check)
		}
	}
}

// Each query selects by the variables: every selector by the cluster, and at least one by the
// node or the exporter if the dashboard has such a variable. A query without it would show
// devices that are not selected.
func TestSelections(t *testing.T) {
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		type target struct{ panel, expr string }
		selected := map[target]map[string]bool{} // whether a selector has the variable's label
		inspect(d, func(q Query, node parser.Node, _ []parser.Node) {
			s, ok := node.(*parser.VectorSelector)
			if !ok {
				return
			}
			by := map[string]bool{}
			for _, m := range s.LabelMatchers {
				by[m.Name] = by[m.Name] || m.Type == labels.MatchRegexp && m.Value == anyValue
			}
			if !by["cluster"] {
				t.Errorf("panel %q: %s does not select by $cluster", q.Panel, s)
			}
			key := target{q.Panel, q.Expr}
			if selected[key] == nil {
				selected[key] = map[string]bool{}
			}
			for label := range by {
				selected[key][label] = selected[key][label] || by[label]
			}
		})
		for name, label := range map[string]string{"node": "hostname", "gpu": "UUID", "instance": "instance"} {
			if variable(d, name) == nil {
				continue
			}
			for q, by := range selected {
				if !by[label] {
					t.Errorf("panel %q: %s does not select by $%s", q.panel, q.expr, name)
				}
			}
		}
		if len(selected) == 0 {
			t.Error("no query")
		}
	})
}

func variable(d Dashboard, name string) *dashboard.VariableModel {
	for i, v := range d.Model.Templating.List {
		if v.Name == name {
			return &d.Model.Templating.List[i]
		}
	}
	return nil
}

func checkDataSourceVariable(d Dashboard) []violation {
	v := variable(d, "datasource")
	if v == nil || v.Type != dashboard.VariableTypeDatasource || *v.Query.String != "prometheus" || *v.Label != "Data source" || v.Regex == nil {
		return []violation{{"", "no variable datasource of Prometheus, with a regex and the label Data source", ""}}
	}
	return nil
}

func checkTargetVariable(d Dashboard, name string) []violation {
	v := variable(d, name)
	switch {
	case v == nil:
		return []violation{{"", "no variable " + name, ""}}
	case v.Type != dashboard.VariableTypeQuery, *v.Datasource.Uid != "${datasource}", !*v.Multi, *v.AllValue != ".+", !*v.IncludeAll:
		return []violation{{"", "the variable " + name + " must be a query of ${datasource} for several values, and all as .+", ""}}
	}
	return nil
}

func checkLabelVariables(d Dashboard) (found []violation) {
	for _, v := range d.Model.Templating.List {
		if v.Type != dashboard.VariableTypeQuery {
			continue
		}
		inside, ok := strings.CutPrefix(*v.Query.String, "label_values(")
		inner, _, _ := strings.Cut(inside, ", "+inside[strings.LastIndex(inside, ", ")+2:])
		if !ok {
			inner, ok = strings.CutPrefix(*v.Query.String, "query_result(")
			inner = strings.TrimSuffix(inner, ")")
		}
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(Concrete(inner)); !ok || err != nil {
			found = append(found, violation{"", fmt.Sprintf("variable %s: %s: %v", v.Name, *v.Query.String, err), ""})
		}
	}
	return found
}

func checkReload(d Dashboard) (found []violation) {
	for _, v := range d.Model.Templating.List {
		if v.Type == dashboard.VariableTypeQuery && *v.Refresh != dashboard.VariableRefreshOnTimeRangeChanged {
			found = append(found, violation{"", "variable " + v.Name + " is not refreshed with the time range", ""})
		}
	}
	return found
}

func checkPanelDataSource(d Dashboard) (found []violation) {
	for p := range d.panels() {
		if p.Datasource == nil || *p.Datasource.Uid != "${datasource}" {
			found = append(found, violation{*p.Title, "no ${datasource}", ""})
		}
		for _, target := range p.Targets {
			if q := target.(prometheus.Dataquery); q.Datasource == nil || *q.Datasource.Uid != "${datasource}" {
				found = append(found, violation{*p.Title, "a query without ${datasource}", ""})
			}
		}
	}
	return found
}

func checkTitles(d Dashboard) (found []violation) {
	for p := range d.panels() {
		if *p.Title == "" || *p.Description == "" || !strings.HasSuffix(*p.Description, ".") || strings.Contains(*p.Title, "$") {
			found = append(found, violation{*p.Title, "no title, or no description of whole sentences", ""})
		}
	}
	return found
}

// units are the units that panels use.
var units = []string{"none", "percentunit", "celsius", "watt", "watth", "kwatth", "hertz", "bytes", "Bps", "cps", "reqps", "s", "dateTimeAsIso",
	"dtdurations", "dateTimeFromNow", "joule", "masskg", "short", "string"}

// checkUnits checks decimals as well.
func checkUnits(d Dashboard) (found []violation) {
	for p := range d.panels() {
		used := []string{*p.FieldConfig.Defaults.Unit}
		for _, o := range p.FieldConfig.Overrides {
			decimals := false
			for _, property := range o.Properties {
				if property.Id == "unit" {
					used = append(used, property.Value.(string))
				}
				decimals = decimals || property.Id == "decimals"
			}
			if len(o.Properties) > 1 && o.Properties[0].Id == "unit" && !decimals {
				found = append(found, violation{*p.Title, "a column without decimals", ""})
			}
		}
		for _, unit := range used {
			if !slices.Contains(units, unit) {
				found = append(found, violation{*p.Title, "unit " + unit, ""})
			}
		}
		if p.FieldConfig.Defaults.Decimals == nil {
			found = append(found, violation{*p.Title, "no decimals", ""})
		}
	}
	return found
}

func checkTargets(d Dashboard) (found []violation) {
	for p := range d.panels() {
		if len(p.Targets) == 0 {
			found = append(found, violation{*p.Title, "no query", ""})
		}
	}
	return found
}

func checkExpressions(d Dashboard) []violation {
	for _, q := range d.Queries {
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(Concrete(q.Expr)); err != nil {
			return []violation{{q.Panel, err.Error(), ""}}
		}
	}
	return nil
}

// inspect calls visit for each node of the queries of panels, with its parents.
func inspect(d Dashboard, visit func(q Query, node parser.Node, parents []parser.Node)) {
	for _, q := range d.Queries {
		if q.Annotation {
			continue
		}
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(Concrete(q.Expr))
		if err != nil {
			continue
		}
		parser.Inspect(expr, func(node parser.Node, parents []parser.Node) error {
			visit(q, node, parents)
			return nil
		})
	}
}

func call(parents []parser.Node) string {
	if len(parents) == 0 {
		return ""
	}
	if c, ok := parents[len(parents)-1].(*parser.Call); ok {
		return c.Func.Name
	}
	return ""
}

func checkRateInterval(d Dashboard) (found []violation) {
	inspect(d, func(q Query, node parser.Node, parents []parser.Node) {
		m, ok := node.(*parser.MatrixSelector)
		if name := call(parents); ok && (name == "rate" || name == "irate") && m.Range != 5*time.Minute {
			found = append(found, violation{q.Panel, "a rate over " + m.Range.String(), ""})
		}
	})
	for _, q := range d.Queries {
		if !q.Annotation && strings.Contains(q.Expr, "[5m]") {
			found = append(found, violation{q.Panel, "a rate over 5m instead of $__rate_interval", ""})
		}
	}
	return found
}

func checkMatcher(d Dashboard, label string) (found []violation) {
	inspect(d, func(q Query, node parser.Node, _ []parser.Node) {
		s, ok := node.(*parser.VectorSelector)
		if !ok {
			return
		}
		for _, m := range s.LabelMatchers {
			if m.Name == label && m.Type == 2 {
				return
			}
		}
		found = append(found, violation{q.Panel, s.String() + " has no matcher of " + label, s.Name})
	})
	return found
}

func checkCounters(d Dashboard) (found []violation) {
	inspect(d, func(q Query, node parser.Node, parents []parser.Node) {
		s, ok := node.(*parser.VectorSelector)
		if !ok || !strings.HasSuffix(s.Name, "_total") {
			return
		}
		if len(parents) > 1 {
			if name := call(parents[:len(parents)-1]); name == "rate" || name == "irate" || name == "increase" {
				return
			}
		}
		found = append(found, violation{q.Panel, s.Name + " without a rate or an increase", s.Name})
	})
	return found
}

func checkUneditable(d Dashboard) []violation {
	if d.Model.Editable == nil || *d.Model.Editable {
		return []violation{{"", "the dashboard is editable", ""}}
	}
	return nil
}

// checkOnlyPrometheus replaces the checks of queries of Loki: there are none.
func checkOnlyPrometheus(d Dashboard) (found []violation) {
	for p := range d.panels() {
		for _, target := range p.Targets {
			if target.DataqueryType() != "prometheus" {
				found = append(found, violation{*p.Title, "not a query of Prometheus", ""})
			}
		}
	}
	return found
}

// The SDK parses the files strictly, and writes them again as they are.
func TestStrict(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	each(t, func(t *testing.T, n Names, d Dashboard) {
		text, err := os.ReadFile(filepath.Join(n.Folder, d.Name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		// v0.0.22 of the SDK returns an empty list of problems instead of nil, and drops the
		// panels then, so that the file is read again without the strict parser.
		var strict, parsed dashboard.Dashboard
		var problems cog.BuildErrors
		if err := strict.UnmarshalJSONStrict(text); err != nil && (!errors.As(err, &problems) || len(problems) > 0) {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &parsed); err != nil {
			t.Fatal(err)
		}
		if err := parsed.Validate(); err != nil {
			t.Error(err)
		}
		again, err := json.Marshal(parsed)
		if err != nil {
			t.Fatal(err)
		}
		var before, after any
		if err := errors.Join(json.Unmarshal(text, &before), json.Unmarshal(again, &after)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Error("the SDK writes the file differently after it has read it")
		}
	})
}

// IDs are unique, and panels do not overlap or exceed the grid. The panels of a collapsed row
// have a grid of their own: Grafana moves what follows when the row is expanded.
func TestLayout(t *testing.T) {
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		ids := map[uint32]string{}
		type grid map[[2]uint32]string
		place := func(cells grid, id uint32, title string, at dashboard.GridPos) {
			if before, ok := ids[id]; ok {
				t.Errorf("panels %q and %q have the id %d", before, title, id)
			}
			ids[id] = title
			if at.X+at.W > gridWidth {
				t.Errorf("panel %q is wider than the grid", title)
			}
			for x := at.X; x < at.X+at.W; x++ {
				for y := at.Y; y < at.Y+at.H; y++ {
					if before, ok := cells[[2]uint32{x, y}]; ok {
						t.Fatalf("panels %q and %q overlap", before, title)
					}
					cells[[2]uint32{x, y}] = title
				}
			}
		}
		expanded := grid{}
		for _, p := range d.Model.Panels {
			if p.Panel != nil {
				place(expanded, *p.Panel.Id, *p.Panel.Title, *p.Panel.GridPos)
				continue
			}
			place(expanded, p.RowPanel.Id, *p.RowPanel.Title, *p.RowPanel.GridPos)
			collapsed := grid{}
			for _, inside := range p.RowPanel.Panels {
				place(collapsed, *inside.Id, *inside.Title, *inside.GridPos)
				if inside.GridPos.Y <= p.RowPanel.GridPos.Y {
					t.Errorf("panel %q is above its row", *inside.Title)
				}
			}
		}
		rows := map[uint32]bool{} // with a row or a panel
		for at := range expanded {
			rows[at[1]] = true
		}
		for y := range uint32(len(rows)) {
			if !rows[y] {
				t.Errorf("no panel at height %d: a gap", y)
			}
		}
	})
}

// Dashboards have what all of them need: identity, links, annotations and UTC.
func TestCommon(t *testing.T) {
	uids := map[string]bool{}
	each(t, func(t *testing.T, n Names, d Dashboard) {
		m := d.Model
		if uids[*m.Uid] || len(*m.Uid) > 40 || *m.Uid != "gpu-exporter-"+d.Name+n.Suffix {
			t.Errorf("uid %q", *m.Uid)
		}
		uids[*m.Uid] = true
		if *m.Timezone != "utc" || !slices.Equal(m.Tags, []string{tag + n.Suffix}) || m.SchemaVersion == 0 || m.Id != nil || *m.Refresh == "" {
			t.Errorf("time zone %q, tags %q, id %v", *m.Timezone, m.Tags, m.Id)
		}
		if len(m.Links) != 1 || !m.Links[0].AsDropdown || !m.Links[0].IncludeVars || !m.Links[0].KeepTime || !slices.Equal(m.Links[0].Tags, m.Tags) {
			t.Errorf("links %+v", m.Links)
		}
		var annotations []string
		for _, a := range m.Annotations.List {
			annotations = append(annotations, a.Name)
		}
		if !slices.Equal(annotations, []string{"XIDs", "Sampler restarts", "MIG changes"}) {
			t.Errorf("annotations %q", annotations)
		}
		records := slices.ContainsFunc(d.Queries, func(q Query) bool { return len(q.Uses.Records) > 0 })
		if says := strings.Contains(*m.Description, "recording rules"); records != d.Rules || says != d.Rules {
			t.Errorf("uses records: %v, Rules: %v, the description says so: %v", records, d.Rules, says)
		}
		if want := slices.Contains([]string{"fleet", "workloads", "jobs", "waste"}, d.Name); d.Rules && !want {
			t.Errorf("only the fleet, workloads, jobs and waste may need the recording rules")
		}
	})
}

// Each panel has a true text for an empty result, and no panel shows 0 for what is not
// known.
func TestAbsence(t *testing.T) {
	each(t, func(t *testing.T, _ Names, d Dashboard) {
		for p := range d.panels() {
			if p.FieldConfig.Defaults.NoValue == nil || strings.EqualFold(*p.FieldConfig.Defaults.NoValue, "no data") {
				t.Errorf("panel %q: no text for an empty result", *p.Title)
			}
			for _, target := range p.Targets {
				q := target.(prometheus.Dataquery)
				if strings.Contains(q.Expr, "vector(0)") {
					t.Errorf("panel %q: vector(0) is 0 also if nothing is known", *p.Title)
				}
				if strings.Contains(q.Expr, fmt.Sprint(-notKnown)) && !strings.Contains(mappings(p), fmt.Sprint(`"`, notKnown, `":`)) {
					t.Errorf("panel %q has no text for values that are not known", *p.Title)
				}
			}
			if p.Type == string(kindTimeSeries) {
				if text, _ := json.Marshal(p.FieldConfig.Defaults.Custom); !strings.Contains(string(text), `"spanNulls":false`) {
					t.Errorf("panel %q connects values over gaps", *p.Title)
				}
			}
		}
	})
}

func mappings(p dashboard.Panel) string {
	config, _ := json.Marshal(p.FieldConfig) // TestFiles marshals it as well
	return string(config)
}
