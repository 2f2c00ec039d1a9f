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
	"time"

	"github.com/fsnotify/fsnotify"
)

// watch notices that something is written in a directory. It sees neither what
// another host writes to a shared file system nor a file that an entry links
// to; the directory has to be read now and then all the same.
type watch struct {
	dir     string
	notice  func()
	log     *slog.Logger
	running sync.WaitGroup

	mu      sync.Mutex
	watcher *fsnotify.Watcher // nil: not watching
	of      fs.FileInfo       // the directory that is watched
	logged  bool              // that it cannot be
	closed  bool
}

// gather is how long to wait for the rest of a change.
const gather = 100 * time.Millisecond

func newWatch(dir string, notice func(), log *slog.Logger) *watch {
	return &watch{dir: dir, notice: notice, log: log}
}

func (w *watch) watching() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watcher != nil
}

// start begins to watch the directory if it is there and is not watched, or if
// it is another one by now.
func (w *watch) start() {
	info, err := os.Stat(w.dir)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if w.watcher != nil {
		if err == nil && os.SameFile(info, w.of) {
			return
		}
		w.stop()
	}
	if err != nil {
		return // reading it says so
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(w.dir); err == nil {
			w.watcher, w.of, w.logged = watcher, info, false
			w.running.Go(func() { w.receive(watcher) })
			return
		}
		_ = watcher.Close() // it has nothing
	}
	if !w.logged && !errors.Is(err, fs.ErrNotExist) {
		w.logged = true
		w.log.Warn("Job files cannot be watched; changes are noticed at the next reading", "dir", w.dir, "err", err,
			"hint", "raise the node's fs.inotify.max_user_watches and fs.inotify.max_user_instances")
	}
}

// stop ends the watcher; w.mu is held.
func (w *watch) stop() {
	_ = w.watcher.Close()
	w.watcher = nil
}

// receive passes events on until the watcher is closed, several at once as one.
func (w *watch) receive(watcher *fsnotify.Watcher) {
	timer := time.NewTimer(gather)
	timer.Stop()
	defer timer.Stop()
	waiting := false
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			if w.about(event) && !waiting {
				waiting = true
				timer.Reset(gather)
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			w.log.Debug("Watching job files failed", "dir", w.dir, "err", err)
			if !waiting { // something may have been lost
				waiting = true
				timer.Reset(gather)
			}
		case <-timer.C:
			waiting = false
			w.notice()
		}
	}
}

// about says whether an event is of the directory itself or of a job file.
func (w *watch) about(event fsnotify.Event) bool {
	if filepath.Clean(event.Name) == filepath.Clean(w.dir) {
		return event.Has(fsnotify.Remove | fsnotify.Rename)
	}
	return isFileName(filepath.Base(event.Name)) && event.Op != fsnotify.Chmod
}

// close stops watching for good.
func (w *watch) close() {
	w.mu.Lock()
	w.closed = true
	if w.watcher != nil {
		w.stop()
	}
	w.mu.Unlock()
	w.running.Wait()
}
