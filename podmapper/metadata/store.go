// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// Defaults of Config.
const (
	DefaultMaxAge          = time.Hour
	DefaultTimeout         = 30 * time.Second
	DefaultLogDir          = "/var/log/pods"
	DefaultContainerLogDir = "/var/log/containers"
)

// changeOverTime is how long a Pods API that was there must be gone before
// something else is used: longer than a kubelet takes to restart.
const changeOverTime = time.Minute

// sweepTime is how often it is looked for pods that have ended and for data that
// is too old.
const sweepTime = 10 * time.Second

// Config says what to read, and from where.
type Config struct {
	Node       string // name of this node in Kubernetes; for the API server
	PodsSocket string // of the kubelet's Pods API; empty means DefaultPodsSocket
	// REST says how to reach the API server. Run calls it for each connection
	// that it makes, so that credentials that have changed are taken up. Nil: the
	// API server is never asked.
	REST func() (*rest.Config, error)
	// LogDir and ContainerLogDir are where the kubelet keeps its logs by pod and
	// by container; both empty: they are not read.
	LogDir, ContainerLogDir string
	Want                    Want
	// Source is SourcePodsAPI, SourceAPIServer, or SourceAuto (the same as
	// empty). For identities alone the API server is not asked, whatever Source
	// is.
	Source Source
	// MaxAge is for how long pods are given after their source failed; 0 means
	// DefaultMaxAge. While the API server is away no pod comes to the node, and
	// the metadata of those on it hardly change. Pods of which the log
	// directories know a successor of the same name are not given.
	MaxAge  time.Duration
	Timeout time.Duration // of one request; 0 means DefaultTimeout
	Logger  *slog.Logger  // nil: no log
}

// Want says what is asked for beyond identities.
type Want struct {
	Labels, Annotations func(key string) bool // which to keep; nil: none
	Workload, UID       bool
}

func (w Want) any() bool { return w.Labels != nil || w.Annotations != nil || w.Workload || w.UID }

// Store keeps the pods of this node up to date. Its methods may be called from
// any goroutine, and none but Run waits for anything.
//
// It uses the Pods API where that is served. Where it is not, it asks the API
// server for what is wanted, takes identities from the log directories, and
// changes over once the kubelet serves the API.
type Store struct {
	c   Config
	log *slog.Logger
	// The constants of these names, but for tests.
	watchFor, changeOver, apiDelay, logInterval time.Duration

	published atomic.Pointer[Pods]
	changed   chan struct{}
	dirty     chan struct{} // something was reported

	mu            sync.Mutex
	podsAPI       *feed
	apiServer     *feed
	logDir        *feed
	logs          *logged
	ownerFailures map[Reason]uint64
	ownerWarned   map[ownerTrouble]bool
	started       time.Time
	elsewhere     bool // the Pods API is not to be relied on
}

// ownerTrouble is what is logged once.
type ownerTrouble struct {
	reason           Reason
	apiVersion, kind string
}

// New makes a Store. It does not read anything yet.
func New(c Config) (*Store, error) {
	c.Source = cmp.Or(c.Source, SourceAuto)
	c.MaxAge = cmp.Or(c.MaxAge, DefaultMaxAge)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	socket, err := socketPath(cmp.Or(c.PodsSocket, DefaultPodsSocket))
	c.PodsSocket = socket
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("pod metadata: %w", err)
	case c.Source != SourceAuto && c.Source != SourcePodsAPI && c.Source != SourceAPIServer:
		return nil, fmt.Errorf("pod metadata: source %q is none of %s, %s and %s", c.Source, SourceAuto, SourcePodsAPI, SourceAPIServer)
	case c.Source == SourceAPIServer && c.REST == nil:
		return nil, errors.New("pod metadata: it is not known how to reach the API server")
	case c.Source == SourceAPIServer && c.Node == "":
		return nil, errors.New("pod metadata: the name of this node is not known")
	case c.MaxAge < 0 || c.Timeout < 0:
		return nil, fmt.Errorf("pod metadata: maximum age %s and timeout %s must be positive", c.MaxAge, c.Timeout)
	}
	var quietly []Reason
	if c.Source == SourceAuto { // most clusters have none yet
		quietly = []Reason{ReasonNoSocket, ReasonUnsupported}
	}
	s := &Store{
		c:             c,
		log:           log,
		watchFor:      watchFor,
		changeOver:    changeOverTime,
		apiDelay:      apiMinDelay,
		logInterval:   logInterval,
		changed:       make(chan struct{}, 1),
		dirty:         make(chan struct{}, 1),
		podsAPI:       newFeed(SourcePodsAPI, quietly...),
		apiServer:     newFeed(SourceAPIServer),
		logDir:        newFeed(SourceLogDir),
		ownerFailures: make(map[Reason]uint64),
		ownerWarned:   make(map[ownerTrouble]bool),
	}
	for _, r := range OwnerReasons() {
		s.ownerFailures[r] = 0
	}
	return s, nil
}

// Pods gives the pods as they are known now. It is nil until the first source
// has answered, and it is the same as long as nothing changes.
func (s *Store) Pods() *Pods { return s.published.Load() }

// Changed has a value when Pods has something else to give than at the last one.
// It is never closed.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Status gives a copy of how the reading goes, for each source that Config
// allows.
func (s *Store) Status() map[Source]SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	status := make(map[Source]SourceStatus, 3)
	if s.mayUsePodsAPI() {
		alone := !s.mayUseAPIServer() && !s.mayUseLogDir()
		status[SourcePodsAPI] = s.podsAPI.status(!s.elsewhere || alone || s.c.Source == SourcePodsAPI, now)
	}
	if s.mayUseAPIServer() {
		status[SourceAPIServer] = s.apiServer.status(s.elsewhere, now)
	}
	if s.mayUseLogDir() {
		status[SourceLogDir] = s.logDir.status(s.elsewhere, now)
	}
	return status
}

// OwnerFailures counts the owners that could not be read from the API server, by
// reason; every one of OwnerReasons is there. The workload of a pod is then the
// highest owner that is known.
func (s *Store) OwnerFailures() map[Reason]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.ownerFailures)
}

func (s *Store) mayUsePodsAPI() bool { return s.c.Source != SourceAPIServer }
func (s *Store) mayUseLogDir() bool  { return s.c.LogDir != "" || s.c.ContainerLogDir != "" }
func (s *Store) mayUseAPIServer() bool {
	return s.c.Source != SourcePodsAPI && s.c.REST != nil && s.c.Want.any()
}

// Run reads until ctx ends, and then returns nil. It must be called only once.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()

	s.mu.Lock()
	s.started = time.Now()
	s.mu.Unlock()
	if s.mayUsePodsAPI() {
		sources.Go(func() { s.readPodsAPI(ctx) })
	}
	var stop func() // ends the sources that are used instead
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	sweep := time.NewTicker(min(sweepTime, s.changeOver))
	defer sweep.Stop()
	for {
		switch elsewhere := s.decide(time.Now()); {
		case elsewhere && stop == nil:
			stop = s.readElsewhere(ctx)
		case !elsewhere && stop != nil:
			stop()
			stop = nil
		}
		s.publish(time.Now())
		select {
		case <-s.dirty:
		case <-sweep.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// decide says whether other sources than the Pods API are needed. Once they are,
// they are until it has told all pods.
func (s *Store) decide(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.podsAPI
	switch {
	case !s.mayUsePodsAPI():
		s.elsewhere = true
	case k.up:
		s.elsewhere = false
	case s.elsewhere:
	case k.downSince.IsZero() && (k.reason == ReasonNoSocket || k.reason == ReasonUnsupported || k.reason == ReasonForbidden):
		s.elsewhere = true // it was never there
	case k.downSince.IsZero():
		s.elsewhere = now.Sub(s.started) >= s.changeOver
	default:
		s.elsewhere = now.Sub(k.downSince) >= s.changeOver
	}
	return s.elsewhere
}

func (s *Store) readPodsAPI(ctx context.Context) {
	k := &podsAPI{
		socket:   s.c.PodsSocket,
		timeout:  s.c.Timeout,
		watchFor: s.watchFor,
		decoder:  newDecoder(s.c.Want.Labels, s.c.Want.Annotations, s.log),
		workload: s.c.Want.Workload,
		report:   func(r []*record, err error) { s.reported(s.podsAPI, r, err) },
		oddity:   func(err error) { s.oddity(s.podsAPI, err) },
		shelf:    newShelf(),
	}
	k.run(ctx)
}

// readElsewhere starts the sources that are used without the Pods API, and gives
// a function that ends them.
func (s *Store) readElsewhere(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	if s.mayUseLogDir() {
		d := newLogDir(s.c.LogDir, s.c.ContainerLogDir, s.logsReported)
		d.interval = s.logInterval
		running.Go(func() { d.run(ctx) })
	}
	if s.mayUseAPIServer() {
		if s.c.Source == SourceAuto {
			s.log.Info("The kubelet has no Pods API; the API server is asked for the metadata of pods", "socket", s.c.PodsSocket)
		}
		a := &apiServer{
			rest:    s.c.REST,
			node:    s.c.Node,
			timeout: s.c.Timeout,
			delay:   backoff{min: s.apiDelay, max: apiMaxDelay},
			decoder: newDecoder(s.c.Want.Labels, s.c.Want.Annotations, s.log),
			report:  func(r []*record, err error) { s.reported(s.apiServer, r, err) },
			oddity:  func(err error) { s.oddity(s.apiServer, err) },
			shelf:   newShelf(),
		}
		if s.c.Want.Workload {
			a.owners = newOwners(s.ownerFailed)
		}
		running.Go(func() { a.run(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		now := time.Now()
		s.apiServer.stop(now)
		s.logDir.stop(now)
		s.logs = nil
	}
}

func (s *Store) wake() {
	select {
	case s.dirty <- struct{}{}:
	default: // there is a notice already
	}
}

func (s *Store) reported(f *feed, records []*record, err error) {
	s.note(f, err, func() { f.records = records })
}

func (s *Store) logsReported(logs *logged, err error) {
	s.note(s.logDir, err, func() { s.logs = logs })
}

func (s *Store) note(f *feed, err error, keep func()) {
	s.mu.Lock()
	var n *notice
	if now := time.Now(); err != nil {
		n = f.failed(err, now)
	} else {
		keep()
		n = f.succeeded(now)
	}
	s.mu.Unlock()
	n.log(s.log)
	s.wake()
}

func (s *Store) oddity(f *feed, err error) {
	s.mu.Lock()
	n := f.odd(err)
	s.mu.Unlock()
	n.log(s.log)
}

func (s *Store) ownerFailed(o owner, err error) {
	s.mu.Lock()
	reason := reasonOf(err)
	if _, known := s.ownerFailures[reason]; !known {
		reason = ReasonOther
	}
	s.ownerFailures[reason]++
	level := slog.LevelDebug
	// An owner may go before its pods.
	if trouble := (ownerTrouble{reason, o.apiVersion, o.kind}); reason != ReasonNotFound && !s.ownerWarned[trouble] && len(s.ownerWarned) < maxOwners {
		s.ownerWarned[trouble] = true
		level = slog.LevelWarn
	}
	s.mu.Unlock()

	hint := SourceAPIServer.Hint(reason)
	if reason == ReasonForbidden {
		hint = "allow the service account to get objects of this kind"
	}
	s.log.Log(context.Background(), level, "An owner of pods cannot be read; their workload is the highest owner that is known",
		"api_version", o.apiVersion, "kind", o.kind, "name", o.name, "reason", reason, "err", err, "hint", hint)
}

// publish makes known what the sources say, if that changes anything.
func (s *Store) publish(now time.Time) {
	s.mu.Lock()
	best := s.best(now)
	var source Source
	var records []*record
	up := false
	if best != nil {
		source, records, up = best.source, best.records, best.up
	}
	logs := s.logs
	if !s.logDir.fresh(now, s.c.MaxAge) {
		logs = nil
	}
	s.mu.Unlock()

	before := s.published.Load()
	if before == nil && best == nil && logs == nil {
		return
	}
	current := make([]*record, 0, len(records))
	for _, r := range records {
		if r.gone.IsZero() || now.Sub(r.gone) < linger {
			current = append(current, r)
		}
	}
	if !up {
		current = slices.DeleteFunc(current, func(r *record) bool { return logs.replaced(r.pod) })
	}
	next := index(source, current, logs)
	if before.equal(next) {
		return
	}
	next.Version, next.Time = 1, now
	if before != nil {
		next.Version = before.Version + 1
	}
	s.published.Store(next)
	select {
	case s.changed <- struct{}{}:
	default: // there is a notice already
	}
}

// best gives the source to believe, or nil: one that is up, else the one that
// was up last.
func (s *Store) best(now time.Time) *feed {
	k, a := s.podsAPI, s.apiServer
	switch {
	case k.up:
		return k
	case a.up:
		return a
	case !k.fresh(now, s.c.MaxAge) && !a.fresh(now, s.c.MaxAge):
		return nil
	case k.downSince.After(a.downSince) || a.records == nil:
		return k
	}
	return a
}
