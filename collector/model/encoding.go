// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
)

// A frame comes from a process that native code may have corrupted. gob alone would
// allocate up to 270 bytes for each byte of a list of empty entities.
const (
	// maxEntities bounds the entities of a node. 32 GPUs with 14 instances and 36 links
	// each, 12 NVSwitches with 64 links, and 1024 cores are about 3,500.
	maxEntities = 1 << 14
	// maxCells bounds the cells of a sample: 8 MiB in memory.
	maxCells = 1 << 19
)

var errTruncated = errors.New("truncated")

// Entities is a list with a bounded encoding.
type Entities []Entity

// GobEncode implements [gob.GobEncoder].
func (e Entities) GobEncode() ([]byte, error) {
	var b bytes.Buffer
	b.Write(binary.AppendUvarint(nil, uint64(len(e))))
	encoder := gob.NewEncoder(&b)
	for i := range e {
		if err := encoder.Encode(&e[i]); err != nil {
			return nil, fmt.Errorf("encoding entity %d: %w", i, err)
		}
	}
	return b.Bytes(), nil
}

// GobDecode implements [gob.GobDecoder].
func (e *Entities) GobDecode(b []byte) error {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > maxEntities || n > uint64(len(b)) {
		return fmt.Errorf("list of %d entities in %d bytes", n, len(b))
	}
	decoder := gob.NewDecoder(bytes.NewReader(b[size:]))
	*e = make(Entities, n)
	for i := range *e {
		if err := decoder.Decode(&(*e)[i]); err != nil {
			return fmt.Errorf("decoding entity %d: %w", i, err)
		}
	}
	return nil
}

// Rows are the rows of a sample, with a compact and bounded encoding: for each row the
// number of its cells, and for each cell its status and type in one byte, and its bits.
type Rows [][]Cell

var errRows = errors.New("the rows of a sample have their own encoding")

// GobEncode implements [gob.GobEncoder]. gob encodes samples without rows only.
func (r Rows) GobEncode() ([]byte, error) { return nil, errRows }

// GobDecode implements [gob.GobDecoder].
func (r *Rows) GobDecode([]byte) error { return errRows }

// typeShift is the position of a cell's type in the byte that it shares with the status.
const typeShift = 5

// AppendTo appends the encoding to b. No rows are no bytes.
func (r Rows) AppendTo(b []byte) []byte {
	if r == nil {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(r)))
	for _, row := range r {
		b = binary.AppendUvarint(b, uint64(len(row)))
		for _, c := range row {
			b = append(b, byte(c.Status)|byte(c.Type)<<typeShift)
			switch {
			case c.Status != StatusOK:
			case c.Type == ValueDouble:
				b = binary.LittleEndian.AppendUint64(b, c.Bits)
			default:
				b = binary.AppendUvarint(b, c.Bits)
			}
		}
	}
	return b
}

// Decode replaces the rows by those with the encoding b.
func (r *Rows) Decode(b []byte) error {
	if len(b) == 0 {
		*r = nil
		return nil
	}
	number := func() (n uint64) {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			b = nil
			return 0
		}
		b = b[size:]
		return n
	}
	n := number()
	if n > maxEntities {
		return fmt.Errorf("%d rows", n)
	}
	*r = make(Rows, n)
	total := uint64(0)
	for i := range *r {
		if len(b) == 0 {
			return errTruncated
		}
		cells := number()
		if total += cells; cells > uint64(len(b)) || total > maxCells {
			return fmt.Errorf("row %d has %d cells in %d bytes", i, cells, len(b))
		}
		if cells == 0 {
			continue
		}
		row := make([]Cell, cells)
		for j := range row {
			if len(b) == 0 {
				return errTruncated
			}
			c := Cell{Status: Status(b[0] & (1<<typeShift - 1)), Type: ValueType(b[0] >> typeShift)}
			b = b[1:]
			switch {
			case c.Status != StatusOK:
			case c.Type == ValueDouble:
				if len(b) < 8 {
					return errTruncated
				}
				c.Bits, b = binary.LittleEndian.Uint64(b), b[8:]
			case len(b) == 0:
				return errTruncated
			default:
				c.Bits = number()
			}
			row[j] = c
		}
		(*r)[i] = row
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes follow the rows", len(b))
	}
	return nil
}
