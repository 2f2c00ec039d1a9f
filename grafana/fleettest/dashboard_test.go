// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dashboard is what the tests read of a dashboard's file.
type dashboard struct {
	file        string
	raw         map[string]any
	Title       string
	Time        struct{ From, To string }
	Panels      []panel
	Templating  struct{ List []variable }
	Annotations struct{ List []annotation }
}

type panel struct {
	ID            int
	Type          string
	Title         string
	Panels        []panel // of a collapsed row
	GridPos       struct{ W, H, X, Y int }
	Targets       []target
	Interval      string
	MaxDataPoints int
	Repeat        string
}

type target struct {
	RefID        string
	Expr         string
	Format       string
	LegendFormat string
	Instant      bool
	Hide         bool
	Interval     string
}

type variable struct {
	Name, Type string
	Query      any
	Regex      string
	Multi      bool
	IncludeAll bool
	AllValue   string
}

type annotation struct {
	Name   string
	Expr   string
	Target struct{ Expr string }
}

// readDashboards returns the dashboards of a folder of grafana.
func readDashboards(t *testing.T, folder string) []dashboard {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "grafana", folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []dashboard
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := dashboard{file: filepath.Join(folder, filepath.Base(file))}
		if err := json.Unmarshal(body, &d); err != nil {
			t.Fatalf("%s: %v", d.file, err)
		}
		if err := json.Unmarshal(body, &d.raw); err != nil {
			t.Fatalf("%s: %v", d.file, err)
		}
		all = append(all, d)
	}
	return all
}

// flat returns all panels with queries, those of collapsed rows included.
func (d dashboard) flat() []panel {
	var all []panel
	var add func([]panel)
	add = func(panels []panel) {
		for _, p := range panels {
			if p.Type != "row" {
				all = append(all, p)
			}
			add(p.Panels)
		}
	}
	add(d.Panels)
	return all
}

// duration of the dashboard's own time range, such as now-3h to now.
func (d dashboard) duration() (time.Duration, error) {
	m := regexp.MustCompile(`^now-(\d+)([smhdwM])(?:/\w)?$`).FindStringSubmatch(d.Time.From)
	if m == nil {
		return 0, fmt.Errorf("%s: the time range begins at %q, which is not of the form now-3h", d.file, d.Time.From)
	}
	n, err := strconv.Atoi(m[1])
	unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "M": 30 * 24 * time.Hour}[m[2]]
	return time.Duration(n) * unit, err
}

// choice is one value of each variable.
type choice map[string]chosen

type chosen struct {
	text   string
	values []string // more than one if the variable is All
	all    string   // what replaces All, if the variable says so
	multi  bool
}

// choices returns every combination of values of the variables with one value. Variables
// that may have several are All.
func (p prometheus) choices(d dashboard, from, to time.Time) ([]choice, error) {
	combinations := []choice{{}}
	for _, v := range d.Templating.List {
		var next []choice
		for _, c := range combinations {
			options, err := p.options(d, v, c, from, to)
			if err != nil {
				return nil, fmt.Errorf("%s: variable %s: %w", d.file, v.Name, err)
			}
			for _, o := range options {
				extended := maps.Clone(c)
				extended[v.Name] = o
				next = append(next, extended)
			}
		}
		combinations = next
	}
	return combinations, nil
}

// options returns the values that one variable may have after a choice of the earlier ones.
func (p prometheus) options(d dashboard, v variable, earlier choice, from, to time.Time) ([]chosen, error) {
	var texts, values []string
	switch v.Type {
	case "datasource", "adhoc":
		return []chosen{{text: "Prometheus", values: []string{"prometheus"}}}, nil
	case "custom", "interval", "constant", "textbox":
		query, _ := v.Query.(string)
		if v.Type == "constant" || v.Type == "textbox" {
			return []chosen{{text: query, values: []string{query}}}, nil
		}
		for _, option := range strings.Split(query, ",") {
			text, value, named := strings.Cut(strings.TrimSpace(option), " : ")
			if !named {
				value = text
			}
			texts, values = append(texts, text), append(values, value)
		}
	case "query":
		query, ok := v.Query.(string)
		if object, isObject := v.Query.(map[string]any); isObject {
			query, ok = object["query"].(string)
		}
		if !ok {
			return nil, fmt.Errorf("no query")
		}
		var err error
		if values, err = p.variableQuery(d.expand(query, earlier, from, to, panel{}, target{}), from, to); err != nil {
			return nil, err
		}
		if texts, values, err = applyRegex(v.Regex, values); err != nil {
			return nil, err
		}
		if len(values) == 0 {
			texts, values = []string{""}, []string{""}
		}
	default:
		return nil, fmt.Errorf("the tests do not know variables of type %q", v.Type)
	}
	if v.IncludeAll {
		return []chosen{{text: "All", values: values, all: v.AllValue, multi: true}}, nil
	}
	var all []chosen
	for i := range values {
		all = append(all, chosen{text: texts[i], values: values[i : i+1], multi: v.Multi})
	}
	return all, nil
}

var (
	labelValues = regexp.MustCompile(`^label_values\((?:(.+),\s*)?(\w+)\)$`)
	queryResult = regexp.MustCompile(`^query_result\((.+)\)$`)
)

// variableQuery runs a query of a variable as Grafana does.
func (p prometheus) variableQuery(query string, from, to time.Time) ([]string, error) {
	if m := labelValues.FindStringSubmatch(query); m != nil {
		parameters := url.Values{"start": {seconds(from)}, "end": {seconds(to)}}
		if m[1] != "" {
			parameters.Set("match[]", m[1])
		}
		var values []string
		err := p.api("label/"+m[2]+"/values", parameters, &values)
		return values, err
	}
	m := queryResult.FindStringSubmatch(query)
	if m == nil {
		return nil, fmt.Errorf("the tests do not know the query %q", query)
	}
	results, err := p.instant(m[1], to)
	var values []string
	for _, r := range results {
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(r.Metric)) {
			if name != "__name__" {
				pairs = append(pairs, fmt.Sprintf("%s=%q", name, r.Metric[name]))
			}
		}
		values = append(values, fmt.Sprintf("%s{%s} %v %d", r.Metric["__name__"], strings.Join(pairs, ","), r.Value.value, r.Value.at.UnixMilli()))
	}
	slices.Sort(values)
	return values, err
}

// applyRegex selects values and their texts. A regular expression may have slashes around
// it and groups named text and value.
func applyRegex(expression string, all []string) (texts, values []string, err error) {
	if expression == "" {
		return all, all, nil
	}
	re, err := regexp.Compile(strings.TrimSuffix(strings.TrimPrefix(expression, "/"), "/"))
	if err != nil {
		return nil, nil, err
	}
	for _, v := range all {
		m := re.FindStringSubmatch(v)
		if m == nil {
			continue
		}
		value, text := m[0], ""
		if re.NumSubexp() > 0 {
			value = m[1]
		}
		if i := re.SubexpIndex("value"); i >= 0 {
			value = m[i]
		}
		if i := re.SubexpIndex("text"); i >= 0 {
			text = m[i]
		}
		if text == "" {
			text = value
		}
		if !slices.Contains(values, value) {
			texts, values = append(texts, text), append(values, value)
		}
	}
	return texts, values, nil
}

// datasourceInterval is the scrape interval in the settings of the data source.
const datasourceInterval = scrapeInterval

// The width of the drawn dashboards, in pixels, and of the grid of panels.
const (
	pageWidth = 1400
	gridWidth = 24
)

// step returns the step of a query, as Grafana computes it from the width of the panel.
func step(span time.Duration, p panel, q target) time.Duration {
	points := p.MaxDataPoints
	if points == 0 {
		points = max(1, p.GridPos.W*pageWidth/gridWidth)
	}
	interval := span / time.Duration(points)
	for _, round := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 20 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
	} {
		if interval <= round {
			interval = round
			break
		}
	}
	return max(interval, minimumOf(p, q))
}

// minimumOf returns the minimum step: of the query, the panel or the data source.
func minimumOf(p panel, q target) time.Duration {
	for _, text := range []string{q.Interval, p.Interval} {
		if d, err := time.ParseDuration(strings.Replace(text, "1d", "24h", 1)); err == nil {
			return d
		}
	}
	return datasourceInterval
}

var reference = regexp.MustCompile(`\$\{(\w+)(?::(\w+))?[^}]*\}|\$(\w+)|\[\[(\w+)\]\]`)

// expand replaces the variables in a query as Grafana's Prometheus data source does.
func (d dashboard) expand(text string, c choice, from, to time.Time, p panel, q target) string {
	span, interval := to.Sub(from), step(to.Sub(from), p, q)
	scrape := minimumOf(p, q)
	globals := map[string]string{
		"__rate_interval": duration(max(interval+scrape, 4*scrape)), "__interval": duration(interval), "__interval_ms": fmt.Sprint(interval.Milliseconds()),
		"__range": duration(span), "__range_s": fmt.Sprint(int(span.Seconds())), "__range_ms": fmt.Sprint(span.Milliseconds()),
		"__from": fmt.Sprint(from.UnixMilli()), "__to": fmt.Sprint(to.UnixMilli()),
	}
	return reference.ReplaceAllStringFunc(text, func(match string) string {
		m := reference.FindStringSubmatch(match)
		name, format := m[1]+m[3]+m[4], m[2]
		if v, ok := globals[name]; ok {
			return v
		}
		v, ok := c[name]
		if !ok {
			return match
		}
		return v.format(format)
	})
}

func duration(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) + "s" }

func (c chosen) format(format string) string {
	if c.all != "" {
		return c.all
	}
	switch format {
	case "text":
		return c.text
	case "raw", "csv":
		return strings.Join(c.values, ",")
	case "pipe":
		return strings.Join(c.values, "|")
	}
	if !c.multi {
		return c.values[0]
	}
	var escaped []string
	for _, v := range c.values {
		escaped = append(escaped, strings.ReplaceAll(regexp.QuoteMeta(v), `\`, `\\`))
	}
	if len(escaped) == 1 {
		return escaped[0]
	}
	return "(" + strings.Join(escaped, "|") + ")"
}

// legend returns the name of a series.
func (q target) legend(labels map[string]string) string {
	if q.LegendFormat == "" || q.LegendFormat == "__auto" {
		return fmt.Sprint(labels)
	}
	return legendLabel.ReplaceAllStringFunc(q.LegendFormat, func(match string) string {
		return labels[legendLabel.FindStringSubmatch(match)[1]]
	})
}

var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
