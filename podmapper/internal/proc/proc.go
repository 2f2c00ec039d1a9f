// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package proc opens and reads files of procfs and of cgroup file systems. Every
// read is bounded, no open blocks on a FIFO or device, and everything read
// through a Process belongs to one process, even if its PID is reused.
//
// It must not interpret files except /proc/<pid>/stat, and must not cache.
package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// DefaultRoot is the usual mount point of procfs.
const DefaultRoot = "/proc"

// Errors of Open and Read, for errors.Is.
var (
	// ErrGone: the process does not exist or has exited. procfs with hidepid=2
	// reports the same for other users' processes.
	ErrGone = errors.New("process has exited")
	// ErrForbidden: the exporter has no permission to read the process.
	ErrForbidden = errors.New("no permission to read the process")
)

// openFlags keep an open from waiting for the writer of a FIFO.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

// ID identifies a process. Unlike a PID it is never reused.
type ID struct {
	PID   int
	Start uint64 // clock ticks from boot to the start of the process
}

// Process is an open directory /proc/<pid>. Reads fail with ErrGone after the
// process has exited, even if another process has its PID by then.
type Process struct {
	ID
	dir   *os.Root
	flags uint64 // PF_* of linux/sched.h
}

// Open opens a process of the procfs mounted at root. The caller closes it.
func Open(root string, pid int) (*Process, error) {
	dir, err := os.OpenRoot(filepath.Join(root, strconv.Itoa(pid)))
	if err != nil {
		return nil, classify(err)
	}
	p := &Process{ID: ID{PID: pid}, dir: dir}
	content, err := p.Read("stat", 4<<10)
	if err == nil {
		p.Start, p.flags, err = parseStat(string(content))
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close releases the directory.
func (p *Process) Close() { _ = p.dir.Close() } // read-only: nothing can be lost

// Read returns up to limit bytes of a file of the process.
func (p *Process) Read(name string, limit int64) ([]byte, error) {
	file, err := p.dir.OpenFile(name, openFlags, 0)
	if err != nil {
		return nil, classify(err)
	}
	content, err := readAll(file, limit)
	return content, classify(err)
}

// ReadFile returns up to limit bytes of the file at path.
func ReadFile(path string, limit int64) ([]byte, error) {
	file, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, err
	}
	return readAll(file, limit)
}

func readAll(file *os.File, limit int64) ([]byte, error) {
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// classify adds ErrGone or ErrForbidden to an error of procfs.
func classify(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return err
}

// parseStat parses /proc/<pid>/stat, see proc_pid_stat(5).
func parseStat(content string) (start, flags uint64, err error) {
	// The command is in parentheses and may contain any character.
	i := strings.LastIndexByte(content, ')')
	fields := strings.Fields(content[i+1:]) // field 3 and later
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("stat of a process: %d fields after the command, want at least 20", len(fields))
	}
	if flags, err = strconv.ParseUint(fields[6], 10, 64); err != nil { // field 9
		return 0, 0, fmt.Errorf("stat of a process: flags: %w", err)
	}
	if start, err = strconv.ParseUint(fields[19], 10, 64); err != nil { // field 22
		return 0, 0, fmt.Errorf("stat of a process: start time: %w", err)
	}
	return start, flags, nil
}

const (
	// kernelThread is PF_KTHREAD of linux/sched.h. No user process has it.
	kernelThread = 0x00200000
	// initialNamespace is PROC_PID_INIT_INO of linux/proc_ns.h.
	initialNamespace = "pid:[4026531836]"
)

// HostPIDs reports whether the procfs at root shows the host's PIDs, which NVML
// reports. Otherwise a PID from NVML may belong to an unrelated process here. A
// container needs hostPID, or the host's procfs mounted at root.
//
// Process 2 of the initial PID namespace is always a kernel thread. If procfs
// hides it, the namespace of the exporter itself decides.
func HostPIDs(root string) (bool, error) {
	p, err := Open(root, 2)
	if err == nil {
		defer p.Close()
		return p.flags&kernelThread != 0, nil
	}
	var link string
	if errors.Is(err, ErrGone) || errors.Is(err, ErrForbidden) {
		link, err = os.Readlink(filepath.Join(root, "self", "ns", "pid"))
	}
	if err != nil {
		return false, fmt.Errorf("detecting the PID namespace of %s: %w", root, err)
	}
	return link == initialNamespace, nil
}
