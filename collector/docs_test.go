// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The pages and the counters file that tell what is in the code. `make docs`
// rewrites them after a change.

// section is a part of the catalogue: the fields with ids up to last, after those
// of the section before it.
type section struct {
	title string
	last  FieldID
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

// bySection returns the fields with values that are kept, in sections.
func bySection(keep func(Field) bool) (list [][]Field) {
	all := sections()
	list = make([][]Field, len(all))
	for f := range Fields() {
		if f.Type == ValueNone || !keep(f) {
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

// cell makes a text fit for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// checkFile compares a file with what it must be, or writes it.
func checkFile(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not up to date, run make docs:\n%s", path, firstDifference(string(got), want))
	}
}

// asPage puts a page together.
func asPage(title, intro, body string) string {
	return "<!-- Written by `make docs`: change the code, not this page. -->\n\n# " + title + "\n\n" + strings.TrimSpace(intro) + "\n" + body
}

const fieldsIntro = `
What DCGM can tell, by field. ` + "`gpu_exporter fields`" + ` prints the same for one
or some of them, and with ` + "`--node`" + ` says which of them a node has, and why it has
not the others.

A counters file may use any of the names; the first is DCGM 4.6's, the others are
those of DCGM 4.x before it (as in dcgm-exporter up to 4.8) and of dcgm-exporter
1.x. The metric is called as the file says.

* **type** is what the values are by themselves: a gauge, a counter, or a text that
  becomes a label. Fields that are binary structures or points in time, with –,
  cannot be exported.
* **asked of** is the kinds of entities that have a series. Compute instances have one
  only if the configuration file asks for it.
* A name **in base units** is one of DCGM 4.6.1 or 4.7 in Hz, bytes, J or a ratio. Its
  values are made of the older field, so that a counters file can use it with every
  DCGM 4.
* Fields from 1001 to 1099 are DCGM's profiling fields: see ` + "`gpu_exporter doctor`" + `.
`

const computedSection = `
## Computed by the exporter

These are no fields of DCGM, but counters files and the configuration file ask for them
in the same way.

| name | type | of | meaning |
|---|---|---|---|
`

// FIELDS.md has every field, and what can be asked for beside them.
func TestFieldsPage(t *testing.T) {
	var b strings.Builder
	for i, fields := range bySection(func(Field) bool { return true }) {
		fmt.Fprintf(&b, "\n## %s\n\n| id | names | type | unit | asked of | meaning |\n|---|---|---|---|---|---|\n", sections()[i].title)
		for _, f := range fields {
			nature, unit := "–", cmp.Or(f.Unit, "–")
			if f.Nature != MetricNone {
				nature = f.Nature.String()
			}
			var kinds []string
			for kind := KindGPU; kind < kindCount; kind++ {
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
		for kind := KindGPU; kind < kindCount; kind++ {
			if c.Computed.On(kind) {
				kinds = append(kinds, kind.String())
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(c.Name), c.Type, strings.Join(kinds, ", "), cell(c.Help))
	}
	checkFile(t, "FIELDS.md", asPage("DCGM fields", fieldsIntro, b.String()))
}

const metricsIntro = `
The families that are the exporter's own, beside those that a counters file names:
DCGM's fields (see [FIELDS.md](FIELDS.md)) and dcgm-exporter's ` + "`DCGM_EXP_*`" + `. Families
without a series are left out.

The labels in the table come on top of the identity of what the family is about: for
a GPU ` + "`gpu`, `UUID`, `pci_bus_id`, `device`, `modelName`" + `, for an instance also
` + "`GPU_I_PROFILE` and `GPU_I_ID`" + `, and ` + "`hostname`" + ` on all. ` + "`gpu_exporter_*`" + ` have none of them, nor
have ` + "`gpu_xid_info`" + ` and ` + "`gpu_pod_labels`" + ` a device's.

A field of the configuration file with ` + "`statistics: true`" + ` adds the gauges ` + "`NAME_min`, `NAME_max`" + `
and ` + "`NAME_mean`" + `, of the time since the sample before; one with ` + "`histogram: true`" + ` adds the
native histogram ` + "`NAME_histogram`" + `.
`

// METRICS.md has every family of ours: what the definitions in the source say.
func TestMetricsPage(t *testing.T) {
	own := slices.Concat(definitions(t, "*.go"), gaugeOptions(t, "../cmd/gpu_exporter/*.go"))
	slices.SortFunc(own, func(a, b definition) int { return strings.Compare(a.Name, b.Name) })
	var b strings.Builder
	for _, part := range []struct {
		title string
		state bool
	}{{"Devices and who holds them", false}, {"The exporter", true}} {
		fmt.Fprintf(&b, "\n## %s\n\n| family | type | labels | meaning |\n|---|---|---|---|\n", part.title)
		for i, d := range own {
			if i > 0 && own[i-1].Name == d.Name {
				t.Errorf("%s is defined twice", d.Name)
			}
			if strings.HasPrefix(d.Name, "gpu_exporter_") == part.state {
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(d.Name), d.Type, codes(d.Labels), cell(d.Help))
			}
		}
	}
	b.WriteString("\nBeside these there are the usual `go_*`, `process_*`, `promhttp_*` and `gpu_exporter_build_info`.\n")
	checkFile(t, "METRICS.md", asPage("Metrics of our own", metricsIntro, b.String()))
}

// definitions are all values of type definition in the source files. They are read
// from there, so that none can be forgotten.
func definitions(t *testing.T, pattern string) (found []definition) {
	types := map[string]MetricType{
		"MetricGauge": MetricGauge, "MetricCounter": MetricCounter, "MetricLabel": MetricLabel, "MetricHistogram": MetricHistogram,
	}
	literals(t, pattern, func(at token.Position, typ ast.Expr, elements []ast.Expr) {
		if name, ok := typ.(*ast.Ident); !ok || name.Name != "definition" {
			return
		}
		if len(elements) != 4 {
			t.Fatalf("%s: a definition has %d elements, not name, type, help and labels", at, len(elements))
		}
		metric, ok := elements[1].(*ast.Ident)
		if !ok || types[metric.Name] == MetricNone {
			t.Fatalf("%s: the type of the definition is not a plain MetricType", at)
		}
		d := definition{Name: text(t, at, elements[0]), Type: types[metric.Name], Help: text(t, at, elements[2])}
		switch labels := elements[3].(type) {
		case *ast.CompositeLit:
			for _, label := range labels.Elts {
				d.Labels = append(d.Labels, text(t, at, label))
			}
		case *ast.Ident:
			if labels.Name != "nil" {
				t.Fatalf("%s: the labels of the definition are not written out", at)
			}
		default:
			t.Fatalf("%s: the labels of the definition are not written out", at)
		}
		found = append(found, d)
	})
	if len(found) == 0 {
		t.Fatalf("no definition in %s", pattern)
	}
	return found
}

// gaugeOptions are the gauges that the program makes with client_golang.
func gaugeOptions(t *testing.T, pattern string) (found []definition) {
	literals(t, pattern, func(at token.Position, typ ast.Expr, elements []ast.Expr) {
		name, ok := typ.(*ast.SelectorExpr)
		if !ok || !strings.HasSuffix(name.Sel.Name, "Opts") || name.X.(*ast.Ident).Name != "prometheus" {
			return
		}
		d := definition{Type: MetricGauge}
		if name.Sel.Name == "CounterOpts" {
			d.Type = MetricCounter
		}
		for _, e := range elements {
			pair := e.(*ast.KeyValueExpr)
			switch pair.Key.(*ast.Ident).Name {
			case "Name":
				d.Name = text(t, at, pair.Value)
			case "Help":
				d.Help = text(t, at, pair.Value)
			}
		}
		found = append(found, d)
	})
	return found
}

// literals calls each for the composite literals in source files that are no tests.
func literals(t *testing.T, pattern string, each func(token.Position, ast.Expr, []ast.Expr)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.CompositeLit); ok {
				each(set.Position(literal.Pos()), literal.Type, literal.Elts)
			}
			return true
		})
	}
}

// text returns the value of a string in the source.
func text(t *testing.T, at token.Position, e ast.Expr) string {
	t.Helper()
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		t.Fatalf("%s: a text of the definition is not written out", at)
	}
	s, err := strconv.Unquote(literal.Value)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	return s
}

const everythingIntro = `# Written by make docs: every field of DCGM that is a number, under the names of
# DCGM 4.x that dcgm-exporter used up to 4.8, with the types that fit the values.
#
# A node of eight H100 with four NVSwitches has 351 families of it with 7136 series:
# take what you need into a file of your own. Lines with # in front are left out:
# fields that repeat another one in another unit, bit masks and ids that make no sense
# as a number, and texts, which would be labels on all series of their device.
`

// leftOut says whether a numeric field makes no sense as a metric.
func leftOut(f Field) bool {
	switch {
	case f.ID >= 1600, // in another unit under an older id
		f.ID == 58, f.ID == 59, f.ID == 63, f.ID == 64, // ids and masks
		f.ID >= 70 && f.ID <= 73, f.ID >= 86 && f.ID <= 89, f.ID == 83, // masks of CPUs, a checksum
		f.ID >= 866 && f.ID <= 869, f.ID >= 872 && f.ID <= 876, // PCI addresses
		f.ID == 1215, f.ID == 1217: // 1216 and 1218 in the device's own form
		return true
	}
	return false
}

// nameOf4x is the name of dcgm-exporter up to 4.8.
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
	if f.Type == ValueString && f.ID != 1 || f.Type != ValueString && leftOut(f) {
		mark = "# "
	}
	return fmt.Sprintf("%s%s, %s, %s\n", mark, nameOf4x(f), f.Nature, help)
}

// etc/everything-counters.csv has every field, is read without a warning, and loses
// none of the names of the default counters.
func TestEverythingCounters(t *testing.T) {
	var b strings.Builder
	b.WriteString(everythingIntro)
	for i, fields := range bySection(func(f Field) bool { return f.Type.Numeric() || f.Type == ValueString }) {
		fmt.Fprintf(&b, "\n# %s\n", sections()[i].title)
		for _, f := range fields {
			b.WriteString(counterLine(f))
		}
	}
	b.WriteString("\n# Computed by the exporter\n")
	for _, c := range ComputedCounters() {
		fmt.Fprintf(&b, "%s, %s, %s\n", c.Name, c.Type, c.Help)
	}
	checkFile(t, "../etc/everything-counters.csv", b.String())

	all, err := ParseCounters(strings.NewReader(b.String()), "everything-counters.csv")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all.Warnings {
		t.Error(w)
	}
	defaults, err := LoadCounters("../etc/default-counters.csv")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range defaults.List {
		if !slices.ContainsFunc(all.List, func(have Counter) bool { return have.Name == c.Name }) {
			t.Errorf("%s of the default counters is missing", c.Name)
		}
	}
}
