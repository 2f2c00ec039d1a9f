// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// started is the age at which a process has executed the code that only its start needs.
const started = 30 * time.Second

// releaseFilePages unmaps the pages of the program and its libraries, which the kernel
// still caches. A minor fault maps a page that is used again. The start maps 20 MiB of
// the program, and samples need 6 MiB of that.
func releaseFilePages() error {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("reading the mappings of the process: %w", err)
	}
	defer func() { _ = smaps.Close() }()
	var start, end uintptr
	var inode uint64
	var permissions, skip string
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch {
		case !strings.HasSuffix(name, ":"): // the first line of a mapping
			if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d", &start, &end, &permissions, &skip, &skip, &inode); err != nil {
				return fmt.Errorf("reading the mappings of the process: %w", err)
			}
		case name == "Anonymous:" && strings.TrimSpace(value) == "0 kB" && inode != 0 && !strings.Contains(permissions, "w"):
			// No page is private, so the file has the content of all pages. The loader has
			// changed the private pages of the remaining read-only mappings.
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("releasing the pages at %#x: %w", start, errno)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the mappings of the process: %w", err)
	}
	return nil
}
