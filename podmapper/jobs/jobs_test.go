// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
)

func newFinder(t *testing.T, c Config) (*Finder, *sourcetest.Log) {
	t.Helper()
	log := &sourcetest.Log{}
	c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f, log
}

// start runs a Finder until the end of the test.
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

// await waits until the table has these holds. Only the deadline of the test bounds
// the wait.
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

const hour = time.Hour // an interval that exceeds every test

// TestRunDetectsChanges has an interval of an hour, so only inotify causes readings.
func TestRunDetectsChanges(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "0"), "41\n")
	f, _ := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	start(t, f)
	await(t, f, "GPU 0: 41")
	if s := f.Status().Files; !f.watch.Watching() || !s.Up || !s.Found || s.Holds != 1 {
		t.Errorf("status %+v", s)
	}

	write(t, filepath.Join(dir, "1.3"), "42\n43\n")
	await(t, f, "GPU 0: 41", "GPU 1 instance 3: 42", "GPU 1 instance 3: 43")

	// A rename.
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

// TestRunPartialFile imitates a prolog that pauses between the truncation of the file
// and the last write.
func TestRunPartialFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0")
	write(t, path, "41\n")
	f, err := New(Config{Dir: dir, Interval: hour, MaxAge: hour})
	if err != nil {
		t.Fatal(err)
	}
	files := newJobFiles(dir)
	files.settle, files.wait = hour, hour // never, however slow the machine is
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
	if n := f.Status().Files.Refreshes; n < 3 {
		t.Errorf("%d readings", n)
	}
}

// TestRunWithoutNewline: a file without a final newline is accepted once it is
// settled, without a further event.
func TestRunWithoutNewline(t *testing.T) {
	dir := t.TempDir()
	f, _ := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	start(t, f)
	write(t, filepath.Join(dir, "0"), "41")
	await(t, f, "GPU 0: 41")
}

// TestDirectoryIsReplaced creates, moves and recreates the directory.
func TestDirectoryIsReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "map")
	f, log := newFinder(t, Config{Dir: dir, Interval: hour, MaxAge: hour})
	for range 2 {
		if err := f.Refresh(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Refresh: %v", err)
		}
	}
	s := f.Status().Files
	if s.Up || s.Known || s.Found || s.Reason != poll.NotFound || s.Failures[poll.NotFound] != 2 || s.Err == nil || !s.LastSuccess.IsZero() {
		t.Errorf("status without a directory %+v", s)
	}
	if n := log.Lines("level=INFO", "not_found"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if !f.Table().Time.IsZero() {
		t.Errorf("table %+v", f.Table())
	}

	start(t, f)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "0"), "41\n")
	f.sources[0].Trigger()
	await(t, f, "GPU 0: 41")
	// The log follows the table.
	sourcetest.Eventually(t, "one message about the recovery", func() bool { return log.Lines("Owner source is up") == 1 })

	// A moved directory is no longer watched, and its jobs are removed.
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	await(t, f)
	if f.Status().Files.Known {
		t.Error("jobs are known without a directory")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "0"), "42\n")
	f.sources[0].Trigger()
	await(t, f, "GPU 0: 42")
	write(t, filepath.Join(dir, "0"), "43\n") // the new directory is watched
	await(t, f, "GPU 0: 43")
}

// TestDirectoryIsSymlink changes the target of the directory, which causes no event.
func TestDirectoryIsSymlink(t *testing.T) {
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
	f.sources[0].Trigger() // instead of the next regular reading
	await(t, f, "GPU 0: 42")
	write(t, filepath.Join(root, "new", "0"), "43\n") // the new directory is watched
	await(t, f, "GPU 0: 43")
}

// TestProblems checks that a problem is counted each time and logged once.
func TestProblems(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "0"), "41\n")
	write(t, filepath.Join(dir, "1"), "\x00\n")
	f, log := newFinder(t, Config{Dir: dir})
	for range 3 {
		refresh(t, f)
	}
	s := f.Status().Files
	if !s.Up || s.Failures[reasonNotText] != 3 || len(s.Problems) != 1 || s.Problems[0].Name != "1" || s.Problems[0].Reason != reasonNotText {
		t.Errorf("status %+v", s)
	}
	if n := log.Lines("level=WARN", "name=1", "not_text", "hint="); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	write(t, filepath.Join(dir, "1"), "42\n")
	refresh(t, f)
	if s := f.Status().Files; len(s.Problems) != 0 || s.Holds != 2 {
		t.Errorf("status %+v", s)
	}
	write(t, filepath.Join(dir, "1"), "\x00\n")
	refresh(t, f)
	if n := log.Lines("level=WARN", "name=1"); n != 2 {
		t.Errorf("a new problem was logged %d times", n)
	}
	for r, hint := range hints(SourceFile) {
		if _, ok := s.Failures[r]; !ok || hint == "" {
			t.Errorf("no counter or no hint for %s", r)
		}
	}
}

// TestTableIsStable checks that the pointer changes only with the content.
func TestTableIsStable(t *testing.T) {
	dir := t.TempDir()
	f, _ := newFinder(t, Config{Dir: dir})
	write(t, filepath.Join(dir, "0"), "41\n")
	refresh(t, f)
	first := f.Table()
	if first.Time.IsZero() {
		t.Errorf("table %+v", first)
	}
	<-f.Changed()
	refresh(t, f)
	select {
	case <-f.Changed():
		t.Error("Changed without a change")
	default:
	}
	if f.Table() != first {
		t.Error("a new table with the same content")
	}
	write(t, filepath.Join(dir, "0"), "42\n")
	refresh(t, f)
	<-f.Changed()
	if got := texts(first.Holds); !slices.Equal(got, []string{"GPU 0: 41"}) {
		t.Errorf("the first table became %q", got)
	}
	if got := f.Table(); !got.Time.After(first.Time) {
		t.Errorf("table %+v", got)
	}
}

func reads(h ...Hold) func(context.Context) (*reading, time.Duration, error) {
	return func(context.Context) (*reading, time.Duration, error) { return &reading{holds: h, found: true}, 0, nil }
}

// TestFailure checks that the last good reading remains while its source fails.
func TestFailure(t *testing.T) {
	f, _ := newFinder(t, Config{Dir: t.TempDir(), Slurm: SlurmAuto, CgroupRoot: t.TempDir(), MaxAge: hour})
	f.sources[0].read = reads(Hold{Device: dcgm(0), Job: Job{ID: "41", Source: SourceFile}})
	f.sources[1].read = reads(Hold{Device: slurm(1), Job: Job{ID: "42", Source: SourceSlurm}})
	refresh(t, f)
	failure := errors.New("input/output error")
	f.sources[0].read = func(context.Context) (*reading, time.Duration, error) { return nil, 0, failure }
	if err := f.Refresh(t.Context()); !errors.Is(err, failure) {
		t.Errorf("Refresh: %v", err)
	}
	if got := texts(f.Table().Holds); !slices.Equal(got, []string{"GPU 0: 41", "Slurm GPU 1: 42"}) {
		t.Errorf("holds %q", got)
	}
	s := f.Status()
	if s.Files.Up || !s.Files.Known || s.Files.Reason != reasonUnreadable || !s.Slurm.Up {
		t.Errorf("status %+v", s)
	}
}

// TestExpiry checks that a reading expires while its source fails, and that the other
// source remains.
func TestExpiry(t *testing.T) {
	f, log := newFinder(t, Config{Dir: t.TempDir(), Slurm: SlurmAuto, CgroupRoot: t.TempDir(), Interval: time.Millisecond, MaxAge: 200 * time.Millisecond})
	f.sources[0].read = reads(Hold{Device: dcgm(0), Job: Job{ID: "41", Source: SourceFile}})
	f.sources[1].read = reads(Hold{Device: slurm(1), Job: Job{ID: "42", Source: SourceSlurm}})
	refresh(t, f)
	f.sources[0].read = func(context.Context) (*reading, time.Duration, error) {
		return nil, 0, errors.New("input/output error")
	}
	start(t, f)
	await(t, f, "Slurm GPU 1: 42")
	if f.Status().Files.Known {
		t.Error("expired job files are known")
	}
	for log.Lines("has expired", "job_files") == 0 { // the log follows the expiry
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
		time.Sleep(time.Millisecond)
	}
	if n := log.Lines("has expired"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// TestHang checks that Refresh and Run do not wait for a read that never returns, and
// that the last reading expires in the meantime.
func TestHang(t *testing.T) {
	f, _ := newFinder(t, Config{Slurm: SlurmAuto, CgroupRoot: t.TempDir(), Interval: time.Millisecond, MaxAge: 200 * time.Millisecond})
	f.sources[0].read = reads(Hold{Device: slurm(1), Job: Job{ID: "42", Source: SourceSlurm}})
	refresh(t, f)

	release := make(chan struct{})
	defer close(release)
	entered := make(chan struct{})
	f.sources[0].read = func(context.Context) (*reading, time.Duration, error) {
		close(entered)
		<-release
		return &reading{}, 0, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Refresh(ctx) }()
	<-entered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Refresh: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- f.Run(ctx) }()
	await(t, f)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestFinderSlurm reads cgroups, and resolves the job of a process with the table.
func TestFinderSlurm(t *testing.T) {
	n := newNode(t)
	n.cgroup(scope+"/job_42/step_batch/user/task_0", 100)
	n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=1", "SLURM_JOB_USER=ada", "SLURM_JOB_UID=1000")
	n.write(filepath.Join(n.proc, "100", "cgroup"), "0::/"+scope+"/job_42/step_batch/user/task_0\n")
	f, _ := newFinder(t, Config{Slurm: SlurmOn, UserNames: true, CgroupRoot: n.cgroups, ProcRoot: n.proc})
	refresh(t, f)
	table := f.Table()
	if got := texts(table.Holds); !slices.Equal(got, []string{"Slurm GPU 1: 42?"}) {
		t.Errorf("holds %q", got)
	}
	s := f.Status()
	if s.Files.Enabled || !s.Slurm.Enabled || !s.Slurm.Up || !s.Slurm.Found || s.Slurm.Holds != 1 {
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

// TestNoSlurm checks that the absence of Slurm is a failure only with SlurmOn.
func TestNoSlurm(t *testing.T) {
	for mode, want := range map[SlurmMode]SourceStatus{
		SlurmOff:  {},
		SlurmAuto: {Enabled: true, Status: poll.Status{Up: true}},
		SlurmOn:   {Enabled: true, Status: poll.Status{Reason: poll.NotFound}},
	} {
		f, log := newFinder(t, Config{Slurm: mode, CgroupRoot: t.TempDir()})
		if err := f.Refresh(t.Context()); (err != nil) != (mode == SlurmOn) {
			t.Errorf("%s: %v", mode, err)
		}
		s := f.Status().Slurm
		got := SourceStatus{Enabled: s.Enabled, Found: s.Found, Status: poll.Status{Up: s.Up, Reason: s.Reason}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: status %+v, want %+v", mode, got, want)
		}
		if n := log.Lines(""); n > 0 && mode != SlurmOn {
			t.Errorf("%s: %d lines in the log", mode, n)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{Slurm: "maybe"},
		{Interval: time.Minute, MaxAge: time.Second},
		{Interval: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("New(%+v) succeeded", c)
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
