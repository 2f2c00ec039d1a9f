// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

var scale = flag.Int("scale", 1, "multiple of the 4 nodes, 4 namespaces and 4 users of the month")

const (
	month      = 30 * 24 * time.Hour
	maxPoints  = 11_000 // of a series in the result of a query of Prometheus
	gpusOfNode = 8
)

// record is a series of a recording rule whose value does not change, except in the fault.
type record struct {
	series
	value, fault float64
	interval     time.Duration
}

// monthly returns the records that the report of a month needs: each namespace and user holds
// two GPUs that are busy half of the time, and idle a quarter. In the fault, one GPU of the
// first node is unhealthy.
func monthly() (all []record) {
	add := func(interval time.Duration, name string, value, fault float64, labels ...string) {
		r := record{value: value, fault: fault, interval: interval, series: series{labels: map[string]string{"__name__": name, "cluster": "demo"}}}
		for i := 0; i < len(labels); i += 2 {
			r.labels[labels[i]] = labels[i+1]
		}
		all = append(all, r)
	}
	count := 4 * *scale
	for i := range count {
		for _, level := range []struct {
			name   string
			labels []string
		}{{"namespace", []string{"namespace", fmt.Sprint("team-", i)}}, {"user", []string{"user", fmt.Sprint("user-", i), "account", "physics", "partition", "long"}}} {
			steady := func(name string, value float64) {
				add(scrapeInterval, level.name+":"+name, value, value, level.labels...)
			}
			steady("gpus_held:sum", 2)
			steady("gpus_held_idle:sum", 0.5)
			steady("gpu_busy_seconds:increase", 30)
			steady("gpu_sm_active_seconds:increase", 15)
			steady("gpu_energy_joules:increase", 2*400*30)
		}
		node := fmt.Sprint("node-", i)
		unhealthy := 0.0
		if i == 0 {
			unhealthy = 1
		}
		add(time.Minute, "node:gpus:count", gpusOfNode, gpusOfNode-unhealthy, "hostname", node, "state", "healthy")
		add(time.Minute, "node:gpus:count", 0, unhealthy, "hostname", node, "state", "unhealthy")
		add(time.Minute, "node:gpus:count", 0, 0, "hostname", node, "state", "not_answering")
		add(time.Minute, "node:gpus:count", 0, 0, "hostname", node, "state", "unknown")
	}
	gpus := float64(count * gpusOfNode)
	add(scrapeInterval, "cluster:gpus:count", gpus, gpus-1, "state", "healthy")
	add(scrapeInterval, "cluster:gpus:count", 0, 1, "state", "unhealthy")
	add(scrapeInterval, "cluster:gpus_allocated:sum", gpus/2, gpus/2)
	add(scrapeInterval, "cluster:gpus_held_idle:sum", gpus/8, gpus/8)
	add(scrapeInterval, "cluster:gpu_energy_joules:increase", gpus*400*30, gpus*400*30)
	return all
}

// writeMonth writes the records of a month, in the order of time, with a fault of a day.
func (p prometheus) writeMonth(all []record, from, to time.Time) {
	fault := from.Add(week)
	for begin := from; begin.Before(to); begin = begin.Add(2 * time.Hour) {
		part := make([]series, len(all))
		for i, r := range all {
			part[i].labels = r.labels
			for at := begin.Add(r.interval); !at.After(begin.Add(2 * time.Hour)); at = at.Add(r.interval) {
				value := r.value
				if at.After(fault) && !at.After(fault.Add(24*time.Hour)) {
					value = r.fault
				}
				part[i].samples = append(part[i].samples, sample{at, value})
			}
		}
		p.write(part)
	}
}

const week = 7 * 24 * time.Hour

// TestMonth: the report of a month has the values of all evaluations in it, and no query
// exceeds the limits of Prometheus.
func TestMonth(t *testing.T) {
	if !*full {
		t.Skip("writes a month of records: run make test-dashboards")
	}
	p := startPrometheus(t)
	to := time.Now().Truncate(time.Hour)
	from := to.Add(-month)
	all := monthly()
	p.writeMonth(all, from, to)
	i := slices.IndexFunc(readDashboards(t, "dashboards"), func(d dashboard) bool { return d.file == "dashboards/waste.json" })
	waste := readDashboards(t, "dashboards")[i]
	if span, err := waste.duration(); err != nil || span != month {
		t.Fatalf("the time range is %v (%v), not a month", span, err)
	}
	choices, err := p.choices(waste, from, to)
	if err != nil {
		t.Fatal(err)
	}
	hours, count := month.Hours(), float64(4**scale)
	want := map[string]float64{ // of the first query
		"GPU hours/stat": hours * count * gpusOfNode, "Held/stat": hours * count * gpusOfNode / 2, "Held and idle/stat": hours * count, "Not held/stat": hours * count * gpusOfNode / 2,
		"Lost to faults/stat": 24, "Utilization/stat": 0.5, "SM activity/stat": 0.25, "Energy at the meter/stat": hours * count * gpusOfNode * 400 * 1.3, "Energy without owner/stat": hours * count * 400 * 4,
		"Namespaces/table": hours * 2, "Users/table": hours * 2, "Nodes with lost hours/table": 24,
	}
	var slowest time.Duration
	for _, panel := range waste.flat() {
		for i, q := range panel.Targets {
			began := time.Now()
			results, err := p.run(waste, panel, q, choices[0], from, to)
			took := time.Since(began)
			slowest = max(slowest, took)
			if err != nil || len(results) == 0 {
				t.Errorf("panel %q, query %s: %d series, %v", panel.Title, q.RefID, len(results), err)
				continue
			}
			if points := month / step(month, panel, q); !q.Instant && points > maxPoints {
				t.Errorf("panel %q, query %s has %d points, Prometheus returns %d", panel.Title, q.RefID, points, maxPoints)
			}
			if took > time.Second {
				t.Logf("panel %q, query %s took %v", panel.Title, q.RefID, took.Round(time.Millisecond))
			}
			if w, ok := want[panel.Title+"/"+panel.Type]; ok && i == 0 {
				most := slices.MaxFunc(results, func(a, b result) int { return int(math.Copysign(1, a.Value.value-b.Value.value)) })
				if got := most.Value.value; math.Abs(got-w) > 1e-3*w {
					t.Errorf("panel %q is %v, want %v", panel.Title, got, w)
				}
				delete(want, panel.Title+"/"+panel.Type)
			}
		}
	}
	for title := range want {
		t.Errorf("no panel %s", title)
	}
	t.Logf("%d series; the slowest query took %v", len(all), slowest.Round(time.Millisecond))
}
