// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpu_exporter/podmapper/cgroup"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines gives the lines with all of the words in them.
func (l *logged) lines(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			n++
		}
	}
	return n
}

func newFinder(t *testing.T, c Config) (*Finder, *logged) {
	t.Helper()
	log := &logged{}
	c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f, log
}

// start runs a Finder that looks by itself only when it notices something.
func start(t *testing.T, f *Finder) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// await waits until the table has these holds, for as long as the test may run.
func await(t *testing.T, f *Finder, want ...string) {
	t.Helper()
	for {
		if slices.Equal(texts(f.Table().Holds), want) {
			return
		}
		select {
		case <-f.Changed():
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func refresh(t *testing.T, f *Finder) {
	t.Helper()
	if err := f.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

const hour = time.Hour // an interval that no test lives to see

// TestRunNoticesFiles: real files, noticed by the kernel's events.
func TestRunNoticesFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "0"), "41\n")
	f, _ := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	start(t, f)
	await(t, f, "GPU 0: 41")
	if s := f.Status().Files; !s.Watching || !s.Up || !s.Found || s.Holds != 1 {
		t.Errorf("status %+v", s)
	}

	write(t, filepath.Join(dir, "1.3"), "42\n43\n")
	await(t, f, "GPU 0: 41", "GPU 1 instance 3: 42", "GPU 1 instance 3: 43")

	// By rename.
	write(t, filepath.Join(dir, ".new"), "44\n")
	if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "0")); err != nil {
		t.Fatal(err)
	}
	await(t, f, "GPU 0: 44", "GPU 1 instance 3: 42", "GPU 1 instance 3: 43")

	if err := os.Remove(filepath.Join(dir, "1.3")); err != nil {
		t.Fatal(err)
	}
	await(t, f, "GPU 0: 44")
}

// TestRunHalfWritten: a prolog that was interrupted between emptying the file
// and writing all of it.
func TestRunHalfWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0")
	write(t, path, "41\n")
	f, err := New(Config{Dir: dir, Interval: hour, MaxAge: hour})
	if err != nil {
		t.Fatal(err)
	}
	files := newJobFiles(dir)
	files.settle, files.wait = hour, hour // however slow this machine is
	f.sources[0].read = files.read
	start(t, f)
	await(t, f, "GPU 0: 41")

	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	refresh(t, f)
	await(t, f, "GPU 0: 41")
	if _, err := file.WriteString("4"); err != nil {
		t.Fatal(err)
	}
	refresh(t, f)
	await(t, f, "GPU 0: 41")
	if _, err := file.WriteString("2\n"); err != nil {
		t.Fatal(err)
	}
	await(t, f, "GPU 0: 42")
	if v := f.Table().Version; v != 2 {
		t.Errorf("version %d: a half-written file was believed", v)
	}
}

// TestRunWithoutNewline: what a prolog writes with printf is believed once it is
// at rest, without another event.
func TestRunWithoutNewline(t *testing.T) {
	dir := t.TempDir()
	f, _ := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	start(t, f)
	write(t, filepath.Join(dir, "0"), "41")
	await(t, f, "GPU 0: 41")
}

// TestDirectoryAppears, and is replaced, and goes away.
func TestDirectoryAppears(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "map")
	f, log := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	for range 2 {
		if err := f.Refresh(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Refresh: %v", err)
		}
	}
	s := f.Status().Files
	if s.Up || s.Known || s.Found || s.Reason != ReasonNotFound || s.Failures[ReasonNotFound] != 2 || s.Err == nil || !s.LastSuccess.IsZero() {
		t.Errorf("status without a directory %+v", s)
	}
	if n := log.lines("level=INFO", "not_found"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if f.Table().Version != 0 {
		t.Errorf("table %+v", f.Table())
	}

	start(t, f)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "0"), "41\n")
	f.Trigger()
	await(t, f, "GPU 0: 41")
	if n := log.lines("read again"); n != 1 {
		t.Errorf("said %d times that it is read again", n)
	}

	// A directory that is moved away is no longer watched, nor are its jobs there.
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	await(t, f)
	if f.Status().Files.Known {
		t.Error("the jobs of no directory are known")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "0"), "42\n")
	f.Trigger()
	await(t, f, "GPU 0: 42")
	write(t, filepath.Join(dir, "0"), "43\n") // noticed: the new one is watched
	await(t, f, "GPU 0: 43")
}

// TestDirectoryIsALink that is made to mean another directory, which no event
// tells.
func TestDirectoryIsALink(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "map")
	for _, name := range []string{"old", "new"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "old", "0"), "41\n")
	write(t, filepath.Join(root, "new", "0"), "42\n")
	if err := os.Symlink("old", dir); err != nil {
		t.Fatal(err)
	}
	f, _ := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	start(t, f)
	await(t, f, "GPU 0: 41")

	if err := os.Symlink("new", dir+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".tmp", dir); err != nil {
		t.Fatal(err)
	}
	f.Trigger() // or the next reading
	await(t, f, "GPU 0: 42")
	write(t, filepath.Join(root, "new", "0"), "43\n") // noticed: the new one is watched
	await(t, f, "GPU 0: 43")
}

// TestProblemsAreNamed: counted each time, logged once.
func TestProblemsAreNamed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "0"), "41\n")
	write(t, filepath.Join(dir, "1"), "\x00\n")
	f, log := newFinder(t, Config{Dir: dir})
	for range 3 {
		refresh(t, f)
	}
	s := f.Status().Files
	if !s.Up || s.Failures[ReasonNotText] != 3 || len(s.Problems) != 1 || s.Problems[0].Name != "1" || s.Problems[0].Reason != ReasonNotText {
		t.Errorf("status %+v", s)
	}
	if n := log.lines("level=WARN", "name=1", "not_text", "hint="); n != 1 {
		t.Errorf("logged %d times: %s", n, log.b.String())
	}
	write(t, filepath.Join(dir, "1"), "42\n")
	refresh(t, f)
	if s := f.Status().Files; len(s.Problems) != 0 || s.Holds != 2 {
		t.Errorf("status %+v", s)
	}
	write(t, filepath.Join(dir, "1"), "\x00\n")
	refresh(t, f)
	if n := log.lines("level=WARN", "name=1"); n != 2 {
		t.Errorf("new trouble was logged %d times", n)
	}
	for _, r := range Reasons(SourceFile) {
		if _, ok := s.Failures[r]; !ok {
			t.Errorf("no counter for %s", r)
		}
	}
}

// TestTableIsTheSame while nothing changes.
func TestTableIsTheSame(t *testing.T) {
	dir := t.TempDir()
	f, _ := newFinder(t, Config{Dir: dir})
	write(t, filepath.Join(dir, "0"), "41\n")
	refresh(t, f)
	first := f.Table()
	if first.Version != 1 || first.Time.IsZero() {
		t.Errorf("table %+v", first)
	}
	<-f.Changed()
	refresh(t, f)
	select {
	case <-f.Changed():
		t.Error("told of a change that there was not")
	default:
	}
	if f.Table() != first {
		t.Error("another table with the same content")
	}
	write(t, filepath.Join(dir, "0"), "42\n")
	refresh(t, f)
	<-f.Changed()
	if got := texts(first.Holds); !slices.Equal(got, []string{"GPU 0: 41"}) {
		t.Errorf("the first table became %q", got)
	}
	if got := f.Table(); got.Version != 2 || got.Time.Before(first.Time) {
		t.Errorf("table %+v", got)
	}
}

// TestStale: the last good reading is kept while the source fails, but not for
// ever, and also if it does not return at all.
func TestStale(t *testing.T) {
	f, log := newFinder(t, Config{Dir: t.TempDir(), Slurm: SlurmAuto, CgroupRoot: t.TempDir()})
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.now = func() time.Time { return clock }
	files, slurm := f.sources[0], f.sources[1]
	ok := func(h ...Hold) func(context.Context) (reading, time.Duration, error) {
		return func(context.Context) (reading, time.Duration, error) { return reading{holds: h, found: true}, 0, nil }
	}
	failing := errors.New("input/output error")
	files.read = ok(Hold{ref(RefDCGM, 0, NoInstance), Job{ID: "41", Source: SourceFile}})
	slurm.read = ok(Hold{ref(RefSlurm, 1, 0), Job{ID: "42", Source: SourceSlurm}})
	both := []string{"GPU 0: 41", "Slurm's GPU 1: 42"}
	want := func(when string, want ...string) {
		t.Helper()
		if got := texts(f.Table().Holds); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	refresh(t, f)
	want("good", both...)

	files.read = func(context.Context) (reading, time.Duration, error) { return reading{}, 0, failing }
	clock = clock.Add(DefaultMaxAge)
	if err := f.Refresh(t.Context()); !errors.Is(err, failing) {
		t.Errorf("Refresh: %v", err)
	}
	want("failing", both...)
	s := f.Status()
	if s.Files.Up || !s.Files.Known || s.Files.Reason != ReasonUnreadable || !s.Slurm.Up {
		t.Errorf("status %+v", s)
	}
	clock = clock.Add(time.Second)
	if err := f.Refresh(t.Context()); !errors.Is(err, failing) {
		t.Errorf("Refresh: %v", err)
	}
	want("too old", both[1])
	if s := f.Status(); s.Files.Known || !s.Slurm.Known {
		t.Errorf("known: job files %v, Slurm %v", s.Files.Known, s.Slurm.Known)
	}
	if n := log.lines("too old"); n != 1 {
		t.Errorf("logged %d times", n)
	}

	// One that does not return: Refresh and Run do not wait for it.
	stuck := make(chan struct{})
	entered := make(chan struct{})
	slurm.read = func(context.Context) (reading, time.Duration, error) {
		close(entered)
		<-stuck
		return reading{}, 0, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Refresh(ctx) }()
	<-entered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Refresh: %v", err)
	}
	clock = clock.Add(DefaultMaxAge + time.Second)
	f.interval = time.Millisecond // so that Run looks for what is too old
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- f.Run(ctx) }()
	await(t, f)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	close(stuck)
}

// TestFinderSlurm: from cgroups to the table, and from a process's place to what
// the table knows.
func TestFinderSlurm(t *testing.T) {
	n := newNode(t)
	n.cgroup(scope+"/job_42/step_batch/user/task_0", 100)
	n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=1", "SLURM_JOB_USER=ada", "SLURM_JOB_UID=1000")
	n.write(filepath.Join(n.proc, "100", "cgroup"), "0::/"+scope+"/job_42/step_batch/user/task_0\n")
	f, _ := newFinder(t, Config{Slurm: SlurmOn, CgroupRoot: n.cgroups, ProcRoot: n.proc})
	refresh(t, f)
	table := f.Table()
	if got := texts(table.Holds); !slices.Equal(got, []string{"Slurm's GPU 1: 42"}) {
		t.Errorf("holds %q", got)
	}
	s := f.Status()
	if s.Files.Enabled || !s.Slurm.Enabled || !s.Slurm.Up || !s.Slurm.Found || s.Slurm.Holds != 1 || !slices.Equal(s.Slurm.Dirs, []string{filepath.Join(n.cgroups, scope)}) {
		t.Errorf("status %+v", s)
	}

	place, err := cgroup.NewReader(n.proc).Place(100)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := table.Job(place.Job), (Job{ID: "42", UID: "1000", User: "ada", Source: SourceSlurm}); !reflect.DeepEqual(got, want) {
		t.Errorf("job %+v, want %+v", got, want)
	}
	if got, want := table.Job(cgroup.SlurmJob{ID: "43", UID: "7"}), (Job{ID: "43", UID: "7", Source: SourceSlurm}); got != want {
		t.Errorf("job %+v, want %+v", got, want)
	}
}

// TestNoSlurm is a failure only where there must be one.
func TestNoSlurm(t *testing.T) {
	for mode, want := range map[SlurmMode]SourceStatus{
		SlurmOff:  {},
		SlurmAuto: {Enabled: true, Up: true},
		SlurmOn:   {Enabled: true, Reason: ReasonNotFound},
	} {
		f, log := newFinder(t, Config{Slurm: mode, CgroupRoot: t.TempDir()})
		if err := f.Refresh(t.Context()); (err != nil) != (mode == SlurmOn) {
			t.Errorf("%s: %v", mode, err)
		}
		s := f.Status().Slurm
		got := SourceStatus{Enabled: s.Enabled, Up: s.Up, Reason: s.Reason, Found: s.Found}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: status %+v, want %+v", mode, got, want)
		}
		if n := log.lines(""); n > 0 && mode != SlurmOn {
			t.Errorf("%s: %d lines in the log", mode, n)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{Slurm: "maybe"},
		{Interval: time.Minute, MaxAge: time.Second},
		{Interval: -1},
		{Slurm: SlurmOn, SlurmDirs: []string{"[a"}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	if s, err := ParseSlurmMode("auto"); s != SlurmAuto || err != nil {
		t.Errorf("ParseSlurmMode: %v, %v", s, err)
	}
}

func BenchmarkRefresh(b *testing.B) {
	dir := b.TempDir()
	for _, name := range []string{"0", "1", "2", "3", "4", "5", "6", "7"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("4711\n"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	f, err := New(Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Refresh(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
