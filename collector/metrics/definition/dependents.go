// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package definition

import "slices"

// Dependents is what has no data without a group of families.
type Dependents struct {
	Alerts     []string
	Dashboards []string
}

// Missing returns the alerts that cannot fire, and the dashboards that have empty panels,
// with the selection. The panels of collapsed rows do not count.
func (s Selection) Missing() (d Dependents) {
	for _, g := range Groups() {
		if slices.Contains(s.groups, g.Name) {
			continue
		}
		of := dependents(g.Name)
		d.Alerts = append(d.Alerts, of.Alerts...)
		d.Dashboards = append(d.Dashboards, of.Dashboards...)
	}
	slices.Sort(d.Alerts)
	slices.Sort(d.Dashboards)
	return Dependents{slices.Compact(d.Alerts), slices.Compact(d.Dashboards)}
}
