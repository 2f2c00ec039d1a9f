// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gpu_exporter/collector/model"
)

// maxCountersFile bounds what is read as a counters file. dcgm-exporter's
// longest is 8 KiB; a file with every field there is would be 100 KiB.
const maxCountersFile = 1 << 20

// maxProblems bounds how many errors of one file are listed: beyond it, the
// file is not a counters file at all.
const maxProblems = 100

// Counters is a counters file in dcgm-exporter's format: lines of field name,
// type and help text, separated by commas, with comments after #. Order is that
// of the file.
type Counters struct {
	List []Counter
	// Lines are those of the file on which the counters stand, by name.
	Lines map[string]int
	// Warnings are what is odd about the file but does not keep it from use.
	Warnings []Problem
}

// Metrics returns the counters that become series.
func (c *Counters) Metrics() []Counter {
	return c.filter(func(m Counter) bool { return m.Type != MetricLabel })
}

// Labels returns the counters that become labels on the series of their entity.
func (c *Counters) Labels() []Counter {
	return c.filter(func(m Counter) bool { return m.Type == MetricLabel })
}

func (c *Counters) filter(keep func(Counter) bool) []Counter {
	var list []Counter
	for _, m := range c.List {
		if keep(m) {
			list = append(list, m)
		}
	}
	return list
}

// Fields returns the ids of the fields to read, each once.
func (c *Counters) Fields() []model.FieldID {
	ids := make([]model.FieldID, 0, len(c.List))
	for _, m := range c.List {
		if m.Computed == 0 && !slices.Contains(ids, m.Field.ID) {
			ids = append(ids, m.Field.ID)
		}
	}
	return ids
}

// Problem is something wrong in a file: what, where, and what to do about it.
type Problem struct {
	File    string
	Line    int // 0 for the file as a whole
	Message string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// CountersError is everything that is wrong in a counters file.
type CountersError struct {
	Problems []Problem // in the order of the file, at least one
}

// Error has a line for each problem.
func (e *CountersError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// LoadCounters reads the counters file at path.
func LoadCounters(path string) (*Counters, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading counters file: %w: check the path given with --collectors (DCGM_EXPORTER_COLLECTORS), or leave it out to use the built-in default counters", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading counters file: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	return ParseCounters(f, path)
}

// ParseCounters reads a counters file. Name is what the messages call it. All
// that is wrong in it is in the error, which is then a [*CountersError].
func ParseCounters(r io.Reader, name string) (*Counters, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxCountersFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading counters file %s: %w", name, err)
	}
	p := countersParser{file: name, first: map[string]int{}}
	switch {
	case len(text) > maxCountersFile:
		p.fail(0, "the file is longer than %d bytes, so it is no counters file: check the path", maxCountersFile)
	default:
		p.parse(strings.TrimPrefix(string(text), "\ufeff"))
		if len(p.problems) == 0 && len(p.counters.List) == 0 {
			p.fail(0, "there is no counter in it: add a line such as %q", "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).")
		}
	}
	if len(p.problems) > 0 {
		return nil, &CountersError{p.problems}
	}
	p.counters.Lines = p.first
	return &p.counters, nil
}

type countersParser struct {
	file     string
	counters Counters
	problems []Problem
	first    map[string]int // line of a name's first use
}

func (p *countersParser) fail(line int, format string, args ...any) {
	p.problems = append(p.problems, Problem{p.file, line, fmt.Sprintf(format, args...)})
}

func (p *countersParser) warn(line int, format string, args ...any) {
	p.counters.Warnings = append(p.counters.Warnings, Problem{p.file, line, fmt.Sprintf(format, args...)})
}

// parse goes line by line, so that a quote left open spoils its own line only.
func (p *countersParser) parse(text string) {
	line := 0
	for raw := range strings.Lines(text) {
		line++
		if len(p.problems) >= maxProblems {
			p.fail(0, "there are more problems than these %d: check that this is a counters file", maxProblems)
			return
		}
		raw = strings.TrimSpace(raw)
		if raw == "" || raw[0] == '#' {
			continue
		}
		record, err := splitRecord(raw)
		if err != nil {
			p.fail(line, "%v", err)
			continue
		}
		p.record(line, record)
	}
}

// splitRecord splits a line at its commas, as encoding/csv does, but allows
// space around quotes and wants quoted texts to end on their line.
func splitRecord(line string) ([]string, error) {
	var record []string
	for rest, more := line, true; more; {
		var text string
		rest = strings.TrimSpace(rest)
		if !strings.HasPrefix(rest, `"`) {
			text, rest, more = strings.Cut(rest, ",")
			if strings.Contains(text, `"`) {
				return nil, errors.New(`a quote stands inside a text that does not start with one: put the whole text in quotes and write "" for a quote in it`)
			}
			record = append(record, strings.TrimSpace(text))
			continue
		}
		text, tail, closed := unquote(rest)
		if !closed {
			return nil, errors.New("a quote is opened and not closed: close it at the end of the text, on the same line")
		}
		var junk string
		junk, rest, more = strings.Cut(tail, ",")
		if strings.TrimSpace(junk) != "" {
			return nil, errors.New(`there is text between a closing quote and the next comma: write "" for a quote inside a text`)
		}
		record = append(record, strings.TrimSpace(text))
	}
	return record, nil
}

// unquote returns the text of the quoted string at the start of s, and what
// follows it.
func unquote(s string) (text, tail string, closed bool) {
	var b strings.Builder
	for s = s[1:]; ; {
		part, after, found := strings.Cut(s, `"`)
		b.WriteString(part)
		switch {
		case !found:
			return "", "", false
		case !strings.HasPrefix(after, `"`):
			return b.String(), after, true
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

func (p *countersParser) record(line int, record []string) {
	if len(record) != 3 {
		switch n := len(record); {
		case n > 3:
			p.fail(line, "%d columns instead of 3 (name, type, help): put a help text that has a comma in quotes", n)
		case n == 2:
			p.fail(line, "2 columns instead of 3 (name, type, help): add a help text after a comma")
		default:
			p.fail(line, "%d column instead of 3: write name, type and help, separated by commas", n)
		}
		return
	}
	name, word, help := record[0], record[1], record[2]
	if computed, _, ok := computedByName(name); ok {
		p.computed(line, computed, name, word, help)
		return
	}
	field, scale, ok := p.field(line, name)
	metric, typeOK := p.metricType(line, name, word)
	if !p.help(line, name, help) || !ok || !typeOK {
		return
	}
	if reason := refuse(field, scale, metric); reason != "" {
		p.fail(line, "%s %s", name, reason)
		return
	}
	if at, twice := p.first[name]; twice {
		p.twice(line, at, name, metric)
		return
	}
	p.first[name] = line
	for _, other := range p.counters.List {
		if other.Computed == 0 && other.Field.ID == field.ID {
			p.warn(line, "%s is the same field (%d) as %s on line %d: its values are exported under both names", name, field.ID, other.Name, p.first[other.Name])
			break
		}
	}
	c := Counter{Field: field, Name: name, Type: metric, Help: help, Scale: scale}
	if odd := c.Odd(); odd != "" {
		p.warn(line, "%s", odd)
	}
	p.counters.List = append(p.counters.List, c)
}

// field resolves a name, or says why it cannot. scale is 0 unless the field is in
// another unit than the name says.
func (p *countersParser) field(line int, name string) (field Field, scale float64, ok bool) {
	if unit, ok := baseUnitByName(name); ok {
		field, ok = ByID(unit.field)
		return field, unit.scale, ok
	}
	field, ok = ByName(name)
	switch {
	case ok:
		return field, 0, true
	case name == "":
		p.fail(line, "the field name is missing: write name, type and help, separated by commas")
	default:
		if s := Suggest(name); s != "" {
			p.fail(line, "unknown field %s: did you mean %s?", shown(name), s)
		} else {
			p.fail(line, "unknown field %s: DCGM has none of that name", shown(name))
		}
	}
	return field, 0, false
}

func (p *countersParser) metricType(line int, name, word string) (MetricType, bool) {
	switch word {
	case "gauge":
		return MetricGauge, true
	case "counter":
		return MetricCounter, true
	case "label":
		return MetricLabel, true
	case "histogram", "summary":
		p.fail(line, "%s cannot be a %s: DCGM gives one number, not a distribution; write gauge or counter", shown(name), word)
	case "":
		p.fail(line, "%s has no type: write gauge, counter or label", shown(name))
	default:
		p.fail(line, "%s has the unknown type %s: write gauge, counter or label", shown(name), shown(word))
	}
	return MetricNone, false
}

// help checks that the text can stand in an exposition.
func (p *countersParser) help(line int, name, help string) bool {
	if !utf8.ValidString(help) {
		p.fail(line, "the help text of %s is not UTF-8: save the file as UTF-8", shown(name))
		return false
	}
	if i := strings.IndexFunc(help, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(help[i:])
		p.fail(line, "the help text of %s has the control character %U: write it on one line, with spaces", shown(name), r)
		return false
	}
	return true
}

func (p *countersParser) twice(line, at int, name string, metric MetricType) {
	i := slices.IndexFunc(p.counters.List, func(c Counter) bool { return c.Name == name })
	if p.counters.List[i].Type != metric {
		p.fail(line, "%s is a %s here and a %s on line %d: remove one of the lines", name, metric, p.counters.List[i].Type, at)
		return
	}
	// Not an error: dcgm-exporter ships a file with such lines, its
	// 1.x-compatibility-metrics.csv.
	p.warn(line, "%s stands on line %d already: this line is ignored, remove it", name, at)
}

// shown returns a word of the file as it may stand in a message.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	plain := func(r rune) bool { return r > ' ' && r != '"' && r != utf8.RuneError && unicode.IsPrint(r) }
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return fmt.Sprintf("%q", s)
}
