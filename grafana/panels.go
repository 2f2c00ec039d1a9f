// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"

	"gpu_exporter/collector/metrics/definition"
)

type kind string

const (
	kindStat       kind = "stat"
	kindTimeSeries kind = "timeseries"
	kindTable      kind = "table"
	kindTimeline   kind = "state-timeline"
	kindBarGauge   kind = "bargauge"
)

// panel is the source of a panel. The constructors below return panels with the usual
// settings; fields are changed by methods.
type panel struct {
	kind               kind
	title, description string
	style              style
	width, height      uint32
	queries            []query
	keys               []label  // of a table
	hidden             []string // keys of a table that have no column
	columns            []column // of a table: one query each
	sortBy             string   // of a table: display name of the column
	ascending          bool     // of a table: the least is the worst
	links              []link
	stacked            bool
	calcs              []string // of the legend
	custom             []func(*dashboard.Panel)
}

// style is how values are displayed.
type style struct {
	unit     string
	decimals int
	// empty is displayed if no query has a result. It must be true then.
	empty    string
	min, max *float64
	values   []value
	steps    []step
	color    string // fixed
}

// of returns a style. The text is displayed if no query has a result.
func of(unit string, decimals int, empty string) style {
	return style{unit: unit, decimals: decimals, empty: empty}
}

// ofOne sets the scale of a part of 1.
func (s style) ofOne() style {
	low, high := 0.0, 1.0
	s.min, s.max = &low, &high
	return s
}

// from0 begins the scale at 0.
func (s style) from0() style { s.min = new(float64); return s }

// texts sets texts for values, and adds those of orWhy.
func (s style) texts(v ...value) style {
	s.values = append(v, absence()...)
	return s
}

// levels sets thresholds.
func (s style) levels(steps ...step) style { s.steps = steps; return s }

// zeroIsGood colors 0 as good, and everything above.
func (s style) zeroIsGood(above string) style { return s.levels(step{color: good}, step{1e-9, above}) }

// neutral colors no value as good or bad, except those with texts.
func (s style) neutral() style { return s.levels(step{color: "text"}) }

// in sets a fixed color.
func (s style) in(color string) style { s.color = color; return s }

// value is the text for a value.
type value struct {
	value float64
	text  string
	color string
}

// step is a threshold: the color of values from here on. The first step has no lower bound.
type step struct {
	from  float64
	color string
}

// query is an expression and the template of its legend.
type query struct{ expr, legend string }

// label is a column of a table with the values of a label.
type label struct{ name, title string }

// column is a query of a table. Its result has the keys of the table as labels, and those
// of labels, which are columns too.
type column struct {
	title  string // empty: the value has no column
	expr   string
	style  style
	labels []label
	width  int
	fill   bool // colors the background of the cell
	gauge  bool
	links  []link
}

// link leads to another dashboard, with the variables and the time range.
type link struct {
	title string
	page  string
	// set are further variables: name and value.
	set [][2]string
}

// Values that stand for an absent value: see orWhy. They are far outside of any range.
const (
	notSupported = -1000001
	notKnown     = -1000002
)

// Colors of states.
const (
	good     = "green"
	caution  = "yellow"
	serious  = "orange"
	bad      = "red"
	unknown  = "purple"
	absent   = "#808080"
	quantity = "blue"
)

// orWhy completes an expression with one series for each of the labels: where a GPU has no
// value, it is notSupported while the GPU answers, else notKnown.
func orWhy(expr, labels, selector string) string {
	return fmt.Sprint(expr, " or (max by (", labels, ") (", &definition.GPUUp, selector, ") - ", -notKnown, ")")
}

// absence are the texts for the values of orWhy.
func absence() []value {
	return []value{{notSupported, "not supported", absent}, {notKnown, "not known now", unknown}}
}

// yesNo are texts for 0, which is good, and 1.
func yesNo(color string) style {
	return of("none", 0, "").texts(value{0, "no", good}, value{1, "yes", color})
}

// The states of a GPU, as in the recording rule gpu:state:code.
func gpuStates() style {
	return of("none", 0, "no GPU is reported").texts(value{0, "healthy", good}, value{1, "unhealthy", serious}, value{2, "not answering", bad})
}

// stateOf returns the state of each GPU: 2 if it does not answer, 1 if it is unhealthy, else
// 0.
func stateOf(labels, selector string) string {
	var conditions []string
	for _, c := range definition.Unhealthy() {
		of := selector
		if c.Family.Per == definition.PerChecked {
			of = and(selector, `nvswitch="",cpu=""`) // UUID!="" would read the index of each UUID
		}
		conditions = append(conditions, e(c.Family, of, " > ", c.Above))
	}
	return e("2 + (max by (", labels, ") (", &definition.GPUUp, selector, ") == 0)",
		" or 1 + 0 * max by (", labels, ") (", strings.Join(conditions, " or "), ")",
		" or 0 * max by (", labels, ") (", &definition.GPUUp, selector, ")")
}

// newestOf returns the value of a family for each of the labels.
func newestOf(labels string, family any, selector string) string {
	return e("max by (", labels, ") (", family, selector, ")")
}

// rateOf returns the increase per second of a counter of devices for each of the labels.
func rateOf(labels string, family *definition.Family, selector string) string {
	return rateIn(labels, family, selector, recent)
}

// rateIn is rateOf in a window.
func rateIn(labels string, family *definition.Family, selector, window string) string {
	return e("max by (", labels, ") (", known(e("rate(", family, selector, window, ")"), family, selector), ")")
}

// known removes rates while the counter cannot increase because its value is not known: the
// GPU does not answer, or its profiling fields do not work.
func known(rates string, family *definition.Family, selector string) string {
	devices := devicesOf(selector)
	rates += e(" and on (cluster, hostname, UUID) (", &definition.GPUUp, devices, " == 1)")
	switch family {
	case &definition.GPUEngineActiveSeconds, &definition.GPUNVLinkBytes, &definition.GPUPCIeBytes:
		rates += e(" unless on (cluster, hostname, UUID) (", &definition.GPUProfilingState, devices, " > 0)")
	}
	return rates
}

// newStat is a panel with the newest value of each series.
func newStat(title, description string, s style, queries ...query) *panel {
	return &panel{kind: kindStat, title: title, description: description, style: s, queries: queries, width: 4, height: 4}
}

// newTimeSeries is a panel with lines.
func newTimeSeries(title, description string, s style, queries ...query) *panel {
	return &panel{kind: kindTimeSeries, title: title, description: description, style: s, queries: queries, width: 12, height: 8,
		calcs: []string{"lastNotNull", "max"}}
}

// newTable is a table of the newest values, with the worst row first.
func newTable(title, description string, keys []label, sortBy string, columns ...column) *panel {
	return &panel{kind: kindTable, title: title, description: description, keys: keys, sortBy: sortBy, columns: columns,
		hidden: []string{"UUID"}, style: style{unit: "none"}, width: 24, height: 10}
}

// hide sets which keys of a table have no column: those that are for links only, and those
// that the dashboard's variables fix to one value. The default is the UUID.
func (p *panel) hide(keys ...string) *panel { p.hidden = keys; return p }

// newTimeline is a panel with one bar of states for each series.
func newTimeline(title, description string, s style, queries ...query) *panel {
	return &panel{kind: kindTimeline, title: title, description: description, style: s, queries: queries, width: 24, height: 8}
}

// newBars is a panel with one horizontal bar for the newest value of each series.
func newBars(title, description string, s style, queries ...query) *panel {
	return &panel{kind: kindBarGauge, title: title, description: description, style: s, queries: queries, width: 12, height: 8}
}

// size sets columns of 24 and units of height.
func (p *panel) size(width, height uint32) *panel { p.width, p.height = width, height; return p }

// link adds a link to each value, or to the keys of a table.
func (p *panel) link(l ...link) *panel { p.links = append(p.links, l...); return p }

// ifEmpty sets the text of a panel without a result. It must be true then.
func (p *panel) ifEmpty(text string) *panel { p.style.empty = text; return p }

// lowest has the least value in the legend, which is the worst.
func (p *panel) lowest() *panel { p.calcs = []string{"lastNotNull", "min"}; return p }

// coloredText is the color of a text.
type coloredText struct{ text, color string }

// colorText sets the colors of texts in a column.
func (p *panel) colorText(column string, texts ...coloredText) *panel {
	p.custom = append(p.custom, func(b *dashboard.Panel) {
		m := dashboard.NewValueMap()
		for i, t := range texts {
			m.Options[t.text] = dashboard.ValueMappingResult{Color: &t.color, Index: cog.ToPtr(int32(i))}
		}
		b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, dashboard.DashboardFieldConfigSourceOverrides{
			Matcher: dashboard.MatcherConfig{Id: "byName", Options: column},
			Properties: []dashboard.DynamicConfigValue{
				{Id: "mappings", Value: []dashboard.ValueMapping{{ValueMap: m}}},
				{Id: "custom.cellOptions", Value: map[string]any{"type": "color-text"}},
			},
		})
	})
	return p
}

// colors sets the colors of series by their legends.
func (p *panel) colors(byLegend [][2]string) *panel {
	p.custom = append(p.custom, func(b *dashboard.Panel) {
		for _, c := range byLegend {
			b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, dashboard.DashboardFieldConfigSourceOverrides{
				Matcher:    dashboard.MatcherConfig{Id: "byName", Options: c[0]},
				Properties: []dashboard.DynamicConfigValue{{Id: "color", Value: dashboard.FieldColor{Mode: dashboard.FieldColorModeIdFixed, FixedColor: &c[1]}}},
			})
		}
	})
	return p
}

// stack adds the values up.
func (p *panel) stack() *panel { p.stacked = true; return p }

// least sorts a table by the least value first.
func (p *panel) least() *panel { p.ascending = true; return p }

func refID(i int) string { return string(rune('A' + i)) }

func (p *panel) build(n Names) (dashboard.Panel, error) {
	b := dashboard.NewPanel()
	b.Type, b.Title, b.Description, b.Datasource = string(p.kind), &p.title, &p.description, &dataSource
	b.FieldConfig = dashboard.NewFieldConfigSource()
	p.style.apply(&b.FieldConfig.Defaults)
	if p.kind != kindTable {
		b.FieldConfig.Defaults.Links = links(n, p.links)
	}
	for i, q := range p.queries {
		target := prometheus.Dataquery{Expr: q.expr, LegendFormat: &q.legend, RefId: cog.ToPtr(refID(i)), Datasource: &dataSource}
		if p.kind == kindTimeSeries || p.kind == kindTimeline {
			target.Range, target.Instant = cog.ToPtr(true), cog.ToPtr(false)
		} else {
			target.Range, target.Instant = cog.ToPtr(false), cog.ToPtr(true)
		}
		b.Targets = append(b.Targets, target)
	}
	switch p.kind {
	case kindStat:
		o := stat.NewOptions()
		o.GraphMode, o.ColorMode = common.BigValueGraphModeNone, common.BigValueColorModeValue
		o.ReduceOptions = newest()
		b.Options = o
	case kindBarGauge:
		o := bargauge.NewOptions()
		o.DisplayMode, o.Orientation = common.BarGaugeDisplayModeBasic, common.VizOrientationHorizontal
		o.ReduceOptions = newest()
		b.Options = o
	case kindTimeSeries:
		p.buildTimeSeries(b)
	case kindTimeline:
		o := statetimeline.NewOptions()
		o.MergeValues, o.ShowValue = cog.ToPtr(true), common.VisibilityModeAuto
		o.Legend = common.VizLegendOptions{DisplayMode: common.LegendDisplayModeList, Placement: common.LegendPlacementBottom, ShowLegend: false, Calcs: []string{}}
		b.Options = o
		custom := statetimeline.NewFieldConfig()
		custom.FillOpacity, custom.LineWidth = cog.ToPtr[uint32](80), cog.ToPtr[uint32](0)
		b.FieldConfig.Defaults.Custom = custom
		b.Interval = cog.ToPtr("1m")
	case kindTable:
		p.buildTable(n, b)
	}
	for _, change := range p.custom {
		change(b)
	}
	return *b, b.Validate()
}

func newest() common.ReduceDataOptions {
	return common.ReduceDataOptions{Calcs: []string{"lastNotNull"}, Values: cog.ToPtr(false)}
}

func (p *panel) buildTimeSeries(b *dashboard.Panel) {
	o := timeseries.NewOptions()
	o.Legend = common.VizLegendOptions{
		DisplayMode: common.LegendDisplayModeTable, Placement: common.LegendPlacementRight, ShowLegend: true, Calcs: p.calcs,
		SortBy: cog.ToPtr("Last *"), SortDesc: cog.ToPtr(true),
	}
	o.Tooltip = common.VizTooltipOptions{Mode: common.TooltipDisplayModeMulti, Sort: common.SortOrderDescending}
	b.Options = o
	custom := timeseries.FieldConfig{
		LineWidth: cog.ToPtr(1.0), FillOpacity: cog.ToPtr(0.0), ShowPoints: cog.ToPtr(common.VisibilityModeAuto),
		// A gap is a time in which the value was not known.
		SpanNulls: &common.BoolOrFloat64{Bool: cog.ToPtr(false)},
	}
	// A line at 0 is near the bottom of a scale that small values fill.
	switch p.style.unit {
	case "percentunit":
		custom.AxisSoftMax = cog.ToPtr(0.1)
	case "none", "cps", "s":
		custom.AxisSoftMax = cog.ToPtr(1.0)
	}
	if p.stacked {
		custom.FillOpacity = cog.ToPtr(30.0)
		custom.Stacking = &common.StackingConfig{Mode: cog.ToPtr(common.StackingModeNormal), Group: cog.ToPtr("A")}
	}
	b.FieldConfig.Defaults.Custom = custom
	b.Interval = cog.ToPtr("1m")
}

// buildTable merges the results of the queries by the labels that all have.
func (p *panel) buildTable(n Names, b *dashboard.Panel) {
	o := table.NewOptions()
	o.Footer = nil
	o.SortBy = []common.TableSortByFieldState{{DisplayName: p.sortBy, Desc: cog.ToPtr(!p.ascending)}}
	b.Options = o
	// Columns without a width share the rest of the panel. Grafana's own minimum of 150 px would
	// cut off the last ones.
	b.FieldConfig.Defaults.Custom = table.FieldConfig{Align: common.FieldTextAlignmentAuto, MinWidth: cog.ToPtr(60.0)}
	// The text for an empty panel is not the one for an empty cell.
	b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, dashboard.DashboardFieldConfigSourceOverrides{
		Matcher:    dashboard.MatcherConfig{Id: "byRegexp", Options: ".*"},
		Properties: []dashboard.DynamicConfigValue{{Id: "noValue", Value: "–"}, {Id: "custom.wrapHeaderText", Value: true}},
	})
	rename, order, exclude := map[string]string{}, map[string]int{}, map[string]bool{"Time": true}
	place := func(name, title string) {
		rename[name], order[name] = title, len(order)
	}
	for _, key := range p.keys {
		place(key.name, key.title)
	}
	for i, c := range p.columns {
		b.Targets = append(b.Targets, prometheus.Dataquery{
			Expr: c.expr, RefId: cog.ToPtr(refID(i)), Datasource: &dataSource, Format: cog.ToPtr(prometheus.PromQueryFormatTable),
			LegendFormat: cog.ToPtr("__auto"), Range: cog.ToPtr(false), Instant: cog.ToPtr(true),
		})
		names := []string{"Value #" + refID(i)}
		if i == 0 {
			names = append(names, "Value") // if this is the only query with a result
		}
		for _, name := range names {
			if c.title == "" {
				exclude[name] = true
			} else {
				place(name, c.title)
			}
		}
		for _, l := range c.labels {
			place(l.name, l.title)
			b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, l.override()...)
		}
		if c.title != "" {
			b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, c.override(n))
		}
	}
	b.Transformations = []dashboard.DataTransformerConfig{
		{Id: "merge", Options: map[string]any{}},
		{Id: "organize", Options: map[string]any{"excludeByName": exclude, "indexByName": order, "renameByName": rename}},
	}
	for _, key := range p.keys {
		b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, key.override()...)
		override := dashboard.DashboardFieldConfigSourceOverrides{Matcher: dashboard.MatcherConfig{Id: "byName", Options: key.title}}
		switch {
		case slices.Contains(p.hidden, key.name):
			override.Properties = []dashboard.DynamicConfigValue{{Id: "custom.hidden", Value: true}}
		case len(p.links) > 0:
			override.Properties = []dashboard.DynamicConfigValue{{Id: "links", Value: links(n, p.links)}}
		default:
			continue
		}
		b.FieldConfig.Overrides = append(b.FieldConfig.Overrides, override)
	}
}

// override sets the width of a column whose texts have a known length.
func (l label) override() []dashboard.DashboardFieldConfigSourceOverrides {
	width := 0 // pixels
	switch l.name {
	case "gpu", "xid", "minor":
		width = 65
	case "GPU_I_ID":
		width = 90
	case "GPU_I_PROFILE", "severity", "nvswitch":
		width = 110
	case "driver_version", "vbios_version", "serial":
		width = 130
	case "pci_bus_id":
		width = 170
	case "modelName":
		width = 210
	case "cluster_uuid", "UUID":
		width = 340
	case "uuid": // of an NVSwitch
		width = 400
	default:
		return nil
	}
	return []dashboard.DashboardFieldConfigSourceOverrides{{
		Matcher: dashboard.MatcherConfig{Id: "byName", Options: l.title}, Properties: []dashboard.DynamicConfigValue{{Id: "custom.width", Value: width}},
	}}
}

func (c column) override(n Names) dashboard.DashboardFieldConfigSourceOverrides {
	set := []dashboard.DynamicConfigValue{}
	add := func(id string, value any) { set = append(set, dashboard.DynamicConfigValue{Id: id, Value: value}) }
	var f dashboard.FieldConfig
	c.style.apply(&f)
	add("unit", c.style.unit)
	add("decimals", c.style.decimals)
	if c.style.empty != "" {
		add("noValue", c.style.empty)
	}
	if f.Mappings != nil {
		add("mappings", f.Mappings)
	}
	if f.Thresholds != nil {
		add("thresholds", f.Thresholds)
	}
	if f.Min != nil {
		add("min", *f.Min)
	}
	if f.Max != nil {
		add("max", *f.Max)
	}
	switch {
	case c.gauge:
		add("custom.cellOptions", map[string]any{"type": "gauge", "mode": "basic", "valueDisplayMode": "text"})
	case c.fill:
		add("custom.cellOptions", map[string]any{"type": "color-background", "mode": "basic"})
	case f.Mappings != nil || f.Thresholds != nil:
		add("custom.cellOptions", map[string]any{"type": "color-text"})
	}
	if c.width > 0 {
		add("custom.width", c.width)
	}
	if len(c.links) > 0 {
		add("links", links(n, c.links))
	}
	return dashboard.DashboardFieldConfigSourceOverrides{
		Matcher: dashboard.MatcherConfig{Id: "byName", Options: c.title}, Properties: set,
	}
}

func (s style) apply(f *dashboard.FieldConfig) {
	f.Unit, f.Decimals, f.Min, f.Max = &s.unit, cog.ToPtr(float64(s.decimals)), s.min, s.max
	if s.empty != "" {
		f.NoValue = &s.empty
	}
	if len(s.values) > 0 {
		m := dashboard.NewValueMap()
		for i, v := range s.values {
			m.Options[strconv.FormatFloat(v.value, 'f', -1, 64)] = dashboard.ValueMappingResult{Text: &v.text, Color: &v.color, Index: cog.ToPtr(int32(i))}
		}
		f.Mappings = []dashboard.ValueMapping{{ValueMap: m}}
	}
	if len(s.steps) > 0 {
		t := dashboard.NewThresholdsConfig()
		t.Mode = dashboard.ThresholdsModeAbsolute
		for i, from := range s.steps {
			built := dashboard.Threshold{Color: from.color}
			if i > 0 {
				built.Value = &from.from
			}
			t.Steps = append(t.Steps, built)
		}
		f.Thresholds = t
		f.Color = &dashboard.FieldColor{Mode: dashboard.FieldColorModeIdThresholds}
	}
	if s.color != "" {
		f.Color = &dashboard.FieldColor{Mode: dashboard.FieldColorModeIdFixed, FixedColor: &s.color}
	}
}

func links(n Names, list []link) []dashboard.DashboardLink {
	var built []dashboard.DashboardLink
	for _, l := range list {
		var url strings.Builder
		fmt.Fprintf(&url, "/d/%s?${datasource:queryparam}&${cluster:queryparam}&${job:queryparam}", uid(n, l.page))
		for _, set := range l.set {
			fmt.Fprintf(&url, "&var-%s=%s", set[0], set[1])
		}
		url.WriteString("&${__url_time_range}")
		built = append(built, dashboard.DashboardLink{Title: l.title, Type: dashboard.DashboardLinkTypeLink, Url: cog.ToPtr(url.String()), Tags: []string{}})
	}
	return built
}

// Links from a row of a table, by the titles of its columns.
func rowToNode() link {
	return link{"Node ${__data.fields.Node}", "node", [][2]string{{"node", "${__data.fields.Node}"}}}
}

func rowToGPU() link {
	return link{"GPU ${__data.fields.GPU} of ${__data.fields.Node}", "gpu",
		[][2]string{{"node", "${__data.fields.Node}"}, {"gpu", "${__data.fields.UUID}"}}}
}

// Links from a series, by its labels.
func seriesToNode() link {
	return link{"Node ${__field.labels.hostname}", "node", [][2]string{{"node", "${__field.labels.hostname}"}}}
}

func seriesToGPU() link {
	return link{"GPU ${__field.labels.gpu} of ${__field.labels.hostname}", "gpu",
		[][2]string{{"node", "${__field.labels.hostname}"}, {"gpu", "${__field.labels.UUID}"}}}
}

// The columns that identify a row.
func gpuKeys() []label {
	return []label{{"cluster", "Cluster"}, {"hostname", "Node"}, {"gpu", "GPU"}, {"UUID", "UUID"}}
}

func nodeKeys() []label { return []label{{"cluster", "Cluster"}, {"hostname", "Node"}} }
