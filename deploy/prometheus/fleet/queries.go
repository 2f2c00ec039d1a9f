// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// query is one query of a dashboard.
type query struct {
	dashboard, panel, expr string
	instant                bool
	step                   time.Duration
	took                   time.Duration
	series                 int
}

// The time range of a dashboard and the width of its panels in pixels, as Grafana uses
// them to choose the step.
const (
	window = time.Hour
	pixels = 1000
)

// queries times all queries of the dashboards on a Prometheus with the blocks.
func (b *bench) queries(ctx context.Context, data string) (slow bool, err error) {
	list, err := loadQueries(b.dashboards)
	if err != nil {
		return false, err
	}
	address, err := freeAddress()
	if err != nil {
		return false, err
	}
	server, stop, err := b.startPrometheus(ctx, data, "{}", address)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	end, err := newest(ctx, server)
	if err != nil {
		return false, err
	}
	for i := range list {
		if err := list[i].time(ctx, server, end); err != nil {
			return false, fmt.Errorf("%s, panel %q: %w\n%s", list[i].dashboard, list[i].panel, err, list[i].expr)
		}
	}
	slices.SortFunc(list, func(a, b query) int { return cmp.Compare(b.took, a.took) })
	shown := list
	if !b.all {
		shown = list[:min(20, len(list))]
	}
	fmt.Printf("\nQueries of the dashboards: %d, slowest %v (limit %v)\n", len(list), list[0].took.Round(time.Millisecond), maxQuery)
	for _, q := range shown {
		fmt.Printf("%8v %7d series  %s / %s\n", q.took.Round(time.Millisecond), q.series, q.dashboard, q.panel)
	}
	return list[0].took > maxQuery, nil
}

// newest returns the time of the newest sample.
func newest(ctx context.Context, server v1.API) (time.Time, error) {
	result, _, _, err := server.Query(ctx, `max(max_over_time(timestamp(up)[2h:30s]))`, time.Now())
	if err != nil {
		return time.Time{}, err
	}
	vector, ok := result.(model.Vector)
	if !ok || len(vector) == 0 {
		return time.Time{}, errors.New("the database has no series up")
	}
	return time.Unix(int64(vector[0].Value), 0), nil
}

// time runs the query three times and keeps the median.
func (q *query) time(ctx context.Context, server v1.API, end time.Time) error {
	var times []time.Duration
	for range 3 {
		start := time.Now()
		var result model.Value
		var err error
		if q.instant {
			result, _, _, err = server.Query(ctx, q.expr, end)
		} else {
			result, _, _, err = server.QueryRange(ctx, q.expr, v1.Range{Start: end.Add(-window), End: end, Step: q.step})
		}
		if err != nil {
			return err
		}
		times = append(times, time.Since(start))
		switch v := result.(type) {
		case model.Vector:
			q.series = len(v)
		case model.Matrix:
			q.series = len(v)
		}
	}
	slices.Sort(times)
	q.took = times[1]
	return nil
}

// dashboardFile is the part of a dashboard that has queries.
type dashboardFile struct {
	Title      string
	Templating struct {
		List []struct {
			Name, Type, AllValue string
			Query                any
		}
	}
	Panels []panel
}

type panel struct {
	Title    string
	Interval string
	Targets  []struct {
		Expr    string
		Instant bool
	}
	Panels []panel // of a collapsed row
}

// loadQueries reads the queries of all dashboards, with values in place of variables.
// Dashboards of a node or GPU show one of them; others show all.
func loadQueries(dir string) (list []query, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s has no dashboards", dir))
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var d dashboardFile
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		variables := map[string]string{"node": ".+", "gpu": ".*", "namespace": ".+", "pod": ".+"}
		if name == "node" || name == "gpu" {
			variables["node"] = "node-0001"
		}
		if name == "gpu" {
			variables["gpu"] = "GPU-00000001-.*"
		}
		for _, v := range d.Templating.List {
			if text, ok := v.Query.(string); ok && (v.Type == "constant" || v.Type == "textbox") {
				variables[v.Name] = text
			}
			if _, known := variables[v.Name]; !known {
				variables[v.Name] = cmp.Or(v.AllValue, ".*")
			}
		}
		list = append(list, queriesOf(name, d.Panels, variables)...)
	}
	return list, nil
}

func queriesOf(dashboard string, panels []panel, variables map[string]string) (list []query) {
	for _, p := range panels {
		list = append(list, queriesOf(dashboard, p.Panels, variables)...)
		step := max(scrapeInterval, window/pixels)
		if least, err := model.ParseDuration(p.Interval); err == nil {
			step = max(step, time.Duration(least))
		}
		for _, t := range p.Targets {
			if t.Expr != "" {
				list = append(list, query{dashboard: dashboard, panel: p.Title, expr: replaceVariables(t.Expr, step, variables), instant: t.Instant, step: step})
			}
		}
	}
	return list
}

// replaceVariables replaces variables as Grafana does.
func replaceVariables(expr string, step time.Duration, variables map[string]string) string {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%ds", int(d.Seconds())) }
	built := map[string]string{
		"__rate_interval": seconds(max(step+scrapeInterval, 4*scrapeInterval)),
		"__interval":      seconds(step),
		"__range":         seconds(window),
		"__range_s":       fmt.Sprint(int(window.Seconds())),
	}
	return os.Expand(strings.ReplaceAll(expr, "$$", "$"), func(name string) string {
		name, _, _ = strings.Cut(name, ":") // a format such as ${node:regex}
		if v, ok := built[name]; ok {
			return v
		}
		return variables[name]
	})
}

// newAPI returns a client of a Prometheus.
func newAPI(address string) (v1.API, error) {
	client, err := api.NewClient(api.Config{Address: (&url.URL{Scheme: "http", Host: address}).String()})
	if err != nil {
		return nil, err
	}
	return v1.NewAPI(client), nil
}
