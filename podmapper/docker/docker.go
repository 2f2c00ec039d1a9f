// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package docker knows which containers of a Docker or Podman engine hold which
// NVIDIA devices of this node. It asks the engine's API through its socket, in
// the background, at an interval and whenever the engine reports an event, and
// publishes the answer as an immutable table.
//
// It only reads, and needs GET of /version, /containers and /events; but who may
// open the socket may do anything to the node, so the socket is only opened if a
// user asks for it. It must never be waited for on the scrape path: Table and
// Status only read what is there. What an engine does not say is left out and
// listed as unresolved; nothing is guessed. A privileged container can use every
// device, as can whoever makes device files for itself: that makes it no holder.
package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultSocket   = "/var/run/docker.sock"
	DefaultInterval = 10 * time.Second
	DefaultMaxAge   = 5 * time.Minute
	DefaultTimeout  = 5 * time.Second
)

// Config says which engine to ask. The zero value of each field is its default.
type Config struct {
	Socket string // path or unix: URL; DefaultSocket
	// KeepLabel says which labels of containers are kept, by their keys. Nil: none.
	KeepLabel func(key string) bool
	// Self is the ID of the container that the exporter itself runs in, see
	// OwnContainer. It has all devices in order to watch them, and holds none.
	Self      string
	MIGMinors string // file; DefaultMIGMinors

	Interval time.Duration // between refreshes without an event
	MaxAge   time.Duration // how long a table is good without a refresh
	Timeout  time.Duration // for one call to the engine
	Logger   *slog.Logger  // nil: no log
}

const (
	// minPause is the time from one refresh to the next that an event causes.
	minPause = 200 * time.Millisecond
	// restAfter bounds the part of the time that the engine is kept busy because
	// of events: a list that took a tenth of a second is followed by a second.
	restAfter = 10
	// firstRetry is the pause after a first failure. It doubles with each.
	firstRetry = time.Second
	// maxRetry bounds the pauses between trying to inspect a container, and to
	// have events reported.
	maxRetry = 5 * time.Minute
	// steady is how long events must have been reported for a new start.
	steady = time.Minute
	// maxLines bounds what one refresh logs.
	maxLines = 20
)

// looks are when the list is asked for after an event. An engine may report an
// event before the list shows it.
var looks = [...]time.Duration{0, time.Second}

// Status says how the refreshes go.
type Status struct {
	Up          bool      // the last refresh succeeded
	LastSuccess time.Time // start of the last successful refresh; zero before it
	// Duration is that of the last refresh, failed or not.
	Duration time.Duration
	// Refreshes counts all refreshes, Failures the failed ones by reason. Every
	// reason is there.
	Refreshes uint64
	Failures  map[Reason]uint64
	// Reason and Err are those of the last refresh; empty if it succeeded.
	Reason Reason
	Err    error
	// Engine is what the engine says it is, such as "Podman Engine 4.3.1".
	Engine string
	// Watching is true while the engine reports events, so that changes are
	// noticed at once. Otherwise they are at the next refresh.
	Watching bool
	// Containers, Holds and Unresolved count what is in the table that Table gives.
	Containers, Holds, Unresolved int
}

// Watcher keeps the table of containers fresh. Its methods may be called from
// any goroutine.
type Watcher struct {
	keep     func(string) bool
	self     string
	minors   func() (migMinors, error)
	interval time.Duration
	maxAge   time.Duration
	timeout  time.Duration
	log      *slog.Logger
	engine   *engine

	changed   chan struct{}
	woken     chan struct{}             // by an event
	happened  atomic.Pointer[time.Time] // the last event
	published atomic.Pointer[publication]

	turn chan struct{} // held by the refresh that is under way
	// What one refresh leaves to the next; guarded by turn.
	api     *api // nil: to be negotiated
	known   map[string]*container
	dirty   bool            // known is not what is published
	warned  map[Reason]bool // logged since the last success
	expired bool            // that the table is too old was logged

	mu       sync.Mutex
	status   Status
	asked    time.Time     // when the last list was asked for
	listTook time.Duration // that long
}

// publication is a table and when it was last known to be right.
type publication struct {
	table     *Table
	confirmed time.Time
}

// container is what is known of one container. The parts that are published are
// replaced, not modified.
type container struct {
	Container
	devices    Devices
	unresolved []Unresolved

	inspected bool
	tries     int // to inspect it
	again     time.Time
}

// New makes a Watcher. It does not touch the socket yet.
func New(c Config) (*Watcher, error) {
	w := &Watcher{
		keep:     c.KeepLabel,
		self:     c.Self,
		interval: cmp.Or(c.Interval, DefaultInterval),
		maxAge:   cmp.Or(c.MaxAge, DefaultMaxAge),
		timeout:  cmp.Or(c.Timeout, DefaultTimeout),
		log:      c.Logger,
		changed:  make(chan struct{}, 1),
		woken:    make(chan struct{}, 1),
		turn:     make(chan struct{}, 1),
		known:    make(map[string]*container),
		warned:   make(map[Reason]bool),
		status:   Status{Failures: make(map[Reason]uint64)},
	}
	for _, r := range Reasons() {
		w.status.Failures[r] = 0
	}
	if w.keep == nil {
		w.keep = func(string) bool { return false }
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.interval < 0 || w.timeout < 0 || w.maxAge < w.interval {
		return nil, fmt.Errorf("containers: interval %s, timeout %s and maximum age %s must be positive, and the age no less than the interval",
			w.interval, w.timeout, w.maxAge)
	}
	socket, err := socketPath(cmp.Or(c.Socket, DefaultSocket))
	if err != nil {
		return nil, err
	}
	w.engine = newEngine(socket, w.timeout)
	file := cmp.Or(c.MIGMinors, DefaultMIGMinors)
	w.minors = func() (migMinors, error) { return readMIGMinors(file) }
	return w, nil
}

// Run refreshes the table until ctx ends, and returns nil. It is for one call.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.engine.close()
	events := follower{w: w}
	defer events.stop()

	due := time.Now()
	retry := firstRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.woken:
		case err := <-events.ended:
			if ctx.Err() != nil {
				return nil
			}
			events.failed(err)
			// An engine that was restarted may be another version.
			w.forgetVersion(ctx)
			due = time.Now()
		case <-timer.C:
			more, err := w.refresh(ctx) // the error is in the status and in the log
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				events.stop()
				due = time.Now().Add(min(retry, w.interval))
				retry = min(2*retry, w.interval)
			case more:
				due, retry = time.Now(), firstRetry
			default:
				due, retry = time.Now().Add(w.interval), firstRetry
			}
			if err == nil {
				due = events.start(ctx, due)
			}
		}
		timer.Reset(time.Until(w.earlier(due)))
	}
}

// earlier gives due, or before it the time at which to look for what an event
// reported; but no time too soon after the last refresh.
func (w *Watcher) earlier(due time.Time) time.Time {
	w.mu.Lock()
	asked, took := w.asked, w.listTook
	w.mu.Unlock()
	if happened := w.happened.Load(); happened != nil {
		for _, d := range looks {
			if at := happened.Add(d); at.After(asked) && at.Before(due) {
				due = at
			}
		}
	}
	if soonest := asked.Add(took + min(max(minPause, restAfter*took), w.interval)); due.Before(soonest) {
		return soonest
	}
	return due
}

// notice is called when the engine reports an event.
func (w *Watcher) notice() {
	now := time.Now()
	w.happened.Store(&now)
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// Refresh does one refresh now and waits for it, with or without Run.
func (w *Watcher) Refresh(ctx context.Context) error {
	_, err := w.refresh(ctx)
	return err
}

// Table gives the containers, or nil while they are not known: before the
// engine's first good answer, and once the last one is older than MaxAge.
func (w *Watcher) Table() *Table {
	p := w.published.Load()
	if p == nil || time.Since(p.confirmed) > w.maxAge {
		return nil
	}
	return p.table
}

// Changed gives a channel that receives when there is a table with another
// version. It is meant for one receiver; what it does not take in time is
// merged.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Status gives a copy of the state of the refreshes.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	s := w.status
	s.Failures = maps.Clone(s.Failures)
	w.mu.Unlock()
	if t := w.Table(); t != nil {
		s.Containers, s.Holds, s.Unresolved = len(t.containers), len(t.Holds), len(t.Unresolved)
	}
	return s
}

func (w *Watcher) forgetVersion(ctx context.Context) {
	if w.take(ctx) != nil {
		return
	}
	w.api = nil
	w.give()
}

func (w *Watcher) take(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *Watcher) give() { <-w.turn }

// refresh asks the engine once and publishes what it says. more says that there
// was not time enough for all containers.
func (w *Watcher) refresh(ctx context.Context) (more bool, err error) {
	if err := w.take(ctx); err != nil {
		return false, err
	}
	defer w.give()
	start := time.Now()
	more, err = w.ask(ctx, start)
	if err != nil && ctx.Err() != nil {
		return false, ctx.Err() // we are being stopped: the engine did not fail
	}
	if err != nil {
		err = fmt.Errorf("asking the container engine at %s: %w", w.engine.socket, err)
		w.failed(start, err)
		return false, err
	}
	w.publish(start)
	w.succeeded(start)
	return more, nil
}

// ask brings known up to date.
func (w *Watcher) ask(ctx context.Context, start time.Time) (more bool, err error) {
	if w.api == nil {
		a, err := w.engine.negotiate(ctx)
		if err != nil {
			return false, err
		}
		w.api = &a
	}
	now, err := w.list(ctx)
	if err != nil {
		return false, err
	}
	for id := range w.known {
		if _, ok := now[id]; !ok {
			delete(w.known, id)
			w.dirty = true
		}
	}
	for id, c := range now {
		k := w.known[id]
		if k == nil {
			w.known[id] = w.discovered(&c)
			w.dirty = true
		} else if name := c.name(); k.Name != name {
			k.rename(name)
			w.dirty = true
		}
	}
	return w.inspect(ctx, start)
}

// list gives the containers that are not Kubernetes', by ID, with the labels that
// are of use.
func (w *Watcher) list(ctx context.Context) (map[string]listed, error) {
	asked := time.Now()
	now := make(map[string]listed)
	err := w.engine.list(ctx, *w.api, func(c listed) error {
		if c.ofKubernetes() {
			return nil // its pod owns it
		}
		if len(now) == maxContainers {
			return fmt.Errorf("%w: more than %d containers", errTooLarge, maxContainers)
		}
		maps.DeleteFunc(c.Labels, func(key, _ string) bool {
			return key != composeProject && key != composeService && !w.keep(key)
		})
		now[c.ID] = c
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.listTook = asked, time.Since(asked)
	return now, err
}

// Labels of Docker Compose and podman-compose.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
)

// discovered makes a container of what the list says of it.
func (w *Watcher) discovered(c *listed) *container {
	k := &container{
		Container: Container{
			ID: c.ID, Name: c.name(), Image: c.Image,
			ComposeProject: c.Labels[composeProject], ComposeService: c.Labels[composeService],
		},
	}
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		if w.keep(key) {
			k.Labels = append(k.Labels, KeyValue{key, c.Labels[key]})
		}
	}
	k.inspected = c.ID == w.self
	if !k.inspected {
		k.doubt("the engine has not described the container yet", "this passes, unless the engine is slow")
	}
	return k
}

func (k *container) rename(name string) {
	k.Name = name
	k.unresolved = slices.Clone(k.unresolved)
	for i := range k.unresolved {
		k.unresolved[i].Name = name
	}
}

// doubt notes why nothing is known of the container's devices.
func (k *container) doubt(reason, hint string) {
	k.unresolved = []Unresolved{{ID: k.ID, Name: k.Name, Request: "all devices", Reason: reason, Hint: hint}}
}

// inspect asks for the details of containers that are not known yet. A
// container's devices do not change while it exists, so once is enough. What the
// engine cannot say of one costs only that one: docker inspect hangs for a
// container whose runtime hangs, while the list does not.
func (w *Watcher) inspect(ctx context.Context, start time.Time) (more bool, err error) {
	var todo []*container
	for _, k := range w.known {
		if !k.inspected && !k.again.After(start) {
			todo = append(todo, k)
		}
	}
	slices.SortFunc(todo, func(a, b *container) int {
		return cmp.Or(cmp.Compare(a.tries, b.tries), compareContainers(a.Container, b.Container))
	})
	enough := start.Add(4 * w.timeout)
	lines := lines{log: w.log}
	defer lines.end()
	for _, k := range todo {
		if time.Now().After(enough) {
			return true, nil
		}
		answer, err := w.engine.inspect(ctx, *w.api, k.ID)
		var dial *net.OpError
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.As(err, &dial) && dial.Op == "dial":
			return false, err // nor will any other be described
		}
		var d described
		if err == nil {
			d, err = describe(answer, w.minors)
		}
		w.dirty = true
		if err != nil {
			k.tries++
			k.again = start.Add(min(w.interval<<min(k.tries-1, 10), maxRetry))
			reason := reasonOf(err)
			k.doubt("the engine did not describe the container: "+string(reason), reason.Hint())
			// Once may be one that has just ended.
			if k.tries == 2 {
				lines.warn("Container engine does not describe a container; it is taken to hold no device", "container", k.Name, "id", k.ID,
					"reason", reason, "err", err, "hint", reason.Hint())
			}
			continue
		}
		k.inspected = true
		k.Image = cmp.Or(d.image, k.Image)
		k.devices, k.unresolved = d.devices, d.unresolved
		for i := range k.unresolved {
			u := &k.unresolved[i]
			u.ID, u.Name = k.ID, k.Name
			lines.warn("Device of a container cannot be told", "container", u.Name, "id", u.ID,
				"request", u.Request, "reason", u.Reason, "hint", u.Hint)
		}
	}
	return false, nil
}

// lines bounds what is logged at once.
type lines struct {
	log *slog.Logger
	n   int
}

func (l *lines) warn(msg string, args ...any) {
	if l.n++; l.n <= maxLines {
		l.log.Warn(msg, args...) //nolint:sloglint // all callers give constants
	}
}

func (l *lines) end() {
	if more := l.n - maxLines; more > 0 {
		l.log.Warn("More containers' devices cannot be told", "lines", more, "hint", "gpu_exporter doctor lists them all")
	}
}

// publish makes known known.
func (w *Watcher) publish(start time.Time) {
	before := w.published.Load()
	if before != nil && !w.dirty {
		w.published.Store(&publication{before.table, start})
		return
	}
	t := &Table{Version: 1, Time: start, containers: make(map[string]Container, len(w.known))}
	if before != nil {
		t.Version = before.table.Version + 1
	}
	for id, k := range w.known {
		t.containers[id] = k.Container
		t.Unresolved = append(t.Unresolved, k.unresolved...)
		if !k.devices.None() {
			t.Holds = append(t.Holds, Hold{Devices: k.devices, Container: k.Container})
		}
	}
	slices.SortFunc(t.Holds, func(a, b Hold) int { return compareContainers(a.Container, b.Container) })
	slices.SortFunc(t.Unresolved, compareUnresolved)
	w.published.Store(&publication{t, start})
	w.dirty = false
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *Watcher) succeeded(start time.Time) {
	w.mu.Lock()
	first, wasUp := w.status.LastSuccess.IsZero(), w.status.Up
	w.status.Refreshes++
	w.status.Up, w.status.Reason, w.status.Err = true, "", nil
	w.status.LastSuccess = start
	w.status.Engine = w.api.name
	w.status.Duration = time.Since(start)
	w.mu.Unlock()
	w.expired = false
	clear(w.warned)

	if !wasUp {
		msg := "Container engine answers again"
		if first {
			msg = "Container engine is asked for owners of devices"
		}
		w.log.Info(msg, "socket", w.engine.socket, "engine", w.api.name)
	}
}

func (w *Watcher) failed(start time.Time, err error) {
	w.api = nil
	reason := reasonOf(err)
	w.mu.Lock()
	w.status.Refreshes++
	w.status.Failures[reason]++
	w.status.Up, w.status.Reason, w.status.Err = false, reason, err
	w.status.Duration = time.Since(start)
	w.mu.Unlock()

	level := slog.LevelDebug
	if !w.warned[reason] {
		w.warned[reason] = true
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "Container engine cannot be asked", "reason", reason, "err", err, "hint", reason.Hint())

	if p := w.published.Load(); p != nil && w.Table() == nil && !w.expired {
		w.expired = true
		w.log.Warn("Containers are not known any more until the engine answers",
			"age", time.Since(p.confirmed).Round(time.Second), "max_age", w.maxAge)
	}
}
