// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package docker finds the containers of a Docker or Podman engine that hold
// NVIDIA devices of this node. It queries the engine's API at an interval and
// after events, in the background, and publishes an immutable table.
//
// It must only read: GET of /version, /containers and /events. Access to the
// socket is root access to the node, so it must not open one that the user did not
// configure. It must not be queried by a scrape, and it must not guess: unknown
// devices are listed as unresolved. A privileged container can use every device,
// and a container can create device files; neither makes it a holder.
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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/unixsocket"
)

// Defaults of Config.
const (
	DefaultSocket   = "/var/run/docker.sock"
	DefaultInterval = 10 * time.Second
	DefaultMaxAge   = 5 * time.Minute
	DefaultTimeout  = 5 * time.Second
)

// Config configures a Watcher. Zero fields have defaults.
type Config struct {
	Socket string // path or unix: URL; DefaultSocket
	// KeepLabel reports whether to keep a container label, by key. Nil: none.
	KeepLabel func(key string) bool
	// Self is the exporter's own container, see OwnContainer. It has all devices to
	// monitor them, and holds none.
	Self      string
	MIGMinors string // DefaultMIGMinors

	Interval time.Duration // between refreshes without an event
	MaxAge   time.Duration // how long a table is valid without a successful refresh
	Timeout  time.Duration // of one call to the engine
	Logger   *slog.Logger  // nil: no log
}

const (
	minPause = 200 * time.Millisecond // between refreshes after events
	// restFactor bounds the engine's load by events: a refresh of 0.1 s is followed
	// by a pause of 1 s.
	restFactor = 10
	firstRetry = time.Second // pause after a first failure; it doubles
	// maxRetry bounds the pauses between inspections of one container, and between
	// streams of events.
	maxRetry    = 5 * time.Minute
	steadyTime  = time.Minute // a stream of events that lasted longer resets its pause
	maxWarnings = 20          // logged by one refresh

	// Bounds of one container, whose series repeat its labels.
	maxText       = 255 // bytes of a name, an image or a label of Compose
	maxLabels     = 64
	maxLabelBytes = 4096 // keys and values together
)

// Status is the state of a Watcher.
type Status struct {
	poll.Status
	Engine string // such as "Podman Engine 4.3.1"
	// Watching: the engine reports events, so that changes are detected at once.
	Watching          bool
	Containers, Holds int // in the current table
}

// Watcher keeps the table of containers fresh. Its methods may be called from any
// goroutine.
type Watcher struct {
	*poll.Poller[Table]
	keep         func(string) bool
	self         string
	capabilities func() (migCapabilities, error)
	interval     time.Duration
	inspectTime  time.Duration // of one refresh
	engine       *engine

	api       atomic.Pointer[api] // nil: the next refresh negotiates it
	name      atomic.Pointer[string]
	watching  atomic.Bool
	refreshed chan struct{} // after each successful refresh

	// known has all listed containers. Only the running refresh uses it.
	known map[string]*container
	dirty bool // known differs from the published table
}

// container is what is known of one container. The published parts are replaced,
// not modified.
type container struct {
	Container
	devices    Devices
	unresolved []Unresolved
	since      time.Time // when it was first listed

	inspected bool
	tries     int       // failed inspections
	nextTry   time.Time // of the inspection
}

// New makes a Watcher. It does not open the socket yet.
func New(c Config) (*Watcher, error) {
	interval, maxAge, timeout := cmp.Or(c.Interval, DefaultInterval), cmp.Or(c.MaxAge, DefaultMaxAge), cmp.Or(c.Timeout, DefaultTimeout)
	w := &Watcher{
		keep:        c.KeepLabel,
		self:        c.Self,
		interval:    interval,
		inspectTime: 4 * timeout,
		refreshed:   make(chan struct{}, 1),
		known:       make(map[string]*container),
	}
	if w.keep == nil {
		w.keep = func(string) bool { return false }
	}
	if interval < 0 || timeout < 0 || maxAge < interval {
		return nil, fmt.Errorf("docker: interval %s and timeout %s must be positive, and the maximum age %s at least the interval",
			interval, timeout, maxAge)
	}
	socket, err := unixsocket.Path(cmp.Or(c.Socket, DefaultSocket))
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	w.engine = newEngine(socket, timeout)
	minors := cmp.Or(c.MIGMinors, DefaultMIGMinors)
	w.capabilities = func() (migCapabilities, error) { return readMIGMinors(minors) }
	w.Poller = poll.New(poll.Config[Table]{
		Options:  poll.Options{Name: "docker", Hints: hints(), MaxAge: maxAge, Log: c.Logger},
		Refresh:  w.refresh,
		Interval: interval,
		Retry:    firstRetry,
		MinPause: minPause,
		Rest:     restFactor,
	})
	return w, nil
}

// Run refreshes the table until ctx ends, and returns nil. Call it once.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.engine.close()
	var following sync.WaitGroup
	following.Go(func() { w.followEvents(ctx) })
	defer following.Wait()
	return w.Poller.Run(ctx)
}

// Confirmed returns the table and the start of the last refresh that returned it.
func (w *Watcher) Confirmed() (*Table, time.Time) {
	last, at := w.Last()
	if w.Table() != last {
		return nil, time.Time{} // it has expired
	}
	return last, at
}

// Status returns a copy of the status.
func (w *Watcher) Status() Status {
	s := Status{Status: w.Poller.Status(), Watching: w.watching.Load()}
	if name := w.name.Load(); name != nil {
		s.Engine = *name
	}
	if t := w.Table(); t != nil {
		s.Containers, s.Holds = t.containers, len(t.Holds)
	}
	return s
}

// refresh queries the engine once.
func (w *Watcher) refresh(ctx context.Context, previous *Table) (*Table, error) {
	start := time.Now()
	if err := w.update(ctx, start); err != nil {
		w.api.Store(nil)
		return nil, fmt.Errorf("querying the container engine at %s: %w", w.engine.socket, err)
	}
	select {
	case w.refreshed <- struct{}{}:
	default:
	}
	if previous != nil && !w.dirty {
		return previous, nil
	}
	w.dirty = false
	return w.table(start), nil
}

// update brings known up to date.
func (w *Watcher) update(ctx context.Context, start time.Time) error {
	a := w.api.Load()
	if a == nil {
		negotiated, err := w.engine.negotiate(ctx)
		if err != nil {
			return err
		}
		a = &negotiated
		w.api.Store(a)
		w.name.Store(&a.name)
	}
	current, err := w.list(ctx, *a)
	if err != nil {
		return err
	}
	for id := range w.known {
		if _, ok := current[id]; !ok {
			delete(w.known, id)
			w.dirty = true
		}
	}
	for id, c := range current {
		k := w.known[id]
		if k == nil {
			w.known[id] = w.newContainer(&c, start)
			w.dirty = true
		} else if name := c.name(); k.Name != name && len(name) <= maxText {
			k.rename(name)
			w.dirty = true
		}
	}
	return w.inspect(ctx, *a, start)
}

// list returns the containers outside of Kubernetes by ID, with the labels in use.
func (w *Watcher) list(ctx context.Context, a api) (map[string]listed, error) {
	current := make(map[string]listed)
	err := w.engine.list(ctx, a, func(c listed) error {
		if c.ofKubernetes() {
			return nil // its pod owns it
		}
		if len(current) == maxContainers {
			return tooLarge("more than %d containers", maxContainers)
		}
		maps.DeleteFunc(c.Labels, func(key, _ string) bool {
			return key != composeProject && key != composeService && !w.keep(key)
		})
		current[c.ID] = c
		return nil
	})
	return current, err
}

// Labels of Docker Compose and podman-compose.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
)

// newContainer makes a container from its entry in the list.
func (w *Watcher) newContainer(c *listed, start time.Time) *container {
	cut := 0
	bounded := func(s string) string {
		if len(s) <= maxText {
			return s
		}
		cut++
		return strings.ToValidUTF8(s[:maxText], "")
	}
	k := &container{
		Container: Container{
			ID: c.ID, Name: bounded(c.name()), Image: bounded(c.Image),
			ComposeProject: bounded(c.Labels[composeProject]), ComposeService: bounded(c.Labels[composeService]),
		},
		inspected: c.ID == w.self,
		since:     start,
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		if !w.keep(key) {
			continue
		}
		label := KeyValue{key, c.Labels[key]}
		if n := len(label.Key) + len(label.Value); len(k.Labels) < maxLabels && size+n <= maxLabelBytes {
			size += n
			k.Labels = append(k.Labels, label)
		} else {
			cut++
		}
	}
	if cut > 0 { // once, because a container is made once
		w.Count(poll.TooLarge)
		w.Log().Warn("A container has more or longer labels or names than its series can have; some are cut or omitted",
			"container", printable(k.Name), "id", k.ID, "cut", cut, "max_labels", maxLabels, "max_bytes", maxLabelBytes)
	}
	if !k.inspected {
		k.setUnresolved("the container is not inspected yet", "wait for the next refresh; if it persists, check whether the engine is slow")
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

// setUnresolved records why all devices of the container are unknown.
func (k *container) setUnresolved(reason, hint string) {
	k.unresolved = []Unresolved{{ID: k.ID, Name: k.Name, Request: "all devices", Reason: reason, Hint: hint}}
}

// inspect inspects new containers. A container's devices never change, so each is
// inspected once. A failure affects only that container: an inspection hangs if
// the container's runtime hangs, but the list does not.
func (w *Watcher) inspect(ctx context.Context, a api, start time.Time) error {
	var pending []*container
	for _, k := range w.known {
		if !k.inspected && !k.nextTry.After(start) {
			pending = append(pending, k)
		}
	}
	slices.SortFunc(pending, func(a, b *container) int {
		return cmp.Or(cmp.Compare(a.tries, b.tries), compareContainers(a.Container, b.Container))
	})
	deadline := start.Add(w.inspectTime)
	warnings := 0
	warn := func(msg string, args ...any) {
		if warnings++; warnings <= maxWarnings {
			w.Log().Warn(msg, args...) //nolint:sloglint // the messages below are constants
		}
	}
	defer func() {
		if warnings > maxWarnings {
			w.Log().Warn("More device requests of containers are not resolved", "count", warnings-maxWarnings, "hint", "gpu_exporter doctor lists all of them")
		}
	}()
	for i, k := range pending {
		if i > 0 && time.Now().After(deadline) {
			w.Trigger() // publish, then continue
			return nil
		}
		response, err := w.engine.inspect(ctx, a, k.ID)
		var dial *net.OpError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &dial) && dial.Op == "dial":
			return err // the engine is down
		}
		var d description
		if err == nil {
			d, err = describe(response, w.capabilities)
		}
		w.dirty = true
		if err != nil {
			k.tries++
			k.nextTry = start.Add(min(w.interval<<min(k.tries-1, 10), maxRetry))
			reason := poll.ReasonOf(err)
			k.setUnresolved("the inspection of the container failed: "+string(reason), w.Hint(reason))
			if k.tries == 2 { // a first failure may be a container that has just exited
				warn("Inspection of a container failed; it counts as a holder of no device", "container", k.Name, "id", k.ID,
					"reason", reason, "err", err, "hint", w.Hint(reason))
			}
			continue
		}
		k.inspected = true
		if len(d.image) <= maxText {
			k.Image = cmp.Or(d.image, k.Image)
		}
		k.devices, k.unresolved = d.devices, d.unresolved
		for i := range k.unresolved {
			u := &k.unresolved[i]
			u.ID, u.Name = k.ID, k.Name
			warn("Device request of a container is not resolved", "container", u.Name, "id", u.ID,
				"request", u.Request, "reason", u.Reason, "hint", u.Hint)
		}
	}
	return nil
}

// table makes a table of the known containers.
func (w *Watcher) table(start time.Time) *Table {
	t := &Table{Time: start, containers: len(w.known)}
	for _, k := range w.known {
		t.Unresolved = append(t.Unresolved, k.unresolved...)
		if !k.devices.None() {
			t.Holds = append(t.Holds, Hold{Devices: k.devices, Container: k.Container, Since: k.since})
		}
	}
	slices.SortFunc(t.Holds, func(a, b Hold) int { return compareContainers(a.Container, b.Container) })
	slices.SortFunc(t.Unresolved, compareUnresolved)
	return t
}
