// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"time"
)

//go:generate go run ./internal/fieldgen -o catalogue_table.go

// FieldID is DCGM's number for a field.
type FieldID uint16

// ValueType is the type of a field's values.
type ValueType uint8

// The value types. ValueNone is the type of the names that mark the edges of an
// id range, and of a cell without a value.
const (
	ValueNone ValueType = iota
	ValueInt64
	ValueDouble
	ValueString
	ValueTime // microseconds since 1970
	ValueBlob // a C structure
)

func (t ValueType) String() string {
	switch t {
	case ValueNone:
		return "none"
	case ValueInt64:
		return "int64"
	case ValueDouble:
		return "double"
	case ValueString:
		return "string"
	case ValueTime:
		return "timestamp"
	case ValueBlob:
		return "binary"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// Numeric says whether values of the type are numbers that can be a series.
func (t ValueType) Numeric() bool { return t == ValueInt64 || t == ValueDouble }

// Status says why a cell has a value or has none.
type Status uint8

// The statuses of a cell. All but StatusOK mean that there is no value.
const (
	StatusOK             Status = iota
	StatusNoData                // nothing sampled yet, or nothing happened yet (XID)
	StatusNotSupported          // this entity cannot have the field
	StatusNotPermitted          // needs a privilege that DCGM lacks
	StatusNotFound              // DCGM does not know the entity or field
	StatusNotWatched            // no watch covers entity and field
	StatusModuleMissing         // the DCGM module for the field is not loaded
	StatusEntityLost            // the GPU is lost or detached
	StatusBlank                 // DCGM has a blank where a value should be
	StatusUnexpectedType        // the value is not of the field's type
	StatusError                 // any other DCGM error
	StatusStale                 // DCGM has a value, but stopped renewing it
	StatusExcluded              // the configuration keeps the field from GPUs of this model

	StatusCount = int(StatusExcluded) + 1
)

var statusNames = [StatusCount]string{
	"ok", "no_data", "not_supported", "not_permitted", "not_found",
	"not_watched", "module_not_loaded", "entity_lost", "blank",
	"unexpected_type", "error", "stale", "excluded",
}

// String returns the status as it stands in a reason label.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Cell is the reading of one field on one entity. Only with StatusOK does it
// hold a value, of the type that it says.
type Cell struct {
	Bits   uint64
	Status Status
	Type   ValueType
}

// Int64Cell returns a cell with the value v.
func Int64Cell(v int64) Cell { return Cell{Bits: uint64(v), Type: ValueInt64} }

// DoubleCell returns a cell with the value v. NaN is a blank: DCGM means
// "no value" by it, and so would a reader of the exposition.
func DoubleCell(v float64) Cell {
	if math.IsNaN(v) {
		return Cell{Status: StatusBlank, Type: ValueDouble}
	}
	return Cell{Bits: math.Float64bits(v), Type: ValueDouble}
}

// StringCell returns a cell with the string at position i of [Sample.Strings].
func StringCell(i int) Cell { return Cell{Bits: uint64(i), Type: ValueString} }

// NoValue returns a cell without a value.
func NoValue(s Status) Cell { return Cell{Status: s} }

// Int64 returns the value of an int64 cell.
func (c Cell) Int64() int64 { return int64(c.Bits) }

// Float64 returns the value of a double or int64 cell as a float.
func (c Cell) Float64() float64 {
	if c.Type == ValueDouble {
		return math.Float64frombits(c.Bits)
	}
	return float64(int64(c.Bits))
}

// Sample is one reading of all watched fields. It is immutable once published.
type Sample struct {
	Generation uint64
	Time       time.Time     // when the reading was complete
	Duration   time.Duration // how long it took
	// LinksRead is when it was last read which links are up, which is in the inventory;
	// zero if never.
	LinksRead time.Time
	// SwitchesListed says whether the sampler has found out which NVSwitches there are.
	SwitchesListed bool
	// Rows stand in the order of [Inventory.Entities], cells in the order of the
	// columns of the entity's kind. An entity that is not read has no cells.
	Rows [][]Cell
	// Derived are the rows, in the same order, that our own families of a GPU as a
	// whole derive from; only GPUs have cells in theirs, and a GPU has them even if
	// its instances are read in its place. Empty if none are read.
	Derived [][]Cell
	Strings []string
}

// String returns the string of a string cell.
func (s *Sample) String(c Cell) string {
	if c.Bits < uint64(len(s.Strings)) {
		return s.Strings[c.Bits]
	}
	return ""
}

// Validate checks the sample against the inventory that it says it belongs to.
func (s *Sample) Validate(inv *Inventory) error {
	if s.Generation != inv.Generation {
		return fmt.Errorf("sample of inventory %d, current is %d", s.Generation, inv.Generation)
	}
	if len(s.Rows) != len(inv.Entities) {
		return fmt.Errorf("%d rows for %d entities", len(s.Rows), len(inv.Entities))
	}
	for i, row := range s.Rows {
		if err := s.validateRow(i, row, len(inv.Columns[inv.Entities[i].Kind])); err != nil {
			return err
		}
	}
	if len(s.Derived) != 0 && len(s.Derived) != len(inv.Entities) {
		return fmt.Errorf("%d derived rows for %d entities", len(s.Derived), len(inv.Entities))
	}
	for i, row := range s.Derived {
		if len(row) != 0 && inv.Entities[i].Kind != KindGPU {
			return fmt.Errorf("row %d is a derived one of a %v", i, inv.Entities[i].Kind)
		}
		if err := s.validateRow(i, row, len(inv.Derived)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sample) validateRow(i int, row []Cell, columns int) error {
	if len(row) != 0 && len(row) != columns {
		return fmt.Errorf("row %d has %d cells for %d columns", i, len(row), columns)
	}
	for _, c := range row {
		if int(c.Status) >= StatusCount {
			return fmt.Errorf("row %d has a cell of unknown status %d", i, c.Status)
		}
		if c.Type == ValueString && c.Status == StatusOK && c.Bits >= uint64(len(s.Strings)) {
			return fmt.Errorf("row %d refers to string %d of %d", i, c.Bits, len(s.Strings))
		}
	}
	return nil
}
