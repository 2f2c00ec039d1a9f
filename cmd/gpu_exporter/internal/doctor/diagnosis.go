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
)

// State is how a finding is to be judged. Only Broken makes the exit status 1.
type State string

// The states.
const (
	OK      State = "ok"
	Note    State = "note"   // worth knowing; nothing that was asked for is missing
	Warning State = "warn"   // part of what was asked for is missing
	Broken  State = "broken" // what was asked for does not work
)

// Finding is one result of an examination.
type Finding struct {
	About  string `json:"about"` // library, driver, engine, gpu, fields, kubelet, …
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"`
}

// Device is a device ID that a container holds, and the device it stands for.
type Device struct {
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

// Diagnosis is the result of the doctor.
type Diagnosis struct {
	Healthy  bool      `json:"healthy"`
	Version  string    `json:"version"`
	Findings []Finding `json:"findings"`
	Devices  []Device  `json:"device_ids"`
}

func newDiagnosis() *Diagnosis {
	return &Diagnosis{Healthy: true, Version: version.Version, Findings: []Finding{}, Devices: []Device{}}
}

// Add adds a finding.
func (d *Diagnosis) Add(about, name string, state State, detail, advice string) {
	d.Findings = append(d.Findings, Finding{about, name, state, detail, advice})
	d.Healthy = d.Healthy && state != Broken
}

// addError adds a finding for each line of an error.
func (d *Diagnosis) addError(about string, err error) {
	for line := range strings.Lines(err.Error()) {
		d.Add(about, "-", Broken, strings.TrimSpace(line), "")
	}
}

// Write prints the diagnosis as text or JSON.
func (d *Diagnosis) Write(w io.Writer, asJSON bool) error {
	if asJSON {
		return writeJSON(w, d)
	}
	findings := slices.Clone(d.Findings)
	for _, dev := range d.Devices {
		f := Finding{About: "device id", Name: dev.ID, State: OK, Detail: strings.Join(dev.Devices, ", "), Advice: dev.Advice}
		if len(dev.Devices) == 0 {
			f.State, f.Detail = Warning, dev.Why
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
