// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// tree is a procfs of ordinary files.
type tree struct {
	t    *testing.T
	root string
}

func newTree(t *testing.T) tree { return tree{t, t.TempDir()} }

func (p tree) write(pid int, name, content string) {
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

func TestRead(t *testing.T) {
	tree := newTree(t)
	tree.write(100, "stat", stat(100, "python3", 0x400000, 7))
	tree.write(100, "environ", "A=1\x00B=2\x00")
	p, err := Open(tree.root, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.ID != (ID{100, 7}) {
		t.Errorf("ID %+v", p.ID)
	}
	if got, err := p.Read("environ", 1<<10); string(got) != "A=1\x00B=2\x00" || err != nil {
		t.Errorf("Read: %q, %v", got, err)
	}
	if got, err := p.Read("environ", 4); string(got) != "A=1\x00" || err != nil {
		t.Errorf("bounded Read: %q, %v", got, err)
	}
	if _, err := p.Read("cgroup", 1); !errors.Is(err, ErrGone) {
		t.Errorf("missing file: %v", err)
	}
	path := filepath.Join(tree.root, "100", "environ")
	if got, err := ReadFile(path, 4); string(got) != "A=1\x00" || err != nil {
		t.Errorf("ReadFile: %q, %v", got, err)
	}
}

// TestPIDReuse replaces the directory of an open process.
func TestPIDReuse(t *testing.T) {
	tree := newTree(t)
	tree.write(100, "stat", stat(100, "old", 0, 7))
	tree.write(100, "environ", "old")
	p, err := Open(tree.root, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := os.RemoveAll(filepath.Join(tree.root, "100")); err != nil {
		t.Fatal(err)
	}
	tree.write(100, "stat", stat(100, "new", 0, 8))
	tree.write(100, "environ", "new")
	if got, err := p.Read("environ", 64); !errors.Is(err, ErrGone) {
		t.Errorf("Read after exit: %q, %v", got, err)
	}
	reused, err := Open(tree.root, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer reused.Close()
	if reused.ID == p.ID {
		t.Errorf("two processes with the ID %+v", p.ID)
	}
}

// TestFIFODoesNotBlock would hang until the test's deadline.
func TestFIFODoesNotBlock(t *testing.T) {
	tree := newTree(t)
	tree.write(100, "stat", stat(100, "x", 0, 7))
	path := filepath.Join(tree.root, "100", "environ")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := Open(tree.root, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, err := p.Read("environ", 64); len(got) != 0 || err != nil {
		t.Errorf("Read: %q, %v", got, err)
	}
	if got, err := ReadFile(path, 64); len(got) != 0 || err != nil {
		t.Errorf("ReadFile: %q, %v", got, err)
	}
}

func TestErrors(t *testing.T) {
	tree := newTree(t)
	if _, err := Open(tree.root, 100); !errors.Is(err, ErrGone) {
		t.Errorf("no process: %v", err)
	}
	tree.write(200, "stat", "nonsense")
	if _, err := Open(tree.root, 200); err == nil || errors.Is(err, ErrGone) || errors.Is(err, ErrForbidden) {
		t.Errorf("malformed stat: %v", err)
	}
	if err := classify(&os.PathError{Op: "open", Path: "/proc/1/cgroup", Err: os.ErrPermission}); !errors.Is(err, ErrForbidden) {
		t.Errorf("permission: %v", err)
	}
	if err := classify(&os.PathError{Op: "read", Path: "stat", Err: syscall.ESRCH}); !errors.Is(err, ErrGone) {
		t.Errorf("exit during a read: %v", err)
	}
}

// TestRealProcfs reads the procfs of this machine.
func TestRealProcfs(t *testing.T) {
	p, err := Open(DefaultRoot, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, err := p.Read("environ", 1<<20); err != nil {
		t.Errorf("own environment: %d bytes, %v", len(got), err)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(DefaultRoot, cmd.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("exited process: %v", err)
	}
	host, err := HostPIDs(DefaultRoot)
	if err != nil {
		t.Errorf("HostPIDs: %v", err)
	}
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	if host != (link == initialNamespace) {
		t.Errorf("HostPIDs = %v in namespace %s", host, link)
	}
}

func TestHostPIDs(t *testing.T) {
	const kthreadd = 0x208040
	for _, tt := range []struct {
		name    string
		two     string // content of 2/stat
		self    string // target of the link self/ns/pid
		want    bool
		wantErr bool
	}{
		{name: "host", two: stat(2, "kthreadd", kthreadd, 0), self: initialNamespace, want: true},
		{name: "container with the host's procfs", two: stat(2, "kthreadd", kthreadd, 0), self: "pid:[4026532601]", want: true},
		{name: "container without process 2", self: "pid:[4026532601]"},
		{name: "container with a user process 2", two: stat(2, "kthreadd", 0x400100, 9213), self: "pid:[4026532601]"},
		{name: "host with hidden processes", self: initialNamespace, want: true},
		{name: "not a procfs", wantErr: true},
		{name: "malformed stat", two: "2 kthreadd\n", self: initialNamespace, wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := newTree(t)
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
			got, err := HostPIDs(tree.root)
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("HostPIDs = %v, %v; want %v, error %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		start, flags  uint64
		ok            bool
	}{
		{"user process", stat(100, "python3", 0x400000, 123456), 123456, 0x400000, true},
		{"parentheses, spaces and a newline in the command", stat(100, "a) R 1 (b\n) 7", 1, 99), 99, 1, true},
		{"kernel thread", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0 18446744073709551615 0 0 0 0 0 0 0 2147483647 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
			24, 2129984, true},
		{"truncated", "100 (python3) S 1 100", 0, 0, false},
		{"empty", "", 0, 0, false},
		{"no command", "1 x S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0 0", 0, 0, false},
		{"flags are not a number", "1 (x) S 1 1 1 0 -1 x 0 0 0 0 0 0 0 0 20 0 1 0 24 0", 0, 0, false},
		{"negative start time", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 -24 0", 0, 0, false},
	} {
		start, flags, err := parseStat(tt.content)
		if start != tt.start || flags != tt.flags || (err == nil) != tt.ok {
			t.Errorf("%s: parseStat = %d, %#x, %v; want %d, %#x, ok %v", tt.name, start, flags, err, tt.start, tt.flags, tt.ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(stat(100, "python3", 0x400000, 123456))
	f.Add("1 (x) S 1 1 1 0 -1 x 0 0 0 0 0 0 0 0 20 0 1 0 24 0")
	f.Add(")))")
	f.Fuzz(func(t *testing.T, content string) {
		if start, flags, err := parseStat(content); err != nil && (start != 0 || flags != 0) {
			t.Errorf("%d, %#x with %v", start, flags, err)
		}
	})
}
