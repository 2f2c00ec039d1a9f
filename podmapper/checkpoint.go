// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

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

// The files that the kubelet writes when it has given devices to a container, below
// its root directory. In kubelet 1.37 (pkg/kubelet/cm/devicemanager/manager.go,
// cm/dra/manager.go, apis/podresources/server_v1.go):
//
//   - A pod is in the kubelet's list before it is admitted, and its devices are in
//     the device manager's memory before the checkpoint is written. A List after the
//     checkpoint therefore contains them. Each container causes one checkpoint.
//   - Claims are prepared after the admission. The claim checkpoint is written twice:
//     before the driver is called, without the devices, and after List contains them.
//   - Each write creates a temporary file and renames it, so the directory has to be
//     watched.
//   - The end of a pod writes no device checkpoint. It writes the claim checkpoint if
//     no other pod uses the claim.
//   - A change of the health of a device also writes the device checkpoint.
const (
	deviceDir        = "device-plugins"
	deviceCheckpoint = "kubelet_internal_checkpoint"
	claimCheckpoint  = "dra_manager_state" // in the root directory
)

// checkpoint watches files that are written by renaming.
type checkpoint struct {
	files   map[string]string // the file's name, by directory
	notify  func()
	log     *slog.Logger
	running sync.WaitGroup

	mu      sync.Mutex
	watcher *fsnotify.Watcher // nil before the first watch and after close
	watched map[string]fs.FileInfo
	logged  map[string]bool // problems with a directory
}

// newCheckpoint makes a checkpoint that watches nothing yet. It calls notify, which
// must not block, after each write.
func newCheckpoint(files map[string]string, notify func(), log *slog.Logger) *checkpoint {
	return &checkpoint{files: files, notify: notify, log: log,
		watched: make(map[string]fs.FileInfo), logged: make(map[string]bool)}
}

// watching reports whether all directories are watched.
func (c *checkpoint) watching() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watched) == len(c.files)
}

// watch begins to watch each directory that exists and is not watched yet, or was
// replaced. It is cheap, so it is called before each refresh.
func (c *checkpoint) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dir := range c.files {
		info, err := os.Stat(dir)
		if before, watched := c.watched[dir]; watched {
			if err == nil && os.SameFile(before, info) {
				continue
			}
			_ = c.watcher.Remove(dir) // inotify removes a deleted directory itself
			delete(c.watched, dir)
		}
		if err == nil {
			err = c.add(dir)
		}
		if err != nil {
			c.failed(dir, err)
			continue
		}
		c.watched[dir] = info
		delete(c.logged, dir)
		c.log.Debug("Watching the kubelet's checkpoint", "dir", dir)
	}
}

func (c *checkpoint) add(dir string) error {
	if c.watcher == nil {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return err
		}
		c.watcher = watcher
		c.running.Go(func() { c.receive(watcher) })
	}
	return c.watcher.Add(dir)
}

func (c *checkpoint) failed(dir string, err error) {
	if c.logged[dir] {
		return
	}
	c.logged[dir] = true
	level, hint := slog.LevelWarn, "run the exporter as a user that can read the directory (root by default)"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		level, hint = slog.LevelDebug, ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		hint = "raise the node's fs.inotify.max_user_watches and fs.inotify.max_user_instances"
	}
	c.log.Log(context.Background(), level, "The kubelet's checkpoint cannot be watched; new pods are noticed at the next refresh",
		"dir", dir, "err", err, "hint", hint)
}

// receive handles events until the watcher is closed.
func (c *checkpoint) receive(w *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			c.received(e)
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				c.notify() // a lost event may be one of the checkpoint
				continue
			}
			c.log.Debug("Watching the kubelet's checkpoint failed", "err", err)
		}
	}
}

func (c *checkpoint) received(e fsnotify.Event) {
	if _, ok := c.files[e.Name]; ok {
		if e.Has(fsnotify.Remove | fsnotify.Rename) {
			c.mu.Lock()
			delete(c.watched, e.Name)
			c.mu.Unlock()
		}
		return
	}
	dir, name := filepath.Split(e.Name)
	if c.files[filepath.Clean(dir)] == name && e.Has(fsnotify.Create|fsnotify.Write) {
		c.notify()
	}
}

// close stops watching. After it, notify is not called.
func (c *checkpoint) close() {
	c.mu.Lock()
	w := c.watcher
	c.watcher = nil
	clear(c.watched)
	c.mu.Unlock()
	if w != nil {
		_ = w.Close()
	}
	c.running.Wait()
}
