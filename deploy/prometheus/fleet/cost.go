// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/rules"
)

// The cost of the rules is the CPU time of this process while the groups are evaluated, each
// at its interval, divided by the time that they cover: queries and the writing of results,
// without the write-ahead log. Garbage collection is off meanwhile, because its cost is that
// of the whole database and depends on when it starts. One collection before each evaluation
// shows what it costs. The part that the rules cause on a server is reported separately: a
// server collects when its garbage reaches 75 % of its live heap, so the part is the garbage
// of the rules, divided by that, times the CPU time of one collection.

// serverGOGC is the default of Prometheus (gogc in its configuration).
const serverGOGC = 75

// collections is the garbage collections between evaluations.
type collections struct {
	count int
	used  time.Duration // CPU time
}

func (c *collections) collect() {
	used := cpu()
	runtime.GC()
	c.used += cpu() - used
	c.count++
}

// groupCost is what the evaluations of a group cost.
type groupCost struct {
	*rules.Group
	evaluations int
	used        time.Duration   // CPU time
	garbage     uint64          // bytes
	took        []time.Duration // of each rule, wall time
}

func costsOf(groups []*rules.Group) (costs []*groupCost) {
	for _, g := range groups {
		costs = append(costs, &groupCost{Group: g, took: make([]time.Duration, len(g.Rules()))})
	}
	return costs
}

// evaluate evaluates the group once. Garbage collection must be off.
func (g *groupCost) evaluate(ctx context.Context, t time.Time) {
	allocated, used := metric("/gc/heap/allocs:bytes"), cpu()
	g.Eval(ctx, t)
	g.used += cpu() - used
	g.garbage += metric("/gc/heap/allocs:bytes") - allocated
	g.evaluations++
	for i, r := range g.Rules() {
		g.took[i] += r.GetEvaluationDuration()
	}
}

// perSecond divides a sum over all evaluations by the time that they cover.
func (g *groupCost) perSecond(sum float64) float64 {
	return sum / (time.Duration(g.evaluations) * g.Interval()).Seconds()
}

// share is the part of a core that the group needs.
func (g *groupCost) share() float64 { return g.perSecond(g.used.Seconds()) }

// printCosts prints the cost of each group and of the slowest rules. It returns the part of a
// core that all groups need.
func printCosts(costs []*groupCost, gc collections) (share float64) {
	fmt.Printf("\n%-14s %9s %12s %16s %12s\n", "Rules", "interval", "evaluations", "CPU of each", "of a core")
	var garbage float64 // bytes per second
	for _, g := range costs {
		fmt.Printf("%-14s %9v %12d %16v %10.2f %%\n", g.Name(), g.Interval(), g.evaluations,
			(g.used / time.Duration(g.evaluations)).Round(10*time.Microsecond), 100*g.share())
		share += g.share()
		garbage += g.perSecond(float64(g.garbage))
	}
	fmt.Printf("%-54s %10.2f %% (limit %.0f %%)\n", "all", 100*share, 100*maxRuleCPU)
	live, each := float64(metric("/gc/heap/live:bytes")), gc.used/time.Duration(gc.count)
	fmt.Printf("%-54s %10.2f %%: %.1f MiB of garbage per second; one collection of %.0f MiB needs %v\n", "their garbage collection, on a server",
		100*garbage/(live*serverGOGC/100)*each.Seconds(), garbage/(1<<20), live/(1<<20), each.Round(time.Millisecond))
	type line struct {
		name  string
		share float64
		each  time.Duration
	}
	var lines []line
	for _, g := range costs {
		for i, r := range g.Rules() {
			lines = append(lines, line{r.Name(), g.perSecond(g.took[i].Seconds()), g.took[i] / time.Duration(g.evaluations)})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(b.share, a.share) })
	for _, l := range lines[:min(20, len(lines))] {
		fmt.Printf("  %-35s %16v %10.2f %% wall time\n", l.name, l.each.Round(10*time.Microsecond), 100*l.share)
	}
	return share
}

// cpu is the CPU time of this process.
func cpu() time.Duration {
	u := usage(syscall.RUSAGE_SELF)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func usage(who int) (u syscall.Rusage) {
	if err := syscall.Getrusage(who, &u); err != nil {
		panic(err) // fails only for a wrong argument
	}
	return u
}

// metric reads a metric of the runtime.
func metric(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
