// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
)

// node is the dashboard of the GPUs of a node.
func node(n Names) page {
	return page{
		name:        "node",
		title:       "Node",
		description: "State, load, temperature, power and errors of all GPUs of a node.",
		variables:   []dashboard.VariableModel{clusters(), jobs(), oneNode()},
		rows: []row{
			{title: "State", panels: []*panel{
				newStat("GPUs that answer", "Number of GPUs of the node that answer.",
					style{unit: "none", empty: "no exporter reports this node"},
					query{e("sum(max by (", gpuID, ") (", &definition.GPUUp, onNode, "))"), "GPUs"}),
				newTable("GPUs", "GPUs of the node.", gpuKeys(), "State",
					column{title: "State", expr: e("max by (", gpuID, ") (", &definition.GPUUp, onNode, ")"),
						style: style{unit: "none", values: []value{{0, "not answering", bad}, {1, "up", good}}}, fill: true},
					column{title: "Temperature", expr: orWhy(n.GPUTemperature.By(gpuID, onNode), gpuID, onNode),
						style: style{unit: "celsius", values: absence()}},
				).least(),
				newTimeSeries("Load", "Share of time in which the GPU was busy.",
					style{unit: "percentunit", decimals: 0, empty: "no busy time is reported"},
					query{e("max by (cluster, gpu) (rate(", &definition.GPUBusySeconds, onNode, "[$__rate_interval]))"), "GPU {{gpu}} {{cluster}}"}),
			}},
		},
	}
}
