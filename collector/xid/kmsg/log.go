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

	"gpu_exporter/collector/model"
)

const (
	// bufferSize exceeds every record: the kernel's limit is 8 KiB (CONSOLE_EXT_LOG_MAX).
	// The kernel refuses a read into a shorter buffer.
	bufferSize = 16 << 10
	// pollInterval is the time between two reads at the end of a plain file. A read of
	// the device blocks until a record arrives.
	pollInterval = 200 * time.Millisecond
	// maxRefused bounds the refused reads in a row. A device that refuses more is no
	// kernel log.
	maxRefused = 100
)

// Log is an open kernel log. All methods except Lost belong to one goroutine.
type Log struct {
	path   string
	file   *os.File
	device bool
	read   func([]byte) (int, error) // from file
	poll   time.Duration

	lost     atomic.Uint64
	onLoss   func() // called after lost grows; may be nil
	sequence uint64 // of the newest record; 0 before the first
	gap      bool   // the kernel overwrote records before the next one

	// The state of a plain file:
	partial  []byte // the start of an incomplete line
	skip     bool   // ignore everything up to the end of the line
	replaced bool   // the path names another file
	offset   int64
}

// Open opens the kernel log at its end: the device /dev/kmsg, or a plain file with one
// record per line. Follow delivers every later record that the kernel has not overwritten.
// The caller closes the log.
//
// The device needs CAP_SYSLOG if the sysctl kernel.dmesg_restrict is set, and root if its
// file mode requires it. Without them the error is [os.ErrPermission].
func Open(path string) (*Log, error) {
	l := &Log{path: path, poll: pollInterval}
	l.read = func(b []byte) (int, error) { return l.file.Read(b) }
	if err := l.openAtEnd(); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("opening the kernel log: %w", err)
	}
	return l, nil
}

func (l *Log) openAtEnd() (err error) {
	if l.file, err = openNonblocking(l.path); err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.device = info.Mode()&os.ModeCharDevice != 0
	if !l.device && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a device nor a file: set the path of /dev/kmsg or of its mount", l.path)
	}
	back := int64(0)
	if !l.device && info.Size() > 0 {
		// Start at the last byte: it ends a line, or the incomplete line is skipped.
		back, l.skip = -1, true
	}
	if l.offset, err = l.file.Seek(back, io.SeekEnd); err != nil {
		return fmt.Errorf("seeking to the end: %w", err)
	}
	return nil
}

// openNonblocking opens a file so that a deadline can interrupt its reads.
func openNonblocking(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// Close closes the log.
func (l *Log) Close() error { return l.file.Close() }

// Lost returns the number of records that the kernel overwrote before they were read. It
// is safe for concurrent use.
func (l *Log) Lost() uint64 { return l.lost.Load() }

func (l *Log) addLost(records uint64) {
	l.lost.Add(records)
	if l.onLoss != nil {
		l.onLoss()
	}
}

// Follow calls deliver for each XID, in the order of the log. It returns nil when ctx
// ends, and an error when the log becomes unreadable.
func (l *Log) Follow(ctx context.Context, deliver func(model.KernelXID)) error {
	if l.device {
		// A device without support for polling ignores the deadline; wait ends then.
		defer context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) })()
	}
	buf := make([]byte, bufferSize)
	refused := 0
	for ctx.Err() == nil {
		n, err := l.read(buf)
		if n > 0 {
			refused = 0
			l.parse(buf[:n], deliver)
			continue
		}
		switch {
		case err == nil || errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EPIPE):
			l.gap = true // the next read returns the oldest remaining record
		case errors.Is(err, syscall.EINVAL) && l.device && refused < maxRefused:
			// The kernel skips a record that exceeds the buffer.
			refused++
			l.addLost(1)
			l.sequence = 0 // so that a gap does not count it again
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EAGAIN):
			wait(ctx, l.poll)
		case errors.Is(err, io.EOF) && !l.device:
			if err := l.rotate(); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("following the kernel log %s: %w", l.path, err)
			}
			wait(ctx, l.poll)
		default:
			return fmt.Errorf("reading the kernel log %s: %w", l.path, err)
		}
	}
	return nil
}

// wait returns after d, or earlier if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// parse takes the result of one read: one record of the device, or any part of a file.
func (l *Log) parse(b []byte, deliver func(model.KernelXID)) {
	if l.device {
		l.parseLine(string(b), deliver)
		return
	}
	l.offset += int64(len(b))
	for {
		line, rest, complete := bytes.Cut(b, []byte("\n"))
		if !complete {
			break
		}
		if !l.skip {
			l.parseLine(string(append(l.partial, line...)), deliver)
		}
		l.partial, l.skip, b = l.partial[:0], false, rest
	}
	if l.partial = append(l.partial, b...); len(l.partial) > bufferSize {
		l.partial, l.skip = l.partial[:0], true // longer than any record
	}
}

func (l *Log) parseLine(line string, deliver func(model.KernelXID)) {
	r, ok := parseRecord(line)
	if !ok {
		return
	}
	if l.gap {
		missing := uint64(1) // the least, if the last sequence number is unknown
		if l.sequence != 0 && r.sequence > l.sequence+1 {
			missing = r.sequence - l.sequence - 1
		}
		l.addLost(missing)
		l.gap = false
	}
	l.sequence = r.sequence
	if r.facility != 0 {
		return // written by a program
	}
	if x, ok := parseXID(r.text); ok {
		// The kernel's time stamp drifts by minutes a month and stops during suspend.
		x.Time = time.Now()
		deliver(x)
	}
}

// rotate handles the end of a plain file. If the file was truncated or replaced, all of
// the new content is new. A replaced file is first read to its end once more, because it
// may have grown before it was replaced.
func (l *Log) rotate() error {
	named, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	current, err := l.file.Stat()
	if err != nil {
		return err
	}
	switch {
	case !os.SameFile(named, current):
		if !l.replaced {
			l.replaced = true
			return nil
		}
		next, err := openNonblocking(l.path)
		if err != nil {
			return err
		}
		l.file.Close()
		l.file = next
	case current.Size() < l.offset:
		if _, err := l.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	default:
		return nil
	}
	l.offset, l.partial, l.skip, l.replaced = 0, l.partial[:0], false, false
	return nil
}
