// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dra knows which devices the drivers of dynamic resource allocation
// publish on this node. The kubelet says only by which name a container holds a
// device of a ResourceClaim; the ResourceSlices say which device that is.
//
// It reads nothing but the ResourceSlices of its own node, and only in the
// background. It knows neither claims nor GPUs: podmapper.Table.Match joins all
// three. It must not block or fail a caller because of the API server.
//
// Slices without spec.nodeName, whose devices several nodes can use
// (spec.allNodes, spec.nodeSelector, spec.perDeviceNodeSelection), are left out:
// to find those of a node, the slices of all nodes would have to be read. GPUs
// are in the slices of their node.
package dra

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"gpu_exporter/podmapper"
)

// Defaults of Config.
const (
	DefaultMaxAge  = time.Hour
	DefaultTimeout = 30 * time.Second
)

const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// settleTime is how long a change of a pool may take. Drivers replace the
	// slices of a pool one after the other.
	settleTime = 2 * time.Second
)

// Config says which slices to read, and from where.
type Config struct {
	REST *rest.Config // how to reach the API server; required
	Node string       // name of this node in Kubernetes; required
	// MaxAge is for how long devices are given after the API server was last
	// heard; 0 means DefaultMaxAge. What is published changes with the driver or
	// the hardware, not with the pods, so a long time is safe.
	MaxAge  time.Duration
	Timeout time.Duration // of one request; 0 means DefaultTimeout
	Logger  *slog.Logger  // nil: no log
}

// Watcher keeps what is published up to date. Its methods may be called from any
// goroutine, and none but Run waits for anything.
type Watcher struct {
	api     *apiServer
	node    string
	maxAge  time.Duration
	log     *slog.Logger
	retries [2]time.Duration // the first and the longest pause
	settle  time.Duration

	published atomic.Pointer[podmapper.Published]
	changed   chan struct{}

	mu     sync.Mutex
	status Status

	// Used by Run only.
	at       position
	pause    time.Duration    // before the next try
	slices   map[string]slice // by name of the object
	gone     map[podmapper.PublishedName]departed
	problems map[string]string // of slices that cannot be read, already logged
	warned   map[Reason]bool   // logged since all was well
	quiet    bool              // the log says that all is well
	expired  bool              // that the devices are too old was logged
}

// position is where the next watch starts.
type position struct {
	version string
	// resourceVersion is what is known; empty if the slices have to be listed.
	resourceVersion string
	// notBefore is the resource version that a list must have reached.
	notBefore string
}

// Status says how the reading goes.
type Status struct {
	Up bool // the API server reports changes as they happen
	// LastSuccess is when the API server was last heard; zero before. While Up it
	// may be some minutes ago: nothing has changed since.
	LastSuccess time.Time
	// Failures counts by reason; every Reason is there.
	Failures map[Reason]uint64
	// Reason and Err are of the last failure while Up is false, if there was one.
	Reason Reason
	Err    error
	// APIVersion is the one last read, such as v1; empty before.
	APIVersion string
	// Slices and Devices count what was last read, also when it is too old.
	Slices, Devices int
}

// New makes a Watcher. It does not connect yet.
func New(c Config) (*Watcher, error) {
	w := &Watcher{
		node:     c.Node,
		maxAge:   cmp.Or(c.MaxAge, DefaultMaxAge),
		log:      c.Logger,
		retries:  [2]time.Duration{firstRetry, lastRetry},
		pause:    firstRetry,
		settle:   settleTime,
		changed:  make(chan struct{}, 1),
		at:       position{notBefore: "0"},
		slices:   make(map[string]slice),
		gone:     make(map[podmapper.PublishedName]departed),
		problems: make(map[string]string),
		warned:   make(map[Reason]bool),
		status:   Status{Failures: make(map[Reason]uint64)},
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	for _, r := range Reasons() {
		w.status.Failures[r] = 0
	}
	timeout := cmp.Or(c.Timeout, DefaultTimeout)
	switch {
	case c.REST == nil:
		return nil, errors.New("resource slices: it is not known how to reach the API server")
	case c.Node == "":
		return nil, errors.New("resource slices: the name of this node is not known")
	case w.maxAge < 0 || timeout < 0:
		return nil, fmt.Errorf("resource slices: maximum age %s and timeout %s must be positive", w.maxAge, timeout)
	}
	var err error
	if w.api, err = newAPIServer(c.REST, c.Node, timeout); err != nil {
		return nil, fmt.Errorf("resource slices: preparing the connection to the API server: %w", err)
	}
	return w, nil
}

// Published gives the devices, or nil while they are not known: before the first
// good answer, and when the API server has not been heard for MaxAge. As long as
// the devices are the same, so is the result.
func (w *Watcher) Published() *podmapper.Published {
	p := w.published.Load()
	if p == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.status.Up && time.Since(w.status.LastSuccess) > w.maxAge {
		return nil
	}
	return p
}

// Changed has a value when Published has something else to give than at the last
// one. It is never closed.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

func (w *Watcher) notify() {
	select {
	case w.changed <- struct{}{}:
	default: // there is a notice already
	}
}

// Status gives a copy of how the reading goes.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Failures = maps.Clone(s.Failures)
	return s
}

// Run reads until ctx ends, and then returns nil. It must be called only once.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.api.close()
	for {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			w.failed(err)
		}
		wait := w.pause/2 + rand.N(w.pause)
		if s, ok := apierrors.SuggestsClientDelay(err); ok {
			wait = min(max(wait, time.Duration(s)*time.Second), w.retries[1])
		}
		w.pause = min(2*w.pause, w.retries[1])
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// follow brings the slices up to date and then follows their changes for one
// watch. That the watch ends is no error; the next one goes on from there.
func (w *Watcher) follow(ctx context.Context) error {
	served, err := w.api.versions(ctx)
	if err != nil {
		w.at.resourceVersion = ""
		return fmt.Errorf("asking which versions of %s are served: %w", groupName, err)
	}
	listed := false
	if w.at.resourceVersion == "" || w.at.version != served[0] {
		if err := w.list(ctx, served); err != nil {
			w.at.resourceVersion = ""
			return err
		}
		listed = true
	}
	good, err := w.watch(ctx)
	if err == nil && !good {
		err = errCutShort
	}
	if err == nil {
		return nil
	}
	w.at.resourceVersion = ""
	// What is asked for is not there any more: the version after an upgrade, or
	// the changes since, after a while without a connection. To list helps.
	if (apierrors.IsNotFound(err) || tooOld(err)) && (good || !listed) {
		w.at.notBefore = ""
		w.log.Debug("Resource slices have to be listed again", "err", err)
		return nil
	}
	return fmt.Errorf("watching %s/%s %s of this node: %w", groupName, w.at.version, resourceName, err)
}

// list reads all slices, in the best version that has them.
func (w *Watcher) list(ctx context.Context, served []string) error {
	for _, version := range served {
		objects, resourceVersion, err := w.api.list(ctx, version, w.at.notBefore)
		if tooOld(err) && w.at.notBefore != "" { // such as after the restore of a backup
			objects, resourceVersion, err = w.api.list(ctx, version, "")
		}
		if apierrors.IsNotFound(err) {
			continue // the group's version is served, but not this resource in it
		}
		if err != nil {
			return fmt.Errorf("listing %s/%s %s of this node: %w", groupName, version, resourceName, err)
		}
		w.at = position{version: version, resourceVersion: resourceVersion, notBefore: resourceVersion}
		w.slices = make(map[string]slice, len(objects))
		for _, object := range objects {
			w.put(object)
		}
		maps.DeleteFunc(w.problems, func(name, _ string) bool { _, ok := w.slices[name]; return !ok })
		w.heard(version)
		if w.published.Load() == nil {
			w.publish()
		}
		return nil
	}
	return errNotServed
}

// watch follows changes until the watch ends, and publishes them. It was good if
// the server had something to say or kept it for a while.
func (w *Watcher) watch(ctx context.Context) (good bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	// A pool that is incomplete is waited for, but not for long: it may stay so.
	var settled <-chan time.Time
	update := func() {
		if _, incomplete := join(w.slices); len(incomplete) == 0 {
			settled = nil
			w.publish()
		} else if settled == nil {
			settled = time.After(w.settle)
		}
	}
	update()
	defer func() {
		if settled != nil {
			w.publish()
		}
	}()

	stream, err := w.api.watch(ctx, w.at.version, w.at.resourceVersion)
	if err != nil {
		return false, err
	}
	w.succeeded()
	steady := time.After(w.retries[1])
	events := make(chan event)
	ended := make(chan error, 1)
	reader.Go(func() { ended <- stream.each(events) })
	for {
		select {
		case e := <-events:
			if err := w.apply(e); err != nil {
				return good, err
			}
			good = true
			update()
		case <-settled:
			settled = nil
			w.publish()
		case <-steady:
			good = true
			w.steady()
		case err := <-ended:
			return good, err
		}
	}
}

// apply takes in one event of a watch.
func (w *Watcher) apply(e event) error {
	var object struct {
		Metadata struct {
			Name            string `json:"name"`
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	err := json.Unmarshal(e.Object, &object)
	if err == nil && object.Metadata.ResourceVersion == "" {
		err = errors.New("no resource version")
	}
	if err != nil {
		return fmt.Errorf("%w: event %q: %w", errMalformed, e.Type, err)
	}
	switch e.Type {
	case "ADDED", "MODIFIED":
		w.put(e.Object)
	case "DELETED":
		delete(w.slices, object.Metadata.Name)
		delete(w.problems, object.Metadata.Name)
	}
	w.at.resourceVersion, w.at.notBefore = object.Metadata.ResourceVersion, object.Metadata.ResourceVersion
	w.heard(w.at.version)
	return nil
}

// put takes in one slice.
func (w *Watcher) put(object []byte) {
	s, err := parseSlice(object)
	switch {
	case err == nil:
		delete(w.problems, s.name)
		if s.node != w.node {
			delete(w.slices, s.name) // what stands between does not know field selectors
			return
		}
	case w.problems[s.name] != err.Error():
		w.problems[s.name] = err.Error()
		w.log.Warn("ResourceSlice cannot be read in full; what is missing has no owner",
			"slice", s.name, "err", err, "hint", "see the driver that published it")
	}
	w.slices[s.name] = s
}

// publish makes the slices known, if that changes anything.
func (w *Watcher) publish() {
	devices, incomplete := join(w.slices)
	if len(incomplete) > 0 {
		w.log.Debug("Pools of devices are incomplete", "pools", incomplete)
	}
	w.recall(devices)
	w.mu.Lock()
	w.status.Slices, w.status.Devices = len(w.slices), len(devices)
	w.mu.Unlock()

	next := &podmapper.Published{Version: 1, Devices: devices}
	if before := w.published.Load(); before != nil {
		if maps.Equal(before.Devices, devices) {
			return
		}
		next.Version = before.Version + 1
	}
	w.published.Store(next)
	w.notify()
}

// recall adds the devices of pools that are gone. A kubelet that starts deletes
// all slices of its node (kubelet 1.37, NewDRAPluginManager in
// pkg/kubelet/cm/dra/plugin), and the drivers publish them again only after half a
// minute; but the containers that hold these devices run on. So the devices stay
// known until their pool is back, or for the maximum age. Nobody can get a device
// that no slice has, so this makes nobody an owner.
func (w *Watcher) recall(devices map[podmapper.PublishedName]podmapper.PublishedDevice) {
	now := time.Now()
	present := make(map[pool]bool, len(w.slices))
	for _, s := range w.slices {
		present[s.pool] = true
	}
	if before := w.published.Load(); before != nil {
		for name, d := range before.Devices {
			if _, known := w.gone[name]; !known {
				w.gone[name] = departed{d, now}
			}
		}
	}
	for name, d := range w.gone {
		_, back := devices[name]
		switch {
		case back, present[pool{name.Driver, name.Pool}], now.Sub(d.since) > w.maxAge:
			delete(w.gone, name)
		default:
			devices[name] = d.PublishedDevice
		}
	}
}

// departed is a device of a pool that has no slice any more.
type departed struct {
	podmapper.PublishedDevice
	since time.Time
}

// heard notes that the API server said something.
func (w *Watcher) heard(version string) {
	w.mu.Lock()
	w.status.LastSuccess = time.Now()
	w.status.APIVersion = version
	w.mu.Unlock()
	if w.expired {
		w.expired = false
		w.notify()
	}
}

// succeeded notes that changes are being followed.
func (w *Watcher) succeeded() {
	w.mu.Lock()
	w.status.Up, w.status.Reason, w.status.Err = true, "", nil
	w.mu.Unlock()
	w.heard(w.at.version)
	if len(w.warned) == 0 {
		w.allIsWell()
	}
}

// steady notes that they have been for a while. Only then is trouble over: some
// servers let a watch begin that they cannot keep.
func (w *Watcher) steady() {
	w.pause = w.retries[0]
	clear(w.warned)
	w.allIsWell()
}

func (w *Watcher) allIsWell() {
	if w.quiet {
		return
	}
	w.quiet = true
	w.log.Info("Resource slices are being read", "api_version", w.at.version, "slices", len(w.slices))
}

func (w *Watcher) failed(err error) {
	reason := reasonOf(err)
	w.mu.Lock()
	w.status.Up = false
	w.status.Failures[reason]++
	w.status.Reason, w.status.Err = reason, err
	last := w.status.LastSuccess
	w.mu.Unlock()

	level := slog.LevelDebug
	if !w.warned[reason] {
		w.warned[reason] = true
		w.quiet = false
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "Resource slices cannot be read", "reason", reason, "err", err, "hint", reason.Hint())

	if !w.expired && w.published.Load() != nil && w.Published() == nil {
		w.expired = true
		w.log.Warn("Resource slices are too old; devices of claims have no owner until the API server answers",
			"age", time.Since(last).Round(time.Second), "max_age", w.maxAge)
		w.notify()
	}
}
