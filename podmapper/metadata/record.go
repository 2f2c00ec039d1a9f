// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpu_exporter/podmapper/internal/poll"
)

// Bounds of one pod, because all series of its devices repeat its labels. A label value
// has at most 63 bytes; an annotation can be a whole manifest.
const (
	maxNameBytes  = 253 // of names and UIDs, as in Kubernetes
	maxValueBytes = 1024
	maxPairs      = 64   // labels and annotations together
	maxPairBytes  = 4096 // keys and values together
)

// linger is how long a pod remains after its end. Samples are joined with the pods
// of their own time, which is a little before now.
const linger = time.Minute

// annotationSource is on each pod of the kubelet: api, file or http (kubelet
// pkg/kubelet/types/pod_update.go).
const annotationSource = "kubernetes.io/config.source"

// annotationMirror is on a mirror pod: the UID of its static pod. Source: kubelet
// pkg/kubelet/pod/mirror_client.go and pkg/kubelet/config/common.go.
const annotationMirror = "kubernetes.io/config.mirror"

// record is a pod as one source reports it. It is immutable.
type record struct {
	pod          *Pod // Workload is the one that the pod itself shows
	controller   owner
	templateHash string
	static       bool      // the kubelet does not have it from the API server
	seen         uint64    // order of the changes of a podSet
	ended        time.Time // zero while the pod exists
}

// newRecord keeps the part of an object that is requested.
func (s *Store) newRecord(o metav1.Object) (*record, error) {
	p := &Pod{Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID())}
	p.CgroupUID = p.UID
	if uid := o.GetAnnotations()[annotationMirror]; uid != "" && len(uid) <= maxValueBytes {
		p.CgroupUID = uid
	}
	b := budget{pairs: maxPairs, bytes: maxPairBytes}
	p.Labels = b.take(o.GetLabels(), s.c.Want.Labels)
	p.Annotations = b.take(o.GetAnnotations(), s.c.Want.Annotations)
	if b.cut > 0 {
		s.reading().Count(poll.TooLarge)
		s.once.warn("labels of "+p.Namespace+"/"+p.Name, "A pod has more labels and annotations than a page can repeat on each series; some are omitted",
			"namespace", p.Namespace, "pod", p.Name, "omitted", b.cut, "max_pairs", maxPairs, "max_bytes", maxPairBytes,
			"hint", "select fewer with the allowlists of labels and annotations")
	}
	source := o.GetAnnotations()[annotationSource]
	r := &record{pod: p, static: source == "file" || source == "http", controller: controllerOf(o), templateHash: o.GetLabels()[labelTemplateHash]}
	if s.c.Want.Workload {
		p.Workload = r.direct()
	}
	return r, r.validate()
}

// validate rejects texts that cannot be label values.
func (r *record) validate() error {
	p := r.pod
	if p.Namespace == "" || p.Name == "" || p.UID == "" {
		return poll.WithReason(poll.Malformed, errors.New("a pod has no namespace, name or UID"))
	}
	texts := []string{p.Namespace, p.Name, p.UID, p.CgroupUID, p.Workload.Kind, p.Workload.Name}
	for _, kv := range slices.Concat(p.Labels, p.Annotations) {
		texts = append(texts, kv.Key, kv.Value)
	}
	for _, c := range p.Containers {
		texts = append(texts, c.ID, c.Name)
	}
	for _, text := range texts[:4] {
		if len(text) > maxNameBytes {
			return poll.WithReason(poll.Malformed, fmt.Errorf("a pod has a name or UID of %d bytes; Kubernetes accepts %d", len(text), maxNameBytes))
		}
	}
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return poll.WithReason(poll.Malformed, fmt.Errorf("pod %q in namespace %q: %q is not UTF-8", p.Name, p.Namespace, text))
		}
	}
	return nil
}

// budget is how much more one pod may have.
type budget struct{ pairs, bytes, cut int }

// take returns the allowed labels or annotations that fit, sorted by key.
func (b *budget) take(all map[string]string, allowed func(key string) bool) []KeyValue {
	if allowed == nil {
		return nil
	}
	var taken []KeyValue
	for _, key := range slices.Sorted(maps.Keys(all)) {
		value := all[key]
		size := len(key) + len(value)
		switch {
		case !allowed(key):
		case len(value) > maxValueBytes, b.pairs == 0, size > b.bytes:
			b.cut++
		default:
			b.pairs--
			b.bytes -= size
			taken = append(taken, KeyValue{key, value})
		}
	}
	return slices.Clone(taken)
}

// olderThan reports whether q is the newer of two pods of one name.
func (r *record) olderThan(q *record) bool {
	if r.ended.IsZero() != q.ended.IsZero() {
		return q.ended.IsZero()
	}
	return r.seen < q.seen
}

// podSet contains the pods of one source by UID. It is for one goroutine.
type podSet struct {
	records map[string]*record
	seen    uint64
	away    time.Time // see replaceListed
}

func newPodSet() *podSet { return &podSet{records: make(map[string]*record)} }

// put adds or replaces a pod. An equal record remains, with its order.
func (s *podSet) put(r *record) {
	uid := r.pod.UID
	if old := s.records[uid]; old != nil && old.ended.IsZero() && old.controller == r.controller &&
		old.templateHash == r.templateHash && old.pod.equal(r.pod) {
		return
	}
	s.seen++
	with := *r
	with.seen = s.seen
	s.records[uid] = &with
}

// end records the end of a pod.
func (s *podSet) end(uid string, now time.Time) {
	if old := s.records[uid]; old != nil && old.ended.IsZero() {
		with := *old
		with.ended = now
		s.records[uid] = &with
	}
}

// replace makes the set contain these pods. All others have ended.
func (s *podSet) replace(all iter.Seq[*record], now time.Time) {
	present := make(map[string]bool, len(s.records))
	for r := range all {
		s.put(r)
		present[r.pod.UID] = true
	}
	for uid := range s.records {
		if !present[uid] {
			s.end(uid, now)
		}
	}
}

// replaceListed is replace with the list of a kubelet. One that starts without the API
// server lists static pods only, while the other pods run. They remain for a time.
func (s *podSet) replaceListed(all []*record, now time.Time) {
	if slices.ContainsFunc(all, func(r *record) bool { return !r.static }) {
		s.away = time.Time{}
	} else {
		if s.away.IsZero() {
			s.away = now
		}
		for _, r := range s.records {
			if !r.static && r.ended.IsZero() && now.Sub(s.away) < DefaultMaxAge {
				all = append(all, r)
			}
		}
	}
	s.replace(slices.Values(all), now)
}

// table returns the sorted records, without pods that ended long ago.
func (s *podSet) table(now time.Time) *table {
	t := &table{records: make([]*record, 0, len(s.records))}
	for uid, r := range s.records {
		if !r.remains(now) {
			delete(s.records, uid)
			continue
		}
		t.records = append(t.records, r)
	}
	slices.SortFunc(t.records, func(a, b *record) int { return comparePods(a.pod, b.pod) })
	return t
}

func (r *record) remains(now time.Time) bool { return r.ended.IsZero() || now.Sub(r.ended) < linger }

// table is what a source publishes. It is immutable.
type table struct{ records []*record }
