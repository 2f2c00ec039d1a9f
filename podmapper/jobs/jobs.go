// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package jobs finds the batch jobs outside of Kubernetes that hold GPUs of this
// node. Its sources are files that the scheduler's prolog writes, as for
// dcgm-exporter, and the cgroups of Slurm, which need no set-up.
//
// It reads both in the background and publishes one immutable table. It must not be
// read by a scrape, and it must not guess: unknown devices are omitted.
package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/dirwatch"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/proc"
)

// Defaults of Config.
const (
	DefaultCgroupRoot = "/sys/fs/cgroup"
	DefaultInterval   = 10 * time.Second
	DefaultMaxAge     = 5 * time.Minute
)

// SlurmMode decides whether to read Slurm's cgroups.
type SlurmMode string

// The modes.
const (
	SlurmAuto SlurmMode = "auto" // a node without them is a node without Slurm
	SlurmOn   SlurmMode = "on"   // their absence is a failure
	SlurmOff  SlurmMode = "off"
)

// ParseSlurmMode parses the name of a mode.
func ParseSlurmMode(s string) (SlurmMode, error) {
	switch m := SlurmMode(s); m {
	case SlurmAuto, SlurmOn, SlurmOff:
		return m, nil
	}
	return "", fmt.Errorf("mode of Slurm jobs %q: use auto, on or off", s)
}

// Config configures a Finder. Zero fields have defaults.
type Config struct {
	Dir   string    // of job files; empty: none
	Slurm SlurmMode // SlurmOff

	UserNames  bool   // keep the names of users and of Slurm jobs
	CgroupRoot string // DefaultCgroupRoot
	ProcRoot   string // /proc; must show the PIDs that the cgroups have

	Interval time.Duration // between readings; job files are also watched
	MaxAge   time.Duration // how long a reading is valid while newer ones fail
	Logger   *slog.Logger  // nil: no log
}

// The reasons of this package only.
const (
	reasonUnreadable poll.Reason = "unreadable"   // any other failure to read
	reasonTooMany    poll.Reason = "too_many"     // files, jobs or processes; the rest is read
	reasonNotRegular poll.Reason = "not_regular"  // a job file is a directory, a FIFO, …
	reasonNotText    poll.Reason = "not_text"     // a job file has control characters or is not UTF-8
	reasonChanging   poll.Reason = "changing"     // a job file is written all the time
	reasonBlocked    poll.Reason = "blocked"      // reading a process's environment timed out
	reasonNoHostPIDs poll.Reason = "no_host_pids" // the jobs' processes are in a different PID namespace
)

// hints returns what a user can do about each failure of a source.
func hints(s Source) map[poll.Reason]string {
	const (
		unreadable = "check the file system"
		tooMany    = "check whether the directories are the right ones"
		format     = "write one job ID per line"
	)
	if s == SourceFile {
		return map[poll.Reason]string{
			poll.NotFound:    "create the directory in the scheduler's prolog, or mount it into the container",
			poll.Forbidden:   "run the exporter as a user that may read the files (default: root)",
			poll.TooLarge:    format,
			reasonNotRegular: format,
			reasonNotText:    format,
			reasonChanging:   "write a new file and rename it",
			reasonTooMany:    tooMany,
			reasonUnreadable: unreadable,
		}
	}
	return map[poll.Reason]string{
		poll.NotFound:    "mount the node's /sys/fs/cgroup into the container, check whether cgroup.conf has different paths, or disable Slurm jobs",
		poll.Forbidden:   "grant CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, which environments of processes of different users need",
		reasonBlocked:    "check which processes of jobs hang (state D)",
		reasonNoHostPIDs: "run the exporter in the host's PID namespace (hostPID: true)",
		reasonTooMany:    tooMany,
		reasonUnreadable: unreadable,
	}
}

// reasonOf classifies an error of a source. Any further reason is unreadable.
func reasonOf(s Source, err error) poll.Reason {
	r := poll.ReasonOf(err)
	if _, known := hints(s)[r]; !known {
		return reasonUnreadable
	}
	return r
}

// Problem is a failure that affects only a part of a reading.
type Problem struct {
	Name   string // of the file or cgroup, or "environ"
	Reason poll.Reason
	Err    error
}

// maxProblems bounds the problems in a status.
const maxProblems = 64

// reading is the content of one source at one time.
type reading struct {
	source     Source
	start      time.Time
	holds      []Hold
	slurm      map[slurmKey]Job
	problems   []Problem
	unknown    []device.ID // whose jobs are unknown
	incomplete bool        // any device may have further jobs
	found      bool        // the source exists on this node
}

func (r *reading) addProblem(name string, err error) {
	r.problems = append(r.problems, Problem{name, reasonOf(r.source, err), err})
}

// Status is the state of both sources. A disabled source is zero.
type Status struct {
	Files, Slurm SourceStatus
}

// SourceStatus is the state of one source.
type SourceStatus struct {
	// Status has the state of the last reading as a whole. Its Failures also count
	// problems.
	poll.Status
	Enabled bool
	// Found: the directory of job files, or Slurm's cgroups, exist. Up without it is
	// a node without Slurm.
	Found    bool
	Known    bool      // the table contains this source: a reading is valid
	Problems []Problem // of the last reading; at most 64
	Holds    int       // of this source in the table
}

// Finder keeps a table of jobs fresh. Its methods may be called from any goroutine.
type Finder struct {
	sources []*source
	watch   *dirwatch.Watcher // of job files; nil without them
	changed chan struct{}

	mu       sync.Mutex
	table    *Table
	readings []*reading // in table, by source
}

// source reads one source.
type source struct {
	*poll.Poller[reading]
	name  Source
	place string
	// read returns when to read again, if that is before the next regular reading.
	read func(context.Context) (r *reading, again time.Duration, err error)

	turn   chan struct{} // held by the running read
	absent atomic.Bool   // the last reading found no directory or cgroups
	warned map[warning]bool
}

// warning is a problem that is logged once while it persists.
type warning struct {
	name   string
	reason poll.Reason
}

// New makes a Finder. It reads nothing yet.
func New(c Config) (*Finder, error) {
	c.Interval, c.MaxAge = cmp.Or(c.Interval, DefaultInterval), cmp.Or(c.MaxAge, DefaultMaxAge)
	if c.Interval < 0 || c.MaxAge < c.Interval {
		return nil, fmt.Errorf("jobs: the interval %s must be positive, and the maximum age %s at least the interval", c.Interval, c.MaxAge)
	}
	mode, err := ParseSlurmMode(string(cmp.Or(c.Slurm, SlurmOff)))
	if err != nil {
		return nil, err
	}
	f := &Finder{changed: make(chan struct{}, 1), table: &Table{}}
	if c.Dir != "" {
		files := newJobFiles(c.Dir)
		s := f.add(c, SourceFile, c.Dir, files.read)
		f.watch = dirwatch.New(map[string]func(string) bool{filepath.Clean(c.Dir): isJobFile}, s.Trigger, s.Log())
	}
	if mode != SlurmOff {
		root := cmp.Or(c.CgroupRoot, DefaultCgroupRoot)
		tree := newSlurmTree(root, cmp.Or(c.ProcRoot, proc.DefaultRoot), mode == SlurmOn)
		tree.names = c.UserNames
		f.add(c, SourceSlurm, root, func(ctx context.Context) (*reading, time.Duration, error) {
			r, err := tree.read(ctx)
			return r, 0, err
		})
	}
	f.readings = make([]*reading, len(f.sources))
	return f, nil
}

func (f *Finder) add(c Config, name Source, place string, read func(context.Context) (*reading, time.Duration, error)) *source {
	s := &source{name: name, place: place, read: read, turn: make(chan struct{}, 1), warned: make(map[warning]bool)}
	s.Poller = poll.New(poll.Config[reading]{
		Options: poll.Options{
			Name:  map[Source]string{SourceFile: "job_files", SourceSlurm: "slurm"}[name],
			Hints: hints(name),
			Level: func(r poll.Reason) slog.Level {
				if name == SourceFile && r == poll.NotFound {
					return slog.LevelInfo // the directory may not exist before the first job
				}
				return slog.LevelWarn
			},
			Quiet:  s.absent.Load,
			MaxAge: c.MaxAge,
			Log:    c.Logger,
		},
		Refresh:  func(ctx context.Context, _ *reading) (*reading, error) { return f.refresh(ctx, s) },
		Interval: c.Interval,
	})
	f.sources = append(f.sources, s)
	return s
}

// Run reads until ctx ends, and returns nil. It does not wait for a file system that
// does not respond.
func (f *Finder) Run(ctx context.Context) error {
	if f.watch != nil {
		f.watch.Enable()
		defer f.watch.Close()
	}
	var running sync.WaitGroup
	for _, s := range f.sources {
		running.Go(func() { _ = s.Run(ctx) })
		running.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-s.Changed():
					f.Table()
				}
			}
		})
	}
	running.Wait()
	return nil
}

// Refresh reads all sources once, with or without Run. It returns when ctx ends, even
// if a file system does not respond.
func (f *Finder) Refresh(ctx context.Context) error {
	errs := make([]error, len(f.sources))
	var running sync.WaitGroup
	for i, s := range f.sources {
		running.Go(func() { errs[i] = s.Refresh(ctx) })
	}
	running.Wait()
	f.Table()
	return errors.Join(errs...)
}

// refresh reads a source. It leaves a read behind if ctx ends first, and the next
// refresh waits for that.
func (f *Finder) refresh(ctx context.Context, s *source) (*reading, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type result struct {
		r   *reading
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-s.turn }()
		if s.name == SourceFile {
			f.watch.Watch() // before the reading, so that it misses no change
		}
		start := time.Now()
		r, again, err := s.read(ctx)
		if ctx.Err() == nil {
			r, err = s.finish(r, err, start)
		}
		if again > 0 {
			s.TriggerAfter(again)
		}
		done <- result{r, err}
	}()
	select {
	case got := <-done:
		return got.r, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// finish counts and logs the problems of a reading, and classifies its error.
func (s *source) finish(r *reading, err error, start time.Time) (*reading, error) {
	if err != nil {
		reason := reasonOf(s.name, err)
		if reason == poll.NotFound {
			s.Forget()
		}
		return nil, poll.WithReason(reason, fmt.Errorf("reading jobs from %s: %w", s.place, err))
	}
	r.start = start
	s.absent.Store(!r.found)
	warned := make(map[warning]bool)
	for _, p := range r.problems {
		s.Count(p.Reason)
		w := warning{p.Name, p.Reason}
		if !s.warned[w] {
			s.Log().Warn("Some jobs cannot be read", "place", s.place, "name", p.Name,
				"reason", p.Reason, "err", p.Err, "hint", s.Hint(p.Reason))
		}
		warned[w] = true
	}
	s.warned = warned
	return r, nil
}

// Table returns the known jobs. It is never nil; before the first reading it has no
// Time.
func (f *Finder) Table() *Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	readings := make([]*reading, len(f.sources))
	var since time.Time
	for i, s := range f.sources {
		readings[i] = s.Table()
		switch r := readings[i]; {
		case r == f.readings[i]:
		case r == nil: // expired or removed
			since = time.Now()
		case r.start.After(since):
			since = r.start
		}
	}
	if slices.Equal(readings, f.readings) {
		return f.table
	}
	f.readings = readings
	if t := newTable(readings); !t.equal(f.table) {
		t.Time = since
		f.table = t
		select {
		case f.changed <- struct{}{}:
		default: // the receiver has not read the last one
		}
	}
	return f.table
}

// Changed returns a channel that receives when Table has new content. It is for one
// receiver.
func (f *Finder) Changed() <-chan struct{} { return f.changed }

// Status returns a copy of the status.
func (f *Finder) Status() Status {
	table := f.Table()
	var all Status
	for _, s := range f.sources {
		status := SourceStatus{Status: s.Status(), Enabled: true, Known: s.Table() != nil}
		status.Found = status.Err != nil && status.Reason != poll.NotFound
		if r, _ := s.Last(); r != nil && status.Up {
			status.Found = r.found
			status.Problems = r.problems[:min(len(r.problems), maxProblems)]
		}
		for _, h := range table.Holds {
			if h.Job.Source == s.name {
				status.Holds++
			}
		}
		if s.name == SourceFile {
			all.Files = status
		} else {
			all.Slurm = status
		}
	}
	return all
}
