// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
)

// Bounds of job files. At most a few dozen jobs share a device, and an ID is a label
// value.
const (
	maxEntries    = 1 << 20 // names in the directory
	entriesAtOnce = 1024
	maxFiles      = 1024
	maxFileBytes  = 64 << 10
	maxFileJobs   = 64 // each repeats all series of its device
	maxLineBytes  = 256
)

// A prolog writes a file in place, so a reader can find it empty or truncated. A file
// is complete if it ends with a newline, or is unchanged for settleAfter. Until then,
// but at most for waitFor, its former content remains valid; a new file has none. The
// same applies to a file that is unreadable or malformed.
const (
	settleAfter = time.Second
	waitFor     = 5 * time.Second
	rereadAfter = 250 * time.Millisecond
)

// jobFiles reads a directory of job files. A file is named after its device,
// <DCGM ID of the GPU> or <DCGM ID>.<GPU instance>, and has one job per line
// (NVIDIA/dcgm-exporter internal/pkg/transformation/hpc.go; instances since 4.8.2).
// Unlike there, a blank line is not a job.
type jobFiles struct {
	dir    string
	now    func() time.Time
	settle time.Duration
	wait   time.Duration

	known map[string]*jobFile // existing files by name
}

// jobFile is the state of a file.
type jobFile struct {
	device device.ID
	jobs   []string // that are valid
	// incompleteSince is when the file stopped being usable; zero if it is usable.
	incompleteSince time.Time
	info            fs.FileInfo // of the last reading
	unchangedSince  time.Time
}

// unchanged reports whether a file was neither written nor replaced.
func unchanged(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func newJobFiles(dir string) *jobFiles {
	return &jobFiles{dir: dir, now: time.Now, settle: settleAfter, wait: waitFor, known: make(map[string]*jobFile)}
}

// read reads the directory. It must be repeated after again, unless that is zero,
// because files may be incomplete.
func (f *jobFiles) read(context.Context) (found *reading, again time.Duration, err error) {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			clear(f.known)
		}
		return nil, 0, err
	}
	defer func() { _ = root.Close() }() // read-only: nothing can be lost
	names, all, err := list(root)
	if err != nil {
		return nil, 0, fmt.Errorf("listing %s: %w", f.dir, err)
	}
	found = &reading{source: SourceFile, found: true}
	if !all {
		found.addProblem(f.dir, poll.WithReason(reasonTooMany, fmt.Errorf("more than %d names; the rest is not read", maxEntries)))
		found.incomplete = true
	}
	if len(names) > maxFiles {
		found.addProblem(f.dir, poll.WithReason(reasonTooMany, fmt.Errorf("%d job files; only %d are read", len(names), maxFiles)))
		found.incomplete = true
		names = names[:maxFiles]
	}
	existing := make(map[string]*jobFile, len(names))
	for _, name := range names {
		file := f.known[name]
		if file == nil {
			file = &jobFile{}
			file.device, _ = parseFileName(name)
		}
		wait, err := f.update(root, name, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed after the listing
		}
		existing[name] = file
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
		if err != nil {
			found.addProblem(name, err)
			found.unknown = append(found.unknown, file.device)
		}
		for _, id := range file.jobs {
			found.holds = append(found.holds, Hold{Device: file.device, Job: Job{ID: id, Source: SourceFile}})
		}
	}
	f.known = existing
	return found, again, nil
}

// list returns the sorted names of job files, and whether these are all.
func list(root *os.Root) (names []string, all bool, err error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	for read := 0; read < maxEntries; {
		some, err := dir.Readdirnames(entriesAtOnce)
		read += len(some)
		for _, name := range some {
			if isJobFile(name) {
				names = append(names, name)
			}
		}
		if errors.Is(err, io.EOF) {
			all = true
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	slices.Sort(names)
	return names, all, nil
}

// update reads one file. It returns when to read an incomplete file again, and the
// error of a file that is not usable.
func (f *jobFiles) update(root *os.Root, name string, file *jobFile) (again time.Duration, err error) {
	now := f.now()
	content, info, err := readJobFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if !unchanged(info, file.info) {
		file.info, file.unchangedSince = info, now
	}
	var ids []string
	if err == nil {
		ids, err = parseJobFile(content)
	}
	complete := bytes.HasSuffix(content, []byte{'\n'}) || now.Sub(file.unchangedSince) >= f.settle
	if err == nil && (complete || now.Sub(info.ModTime()) >= f.settle) {
		file.jobs, file.incompleteSince = ids, time.Time{}
		return 0, nil
	}
	if file.incompleteSince.IsZero() {
		file.incompleteSince = now
	}
	left := f.wait - now.Sub(file.incompleteSince)
	switch {
	case left <= 0:
		file.jobs = ids // empty after an error
		return 0, err
	case err == nil, poll.ReasonOf(err) == reasonChanging:
		return min(rereadAfter, left), nil
	}
	return left, err
}

// readJobFile reads a file. A FIFO or a device does not block it, and it follows no link,
// which could lead to a file that only root may read.
func readJobFile(root *os.Root, name string) ([]byte, fs.FileInfo, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	notRegular := poll.WithReason(reasonNotRegular, errors.New("not a regular file"))
	if !before.Mode().IsRegular() {
		return nil, before, notRegular
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, before, err
	}
	defer file.Close()
	opened, err := file.Stat()
	if err != nil {
		return nil, before, err
	}
	if !os.SameFile(before, opened) { // it was replaced, perhaps by a link
		return nil, opened, notRegular
	}
	before = opened
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, before, err
	}
	if len(content) > maxFileBytes {
		return nil, before, poll.WithReason(poll.TooLarge, fmt.Errorf("the file has more than %d bytes", maxFileBytes))
	}
	after, err := file.Stat()
	if err != nil {
		return nil, before, err
	}
	if !unchanged(before, after) || after.Size() != int64(len(content)) {
		return nil, after, poll.WithReason(reasonChanging, errors.New("the file changed while it was read"))
	}
	return content, after, nil
}

// parseJobFile returns the lines of a file without carriage returns, blank lines and
// duplicates.
func parseJobFile(content []byte) ([]string, error) {
	var ids []string
	seen := make(map[string]bool)
	for line := range bytes.SplitSeq(content, []byte{'\n'}) {
		id := string(bytes.TrimSuffix(line, []byte{'\r'}))
		switch {
		case len(id) > maxLineBytes && strings.TrimSpace(id) != "":
			return nil, poll.WithReason(poll.TooLarge, fmt.Errorf("a line has %d bytes; a job ID has at most %d", len(id), maxLineBytes))
		case !isText(id):
			return nil, poll.WithReason(reasonNotText, errors.New("a line has control characters or is not UTF-8"))
		case strings.TrimSpace(id) == "", seen[id]:
			continue
		case len(ids) == maxFileJobs:
			return nil, poll.WithReason(poll.TooLarge, fmt.Errorf("the file has more than %d jobs", maxFileJobs))
		}
		seen[id] = true
		ids = append(ids, id)
	}
	return ids, nil
}

// isText reports whether s is UTF-8 without control characters except tabs.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) })
}

func isJobFile(name string) bool {
	_, ok := parseFileName(name)
	return ok
}

// parseFileName returns the device of a job file. dcgm-exporter compares names with
// label values as texts, so 01 is not a GPU.
func parseFileName(name string) (device.ID, bool) {
	gpu, instance, isInstance := strings.Cut(name, ".")
	number, ok := parseNumber(gpu)
	if !isInstance {
		return device.ID{Form: device.FormDCGM, Number: number}, ok
	}
	gi, instanceOK := parseNumber(instance)
	return device.ID{Form: device.FormDCGMInstance, Number: number, GPUInstance: gi}, ok && instanceOK
}

func parseNumber(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && len(s) <= 9 && (s == "0" || s[0] != '0')
}
