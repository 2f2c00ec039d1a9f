// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package reload reads the configuration again on SIGHUP, on POST /-/reload and when
// one of its files changes.
//
// It reads the files only to detect changes: package config parses them, and the
// caller applies the result. With any mistake, the running configuration remains.
package reload

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

const (
	// settleTime is how long files must be unchanged before they are read: an editor
	// writes a file in several steps, the kubelet swaps a link.
	settleTime = 300 * time.Millisecond
	// maxSettleTime bounds the wait while other files of the directory keep changing.
	maxSettleTime = 3 * time.Second
	// checkInterval is how often files are compared without an event. A directory may be
	// replaced, and network file systems send no events.
	checkInterval = 30 * time.Second
)

// Config is what a [Reloader] calls.
type Config struct {
	Log *slog.Logger
	// Files are those of the running configuration.
	Files []string
	// Load reads the configuration. With an error, the result still has its Files.
	Load func() (config.Config, []string, error)
	// Apply replaces the running configuration, and reports whether that changed
	// anything. With an error, it must have changed nothing.
	Apply func(config.Config) (changed bool, err error)
	// Done is called after each reload, so that its metrics can be published.
	Done func()
}

// Reloader reloads a configuration. It is a handler for /-/reload.
type Reloader struct {
	Config
	successful, succeeded prometheus.Gauge

	mu          sync.Mutex // held during a reload: there is one at a time
	files       []string   // of the newest configuration, even if it was rejected
	fingerprint [sha256.Size]byte
}

// New returns a reloader for the configuration that was just loaded.
func New(c Config) *Reloader {
	r := &Reloader{
		Config: c, files: c.Files, fingerprint: fingerprint(c.Files),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gpu_exporter_config_last_reload_successful",
			Help: "Whether the last reload of the configuration was successful.",
		}),
		succeeded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gpu_exporter_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in use was loaded.",
		}),
	}
	r.successful.Set(1)
	r.succeeded.SetToCurrentTime()
	return r
}

// Register registers the metrics of reloads.
func (r *Reloader) Register(registry prometheus.Registerer) error {
	for _, gauge := range []prometheus.Gauge{r.successful, r.succeeded} {
		if err := registry.Register(gauge); err != nil {
			return fmt.Errorf("registering the metrics of reloads: %w", err)
		}
	}
	return nil
}

// fingerprint changes with the content of the files.
func fingerprint(files []string) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range files {
		content, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %d %v\n", path, len(content), err != nil)
		h.Write(content)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Reload reads the configuration and applies it. The trigger is for the log.
func (r *Reloader) Reload(trigger string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.Done()
	// Taken before the files are read: a change in between must cause another reload.
	before := fingerprint(r.files)
	c, warnings, err := r.Load()
	if !slices.Equal(c.Files, r.files) {
		// A rejected configuration may not name all its files: the old ones remain watched.
		files := c.Files
		for _, path := range r.files {
			if err != nil && !slices.Contains(files, path) {
				files = append(slices.Clone(files), path)
			}
		}
		r.files = files
		before = fingerprint(files)
	}
	changed := false
	if err == nil {
		changed, err = r.Apply(c)
	}
	r.fingerprint = before
	if err != nil {
		r.successful.Set(0)
		LogError(r.Log, err, "The configuration was rejected, and the running one remains", "trigger", trigger)
		return err
	}
	r.successful.Set(1)
	r.succeeded.SetToCurrentTime()
	for _, w := range warnings {
		r.Log.Warn(w)
	}
	r.Log.Info("Configuration reloaded", "trigger", trigger, "changed", changed)
	return nil
}

// ServeHTTP answers POST /-/reload.
func (r *Reloader) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost && req.Method != http.MethodPut {
		w.Header().Set("Allow", "POST, PUT")
		http.Error(w, "Method not allowed: use POST.", http.StatusMethodNotAllowed)
		return
	}
	if err := r.Reload("HTTP request"); err != nil {
		http.Error(w, "The configuration was rejected, and the running one remains:\n"+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("The configuration was reloaded.\n")) // an error is the client's, which has gone away
}

// changedOnDisk reports whether the files differ from those that were last read.
func (r *Reloader) changedOnDisk() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fingerprint(r.files) != r.fingerprint
}

// directories returns the directories of the files and of the files they link to.
func (r *Reloader) directories() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var dirs []string
	for _, path := range r.files {
		dirs = append(dirs, filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Run reloads when a file changes, until ctx ends.
func (r *Reloader) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.Log.Warn("Changes of files are detected late", "after", checkInterval, "err", err)
		watcher = &fsnotify.Watcher{} // its channels are nil
	} else {
		defer func() { _ = watcher.Close() }()
	}
	watch := func() {
		if watcher.Events == nil {
			return
		}
		for _, dir := range r.directories() {
			if err := watcher.Add(dir); err != nil {
				r.Log.Debug("A directory cannot be watched", "directory", dir, "err", err)
			}
		}
	}
	watch()
	timer := time.NewTimer(settleTime) // a file may have changed before it was watched
	defer timer.Stop()
	var since time.Time // of the first event after the last check
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			since = time.Time{}
			if r.changedOnDisk() {
				_ = r.Reload("a file changed") // logged there
			}
			watch()
			timer.Reset(checkInterval)
			continue
		case <-watcher.Events:
		case err := <-watcher.Errors:
			r.Log.Debug("Watching files failed", "err", err)
		}
		if since.IsZero() {
			since = time.Now()
		}
		timer.Reset(min(settleTime, max(0, time.Until(since.Add(maxSettleTime)))))
	}
}

// LogError logs each line of an error of several lines by itself, because most logs are
// read by line, and then msg.
func LogError(log *slog.Logger, err error, msg string, args ...any) {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' })
	if len(lines) <= 1 {
		log.Error(msg, append(args, "err", strings.Join(lines, ""))...)
		return
	}
	for _, line := range lines {
		log.Error(line)
	}
	log.Error(msg, append(args, "errors", len(lines))...)
}

// OnHangup calls f at each SIGHUP, until stop is called.
func OnHangup(f func()) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			f()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}
