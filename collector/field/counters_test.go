// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"gpu_exporter/collector/goldentest"
	"gpu_exporter/collector/model"
	"gpu_exporter/etc"
)

func TestParseCounters(t *testing.T) {
	const file = "\ufeff# a comment\r\n" + `
DCGM_FI_DEV_SM_CLOCK,  gauge, SM clock frequency (in MHz).
	DCGM_FI_DEV_DEC_UTIL ,gauge,	Decoder utilization (in %).
DCGM_FI_PROF_PCIE_TX_BYTES,counter,"Sent, with ""headers""."
   # an indented comment
DCGM_FI_DRIVER_VERSION, label, "Driver Version"
DCGM_FI_DEV_BOARD_POWER_WATTS,gauge,
dcgm_xid_errors,gauge,# is part of the help
`
	c, err := ParseCounters(strings.NewReader(file), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		id   model.FieldID
		name string
		typ  MetricType
		help string
	}
	var got []line
	for _, m := range c.List {
		got = append(got, line{m.Field.ID, m.Name, m.Type, m.Help})
	}
	want := []line{
		{100, "DCGM_FI_DEV_SM_CLOCK", MetricGauge, "SM clock frequency (in MHz)."},
		{207, "DCGM_FI_DEV_DEC_UTIL", MetricGauge, "Decoder utilization (in %)."},
		{1009, "DCGM_FI_PROF_PCIE_TX_BYTES", MetricCounter, `Sent, with "headers".`},
		{1, "DCGM_FI_DRIVER_VERSION", MetricLabel, "Driver Version"},
		{155, "DCGM_FI_DEV_BOARD_POWER_WATTS", MetricGauge, ""},
		{230, "dcgm_xid_errors", MetricGauge, "# is part of the help"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

// TestCountersErrors compares the errors of each testdata/counters/bad-*.csv with the .txt
// file of the same name. The flag -update rewrites the .txt files.
func TestCountersErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/counters/bad-*.csv")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseCounters(strings.NewReader(string(text)), filepath.Base(path))
			var all *CountersError
			if !errors.As(err, &all) {
				t.Fatalf("error %v, want a CountersError", err)
			}
			got := all.Error() + "\n"
			golden := strings.TrimSuffix(path, ".csv") + ".txt"
			goldentest.File(t, golden, got, "golden")
		})
	}
}

func TestCountersWarnings(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		list       []string // names kept
		warnings   []string
	}{
		{
			"a type that differs from the field's nature",
			"DCGM_FI_DEV_GPU_TEMP,counter,x\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION,gauge,x\n",
			[]string{"DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"},
			[]string{
				"f.csv:1: DCGM_FI_DEV_GPU_TEMP is a gauge, but is configured as a counter: functions such as rate() return wrong results",
				"f.csv:2: DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION is a counter, but is configured as a gauge: functions such as rate() return wrong results",
			},
		},
		{
			"the same line twice",
			"DCGM_FI_DEV_GPU_TEMP,gauge,x\n\nDCGM_FI_DEV_GPU_TEMP,gauge,y\n",
			[]string{"DCGM_FI_DEV_GPU_TEMP"},
			[]string{"f.csv:3: DCGM_FI_DEV_GPU_TEMP is already on line 1: this line is ignored, remove it"},
		},
		{
			"a counter and a gauge",
			"DCGM_FI_DEV_GPU_TEMP,counter,x\nDCGM_FI_DEV_SM_CLOCK,gauge,x\nDCGM_FI_DEV_GPU_TEMP,gauge,y\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION,counter,x\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION,gauge,x\n",
			[]string{"DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"},
			[]string{
				"f.csv:3: DCGM_FI_DEV_GPU_TEMP is a gauge here and a counter on line 1: it is exported as a gauge, which fits its values; remove the other line",
				"f.csv:5: DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION is a gauge here and a counter on line 4: it is exported as a counter, which fits its values; remove the other line",
			},
		},
		{
			"fields that cannot be exported",
			"DCGM_FI_DEV_SUPPORTED_CLOCKS,gauge,x\nDCGM_FI_DEV_VGPU_TYPE_INFO,label,x\nDCGM_FI_DEV_SERIAL,gauge,x\nDCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_LAST_VGPU_FIELD_ID,gauge,x\nDCGM_FI_DEV_SERIAL,label,x\n",
			[]string{"DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_SERIAL"},
			[]string{
				"f.csv:1: this line is ignored: DCGM_FI_DEV_SUPPORTED_CLOCKS is a binary structure and cannot be exported: remove it",
				"f.csv:2: this line is ignored: DCGM_FI_DEV_VGPU_TYPE_INFO is a binary structure and cannot be exported: remove it",
				"f.csv:3: this line is ignored: DCGM_FI_DEV_SERIAL is text and cannot be a gauge: write label, to add it to the other series of its entity",
				"f.csv:5: this line is ignored: DCGM_FI_LAST_VGPU_FIELD_ID marks the edge of a range of field IDs and has no value: remove it",
			},
		},
		{
			"the same field under two names, to move dashboards",
			"DCGM_FI_DEV_GPU_TEMP,gauge,x\nDCGM_FI_DEV_GPU_TEMP_CELSIUS,gauge,y\n",
			[]string{"DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"},
			[]string{"f.csv:2: DCGM_FI_DEV_GPU_TEMP_CELSIUS is the same field (150) as DCGM_FI_DEV_GPU_TEMP on line 1: its values are exported under both names"},
		},
		{
			"a changing number as label",
			"DCGM_FI_DEV_POWER_USAGE,label,x\nDCGM_FI_CUDA_DRIVER_VERSION,label,x\n",
			[]string{"DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_CUDA_DRIVER_VERSION"},
			[]string{"f.csv:1: DCGM_FI_DEV_POWER_USAGE is a number that keeps changing, so that a label creates new series each time: write gauge"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := ParseCounters(strings.NewReader(tc.file), "f.csv")
			if err != nil {
				t.Fatal(err)
			}
			var names, warnings []string
			for _, m := range c.List {
				names = append(names, m.Name)
			}
			for _, w := range c.Warnings {
				warnings = append(warnings, w.String())
			}
			if !slices.Equal(names, tc.list) {
				t.Errorf("kept %v, want %v", names, tc.list)
			}
			if !slices.Equal(warnings, tc.warnings) {
				t.Errorf("warnings\n%s\nwant\n%s", strings.Join(warnings, "\n"), strings.Join(tc.warnings, "\n"))
			}
		})
	}
}

// Types of fields that are listed twice are those that fit the values.
func TestTypesOfAFieldListedTwice(t *testing.T) {
	for _, types := range [][2]string{{"counter", "gauge"}, {"gauge", "counter"}} {
		c, err := ParseCounters(strings.NewReader("DCGM_FI_DEV_GPU_TEMP,"+types[0]+",x\nDCGM_FI_DEV_GPU_TEMP,"+types[1]+",x\n"), "f.csv")
		if err != nil || len(c.List) != 1 || c.List[0].Type != MetricGauge || len(c.Warnings) != 1 {
			t.Errorf("%v: %+v, error %v", types, c, err)
		}
	}
}

func TestUTF16(t *testing.T) {
	const text = "\ufeffDCGM_FI_DEV_GPU_TEMP,gauge,Température 😀\r\n"
	for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		var file []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			file = order.AppendUint16(file, unit)
		}
		c, err := ParseCounters(bytes.NewReader(append(file, 0)), "f.csv") // half a unit is dropped
		if err != nil || len(c.List) != 1 || c.List[0].Help != "Température 😀" {
			t.Errorf("%s-endian: %+v, error %v", name, c, err)
		}
	}
}

func TestEveryFieldInACountersFile(t *testing.T) {
	for f := range All() {
		for _, name := range append(f.Legacy(), f.Name) {
			typ := f.Nature
			if typ == MetricNone {
				typ = MetricGauge
			}
			c, err := ParseCounters(strings.NewReader(name+","+typ.String()+",x\n"), "f.csv")
			if exportable := f.Type.Numeric() || f.Type == model.ValueString; exportable != (err == nil) {
				t.Errorf("%s, a %s: %v", name, f.Type, err)
			}
			if unit, ok := findBaseUnit(func(u baseUnit) bool { return u.name == name }); ok { // converted from an older field
				f.ID = unit.field
			}
			if err == nil && (c.List[0].Field.ID != f.ID || c.List[0].Name != name || len(c.Warnings) > 0) {
				t.Errorf("%s became %+v with %v", name, c.List[0], c.Warnings)
			}
		}
	}
}

// TestDefaultCounters compares the default file with dcgm-exporter's: names, types and
// order, including the commented-out lines.
func TestDefaultCounters(t *testing.T) {
	want, err := os.ReadFile("testdata/counters/default.txt")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCounters(etc.DefaultCounters(), etc.DefaultCountersName)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings about the default file: %v", c.Warnings)
	}
	if len(c.List) != 26 {
		t.Errorf("%d counters, want 25 metrics and 1 label", len(c.List))
	}
	var wantOn []string
	for line := range strings.Lines(string(want)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "on "); ok {
			wantOn = append(wantOn, name)
		}
	}
	var on []string
	for _, m := range c.List {
		on = append(on, m.Name+" "+m.Type.String())
		if m.Help == "" {
			t.Errorf("%s has no help", m.Name)
		}
	}
	if !slices.Equal(on, wantOn) {
		t.Errorf("counters %v\nwant %v", on, wantOn)
	}

	text, err := os.ReadFile("../../etc/default-counters.csv")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		state := "on "
		if rest, off := strings.CutPrefix(line, "# "); off {
			state, line = "off ", rest
		}
		if name, rest, ok := strings.Cut(line, ","); ok && strings.HasPrefix(name, "DCGM_") {
			word, _, _ := strings.Cut(rest, ",")
			lines = append(lines, state+strings.TrimSpace(name)+" "+strings.TrimSpace(word))
		}
	}
	var wantLines []string
	for line := range strings.Lines(string(want)) {
		if !strings.HasPrefix(line, "#") {
			wantLines = append(wantLines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines) // order of the commented-out lines does not matter
	slices.Sort(wantLines)
	if !slices.Equal(lines, wantLines) {
		t.Errorf("lines %v\nwant %v", lines, wantLines)
	}
}

// TestCompatibilityCounters compares the built-in file with dcgm-exporter's file, which
// lists two counters twice.
func TestCompatibilityCounters(t *testing.T) {
	want := parseFile(t, "testdata/counters/1.x-compatibility.csv")
	text, _ := etc.Counters("1.x-compatibility")
	got, err := ParseCounters(text, "f.csv")
	if err != nil || len(got.Warnings) > 0 {
		t.Fatalf("warnings %v, error %v", got.Warnings, err)
	}
	key := func(c Counter) string { return fmt.Sprint(c.Name, c.Type) }
	if !slices.EqualFunc(got.List, want.List, func(a, b Counter) bool { return key(a) == key(b) }) {
		t.Errorf("got  %v\nwant %v", got.List, want.List)
	}
}

// TestUnitsOfShippedCounters: each help text names the unit of the field, also in lines
// that are commented out.
func TestUnitsOfShippedCounters(t *testing.T) {
	other := map[string]string{"celsius": "in C"}
	for _, name := range etc.CountersNames() {
		text, _ := etc.Counters(name)
		content, err := io.ReadAll(text)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(content)) {
			c, err := ParseCounters(strings.NewReader(strings.TrimPrefix(line, "# ")), name)
			if err != nil || c.List[0].Field.Unit == "" || c.List[0].Scale != 0 || c.List[0].Type == MetricLabel {
				continue // a comment, or no unit
			}
			n++
			if m := c.List[0]; !strings.Contains(m.Help, m.Field.Unit) && !strings.Contains(m.Help, cmp.Or(other[m.Field.Unit], m.Field.Unit)) {
				t.Errorf("%s: the help text of %s, %q, does not name the unit %s", name, m.Name, m.Help, m.Field.Unit)
			}
		}
		if n < 5 {
			t.Errorf("%s: %d lines with a unit", name, n)
		}
	}
}

// TestDefaultCountersCommentedOut: every commented-out line is valid.
func TestDefaultCountersCommentedOut(t *testing.T) {
	text, err := os.ReadFile("../../etc/default-counters.csv")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		rest, off := strings.CutPrefix(line, "# ")
		if !off || !strings.HasPrefix(rest, "DCGM_") {
			continue
		}
		n++
		c, err := ParseCounters(strings.NewReader(rest), "f.csv")
		if err != nil {
			t.Error(err)
		} else if len(c.Warnings) > 0 {
			t.Error(c.Warnings)
		}
	}
	if n != 37 {
		t.Errorf("%d lines commented out, want 37", n)
	}
}

// TestCompatibilityFile: names of dcgm-exporter 1.x are accepted and kept, and its duplicate
// lines cause only warnings.
func TestCompatibilityFile(t *testing.T) {
	c := parseFile(t, "testdata/counters/1.x-compatibility.csv")
	if got, ok := ByName("dcgm_xid_errors"); !ok || got.ID != XIDErrors {
		t.Errorf("dcgm_xid_errors is %v", got)
	}
	for _, m := range c.List {
		if !strings.HasPrefix(m.Name, "dcgm_") {
			t.Errorf("%s was renamed", m.Name)
		}
	}
	if len(c.List) != 20 {
		t.Errorf("%d counters, want 20", len(c.List))
	}
	if len(c.Warnings) != 2 {
		t.Errorf("warnings %v, want one for each of the two duplicates", c.Warnings)
	}
}

// parseFile returns the content of a counters file.
func parseFile(t *testing.T, path string) *Counters {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	counters, err := ParseCounters(bytes.NewReader(text), path)
	if err != nil {
		t.Fatal(err)
	}
	return counters
}

func TestCountersBounds(t *testing.T) {
	_, err := ParseCounters(strings.NewReader(strings.Repeat("DCGM_FI_DEV_GPU_TMEP,gauge,x\n", 5000)), "f.csv")
	var all *CountersError
	if !errors.As(err, &all) || len(all.Problems) != maxProblems+1 {
		t.Errorf("%d problems, want %d and the summary", len(all.Problems), maxProblems)
	}
	_, err = ParseCounters(strings.NewReader(strings.Repeat("#", maxCountersFile+1)), "f.csv")
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a huge file: %v", err)
	}
}

// FuzzParseCounters checks that no input panics, that an accepted file can be written and
// parsed again, and that dcgm-exporter's rules give the same result.
func FuzzParseCounters(f *testing.F) {
	files, err := filepath.Glob("testdata/counters/*.csv")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range append(files, "../../etc/default-counters.csv") {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("DCGM_FI_DEV_GPU_TEMP,gauge,\"a \"\" b, c\"\n\"DCGM_FI_DRIVER_VERSION\" , \"label\" , x\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCounters(strings.NewReader(text), "f.csv")
		if err != nil {
			var all *CountersError
			if !errors.As(err, &all) || len(all.Problems) == 0 {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			if n := strings.Count(err.Error(), "\n"); n != len(all.Problems)-1 {
				t.Fatalf("%d problems on %d lines: %q", len(all.Problems), n+1, err)
			}
			return
		}
		var b strings.Builder
		w := csv.NewWriter(&b)
		for _, m := range c.List {
			if err := w.Write([]string{m.Name, m.Type.String(), m.Help}); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		again, err := ParseCounters(strings.NewReader(b.String()), "f.csv")
		if err != nil {
			t.Fatalf("%v\nof\n%s", err, b.String())
		}
		if !slices.Equal(c.List, again.List) {
			t.Fatalf("%v\nbecame\n%v", c.List, again.List)
		}

		if theirs, ok := asDCGMExporter(text); ok {
			var ours []string
			for _, m := range c.List {
				ours = append(ours, fmt.Sprintf("%q", []string{m.Name, m.Type.String(), m.Help}))
			}
			if !slices.Equal(ours, theirs) {
				t.Fatalf("ours   %v\ntheirs %v", ours, theirs)
			}
		}
	})
}

// asDCGMExporter parses a counters file by the rules of dcgm-exporter's
// internal/pkg/counters/counter_config.go, without duplicates. It returns false if these
// rules reject the file.
func asDCGMExporter(text string) ([]string, bool) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comment = '#'
	records, err := r.ReadAll()
	if err != nil {
		return nil, false
	}
	var list, seen []string
	for _, record := range records {
		for i := range record {
			record[i] = strings.Trim(record[i], " ")
		}
		if len(record) != 3 || slices.ContainsFunc(record, func(s string) bool { return s != strings.TrimSpace(s) }) {
			return nil, false
		}
		if !slices.Contains(seen, record[0]) {
			seen = append(seen, record[0])
			list = append(list, fmt.Sprintf("%q", record))
		}
	}
	return list, true
}
