// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"

	"gpu_exporter/deploy/prometheus/rules"
)

// ofAllOwners adds up records of namespaces and of users, whose series have different
// labels.
func ofAllOwners(namespace, user *rules.Record, window string) string {
	return e("sum(sum_over_time(", namespace, ofRecords, window, ") or sum_over_time(", user, ofRecords, window, "))")
}

// waste is the report of a month: hours, costs, efficiency, faults and energy.
func waste(Names) page {
	namespaceKeys, byNamespace := ownerLabels(label{"cluster", "Cluster"}, label{"namespace", "Namespace"})
	userKeys, byUser := ownerLabels(label{"cluster", "Cluster"}, label{"user", "User"}, label{"account", "Account"}, label{"partition", "Partition"})
	namespaces := owners{namespaceRecords(), byNamespace, ofRecords}
	users := owners{userRecords(), byUser, ofRecords}

	const inRange, inBar = "[$__range]", "[$__interval]"
	// gpuHours adds up a record of a number of GPUs.
	gpuHours := func(r *rules.Record, selector, window string) string {
		return e("(sum(sum_over_time(", r, selector, window, ")) / ", perHour, ")")
	}
	all := func(window string) string { return gpuHours(&rules.ClusterStates, ofRecords, window) }
	held := func(window string) string { return gpuHours(&rules.ClusterAllocated, ofRecords, window) }
	idle := func(window string) string { return gpuHours(&rules.ClusterHeldIdle, ofRecords, window) }
	faulty := and(ofRecords, `state!="healthy"`)
	wattHours := func(window string) string {
		return e("(sum(sum_over_time(", &rules.ClusterEnergy, ofRecords, window, ")) / 3600)")
	}
	ownersWattHours := func(window string) string {
		return "(" + ofAllOwners(&rules.NamespaceEnergy, &rules.UserEnergy, window) + " / 3600)"
	}
	heldSeconds := e("(", ofAllOwners(&rules.NamespaceHeld, &rules.UserHeld, inRange), " * ", perEvaluation, ")")
	perHeld := func(namespace, user *rules.Record) query {
		return query{ofAllOwners(namespace, user, inRange) + " / " + heldSeconds, "efficiency"}
	}

	amount := func(unit string, decimals int, empty string) style {
		return of(unit, decimals, empty).in(quantity)
	}
	wasted := func(color string) style {
		return of("none", 0, noOwners).zeroIsGood(color)
	}
	noHolder := "no owner held a GPU, or " + noRules
	toNamespace := link{"Pods of ${__data.fields.Namespace}", "workloads", [][2]string{{"namespace", "${__data.fields.Namespace}"}}}
	toUser := link{"Jobs of ${__data.fields.User}", "jobs", [][2]string{{"user", "${__data.fields.User}"}}}

	return page{
		name:  "waste",
		title: "Waste",
		description: "GPU hours that were held without work, not held, or lost to faults, with cost, the efficiency of each owner, energy and carbon. " +
			"Set the prices, the PUE and the carbon intensity above. For the report of a month, select the month as the time range.",
		rules: true, from: "now-30d",
		variables: []dashboard.VariableModel{clusters(), jobs(),
			number("price", "Price of a GPU hour", "2.50"), number("pue", "PUE", "1.3"),
			number("power_price", "Price of a kWh", "0.12"), number("carbon", "g of CO₂ per kWh", "400")},
		rows: []row{
			{title: "Time range", panels: []*panel{
				newStat("GPU hours", "All GPUs times hours, in any state.", amount("none", 0, noRules), query{all(inRange), "hours"}),
				newStat("Held", "GPU hours that a container or job held.", amount("none", 0, noOwners), query{held(inRange), "hours"}),
				newStat("Held and idle", "GPU hours that were held while the GPU was busy for less than 1 % of five minutes.", wasted(caution), query{idle(inRange), "hours"}),
				newStat("Cost of idle hours", "Idle GPU hours times the price of a GPU hour ($price), in the currency of the price.", wasted(caution), query{idle(inRange) + " * $price", "cost"}),
				newStat("Not held", "GPU hours that no container or job held, also of GPUs with a fault.", amount("none", 0, noOwners), query{all(inRange) + " - " + held(inRange), "hours"}),
				newStat("Lost to faults", "GPU hours in which a GPU was unhealthy, did not answer, or was no longer reported for up to an hour.",
					of("none", 1, noRules).zeroIsGood(serious), query{gpuHours(&rules.ClusterStates, faulty, inRange), "hours"}),
				newStat("Utilization", "Busy time of held GPUs divided by held time: every owner counts by its GPU hours.", amount("percentunit", 1, noHolder),
					perHeld(&rules.NamespaceBusy, &rules.UserBusy)),
				newStat("SM activity", "Active time of the SMs of held GPUs divided by held time. A busy GPU with low activity runs small or waiting kernels.", amount("percentunit", 1, noHolder),
					perHeld(&rules.NamespaceSMActive, &rules.UserSMActive)),
				newStat("Energy at the meter", "Energy of the GPUs times the PUE ($pue). The rest of the nodes is not included.", amount("watth", 1, noRules), query{wattHours(inRange) + " * $pue", "energy"}),
				newStat("Cost of energy", "Energy at the meter times the price of a kWh ($power_price), in the currency of the price.", amount("none", 0, noRules),
					query{wattHours(inRange) + " / 1000 * $pue * $power_price", "cost"}),
				newStat("Carbon", "Energy at the meter times the carbon intensity ($carbon g of CO₂ per kWh).", amount("masskg", 1, noRules),
					query{wattHours(inRange) + " / 1000 * $pue * $carbon / 1000", "CO₂"}),
				newStat("Energy without owner", "Energy of GPUs that no pod and no batch job held.", amount("watth", 1, noHolder),
					query{wattHours(inRange) + " - " + ownersWattHours(inRange), "energy"}),
			}},
			{title: "Hours", panels: []*panel{
				bars("GPU hours", "Hours of all GPUs by what happened to them, in each interval.", amount("none", 2, noOwners),
					query{held(inBar) + " - " + idle(inBar), "held and busy"},
					query{idle(inBar), "held and idle"},
					query{all(inBar) + " - " + held(inBar), "not held"}).colors([][2]string{{"held and busy", good}, {"held and idle", caution}, {"not held", quantity}}),
				bars("GPU hours lost to faults", "Hours of GPUs that were unhealthy, did not answer, or were no longer reported for up to an hour, in each interval.",
					of("none", 2, noRules),
					query{e("sum by (state) (sum_over_time(", &rules.ClusterStates, faulty, inBar, ")) / ", perHour), "{{state}}"}),
			}},
			{title: "Owners", panels: []*panel{
				newTable("Namespaces", aboutOwners+aboutChange+"The 20 namespaces with the most idle hours.",
					namespaceKeys, idleHours, namespaces.costs(20)...).ifEmpty("no pod held a GPU, or " + noRules).link(toNamespace),
				newTable("Users", aboutOwners+aboutChange+"The 20 users of batch jobs with the most idle hours.",
					userKeys, idleHours, users.costs(20)...).ifEmpty("no batch job held a GPU, or " + noRules).link(toUser),
				bars("Idle hours of namespaces", "Idle GPU hours in each interval. The ten namespaces with the most in the time range.",
					of("none", 2, "no pod held a GPU, or "+noRules),
					query{namespaces.leading(10, e(namespaces.totalIn(namespaces.idle, inBar), " / ", perHour), namespaces.idle), "{{namespace}} {{cluster}}"}),
				bars("Idle hours of users", "Idle GPU hours of batch jobs in each interval. The ten users with the most in the time range.",
					of("none", 2, "no batch job held a GPU, or "+noRules),
					query{users.leading(10, e(users.totalIn(users.idle, inBar), " / ", perHour), users.idle), "{{user}} {{account}} {{partition}} {{cluster}}"}),
			}},
			{title: "Faults and energy", panels: []*panel{
				newTable("Nodes with lost hours", "GPU hours by state. The 20 nodes that lost the most.",
					nodeKeys(), "Lost hours",
					append([]column{{title: "Lost hours", expr: lostHours(`state!="healthy"`), style: of("none", 1, "").zeroIsGood(serious)}},
						lostColumns()...)...).ifEmpty(noRules).link(rowToNode()).size(12, 8),
				bars("Energy", "Energy of the GPUs by who held them, in each interval, without the PUE.", of("watth", 1, noRules),
					query{e("sum(sum_over_time(", &rules.NamespaceEnergy, ofRecords, inBar, ")) / 3600"), "pods"},
					query{e("sum(sum_over_time(", &rules.UserEnergy, ofRecords, inBar, ")) / 3600"), "batch jobs"},
					query{wattHours(inBar) + " - " + ownersWattHours(inBar) + " or " + wattHours(inBar), "no owner"}),
			}},
		},
	}
}

// noneBefore is the change of an owner without idle hours in the time range before.
const noneBefore = -1000003

const aboutChange = "Change compares the idle hours with those of the time range before. "

// costs are the columns of a report by owner.
func (o owners) costs(count int) []column {
	before := e("sum by (", o.by, ") (sum_over_time(", o.idle, o.selector, "[$__range] offset $__range))")
	return cells(95,
		[]column{
			{title: "GPU hours", expr: o.worst(count, o.hours(o.held)), style: hoursStyle()},
			{title: idleHours, expr: o.worst(count, o.hours(o.idle)), style: hoursStyle()},
			{title: "Cost of idle hours", expr: o.worst(count, o.hours(o.idle)+" * $price"), style: of("none", 0, "")},
			{title: "Change", expr: o.worst(count, e(o.total(o.idle), " / (", before, " > 0) - 1 or (0 * ", o.total(o.held), " + ", noneBefore, ")")),
				style: of("percentunit", 0, "").levels(step{0, good}, step{0.1, caution}).texts(value{noneBefore, "none before", absent})},
			{title: "Utilization", expr: o.worst(count, o.ratio(o.busy, "[$__range]")), style: ratioCell(), gauge: true},
			{title: "SM activity", expr: o.worst(count, o.ratio(o.sm, "[$__range]")), style: ratioCell(), gauge: true},
			{title: "Energy", expr: o.worst(count, o.wattHours()), style: energyStyle()},
			{title: "Cost of energy", expr: o.worst(count, o.wattHours()+" / 1000 * $pue * $power_price"), style: of("none", 2, "")},
		}...)
}

// lostHours is the hours of a node's GPUs in some states. A subquery would exceed Prometheus'
// limit of samples for a month of thousands of nodes, because it holds all series at once.
func lostHours(states string) string {
	of := func(states string) string {
		return e("sum by (", nodeID, ") (sum_over_time(", &rules.NodeStates, and(ofRecords, states), "[$__range])) / ", perHourOf(&rules.NodeStates))
	}
	return e("(", of(states), ") and on (", nodeID, ") topk(20, ", of(`state!="healthy"`), ")")
}

func lostColumns() []column {
	var list []column
	for _, state := range [][2]string{{"unhealthy", "Unhealthy"}, {"not_answering", "Not answering"}, {"unknown", "Not reported"}} {
		list = append(list, column{title: state[1], expr: lostHours(fmt.Sprintf("state=%q", state[0])), style: hoursStyle()})
	}
	return list
}

// bars is a panel with stacked bars, one for each of about 60 intervals of ten minutes or
// more.
func bars(title, description string, s style, queries ...query) *panel {
	s.color = ""
	p := newTimeSeries(title, description, s.from0(), queries...).stack()
	p.custom = append(p.custom, func(b *dashboard.Panel) {
		b.Interval, b.MaxDataPoints = cog.ToPtr("10m"), cog.ToPtr(62.0)
		if c, ok := b.FieldConfig.Defaults.Custom.(timeseries.FieldConfig); ok {
			c.DrawStyle, c.FillOpacity = cog.ToPtr(common.GraphDrawStyleBars), cog.ToPtr(80.0)
			b.FieldConfig.Defaults.Custom = c
		}
	})
	return p
}

// number lets the user enter a number that expressions multiply by.
func number(name, label, preset string) dashboard.VariableModel {
	return dashboard.VariableModel{
		Type: dashboard.VariableTypeTextbox, Name: name, Label: &label, Query: text(preset), Current: option(preset, preset),
		Options: []dashboard.VariableOption{{Selected: cog.ToPtr(true), Text: option(preset, preset).Text, Value: option(preset, preset).Value}},
	}
}
