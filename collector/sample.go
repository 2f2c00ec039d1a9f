// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"fmt"
	"math"
	"time"
)

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

	statusCount = int(StatusExcluded) + 1
)

var statusNames = [statusCount]string{
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
	bits   uint64
	Status Status
	Type   ValueType
}

// Int64Cell returns a cell with the value v.
func Int64Cell(v int64) Cell { return Cell{bits: uint64(v), Type: ValueInt64} }

// DoubleCell returns a cell with the value v. NaN is a blank: DCGM means
// "no value" by it, and so would a reader of the exposition.
func DoubleCell(v float64) Cell {
	if math.IsNaN(v) {
		return Cell{Status: StatusBlank, Type: ValueDouble}
	}
	return Cell{bits: math.Float64bits(v), Type: ValueDouble}
}

// StringCell returns a cell with the string at position i of [Sample.Strings].
func StringCell(i int) Cell { return Cell{bits: uint64(i), Type: ValueString} }

// NoValue returns a cell without a value.
func NoValue(s Status) Cell { return Cell{Status: s} }

// Int64 returns the value of an int64 cell.
func (c Cell) Int64() int64 { return int64(c.bits) }

// Float64 returns the value of a double or int64 cell as a float.
func (c Cell) Float64() float64 {
	if c.Type == ValueDouble {
		return math.Float64frombits(c.bits)
	}
	return float64(int64(c.bits))
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
	if c.bits < uint64(len(s.Strings)) {
		return s.Strings[c.bits]
	}
	return ""
}

// validate checks the sample against the inventory that it says it belongs to.
func (s *Sample) validate(inv *Inventory) error {
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
		if c.Type == ValueString && c.Status == StatusOK && c.bits >= uint64(len(s.Strings)) {
			return fmt.Errorf("row %d refers to string %d of %d", i, c.bits, len(s.Strings))
		}
	}
	return nil
}

// Event is something that happened to an entity, as opposed to a value of it.
type Event struct {
	Kind   EventKind
	Entity int // position in the inventory of the same generation
	Time   time.Time
	Code   int64 // the XID
}

// EventKind says what happened.
type EventKind uint8

// EventXID is an XID error, from DCGM's field 230.
const EventXID EventKind = 1

// Failure is the sampler's last word: why it cannot go on.
type Failure struct {
	// Reason is a word for a metric label, such as library_missing.
	Reason string
	// Message is for people: what is wrong and what to do.
	Message string
}
