// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Errors of Reader, to be told with errors.Is.
var (
	// ErrGone: there is no such process (any more). A procfs mounted with
	// hidepid=2 says the same of processes of other users.
	ErrGone = errors.New("process is gone")
	// ErrForbidden: no permission to look at the process.
	ErrForbidden = errors.New("no permission")
	// ErrNoContainer: the process is in no container, no pod and no Slurm job.
	ErrNoContainer = errors.New("not in a container")
)

// DefaultProcRoot is where procfs is mounted.
const DefaultProcRoot = "/proc"

const (
	// readAgain is how long a place is believed without a look. A process
	// hardly ever moves to another cgroup once it uses a GPU.
	readAgain = time.Minute
	// maxPlaces bounds each of the two halves of the cache. A node has a few
	// thousand processes on its GPUs at most.
	maxPlaces = 8192
	// maxCgroupFile bounds what is read of a process. Paths have up to 4096
	// bytes, and there are up to 13 hierarchies.
	maxCgroupFile = 64 << 10
	maxStatFile   = 4 << 10
)

// Reader says where processes run. It remembers what it read, by process ID and
// start time, so that an ID that was given to another process is not mistaken
// for the first. What has not been asked for during one to two minutes is
// forgotten. Its methods may be called from any goroutine.
//
// It reads stat and cgroup of a process and nothing else. cmdline, environ,
// maps and exe would tell more, but need the process's mmap_lock: the reader
// hangs with a process that hangs (moby issue 15204, sonar issue 121). cgroup
// takes the kernel's cgroup_mutex before Linux 6.8, which is held shortly but
// by anybody who makes or removes a cgroup, so Reader is not for the path of a
// scrape.
type Reader struct {
	root string
	now  func() time.Time

	mu         sync.Mutex
	young, old map[process]reading
	turned     time.Time // when young became old
}

type process struct {
	pid   int
	start uint64 // clock ticks since boot
}

type reading struct {
	place Place
	at    time.Time
}

// NewReader makes a Reader of the procfs at procRoot; DefaultProcRoot if empty.
// The process IDs are those that this procfs shows.
func NewReader(procRoot string) *Reader {
	return &Reader{
		root:  cmp.Or(procRoot, DefaultProcRoot),
		now:   time.Now,
		young: make(map[process]reading),
	}
}

// Place says where a process runs. The errors are ErrGone, ErrForbidden and
// ErrNoContainer, wrapped, and those of a procfs that is none.
func (r *Reader) Place(pid int) (Place, error) {
	p, err := r.place(pid)
	if err != nil {
		return Place{}, fmt.Errorf("where process %d runs: %w", pid, err)
	}
	return p, nil
}

func (r *Reader) place(pid int) (Place, error) {
	// Everything is read below this directory, which stays that of the same
	// process: once that is gone reading fails, whoever has its ID by then.
	dir, err := os.OpenRoot(filepath.Join(r.root, strconv.Itoa(pid)))
	if err != nil {
		return Place{}, typed(err)
	}
	defer func() { _ = dir.Close() }() // it was only read

	stat, err := readStat(dir)
	if err != nil {
		return Place{}, err
	}
	key := process{pid: pid, start: stat.Start}
	if p, ok := r.remembered(key); ok {
		return p, nil
	}
	text, err := readFile(dir, "cgroup", maxCgroupFile)
	if err != nil {
		return Place{}, err
	}
	p := Parse(text)
	if p.NoContainer() && p.NoJob() {
		// Not remembered: a process of a container begins outside of it.
		return Place{}, ErrNoContainer
	}
	r.remember(key, p)
	return p, nil
}

func (r *Reader) remembered(key process) (Place, bool) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.young[key]
	if !ok {
		if found, ok = r.old[key]; ok {
			r.add(key, found, now)
		}
	}
	return found.place, ok && now.Sub(found.at) < readAgain
}

func (r *Reader) remember(key process, p Place) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(key, reading{place: p, at: now}, now)
}

// add puts a reading among the young ones. What is asked for again moves from
// the old to the young ones; the rest goes when the young become old.
func (r *Reader) add(key process, found reading, now time.Time) {
	if r.turned.IsZero() {
		r.turned = now
	}
	if len(r.young) >= maxPlaces || now.Sub(r.turned) >= readAgain {
		r.old, r.young = r.young, make(map[process]reading)
		r.turned = now
	}
	r.young[key] = found
}

// kernelThread is PF_KTHREAD of linux/sched.h, in the flags of stat.
const kernelThread = 0x00200000

// initialNamespace is the link of the first PID namespace, PROC_PID_INIT_INO of
// linux/proc_ns.h.
const initialNamespace = "pid:[4026531836]"

// HostPIDs says whether the procfs shows the process IDs of the host, which are
// those that NVML gives. It does not in a container without hostPID, unless
// the host's procfs is mounted and its path was given to NewReader. Without
// them no process on a GPU can be told to belong to anybody; worse, its ID may
// be that of another process.
//
// Only the first PID namespace has the kernel's threads, and their parent is
// always process 2. No process of a user has their flag. Where /proc/2 is
// hidden, the namespace of the reader itself decides.
func (r *Reader) HostPIDs() (bool, error) {
	host, err := r.hostPIDs()
	if err != nil {
		return false, fmt.Errorf("telling whether %s has the process IDs of the host: %w", r.root, err)
	}
	return host, nil
}

func (r *Reader) hostPIDs() (bool, error) {
	dir, err := os.OpenRoot(filepath.Join(r.root, "2"))
	if err == nil {
		defer func() { _ = dir.Close() }()
		var stat Stat
		if stat, err = readStat(dir); err == nil {
			return stat.Flags&kernelThread != 0, nil
		}
	}
	if err = typed(err); !errors.Is(err, ErrGone) && !errors.Is(err, ErrForbidden) {
		return false, err
	}
	link, err := os.Readlink(filepath.Join(r.root, "self", "ns", "pid"))
	return link == initialNamespace, err
}

// Stat is what is used of /proc/<pid>/stat.
type Stat struct {
	Start uint64 // clock ticks from boot to the start of the process (field 22)
	Flags uint64 // PF_ of linux/sched.h (field 9)
}

// ParseStat takes the content of a /proc/<pid>/stat apart.
func ParseStat(content string) (Stat, error) {
	// The name of the command is in parentheses and may have any character.
	i := strings.LastIndexByte(content, ')')
	if i < 0 {
		return Stat{}, errors.New("stat of a process: no command in parentheses")
	}
	fields := strings.Fields(content[i+1:]) // from field 3 on
	if len(fields) < 20 {
		return Stat{}, fmt.Errorf("stat of a process: %d fields after the command instead of 20 and more", len(fields))
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("stat of a process: flags: %w", err)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("stat of a process: start time: %w", err)
	}
	return Stat{Start: start, Flags: flags}, nil
}

func readStat(dir *os.Root) (Stat, error) {
	text, err := readFile(dir, "stat", maxStatFile)
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(text)
}

func readFile(dir *os.Root, name string, limit int64) (string, error) {
	f, err := dir.Open(name)
	if err != nil {
		return "", typed(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return "", typed(err)
	}
	return string(b), nil
}

// typed gives an error of procfs its type.
func typed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return err
}
