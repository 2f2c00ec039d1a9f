// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gpu_exporter/podmapper/internal/proc"
)

// procTree is a procfs of ordinary files.
type procTree struct {
	t    *testing.T
	root string
}

func newProcTree(t *testing.T) procTree { return procTree{t, t.TempDir()} }

func (p procTree) write(pid int, name, content string) {
	p.t.Helper()
	dir := filepath.Join(p.root, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func stat(pid int, comm string, flags, start uint64) string {
	return fmt.Sprintf("%d (%s) S 1 %d %d 0 -1 %d 4711 0 0 0 12 3 0 0 20 0 1 0 %d 2433024 385 18446744073709551615 0 0 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0\n",
		pid, comm, pid, pid, flags, start)
}

func (p procTree) process(pid int, start uint64, cgroup string) {
	p.t.Helper()
	p.write(pid, "stat", stat(pid, "python3", 0x400000, start))
	p.write(pid, "cgroup", cgroup)
}

func (p procTree) remove(pid int) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.root, strconv.Itoa(pid))); err != nil {
		p.t.Fatal(err)
	}
}

// testReader returns a Reader of a tree and its clock.
func testReader(root string) (*Reader, *time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := NewReader(root)
	r.now = func() time.Time { return now }
	return r, &now
}

func wantContainer(t *testing.T, r *Reader, pid int, want string) {
	t.Helper()
	p, err := r.Place(pid)
	if err != nil || p.ContainerID != want {
		t.Errorf("Place(%d) = %q, %v; want %q", pid, p.ContainerID, err, want)
	}
}

func TestReaderCachesByStartTime(t *testing.T) {
	tree := newProcTree(t)
	r, now := testReader(tree.root)

	tree.process(100, 7, v2("/docker/"+id1))
	wantContainer(t, r, 100, id1)

	// The same process is not read again within a minute.
	tree.write(100, "cgroup", v2("/docker/"+id2))
	wantContainer(t, r, 100, id1)
	// It is read again later, although it was looked up in between.
	*now = now.Add(maxCacheAge)
	wantContainer(t, r, 100, id2)

	// A different process with the same PID is read at once.
	tree.process(100, 8, v2("/docker/"+id3))
	wantContainer(t, r, 100, id3)

	tree.remove(100)
	if _, err := r.Place(100); !errors.Is(err, ErrGone) {
		t.Errorf("exited process: %v", err)
	}
}

func TestReaderDoesNotCacheNoContainer(t *testing.T) {
	tree := newProcTree(t)
	r, _ := testReader(tree.root)
	tree.process(100, 7, v2("/system.slice/containerd.service"))
	if p, err := r.Place(100); !errors.Is(err, ErrNoContainer) || !p.NoContainer() || !p.NoJob() {
		t.Errorf("Place = %+v, %v", p, err)
	}
	// The runtime moves its child into the container before the child executes the
	// container's program.
	tree.write(100, "cgroup", v2("/docker/"+id1))
	wantContainer(t, r, 100, id1)
}

func TestReaderDropsExpiredEntries(t *testing.T) {
	tree := newProcTree(t)
	r, now := testReader(tree.root)
	tree.process(100, 7, v2("/docker/"+id1))
	tree.process(200, 7, v2("/docker/"+id2))
	wantContainer(t, r, 100, id1)
	wantContainer(t, r, 200, id2)
	for range 3 {
		*now = now.Add(maxCacheAge)
		wantContainer(t, r, 100, id1)
	}
	if _, ok := r.cached[proc.ID{PID: 100, Start: 7}]; !ok || len(r.cached) != 1 {
		t.Errorf("cached after three minutes: %v, want process 100 only", r.cached)
	}
}

func TestReaderIsBounded(t *testing.T) {
	r, now := testReader("")
	for i := range 5 * maxCached {
		r.store(proc.ID{PID: i}, Place{Container: Container{ContainerID: id1}})
		if got := len(r.cached); got > maxCached {
			t.Fatalf("%d entries after %d processes", got, i+1)
		}
	}
	*now = now.Add(time.Second)
	if _, ok := r.lookup(proc.ID{PID: 5*maxCached - 1}); !ok {
		t.Error("the newest entry is missing")
	}
}

func TestReaderErrors(t *testing.T) {
	tree := newProcTree(t)
	r := NewReader(tree.root)
	tree.write(100, "stat", stat(100, "python3", 0, 1))
	if _, err := r.Place(100); !errors.Is(err, ErrGone) {
		t.Errorf("no cgroup file: %v", err)
	}
	tree.write(200, "stat", "nonsense")
	if _, err := r.Place(200); err == nil || errors.Is(err, ErrGone) || errors.Is(err, ErrForbidden) {
		t.Errorf("malformed stat: %v", err)
	}
}

// TestReaderOnRealProcfs reads the procfs of this machine. The test may run inside
// or outside of a container.
func TestReaderOnRealProcfs(t *testing.T) {
	r := NewReader("")
	p, err := r.Place(os.Getpid())
	if err != nil && !errors.Is(err, ErrNoContainer) {
		t.Errorf("own process: %v", err)
	}
	t.Logf("own process: %+v, %v", p, err)
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Place(cmd.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("exited process: %v", err)
	}
	if _, err := r.HostPIDs(); err != nil {
		t.Errorf("HostPIDs: %v", err)
	}
}

func BenchmarkReader(b *testing.B) {
	cmd := exec.Command("sleep", "1h")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	r := NewReader("")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Place(cmd.Process.Pid); err != nil && !errors.Is(err, ErrNoContainer) {
			b.Fatal(err)
		}
	}
}
