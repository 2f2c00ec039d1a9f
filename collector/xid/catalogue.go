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

// Severity is the importance of an XID error to the operator of the node.
type Severity uint8

// The severities. An XID of severity application concerns the application or needs no
// action; all others call for action by an operator.
const (
	Application Severity = iota
	Warning
	Critical

	SeverityCount = int(Critical) + 1
)

func (s Severity) String() string {
	switch s {
	case Application:
		return "application"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// XID describes one XID code.
type XID struct {
	Code          int64
	Name          string // NVIDIA's mnemonic
	Meaning       string // not NVIDIA's text
	Severity      Severity
	Action        string // the immediate action in NVIDIA's catalogue, such as RESET_GPU, or ""
	Investigation string // the action after it, or ""
}

// Catalogue describes XID codes. The zero value is empty.
type Catalogue struct {
	xids []XID // by code
}

// dcgm-exporter's texts for 0, and for a code that is not in its table.
const (
	noXID      = "No Error"
	unknownXID = "Unknown Error"
)

// Lookup returns the description of a code.
func (c *Catalogue) Lookup(code int64) (XID, bool) {
	i, ok := slices.BinarySearchFunc(c.xids, code, func(x XID, code int64) int {
		return cmp.Compare(x.Code, code)
	})
	if !ok {
		return XID{}, false
	}
	return c.xids[i], true
}

// Describe returns the description of a code. A code outside the catalogue is a warning
// without a name.
func (c *Catalogue) Describe(code int64) XID {
	if x, ok := c.Lookup(code); ok {
		return x
	}
	return XID{Code: code, Severity: Warning}
}

// All returns all codes in ascending order.
func (c *Catalogue) All() []XID { return slices.Clone(c.xids) }

// With returns the catalogue merged with changes, which take precedence.
func (c *Catalogue) With(changes *Catalogue) *Catalogue {
	all := slices.DeleteFunc(slices.Clone(c.xids), func(x XID) bool {
		_, changed := changes.Lookup(x.Code)
		return changed
	})
	all = append(all, changes.xids...)
	slices.SortFunc(all, func(a, b XID) int { return cmp.Compare(a.Code, b.Code) })
	return &Catalogue{all}
}

// Message returns the text for the label err_msg of DCGM_FI_DEV_XID_ERRORS. The text
// differs from that of dcgm-exporter; the label err_code does not.
func (c *Catalogue) Message(code int64) string {
	if code == 0 {
		return noXID
	}
	if x, ok := c.Lookup(code); ok {
		return x.Meaning
	}
	return unknownXID
}

// CallsForAction returns the codes of severity warning and critical. For these,
// DCGM_EXP_XID_ERRORS_TOTAL exists from the start with 0, because increase() misses the
// first event of a counter that starts with 1. All codes would be three times as many series, and
// the remaining ones belong in no alert. The head of etc/xid-catalogue.csv has the rules for
// severities, and their sources.
func (c *Catalogue) CallsForAction() []int64 {
	var codes []int64
	for _, x := range c.xids {
		if x.Severity != Application {
			codes = append(codes, x.Code)
		}
	}
	return codes
}

// maxCatalogueErrors bounds how many errors of a catalogue file are reported.
const maxCatalogueErrors = 100

// xidColumns is the header of a catalogue file.
var xidColumns = [...]string{"code", "name", "severity", "action", "investigation", "meaning"}

// ParseCatalogue reads a catalogue file: CSV with a header. name is the file's name in error
// messages. It reports all errors of the file.
func ParseCatalogue(r io.Reader, name string) (*Catalogue, error) {
	reader := csv.NewReader(r)
	reader.Comment = '#'
	reader.FieldsPerRecord = len(xidColumns)
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading XID catalogue %s: the file is empty or has only comments: write %s on the first line and one line per code after it, or omit the file", name, strings.Join(xidColumns[:], ","))
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
			errs = append(errs, fmt.Errorf("%s:%d: code %d is out of order: sort the lines by code", name, line, x.Code))
			continue
		}
		c.xids = append(c.xids, x)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &c, nil
}

// atRecord converts an error of encoding/csv to the form of all other errors.
func atRecord(name string, record []string, err error) error {
	parse, ok := errors.AsType[*csv.ParseError](err)
	switch {
	case !ok:
		return fmt.Errorf("reading XID catalogue %s: %w", name, err)
	case errors.Is(err, csv.ErrFieldCount):
		do := "keep the commas of empty columns"
		if len(record) > len(xidColumns) {
			do = "quote a text that contains a comma"
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
	for _, s := range []Severity{Application, Warning, Critical} {
		if record[2] == s.String() {
			x.Severity = s
			if x.Meaning == "" {
				return x, fmt.Errorf("code %d has no meaning", code)
			}
			return x, nil
		}
	}
	return x, fmt.Errorf("code %d has severity %q: write application, warning or critical", code, record[2])
}
