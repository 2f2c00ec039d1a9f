// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package doctor implements three commands. doctor reports the problems of a node, fields
// lists the fields that it supports, and check-config prints the metrics that a
// configuration exports.
//
// The package samples through the caller's [Node]. It must not start a sampler itself, and
// must not serve HTTP.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/prometheus/common/version"

	"gpu_exporter/cmd/gpu_exporter/internal/owners"
)

// device is a device ID that a container holds, and the devices with that ID.
type device struct {
	ID        string   `json:"id"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Container string   `json:"container"`
	Resource  string   `json:"resource"`
	Form      string   `json:"form"`
	Devices   []string `json:"devices"`       // empty: the ID is unknown
	Why       string   `json:"why,omitempty"` // the reason why the ID is unknown
	Advice    string   `json:"advice,omitempty"`
}

// diagnosis is the output of the command doctor.
type diagnosis struct {
	Healthy  bool             `json:"healthy"`
	Version  string           `json:"version"`
	Findings []owners.Finding `json:"findings"`
	Devices  []device         `json:"device_ids"`
}

func newDiagnosis() *diagnosis {
	return &diagnosis{Healthy: true, Version: version.Version, Findings: []owners.Finding{}, Devices: []device{}}
}

// add adds a finding. Only Broken makes the exit status 1.
func (d *diagnosis) add(about, name string, state owners.State, detail, advice string) {
	d.Findings = append(d.Findings, owners.Finding{About: about, Name: name, State: state, Detail: detail, Advice: advice})
	d.Healthy = d.Healthy && state != owners.Broken
}

// addError adds a finding for each line of an error.
func (d *diagnosis) addError(about string, err error) {
	for line := range strings.Lines(err.Error()) {
		d.add(about, "-", owners.Broken, strings.TrimSpace(line), "")
	}
}

// write prints the diagnosis as text or JSON.
func (d *diagnosis) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return writeJSON(w, d)
	}
	findings := slices.Clone(d.Findings)
	for _, dev := range d.Devices {
		f := owners.Finding{About: "device id", Name: dev.ID, State: owners.OK, Detail: strings.Join(dev.Devices, ", "), Advice: dev.Advice}
		if len(dev.Devices) == 0 {
			f.State, f.Detail = owners.Limited, dev.Why
		}
		f.Detail = fmt.Sprintf("%s of %s/%s/%s: %s", dev.Form, dev.Namespace, dev.Pod, dev.Container, f.Detail)
		findings = append(findings, f)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.State, f.About, f.Name, f.Detail)
		if f.Advice != "" {
			fmt.Fprintf(table, "\t\t\t→ %s\n", f.Advice)
		}
	}
	return table.Flush()
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
