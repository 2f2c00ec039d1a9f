// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dirwatch reports changes of files in directories. It must not read the files.
//
// It misses changes by different hosts of a shared file system and changes of the
// targets of links, so its callers also read at an interval.
package dirwatch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// Watcher watches directories. Its methods may be called from any goroutine.
type Watcher struct {
	files   map[string]func(name string) bool
	notify  func()
	log     *slog.Logger
	running sync.WaitGroup

	mu      sync.Mutex
	enabled bool
	watcher *fsnotify.Watcher // nil before the first watch and after Close
	watched map[string]fs.FileInfo
	logged  map[string]bool // problems with a directory
}

// New makes a Watcher that is not enabled yet. files selects the names of files by
// clean path of their directory. notify, which must not block, is called after a
// change of such a file and after the end of a directory.
func New(files map[string]func(name string) bool, notify func(), log *slog.Logger) *Watcher {
	return &Watcher{files: files, notify: notify, log: log,
		watched: make(map[string]fs.FileInfo), logged: make(map[string]bool)}
}

// Watching reports whether all directories are watched.
func (w *Watcher) Watching() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.watched) == len(w.files)
}

// Enable lets Watch have an effect until Close.
func (w *Watcher) Enable() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enabled = true
}

// Watch begins to watch each directory that exists and is not watched yet, or was
// replaced. It is cheap, so it is called before each reading.
func (w *Watcher) Watch() {
	for dir := range w.files {
		info, err := os.Stat(dir) // without the lock, because a file system can hang
		w.mu.Lock()
		w.update(dir, info, err)
		w.mu.Unlock()
	}
}

func (w *Watcher) update(dir string, info fs.FileInfo, err error) {
	before, watched := w.watched[dir]
	if !w.enabled || watched && err == nil && os.SameFile(before, info) {
		return
	}
	if watched {
		_ = w.watcher.Remove(dir) // inotify removes a deleted directory itself
		delete(w.watched, dir)
	}
	if err == nil {
		err = w.add(dir)
	}
	if err == nil {
		w.watched[dir] = info
		delete(w.logged, dir)
		w.log.Debug("Watching a directory", "dir", dir)
		return
	}
	if w.logged[dir] {
		return
	}
	w.logged[dir] = true
	level, hint := slog.LevelWarn, "run the exporter as a user that can read the directory (root by default)"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		level, hint = slog.LevelDebug, ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		hint = "raise the node's fs.inotify.max_user_watches and fs.inotify.max_user_instances"
	}
	w.log.Log(context.Background(), level, "Directory cannot be watched; changes are detected at the next refresh",
		"dir", dir, "err", err, "hint", hint)
}

func (w *Watcher) add(dir string) error {
	if w.watcher == nil {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return err
		}
		w.watcher = watcher
		w.running.Go(func() { w.receive(watcher) })
	}
	return w.watcher.Add(dir)
}

// receive handles events until the watcher is closed.
func (w *Watcher) receive(watcher *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-watcher.Events:
			if !ok {
				return
			}
			w.received(e)
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			w.log.Debug("Watching a directory failed", "err", err)
			w.notify() // events may be lost
		}
	}
}

func (w *Watcher) received(e fsnotify.Event) {
	name := filepath.Clean(e.Name)
	if _, ok := w.files[name]; ok {
		if e.Has(fsnotify.Remove | fsnotify.Rename) {
			w.mu.Lock()
			delete(w.watched, name)
			w.mu.Unlock()
			w.notify()
		}
		return
	}
	if concerns := w.files[filepath.Dir(name)]; concerns != nil && concerns(filepath.Base(name)) && e.Op != fsnotify.Chmod {
		w.notify()
	}
}

// Close stops watching. After it, notify is not called.
func (w *Watcher) Close() {
	w.mu.Lock()
	watcher := w.watcher
	w.enabled, w.watcher = false, nil
	clear(w.watched)
	w.mu.Unlock()
	if watcher != nil {
		_ = watcher.Close() // it has no unwritten data
	}
	w.running.Wait()
}
