// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
)

// The subjects that series are counted for, in the order of the output.
const (
	subjectGPU      = "GPU"
	subjectInstance = "MIG instance"
	subjectNode     = "node"
	subjectOwner    = "owner of a device"
	subjectSource   = "source of owners"
	subjectSwitch   = "NVSwitch"
	subjectLink     = "NVLink"
	subjectPair     = "pair of GPUs"
	subjectCPU      = "CPU"
)

func subjects() []string {
	return []string{subjectGPU, subjectInstance, subjectNode, subjectOwner, subjectSource, subjectSwitch, subjectLink, subjectPair, subjectCPU,
		model.KindComputeInstance.String(), model.KindCPUCore.String(), model.KindConnectX.String()}
}

// subjectsOf returns the subjects of a family: a family per GPU or MIG instance counts for
// both.
func subjectsOf(d *definition.Family) []string {
	switch d.Per {
	case definition.PerDevice:
		return []string{subjectGPU, subjectInstance}
	case definition.PerChecked:
		return []string{subjectGPU, subjectSwitch, subjectCPU}
	case definition.PerGroup:
		return []string{subjectNode}
	}
	return []string{string(d.Per)}
}

// subjectOf returns the subject of a field's series on a kind of entity.
func subjectOf(kind model.EntityKind) string {
	names := map[model.EntityKind]string{
		model.KindGPU: subjectGPU, model.KindGPUInstance: subjectInstance, model.KindSwitch: subjectSwitch, model.KindLink: subjectLink, model.KindCPU: subjectCPU,
	}
	return cmp.Or(names[kind], kind.String())
}

// seriesCount is the maximum number of series, by subject.
type seriesCount struct {
	counters, groups map[string]int
	// byValue are families whose number of series depends on what occurs.
	byValue []string
}

func countSeries(c config.Config) seriesCount {
	n := seriesCount{counters: map[string]int{}, groups: map[string]int{}}
	for _, m := range c.Counters {
		if m.Computed != 0 {
			n.byValue = append(n.byValue, m.Name)
			continue
		}
		for _, kind := range config.CollectedKinds() {
			if m.On(kind) {
				n.counters[subjectOf(kind)] += familyCount(m)
			}
		}
	}
	for _, g := range definition.Groups() {
		for _, d := range g.Families {
			if !c.Families.Has(d) {
				continue
			}
			most := d.Max
			if d.Per == definition.PerGroup {
				most *= len(c.Families.Groups())
			}
			for _, subject := range subjectsOf(d) {
				n.groups[subject] += most
			}
			if d.Max == 0 {
				n.byValue = append(n.byValue, d.Name)
			}
		}
	}
	return n
}

// familyCount returns the number of a counter's families. The classic series of a native
// histogram do not count.
func familyCount(m field.Counter) int {
	names := slices.DeleteFunc(m.FamilyNames(), func(name string) bool { return strings.HasPrefix(name, m.Name+field.SuffixHistogram+"_") })
	return len(names)
}

// writeGroups prints the families of the selected groups, the groups that are not
// selected, and the number of series.
func writeGroups(w io.Writer, c config.Config) error {
	fmt.Fprintf(w, "\nFamilies of --families=%s\n", c.Families)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	var left []string
	for _, g := range definition.Groups() {
		if !slices.Contains(c.Families.Groups(), g.Name) {
			left = append(left, fmt.Sprintf("%s (%s)", g.Name, g.About))
			continue
		}
		fmt.Fprintf(table, "%s: %s\n", g.Name, g.About)
		for _, d := range g.Families {
			series := fmt.Sprintf("%d per %s", d.Max, d.Per)
			if d.Max == 0 {
				series = "by value, per " + string(d.Per)
			}
			fmt.Fprintf(table, "  %s\t%s\t%s\n", d.Name, d.Type, series)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	writeWrapped(w, "Not selected: ", left)

	n := countSeries(c)
	fmt.Fprintln(w, "\nSeries at most")
	table = tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "counters\tgroups\ttotal\t  per")
	for _, subject := range subjects() {
		counters, groups := n.counters[subject], n.groups[subject]
		if counters+groups > 0 {
			fmt.Fprintf(table, "%d\t%d\t%d\t  %s\n", counters, groups, counters+groups, subject)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	writeWrapped(w, "In addition, by value: ", n.byValue)
	return nil
}

// writeWrapped prints a list, if it is not empty, in lines that fit a terminal.
func writeWrapped(w io.Writer, title string, list []string) {
	if len(list) == 0 {
		return
	}
	for line := range config.Wrapped(title+strings.Join(list, ", "), outputWidth) {
		fmt.Fprintln(w, line)
	}
}
