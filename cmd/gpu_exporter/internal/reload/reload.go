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
	// minPause is the time between the end of a reload and the begin of the next one.
	minPause = time.Second
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

// Reloader reloads a configuration. It is a handler for /-/reload. [Reloader.Run] does all
// reloads, one at a time and at most one per minPause.
type Reloader struct {
	Config
	successful, succeeded prometheus.Gauge
	requested             chan struct{} // next is set

	mu          sync.Mutex // never held while a file is read
	next        *request   // nil: none
	files       []string   // of the newest configuration, even if it was rejected
	fingerprint [sha256.Size]byte
}

// request is a reload that has not begun. All that request one meanwhile join it.
type request struct {
	trigger string
	done    chan struct{}
	err     error // set before done is closed
}

// New returns a reloader for the configuration that was just loaded.
func New(c Config) *Reloader {
	r := &Reloader{
		Config: c, files: c.Files, fingerprint: fingerprint(c.Files), requested: make(chan struct{}, 1),
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
		content, err := config.ReadFile(path)
		fmt.Fprintf(h, "%s %d %v\n", path, len(content), err)
		h.Write(content)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Reload makes Run read the configuration and apply it, and waits for the result. The
// trigger is for the log.
func (r *Reloader) Reload(ctx context.Context, trigger string) error {
	// A reload in progress may have read the files before the change that the caller wants.
	q := r.request(trigger)
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request returns the next reload.
func (r *Reloader) request(trigger string) *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &request{trigger: trigger, done: make(chan struct{})}
		r.requested <- struct{}{}
	}
	return r.next
}

// Run does the requested reloads, and one when a file changes, until ctx ends. It does not
// wait for a file system that hangs.
func (r *Reloader) Run(ctx context.Context) error {
	go r.watch(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.requested:
		}
		r.mu.Lock()
		q := r.next
		r.next = nil
		r.mu.Unlock()
		go func() {
			q.err = r.reload(q.trigger)
			close(q.done)
		}()
		select {
		case <-ctx.Done():
			return nil
		case <-q.done:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(minPause):
		}
	}
}

// watched returns the files of the newest configuration, and their content when they were
// read.
func (r *Reloader) watched() ([]string, [sha256.Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files, r.fingerprint
}

// reload reads the configuration and applies it. Only one goroutine may call it at a time.
func (r *Reloader) reload(trigger string) error {
	defer r.Done()
	files, _ := r.watched()
	// Taken before the files are read: a change in between must cause another reload.
	before := fingerprint(files)
	c, warnings, err := r.Load()
	if !slices.Equal(c.Files, files) {
		// A rejected configuration may not name all its files: the old ones remain watched.
		named := c.Files
		for _, path := range files {
			if err != nil && !slices.Contains(named, path) {
				named = append(slices.Clone(named), path)
			}
		}
		files, before = named, fingerprint(named)
	}
	changed := false
	if err == nil {
		changed, err = r.Apply(c)
	}
	r.mu.Lock()
	r.files, r.fingerprint = files, before
	r.mu.Unlock()
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

// ServeHTTP answers POST /-/reload. The reasons of a rejection contain paths and content
// of files, so they are in the log only.
func (r *Reloader) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost && req.Method != http.MethodPut {
		w.Header().Set("Allow", "POST, PUT")
		http.Error(w, "Method not allowed: use POST.", http.StatusMethodNotAllowed)
		return
	}
	if err := r.Reload(req.Context(), "HTTP request"); err != nil {
		http.Error(w, "The configuration was rejected, and the running one remains: the log has the reasons.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("The configuration was reloaded.\n")) // an error is the client's, which has gone away
}

// changedOnDisk reports whether the files differ from those that were last read.
func (r *Reloader) changedOnDisk() bool {
	files, before := r.watched()
	return fingerprint(files) != before
}

// directories returns the directories of the files and of the files they link to.
func (r *Reloader) directories() []string {
	files, _ := r.watched()
	var dirs []string
	for _, path := range files {
		dirs = append(dirs, filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// watch requests a reload when a file changes, until ctx ends.
func (r *Reloader) watch(ctx context.Context) {
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
			return
		case <-timer.C:
			since = time.Time{}
			if r.changedOnDisk() {
				_ = r.Reload(ctx, "a file changed") // logged there
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

// OnHangup calls f after each SIGHUP, until stop is called. Signals that arrive while f
// runs cause one further call.
func OnHangup(f func()) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			f()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
	}
}
