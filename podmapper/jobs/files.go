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
)

// Bounds of job files. A device is hardly ever shared by more than a few dozen
// jobs, and an ID goes into a label.
const (
	maxEntries   = 16384 // of the directory
	maxFiles     = 1024
	maxFileBytes = 64 << 10
	maxFileJobs  = 1024
	maxLineBytes = 256
)

// A prolog writes a file in place, so that it can be read when it is empty or
// cut off. A file is taken to be whole if it ends with a newline, or if it has
// not changed for settleAfter. Until then, but no longer than waitFor, what it
// said before is kept, and a file that is new says nothing. The same goes for a
// file that cannot be read, or not be used.
const (
	settleAfter = time.Second
	waitFor     = 5 * time.Second
	readSoon    = 250 * time.Millisecond
)

// errChanging is that of a file that was written to while it was read.
var errChanging = errors.New("it is being written")

// jobFiles reads a directory of job files: each is called after the device, as
// DCGM numbers it, <gpu> or <gpu>.<GPU instance>, and has the jobs on it, one a
// line (NVIDIA/dcgm-exporter internal/pkg/transformation/hpc.go; instances since
// 4.8.2). Unlike there, a blank line is no job.
type jobFiles struct {
	dir    string
	now    func() time.Time
	settle time.Duration
	wait   time.Duration

	known map[string]*jobFile // by name; only of files that are there
}

// jobFile is what is remembered of a file.
type jobFile struct {
	device DeviceRef
	jobs   []string // that it is taken to have
	// doubtful is since when it could not be taken as it is; zero if it can.
	doubtful time.Time
	// Of the last look, to see whether it is still being written.
	stamp stamp
	since time.Time // it has had this stamp
}

// stamp changes when a file is written to.
type stamp struct {
	inode, device uint64
	size          int64
	modified      time.Time
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.device = sys.Ino, sys.Dev
	}
	return s
}

func newJobFiles(dir string) *jobFiles {
	return &jobFiles{dir: dir, now: time.Now, settle: settleAfter, wait: waitFor, known: make(map[string]*jobFile)}
}

// read reads the directory. again is when to read it again for the sake of files
// that may be half-written; zero if there are none.
func (f *jobFiles) read(context.Context) (found reading, again time.Duration, err error) {
	names, ignored, err := f.list()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			clear(f.known) // all files are removed
		}
		return reading{}, 0, err
	}
	found.found, found.ignored = true, ignored
	if len(names) > maxFiles {
		found.problem(f.dir, ReasonTooMany, fmt.Errorf("%d job files; only %d are read", len(names), maxFiles))
		found.incomplete = true
		names = names[:maxFiles]
	}
	there := make(map[string]*jobFile, len(names))
	for _, name := range names {
		file := f.known[name]
		if file == nil {
			file = &jobFile{device: parseFileName(name)}
		}
		wait, err := f.look(name, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in between
		}
		there[name] = file
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
		if err != nil {
			found.problem(name, fileReason(err), err)
			found.unknown = append(found.unknown, file.device)
		}
		for _, id := range file.jobs {
			found.holds = append(found.holds, Hold{file.device, Job{ID: id, Source: SourceFile}})
		}
	}
	f.known = there
	return found, again, nil
}

// list gives the names of job files, and how many others there are.
func (f *jobFiles) list() (names []string, ignored int, err error) {
	dir, err := os.Open(f.dir)
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) { // which it is without entries
		return nil, 0, fmt.Errorf("listing %s: %w", f.dir, err)
	}
	for _, name := range all {
		if isFileName(name) {
			names = append(names, name)
		} else {
			ignored++
		}
	}
	slices.SortFunc(names, func(a, b string) int { return compareRefs(parseFileName(a), parseFileName(b)) })
	return names, ignored, nil
}

// look reads one file and updates what is remembered of it. again is when it has
// to be read again because it may be half-written; zero if it need not. The
// error says why it cannot be used.
func (f *jobFiles) look(name string, file *jobFile) (again time.Duration, err error) {
	now := f.now()
	content, stamp, err := readWhole(filepath.Join(f.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if stamp != file.stamp || file.since.IsZero() {
		file.stamp, file.since = stamp, now
	}
	var ids []string
	if err == nil {
		ids, err = parseJobFile(content)
	}
	unchanged := now.Sub(stamp.modified) >= f.settle || now.Sub(file.since) >= f.settle
	if err == nil && (unchanged || bytes.HasSuffix(content, []byte{'\n'})) {
		file.jobs, file.doubtful = ids, time.Time{}
		return 0, nil
	}
	if file.doubtful.IsZero() {
		file.doubtful = now
	}
	left := f.wait - now.Sub(file.doubtful)
	switch {
	case left <= 0:
		file.jobs = ids // which are none with an error
		return 0, err
	case err == nil, errors.Is(err, errChanging):
		return min(readSoon, left), nil
	}
	return left, err
}

// readWhole reads a file of a bounded size. A FIFO or a device does not block
// it.
func readWhole(path string) ([]byte, stamp, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !before.Mode().IsRegular() {
		return nil, stampOf(before), errNotRegular
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, stampOf(before), err
	}
	if len(content) > maxFileBytes {
		return nil, stampOf(before), fmt.Errorf("%w: over %d bytes", errTooLarge, maxFileBytes)
	}
	after, err := file.Stat()
	if err != nil {
		return nil, stampOf(before), err
	}
	if stampOf(before) != stampOf(after) || after.Size() != int64(len(content)) {
		return nil, stampOf(after), errChanging
	}
	return content, stampOf(after), nil
}

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("too large")
	errNotText    = errors.New("not a list of jobs")
)

func fileReason(err error) Reason {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return ReasonForbidden
	case errors.Is(err, errNotRegular):
		return ReasonNotRegular
	case errors.Is(err, errTooLarge):
		return ReasonTooLarge
	case errors.Is(err, errNotText):
		return ReasonNotText
	case errors.Is(err, errChanging):
		return ReasonChanging
	}
	return ReasonUnreadable
}

// parseJobFile gives the jobs in a file: a line each, verbatim but for a
// carriage return at its end, without blank lines and repetitions. A file with
// anything that is no text has none.
func parseJobFile(content []byte) ([]string, error) {
	var ids []string
	seen := make(map[string]bool)
	for line := range bytes.SplitSeq(content, []byte{'\n'}) {
		id := string(bytes.TrimSuffix(line, []byte{'\r'}))
		if strings.TrimSpace(id) == "" && isText(id) {
			continue
		}
		if len(id) > maxLineBytes {
			return nil, fmt.Errorf("%w: a line of %d bytes; a job's ID has %d at most", errTooLarge, len(id), maxLineBytes)
		}
		if !isText(id) {
			return nil, fmt.Errorf("%w: line %q has a character that is not printable, or is not UTF-8", errNotText, id)
		}
		if seen[id] {
			continue
		}
		if len(ids) == maxFileJobs {
			return nil, fmt.Errorf("%w: over %d jobs", errTooLarge, maxFileJobs)
		}
		seen[id] = true
		ids = append(ids, id)
	}
	return ids, nil
}

// isText says whether s can be shown to people: UTF-8 without control
// characters, other than a tab.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) })
}

// isFileName: dcgm-exporter compares names with its labels as texts, so 01 is
// no GPU.
func isFileName(name string) bool {
	gpu, instance, ok := strings.Cut(name, ".")
	return isNumber(gpu) && (!ok || isNumber(instance))
}

func isNumber(s string) bool {
	if s == "" || len(s) > 9 || s[0] == '0' && s != "0" {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// parseFileName takes a name that isFileName accepts.
func parseFileName(name string) DeviceRef {
	gpu, instance, ok := strings.Cut(name, ".")
	d := DeviceRef{Kind: RefDCGM, Instance: NoInstance}
	d.Number, _ = strconv.Atoi(gpu) // it is a number
	if ok {
		d.Instance, _ = strconv.Atoi(instance)
	}
	return d
}
