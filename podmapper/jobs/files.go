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
	"path/filepath"
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
	maxEntries   = 16384 // of the directory
	maxFiles     = 1024
	maxFileBytes = 64 << 10
	maxFileJobs  = 1024
	maxLineBytes = 256
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
	names, err := f.list()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			clear(f.known)
		}
		return nil, 0, err
	}
	found = &reading{source: SourceFile, found: true}
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
		wait, err := f.update(name, file)
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
			found.holds = append(found.holds, Hold{file.device, Job{ID: id, Source: SourceFile}})
		}
	}
	f.known = existing
	return found, again, nil
}

// list returns the sorted names of job files.
func (f *jobFiles) list() ([]string, error) {
	dir, err := os.Open(f.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: no entries
		return nil, fmt.Errorf("listing %s: %w", f.dir, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isJobFile(name) })
	slices.Sort(names)
	return names, nil
}

// update reads one file. It returns when to read an incomplete file again, and the
// error of a file that is not usable.
func (f *jobFiles) update(name string, file *jobFile) (again time.Duration, err error) {
	now := f.now()
	content, info, err := readJobFile(filepath.Join(f.dir, name))
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

// readJobFile reads a file. A FIFO or a device does not block it.
func readJobFile(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, before, poll.WithReason(reasonNotRegular, errors.New("not a regular file"))
	}
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
			return nil, poll.WithReason(reasonNotText, fmt.Errorf("line %q has control characters or is not UTF-8", id))
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
