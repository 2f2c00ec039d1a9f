// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"time"
)

// FieldID is DCGM's number of a field.
type FieldID uint16

// ValueType is the type of a field's values.
type ValueType uint8

// The value types. ValueNone is the type of names that mark the edge of an ID range, and
// of a cell without a value.
const (
	ValueNone ValueType = iota
	ValueInt64
	ValueDouble
	ValueString
	ValueTime // microseconds since 1970
	ValueBlob // a C structure
)

func (t ValueType) String() string {
	return NameOf([]string{"none", "int64", "double", "string", "timestamp", "binary"}, t, "type")
}

// Numeric reports whether values of the type can be the value of a series.
func (t ValueType) Numeric() bool { return t == ValueInt64 || t == ValueDouble }

// Status is the reason why a cell has no value, or StatusOK.
type Status uint8

// The statuses of a cell. Only StatusOK means that the cell has a value.
const (
	StatusOK             Status = iota
	StatusNoData                // not sampled yet, or no event yet (XID)
	StatusNotSupported          // the entity does not support the field
	StatusNotPermitted          // DCGM misses a privilege
	StatusNotFound              // DCGM does not know the entity or field
	StatusNotWatched            // no watch covers the entity and field
	StatusModuleMissing         // the DCGM module for the field is not loaded
	StatusEntityLost            // the GPU is lost or detached
	StatusBlank                 // DCGM returned a blank value
	StatusUnexpectedType        // the value's type is not the field's type
	StatusError                 // any other DCGM error
	StatusStale                 // DCGM does not update the value any more
	StatusExcluded              // the configuration excludes the field for this GPU model
	StatusOutOfRange            // the value is impossible in the field's unit

	StatusCount = int(StatusOutOfRange) + 1
)

var statusNames = []string{
	"ok", "no_data", "not_supported", "not_permitted", "not_found",
	"not_watched", "module_not_loaded", "entity_lost", "blank",
	"unexpected_type", "error", "stale", "excluded", "out_of_range",
}

// String returns the value of the reason label.
func (s Status) String() string { return NameOf(statusNames, s, "status") }

// Lasting reports whether the entity has no value of the field as long as the sampler
// runs. With the remaining statuses, a value may follow.
func (s Status) Lasting() bool {
	switch s {
	case StatusNotSupported, StatusNotPermitted, StatusNotFound, StatusNotWatched, StatusModuleMissing, StatusExcluded:
		return true
	}
	return false
}

// Cell is the reading of one field on one entity. It has a value only if its status is
// StatusOK.
type Cell struct {
	Bits   uint64
	Status Status
	Type   ValueType
}

// Int64Cell returns a cell with the value v.
func Int64Cell(v int64) Cell { return Cell{Bits: uint64(v), Type: ValueInt64} }

// DoubleCell returns a cell with the value v. NaN becomes a blank, because DCGM uses it
// for "no value".
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
	Generation uint64        // of the inventory
	Time       time.Time     // when the reading was complete
	Duration   time.Duration // how long it took
	// Uptime is Time by the monotonic clock of the node, which has no steps; 0: unknown.
	Uptime time.Duration
	// EngineTime is the time of the newest value by the engine's clock, which may differ
	// from ours; zero: there is none.
	EngineTime time.Time
	// LinksRead is when the sampler last read the link states of the inventory, or zero.
	LinksRead time.Time
	// LinksChanged are the positions of the links whose state differs from
	// [Entity.LinkDown] in the inventory.
	LinksChanged []int
	// SwitchesListed: the sampler has listed the NVSwitches.
	SwitchesListed bool
	// Rows are in the order of [Inventory.Entities], and the cells of a row in the order
	// of the columns of the entity's kind. Entities that are not read have no cells.
	Rows Rows
	// Derived are the rows for the derived families of whole GPUs, in the order of Rows.
	// Only GPUs have cells, including GPUs whose instances are read in their place.
	Derived Rows
	Strings []string
	// Answers are, for each entity, whether it is a GPU that answers. A GPU can answer
	// without a value in its rows.
	Answers []bool
}

// Steady returns the time of the sample by a clock without steps. Only the difference of
// two such times has a meaning.
func (s *Sample) Steady() time.Time {
	if s.Uptime == 0 {
		return s.Time
	}
	return time.Unix(0, 0).Add(s.Uptime)
}

// String returns the string of a string cell.
func (s *Sample) String(c Cell) string {
	if c.Bits < uint64(len(s.Strings)) {
		return s.Strings[c.Bits]
	}
	return ""
}

// Validate checks the sample against its inventory.
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
	if len(s.Answers) != 0 && len(s.Answers) != len(inv.Entities) {
		return fmt.Errorf("%d answers of %d entities", len(s.Answers), len(inv.Entities))
	}
	for _, i := range s.LinksChanged {
		if err := inv.checkEntity("link", i, -1, Kinds(KindLink)); err != nil {
			return err
		}
	}
	if len(s.Derived) != 0 && len(s.Derived) != len(inv.Entities) {
		return fmt.Errorf("%d derived rows for %d entities", len(s.Derived), len(inv.Entities))
	}
	for i, row := range s.Derived {
		if len(row) != 0 && inv.Entities[i].Kind != KindGPU {
			return fmt.Errorf("derived row %d belongs to a %v", i, inv.Entities[i].Kind)
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
			return fmt.Errorf("row %d has a cell with unknown status %d", i, c.Status)
		}
		if c.Type == ValueString && c.Status == StatusOK && c.Bits >= uint64(len(s.Strings)) {
			return fmt.Errorf("row %d refers to string %d of %d", i, c.Bits, len(s.Strings))
		}
	}
	return nil
}
