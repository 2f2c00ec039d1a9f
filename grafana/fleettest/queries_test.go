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
	{"dashboards", "default-counters.csv"},
	{"dashboards-dcgm-4.9", "dcgm-4.9-counters.csv"},
}

// TestDashboards: every query of every dashboard returns data, and no panel has two series
// of the same name, although exporters restart, drivers are updated and MIG layouts change.
func TestDashboards(t *testing.T) {
	if !*full && !*drawn && !*serve {
		t.Skip("records simulated nodes for some minutes: run make test-dashboards")
	}
	selected := map[string][]dashboard{}
	count := 0
	for _, g := range generations {
		selected[g.folder] = selectedDashboards(t, g.folder)
		count += len(selected[g.folder])
	}
	if count == 0 {
		t.Fatalf("no path of a dashboard contains %q", *dashboards)
	}
	p := startPrometheus(t)
	last := time.Now()
	took := func() time.Duration {
		before := last
		last = time.Now()
		return last.Sub(before).Round(time.Second)
	}
	recorded := demo(t).record(t, *pages)
	t.Logf("recording %d pages of %d nodes took %v", *pages, len(recorded), took())
	to := time.Now().Truncate(time.Minute)
	from := p.history(recorded, to)
	p.inference(from, to)
	t.Logf("writing the history took %v", took())
	p.evaluate(readRules(t), from, to)
	t.Logf("evaluating the rules took %v", took())
	t.Logf("the history from %s to %s is at http://%s", from.UTC().Format(time.TimeOnly), to.UTC().Format(time.TimeOnly), p.Address)
	for _, g := range generations {
		for _, d := range selected[g.folder] {
			if *full {
				t.Run(strings.TrimSuffix(d.file, ".json"), func(t *testing.T) { p.in(t).check(d, to) })
			}
		}
	}
	if *drawn {
		p.draw(selected["dashboards"], from, to)
	}
	if *serve {
		<-t.Context().Done()
	}
}

func selectedDashboards(t *testing.T, folder string) []dashboard {
	t.Helper()
	var selected []dashboard
	for _, d := range readDashboards(t, folder) {
		if strings.Contains(d.file, *dashboards) {
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
}

// check runs the queries of a dashboard over its own time range, with each value of its
// variables.
func (p prometheus) check(d dashboard, to time.Time) {
	t := p.t
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
			window := panel{} // Grafana queries as many values as the window has pixels
			window.GridPos.W = gridWidth
			results, err := p.span(d.expand(expr, c, from, to, window, target{}), from, to, step(span, window, target{}))
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
	made := func(path string) string {
		absolute, err := filepath.Abs(filepath.Join(root, path))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(absolute), 0o755)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		return absolute
	}
	args := []string{"render.mjs", "http://" + p.Address}
	for _, d := range all {
		name := strings.TrimSuffix(filepath.Base(d.file), ".json")
		view := made("build/views/" + name + ".json")
		p.view(d, view, from, to)
		args = append(args, view, made("grafana/images/"+name+".png"))
	}
	cmd := exec.CommandContext(p.t.Context(), "node", args...)
	cmd.Dir = filepath.Join(root, "grafana/render")
	cmd.Stdout, cmd.Stderr = p.t.Output(), p.t.Output() // as it comes: a picture takes minutes on a busy machine
	if err := cmd.Run(); err != nil {
		p.t.Errorf("render.mjs: %v", err)
	}
}
