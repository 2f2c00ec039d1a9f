// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"gpu_exporter/podmapper/internal/proc"
)

// Errors of Reader.Place, for errors.Is.
var (
	// ErrGone: the process does not exist, or procfs hides it (hidepid=2).
	ErrGone = proc.ErrGone
	// ErrForbidden: the exporter has no permission to read the process.
	ErrForbidden = proc.ErrForbidden
	// ErrNoContainer: the process is in no container, pod or Slurm job.
	ErrNoContainer = errors.New("not in a container")
)

// DefaultProcRoot is the usual mount point of procfs.
const DefaultProcRoot = proc.DefaultRoot

const (
	// maxCacheAge bounds the age of a cached place. Processes hardly ever move to
	// another cgroup after they start to use a GPU.
	maxCacheAge = time.Minute
	// maxCached bounds the cache. A node has at most a few thousand GPU processes.
	maxCached = 8192
	// maxCgroupBytes bounds a cgroup file: up to 13 paths of up to 4096 bytes.
	maxCgroupBytes = 64 << 10
)

// Reader finds the places of processes. It caches them by PID and start time, so
// that a reused PID is not mistaken for the former process. Its methods are safe
// for concurrent use.
//
// cmdline, environ, maps and exe contain more, but take the process's mmap_lock:
// a reader hangs with a hung process (moby issue 15204, sonar issue 121). Before
// Linux 6.8, cgroup takes the global cgroup_mutex for a short time.
type Reader struct {
	root string
	now  func() time.Time

	mu     sync.Mutex
	cached map[proc.ID]cachedPlace
	swept  time.Time // last removal of expired entries
}

type cachedPlace struct {
	place Place
	read  time.Time
}

// NewReader returns a Reader of the procfs at procRoot, or of DefaultProcRoot if
// it is empty. PIDs are those of this procfs.
func NewReader(procRoot string) *Reader {
	return &Reader{
		root:   cmp.Or(procRoot, DefaultProcRoot),
		now:    time.Now,
		cached: make(map[proc.ID]cachedPlace),
	}
}

// Place returns the place of a process. It returns ErrGone, ErrForbidden or
// ErrNoContainer, wrapped, or another error if root is not a procfs.
func (r *Reader) Place(pid int) (Place, error) {
	p, err := r.place(pid)
	if err != nil {
		return Place{}, fmt.Errorf("reading the cgroup of process %d: %w", pid, err)
	}
	return p, nil
}

func (r *Reader) place(pid int) (Place, error) {
	process, err := proc.Open(r.root, pid)
	if err != nil {
		return Place{}, err
	}
	defer process.Close()
	if p, ok := r.lookup(process.ID); ok {
		return p, nil
	}
	content, err := process.Read("cgroup", maxCgroupBytes)
	if err != nil {
		return Place{}, err
	}
	p := Parse(string(content))
	if p.NoContainer() && p.NoJob() {
		// Not cached: runtimes move a process into its container after they start it.
		return Place{}, ErrNoContainer
	}
	r.store(process.ID, p)
	return p, nil
}

func (r *Reader) lookup(id proc.ID) (Place, bool) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.cached[id]
	return c.place, ok && now.Sub(c.read) < maxCacheAge
}

func (r *Reader) store(id proc.ID, p Place) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) >= maxCacheAge {
		maps.DeleteFunc(r.cached, func(_ proc.ID, c cachedPlace) bool { return now.Sub(c.read) >= maxCacheAge })
		r.swept = now
	}
	if len(r.cached) >= maxCached {
		clear(r.cached)
	}
	r.cached[id] = cachedPlace{place: p, read: now}
}

// HostPIDs reports whether the procfs shows the host's PIDs, which NVML reports.
// Without them no process on a GPU can be attributed.
func (r *Reader) HostPIDs() (bool, error) { return proc.HostPIDs(r.root) }
