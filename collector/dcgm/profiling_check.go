// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"math"
	"time"
)

// profilingFault is why what DCGM gives as profiling of a GPU is no measurement.
type profilingFault uint8

const (
	faultNone profilingFault = iota
	faultSame
	faultZero
	faultStalled
	faultBlank
)

func (f profilingFault) String() string {
	switch f {
	case faultNone:
		return "nothing is wrong"
	case faultSame:
		return "they stand still while what the GPU does changes"
	case faultZero:
		return "they are 0 while the GPU is busy"
	case faultStalled:
		return "DCGM does not renew them"
	case faultBlank:
		return "DCGM has none any more"
	}
	return fmt.Sprintf("fault(%d)", uint8(f))
}

// glance is what one sample shows of profiling on a GPU and the instances of it.
type glance struct {
	values    int    // how many profiling fields have a value
	signature uint64 // of the values: another one if any is another
	// fraction says that some ratio is neither 0 nor 1. A counter of cycles does not
	// come to the same fraction again and again; 0 and 1 it does.
	fraction bool
	// zero says that all is 0, and that it would not be if a kernel ran.
	zero bool
	// newest is the time of the newest of the values, engine of the newest value of
	// anything; by the engine's clock, in µs.
	newest, engine int64
	// util is in percent, power in watts; NaN if not known, as of a GPU in MIG mode.
	util, power float64
}

const (
	// busyUtil is from which utilisation on a kernel has certainly run.
	busyUtil = 20
	// By how much utilisation and power must change to say that the GPU does
	// something else now: percent; watts, and part of the power.
	movedUtil, movedPower, movedPowerPart = 10, 10, 0.05
)

// profilingCheck notices, sample by sample, that profiling of a GPU is broken,
// and that it works again. It says so of nothing that can also be true: not of
// the zeros of an idle GPU, nor of values that stay the same while all else does.
type profilingCheck struct {
	fault  profilingFault
	had    bool   // there were values
	newest int64  // of the last values, and
	last   uint64 // their signature

	same                                 streak // of the same values
	utilMin, utilMax, powerMin, powerMax float64
	zero                                 streak // of zeros on a busy GPU
	quiet                                streak // of zeros on a GPU that is not busy
	blank                                streak // without values
}

// streak is a number of samples in a row.
type streak struct {
	samples int
	since   time.Time
}

func (r *streak) extend(now time.Time) {
	if r.samples == 0 {
		r.since = now
	}
	r.samples++
}

func (r *streak) long(now time.Time, t *profilingTiming) bool {
	return r.samples >= t.samples && now.Sub(r.since) >= t.window
}

// look takes in the next sample.
func (c *profilingCheck) look(g *glance, now time.Time, t *profilingTiming) {
	if g.values == 0 {
		c.lookAtNothing(g, now, t)
		return
	}
	c.blank = streak{}
	renewed, changed := g.newest != c.newest || !c.had, g.signature != c.last || !c.had
	c.had, c.newest, c.last = true, g.newest, g.signature
	if c.fault == faultBlank || c.fault == faultStalled && renewed || c.fault == faultSame && changed || c.fault == faultZero && !g.zero {
		c.fault = faultNone
		c.same, c.zero, c.quiet = streak{}, streak{}, streak{}
	}
	if !renewed {
		// Samples and readings come at the same interval, but not in step.
		if c.fault == faultNone && g.engine-g.newest > t.stall.Microseconds() {
			c.fault = faultStalled
		}
		return
	}
	c.lookAtSame(g, changed, now)
	c.lookAtZero(g, now)
	switch {
	case c.fault == faultZero && c.quiet.long(now, t):
		c.fault = faultNone // by now it is true
	case c.fault != faultNone:
	case c.same.long(now, t) && g.fraction && c.moved():
		c.fault = faultSame
	case c.zero.long(now, t):
		c.fault = faultZero
	}
}

// lookAtNothing takes in a sample without values. That is no fault if there never
// were any, nor if the GPU has none of anything.
func (c *profilingCheck) lookAtNothing(g *glance, now time.Time, t *profilingTiming) {
	c.same, c.zero, c.quiet = streak{}, streak{}, streak{}
	if !c.had || math.IsNaN(g.util) && math.IsNaN(g.power) {
		c.blank = streak{}
		return
	}
	c.blank.extend(now)
	if c.fault == faultNone && c.blank.long(now, t) {
		c.fault = faultBlank
	}
}

func (c *profilingCheck) lookAtSame(g *glance, changed bool, now time.Time) {
	if changed || c.same.samples == 0 {
		c.same = streak{}
		nan := math.NaN()
		c.utilMin, c.utilMax, c.powerMin, c.powerMax = nan, nan, nan, nan
	}
	c.same.extend(now)
	c.utilMin, c.utilMax = widen(c.utilMin, c.utilMax, g.util)
	c.powerMin, c.powerMax = widen(c.powerMin, c.powerMax, g.power)
}

// widen extends a range by v, unless that is NaN.
func widen(low, high, v float64) (float64, float64) {
	switch {
	case math.IsNaN(v):
		return low, high
	case math.IsNaN(low):
		return v, v
	}
	return min(low, v), max(high, v)
}

// moved says whether the GPU did several things during the streak of the same values.
func (c *profilingCheck) moved() bool {
	return c.utilMax-c.utilMin >= movedUtil || c.powerMax-c.powerMin >= max(movedPower, movedPowerPart*c.powerMax)
}

func (c *profilingCheck) lookAtZero(g *glance, now time.Time) {
	switch {
	case !g.zero || math.IsNaN(g.util):
		c.zero, c.quiet = streak{}, streak{}
	case g.util >= busyUtil:
		c.quiet = streak{}
		c.zero.extend(now)
	default:
		c.zero = streak{}
		c.quiet.extend(now)
	}
}
