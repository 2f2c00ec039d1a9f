// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// What the kubelet writes when it has given devices to a container, below its
// root directory. In kubelet 1.37 (pkg/kubelet/cm/devicemanager/manager.go,
// cm/dra/manager.go, apis/podresources/server_v1.go):
//
//   - A pod is in the kubelet's list of pods before it is admitted, and its devices
//     are in the device manager's memory before the checkpoint is written: what
//     List answers after the checkpoint has them. The checkpoint is written once
//     for each container.
//   - Claims are prepared when the pod is started, after its admission. The claim
//     checkpoint is written before the driver is called, without the devices, and
//     once more with them, after List can show them.
//   - Every write makes a temporary file and renames it, so that the directory is
//     what has to be watched.
//   - The end of a pod writes no device checkpoint; List just leaves the pod out.
//     It writes the claim checkpoint, if the claim has no other pod.
//   - The device checkpoint is also written whenever a device plugin reports the
//     health of its devices.
const (
	deviceDir        = "device-plugins"
	deviceCheckpoint = "kubelet_internal_checkpoint"
	claimCheckpoint  = "dra_manager_state" // in the root directory itself
)

// looks are when the kubelet is asked after a checkpoint was written. The first
// should do; the others are for kubelets that list what they wrote only later.
var looks = [...]time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, lastLook}

const (
	lastLook = time.Second
	// minPause is the time from one refresh to the next that a checkpoint causes.
	// The kubelet takes 100 calls a second, from all clients together.
	minPause = 100 * time.Millisecond
)

// nextLook says when to ask next because of a checkpoint that was written at
// written, after a call at asked. A burst of writes is looked for like its last
// one.
func nextLook(written, asked time.Time) (at time.Time, ok bool) {
	for _, d := range looks {
		if at = written.Add(d); !at.After(asked) {
			continue
		}
		if earliest := asked.Add(minPause); at.Before(earliest) {
			at = earliest
		}
		return at, true
	}
	return time.Time{}, false
}

// checkpoint watches files that are written by renaming.
type checkpoint struct {
	files   map[string]string // the file to watch for, by its directory
	notice  func()
	log     *slog.Logger
	running sync.WaitGroup

	mu      sync.Mutex
	watcher *fsnotify.Watcher // nil before the first watch and after close
	watched map[string]fs.FileInfo
	logged  map[string]bool // trouble with a directory
}

// newCheckpoint makes a checkpoint that watches nothing yet. It calls notice,
// which must not block, for every write.
func newCheckpoint(files map[string]string, notice func(), log *slog.Logger) *checkpoint {
	return &checkpoint{files: files, notice: notice, log: log,
		watched: make(map[string]fs.FileInfo), logged: make(map[string]bool)}
}

// watching says whether all directories are watched.
func (c *checkpoint) watching() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watched) == len(c.files)
}

// watch begins to watch each directory that is there and is not watched yet, or
// that was replaced. To do so again and again costs next to nothing. What was
// written before is for a refresh right after it.
func (c *checkpoint) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dir := range c.files {
		c.watchDir(dir)
	}
}

func (c *checkpoint) watchDir(dir string) {
	info, err := os.Stat(dir)
	before, watched := c.watched[dir]
	if watched {
		if err == nil && os.SameFile(before, info) {
			return
		}
		_ = c.watcher.Remove(dir) // inotify may have done that already
		delete(c.watched, dir)
	}
	if err == nil {
		err = c.add(dir)
	}
	if err != nil {
		c.failed(dir, err)
		return
	}
	c.watched[dir] = info
	delete(c.logged, dir)
	c.log.Debug("Kubelet's checkpoint is watched", "dir", dir)
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
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.log.Debug("Kubelet's checkpoint cannot be watched; new pods are noticed at the next refresh", "dir", dir, "err", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		c.log.Warn("Kubelet's checkpoint cannot be watched; new pods are noticed at the next refresh", "dir", dir, "err", err,
			"hint", "raise the node's fs.inotify.max_user_watches and fs.inotify.max_user_instances")
	default:
		c.log.Warn("Kubelet's checkpoint cannot be watched; new pods are noticed at the next refresh", "dir", dir, "err", err,
			"hint", "run the exporter as a user that may read the directory (root by default)")
	}
}

// receive passes events on until the watcher is closed.
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
				c.notice() // one of those lost may have been ours
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
		c.notice()
	}
}

// close stops watching and waits until nothing is passed on any more.
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
