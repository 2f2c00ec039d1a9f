// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package grafana has the dashboards, and the code that generates them from the
// definitions of the metrics. A renamed or removed metric breaks its build.
//
// [All] is the list of dashboards. shared.go has variables, links and annotations,
// panels.go the types of panels, and names.go the names of DCGM's fields. Each dashboard
// has a file of its own.
//
// This package must not be part of the exporter.
package grafana

import (
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Dashboard is a generated dashboard.
type Dashboard struct {
	Name  string // of the file, without the extension
	Model dashboard.Dashboard
	// Rules is whether queries use the series of the recording rules.
	Rules   bool
	Queries []Query // of panels and annotations
}

// JSON returns the content of the file.
func (d Dashboard) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(d.Model, "", "  ")
	return append(text, '\n'), err
}

// pages returns the sources of the dashboards, in the order of README.md.
func pages(n Names) []page {
	return []page{
		fleet(n),
		node(n),
		gpu(n),
		workloads(n),
		batchJobs(n),
		mig(n),
		fabric(n),
		health(n),
		waste(n),
		exporter(n),
	}
}

// All returns the dashboards with the names of a generation.
func All(n Names) ([]Dashboard, error) {
	var dashboards []Dashboard
	for _, p := range pages(n) {
		d, err := p.build(n)
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", p.name, err)
		}
		dashboards = append(dashboards, d)
	}
	return dashboards, nil
}
