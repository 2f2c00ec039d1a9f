// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Pages that their file still has are released. A page that the process has changed keeps
// its content: the loader changes pages before it makes them read-only.
func TestReleaseFilePages(t *testing.T) {
	page := os.Getpagesize()
	content := bytes.Repeat([]byte("a"), 64*page)
	path := filepath.Join(t.TempDir(), "library")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	mapped := func(protection int) []byte {
		m, err := unix.Mmap(int(file.Fd()), 0, len(content), protection, unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(m) })
		return m
	}
	clean, changed := mapped(unix.PROT_READ), mapped(unix.PROT_READ|unix.PROT_WRITE)
	for i := 0; i < len(changed); i += page {
		changed[i] = 'b'
	}
	if err := unix.Mprotect(changed, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(clean, content) {
		t.Fatal("the mapping differs from its file")
	}
	both, one := 2*len(content)/1024, len(content)/1024
	if got := residentKiB(t, os.Getpid(), path); got != both {
		t.Fatalf("%d KiB are mapped before, want %d", got, both)
	}
	if err := releaseFilePages(); err != nil {
		t.Fatal(err)
	}
	if got := residentKiB(t, os.Getpid(), path); got != one {
		t.Errorf("%d KiB are mapped afterwards, want the %d that were changed", got, one)
	}
	if changed[0] != 'b' {
		t.Error("a changed page lost its content")
	}
	if !bytes.Equal(clean, content) {
		t.Error("a released page has different content")
	}
}

// Both processes release the pages of their start, and continue.
func TestStartReleasesFilePages(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8")
	path, sampler := built(t), n.samplerPID()
	for _, pid := range []int{n.cmd.Process.Pid, sampler} {
		most := 0
		n.eventually(t, "a process maps less of the program", func() bool {
			now := residentKiB(t, pid, path)
			most = max(most, now)
			return now < most
		})
	}
	before, _ := sumOf(n.scrape(t), "gpu_exporter_last_sample_timestamp_seconds")
	n.eventually(t, "a new sample", func() bool {
		last, _ := sumOf(n.scrape(t), "gpu_exporter_last_sample_timestamp_seconds")
		return last > before
	})
	if n.samplerPID() != sampler {
		t.Error("the sampler was replaced")
	}
}

// residentKiB is the size of the pages of a file that a process has mapped.
func residentKiB(t *testing.T, pid int, path string) (sum int) {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	of := false
	for line := range strings.Lines(string(smaps)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kib); n == 1 && of {
			sum += kib
		} else if name, _, _ := strings.Cut(line, " "); !strings.HasSuffix(name, ":") {
			of = strings.HasSuffix(line, path+"\n")
		}
	}
	return sum
}
