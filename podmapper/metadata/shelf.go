// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"slices"
	"time"
)

// linger is how long a pod that has ended is kept. Samples are labelled with the
// owners at their own time, which is a little before now.
const linger = time.Minute

// record is a pod as one source knows it. It is immutable.
type record struct {
	pod          *Pod
	controller   owner
	templateHash string
	seen         uint64    // grows with every record of a shelf
	gone         time.Time // when it ended; zero while it has not
}

// olderThan says whether q took over p's name.
func (p *record) olderThan(q *record) bool {
	if p.gone.IsZero() != q.gone.IsZero() {
		return q.gone.IsZero()
	}
	return p.seen < q.seen
}

// shelf holds the pods of one source, by UID. It belongs to one goroutine.
type shelf struct {
	records map[string]*record
	seen    uint64
	marks   map[string]bool // what has been put since begin; nil outside of a full report
}

func newShelf() *shelf { return &shelf{records: make(map[string]*record)} }

// put adds or replaces a pod. A record that says the same stays.
func (s *shelf) put(o object) {
	uid := o.pod.UID
	if s.marks != nil {
		s.marks[uid] = true
	}
	if old := s.records[uid]; old != nil && old.gone.IsZero() && old.controller == o.controller &&
		old.templateHash == o.templateHash && old.pod.equal(o.pod) {
		return
	}
	s.seen++
	s.records[uid] = &record{pod: o.pod, controller: o.controller, templateHash: o.templateHash, seen: s.seen}
}

// remove notes that a pod has ended.
func (s *shelf) remove(uid string, now time.Time) {
	if old := s.records[uid]; old != nil && old.gone.IsZero() {
		ended := *old
		ended.gone = now
		s.records[uid] = &ended
	}
}

// begin starts a full report: pods that are not put again by its end are gone.
func (s *shelf) begin() { s.marks = make(map[string]bool, len(s.records)) }

func (s *shelf) end(now time.Time) {
	for uid := range s.records {
		if !s.marks[uid] {
			s.remove(uid, now)
		}
	}
	s.marks = nil
}

// sorted gives the records in the order of pods, without those that ended long
// ago.
func (s *shelf) sorted(now time.Time) []*record {
	list := make([]*record, 0, len(s.records))
	for uid, r := range s.records {
		if !r.gone.IsZero() && now.Sub(r.gone) >= linger {
			delete(s.records, uid)
			continue
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *record) int { return comparePods(a.pod, b.pod) })
	return list
}

// with gives the record with a workload.
func (p *record) with(w Workload) *record {
	pod, r := *p.pod, *p
	pod.Workload = w
	r.pod = &pod
	return &r
}
