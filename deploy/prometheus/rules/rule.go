// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package rules has the recording rules and alerts for Prometheus, from which `make rules`
// writes recording.yaml and alerts.yaml. Expressions refer to definitions and records, so
// that a renamed family breaks the build.
//
// This package must not use DCGM's names, which depend on the counters file, nor families
// outside the default preset.
package rules

import "time"

// Interval is the evaluation interval of the recording rules that are summed over time.
const Interval = 30 * time.Second

// RunbookBase is the prefix of the links to runbooks in alerts.yaml: a path, because the pages
// have no public address. `make rules RUNBOOKS=https://host/path` writes rules with another prefix.
const RunbookBase = "runbooks/"

// Record is a recording rule. Records must not change.
type Record struct {
	Name string
	Expr string
	// By is the labels of the result.
	By []string
	// Help is one sentence that names the unit.
	Help string
}

// String returns the name, for expressions.
func (r *Record) String() string { return r.Name }

// Severity says how soon a person must act on an alert.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // act now
	Warning  Severity = "warning"  // plan
	Info     Severity = "info"     // waste: tell the owner
)

// Alert is an alerting rule. Alerts must not change.
type Alert struct {
	Name          string
	Expr          string
	For           time.Duration
	KeepFiringFor time.Duration
	Severity      Severity
	// Threshold is the comparison in the expression whose number users may change, such as
	// "< 0.01". Empty: none.
	Threshold string
	// Summary names the node, GPU, pod and value; it may have templates. Action is one
	// sentence of remedy.
	Summary, Action string
	// Labels are static labels in addition to the severity.
	Labels map[string]string
}

// String returns the name.
func (a *Alert) String() string { return a.Name }

// RecordGroup is recording rules that are evaluated in order, each after those it uses.
type RecordGroup struct {
	Name     string
	About    string
	Interval time.Duration
	Records  []*Record
}

// AlertGroup is alerts that are evaluated together. The interval is short compared with the
// time within which a person must act.
type AlertGroup struct {
	Name     string
	About    string
	Interval time.Duration
	Alerts   []*Alert
}
