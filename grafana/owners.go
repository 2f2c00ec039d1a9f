// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
)

// recent is the window of values that describe the present. Over the time range, rates of
// devices that did not exist before would be too low.
const recent = "[$__rate_interval]"

// noRules is for panels that are empty only without the recording rules.
const noRules = "needs the recording rules"

// ended is the number of GPUs of an owner that held some in the time range and is not
// reported to hold any now.
const ended = -1

// The records count GPUs and seconds at each evaluation. Those of nodes have an interval of
// their own.
var (
	perHour       = int(time.Hour / rules.Interval)
	perEvaluation = rules.Interval.Seconds()
)

// perHourOf returns how often a record is evaluated in an hour.
func perHourOf(r *rules.Record) int {
	for _, g := range rules.RecordGroups() {
		if slices.Contains(g.Records, r) {
			return int(time.Hour / g.Interval)
		}
	}
	return perHour
}

// ownerRecords are the records of one level of owners.
type ownerRecords struct {
	held, idle, busy, energy *rules.Record
	sm                       *rules.Record // nil: the level has none
}

func podRecords() ownerRecords {
	return ownerRecords{&rules.PodHeld, &rules.PodHeldIdle, &rules.PodBusy, &rules.PodEnergy, nil}
}

func namespaceRecords() ownerRecords {
	return ownerRecords{&rules.NamespaceHeld, &rules.NamespaceHeldIdle, &rules.NamespaceBusy, &rules.NamespaceEnergy, &rules.NamespaceSMActive}
}

func jobRecords() ownerRecords {
	return ownerRecords{&rules.JobHeld, &rules.JobHeldIdle, &rules.JobBusy, &rules.JobEnergy, nil}
}

func userRecords() ownerRecords {
	return ownerRecords{&rules.UserHeld, &rules.UserHeldIdle, &rules.UserBusy, &rules.UserEnergy, &rules.UserSMActive}
}

// owners are the owners of one level that a selector matches, grouped by labels.
type owners struct {
	ownerRecords
	by, selector string
}

// now returns the newest value.
func (o owners) now(r *rules.Record) string {
	return e("sum by (", o.by, ") (", r, o.selector, ")")
}

// total adds up a record over the time range.
func (o owners) total(r *rules.Record) string { return o.totalIn(r, "[$__range]") }

func (o owners) totalIn(r *rules.Record, window string) string {
	return e("sum by (", o.by, ") (sum_over_time(", r, o.selector, window, "))")
}

// hours is the GPU hours of a number of GPUs.
func (o owners) hours(r *rules.Record) string { return e(o.total(r), " / ", perHour) }

// busyHours is the busy time in hours.
func (o owners) busyHours() string { return e(o.total(o.busy), " / 3600") }

// wattHours is the energy.
func (o owners) wattHours() string { return e(o.total(o.energy), " / 3600") }

// ratio is a number of seconds per held second, so that owners and times count by their
// GPU hours.
func (o owners) ratio(r *rules.Record, window string) string {
	return e(o.totalIn(r, window), " / (", o.totalIn(o.held, window), " * ", perEvaluation, ")")
}

// watts is the mean power in a window of the seconds.
func (o owners) watts() string {
	return e("sum by (", o.by, ") (avg_over_time(", o.energy, o.selector, "[$__rate_interval])) / ", perEvaluation)
}

// leading selects the owners with most of a record in the time range.
func (o owners) leading(count int, expr string, r *rules.Record) string {
	return e("(", expr, ") and on (", o.by, ") topk(", count, ", ", o.totalIn(r, "[$__range] @ end()"), ")")
}

// worst selects the owners with the most idle GPU hours.
func (o owners) worst(count int, expr string) string {
	rank := e(o.hours(o.idle), " or 0 * ", o.hours(o.held))
	return e("(", expr, ") and on (", o.by, ") topk(", count, ", ", rank, ")")
}

// columns are the columns of a table of the 100 owners with the most idle hours.
func (o owners) columns() []column {
	const count = 100
	list := []column{
		{title: "GPUs now", expr: o.worst(count, o.now(o.held)+e(" or (0 * ", o.total(o.held), " + ", ended, ")")),
			style: of("none", 2, "").texts(value{ended, "none", absent}).neutral()},
		{title: "Idle now", expr: o.worst(count, o.now(o.idle)), style: idleStyle(2)},
		{title: "GPU hours", expr: o.worst(count, o.hours(o.held)), style: hoursStyle()},
		{title: idleHours, expr: o.worst(count, o.hours(o.idle)), style: hoursStyle()},
		{title: "Busy hours", expr: o.worst(count, o.busyHours()), style: hoursStyle()},
		{title: "Utilization", expr: o.worst(count, o.ratio(o.busy, "[$__range]")), style: ratioCell(), gauge: true},
	}
	if o.sm != nil {
		list = append(list, column{title: "SM activity", expr: o.worst(count, o.ratio(o.sm, "[$__range]")), style: ratioCell(), gauge: true})
	}
	return cells(95, append(list, column{title: "Energy", expr: o.worst(count, o.wattHours()), style: energyStyle()})...)
}

// cells sets the width of columns in pixels, which leaves the rest to the names of owners. An
// empty cell needs no text: the owner ended.
func cells(width int, list ...column) []column {
	for i := range list {
		list[i].style.empty, list[i].width = "", width
	}
	return list
}

// ownersOf is texts for the number of owners of a GPU, completed by orWhy. A GPU that answers
// has no number without a complete source of owners, and in MIG mode without instances.
func ownersOf(empty string) style {
	s := of("none", 0, empty)
	s.values = []value{{0, "free", absent}, {notSupported, "not known", unknown}, {notKnown, "not known now", unknown}}
	return s
}

// heldBy is a column with the pods and batch jobs that hold a device. A device that several
// share has a row for each.
func heldBy(by, selector string) column {
	return column{labels: []label{{"owner", "Held by"}}, expr: e("group by (", by, ", owner) (",
		"label_join(", &definition.GPUPodInfo, selector, `, "owner", "/", "namespace", "pod") or `,
		"label_join(", &definition.GPUJobInfo, selector, `, "owner", " ", "source", "job_id", "user"))`)}
}

const (
	idleHours = "Idle hours"

	aboutOwners = "GPUs that several owners share count once, in equal parts. A MIG instance is the part of its GPU that its slices are. " +
		"Idle hours are hours in which a held GPU was busy for less than 1 % of five minutes. " +
		"Utilization is the busy time, and SM activity the active time of the SMs, divided by the held time. "
)

func idleStyle(decimals int) style {
	return of("none", decimals, noRules).zeroIsGood(caution)
}

func hoursStyle() style { return of("none", 1, noRules) }

func energyStyle() style { return of("watth", 1, noRules) }

func ratioStyle() style {
	return of("percentunit", 0, noRules).ofOne()
}

// ratioCell is a ratio in a column of a table.
func ratioCell() style { return of("percentunit", 0, "").ofOne().levels(step{color: quantity}) }

// ownerLabels returns the columns of labels, in the form of a grouping too.
func ownerLabels(labels ...label) (keys []label, by string) {
	names := make([]string, len(labels))
	for i, l := range labels {
		names[i] = l.name
	}
	return labels, strings.Join(names, ", ")
}

// summary is the stats of the selected owners. They are 0 while a source of owners reports
// that no selected owner holds a GPU.
func (o owners) summary(who string) []*panel {
	o.by = ""
	quantities := func(s style) style { s.color, s.empty = quantity, noOwners; return s }
	wasted := idleStyle(1)
	wasted.empty = noOwners
	noTime := "no " + who + " held a GPU, or " + noRules
	ratio, energy := quantities(ratioStyle()), quantities(energyStyle())
	ratio.empty, energy.empty = noTime, noTime
	return []*panel{
		newStat("GPUs held now", "GPUs that the selected owners hold. A shared GPU counts once.", quantities(of("none", 1, "")),
			query{o.now(o.held) + noneNow(), "GPUs"}),
		newStat("Of these idle", "Held GPUs that were busy for less than 1 % of the last five minutes.", wasted, query{o.now(o.idle) + noneNow(), "GPUs"}),
		newStat("GPU hours", "Held GPUs times hours in the time range.", quantities(hoursStyle()), query{o.hours(o.held) + noneEver(), "hours"}),
		newStat(idleHours, "Held GPUs times hours in which they were idle.", wasted, query{o.hours(o.idle) + noneEver(), "hours"}),
		newStat("Utilization", "Busy time of the held GPUs divided by the time they were held: every owner counts by its GPU hours.", ratio,
			query{o.ratio(o.busy, "[$__range]"), "utilization"}),
		newStat("Energy", "Energy of the held GPUs, without the rest of the nodes.", energy, query{o.wattHours(), "energy"}),
	}
}

// noOwners is for stats of owners, which are 0 if a source reports that a GPU is free.
const noOwners = "no source of owners, or " + noRules

// noneNow and noneEver complete a number of GPUs, and of hours, with 0.
func noneNow() string { return e(" or 0 * sum(", &rules.ClusterAllocated, ofRecords, ")") }

func noneEver() string {
	return e(" or 0 * sum(sum_over_time(", &rules.ClusterAllocated, ofRecords, "[$__range]))")
}

// overTime is the time series of the owners with the most GPU hours.
func (o owners) overTime(who, legend string, l ...link) []*panel {
	empty := "no " + who + " held a GPU, or " + noRules
	series := func(title, description, expr string, s style, by *rules.Record) *panel {
		s.empty = empty
		return newTimeSeries(title, description+" The 20 with the most in the time range.", s, query{o.leading(20, expr, by), legend}).link(l...)
	}
	gpus := of("none", 1, "").from0()
	return []*panel{
		series("GPUs held by "+who, "Number of GPUs that are held.", o.now(o.held), gpus, o.held).stack(),
		series("Idle GPUs by "+who, "Number of held GPUs that were busy for less than 1 % of five minutes.", o.now(o.idle), gpus, o.idle).stack(),
		series("Utilization by "+who, "Busy time divided by held time.", o.ratio(o.busy, "[$__rate_interval]"), ratioStyle(), o.held),
		series("Power by "+who, "Mean power of the held GPUs.", o.watts(), of("watt", 1, "").from0(), o.energy).stack(),
	}
}
