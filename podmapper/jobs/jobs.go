// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package jobs knows which batch jobs hold which GPUs of this node, outside of
// Kubernetes: from files that the scheduler's prolog writes, as for
// dcgm-exporter, and from the cgroups of Slurm, for which nothing has to be set
// up.
//
// It reads in the background and publishes what it finds as an immutable table.
// It must never be waited for on the scrape path: Table and Status only read
// what is there. What cannot be known is left out; nothing is guessed.
package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gpu_exporter/podmapper/cgroup"
)

// Defaults of Config.
const (
	DefaultCgroupRoot = "/sys/fs/cgroup"
	DefaultInterval   = 10 * time.Second
	DefaultMaxAge     = 5 * time.Minute
)

// SlurmMode says whether to look for Slurm's cgroups.
type SlurmMode string

// The modes.
const (
	SlurmAuto SlurmMode = "auto" // look, and take it that there is no Slurm where there are none
	SlurmOn   SlurmMode = "on"   // not finding any is a failure
	SlurmOff  SlurmMode = "off"
)

// ParseSlurmMode takes a mode's name.
func ParseSlurmMode(s string) (SlurmMode, error) {
	switch m := SlurmMode(s); m {
	case SlurmAuto, SlurmOn, SlurmOff:
		return m, nil
	}
	return "", fmt.Errorf("jobs of Slurm %q: it must be auto, on or off", s)
}

// Config says where the jobs are known from. The zero value of each field is its
// default.
type Config struct {
	Dir   string    // of job files; empty: there are none
	Slurm SlurmMode // SlurmOff

	CgroupRoot string // DefaultCgroupRoot
	ProcRoot   string // cgroup.DefaultProcRoot; must show the process IDs that the cgroups have
	// SlurmDirs are glob patterns of the directories that have those of jobs
	// (v2) or users (v1), below CgroupRoot unless absolute. Empty: where Slurm
	// makes them by default. Those of a slurmd in a container need a pattern.
	SlurmDirs []string

	Interval time.Duration // between readings; job files are also watched
	MaxAge   time.Duration // how long a reading is good while newer ones fail
	Logger   *slog.Logger  // nil: no log
}

// Reason says in one word what went wrong.
type Reason string

// The reasons.
const (
	ReasonNotFound   Reason = "not_found"    // no such directory; no cgroup of Slurm
	ReasonForbidden  Reason = "forbidden"    // no permission
	ReasonUnreadable Reason = "unreadable"   // any other failure to read
	ReasonTooMany    Reason = "too_many"     // files, jobs or processes; the rest is looked at
	ReasonNotRegular Reason = "not_regular"  // a job file is a directory, a FIFO ...
	ReasonTooLarge   Reason = "too_large"    // a job file, or a line of it
	ReasonNotText    Reason = "not_text"     // a job file is not UTF-8 or has control characters
	ReasonChanging   Reason = "changing"     // a job file is written to all the time
	ReasonBlocked    Reason = "blocked"      // a process's environment cannot be read in time
	ReasonNoHostPIDs Reason = "no_host_pids" // the jobs' processes are in another PID namespace
)

// Reasons lists the reasons that a source can have, for metrics that start at
// zero.
func Reasons(s Source) []Reason {
	if s == SourceFile {
		return []Reason{ReasonNotFound, ReasonForbidden, ReasonUnreadable, ReasonTooMany,
			ReasonNotRegular, ReasonTooLarge, ReasonNotText, ReasonChanging}
	}
	return []Reason{ReasonNotFound, ReasonForbidden, ReasonUnreadable, ReasonTooMany, ReasonBlocked, ReasonNoHostPIDs}
}

// hint is what a user can do about it.
func (r Reason) hint(s Source) string {
	switch r {
	case ReasonNotFound:
		if s == SourceFile {
			return "create the directory in the scheduler's prolog, or mount it into the container"
		}
		return "mount the node's /sys/fs/cgroup into the container, and see whether cgroup.conf has other paths; or turn the search for Slurm's jobs off"
	case ReasonForbidden:
		if s == SourceFile {
			return "run the exporter as a user that may read it (root by default)"
		}
		return "reading environments of other users' processes needs CAP_SYS_PTRACE"
	case ReasonNotRegular, ReasonTooLarge, ReasonNotText:
		return "the file must have the job IDs, one a line"
	case ReasonChanging:
		return "write another file and rename it"
	case ReasonBlocked:
		return "see which processes of jobs hang (state D)"
	case ReasonNoHostPIDs:
		return "run the exporter in the host's PID namespace (hostPID: true)"
	case ReasonTooMany:
		return "see whether the directories are what they should be"
	}
	return "see the file system"
}

// Problem is something that could not be read while the rest could.
type Problem struct {
	Name   string // of a file, a cgroup, or what it is
	Reason Reason
	Err    error
}

// maxProblems bounds the problems that are remembered by name.
const maxProblems = 64

// reading is what one source says at one time.
type reading struct {
	holds    []Hold
	slurm    map[slurmKey]Job
	problems []Problem
	unknown  []DeviceRef // whose jobs are not known
	// incomplete: there may be jobs that hold any device.
	incomplete bool
	found      bool     // there is what it reads
	roots      []string // that were read
	ignored    int      // entries that are no job files
}

func (r *reading) problem(name string, reason Reason, err error) {
	r.problems = append(r.problems, Problem{name, reason, err})
}

// Status says how the readings go. A source that is not asked for is the zero
// value.
type Status struct {
	Files, Slurm SourceStatus
}

// SourceStatus is the state of one source.
type SourceStatus struct {
	Enabled bool
	// Up: the last reading succeeded, except for Problems.
	Up bool
	// Found: there is a directory of job files, or of Slurm. Up without it is a
	// node without Slurm.
	Found bool
	// Known: the table has what the source says. It was read, and that is not too old.
	Known       bool
	LastSuccess time.Time     // start of the last reading that succeeded; zero before it
	Duration    time.Duration // of the last reading
	// Reason and Err are those of the last reading as a whole; empty if Up.
	Reason Reason
	Err    error
	// Problems are those of the last reading; 64 at most.
	Problems []Problem
	// Failures counts by reason what failed in all readings, as a whole or in
	// part. Every reason of the source is there.
	Failures map[Reason]uint64
	// Holds counts what the table has of the source.
	Holds int
	// Watching: changes of job files are noticed at once.
	Watching bool
	// Ignored counts the directory's entries whose names are no GPUs.
	Ignored int
	// Dirs are the directories that were read.
	Dirs []string
}

// Finder keeps a table of jobs fresh. Its methods may be called from any
// goroutine, except where it says otherwise.
type Finder struct {
	interval, maxAge time.Duration
	log              *slog.Logger
	sources          []*source
	watch            *watch // of the job files; nil without them
	changed          chan struct{}
	now              func() time.Time

	mu    sync.Mutex // guards publishing, and the statuses in sources
	table atomic.Pointer[Table]
}

// source is one source of a Finder.
type source struct {
	name    Source
	place   string // for the log
	read    func(context.Context) (found reading, again time.Duration, err error)
	trigger chan struct{}
	turn    chan struct{} // held by the reading under way

	// Guarded by Finder.mu.
	status SourceStatus
	last   reading
	warned map[warning]bool
}

// warning is a trouble that is logged once while it lasts.
type warning struct {
	name   string
	reason Reason
}

// New makes a Finder. It reads nothing yet.
func New(c Config) (*Finder, error) {
	f := &Finder{
		interval: cmp.Or(c.Interval, DefaultInterval),
		maxAge:   cmp.Or(c.MaxAge, DefaultMaxAge),
		log:      c.Logger,
		changed:  make(chan struct{}, 1),
		now:      time.Now,
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.interval < 0 || f.maxAge < f.interval {
		return nil, fmt.Errorf("jobs: interval %s and maximum age %s must be positive, and the age no less than the interval", f.interval, f.maxAge)
	}
	if c.Dir != "" {
		files := newJobFiles(c.Dir)
		s := f.add(SourceFile, c.Dir, files.read)
		f.watch = newWatch(c.Dir, s.wake, f.log)
	}
	mode, err := ParseSlurmMode(string(cmp.Or(c.Slurm, SlurmOff)))
	if err != nil {
		return nil, err
	}
	for _, pattern := range c.SlurmDirs {
		if _, err := filepath.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("directories of Slurm %q: %w", pattern, err)
		}
	}
	if mode != SlurmOff {
		root := cmp.Or(c.CgroupRoot, DefaultCgroupRoot)
		tree := newSlurmTree(root, cmp.Or(c.ProcRoot, cgroup.DefaultProcRoot), c.SlurmDirs, mode == SlurmOn)
		f.add(SourceSlurm, root, func(ctx context.Context) (reading, time.Duration, error) {
			found, err := tree.read(ctx)
			return found, 0, err
		})
	}
	f.table.Store(&Table{})
	return f, nil
}

func (f *Finder) add(name Source, place string, read func(context.Context) (reading, time.Duration, error)) *source {
	s := &source{
		name:    name,
		place:   place,
		read:    read,
		trigger: make(chan struct{}, 1),
		turn:    make(chan struct{}, 1),
		warned:  make(map[warning]bool),
		status:  SourceStatus{Enabled: true, Failures: make(map[Reason]uint64)},
	}
	for _, r := range Reasons(name) {
		s.status.Failures[r] = 0
	}
	f.sources = append(f.sources, s)
	return s
}

// Run reads until ctx ends, and returns nil. It does not wait for a reading that
// a file system does not answer.
func (f *Finder) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, s := range f.sources {
		running.Go(func() { f.keep(ctx, s) })
	}
	if f.watch != nil {
		defer f.watch.close()
	}
	// A source whose reading does not end cannot say that the last one is too
	// old.
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.mu.Lock()
			f.publish(f.now())
			f.mu.Unlock()
		case <-ctx.Done():
			ended := make(chan struct{})
			go func() { running.Wait(); close(ended) }()
			select {
			case <-ended:
			case <-time.After(stopWait):
			}
			return nil
		}
	}
}

const stopWait = time.Second

// keep reads one source again and again.
func (f *Finder) keep(ctx context.Context, s *source) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.trigger:
		}
		if s.name == SourceFile {
			f.watch.start() // before reading, so that nothing is missed
		}
		again, _ := f.refresh(ctx, s) // the error is in the status and in the log
		timer.Reset(cmp.Or(again, f.interval))
	}
}

// wake asks for a reading now. It does not wait.
func (s *source) wake() {
	select {
	case s.trigger <- struct{}{}:
	default: // one is already asked for
	}
}

// Trigger asks Run for a reading of all sources now. It does not wait.
func (f *Finder) Trigger() {
	for _, s := range f.sources {
		s.wake()
	}
}

// Refresh reads all sources once and waits for it, with or without Run. It gives
// up when ctx ends, even if a file system does not answer.
func (f *Finder) Refresh(ctx context.Context) error {
	errs := make(chan error, len(f.sources))
	for _, s := range f.sources {
		go func() {
			_, err := f.refresh(ctx, s)
			errs <- err
		}()
	}
	var all []error
	for range f.sources {
		select {
		case err := <-errs:
			all = append(all, err)
		case <-ctx.Done():
			return errors.Join(append(all, ctx.Err())...)
		}
	}
	return errors.Join(all...)
}

// Table gives the jobs as far as they are known; never nil. Before anything is
// known it has the Version 0.
func (f *Finder) Table() *Table { return f.table.Load() }

// Changed gets a value when a table with another Version is published. It has
// room for one, and is for one receiver.
func (f *Finder) Changed() <-chan struct{} { return f.changed }

// Status gives a copy of the state of the sources.
func (f *Finder) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all Status
	for _, s := range f.sources {
		status := s.status
		status.Failures = maps.Clone(status.Failures)
		for _, h := range f.table.Load().Holds {
			if h.Job.Source == s.name {
				status.Holds++
			}
		}
		if s.name == SourceFile {
			status.Watching = f.watch.watching()
			all.Files = status
		} else {
			all.Slurm = status
		}
	}
	return all
}

// refresh reads a source once. again is when to read it next, if sooner than
// usual.
func (f *Finder) refresh(ctx context.Context, s *source) (again time.Duration, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	start := f.now()
	found, again, err := s.read(ctx)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.status.Duration = f.now().Sub(start)
	if err != nil {
		err = fmt.Errorf("reading jobs from %s: %w", s.place, err)
		f.failed(s, err)
	} else {
		f.succeeded(s, start, found)
	}
	f.publish(start)
	return again, err
}

func (f *Finder) succeeded(s *source, start time.Time, found reading) {
	s.last = found
	st := &s.status
	st.Up, st.Known, st.Found, st.Reason, st.Err = true, true, found.found, "", nil
	st.LastSuccess = start
	st.Ignored, st.Dirs = found.ignored, found.roots
	st.Problems = found.problems[:min(len(found.problems), maxProblems)]
	warned := make(map[warning]bool)
	for _, p := range found.problems {
		st.Failures[p.Reason]++
		w := warning{p.Name, p.Reason}
		warned[w] = true
		if !s.warned[w] {
			f.log.Warn("Jobs cannot be told in part", "source", s.name, "place", s.place, "name", p.Name,
				"reason", p.Reason, "err", p.Err, "hint", p.Reason.hint(s.name))
		}
	}
	if s.warned[warning{}] {
		f.log.Info("Jobs are read again", "source", s.name, "place", s.place)
	}
	s.warned = warned
}

func (f *Finder) failed(s *source, err error) {
	reason := ReasonUnreadable
	level := slog.LevelWarn
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = ReasonNotFound
		if s.name == SourceFile {
			level = slog.LevelInfo // there may be none before the first job
		}
		s.last, s.status.Known = reading{}, false
	case errors.Is(err, fs.ErrPermission):
		reason = ReasonForbidden
	}
	st := &s.status
	st.Up, st.Reason, st.Err, st.Problems = false, reason, err, nil
	st.Found = reason != ReasonNotFound
	st.Failures[reason]++
	if w := (warning{"", reason}); s.warned[w] {
		level = slog.LevelDebug
	} else {
		s.warned[w] = true
	}
	s.warned[warning{}] = true
	f.log.Log(context.Background(), level, "Jobs cannot be read", "source", s.name, "reason", reason, "err", err, "hint", reason.hint(s.name))
}

// publish makes a table of the last good readings. f.mu is held.
func (f *Finder) publish(now time.Time) {
	t := &Table{Version: 1, Time: now, slurm: make(map[slurmKey]Job)}
	for _, s := range f.sources {
		if now.Sub(s.status.LastSuccess) > f.maxAge {
			if len(s.last.holds) > 0 || len(s.last.slurm) > 0 {
				f.log.Warn("Jobs are too old; series go without them until they are read again", "source", s.name,
					"age", now.Sub(s.status.LastSuccess).Round(time.Second), "max_age", f.maxAge)
			}
			s.last, s.status.Known = reading{}, false
		}
		t.Unknown = append(t.Unknown, s.last.unknown...)
		t.Incomplete = t.Incomplete || s.last.incomplete
		t.Holds = append(t.Holds, s.last.holds...)
		maps.Copy(t.slurm, s.last.slurm)
	}
	slices.SortFunc(t.Holds, compareHolds)
	t.Holds = slices.Compact(t.Holds)
	before := f.table.Load()
	if before.Version > 0 && before.same(t) || before.Version == 0 && len(t.Holds)+len(t.slurm)+len(t.Unknown) == 0 && !t.Incomplete {
		return
	}
	t.Version = before.Version + 1
	f.table.Store(t)
	select {
	case f.changed <- struct{}{}:
	default: // one is already there
	}
}
