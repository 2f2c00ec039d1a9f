// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Severity says how much an XID error matters to who runs the node.
type Severity uint8

// The severities. An XID of severity info is an application's business, or is
// news and no trouble; the others call for action by an operator.
const (
	Info Severity = iota
	Warning
	Critical
)

func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// XID is what is known about one XID code.
type XID struct {
	Code     int64
	Name     string // NVIDIA's mnemonic
	Meaning  string // in words of our own
	Severity Severity
	// Action is the word with which NVIDIA's catalogue names what to do at once,
	// such as RESET_GPU; empty where it names nothing.
	Action string
	// Investigation is its word for what to do then.
	Investigation string
}

// Catalogue is what is known about XID codes. The zero value knows none.
type Catalogue struct {
	xids []XID // by code
}

// unknownXID is what dcgm-exporter writes for a code that it does not know.
const unknownXID = "Unknown Error"

// Lookup returns what is known about a code.
func (c *Catalogue) Lookup(code int64) (XID, bool) {
	i, ok := slices.BinarySearchFunc(c.xids, code, func(x XID, code int64) int {
		switch {
		case x.Code < code:
			return -1
		case x.Code > code:
			return 1
		}
		return 0
	})
	if !ok {
		return XID{}, false
	}
	return c.xids[i], true
}

// All returns every code, in order.
func (c *Catalogue) All() []XID { return slices.Clone(c.xids) }

// With returns the catalogue with the lines of changes in place of its own of the
// same codes, and those of further codes added.
func (c *Catalogue) With(changes *Catalogue) *Catalogue {
	all := slices.DeleteFunc(slices.Clone(c.xids), func(x XID) bool {
		_, changed := changes.Lookup(x.Code)
		return changed
	})
	all = append(all, changes.xids...)
	slices.SortFunc(all, func(a, b XID) int { return cmp.Compare(a.Code, b.Code) })
	return &Catalogue{all}
}

// Message returns the text for the label err_msg of DCGM_FI_DEV_XID_ERRORS. It
// is the meaning in our words, so it differs from that of dcgm-exporter; the
// label err_code does not.
func (c *Catalogue) Message(code int64) string {
	if x, ok := c.Lookup(code); ok {
		return x.Meaning
	}
	return unknownXID
}

// CallsForAction returns the codes for which gpu_xid_errors_total exists from
// the start, at 0: a counter born at 1 hides the first event from increase().
// They are those of severity warning and critical. Which those are is the
// catalogue file's to say; the head of the one that we ship, etc/xid-catalogue.csv,
// has its rules and where they come from.
//
// All codes instead of these would cost three times the series on every node
// and none of the others belongs in an alert.
func (c *Catalogue) CallsForAction() []int64 {
	var codes []int64
	for _, x := range c.xids {
		if x.Severity != Info {
			codes = append(codes, x.Code)
		}
	}
	return codes
}

// maxCatalogueErrors bounds how many errors of a catalogue file are reported.
const maxCatalogueErrors = 100

// xidColumns is the header of a catalogue file.
var xidColumns = [...]string{"code", "name", "severity", "action", "investigation", "meaning"}

// ParseCatalogue reads a catalogue file: CSV with a header. Name is what the
// messages call it; all errors of the file are reported.
func ParseCatalogue(r io.Reader, name string) (*Catalogue, error) {
	reader := csv.NewReader(r)
	reader.Comment = '#'
	reader.FieldsPerRecord = len(xidColumns)
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading XID catalogue %s: there is nothing in it but comments: write %s on the first line and a line for each code after it, or do without the file", name, strings.Join(xidColumns[:], ","))
	}
	if err != nil && !errors.Is(err, csv.ErrFieldCount) {
		return nil, atRecord(name, nil, err)
	}
	if !slices.Equal(header, xidColumns[:]) {
		line, _ := reader.FieldPos(0)
		return nil, fmt.Errorf("%s:%d: the first line of an XID catalogue must be %s", name, line, strings.Join(xidColumns[:], ","))
	}
	var (
		c    Catalogue
		errs []error
	)
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			errs = append(errs, atRecord(name, record, err))
			if len(errs) >= maxCatalogueErrors {
				break
			}
			continue
		}
		line, _ := reader.FieldPos(0)
		x, err := parseXID(record)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, line, err))
			continue
		}
		if n := len(c.xids); n > 0 && c.xids[n-1].Code >= x.Code {
			errs = append(errs, fmt.Errorf("%s:%d: code %d does not stand in order: sort the lines by code", name, line, x.Code))
			continue
		}
		c.xids = append(c.xids, x)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &c, nil
}

// atRecord gives an error of encoding/csv the form that the others have.
func atRecord(name string, record []string, err error) error {
	parse, ok := errors.AsType[*csv.ParseError](err)
	switch {
	case !ok:
		return fmt.Errorf("reading XID catalogue %s: %w", name, err)
	case errors.Is(err, csv.ErrFieldCount):
		do := "keep the commas of those that are empty"
		if len(record) > len(xidColumns) {
			do = "put a text that has a comma in quotes"
		}
		return fmt.Errorf("%s:%d: %d columns instead of %d (%s): %s", name, parse.StartLine, len(record), len(xidColumns), strings.Join(xidColumns[:], ","), do)
	}
	return fmt.Errorf("%s:%d: %w", name, parse.StartLine, parse.Err)
}

func parseXID(record []string) (XID, error) {
	x := XID{Name: record[1], Action: record[3], Investigation: record[4], Meaning: record[5]}
	code, err := strconv.ParseUint(record[0], 10, 16)
	if err != nil {
		return x, fmt.Errorf("code %q is not a number from 0 to 65535", record[0])
	}
	x.Code = int64(code)
	for _, s := range []Severity{Info, Warning, Critical} {
		if record[2] == s.String() {
			x.Severity = s
			if x.Meaning == "" {
				return x, fmt.Errorf("code %d has no meaning", code)
			}
			return x, nil
		}
	}
	return x, fmt.Errorf("code %d has severity %q: write info, warning or critical", code, record[2])
}
