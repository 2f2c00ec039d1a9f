// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"gpu_exporter/podmapper/kubelettest"
)

// epochOf is a table with one pod.
func epochOf(version uint64, from, confirmed time.Time) epoch {
	return epoch{&Table{Time: from, Version: version, Assignments: []Assignment{{Owner: Owner{Pod: fmt.Sprint(version)}}}}, confirmed}
}

func TestHistoryAt(t *testing.T) {
	const maxAge = time.Minute
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	h := history{
		epochOf(1, at(0), at(20)),
		epochOf(2, at(25), at(30)),
		// The kubelet was away for longer than a table is good for.
		epochOf(3, at(200), at(210)),
	}
	for _, tc := range []struct {
		second int
		want   string
	}{
		{-3600, "1"}, // before the first, it is the first
		{-1, "1"}, {0, "1"}, {24, "1"},
		{25, "2"}, {30, "2"}, {90, "2"},
		{91, "none"}, {199, "none"},
		{200, "3"}, {270, "3"},
		{271, "none"},
	} {
		if got := pods(h.at(at(tc.second), maxAge)); got != tc.want {
			t.Errorf("at second %d the pod is %s, want %s", tc.second, got, tc.want)
		}
	}
	if got := history(nil).at(start, maxAge); got != nil {
		t.Errorf("no history has a table: %+v", got)
	}
}

// TestHistoryIsBounded: by age, by number and by size, and the newest is always
// there.
func TestHistoryIsBounded(t *testing.T) {
	start := time.Now()
	var h history
	for i := range 1000 {
		now := start.Add(time.Duration(i) * 10 * time.Second)
		h = h.add(epochOf(uint64(i), now, now).table, now, minHistory)
		if first := h[0].table.Time; len(h) > 14 || now.Sub(first) > minHistory+10*time.Second {
			t.Fatalf("%d tables, of the last %s", len(h), now.Sub(first))
		}
		if h.last().table.Version != uint64(i) {
			t.Fatalf("the last table is %d, want %d", h.last().table.Version, i)
		}
	}
	if first := h[0].table.Time; h.last().confirmed.Sub(first) < minHistory {
		t.Errorf("only the last %s are remembered", h.last().confirmed.Sub(first))
	}
	for i := range 1000 {
		h = h.add(epochOf(uint64(i), start, start).table, start, minHistory)
	}
	if len(h) != maxTables {
		t.Errorf("%d tables at the same time, want %d", len(h), maxTables)
	}
	for range 10 {
		h = h.add(&Table{Time: start, Assignments: make([]Assignment, maxAssignments)}, start, minHistory)
	}
	if len(h) > 2 {
		t.Errorf("%d tables of the largest size are held", len(h))
	}
}

// TestHistoryIsImmutable: who holds one does not see what follows.
func TestHistoryIsImmutable(t *testing.T) {
	now := time.Now()
	h := history(nil).add(epochOf(1, now, now).table, now, minHistory)
	a, b := h.add(epochOf(2, now, now).table, now, minHistory), h.add(epochOf(3, now, now).table, now, minHistory)
	c := a.confirm(now.Add(time.Second))
	if len(h) != 1 || a.last().table.Version != 2 || b.last().table.Version != 3 || !a.last().confirmed.Equal(now) || c.last().confirmed.Equal(now) {
		t.Errorf("%+v, %+v, %+v, %+v", h, a, b, c)
	}
}

// TestTableAt: owners follow each other, each for the samples of its time.
func TestTableAt(t *testing.T) {
	kubelet, socket := startKubelet(t, kubelettest.Pod("ml", "a", "main", gpuResource, gpuA))
	m := newMapper(t, Config{Socket: socket})
	if m.TableAt(time.Now()) != nil {
		t.Error("there is a table before the first answer")
	}
	refresh := func() {
		t.Helper()
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	early := time.Now()
	refresh()
	first := time.Now()
	refresh()
	if got := m.TableAt(early); got == nil || got != m.TableAt(first) || got != m.Table() {
		t.Errorf("one answer, different tables: %p, %p, %p", got, m.TableAt(first), m.Table())
	}
	kubelet.SetPods(kubelettest.Pod("ml", "b", "main", gpuResource, gpuA))
	refresh()
	second := time.Now()
	for _, tc := range []struct {
		name string
		at   time.Time
		want string
	}{
		{"before the first refresh", early, "a"},
		{"between the refreshes", first, "a"},
		{"after the last", second, "b"},
		{"without the monotonic clock", first.Round(0), "a"},
		{"in the future", second.Add(time.Minute), "b"},
	} {
		if got := pods(m.TableAt(tc.at)); got != tc.want {
			t.Errorf("%s the owner is %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestTableTime: what is new is true from the checkpoint on that tells of it, and
// what is gone only from the refresh on that does not list it.
func TestTableTime(t *testing.T) {
	a, b, c := kubelettest.Pod("ml", "a", "main", gpuResource, gpuA), kubelettest.Pod("ml", "b", "main", gpuResource, gpuB),
		kubelettest.Pod("ml", "c", "main", gpuResource, gpuB)
	kubelet, socket := startKubelet(t, a)
	m := newMapper(t, Config{Socket: socket})
	refresh := func() *Table {
		t.Helper()
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return m.Table()
	}
	at := func(d time.Duration) time.Time { return m.Status().TableTime.Add(d) }
	write := func(at time.Time) { m.written.Store(&at) }
	refresh()

	written := at(time.Microsecond)
	write(written)
	kubelet.SetPods(a, b)
	if table := refresh(); table.Time != written {
		t.Errorf("a pod that came is known from %s on, want %s, when it was written down", table.Time, written)
	}
	// The refresh right after the checkpoint did not show it yet.
	written = at(-time.Microsecond)
	write(written)
	kubelet.SetPods(a, c)
	if table := refresh(); table.Time != written {
		t.Errorf("a pod that is listed late is known from %s on, want %s", table.Time, written)
	}
	// A checkpoint that all refreshes because of it have followed says nothing.
	write(at(-2 * lastLook))
	kubelet.SetPods(a, b)
	before := time.Now()
	if table := refresh(); table.Time.Before(before) {
		t.Errorf("a pod without a checkpoint is known from %s on, before it was asked for at %s", table.Time, before)
	}
	write(at(time.Microsecond))
	kubelet.SetPods(a)
	before = time.Now()
	if table := refresh(); table.Time.Before(before) {
		t.Errorf("the end of a pod is known from %s on, before it was asked for at %s", table.Time, before)
	}
	// Times never go back.
	last := m.Table()
	write(last.Time.Add(-time.Millisecond))
	kubelet.SetPods(a, b)
	if table := refresh(); !table.Time.After(last.Time) {
		t.Errorf("a table of %s follows one of %s", table.Time, last.Time)
	}
}

// TestTablesShareMemory: what two tables have in common is there once.
func TestTablesShareMemory(t *testing.T) {
	a, b := kubelettest.Pod("ml", "a", "main", gpuResource, gpuA), kubelettest.Pod("ml", "b", "main", gpuResource, gpuB)
	kubelet, socket := startKubelet(t, a)
	m := newMapper(t, Config{Socket: socket})
	var ids []string
	for range 2 {
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.Table().Assignments[0].ID)
		kubelet.SetPods(a, b)
	}
	if ids[0] != gpuA || unsafe.StringData(ids[0]) != unsafe.StringData(ids[1]) {
		t.Errorf("the ID %s is there twice", ids[0])
	}
}

func TestReuse(t *testing.T) {
	list := func(names ...string) (all []Assignment) {
		for _, n := range names {
			all = append(all, Assignment{ID: n})
		}
		return all
	}
	for _, tc := range []struct {
		before, now []string
		added       bool
	}{
		{nil, nil, false},
		{nil, []string{"a"}, true},
		{[]string{"a", "b"}, []string{"a", "b"}, false},
		{[]string{"a", "b", "c"}, []string{"b"}, false},
		{[]string{"a", "c"}, []string{"a", "b", "c"}, true},
		{[]string{"b"}, []string{"a"}, true},
		{[]string{"a"}, []string{"b"}, true},
	} {
		now := list(tc.now...)
		if added := reuse(list(tc.before...), now); added != tc.added || !slices.Equal(now, list(tc.now...)) {
			t.Errorf("%q after %q: added %v, and gives %+v", tc.now, tc.before, added, now)
		}
	}
}

// TestChanged: told once for each table of another version, merged if nobody
// takes it, and not for the same answer again.
func TestChanged(t *testing.T) {
	kubelet, socket := startKubelet(t)
	m := newMapper(t, Config{Socket: socket, CheckpointDir: filepath.Join(t.TempDir(), "none")})
	told := func() bool {
		select {
		case <-m.Changed():
			return true
		default:
			return false
		}
	}
	refresh := func() {
		t.Helper()
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if told() {
		t.Error("told before the first table")
	}
	refresh()
	if !told() || told() {
		t.Error("not told once of the first table")
	}
	refresh()
	if told() {
		t.Error("told of the same answer")
	}
	for _, pod := range []string{"a", "b"} {
		kubelet.SetPods(kubelettest.Pod("ml", pod, "main", gpuResource, gpuA))
		refresh()
	}
	if !told() || told() {
		t.Error("two changes are not merged")
	}
}
