// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"encoding/json"
	"os"
	"time"
)

// view writes the input of grafana/render: the dashboard with its variables replaced, for
// the choice of the variables with which most queries have data.
func (p prometheus) view(d dashboard, path string, from, to time.Time) {
	p.t.Helper()
	choices, err := p.choices(d, from, to)
	if err != nil {
		p.t.Fatal(err)
	}
	best, most := choice{}, -1
	for _, c := range choices {
		count := 0
		for _, panel := range d.flat() {
			for _, q := range panel.Targets {
				if results, err := p.instant(d.expand(q.Expr, c, from, to, panel, q), to); err == nil && len(results) > 0 {
					count++
				}
			}
		}
		if count > most {
			best, most = c, count
		}
	}
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		if v.Type != "datasource" {
			variables[v.Name] = best[v.Name].text
		}
	}
	body, err := json.Marshal(map[string]any{
		"dashboard": p.expandAll(d, d.raw, best, from, to), "variables": variables, "from": from.Unix(), "to": to.Unix(),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// expandAll replaces the variables in the panels of a dashboard's JSON.
func (p prometheus) expandAll(d dashboard, raw any, c choice, from, to time.Time) any {
	switch v := raw.(type) {
	case map[string]any:
		if _, isPanel := v["gridPos"]; isPanel {
			return p.expandPanel(d, v, c, from, to)
		}
		out := map[string]any{}
		for key, inner := range v {
			out[key] = p.expandAll(d, inner, c, from, to)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = p.expandAll(d, inner, c, from, to)
		}
		return out
	}
	return raw
}

func (p prometheus) expandPanel(d dashboard, raw map[string]any, c choice, from, to time.Time) map[string]any {
	body, err := json.Marshal(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	var read panel
	if err := json.Unmarshal(body, &read); err != nil {
		p.t.Fatal(err)
	}
	out := map[string]any{}
	for key, inner := range raw {
		switch text, isText := inner.(string); {
		case key == "panels":
			out[key] = p.expandAll(d, inner, c, from, to)
		case isText:
			out[key] = d.expand(text, c.texts(), from, to, read, target{})
		default:
			out[key] = inner
		}
	}
	targets, _ := raw["targets"].([]any)
	var expanded []any
	for i, inner := range targets {
		q, _ := inner.(map[string]any)
		copied := map[string]any{}
		for key, value := range q {
			copied[key] = value
		}
		copied["expr"] = d.expand(read.Targets[i].Expr, c, from, to, read, read.Targets[i])
		copied["step"] = step(to.Sub(from), read, read.Targets[i]).Seconds()
		expanded = append(expanded, copied)
	}
	out["targets"] = expanded
	return out
}

// texts returns the choice for titles, which show the texts of values.
func (c choice) texts() choice {
	out := choice{}
	for name, v := range c {
		out[name] = chosen{text: v.text, values: []string{v.text}}
	}
	return out
}
