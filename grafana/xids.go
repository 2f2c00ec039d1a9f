// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import "gpu_exporter/collector/metrics/definition"

const xidLabels = deviceID + ", xid, name, severity, action"

// xidTable has a row for each device and XID code of the time range, the newest first.
// Messages with less than three minutes in between are one incident.
func xidTable(selector, scope string) *panel {
	last := newestOf(xidLabels, &definition.GPUXIDCodeLastTimestamp, selector)
	earlier := newestOf(xidLabels, &definition.GPUXIDCodeLastTimestamp, selector+" offset 1m")
	inRange := e(" and ", last, " > time() - $__range_s")
	keys := append(gpuKeys(), label{"GPU_I_ID", "Instance"}, label{"GPU_I_PROFILE", "Profile"}, label{"xid", "XID"}, label{"name", "Name"},
		label{"severity", "Severity"}, label{"action", "Action"})
	return newTable("XIDs", "XID errors of this "+scope+" in the time range, with severity and action of NVIDIA's catalogue. Messages with less than three minutes in between are one incident.",
		keys, "Last",
		column{title: "Last", expr: e("(", last, inRange, ") * 1000"), style: of("dateTimeAsIso", 0, ""), links: []link{rowToGPU()}, width: 180},
		column{title: "Incidents", expr: e("count_over_time((", last, " > time() - 180 unless ", earlier, " > time() - 240)[$__range:1m])", inRange), style: of("none", 0, ""), width: 90},
		column{title: "Errors", expr: e(newestOf(xidLabels, &definition.GPUXIDCodeErrors, selector), inRange), style: of("none", 0, ""), width: 90},
	).ifEmpty("no XID was reported in the time range").colorText("Severity", severityColors()...)
}

// severityColors are the colors of the severities of XIDs.
func severityColors() []coloredText {
	return []coloredText{{"critical", bad}, {"warning", serious}, {"application", quantity}}
}
