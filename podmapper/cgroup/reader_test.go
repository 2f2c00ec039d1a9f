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

// testReader reads a tree, with a clock of its own.
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

func TestReaderRemembersByStartTime(t *testing.T) {
	tree := newProcTree(t)
	r, now := testReader(tree.root)

	tree.process(100, 7, v2("/docker/"+id1))
	wantContainer(t, r, 100, id1)

	// The same process is not read again within a minute ...
	tree.write(100, "cgroup", v2("/docker/"+id2))
	wantContainer(t, r, 100, id1)
	// ... but is after it, however often it was asked for.
	*now = now.Add(readAgain)
	wantContainer(t, r, 100, id2)

	// Another process with its ID is another one at once.
	tree.process(100, 8, v2("/docker/"+id3))
	wantContainer(t, r, 100, id3)

	tree.remove(100)
	if _, err := r.Place(100); !errors.Is(err, ErrGone) {
		t.Errorf("gone: %v", err)
	}
}

func TestReaderDoesNotRememberNoContainer(t *testing.T) {
	tree := newProcTree(t)
	r, _ := testReader(tree.root)
	tree.process(100, 7, v2("/system.slice/containerd.service"))
	if p, err := r.Place(100); !errors.Is(err, ErrNoContainer) || !p.NoContainer() || !p.NoJob() {
		t.Errorf("Place = %+v, %v", p, err)
	}
	// The runtime moves its child into the container before it becomes the
	// container's process.
	tree.write(100, "cgroup", v2("/docker/"+id1))
	wantContainer(t, r, 100, id1)
}

func TestReaderForgetsWhatIsNotAskedFor(t *testing.T) {
	tree := newProcTree(t)
	r, now := testReader(tree.root)
	tree.process(100, 7, v2("/docker/"+id1))
	tree.process(200, 7, v2("/docker/"+id2))
	wantContainer(t, r, 100, id1)
	wantContainer(t, r, 200, id2)
	for range 3 {
		*now = now.Add(readAgain)
		wantContainer(t, r, 100, id1)
	}
	if got := len(r.young) + len(r.old); got != 2 {
		// 100 in both halves, 200 in none.
		t.Errorf("%d entries remembered: %v %v", got, r.young, r.old)
	}
	if _, ok := r.old[process{200, 7}]; ok {
		t.Error("200 is remembered after three minutes")
	}
}

func TestReaderIsBounded(t *testing.T) {
	r, now := testReader("")
	for i := range 5 * maxPlaces {
		r.remember(process{pid: i}, Place{Container: Container{ContainerID: id1}})
		if got := len(r.young) + len(r.old); got > 2*maxPlaces {
			t.Fatalf("%d entries after %d processes", got, i+1)
		}
	}
	*now = now.Add(time.Second)
	if _, ok := r.remembered(process{pid: 5*maxPlaces - 1}); !ok {
		t.Error("the last one is forgotten")
	}
}

func TestReaderErrors(t *testing.T) {
	tree := newProcTree(t)
	r := NewReader(tree.root)
	tree.write(100, "stat", stat(100, "python3", 0, 1)) // and no cgroup
	if _, err := r.Place(100); !errors.Is(err, ErrGone) {
		t.Errorf("exited in between: %v", err)
	}
	tree.write(200, "stat", "nonsense")
	if _, err := r.Place(200); err == nil || errors.Is(err, ErrGone) || errors.Is(err, ErrForbidden) {
		t.Errorf("no procfs: %v", err)
	}
	if err := typed(&os.PathError{Op: "open", Path: "/proc/1/cgroup", Err: os.ErrPermission}); !errors.Is(err, ErrForbidden) {
		t.Errorf("forbidden: %v", err)
	}
}

// TestReaderOnThisMachine reads the real procfs.
func TestReaderOnThisMachine(t *testing.T) {
	r := NewReader("")
	// Where the test itself runs is not known, but it can be found out.
	if p, err := r.Place(os.Getpid()); err != nil && !errors.Is(err, ErrNoContainer) {
		t.Errorf("own process: %v", err)
	} else {
		t.Logf("own process: %+v, %v", p, err)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Place(cmd.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("an exited process: %v", err)
	}
	host, err := r.HostPIDs()
	if err != nil {
		t.Errorf("HostPIDs: %v", err)
	}
	// The reader's own namespace must say the same.
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	if host != (link == initialNamespace) {
		t.Errorf("HostPIDs = %v in %s", host, link)
	}
}

func TestHostPIDs(t *testing.T) {
	const kthreadd = 0x208040
	for _, tt := range []struct {
		name    string
		two     string // content of 2/stat
		self    string // link self/ns/pid
		want    bool
		wantErr bool
	}{
		{name: "on the host", two: stat(2, "kthreadd", kthreadd, 0), self: initialNamespace, want: true},
		{name: "the host's procfs, seen from a container", two: stat(2, "kthreadd", kthreadd, 0), self: "pid:[4026532601]", want: true},
		{name: "a container without a second process", self: "pid:[4026532601]"},
		{name: "a container whose second process is a user's", two: stat(2, "kthreadd", 0x400100, 9213), self: "pid:[4026532601]"},
		{name: "on the host, other users' processes hidden", self: initialNamespace, want: true},
		{name: "no procfs", wantErr: true},
		{name: "garbage", two: "2 kthreadd\n", self: initialNamespace, wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := newProcTree(t)
			if tt.two != "" {
				tree.write(2, "stat", tt.two)
			}
			if tt.self != "" {
				dir := filepath.Join(tree.root, "self", "ns")
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(tt.self, filepath.Join(dir, "pid")); err != nil {
					t.Fatal(err)
				}
			}
			got, err := NewReader(tree.root).HostPIDs()
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("HostPIDs = %v, %v; want %v, error %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		want          Stat
		ok            bool
	}{
		{"ordinary", stat(100, "python3", 0x400000, 123456), Stat{Start: 123456, Flags: 0x400000}, true},
		{"a name with everything", stat(100, "a) R 1 (b\n) 7", 1, 99), Stat{Start: 99, Flags: 1}, true},
		{"a kernel thread", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0 18446744073709551615 0 0 0 0 0 0 0 2147483647 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
			Stat{Start: 24, Flags: 2129984}, true},
		{"cut off", "100 (python3) S 1 100", Stat{}, false},
		{"empty", "", Stat{}, false},
		{"no number", "1 (x) S 1 1 1 0 -1 x 0 0 0 0 0 0 0 0 20 0 1 0 24 0", Stat{}, false},
		{"no start", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 -24 0", Stat{}, false},
	} {
		got, err := ParseStat(tt.content)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s: ParseStat = %+v, %v; want %+v, ok %v", tt.name, got, err, tt.want, tt.ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(stat(100, "python3", 0x400000, 123456))
	f.Add("1 (x) S 1 1 1 0 -1 x 0 0 0 0 0 0 0 0 20 0 1 0 24 0")
	f.Add(")))")
	f.Fuzz(func(t *testing.T, content string) {
		if s, err := ParseStat(content); err != nil && s != (Stat{}) {
			t.Errorf("%+v with %v", s, err)
		}
	})
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
