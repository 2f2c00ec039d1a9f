// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"sync"
	"testing"
	"time"
)

// fleet is what is recorded: nodes, and events at parts of the recording from 0 to 1.
type fleet struct {
	nodes  []*node
	events []event
}

type event struct {
	at float64
	do func()
}

// recording has the pages of each node, all of the same number.
type recording map[*node][]page

// warmUp is the number of pages before the recording, in which loads and owners begin.
const warmUp = 12

// record starts all nodes and records pages while the events happen. Each node is recorded
// on its own, because a busy machine delays them differently.
func (f *fleet) record(t *testing.T, pages int) recording {
	t.Helper()
	var starts sync.WaitGroup
	for _, n := range f.nodes {
		starts.Go(func() { n.start(t) })
	}
	starts.Wait()
	if t.Failed() {
		t.FailNow()
	}
	all := recording{}
	last := map[*node]time.Time{}
	next := 0
	for i := -warmUp; i < pages; i++ {
		for ; next < len(f.events) && f.events[next].at*float64(pages) <= float64(max(i, 0)); next++ {
			f.events[next].do()
		}
		results := make([]page, len(f.nodes))
		var scrapes sync.WaitGroup
		for k, n := range f.nodes {
			scrapes.Go(func() { results[k] = n.scrape(t, last[n]) })
		}
		scrapes.Wait()
		if t.Failed() {
			t.FailNow()
		}
		for k, n := range f.nodes {
			last[n] = results[k].time
			if i >= 0 {
				all[n] = append(all[n], results[k])
			}
		}
	}
	return all
}

// history writes a recording to Prometheus. Its last page is at the time end.
func (p prometheus) history(all recording, end time.Time) (from time.Time) {
	p.t.Helper()
	for n, pages := range all {
		from = end.Add(-time.Duration(len(pages)-1) * scrapeInterval)
		target := map[string]string{"job": "gpu_exporter", "instance": n.name + ":9400", "cluster": "demo"}
		written := map[string]*series{}
		var s stretcher
		for i, recorded := range pages {
			at := from.Add(time.Duration(i) * scrapeInterval)
			points := s.next(recorded, at)
			up := 0.0
			if len(points) > 0 {
				up = 1
			}
			for name, v := range map[string]float64{"up": up, "scrape_samples_scraped": float64(len(points)), "scrape_samples_post_metric_relabeling": float64(len(points)), "scrape_duration_seconds": 0.01} {
				points = append(points, point{name: name, value: v})
			}
			for _, v := range points {
				key := v.name + "\x00" + v.labels
				if written[key] == nil {
					written[key] = &series{labels: labelsOf(v, target)}
				}
				written[key].samples = append(written[key].samples, sample{at, v.value})
			}
		}
		list := make([]series, 0, len(written))
		for _, w := range written {
			w.endGaps(end, scrapeInterval)
			list = append(list, *w)
		}
		p.write(list)
	}
	return from
}

// endGaps adds a stale marker where the series has no sample for an interval.
func (s *series) endGaps(end time.Time, interval time.Duration) {
	var samples []sample
	for i, v := range s.samples {
		samples = append(samples, v)
		missing := v.at.Add(interval)
		if i+1 < len(s.samples) && s.samples[i+1].at.After(missing) || i+1 == len(s.samples) && missing.Before(end) {
			samples = append(samples, sample{missing, stale()})
		}
	}
	s.samples = samples
}
