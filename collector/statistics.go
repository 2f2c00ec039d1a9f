// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import "math"

// The suffixes of the families that a counter with statistics adds to its own,
// and of its histogram. They cannot be confused with names of fields, which are
// in capitals, or with labels of theirs.
const (
	suffixMin       = "_min"
	suffixMax       = "_max"
	suffixMean      = "_mean"
	suffixHistogram = "_histogram"
)

// FamilyNames returns the names of the families that come of the counter: its
// own, and those of its statistics and histogram, with the names that the histogram's
// series have in text. A configuration in which two counters have one in common
// cannot be served.
func (c Counter) FamilyNames() []string {
	if c.Type == MetricLabel {
		return nil
	}
	names := []string{c.Name}
	if c.tracked() && c.Statistics {
		names = append(names, c.Name+suffixMin, c.Name+suffixMax, c.Name+suffixMean)
	}
	if c.tracked() && c.Histogram {
		names = append(names, c.Name+suffixHistogram)
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			names = append(names, c.Name+suffixHistogram+suffix)
		}
	}
	return names
}

// NoStatistics says why the smallest, greatest and mean value of the counter would
// say nothing, nor a histogram, and what to do; or returns "".
func (c Counter) NoStatistics() string {
	const without = "leave resolution, statistics and histogram out"
	switch {
	case !c.Field.Type.Numeric() || c.Type == MetricLabel:
		return "is no series of numbers: " + without
	case c.Field.Nature == MetricCounter:
		return "only grows, so that its newest value says all: " + without
	case c.Type == MetricCounter:
		return "is a counter here, and statistics and histogram are of gauges: write type: gauge, or leave them out"
	case c.Field.coded():
		return "is a code or a bit mask, and no quantity: " + without
	}
	return ""
}

// coded says whether a numeric field is a code, an id or a bit mask: there is no
// more or less of it.
func (f Field) coded() bool {
	switch f.ID {
	case 58, 59, 63, 64, // ids of PCI, compute capability, other GPUs
		70, 71, 72, 73, 86, 87, 88, 89, // affinity
		112, 174, // reasons of clocks, health of the fabric
		FieldXID, 856, 857, // codes of XIDs and of NVSwitches' errors
		1305, 1306, 1307, 1308, 1309: // registers of ConnectX
		return true
	}
	return false
}

// window is what is remembered of the values between two samples.
type window struct {
	count          int
	min, max       float64
	weighted, span float64 // the sum of the values, each times its microseconds; and of those
}

// add takes a value that stood for so many microseconds: the time since the value
// before it.
func (w *window) add(v, micros float64) {
	if w.count == 0 {
		w.min, w.max = v, v
	}
	w.count++
	w.min, w.max = min(w.min, v), max(w.max, v)
	w.weighted += v * micros
	w.span += micros
}

// mean is weighted by time: a value that stood twice as long counts twice.
func (w *window) mean() float64 {
	if w.span <= 0 {
		return w.max
	}
	// Rounding must not lead out of what was seen.
	return min(max(w.weighted/w.span, w.min), w.max)
}

// statistic gives a number made of the counter's values the form that these have
// themselves: rounded another way, a value could lie outside of its own minimum and
// maximum.
func statistic(c Counter, v float64) Value {
	n := Number(v * c.factor())
	if c.Field.Type == ValueDouble || c.factor() != math.Trunc(c.factor()) {
		n.form = formFixed
	}
	return n
}

// appendStatistics appends the minimum, maximum and mean of what was seen between
// the last two samples, with the labels of the field's own series, and the
// histograms, which are counters and stay while no sample comes.
func (f *Families) appendStatistics(families []Family, v nodeView, fresh bool) []Family {
	if v.tracks == nil {
		return families
	}
	for _, c := range f.cfg.Counters {
		if !c.tracked() || !c.Statistics && !c.Histogram {
			continue
		}
		lowest := Family{Name: c.Name + suffixMin, Help: c.Help + " Lowest value since the last sample.", Type: MetricGauge}
		highest := Family{Name: c.Name + suffixMax, Help: c.Help + " Highest value since the last sample.", Type: MetricGauge}
		mean := Family{Name: c.Name + suffixMean, Help: c.Help + " Mean since the last sample, weighted by time.", Type: MetricGauge}
		distribution := Family{Name: c.Name + suffixHistogram, Help: c.Help + " Values seen since the exporter started.", Type: MetricHistogram}
		for e := range v.inventory.Entities {
			l := &f.layout.entities[e]
			if l.self == nil || !c.On(v.inventory.Entities[e].Kind) {
				continue
			}
			at := trackAt{e, c.Field.ID}
			if w, ok := v.tracks.statistics[at]; ok && c.Statistics && fresh {
				for n := range l.variants {
					labels := l.variants[n].series
					lowest.Series = append(lowest.Series, Series{labels, statistic(c, w.min)})
					highest.Series = append(highest.Series, Series{labels, statistic(c, w.max)})
					mean.Series = append(mean.Series, Series{labels, statistic(c, w.mean())})
				}
			}
			// A histogram adds up over all owners that the device ever had, so it
			// carries none of them.
			if h := v.tracks.histograms[at]; h != nil && c.Histogram {
				distribution.Histograms = append(distribution.Histograms, HistogramSeries{l.self, h})
			}
		}
		families = append(families, lowest, highest, mean, distribution)
	}
	return families
}
