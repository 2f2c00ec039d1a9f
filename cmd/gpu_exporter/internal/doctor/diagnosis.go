// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package doctor implements the commands doctor, fields and check-config, which report
// what works on a node, which fields it has, and what a configuration exports.
//
// It samples through a [Node] that the caller provides: the package starts no sampler
// and serves nothing.
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

// device is a device ID that a container holds, and the device it stands for.
type device struct {
	ID        string   `json:"id"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Container string   `json:"container"`
	Resource  string   `json:"resource"`
	Form      string   `json:"form"`
	Devices   []string `json:"devices"`       // empty if the ID is unknown
	Why       string   `json:"why,omitempty"` // the ID is unknown
	Advice    string   `json:"advice,omitempty"`
}

// diagnosis is the result of the doctor.
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
			f.State, f.Detail = owners.Lacking, dev.Why
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
