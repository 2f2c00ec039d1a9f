// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	pods "k8s.io/kubelet/pkg/apis/pods/v1alpha1"
)

// PodsAPI is a server of the kubelet's Pods API. Like kubelet 1.37, a watch sends all
// pods in the order of their UIDs, then INITIAL_SYNC_COMPLETE, and then the changes.
// Its state can be set at any time.
type PodsAPI struct {
	pods.UnimplementedPodsServer
	server
	watches atomic.Int64

	mu       sync.Mutex
	pods     []*corev1.Pod
	watchers map[chan *pods.WatchPodsEvent]bool
	silent   bool
	err      error
}

// NewPodsAPI makes a server that will listen on socket once it is started.
func NewPodsAPI(socket string) *PodsAPI {
	p := &PodsAPI{watchers: make(map[chan *pods.WatchPodsEvent]bool)}
	p.socket = socket
	p.register = func(r grpc.ServiceRegistrar) { pods.RegisterPodsServer(r, p) }
	return p
}

// SetPods sets the pods of new watches. Existing watches receive nothing, as from a
// kubelet when the labels of a pod change and its status does not.
func (p *PodsAPI) SetPods(all ...*corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods = slices.SortedFunc(slices.Values(all), func(a, b *corev1.Pod) int { return cmp.Compare(a.UID, b.UID) })
}

// Put adds or replaces a pod, by its UID, and notifies all watches.
func (p *PodsAPI) Put(pod *corev1.Pod) error {
	p.mu.Lock()
	kind := pods.EventType_ADDED
	all := slices.DeleteFunc(slices.Clone(p.pods), func(other *corev1.Pod) bool { return other.UID == pod.UID })
	if len(all) < len(p.pods) {
		kind = pods.EventType_MODIFIED
	}
	p.mu.Unlock()
	p.SetPods(append(all, pod)...)
	return p.notify(kind, pod)
}

// Remove removes a pod and notifies all watches.
func (p *PodsAPI) Remove(pod *corev1.Pod) error {
	p.mu.Lock()
	p.pods = slices.DeleteFunc(slices.Clone(p.pods), func(other *corev1.Pod) bool { return other.UID == pod.UID })
	p.mu.Unlock()
	return p.notify(pods.EventType_DELETED, &corev1.Pod{ // the kubelet sends no more
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	})
}

func (p *PodsAPI) notify(kind pods.EventType, pod *corev1.Pod) error {
	b, err := pod.Marshal()
	if err != nil {
		return err
	}
	p.Send(&pods.WatchPodsEvent{Type: kind, Pod: b})
	return nil
}

// Send sends any event to all watches. Like the kubelet, it ends slow watches.
func (p *PodsAPI) Send(e *pods.WatchPodsEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watchers {
		select {
		case w <- e:
		default:
			delete(p.watchers, w)
			close(w)
		}
	}
}

// Drop ends all watches, as the kubelet ends slow ones.
func (p *PodsAPI) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watchers {
		close(w)
	}
	clear(p.watchers)
}

// SetError makes watches fail with err, a grpc status. Nil ends that.
func (p *PodsAPI) SetError(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// SetSilent makes new watches send nothing.
func (p *PodsAPI) SetSilent(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

// Watches counts the watches that have begun so far.
func (p *PodsAPI) Watches() int { return int(p.watches.Load()) }

// WatchPods implements the Pods API.
func (p *PodsAPI) WatchPods(_ *pods.WatchPodsRequest, stream grpc.ServerStreamingServer[pods.WatchPodsEvent]) error {
	events := make(chan *pods.WatchPodsEvent, 100) // the size of the kubelet's channel
	p.mu.Lock()
	all, silent, err := p.pods, p.silent, p.err
	if err == nil {
		p.watchers[events] = true
	}
	p.mu.Unlock()
	p.watches.Add(1)
	if err != nil {
		return err
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, events)
	}()
	if silent {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	for _, pod := range all {
		b, err := pod.Marshal()
		if err != nil {
			return err
		}
		if err := stream.Send(&pods.WatchPodsEvent{Type: pods.EventType_ADDED, Pod: b}); err != nil {
			return err
		}
	}
	if err := stream.Send(&pods.WatchPodsEvent{Type: pods.EventType_INITIAL_SYNC_COMPLETE}); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return status.Error(codes.ResourceExhausted, "watch client channel closed")
			}
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
