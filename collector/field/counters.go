// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxCountersFile is the maximum size of a counters file. dcgm-exporter's longest file is
// 8 KiB; a file with all fields is 100 KiB.
const maxCountersFile = 1 << 20

// maxProblems is the maximum number of reported errors. A file with more is probably not a
// counters file.
const maxProblems = 100

// Counters is the content of a counters file in dcgm-exporter's CSV format. Each line has
// a field name, a metric type and a help text. Lines that begin with # are comments.
type Counters struct {
	List []Counter // in the order of the file
	// Lines are the line numbers of the counters, by name.
	Lines    map[string]int
	Warnings []Problem
}

// Problem is a mistake in a file, with its remedy.
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

// CountersError contains all mistakes of a counters file.
type CountersError struct {
	Problems []Problem // in the order of the file; never empty
}

// Error returns one line per problem.
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
		return nil, fmt.Errorf("reading counters file: %w: check the path given with --collectors (DCGM_EXPORTER_COLLECTORS), or omit it to use the built-in default counters", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading counters file: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	return ParseCounters(f, path)
}

// ParseCounters parses a counters file. Messages use the name. The error of an invalid
// file is a [*CountersError].
func ParseCounters(r io.Reader, name string) (*Counters, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxCountersFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading counters file %s: %w", name, err)
	}
	p := countersParser{file: name, counters: Counters{Lines: map[string]int{}}}
	switch {
	case len(text) > maxCountersFile:
		p.fail(0, "the file is longer than %d bytes and cannot be a counters file: check the path", maxCountersFile)
	default:
		p.parse(strings.TrimPrefix(string(text), "\ufeff"))
		if len(p.problems) == 0 && len(p.counters.List) == 0 {
			p.fail(0, "the file has no counters: add a line such as %q", "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).")
		}
	}
	if len(p.problems) > 0 {
		return nil, &CountersError{p.problems}
	}
	return &p.counters, nil
}

type countersParser struct {
	file     string
	counters Counters
	problems []Problem
}

func (p *countersParser) fail(line int, format string, args ...any) {
	p.problems = append(p.problems, Problem{p.file, line, fmt.Sprintf(format, args...)})
}

func (p *countersParser) warn(line int, format string, args ...any) {
	p.counters.Warnings = append(p.counters.Warnings, Problem{p.file, line, fmt.Sprintf(format, args...)})
}

// parse reads each line separately, so that an open quote affects only its own line.
func (p *countersParser) parse(text string) {
	line := 0
	for raw := range strings.Lines(text) {
		line++
		if len(p.problems) >= maxProblems {
			p.fail(0, "more than %d problems: check that this is a counters file", maxProblems)
			return
		}
		raw = strings.TrimSpace(raw)
		if raw == "" || raw[0] == '#' {
			continue
		}
		r := csv.NewReader(strings.NewReader(raw))
		r.TrimLeadingSpace = true
		record, err := r.Read()
		switch {
		case errors.Is(err, csv.ErrBareQuote):
			p.fail(line, `a quote is inside a text without quotes: put the whole text in quotes, and write "" for a quote in it`)
		case errors.Is(err, csv.ErrQuote):
			p.fail(line, `a quoted text is not closed, or continues after its closing quote: end it with one quote on the same line, and write "" for a quote in it`)
		case err != nil:
			p.fail(line, "%v", err)
		default:
			p.record(line, record)
		}
	}
}

func (p *countersParser) record(line int, record []string) {
	switch n := len(record); {
	case n > 3:
		p.fail(line, "%d columns instead of 3 (name, type, help): put a help text with a comma in quotes", n)
		return
	case n == 2:
		p.fail(line, "2 columns instead of 3 (name, type, help): add a help text after a comma")
		return
	case n < 3:
		p.fail(line, "%d column instead of 3: write name, type and help, separated by commas", n)
		return
	}
	for i := range record {
		record[i] = strings.TrimSpace(record[i])
	}
	c, err := resolve(record[0])
	valid := true
	for _, err := range []error{err, c.parseType(record[1]), c.setHelp(record[2])} {
		if err != nil {
			p.fail(line, "%v", err)
			valid = false
		}
	}
	if !valid {
		return
	}
	for _, other := range p.counters.List {
		first := p.counters.Lines[other.Name]
		switch {
		case other.Name == c.Name && other.Type != c.Type:
			p.fail(line, "%s is a %s here and a %s on line %d: remove one of the lines", c.Name, c.Type, other.Type, first)
			return
		case other.Name == c.Name:
			// dcgm-exporter's 1.x-compatibility-metrics.csv has such lines.
			p.warn(line, "%s is already on line %d: this line is ignored, remove it", c.Name, first)
			return
		}
	}
	if i := slices.IndexFunc(p.counters.List, c.Repeats); i >= 0 {
		other := p.counters.List[i].Name
		p.warn(line, "%s is the same field (%d) as %s on line %d: its values are exported under both names", c.Name, c.Field.ID, other, p.counters.Lines[other])
	}
	if odd := c.Odd(); odd != "" {
		p.warn(line, "%s", odd)
	}
	p.counters.Lines[c.Name] = line
	p.counters.List = append(p.counters.List, c)
}

// shown returns a word of the file in a form that is safe in a message.
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
