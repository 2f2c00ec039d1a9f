// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	full       = flag.Bool("fleet", false, "record the fleet and run the queries of all dashboards on it")
	pages      = flag.Int("pages", 240, "length of the recording; a page is 0.5 s, and 30 s of the history")
	drawn      = flag.Bool("pictures", false, "draw the dashboards to grafana/images, with Chromium")
	dashboards = flag.String("dashboards", "", "part of the names of the dashboards to test or draw; default all")
	serve      = flag.Bool("serve", false, "let Prometheus run until the test is interrupted")
)

// generations has the folders of dashboards and the counters files whose names they use.
var generations = []struct{ folder, counters string }{
	{"dashboards", "builtin:default"},
	{"dashboards-dcgm-4.9", "builtin:dcgm-4.9"},
}

// TestDashboards: every query of every dashboard returns data, and no panel has two series
// of the same name, although exporters restart, drivers are updated and MIG layouts change.
func TestDashboards(t *testing.T) {
	if !*full && !*drawn && !*serve {
		t.Skip("records simulated nodes for some minutes: run make test-dashboards")
	}
	for _, g := range generations {
		t.Run(g.folder, func(t *testing.T) {
			selected := selectedDashboards(t, g.folder)
			if len(selected) == 0 {
				t.Skipf("no dashboard in grafana/%s is selected", g.folder)
			}
			p := startPrometheus(t)
			to := time.Now().Truncate(time.Minute)
			from := p.history(demo(t, "--counters.file="+g.counters).record(t, *pages), to)
			p.inference(from, to)
			p.evaluate(readRules(t), from, to)
			t.Logf("the history from %s to %s is at http://%s", from.UTC().Format(time.TimeOnly), to.UTC().Format(time.TimeOnly), p.address)
			if *full {
				for _, d := range selected {
					t.Run(strings.TrimSuffix(filepath.Base(d.file), ".json"), func(t *testing.T) { p.check(t, d, to) })
				}
			}
			if *drawn && g.folder == "dashboards" {
				p.draw(selected, from, to)
			}
			if *serve {
				<-t.Context().Done()
			}
		})
	}
}

func selectedDashboards(t *testing.T, folder string) []dashboard {
	t.Helper()
	var selected []dashboard
	for _, d := range readDashboards(t, folder) {
		if *dashboards == "" || strings.Contains(d.file, *dashboards) {
			selected = append(selected, d)
		}
	}
	return selected
}

// empty has the panels and queries without data on the fleet, as NAME/TITLE or NAME/TITLE/QUERY
// with the name of the dashboard, and the reason.
var empty = map[string]string{
	"exporter/Rejected frames by reason/B": "the sampler sends no invalid frame; collector/supervisor tests it",
	"workloads/Claims":                     "no pod has a ResourceClaim, which needs an API server; cmd/gpu_exporter/e2ekubelet tests it",
	"waste/annotation Sampler restarts":    "it looks back 2 min, and the steps of 30 days are longer; the Exporter dashboard has them",
	"waste/annotation MIG changes":         "it looks back 2 min, and the steps of 30 days are longer; the MIG dashboard has them",
}

// check runs the queries of a dashboard over its own time range, with each value of its
// variables.
func (p prometheus) check(t *testing.T, d dashboard, to time.Time) {
	span, err := d.duration()
	if err != nil {
		t.Fatal(err)
	}
	from := to.Add(-span)
	choices, err := p.choices(d, from, to)
	if err != nil {
		t.Fatal(err)
	}
	type query struct{ panel, ref string }
	found := map[query]bool{} // whether the query has data with a choice of the variables
	for _, c := range choices {
		for _, panel := range d.flat() {
			names := map[string]string{}
			for _, q := range panel.Targets {
				key := query{panel.Title, q.RefID}
				results, err := p.run(d, panel, q, c, from, to)
				found[key] = found[key] || len(results) > 0
				if err != nil {
					t.Errorf("panel %q, query %s: %v", panel.Title, q.RefID, err)
					continue
				}
				if q.Format == "table" || q.Hide {
					continue
				}
				for _, r := range results {
					name := q.legend(r.Metric)
					if other, taken := names[name]; taken {
						t.Errorf("panel %q has two series %q with %v:\n%s\n%s %v", panel.Title, name, c, other, q.RefID, r.Metric)
					}
					names[name] = fmt.Sprint(q.RefID, " ", r.Metric)
				}
			}
		}
		for _, a := range d.Annotations.List {
			expr := a.Expr
			if expr == "" {
				expr = a.Target.Expr
			}
			if expr == "" {
				continue
			}
			key := query{"annotation " + a.Name, ""}
			results, err := p.span(d.expand(expr, c, from, to, panel{}, target{}), from, to, max(time.Minute, span/5000))
			if err != nil {
				t.Errorf("annotation %q: %v", a.Name, err)
			}
			found[key] = found[key] || len(results) > 0
		}
	}
	for key, hasData := range found {
		name := strings.TrimSuffix(filepath.Base(d.file), ".json") + "/" + key.panel
		reason, listed := empty[name+"/"+key.ref]
		if !listed {
			reason, listed = empty[name]
		}
		switch {
		case !hasData && !listed:
			t.Errorf("panel %q, query %s returns no data on any node", key.panel, key.ref)
		case !hasData:
			t.Logf("panel %q, query %s has no data: %s", key.panel, key.ref, reason)
		case listed:
			t.Errorf("panel %q has data: remove it from the list of empty panels", key.panel)
		}
	}
	t.Logf("%d queries with %d choices of the variables", len(found), len(choices))
}

func (c choice) String() string {
	var parts []string
	for name, v := range c {
		if !v.multi && name != "datasource" {
			parts = append(parts, name+"="+v.text)
		}
	}
	return strings.Join(parts, " ")
}

// run runs a query of a panel.
func (p prometheus) run(d dashboard, panel panel, q target, c choice, from, to time.Time) ([]result, error) {
	expr := d.expand(q.Expr, c, from, to, panel, q)
	if q.Instant {
		return p.instant(expr, to)
	}
	return p.span(expr, from, to, step(to.Sub(from), panel, q))
}

// draw draws dashboards with the program in grafana/render.
func (p prometheus) draw(all []dashboard, from, to time.Time) {
	p.t.Helper()
	images, err := filepath.Abs(filepath.Join(root, "grafana/images"))
	if err != nil {
		p.t.Fatal(err)
	}
	views, err := filepath.Abs(filepath.Join(root, "build/views"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, dir := range []string{images, views} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	args := []string{"render.mjs", "http://" + p.address}
	for _, d := range all {
		view := filepath.Join(views, filepath.Base(d.file))
		p.view(d, view, from, to)
		args = append(args, view, filepath.Join(images, strings.TrimSuffix(filepath.Base(d.file), ".json")+".png"))
	}
	cmd := exec.CommandContext(p.t.Context(), "node", args...)
	cmd.Dir = filepath.Join(root, "grafana/render")
	output, err := cmd.CombinedOutput()
	p.t.Logf("%s", output)
	if err != nil {
		p.t.Errorf("render.mjs: %v", err)
	}
}
