// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// bufferSize is more than any record: the kernel makes none longer than 8 KiB
	// (CONSOLE_EXT_LOG_MAX), and refuses a read that is too short for one.
	bufferSize = 16 << 10
	// pollInterval is how often a plain file is looked at. The device needs none:
	// a read waits there.
	pollInterval = 200 * time.Millisecond
	// maxRefused bounds how many records in a row may be refused: more, and what
	// is read is no kernel log.
	maxRefused = 100
)

// Log is an open kernel log. It is used by one goroutine, but for Lost.
type Log struct {
	path   string
	file   *os.File
	device bool
	read   func([]byte) (int, error) // from file
	poll   time.Duration

	lost     atomic.Uint64
	sequence uint64 // of the newest record; 0 before the first
	gap      bool   // records were overwritten before the next
	partial  []byte // of a plain file: the start of a line that is still being written
	skip     bool   // of a plain file: up to the end of the line
	offset   int64
}

// Open opens the kernel log at its end: the device, /dev/kmsg, or a plain file
// with records of the same form, one a line. What is written from now on will be
// told by Follow, however late that is called, unless the kernel overwrites it.
// The caller closes the log.
//
// Reading the device needs CAP_SYSLOG where the sysctl kernel.dmesg_restrict is
// set, and root elsewhere if the device's mode says so; the error is then
// [os.ErrPermission].
func Open(path string) (*Log, error) {
	// Without O_NONBLOCK a read could not be interrupted.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the kernel log: %w", err)
	}
	l, err := newLog(path, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

func newLog(path string, f *os.File) (*Log, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the kernel log: %w", err)
	}
	l := &Log{path: path, file: f, read: f.Read, poll: pollInterval}
	switch mode := info.Mode(); {
	case mode&os.ModeCharDevice != 0:
		l.device = true
	case !mode.IsRegular():
		return nil, fmt.Errorf("opening the kernel log: %s is neither a device nor a file: give /dev/kmsg, or where it is mounted", path)
	}
	if l.offset, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("opening the kernel log: going to its end: %w", err)
	}
	if !l.device && l.offset > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], l.offset-1); err != nil {
			return nil, fmt.Errorf("opening the kernel log: reading its end: %w", err)
		}
		l.skip = last[0] != '\n'
	}
	return l, nil
}

// Close closes the log.
func (l *Log) Close() error { return l.file.Close() }

// Lost returns how many records the kernel overwrote before they were read. It
// may be called at any time.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Follow calls tell for each XID that is logged, in order, until ctx ends, which
// is no error, or the log cannot be read any more.
func (l *Log) Follow(ctx context.Context, tell func(XID)) error {
	if l.device {
		// The device may not be pollable; then wait polls instead.
		defer context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) })()
	}
	buf := make([]byte, bufferSize)
	refused := 0
	for ctx.Err() == nil {
		n, err := l.read(buf)
		if n > 0 {
			refused = 0
			l.take(buf[:n], tell)
			continue
		}
		switch {
		case err == nil || errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EPIPE):
			l.gap = true // the next read goes on with the oldest record there is
		case errors.Is(err, syscall.EINVAL) && l.device && refused < maxRefused:
			// A record longer than the buffer, which the kernel skips.
			refused++
			l.lost.Add(1)
			l.sequence = 0 // this one is not to be counted again as a gap
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EAGAIN):
			wait(ctx, l.poll)
		case errors.Is(err, io.EOF) && !l.device:
			if err := l.reopen(tell); err != nil {
				return err
			}
			wait(ctx, l.poll)
		default:
			return fmt.Errorf("reading the kernel log %s: %w", l.path, err)
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// take reads what one read gave: one record of the device, any piece of a file.
func (l *Log) take(b []byte, tell func(XID)) {
	if l.device {
		l.record(string(b), tell)
		return
	}
	l.offset += int64(len(b))
	for {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		if !ended {
			break
		}
		if !l.skip {
			l.record(string(append(l.partial, line...)), tell)
		}
		l.partial, l.skip, b = l.partial[:0], false, rest
	}
	if l.partial = append(l.partial, b...); len(l.partial) > bufferSize {
		l.partial, l.skip = l.partial[:0], true // no record is as long
	}
}

func (l *Log) record(line string, tell func(XID)) {
	r, ok := parseRecord(line)
	if !ok {
		return
	}
	if l.gap {
		missing := uint64(1) // at least, where the last one is not known
		if l.sequence != 0 && r.sequence > l.sequence+1 {
			missing = r.sequence - l.sequence - 1
		}
		l.lost.Add(missing)
		l.gap = false
	}
	l.sequence = r.sequence
	if r.facility != 0 {
		return // a program wrote it
	}
	if x, ok := parseXID(r.text); ok {
		tell(x)
	}
}

// reopen follows a plain file that was truncated, or replaced by another one of
// the same name; all of the new one is new.
func (l *Log) reopen(tell func(XID)) error {
	info, err := os.Stat(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the new one is not there yet
	}
	if err != nil {
		return fmt.Errorf("looking at the kernel log: %w", err)
	}
	now, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at the kernel log: %w", err)
	}
	switch {
	case !os.SameFile(info, now):
		f, err := os.OpenFile(l.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("opening the new kernel log: %w", err)
		}
		// The old one may have been written to since its end was seen.
		rest, err := io.ReadAll(l.file)
		l.take(rest, tell)
		if err != nil {
			f.Close()
			return fmt.Errorf("reading the end of the old kernel log: %w", err)
		}
		l.file.Close()
		l.file, l.read = f, f.Read
	case now.Size() < l.offset:
		if _, err := l.file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("going to the start of the kernel log: %w", err)
		}
	default:
		return nil
	}
	l.offset, l.partial, l.skip = 0, l.partial[:0], false
	return nil
}
