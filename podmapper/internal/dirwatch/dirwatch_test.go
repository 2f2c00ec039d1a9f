// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dirwatch

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gpu_exporter/podmapper/internal/sourcetest"
)

const file = "kubelet_internal_checkpoint"

// newWatcher returns an enabled Watcher of one file.
func newWatcher(dir string, notify func(), log *sourcetest.Log) *Watcher {
	w := New(map[string]func(string) bool{dir: func(name string) bool { return name == file }}, notify, log.Logger())
	w.Enable()
	return w
}

// write replaces a file by a rename.
func write(t *testing.T, path string) {
	t.Helper()
	temporary := filepath.Join(filepath.Dir(path), ".temporary")
	if err := os.WriteFile(temporary, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, path); err != nil {
		t.Fatal(err)
	}
}

// A Watcher that is not enabled, or closed, watches nothing.
func TestNotEnabled(t *testing.T) {
	dir := t.TempDir()
	w := newWatcher(dir, func() { t.Error("a notification") }, &sourcetest.Log{})
	w.Close()
	w.Watch()
	if w.Watching() {
		t.Error("a closed Watcher watches")
	}
	write(t, filepath.Join(dir, file))
}

func TestOtherFilesAreIgnored(t *testing.T) {
	dir := t.TempDir()
	noticed := make(chan struct{}, 100)
	c := newWatcher(dir, func() { noticed <- struct{}{} }, &sourcetest.Log{})
	t.Cleanup(c.Close)
	c.Watch()
	for _, name := range []string{"other", "kubelet.sock", file + "~"} {
		write(t, filepath.Join(dir, name))
	}
	write(t, filepath.Join(dir, file))
	<-noticed
	c.Close() // nothing comes after that
	if n := len(noticed); n != 0 {
		t.Errorf("%d notifications too many", n)
	}
}

// TestDirectory checks a directory that is absent, which is logged once at
// debug level, appears, and is replaced.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "device-plugins")
	noticed := make(chan struct{}, 100)
	var log sourcetest.Log
	c := newWatcher(dir, func() { noticed <- struct{}{} }, &log)
	t.Cleanup(c.Close)
	for range 3 {
		c.Watch()
	}
	if c.Watching() || log.Lines("cannot be watched") != 1 || log.Lines("level=DEBUG") != 1 {
		t.Errorf("watching %v; logged:\n%s", c.Watching(), log.String())
	}
	for _, come := range []func() error{
		func() error { return os.Mkdir(dir, 0o750) },
		func() error { return os.RemoveAll(dir) },
		func() error { return os.Mkdir(dir, 0o750) },
		func() error { return os.Rename(dir, dir+".old") },
		func() error { return os.Mkdir(dir, 0o750) },
	} {
		if err := come(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(dir)
		sourcetest.Eventually(t, "the watch follows", func() bool { c.Watch(); return c.Watching() == (err == nil) })
		if err != nil {
			continue
		}
		// The new directory is watched instead of the old one.
		for len(noticed) > 0 {
			<-noticed
		}
		write(t, filepath.Join(dir, file))
		<-noticed
	}
}

// TestNoInotify checks exhausted limits: one line names them, and the watch begins
// when it can.
func TestNoInotify(t *testing.T) {
	dir := t.TempDir()
	var log sourcetest.Log
	noticed := make(chan struct{}, 1)
	c := newWatcher(dir, func() { noticed <- struct{}{} }, &log)
	t.Cleanup(c.Close)

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // nothing more can be opened; what is open stays
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Watch()
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if c.Watching() || log.Lines("level=WARN") != 1 || log.Lines("max_user_instances") != 1 {
		t.Errorf("watching %v; logged:\n%s", c.Watching(), log.String())
	}

	c.Watch()
	write(t, filepath.Join(dir, file))
	<-noticed
}
