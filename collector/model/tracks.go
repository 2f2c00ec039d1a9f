// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"time"
)

// TrackedField is a field of which every value is wanted, and not only the newest
// at each sample: integrals, statistics and histograms are made of them.
type TrackedField struct {
	Field FieldID
	Kinds KindSet
	// Every is how often DCGM is to have a new value; 0 is once a sample.
	Every time.Duration
	// Unless is a profiling field that does better: entities that have it do
	// without this one. 0 is none.
	Unless FieldID
	// Parents says that GPUs are asked, too, of which only the instances are read.
	Parents bool
	// Statistics and Histogram say what is made of the values besides integrals.
	Statistics, Histogram bool
}

// Merge adds what another request for the same field needs.
func (t *TrackedField) Merge(other TrackedField) {
	t.Kinds |= other.Kinds
	if other.Every > 0 && (t.Every == 0 || other.Every < t.Every) {
		t.Every = other.Every
	}
	t.Unless = 0 // the counter's values are wanted wherever they are
	t.Statistics = t.Statistics || other.Statistics
	t.Histogram = t.Histogram || other.Histogram
}

// Tracks is what was seen of the tracked fields since the last frame of its kind.
// It belongs to the sample that follows.
type Tracks struct {
	Generation uint64
	List       []Track
}

// Track is the values of one field on one entity, in the order of their time.
type Track struct {
	Entity int // position in the inventory of the same generation
	Field  FieldID
	Points []Point
}

// Point is a value and when DCGM took it: µs since 1970 by the engine's clock.
type Point struct {
	At    int64
	Value float64
}

// Validate checks the tracks against their inventory.
func (t *Tracks) Validate(inv *Inventory) error {
	for i := range t.List {
		if e := t.List[i].Entity; e < 0 || e >= len(inv.Entities) {
			return fmt.Errorf("a track of entity %d of %d", e, len(inv.Entities))
		}
		for _, p := range t.List[i].Points {
			if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
				return fmt.Errorf("a track of field %d has a value that is no number", t.List[i].Field)
			}
		}
	}
	return nil
}
