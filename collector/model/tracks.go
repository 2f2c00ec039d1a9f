// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"time"
)

// TrackedField is a field of which the exporter needs every value, in addition to the
// newest of each sample. Integrals, statistics and histograms are computed from them.
type TrackedField struct {
	Field FieldID
	Kinds KindSet
	// Every is the interval of DCGM's watch; 0 means once per sample.
	Every time.Duration
	// Unless is a more precise profiling field, or 0. Entities that have it read this
	// field with the samples only.
	Unless FieldID
	// Parents: the field is also tracked on GPUs whose instances are read in their place.
	Parents bool
	// Statistics and Histogram enable results in addition to integrals.
	Statistics, Histogram bool
}

// Merge adds the needs of another request for the same field.
func (t *TrackedField) Merge(other TrackedField) {
	t.Kinds |= other.Kinds
	if other.Every > 0 && (t.Every == 0 || other.Every < t.Every) {
		t.Every = other.Every
	}
	t.Unless = 0 // a counter of the configuration needs the field on all entities
	t.Statistics = t.Statistics || other.Statistics
	t.Histogram = t.Histogram || other.Histogram
}

// Tracks are the values of the tracked fields since the previous frame of tracks. They
// belong to the sample that follows.
type Tracks struct {
	Generation uint64
	List       []Track
}

// Track is the values of one field on one entity, in the order of time.
type Track struct {
	Entity int // position in the inventory of the same generation
	Field  FieldID
	Points []Point
}

// Point is a value and its time.
type Point struct {
	// At is in µs since 1970 by the engine's clock at the first value of the sampler.
	// Later steps of that clock do not move it.
	At    int64
	Value float64
}

// Validate checks the tracks against their inventory.
func (t *Tracks) Validate(inv *Inventory) error {
	for i := range t.List {
		if err := inv.checkEntity("track", t.List[i].Entity, -1, anyKind); err != nil {
			return err
		}
		for _, p := range t.List[i].Points {
			if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
				return fmt.Errorf("track of field %d has a value that is not finite", t.List[i].Field)
			}
		}
	}
	return nil
}
