// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"

	"gpu_exporter/collector/metrics/definition"
)

// The selectors of the dashboards' variables. Series that no scrape adds a cluster label
// to match too.
const (
	ofRecords = `{cluster=~"$cluster"}`

	inFleet  = `{cluster=~"$cluster", job=~"$job"}`
	onNode   = `{cluster=~"$cluster", job=~"$job", hostname=~"$node"}`
	onGPU    = `{cluster=~"$cluster", job=~"$job", hostname=~"$node", UUID=~"$gpu"}`
	onTarget = `{cluster=~"$cluster", job=~"$job", instance=~"$instance"}`
)

// and adds matchers to a selector.
func and(selector, matchers string) string {
	return strings.TrimSuffix(selector, "}") + ", " + matchers + "}"
}

// devicesOf returns the selector of the devices in a selector with further matchers.
func devicesOf(selector string) string {
	for _, devices := range []string{onGPU, onNode} {
		if strings.HasPrefix(selector, strings.TrimSuffix(devices, "}")) {
			return devices
		}
	}
	return inFleet
}

// The labels that identify a node, a GPU, and a GPU or GPU instance. Labels of targets, of
// owners and of versions change over time and are not among them.
const (
	nodeID   = "cluster, hostname"
	gpuID    = "cluster, hostname, gpu, UUID"
	deviceID = "cluster, hostname, gpu, UUID, GPU_I_ID, GPU_I_PROFILE"
)

// e returns the expression of the operands: text and pointers to definitions.
func e(operands ...any) string { return fmt.Sprint(operands...) }

const tag = "gpu_exporter"

// page is the source of a dashboard.
type page struct {
	name, title, description string
	rules                    bool
	variables                []dashboard.VariableModel
	rows                     []row
	from                     string // start of the time range; now-3h if empty
}

// row is a row of panels. Each panel goes as high as possible, and there as far left as
// possible.
type row struct {
	title     string
	collapsed bool
	panels    []*panel
}

func uid(n Names, name string) string { return "gpu-exporter-" + name + n.Suffix }

var dataSource = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

func (p page) build(n Names) (Dashboard, error) {
	title := "GPU / " + p.title
	if n.Suffix != "" {
		title += " (names of DCGM 4.9)"
	}
	description := p.description
	if p.rules {
		description += " Requires the recording rules in deploy/prometheus/recording.yaml."
	}
	d := dashboard.NewDashboard()
	d.Uid, d.Title, d.Description = cog.ToPtr(uid(n, p.name)), &title, &description
	d.Tags = []string{tag + n.Suffix}
	d.Timezone = cog.ToPtr("utc")
	d.Editable = cog.ToPtr(false)
	d.GraphTooltip = cog.ToPtr(dashboard.DashboardCursorSyncCrosshair)
	d.Refresh = cog.ToPtr("1m")
	if p.from == "" {
		p.from = "now-3h"
	}
	d.Time = &dashboard.DashboardDashboardTime{From: p.from, To: "now"}
	d.Templating.List = append([]dashboard.VariableModel{dataSourceVariable()}, p.variables...)
	d.Annotations.List = annotations(p.variables)
	d.Links = []dashboard.DashboardLink{{
		Title: "GPU dashboards", Type: dashboard.DashboardLinkTypeDashboards, Tags: d.Tags,
		AsDropdown: true, IncludeVars: true, KeepTime: true, Icon: "external link",
	}}
	var id, y uint32
	for _, r := range p.rows {
		id++
		head := dashboard.RowPanel{
			Type: "row", Id: id, Title: &r.title, Collapsed: r.collapsed, Panels: []dashboard.Panel{},
			GridPos: &dashboard.GridPos{H: 1, W: gridWidth, Y: y},
		}
		g := newGrid(y + 1)
		var panels []dashboard.PanelOrRowPanel
		for _, source := range r.panels {
			id++
			built, err := source.build(n)
			if err != nil {
				return Dashboard{}, fmt.Errorf("panel %q: %w", source.title, err)
			}
			built.Id, built.GridPos = cog.ToPtr(id), g.place(source.width, source.height)
			if r.collapsed {
				head.Panels = append(head.Panels, built)
			} else {
				panels = append(panels, dashboard.PanelOrRowPanel{Panel: &built})
			}
		}
		y = slices.Max(g[:])
		if r.collapsed {
			y = head.GridPos.Y + 1 // Grafana moves what follows when the row is expanded
		}
		d.Panels = append(append(d.Panels, dashboard.PanelOrRowPanel{RowPanel: &head}), panels...)
	}
	built := Dashboard{Name: p.name, Model: *d, Rules: p.rules}
	var err error
	if built.Queries, err = queries(built); err != nil {
		return Dashboard{}, err
	}
	return built, d.Validate()
}

const gridWidth = 24

// grid is the lowest free cell of each column.
type grid [gridWidth]uint32

func newGrid(y uint32) *grid {
	var g grid
	for x := range g {
		g[x] = y
	}
	return &g
}

// place puts a panel as high as possible, and there as far left as possible.
func (g *grid) place(width, height uint32) *dashboard.GridPos {
	at := dashboard.GridPos{W: width, H: height, Y: math.MaxUint32}
	for x := range gridWidth - width + 1 {
		if y := slices.Max(g[x : x+width]); y < at.Y {
			at.X, at.Y = x, y
		}
	}
	for x := at.X; x < at.X+width; x++ {
		g[x] = at.Y + height
	}
	return &at
}

func dataSourceVariable() dashboard.VariableModel {
	return dashboard.VariableModel{
		Type: dashboard.VariableTypeDatasource, Name: "datasource", Label: cog.ToPtr("Data source"),
		Query: text("prometheus"), Regex: cog.ToPtr(""), Refresh: cog.ToPtr(dashboard.VariableRefreshOnDashboardLoad),
		Multi: cog.ToPtr(false), IncludeAll: cog.ToPtr(false), Options: []dashboard.VariableOption{},
		Current: option("default", "default"),
	}
}

func text(s string) *dashboard.StringOrMap { return &dashboard.StringOrMap{String: &s} }

func option(name, value string) *dashboard.VariableOption {
	return &dashboard.VariableOption{
		Text: dashboard.StringOrArrayOfString{String: &name}, Value: dashboard.StringOrArrayOfString{String: &value},
	}
}

// values is a variable with the values of a query, refreshed with the time range.
func values(name, label, query string) dashboard.VariableModel {
	return dashboard.VariableModel{
		Type: dashboard.VariableTypeQuery, Name: name, Label: &label, Query: text(query), Definition: &query,
		Datasource: &dataSource, Options: []dashboard.VariableOption{}, Regex: cog.ToPtr(""),
		Refresh: cog.ToPtr(dashboard.VariableRefreshOnTimeRangeChanged), Sort: cog.ToPtr(dashboard.VariableSortNaturalAsc),
		Multi: cog.ToPtr(false), IncludeAll: cog.ToPtr(false), Current: option("", ""),
	}
}

// several lets the user select several values of the variable, or all.
func several(v dashboard.VariableModel, all string) dashboard.VariableModel {
	v.Multi, v.IncludeAll, v.AllValue, v.Current = cog.ToPtr(true), cog.ToPtr(true), &all, option("All", "$__all")
	return v
}

// clusters selects clusters. All includes series without the label.
func clusters() dashboard.VariableModel {
	return several(values("cluster", "Cluster", e("label_values(", &definition.GPUUp, ", cluster)")), ".*")
}

func jobs() dashboard.VariableModel {
	return several(values("job", "Job", e("label_values(", &definition.GPUUp, `{cluster=~"$cluster"}, job)`)), ".+")
}

// oneNode selects a node by the label hostname.
func oneNode() dashboard.VariableModel {
	return values("node", "Node", e("label_values(", &definition.GPUUp, inFleet, ", hostname)"))
}

func nodes() dashboard.VariableModel { return several(oneNode(), ".*") }

// oneGPU selects a GPU of the node by its index. The value is the UUID.
func oneGPU() dashboard.VariableModel {
	v := values("gpu", "GPU", e("query_result(max by (UUID, gpu) (", &definition.GPUUp, onNode, "))"))
	v.Regex = cog.ToPtr(`/UUID="(?<value>[^"]+)".*gpu="(?<text>[^"]+)"/`)
	return v
}

func gpus() dashboard.VariableModel { return several(oneGPU(), ".*") }

// namespaces selects namespaces of owners.
func namespaces() dashboard.VariableModel {
	return several(values("namespace", "Namespace", e("label_values(", &definition.GPUPodInfo, inFleet, ", namespace)")), ".*")
}

// pods selects pods of the namespaces.
func pods() dashboard.VariableModel {
	return several(values("pod", "Pod", e("label_values(", &definition.GPUPodInfo, and(inFleet, `namespace=~"$namespace"`), ", pod)")), ".*")
}

// instances selects exporters by their scrape target.
func instances() dashboard.VariableModel {
	return several(values("instance", "Exporter", e("label_values(", &definition.SamplerUp, inFleet, ", instance)")), ".+")
}

// annotations mark XIDs, restarts of the sampler and changes of MIG instances on the
// devices that the variables select. They look back to the step before, however long the
// steps of the time range are.
func annotations(variables []dashboard.VariableModel) []dashboard.AnnotationQuery {
	has := func(name string) bool {
		for _, v := range variables {
			if v.Name == name {
				return true
			}
		}
		return false
	}
	selector := inFleet
	if has("gpu") {
		selector = onGPU
	} else if has("node") {
		selector = onNode
	}
	restarts := e("changes(", &definition.SamplerRestarts, inFleet, recent, ") > 0")
	switch {
	case has("instance"):
		restarts = e("changes(", &definition.SamplerRestarts, onTarget, recent, ") > 0")
	case has("node"):
		restarts += e(" and on (cluster, job, instance) ", &definition.GPUUp, onNode)
	}
	instances := e("max by (", deviceID, ") (", &definition.GPUInfo, and(selector, `GPU_I_ID!=""`), ")")
	const before = " offset $__rate_interval"
	earlier := e("max by (", deviceID, ") (", &definition.GPUInfo, and(selector, `GPU_I_ID!=""`), before, ")")
	return []dashboard.AnnotationQuery{
		annotation("XIDs", "dark-red", "XID {{xid}} on {{hostname}} GPU {{gpu}}", "{{name}} ({{severity}}): {{action}}", true,
			e("max by (hostname, gpu, xid, name, severity, action) (", &definition.GPUXIDCodeLastTimestamp, selector, ") * 1000")),
		annotation("Sampler restarts", "dark-orange", "Sampler restarted", "{{instance}}", false,
			e("max by (instance) (", restarts, ")")),
		annotation("MIG changes", "dark-blue", "MIG instances changed on {{hostname}} GPU {{gpu}}", "", false,
			e("count by (hostname, gpu) ((", instances, " unless ", earlier, ") or (", earlier, " unless ", instances,
				")) and on (hostname, gpu) (", &definition.GPUUp, selector, " and ", &definition.GPUUp, selector, before, ")")),
	}
}

func annotation(name, color, title, detail string, valueIsTime bool, expr string) dashboard.AnnotationQuery {
	return dashboard.AnnotationQuery{
		Name: name, Datasource: &dataSource, Enable: true, IconColor: color, TitleFormat: &title, TextFormat: &detail,
		Expr: &expr, UseValueForTime: &valueIsTime,
		Target: prometheus.Dataquery{Expr: expr, RefId: cog.ToPtr("Anno"), Range: cog.ToPtr(true)},
	}
}
