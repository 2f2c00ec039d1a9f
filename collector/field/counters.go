// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
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
		p.parse(decode(text))
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

// decode returns the text of a file in UTF-8, or in UTF-16 with a byte order mark, in
// which Windows programs save. [unicode/utf16] replaces invalid text.
func decode(file []byte) string {
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case bytes.HasPrefix(file, []byte{0xff, 0xfe}):
	case bytes.HasPrefix(file, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return strings.TrimPrefix(string(file), "\ufeff")
	}
	var units []uint16
	for unit := range slices.Chunk(file[2:], 2) {
		if len(unit) == 2 {
			units = append(units, order.Uint16(unit))
		}
	}
	return string(utf16.Decode(units))
}

// parse reads each line separately, so that an open quote affects only its own line.
func (p *countersParser) parse(text string) {
	if strings.ContainsRune(text, 0) {
		p.fail(0, "the file contains zero bytes, as binary files and UTF-16 without a byte order mark do: save it as UTF-8")
		return
	}
	p.parseLines(text)
	for _, c := range p.counters.List {
		if odd := c.Odd(); odd != "" {
			p.warn(p.counters.Lines[c.Name], "%s", odd)
		}
	}
	slices.SortStableFunc(p.counters.Warnings, func(a, b Problem) int { return a.Line - b.Line })
	if len(p.problems) == 0 && len(p.counters.List) == 0 {
		p.problems = p.counters.Warnings // they are about all of its lines
		p.fail(0, "the file has no counters: add a line such as %q", "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).")
	}
}

func (p *countersParser) parseLines(text string) {
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
	case n > 3 && strings.Join(record[3:], "") == "":
		p.fail(line, "the line ends with a comma: remove it, or put the help text in quotes if the comma belongs to it")
		return
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
	typeErr := c.parseType(record[1])
	valid := true
	for _, err := range []error{err, typeErr, c.setHelp(record[2])} {
		switch {
		case errors.As(err, new(notExportable)):
			// dcgm-exporter starts with such a line, and shipped files have them.
			p.warn(line, "this line is ignored: %v", err)
			valid = false
		case err != nil:
			p.fail(line, "%v", err)
			valid = false
		}
	}
	if !valid {
		return
	}
	if i := slices.IndexFunc(p.counters.List, func(other Counter) bool { return other.Name == c.Name }); i >= 0 {
		p.again(line, c, &p.counters.List[i])
		return
	}
	if i := slices.IndexFunc(p.counters.List, c.Repeats); i >= 0 {
		other := p.counters.List[i].Name
		p.warn(line, "%s is the same field (%d) as %s on line %d: its values are exported under both names", c.Name, c.Field.ID, other, p.counters.Lines[other])
	}
	p.counters.Lines[c.Name] = line
	p.counters.List = append(p.counters.List, c)
}

// again handles a counter that is listed for the second time. Files of dcgm-exporter and
// of other vendors have such lines.
func (p *countersParser) again(line int, c Counter, first *Counter) {
	firstLine := p.counters.Lines[c.Name]
	if c.Type == first.Type {
		p.warn(line, "%s is already on line %d: this line is ignored, remove it", c.Name, firstLine)
		return
	}
	p.warn(line, "%s is a %s here and a %s on line %d: it is exported as a %s, which fits its values; remove the other line",
		c.Name, c.Type, first.Type, firstLine, c.Field.Nature)
	first.Type = c.Field.Nature
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
