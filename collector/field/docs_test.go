// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/goldentest"
	"gpu_exporter/collector/model"
)

// These tests compare FIELDS.md and etc/everything-counters.csv with the code. `make docs`
// rewrites both.

// section is a section of the page: the fields with IDs up to last that are not in an
// earlier section.
type section struct {
	title string
	last  model.FieldID
}

func sections() []section {
	return []section{
		{"The node", 6},
		{"Identity and modes of GPUs, BAR1 memory", 99},
		{"Clocks", 139},
		{"Temperature, power, energy", 167},
		{"NVLink fabric", 189},
		{"Performance state, fan", 199},
		{"PCIe traffic, utilization", 229},
		{"XID errors, PCIe link, time throttled by policy", 249},
		{"Memory", 284},
		{"C2C links", 299},
		{"ECC errors", 349},
		{"Diagnostics", 384},
		{"Remapped rows, retired pages", 399},
		{"NVLinks of a GPU", 499},
		{"vGPU", 570},
		{"Place in the rack", 579},
		{"Registers of NVLinks", 699},
		{"NVSwitches and their links; throughput of a GPU's NVLinks", 1000},
		{"Profiling", 1099},
		{"CPUs", 1199},
		{"NVLinks of Blackwell and newer", 1299},
		{"ConnectX", 1399},
		{"C2C links, NVLink error correction", 1419},
		{"Time throttled by reason", 1424},
		{"Power smoothing", 1500},
		{"PCIe, IMEX, recovery", 1507},
		{"Each NVLink", 1599},
		{"In base units", 1999},
	}
}

// bySection returns the fields with values for which keep returns true, by section.
func bySection(keep func(Field) bool) (list [][]Field) {
	all := sections()
	list = make([][]Field, len(all))
	for f := range All() {
		if f.Type == model.ValueNone || !keep(f) {
			continue
		}
		i := slices.IndexFunc(all, func(s section) bool { return f.ID <= s.last })
		list[i] = append(list[i], f)
	}
	return list
}

func code(s string) string { return "`" + s + "`" }

func codes(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = code(s)
	}
	return strings.Join(quoted, ", ")
}

// cell escapes a text for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// asPage returns a complete page.
func asPage(title, intro, body string) string {
	return "<!-- Written by `make docs`: change the code, not this page. -->\n\n# " + title + "\n\n" + strings.TrimSpace(intro) + "\n" + body
}

const fieldsIntro = `
This page lists the fields of DCGM. ` + "`gpu_exporter fields`" + ` prints the same
information for selected fields. With ` + "`--node`" + `, it reports which fields the node
supports, and why the others have no value.

A counters file can use any of the names, and the metric has the name that the file uses.
The first name is DCGM 4.6's. The others are those of earlier DCGM 4.x (as in
dcgm-exporter up to 4.8) and of dcgm-exporter 1.x.

* **type** is the metric type that fits the values: a gauge, a counter, or a label for
  text. Binary structures and times have the type – and cannot be exported.
* **read on** lists the kinds of entities that have a series. Compute instances have a
  series only if the configuration file enables it.
* A name **in base units** is a name of DCGM 4.6.1 or 4.7 in Hz, bytes, J or a ratio. The
  exporter converts the values of the older field, so the name works with every DCGM 4.
* Fields 1001 to 1099 are DCGM's profiling fields: see ` + "`gpu_exporter doctor`" + `.
`

const computedSection = `
## Computed by the exporter

The exporter computes these counters. Counters files and the configuration file select
them like fields of DCGM.

| name | type | read on | meaning |
|---|---|---|---|
`

// TestFieldsPage checks FIELDS.md: all fields and computed counters.
func TestFieldsPage(t *testing.T) {
	var b strings.Builder
	for i, fields := range bySection(func(Field) bool { return true }) {
		fmt.Fprintf(&b, "\n## %s\n\n| id | names | type | unit | read on | meaning |\n|---|---|---|---|---|---|\n", sections()[i].title)
		for _, f := range fields {
			nature, unit := "–", cmp.Or(f.Unit, "–")
			if f.Nature != MetricNone {
				nature = f.Nature.String()
			}
			var kinds []string
			for kind := model.KindGPU; kind < model.KindCount; kind++ {
				if f.On(kind) {
					kinds = append(kinds, kind.String())
				}
			}
			names, help := append([]string{f.Name}, f.Legacy()...), f.Help
			if name := f.BaseUnitName(); name != "" {
				names = slices.DeleteFunc(names, func(n string) bool { return n == name })
				help += " In base units " + code(name) + "."
			}
			fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s |\n", f.ID, codes(names), nature, unit, strings.Join(kinds, ", "), cell(help))
		}
	}
	b.WriteString(computedSection)
	for _, c := range ComputedCounters() {
		var kinds []string
		for kind := model.KindGPU; kind < model.KindCount; kind++ {
			if c.Computed.On(kind) {
				kinds = append(kinds, kind.String())
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(c.Name), c.Type, strings.Join(kinds, ", "), cell(c.Help))
	}
	goldentest.File(t, "../FIELDS.md", asPage("DCGM fields", fieldsIntro, b.String()), "docs")
}

const everythingIntro = `# Generated by make docs: all numeric fields of DCGM, under the names of DCGM 4.x that
# dcgm-exporter used up to 4.8, with the types that fit the values.
#
# A node with eight H100 GPUs and four NVSwitches exports 351 families with 7136 series.
# Copy the lines that you need to another file. Lines that begin with # are disabled: fields
# that repeat another field in another unit, bit masks, IDs, and texts. Texts would become
# labels on all series of their device.
`

// disabled reports whether a numeric field is useless as a metric.
func disabled(f Field) bool {
	switch {
	case f.ID >= 1600, // repeats an older field in another unit
		f.ID == 58, f.ID == 59, f.ID == 63, f.ID == 64, // IDs and masks
		f.ID >= 70 && f.ID <= 73, f.ID >= 86 && f.ID <= 89, f.ID == 83, // masks of CPUs, a checksum
		f.ID >= 866 && f.ID <= 869, f.ID >= 872 && f.ID <= 876, // PCI addresses
		f.ID == 1215, f.ID == 1217: // repeat 1216 and 1218 in the device's own form
		return true
	}
	return false
}

// nameOf4x returns the name of the field in dcgm-exporter up to 4.8.
func nameOf4x(f Field) string {
	for _, name := range f.Legacy() {
		if strings.HasPrefix(name, "DCGM_") && !strings.HasSuffix(name, "_FIELD_ID") {
			return name
		}
	}
	return f.Name
}

func counterLine(f Field) string {
	mark, help := "", f.Help
	if strings.ContainsAny(help, `,"`) {
		help = `"` + strings.ReplaceAll(help, `"`, `""`) + `"`
	}
	if f.Type == model.ValueString && f.ID != 1 || f.Type != model.ValueString && disabled(f) {
		mark = "# "
	}
	return fmt.Sprintf("%s%s, %s, %s\n", mark, nameOf4x(f), f.Nature, help)
}

// TestEverythingCounters checks etc/everything-counters.csv: it has all fields, causes no
// warnings, and contains the default counters.
func TestEverythingCounters(t *testing.T) {
	var b strings.Builder
	b.WriteString(everythingIntro)
	for i, fields := range bySection(func(f Field) bool { return f.Type.Numeric() || f.Type == model.ValueString }) {
		fmt.Fprintf(&b, "\n# %s\n", sections()[i].title)
		for _, f := range fields {
			b.WriteString(counterLine(f))
		}
	}
	b.WriteString("\n# Computed by the exporter\n")
	for _, c := range ComputedCounters() {
		fmt.Fprintf(&b, "%s, %s, %s\n", c.Name, c.Type, c.Help)
	}
	goldentest.File(t, "../../etc/everything-counters.csv", b.String(), "docs")

	all, err := ParseCounters(strings.NewReader(b.String()), "everything-counters.csv")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all.Warnings {
		t.Error(w)
	}
	for _, c := range parseFile(t, "../../etc/default-counters.csv").List {
		if !slices.ContainsFunc(all.List, func(have Counter) bool { return have.Name == c.Name }) {
			t.Errorf("%s of the default counters is missing", c.Name)
		}
	}
}
