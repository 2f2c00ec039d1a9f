// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
)

// Groups of families that only the preset full has.
const (
	needsLinks = "no NVLinks, or needs --families=default,links"
	needsPeers = "no peers, or needs --families=default,peers"
)

// Texts for the numbers of gpu_fabric_state and gpu_fabric_health.
func fabricStates() style {
	return orNoFabric(of("none", 0, ""), value{0, "registered", good}, value{1, "not started", bad}, value{2, "in progress", caution}, value{4, "failure", bad})
}

func fabricHealths() style {
	return orNoFabric(of("none", 0, ""), value{0, "healthy", good}, value{2, "unhealthy", bad}, value{3, "limited capacity", serious})
}

// orNoFabric is texts for nodes that may have no fabric and no NVSwitches.
func orNoFabric(s style, v ...value) style {
	s.values = append(v, value{notSupported, "none", absent}, value{notKnown, "not known now", unknown})
	return s
}

// fabric is the dashboard of NVLinks, NVSwitches and the NVLink fabric.
func fabric(_ Names) page {
	perGPU := func(f *definition.Family, matchers string) string {
		selector := onNode
		if matchers != "" {
			selector = and(onNode, matchers)
		}
		return e("max by (", gpuID, ") (", f, selector, ")")
	}
	down, up := perGPU(&definition.GPUNVLinks, `state="down"`), perGPU(&definition.GPUNVLinks, `state="up"`)
	state, health := perGPU(&definition.GPUFabricState, ""), perGPU(&definition.GPUFabricHealth, "")
	answers := perGPU(&definition.GPUUp, "")
	// readable is 1 for a GPU whose links can be read, else 0.
	readable := e("max by (", gpuID, ") (", &definition.GPUUp, onNode,
		" * on (cluster, job, instance) group_left () max by (cluster, job, instance) (", &definition.NVLinkReadUp, inFleet, "))")
	// why completes an expression as orWhy does, by whether the links can be read.
	why := func(expr string) string { return e(expr, " or (", readable, " - ", -notKnown, ")") }
	// number is for the whole selection. Where the second expression has no result, no GPU
	// has such a property.
	number := func(which, of string) string {
		return e("count(", which, ") or 0 * count(", of, ") or (max(", readable, ") - ", -notKnown, ")")
	}
	errors := e("max by (", gpuID, ") (increase(", &definition.GPUNVLinkErrors, onNode, "[$__range]))")
	traffic := func(direction string) string {
		return e(rateOf(gpuID, &definition.GPUNVLinkBytes, and(onNode, `direction="`+direction+`"`)),
			" or (0 * max by (", gpuID, ") (", &definition.GPUProfilingState, onNode, " > 0) - ", -notKnown, ")")
	}
	switches := e("max by (cluster, hostname, nvswitch) (", &definition.GPUNVSwitchUp, onNode, ")")
	findings := "(1 - " + answers + ")"
	for _, condition := range []string{down, state, health, errors} {
		findings += " + ((" + condition + " > bool 0) or 0 * " + answers + ")"
	}
	// byNode sums a value of GPUs and returns the nodes with the most.
	byNode := func(expr string) string { return "topk(20, sum by (" + nodeID + ") (" + expr + "))" }
	problems := of("none", 0, "no exporter reports the selected nodes").zeroIsGood(bad).texts()
	fabricProblems := orNoFabric(problems)
	count := of("none", 0, "").texts().neutral()
	link := e("max by (", gpuID, ", nvlink, nvswitch) (", &definition.GPUNVLinkUp, onNode, ")")
	ofLinks := "cluster, hostname, gpu, UUID, nvswitch"
	everDown := e("(min by (", gpuID, ", nvlink, nvswitch) (min_over_time(", &definition.GPUNVLinkUp, onNode, "[$__range] @ end())) == 0)")

	return page{
		name:  "fabric",
		title: "Fabric",
		description: "NVLinks of each GPU, NVSwitches, the state of the NVLink fabric, errors and traffic. " +
			"The last two rows need the groups links and peers: --families=default,links,peers.",
		variables: []dashboard.VariableModel{clusters(), jobs(), nodes()},
		rows: []row{
			{title: "Now", panels: []*panel{
				newStat("NVLinks down", "NVLinks of the selected GPUs that are down.", problems,
					query{e("sum(", down, ") or (max(", readable, ") - ", -notKnown, ")"), "links"}),
				newStat("GPUs with links down", "GPUs that have an NVLink that is down.", problems, query{number(down+" > 0", down), "GPUs"}),
				newStat("GPUs with unknown links", "GPUs that do not answer, or whose link states cannot be read. Their links are not counted.",
					of("none", 0, "no exporter reports the selected nodes").zeroIsGood(unknown),
					query{"count(" + readable + " == 0) or 0 * count(" + readable + ")", "GPUs"}),
				newStat("NVSwitches lost", "NVSwitches that do not answer.", fabricProblems, query{number(switches+" == 0", switches), "NVSwitches"}),
				newStat("GPUs not registered", "GPUs that are not registered with the NVLink fabric.", fabricProblems, query{number(state+" > 0", state), "GPUs"}),
				newStat("GPUs with unhealthy fabric", "GPUs for which the driver reports that the NVLink fabric is unhealthy or has limited capacity.", fabricProblems,
					query{number(health+" > 0", health), "GPUs"}),
			}},
			{title: "GPUs", panels: []*panel{
				newTable("GPUs", "Findings are the number of problems: the GPU does not answer, links are down, errors in the time range, not registered with the fabric, the fabric is unhealthy. Received and sent are the newest rates.",
					gpuKeys(), "Findings",
					column{title: "Findings", expr: findings, style: of("none", 0, "").zeroIsGood(bad), fill: true, width: 90},
					column{title: "Links down", expr: why(down), style: of("none", 0, "").zeroIsGood(bad).texts(), width: 115},
					column{title: "Links up", expr: why(up), style: count, width: 115},
					column{title: "Errors", expr: why(errors), style: of("none", 0, "").zeroIsGood(caution).texts(), width: 115},
					column{title: "Fabric state", expr: orWhy(state, gpuID, onNode), style: fabricStates(), width: 115},
					column{title: "Fabric health", expr: orWhy(health, gpuID, onNode), style: fabricHealths(), width: 135},
					column{title: "Received", expr: why(traffic("receive")), style: of("Bps", 1, "").texts().neutral(), width: 115},
					column{title: "Sent", expr: why(traffic("transmit")), style: of("Bps", 1, "").texts().neutral(), width: 115},
				).link(rowToGPU()).ifEmpty("no exporter reports the selected nodes").size(24, 11),
			}},
			{title: "Over time", panels: []*panel{
				newTimeSeries("NVLinks down", "NVLinks that are down, by node. The 20 nodes with the most.",
					of("none", 0, "no NVLinks, or their state is not known").from0(),
					query{byNode(down), "{{hostname}} {{cluster}}"}).link(seriesToNode()),
				newTimeSeries("NVLink errors", "Errors per second on all NVLinks of a GPU. The 20 GPUs with the most. NVLinks correct most errors: compare GPUs, and watch increases.",
					of("cps", 2, "no GPU reports errors of NVLinks").from0(),
					query{"topk(20, " + rateOf(gpuID, &definition.GPUNVLinkErrors, onNode) + ")", "{{hostname}} GPU {{gpu}} {{cluster}}"}).link(seriesToGPU()),
				newTimeSeries("NVLink traffic", "Data received over all NVLinks of a node, headers included. The 20 nodes with the most.",
					of("Bps", 1, "no GPU reports traffic of NVLinks").from0(),
					query{byNode(rateOf(gpuID, &definition.GPUNVLinkBytes, and(onNode, `direction="receive"`))), "{{hostname}} {{cluster}}"}).link(seriesToNode()),
				newTimeSeries("GPUs with a fabric problem", "GPUs that are not registered with the NVLink fabric, or for which it is unhealthy.",
					of("none", 0, "no GPU reports an NVLink fabric").from0(),
					query{"count(" + state + " > 0) or 0 * count(" + state + ")", "not registered"},
					query{"count(" + health + " > 0) or 0 * count(" + health + ")", "unhealthy"}),
			}},
			{title: "NVSwitches and multi-node fabric", panels: []*panel{
				newTable("NVSwitches", "NVSwitches of the selected nodes. Health is the worst result of DCGM's health checks.",
					append(nodeKeys(), label{"nvswitch", "NVSwitch"}), "State",
					column{title: "State", expr: switches, style: of("none", 0, "").texts(value{0, "lost", bad}, value{1, "up", good}), fill: true},
					column{title: "Health", expr: e("max by (cluster, hostname, nvswitch) (", &definition.GPUHealthStatus, and(onNode, `nvswitch!=""`), ") or (0 * ", switches, " - ", -notKnown, ")"),
						style: of("none", 0, "").texts(value{0, "pass", good}, value{1, "warning", caution}, value{2, "failure", bad})},
				).least().ifEmpty("no NVSwitches"),
				newTable("Multi-node clusters", "NVLink clusters and cliques that GPUs belong to. A clique is the GPUs that reach each other over NVLink.",
					[]label{{"cluster", "Cluster"}, {"cluster_uuid", "NVLink cluster"}, {"clique", "Clique"}}, "GPUs not registered",
					column{title: "GPUs", expr: e("count by (cluster, cluster_uuid, clique) (max by (", gpuID, ", cluster_uuid, clique) (", &definition.GPUFabricInfo, onNode, "))"), style: count},
					column{title: "Nodes", expr: e("count by (cluster, cluster_uuid, clique) (max by (", nodeID, ", cluster_uuid, clique) (", &definition.GPUFabricInfo, onNode, "))"), style: count},
					column{title: "GPUs not registered", expr: e("sum by (cluster, cluster_uuid, clique) (max by (", gpuID, ", cluster_uuid, clique) (", &definition.GPUFabricInfo, onNode,
						") * on (", gpuID, ") group_left () (", state, " > bool 0))"), style: of("none", 0, "").zeroIsGood(bad)},
				).ifEmpty("no GPU belongs to a multi-node NVLink cluster").size(24, 5),
				newTable("Faults", "State or fault of the fabric that the driver reports now, and XID errors of NVLink in the time range.",
					append(gpuKeys(), label{"finding", "Finding"}, label{"code", "Code or fault"}), "Last XID",
					column{expr: strings.Join([]string{
						finding(&definition.GPUFabricStateInfo, onNode, "state", "error"),
						finding(&definition.GPUFabricHealthInfo, onNode, "state", "fault")}, " or ")},
					column{title: "Last XID", expr: finding(&definition.GPUXIDCodeLastTimestamp, and(onNode, `name=~"NVLINK_.*"`), "name", "xid") + " * 1000 > 1000 * (time() - $__range_s)",
						style: of("dateTimeAsIso", 0, ""), width: 180},
				).ifEmpty("no fault of the fabric, and no XID error of NVLink").link(rowToGPU()).size(24, 8),
			}},
			{title: "Every NVLink: needs --families=default,links", collapsed: true, panels: []*panel{
				newTable("Links", "NVLinks of each GPU and NVSwitch, and those that are down. Needs --families=default,links.",
					[]label{{"cluster", "Cluster"}, {"hostname", "Node"}, {"gpu", "GPU"}, {"nvswitch", "NVSwitch"}, {"UUID", "UUID"}}, "Down",
					column{title: "Down", expr: "count by (" + ofLinks + ") (" + link + " == 0) or 0 * count by (" + ofLinks + ") (" + link + ")",
						style: of("none", 0, "").zeroIsGood(bad), fill: true},
					column{title: "Links", expr: "count by (" + ofLinks + ") (" + link + ")", style: count},
				).ifEmpty(needsLinks).size(10, 12),
				newTimeline("Links that were down", "NVLinks that were down in the time range, 30 at most, and one bar for all links of each node. Needs --families=default,links.",
					of("none", 0, needsLinks).texts(value{0, "down", bad}, value{1, "up", good}),
					query{"min by (" + nodeID + ") (" + link + ")", "{{hostname}} all links {{cluster}}"},
					query{link + " and topk(30, " + everDown + ")", "{{hostname}} GPU {{gpu}} {{nvswitch}} link {{nvlink}} {{cluster}}"}).size(14, 12),
				newTable("NVSwitch identity", "Address and UUID of each NVSwitch. Needs --families=default,links.",
					append(nodeKeys(), label{"nvswitch", "NVSwitch"}, label{"pci_bus_id", "PCI address"}, label{"uuid", "UUID of the switch"}), "NVSwitch",
					column{expr: e("max by (cluster, hostname, nvswitch, pci_bus_id, uuid) (", &definition.GPUNVSwitchInfo, onNode, ")")},
				).least().ifEmpty("no NVSwitches, or needs --families=default,links"),
			}},
			{title: "Peers: needs --families=default,peers", collapsed: true, panels: []*panel{
				newMatrix("NVLinks between GPUs", "Active NVLinks from the GPU in the row to the GPU in the column, direct or through NVSwitches. Needs --families=default,peers.",
					&definition.GPUPeerNVLinks, column{title: "Links", style: of("none", 0, needsPeers).levels(step{color: "transparent"}, step{0, bad}, step{1, good})}),
				newMatrix("PCIe path between GPUs", "Longest path: PIX one switch, PXB several switches, PHB a host bridge, NODE one CPU, SYS between CPUs. Needs --families=default,peers.",
					&definition.GPUTopologyInfo, column{labels: []label{{"path", "Path"}}, style: of("none", 0, needsPeers)}),
				newMatrix("Peer-to-peer status", "Whether GPUs can access each other's memory over NVLink. Needs --families=default,peers.",
					&definition.GPUP2PStatus, column{title: "Status", style: of("none", 0, needsPeers).texts(value{0, "OK", good}, value{1, "chipset not supported", serious}, value{2, "GPU not supported", serious}, value{3, "topology not supported", serious}, value{4, "disabled by registry key", serious}, value{5, "not supported", serious}, value{6, "unknown", unknown}).levels(step{color: "transparent"})}).size(24, 9),
			}},
		},
	}
}

// finding returns a series for each GPU with a finding and its code, from the labels that
// have them.
func finding(f *definition.Family, selector, name, code string) string {
	return e("max by (", gpuID, ", finding, code) (label_join(label_join(", f, selector, `, "finding", "", "`, name, `"), "code", "", "`, code, `"))`)
}

// newMatrix is a table with one row for each GPU and one column for each of its peers. The
// cells have the value, or the label of the column.
func newMatrix(title, description string, f *definition.Family, cell column) *panel {
	labels, field := "from, peer_gpu", "Value"
	for _, l := range cell.labels {
		labels, field = labels+", "+l.name, l.name
	}
	cell.expr = e("max by (", labels, ") (label_join(", f, onNode, `, "from", " GPU ", "hostname", "gpu"))`)
	p := newTable(title, description, []label{{"from", "GPU"}, {"peer_gpu", "Peer"}}, "GPU", cell)
	p.style = cell.style
	p.custom = append(p.custom, func(b *dashboard.Panel) {
		b.FieldConfig.Overrides = []dashboard.DashboardFieldConfigSourceOverrides{
			{Matcher: dashboard.MatcherConfig{Id: "byRegexp", Options: ".*"}, Properties: []dashboard.DynamicConfigValue{{Id: "noValue", Value: "–"}}},
		}
		peers := []dashboard.DynamicConfigValue{{Id: "custom.width", Value: 60}}
		if len(cell.style.steps) > 0 {
			peers = append(peers, dashboard.DynamicConfigValue{Id: "custom.cellOptions", Value: map[string]any{"type": "color-background", "mode": "basic"}})
		}
		b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, dashboard.DashboardFieldConfigSourceOverrides{
			Matcher: dashboard.MatcherConfig{Id: "byRegexp", Options: "^[0-9]+$"}, Properties: peers,
		})
		b.Transformations = []dashboard.DataTransformerConfig{
			{Id: "sortBy", Options: map[string]any{"fields": map[string]any{}, "sort": []any{map[string]any{"field": "peer_gpu"}}}},
			{Id: "groupingToMatrix", Options: map[string]any{"rowField": "from", "columnField": "peer_gpu", "valueField": field, "emptyValue": "empty"}},
			{Id: "organize", Options: map[string]any{"renameByName": map[string]string{`from\peer_gpu`: "GPU"}}},
		}
	})
	return p.least().size(12, 9)
}
