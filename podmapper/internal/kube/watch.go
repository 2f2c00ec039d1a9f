// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"gpu_exporter/podmapper/internal/poll"
)

// Watch follows the objects of one resource. The functions are called one at a
// time, except Fail.
type Watch[T any] struct {
	Access Access
	// Resources are the versions of one resource, best first. A list uses the first
	// one that the server has.
	Resources     []schema.GroupVersionResource
	FieldSelector string
	// Metadata requests only the metadata of the objects, which are then
	// *metav1.PartialObjectMetadata. Otherwise they are *unstructured.Unstructured.
	Metadata bool
	// Trim returns the part of an object that is kept; false omits the object.
	Trim func(object metav1.Object) (T, bool)
	// Update receives the trimmed objects by UID, or by namespace and name if they
	// have no UID: after a list, when a watch begins, and after each change. It must
	// not keep or modify the map.
	Update func(version string, objects map[string]T)
	// Listed, if set, receives the objects after a list instead of Update: they are
	// not watched yet.
	Listed func(version string, objects map[string]T)
	// Fail receives each error of a client, a request or a watch, with its reason. A
	// watch that only has to be restarted is no error.
	Fail func(error)
	// Connected, if set, receives each new client, before its first request.
	Connected func(*Client)
	// Retry are the first and the longest pause after a failure. Zero: 1 s and 1 min.
	Retry [2]time.Duration
}

// Run follows the objects until ctx ends. Rejected credentials, a kubeconfig and a
// service account are read again before each connection.
func (w *Watch[T]) Run(ctx context.Context) {
	retry := wait.Backoff{
		Duration: cmp.Or(w.Retry[0], time.Second), Cap: cmp.Or(w.Retry[1], time.Minute),
		Factor: 2, Jitter: 1, Steps: 16,
	}
	pause := retry
	for {
		began := time.Now()
		client, err := w.Access.Client()
		if err != nil {
			w.Fail(err)
		} else {
			if w.Connected != nil {
				w.Connected(client)
			}
			w.follow(ctx, client, retry)
			client.Close()
		}
		if time.Since(began) > retry.Cap {
			pause = retry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.Step()):
		}
	}
}

// follow returns when ctx ends, or when the credentials are rejected.
func (w *Watch[T]) follow(ctx context.Context, client *Client, retry wait.Backoff) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &store[T]{w: w, client: client, objects: make(map[string]T), rejected: cancel}
	lw := &listWatch{&cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch}}
	silent := klog.Logger{} // the store reports each error
	reflector := cache.NewReflectorWithOptions(lw, nil, s,
		cache.ReflectorOptions{Name: w.Resources[0].Resource, Logger: &silent, Backoff: &retry})
	reflector.RunWithContext(klog.NewContext(ctx, silent))
}

// listWatch makes the reflector list objects before it watches them. A watch that
// begins with a list would hide which of the two fails.
type listWatch struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is what the reflector looks for.
func (*listWatch) IsWatchListSemanticsUnSupported() bool { return true }

// store implements cache.ReflectorStore.
type store[T any] struct {
	w        *Watch[T]
	client   *Client
	resource schema.GroupVersionResource // of the last list
	objects  map[string]T
	rejected func()    // to be called when the credentials are rejected
	began    time.Time // of the last watch
}

func (s *store[T]) list(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
	options.FieldSelector = s.w.FieldSelector
	request, cancel := context.WithTimeout(ctx, s.client.timeout)
	defer cancel()
	for _, s.resource = range s.w.Resources {
		if s.w.Metadata {
			list, err = s.client.Metadata.Resource(s.resource).List(request, options)
		} else {
			list, err = s.client.Dynamic.Resource(s.resource).List(request, options)
		}
		if !apierrors.IsNotFound(err) {
			break
		}
	}
	if err != nil {
		// The reflector tries such a list again without a resource version.
		if options.ResourceVersion == "" || !isOutdated(err) {
			s.failed(ctx, "listing", err)
		}
		return nil, err
	}
	return list, nil
}

func (s *store[T]) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.FieldSelector = s.w.FieldSelector
	// The reflector starts the next watch at once, also after one that a proxy cuts short.
	select {
	case <-time.After(time.Until(s.began.Add(cmp.Or(s.w.Retry[0], time.Second)))):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.began = time.Now()
	request, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.client.timeout, func() {
		cancel(poll.WithReason(poll.Timeout, errors.New("no answer in time")))
	})
	var events watch.Interface
	var err error
	if s.w.Metadata {
		events, err = s.client.Metadata.Resource(s.resource).Watch(request, options)
	} else {
		events, err = s.client.Dynamic.Resource(s.resource).Watch(request, options)
	}
	if !timer.Stop() && err != nil {
		err = context.Cause(request)
	}
	if err != nil {
		cancel(nil)
		// After an upgrade the version does not exist; the next list finds another.
		if !isOutdated(err) && !apierrors.IsNotFound(err) {
			s.failed(ctx, "watching", err)
		}
		return nil, err
	}
	s.changed()
	r := &relay{Interface: events, out: make(chan watch.Event), done: request.Done(), cancel: cancel}
	go func() {
		if err := r.run(); err != nil && !isOutdated(err) {
			s.failed(ctx, "watching", err)
		}
	}()
	return r, nil
}

// isOutdated reports whether the server cannot continue from the resource version.
func isOutdated(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

func (s *store[T]) failed(ctx context.Context, doing string, err error) {
	if ctx.Err() != nil {
		return
	}
	s.w.Fail(fmt.Errorf("%s %s of this node: %w", doing, s.w.Resources[0].GroupResource(), WithReason(err)))
	if apierrors.IsUnauthorized(err) {
		s.rejected()
	}
}

// relay passes on the events of a watch, because the reflector only logs the errors
// among them.
type relay struct {
	watch.Interface
	out    chan watch.Event
	done   <-chan struct{}
	cancel context.CancelCauseFunc
}

// ResultChan implements watch.Interface.
func (r *relay) ResultChan() <-chan watch.Event { return r.out }

// Stop implements watch.Interface.
func (r *relay) Stop() {
	r.cancel(nil)
	r.Interface.Stop()
}

// run returns the error event, if there is one, or an error for a watch that ends
// at once: some proxies accept watches that they cannot keep.
func (r *relay) run() (err error) {
	defer close(r.out)
	begun, empty := time.Now(), true
	for event := range r.Interface.ResultChan() {
		empty = false
		if event.Type == watch.Error && err == nil {
			err = apierrors.FromObject(event.Object)
		}
		select {
		case r.out <- event:
		case <-r.done: // the reflector stops reading after an error
			return err
		}
	}
	if empty && time.Since(begun) < time.Second {
		return poll.WithReason(poll.Unavailable, errors.New("the watch ended at once"))
	}
	return err
}

func (s *store[T]) changed() { s.w.Update(s.resource.Version, s.objects) }

func (s *store[T]) put(object any) error {
	o, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("unexpected object %T", object)
	}
	if trimmed, ok := s.w.Trim(o); ok {
		s.objects[key(o)] = trimmed
	} else {
		delete(s.objects, key(o))
	}
	return nil
}

func key(o metav1.Object) string {
	return cmp.Or(string(o.GetUID()), o.GetNamespace()+"/"+o.GetName())
}

// Add implements cache.ReflectorStore.
func (s *store[T]) Add(object any) error {
	defer s.changed()
	return s.put(object)
}

// Update implements cache.ReflectorStore.
func (s *store[T]) Update(object any) error { return s.Add(object) }

// Delete implements cache.ReflectorStore.
func (s *store[T]) Delete(object any) error {
	if o, ok := object.(metav1.Object); ok {
		delete(s.objects, key(o))
		s.changed()
	}
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *store[T]) Replace(list []any, _ string) error {
	clear(s.objects)
	var errs []error
	for _, object := range list {
		errs = append(errs, s.put(object))
	}
	if s.w.Listed != nil {
		s.w.Listed(s.resource.Version, s.objects)
	} else {
		s.changed()
	}
	return errors.Join(errs...)
}

// Resync implements cache.ReflectorStore.
func (s *store[T]) Resync() error { return nil }
