// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// watch reports changes of the job files in a directory. It misses changes by
// different hosts of a shared file system, and changes of the targets of links, so
// the directory must still be read at an interval.
type watch struct {
	dir    string
	notify func()
	log    *slog.Logger

	mu        sync.Mutex
	enabled   bool              // start may start a watcher
	watcher   *fsnotify.Watcher // nil: not watching
	directory fs.FileInfo       // the watched directory
	logged    bool              // the failure to watch
	receiving sync.WaitGroup
}

func (w *watch) active() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watcher != nil
}

// enable allows or stops watching.
func (w *watch) enable(enabled bool) {
	w.mu.Lock()
	w.enabled = enabled
	if !enabled {
		w.stop()
	}
	w.mu.Unlock()
	if !enabled {
		w.receiving.Wait()
	}
}

// start watches the directory, unless it is already watched. A directory that
// replaced the watched one is different.
func (w *watch) start() {
	info, err := os.Stat(w.dir)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.enabled || w.watcher != nil && err == nil && os.SameFile(info, w.directory) {
		return
	}
	w.stop()
	if err != nil {
		return // the reading reports it
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(w.dir); err == nil {
			w.watcher, w.directory, w.logged = watcher, info, false
			w.receiving.Go(func() { w.receive(watcher) })
			return
		}
		_ = watcher.Close() // it watches nothing
	}
	if !w.logged && !errors.Is(err, fs.ErrNotExist) {
		w.logged = true
		w.log.Warn("Job files cannot be watched; changes are detected at the next reading", "dir", w.dir, "err", err,
			"hint", "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances of the node")
	}
}

// stop closes the watcher. The caller holds w.mu.
func (w *watch) stop() {
	if w.watcher != nil {
		_ = w.watcher.Close()
		w.watcher = nil
	}
}

// receive handles events until the watcher is closed.
func (w *watch) receive(watcher *fsnotify.Watcher) {
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			if w.concerns(event) {
				w.notify()
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			w.log.Debug("Watching job files failed", "dir", w.dir, "err", err)
			w.notify() // events may be lost
		}
	}
}

// concerns reports whether an event is about the directory itself or a job file.
func (w *watch) concerns(event fsnotify.Event) bool {
	if filepath.Clean(event.Name) == filepath.Clean(w.dir) {
		return event.Has(fsnotify.Remove | fsnotify.Rename)
	}
	_, ok := parseFileName(filepath.Base(event.Name))
	return ok && event.Op != fsnotify.Chmod
}
