// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"gpu_exporter/cmd/gpu_exporter/internal/web"
	"gpu_exporter/collector"
)

const (
	// filesSettle is how long files must be left alone before they are read again:
	// an editor writes one in several steps, the kubelet swaps a link.
	filesSettle = 300 * time.Millisecond
	// filesPatience is how long one waits for that: other files of the directory may
	// be written all the time.
	filesPatience = 3 * time.Second
	// lookAgain is when they are looked at without an event: a directory may have
	// been replaced, and network file systems tell nothing.
	lookAgain = 30 * time.Second
)

// reloader puts a changed configuration to use.
type reloader struct {
	log   *slog.Logger
	parse func() (config, []string, error)
	// use puts a configuration to use, and says what changed.
	use func(config) (changed bool, err error)
	// ended is called at the end of each reload: the metrics say how it went.
	ended func()

	mu          sync.Mutex // one reload at a time
	fingerprint [sha256.Size]byte
	files       []string // to watch
	successful  prometheus.Gauge
	succeeded   prometheus.Gauge
}

func newReloader(log *slog.Logger, parse func() (config, []string, error), use func(config) (bool, error), ended func()) *reloader {
	r := &reloader{
		log: log, parse: parse, use: use, ended: ended,
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

// configFiles are the files that a configuration comes from.
func configFiles(c config) []string {
	files := slices.DeleteFunc(slices.Clone(countersFiles(c)), isBuiltIn)
	for _, path := range []string{c.ConfigFile, c.XIDCatalogue} {
		if path != "" {
			files = append(slices.Clone(files), path)
		}
	}
	return files
}

// union returns a with what else is in b.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, path := range b {
		if !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	return all
}

// watchFiles sets the files to watch, as they are now.
func (r *reloader) watchFiles(c config) {
	r.files = configFiles(c)
	r.fingerprint = fingerprint(r.files)
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

// reload reads the configuration again and puts it to use. When anything is wrong
// with it, all stays as it was, and the error says what.
func (r *reloader) reload(why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.ended()
	// Of what is read below, or is older: a change in between must count as one.
	before := fingerprint(r.files)
	c, warnings, err := r.parse()
	files := configFiles(c)
	if err != nil { // it may not have told all of them
		files = union(r.files, files)
	}
	if !slices.Equal(files, r.files) {
		before = fingerprint(files)
		r.files = files // also if they are wrong: a mended one is to be noticed
	}
	var changed bool
	if err == nil {
		changed, err = r.use(c)
	}
	r.fingerprint = before
	if err != nil {
		r.successful.Set(0)
		logError(r.log, err, "The configuration was not reloaded, and stays as it was", "why", why)
		return err
	}
	r.successful.Set(1)
	r.succeeded.SetToCurrentTime()
	for _, w := range warnings {
		r.log.Warn(w)
	}
	r.log.Info("Configuration reloaded", "why", why, "changed", changed)
	return nil
}

// ServeHTTP is POST /-/reload.
func (r *reloader) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost && req.Method != http.MethodPut {
		w.Header().Set("Allow", "POST, PUT")
		http.Error(w, "Method not allowed: use POST.", http.StatusMethodNotAllowed)
		return
	}
	if err := r.reload("HTTP request"); err != nil {
		http.Error(w, "The configuration was not reloaded, and stays as it was:\n"+err.Error(), http.StatusInternalServerError)
		return
	}
	web.WriteText(w, http.StatusOK, "The configuration was reloaded.\n")
}

// changedOnDisk says whether the files differ from those that were last read.
func (r *reloader) changedOnDisk() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fingerprint(r.files) != r.fingerprint
}

func (r *reloader) directories() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var dirs []string
	add := func(path string) {
		if dir := filepath.Dir(path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, path := range r.files {
		add(path)
		if target, err := filepath.EvalSymlinks(path); err == nil {
			add(target) // where it is changed, if it is a link
		}
	}
	return dirs
}

// watch reloads when a file changes, until ctx ends.
func (r *reloader) watch(ctx context.Context) error {
	events, failures := make(<-chan fsnotify.Event), make(<-chan error)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.log.Warn("Changed files are noticed late only", "after", lookAgain, "err", err)
	} else {
		defer func() { _ = watcher.Close() }()
		events, failures = watcher.Events, watcher.Errors
	}
	add := func() {
		if watcher == nil {
			return
		}
		for _, dir := range r.directories() {
			if err := watcher.Add(dir); err != nil {
				r.log.Debug("A directory cannot be watched", "directory", dir, "err", err)
			}
		}
	}
	add()
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	var since time.Time // of the first event that is waited for; zero: none is
	settle := func() {
		if since.IsZero() {
			since = time.Now()
		}
		timer.Reset(min(filesSettle, max(0, time.Until(since.Add(filesPatience)))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			settle()
			continue
		case err := <-failures:
			r.log.Debug("Watching files failed", "err", err)
			settle()
			continue
		case <-timer.C:
			since = time.Time{}
		}
		if r.changedOnDisk() {
			_ = r.reload("a file changed") // it says so itself
		}
		add()
		timer.Reset(lookAgain)
	}
}

// reload puts a configuration to use: all of it, or, where anything in it is
// wrong, nothing.
func (e *exporter) reload(asked config) (changed bool, err error) {
	e.mu.Lock()
	latest := e.latest
	e.mu.Unlock()
	cfg, others := reloaded(latest.cfg, asked)
	if len(others) > 0 {
		e.log.Warn("Some of what changed needs a new start of the exporter, and stays as it was", "settings", strings.Join(others, ", "))
	}
	next, err := e.newCollection(cfg)
	if err != nil {
		return false, err
	}
	for _, w := range next.warnings {
		e.log.Warn(w)
	}
	next.sampler.Revision = latest.sampler.Revision
	sameSampler := reflect.DeepEqual(inOrder(next.sampler), inOrder(latest.sampler))
	if sameSampler {
		next.sampler = latest.sampler // which runs
	}
	was := latest.cfg
	was.Lines = cfg.Lines // where in the file things stand makes no difference
	if sameSampler && reflect.DeepEqual(next.counters.List, latest.counters.List) && reflect.DeepEqual(cfg, was) {
		return false, nil
	}
	if !sameSampler {
		next.sampler.Revision++
	}
	e.mu.Lock()
	e.latest = next
	e.mu.Unlock()
	if !sameSampler {
		e.supervisor.Reconfigure(next.sampler)
	}
	return true, nil
}

// reloadEnded has the outcome of a reload published.
func (e *exporter) reloadEnded() {
	select {
	case e.reloaded <- struct{}{}:
	default:
	}
}

// inOrder sorts what may stand in any order, which is that of the configuration.
func inOrder(c collector.SamplerConfig) collector.SamplerConfig {
	fields := make(map[collector.EntityKind][]collector.FieldID, len(c.Fields))
	for kind, ids := range c.Fields {
		fields[kind] = slices.Sorted(slices.Values(ids))
	}
	c.Fields = fields
	c.Tracked = slices.SortedFunc(slices.Values(c.Tracked), func(a, b collector.TrackedField) int { return cmp.Compare(a.Field, b.Field) })
	c.Models = slices.SortedFunc(slices.Values(c.Models), func(a, b collector.ModelRule) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Match, b.Match))
	})
	return c
}

// adopt puts the collection to use that the newest sample belongs to, and returns it.
// While the first sample of a new configuration has not come, that is the one before
// it, so that no scrape is empty in between.
func (e *exporter) adopt() *collection {
	inv, _ := e.node.Newest()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.collected == e.latest {
		return e.latest
	}
	if e.collected == nil || inv == nil || inv.Revision == e.latest.sampler.Revision {
		e.collected = e.latest
		e.collected.families.Keep()
		e.node.Track(e.collected.sampler.Tracked, e.collected.sampler.Interval)
	}
	return e.collected
}

// shown returns the collection that is in use.
func (e *exporter) shown() *collection {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.collected
}
