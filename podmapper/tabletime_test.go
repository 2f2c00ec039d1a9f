// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"slices"
	"testing"
	"time"
	"unsafe"

	"gpu_exporter/podmapper/kubelettest"
)

// TestTableTime checks when a table begins: with new owners at their checkpoint, with
// fewer owners at the refresh.
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
	at := func(d time.Duration) time.Time { return m.listed.Load().at.Add(d) }
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
	// An old checkpoint, after which all its refreshes ran, does not count.
	write(at(-2 * lastLook))
	kubelet.SetPods(a, b)
	before := time.Now()
	if table := refresh(); table.Time.Before(before) {
		t.Errorf("a pod without a checkpoint is known from %s on, before its refresh at %s", table.Time, before)
	}
	write(at(time.Microsecond))
	kubelet.SetPods(a)
	before = time.Now()
	if table := refresh(); table.Time.Before(before) {
		t.Errorf("the end of a pod is known from %s on, before its refresh at %s", table.Time, before)
	}
	// Times never go back.
	last := m.Table()
	write(last.Time.Add(-time.Millisecond))
	kubelet.SetPods(a, b)
	if table := refresh(); !table.Time.After(last.Time) {
		t.Errorf("a table of %s follows one of %s", table.Time, last.Time)
	}
}

// TestTablesShareMemory checks that two tables share their strings.
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
		t.Errorf("the ID %s has two copies", ids[0])
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
		added       int
	}{
		{nil, nil, 0},
		{nil, []string{"a"}, 1},
		{[]string{"a", "b"}, []string{"a", "b"}, 0},
		{[]string{"a", "b", "c"}, []string{"b"}, 0},
		{[]string{"a", "c"}, []string{"a", "b", "c"}, 1},
		{[]string{"b"}, []string{"a"}, 1},
		{[]string{"a"}, []string{"b"}, 1},
	} {
		now := list(tc.now...)
		if added := reuse(list(tc.before...), now); added != tc.added || !slices.Equal(now, list(tc.now...)) {
			t.Errorf("%q after %q: added %v, and gives %+v", tc.now, tc.before, added, now)
		}
	}
}

// TestChanged checks the notices: one for each new table, merged until they are
// received, and none for an unchanged answer.
func TestChanged(t *testing.T) {
	kubelet, socket := startKubelet(t)
	m := newMapper(t, Config{Socket: socket})
	notified := func() bool {
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
	if notified() {
		t.Error("a notice before the first table")
	}
	refresh()
	if !notified() || notified() {
		t.Error("not one notice of the first table")
	}
	refresh()
	if notified() {
		t.Error("a notice of the same answer")
	}
	for _, pod := range []string{"a", "b"} {
		kubelet.SetPods(kubelettest.Pod("ml", pod, "main", gpuResource, gpuA))
		refresh()
	}
	if !notified() || notified() {
		t.Error("two changes are not merged")
	}
}
