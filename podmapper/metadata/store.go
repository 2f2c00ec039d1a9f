// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"

	"gpu_exporter/podmapper/internal/kube"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/unixsocket"
)

// Defaults of Config.
const (
	DefaultMaxAge  = time.Hour
	DefaultTimeout = 30 * time.Second
)

// Pauses between two tries of a source. A restart of the kubelet takes about a
// second.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// standInTime is how long the Pods API must be down before the log directories are
// used as well: longer than a kubelet takes to restart.
const standInTime = time.Minute

// sweepTime is the interval of the removal of pods that have ended.
const sweepTime = 10 * time.Second

// Config configures a Store.
type Config struct {
	Node       string // name of this node in Kubernetes; for the API server
	PodsSocket string // of the kubelet's Pods API; empty: DefaultPodsSocket
	// Kubeconfig is a file for the API server. Empty: the service account of the pod
	// that the process runs in. It is read again before each connection.
	Kubeconfig string
	// LogDir and ContainerLogDir are the kubelet's directories of logs by pod and by
	// container. Both empty: they are not read.
	LogDir, ContainerLogDir string
	Want                    Want
	// Source is SourcePodsAPI, SourceAPIServer or SourceAuto (the same as empty).
	// If Want is empty, no request is sent to the API server.
	Source Source
	// MaxAge is how long pods remain after their source failed. Zero: DefaultMaxAge.
	// Without the API server no pod comes to the node. Pods that have been replaced,
	// according to the log directories, do not remain.
	MaxAge  time.Duration
	Timeout time.Duration // of one request; zero: DefaultTimeout
	Logger  *slog.Logger  // nil: no log
}

// Want is what is read in addition to identities.
type Want struct {
	Labels, Annotations func(key string) bool // which to keep; nil: none
	Workload, UID       bool
}

func (w Want) any() bool { return w.Labels != nil || w.Annotations != nil || w.Workload || w.UID }

// SourceStatus is the state of one source.
type SourceStatus struct {
	poll.Status
	// InUse means that the Store relies on the source now: unless it is Up, something
	// is missing.
	InUse bool
}

// Store keeps the pods of this node up to date. Its methods may be called from any
// goroutine; only Run waits for anything.
type Store struct {
	c    Config
	once *onceLogger
	// Constants, except in tests.
	watchFor, sweep, logInterval time.Duration
	retry                        wait.Backoff

	podsAPI, apiServer *poll.Source[table]
	logDir             *poll.Source[logNames]
	workloads          *poll.Source[struct{}] // counts failed lookups
	owners             *ownerLookup
	active             atomic.Pointer[activation]

	published atomic.Pointer[Pods]
	changed   chan struct{}
}

// activation is the choice of a source: SourcePodsAPI, SourceAPIServer or none.
type activation struct {
	source Source
	since  time.Time
}

// New makes a Store. It only looks for the socket of the Pods API.
func New(c Config) (*Store, error) {
	c.Source = cmp.Or(c.Source, SourceAuto)
	c.MaxAge = cmp.Or(c.MaxAge, DefaultMaxAge)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	socket, err := unixsocket.Path(cmp.Or(c.PodsSocket, DefaultPodsSocket))
	c.PodsSocket = socket
	switch {
	case err != nil:
		return nil, fmt.Errorf("pod metadata: %w", err)
	case c.Source != SourceAuto && c.Source != SourcePodsAPI && c.Source != SourceAPIServer:
		return nil, fmt.Errorf("pod metadata: source %q is none of %s, %s and %s", c.Source, SourceAuto, SourcePodsAPI, SourceAPIServer)
	case c.Source == SourceAPIServer && c.Node == "":
		return nil, errors.New("pod metadata: the name of this node is not known")
	case c.MaxAge < 0 || c.Timeout < 0:
		return nil, fmt.Errorf("pod metadata: maximum age %s and timeout %s must be positive", c.MaxAge, c.Timeout)
	}
	s := &Store{
		c: c, once: &onceLogger{log: c.Logger, seen: make(map[string]bool)},
		watchFor: watchFor, sweep: sweepTime, logInterval: logInterval,
		retry:   wait.Backoff{Duration: firstRetry, Cap: lastRetry, Factor: 2, Jitter: 1, Steps: 64},
		changed: make(chan struct{}, 1),
	}
	s.podsAPI = poll.NewSource[table](s.options(SourcePodsAPI))
	s.apiServer = poll.NewSource[table](s.options(SourceAPIServer))
	s.logDir = poll.NewSource[logNames](s.options(SourceLogDir))
	s.workloads = poll.NewSource[struct{}](poll.Options{Name: "workloads", Hints: ownerHints()})
	s.owners = newOwnerLookup(s.ownerFailed)
	source, _ := s.choose()
	s.active.Store(&activation{source, time.Now()})
	return s, nil
}

func (s *Store) options(source Source) poll.Options {
	return poll.Options{
		Name: string(source), Hints: source.hints(),
		Level: func(r Reason) slog.Level {
			if r == poll.NoSocket && s.c.Source == SourceAuto { // the kubelet is older than 1.37
				return slog.LevelDebug
			}
			if r == reasonNoDirectory { // as in most containers; the mapping works without
				return slog.LevelInfo
			}
			return slog.LevelWarn
		},
		MaxAge: s.c.MaxAge, Live: source != SourceLogDir, Log: s.c.Logger,
	}
}

// Pods returns the current table. It is nil before the first answer of a source, and
// the same pointer while nothing changes.
func (s *Store) Pods() *Pods { return s.published.Load() }

// Changed returns a channel that receives when Pods returns a new table. It is for
// one receiver. Several changes can be one message.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Status returns the state of each source that the configuration allows.
func (s *Store) Status() map[Source]SourceStatus {
	active := s.active.Load().source
	status := make(map[Source]SourceStatus, 3)
	if s.mayUsePodsAPI() {
		status[SourcePodsAPI] = SourceStatus{s.podsAPI.Status(), active == SourcePodsAPI}
	}
	if s.mayUseAPIServer() {
		status[SourceAPIServer] = SourceStatus{s.apiServer.Status(), active == SourceAPIServer}
	}
	if s.mayUseLogDir() {
		logs := s.logDir.Status()
		status[SourceLogDir] = SourceStatus{logs, s.needsLogDir(time.Now()) && logs.Reason != reasonNoDirectory}
	}
	return status
}

// OwnerFailures counts the failed lookups of owners, by reason. It contains all
// reasons of such a failure.
func (s *Store) OwnerFailures() map[Reason]uint64 { return s.workloads.Status().Failures }

func (s *Store) mayUsePodsAPI() bool   { return s.c.Source != SourceAPIServer }
func (s *Store) mayUseAPIServer() bool { return s.c.Source != SourcePodsAPI && s.c.Want.any() }
func (s *Store) mayUseLogDir() bool    { return s.c.LogDir != "" || s.c.ContainerLogDir != "" }

// choose returns the source to read next. It is empty if only the log directories
// can be read. The error is why SourceAuto does not choose the Pods API.
func (s *Store) choose() (source Source, err error) {
	switch s.c.Source {
	case SourcePodsAPI:
		return SourcePodsAPI, nil
	case SourceAuto:
		_, err = os.Stat(s.c.PodsSocket)
		if !errors.Is(err, fs.ErrNotExist) || !s.mayUseAPIServer() && !s.mayUseLogDir() {
			return SourcePodsAPI, nil
		}
		err = poll.WithReason(poll.NoSocket, err)
	}
	if s.mayUseAPIServer() {
		source = SourceAPIServer
	}
	return source, err
}

// needsLogDir reports whether the log directories add to the active source.
func (s *Store) needsLogDir(now time.Time) bool {
	active := s.active.Load()
	if !s.mayUseLogDir() || active.source != SourcePodsAPI {
		return s.mayUseLogDir()
	}
	status := s.podsAPI.Status()
	return !status.Up && now.Sub(active.since) >= standInTime && now.Sub(status.LastSuccess) >= standInTime
}

// Run reads until ctx ends, and then returns nil. It must be called only once.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	readers.Go(func() { s.readSource(ctx) })
	readers.Go(func() { s.readLogDirs(ctx) })
	timer := time.NewTimer(s.sweep)
	defer timer.Stop()
	for {
		select {
		case <-s.podsAPI.Changed():
		case <-s.apiServer.Changed():
		case <-s.logDir.Changed():
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		timer.Reset(s.sweep)
		if pending := s.publish(ctx, time.Now()); pending {
			timer.Reset(min(s.sweep, time.Second))
		}
	}
}

// readSource reads one source at a time. It chooses the source again when reading
// has failed.
func (s *Store) readSource(ctx context.Context) {
	var pods *podSet
	retry := s.retry
	for ctx.Err() == nil {
		began := time.Now()
		source, err := s.choose()
		if err != nil {
			s.podsAPI.Fail(began, err)
		}
		if pods == nil || source != s.active.Load().source {
			pods = newPodSet()
			s.active.Store(&activation{source, began})
			s.c.Logger.Info("Source of pod metadata", "source", source, "pods_socket", s.c.PodsSocket)
		}
		switch source {
		case SourcePodsAPI:
			s.followPodsAPI(ctx, pods)
		case SourceAPIServer:
			s.followAPIServer(ctx, pods)
		}
		if time.Since(began) > lastRetry {
			retry = s.retry
		}
		select {
		case <-time.After(retry.Step()):
		case <-ctx.Done():
		}
	}
}

// followAPIServer watches the API server until a request fails.
func (s *Store) followAPIServer(ctx context.Context, pods *podSet) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := kube.Watch[*record]{
		Access:        kube.Access{Kubeconfig: s.c.Kubeconfig, Node: s.c.Node, Timeout: s.c.Timeout},
		Resources:     []schema.GroupVersionResource{{Version: "v1", Resource: "pods"}},
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", s.c.Node).String(),
		Metadata:      true,
		Trim: func(o metav1.Object) (*record, bool) {
			r, err := s.newRecord(o)
			if err != nil {
				s.omit(s.apiServer, err)
			}
			return r, err == nil
		},
		Update: func(_ string, objects map[string]*record) {
			now := time.Now()
			pods.replace(maps.Values(objects), now)
			s.publishFrom(SourceAPIServer, pods.table(now))
		},
		Fail: func(err error) {
			if poll.ReasonOf(err) == poll.NotFound {
				err = poll.WithReason(poll.Unsupported, err)
			}
			s.apiServer.Fail(time.Now(), err)
			cancel()
		},
		Connected: s.owners.client.Store,
	}
	watch.Run(ctx)
}

// publishFrom publishes a table of the active source. The other source becomes
// obsolete.
func (s *Store) publishFrom(source Source, t *table) {
	from, other := s.podsAPI, s.apiServer
	if source == SourceAPIServer {
		from, other = other, from
	}
	from.Succeed(time.Now(), t)
	other.Forget()
}

// reading returns the source that is read.
func (s *Store) reading() *poll.Source[table] {
	if s.active.Load().source == SourceAPIServer {
		return s.apiServer
	}
	return s.podsAPI
}

// omit records that one pod cannot be read.
func (s *Store) omit(source *poll.Source[table], err error) {
	reason := poll.ReasonOf(err)
	source.Count(reason)
	s.once.warn(string(reason), "A pod cannot be decoded and is omitted", "reason", reason, "err", err)
}

// ownerFailed counts and logs a failed lookup.
func (s *Store) ownerFailed(o owner, err error) {
	reason := poll.ReasonOf(err)
	s.workloads.Count(reason)
	if reason == poll.NotFound { // an owner can end before its pods
		s.c.Logger.Debug("The owner of a pod does not exist", "api_version", o.apiVersion, "kind", o.kind, "name", o.name, "err", err)
		return
	}
	s.once.warn(fmt.Sprint(reason, o.apiVersion, o.kind), "The owner of a pod cannot be read; the workload is its highest known owner",
		"api_version", o.apiVersion, "kind", o.kind, "name", o.name, "reason", reason, "err", err, "hint", s.workloads.Hint(reason))
}

// publish joins the sources and publishes the result if it differs. Pending means
// that a workload is not known yet.
func (s *Store) publish(ctx context.Context, now time.Time) (pending bool) {
	source, records, up := s.best()
	var logs *logNames
	if s.needsLogDir(now) {
		logs = s.logDir.Table()
	}
	before := s.published.Load()
	if before == nil && source == "" && logs == nil {
		return false
	}
	records = slices.DeleteFunc(slices.Clone(records), func(r *record) bool {
		return !r.remains(now) || !up && logs.replaced(r.pod)
	})
	if source == SourceAPIServer && s.c.Want.Workload {
		ctx, cancel := context.WithTimeout(ctx, ownerTime)
		defer cancel()
		for i, r := range records {
			workload, unknown := s.owners.workload(ctx, r)
			pending = pending || unknown
			if workload != r.pod.Workload {
				with, pod := *r, *r.pod
				pod.Workload, with.pod = workload, &pod
				records[i] = &with
			}
		}
	}
	if ctx.Err() != nil {
		return false
	}
	if next := newPods(source, records, logs); !before.equal(next) {
		s.published.Store(next)
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	return pending
}

// best returns the source with valid records, or an empty one. The inactive source
// is valid until the active one has answered.
func (s *Store) best() (source Source, records []*record, up bool) {
	if t := s.podsAPI.Table(); t != nil {
		source, records, up = SourcePodsAPI, t.records, s.podsAPI.Status().Up
	}
	if t := s.apiServer.Table(); t != nil {
		source, records, up = SourceAPIServer, t.records, s.apiServer.Status().Up
	}
	return source, records, up
}
