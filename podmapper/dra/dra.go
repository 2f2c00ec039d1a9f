// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dra reads which devices the drivers of dynamic resource allocation publish
// on this node. The kubelet reports only the name of a claimed device; the
// ResourceSlices describe it.
//
// It must read only the ResourceSlices of this node, in the background. It
// knows neither claims nor GPUs: podmapper.Table.Match joins the three.
//
// Slices without spec.nodeName, whose devices several nodes can use (spec.allNodes,
// spec.nodeSelector, spec.perDeviceNodeSelection), are ignored: a node would have to
// read the slices of all nodes to find them. GPUs are in the slices of their node.
package dra

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/kube"
	"gpu_exporter/podmapper/internal/poll"
)

// DefaultMaxAge is for Config.
const DefaultMaxAge = time.Hour

const (
	groupName    = "resource.k8s.io"
	resourceName = "resourceslices"
	// settleTime is how long a change of a pool can take. Drivers replace the slices
	// of a pool one after the other.
	settleTime = 2 * time.Second
)

// versions of the API group, best first. Kubernetes 1.34 and newer serves v1; 1.33
// serves v1beta2, and 1.32 and newer v1beta1, if that is enabled.
func versions() []string { return []string{"v1", "v1beta2", "v1beta1"} }

// Config configures a Watcher.
type Config struct {
	Kubeconfig string // file; empty: the service account of the pod
	Node       string // name of this node in Kubernetes
	// MaxAge is how long devices are valid without the API server; zero:
	// DefaultMaxAge. Published devices change with the driver or the hardware, and not
	// with pods, so a long time is safe.
	MaxAge  time.Duration
	Timeout time.Duration // of one request; zero: that of package kube
	Logger  *slog.Logger  // nil: no log
}

// Watcher keeps the published devices up to date. Its methods may be called from any
// goroutine. Only Run waits.
type Watcher struct {
	source *poll.Source[device.Published]
	watch  kube.Watch[slice]
	log    *slog.Logger
	maxAge time.Duration
	settle time.Duration
	client atomic.Pointer[kube.Client]

	mu       sync.Mutex
	version  string // of the API
	slices   int
	present  map[pool]bool // pools with a slice
	devices  map[device.PublishedName]device.PublishedDevice
	gone     map[device.PublishedName]departed
	problems map[string]string // of slices, as logged
	settling *time.Timer       // nil: no pool is incomplete
}

// departed is a device of a pool without a slice.
type departed struct {
	device.PublishedDevice
	since time.Time
}

// Status is the state of a Watcher.
type Status struct {
	poll.Status
	APIVersion string // last read, such as v1; empty before
	// Slices and Devices count what was last read and published, even if it expired.
	Slices, Devices int
}

// New makes a Watcher. It does not connect yet.
func New(c Config) (*Watcher, error) {
	w := &Watcher{
		maxAge:   cmp.Or(c.MaxAge, DefaultMaxAge),
		settle:   settleTime,
		gone:     make(map[device.PublishedName]departed),
		problems: make(map[string]string),
	}
	if w.maxAge < 0 || c.Timeout < 0 {
		return nil, fmt.Errorf("resource slices: maximum age %s and timeout %s must be positive", w.maxAge, c.Timeout)
	}
	w.source = poll.NewSource[device.Published](poll.Options{
		Name: "resource_slices", Hints: hints(), MaxAge: w.maxAge, Live: true, Log: c.Logger,
	})
	w.log = w.source.Log()
	w.watch = kube.Watch[slice]{
		Access:        kube.Access{Kubeconfig: c.Kubeconfig, Node: c.Node, Timeout: c.Timeout},
		FieldSelector: "spec.nodeName=" + c.Node,
		Trim:          func(o metav1.Object) (slice, bool) { return w.trim(o, c.Node) },
		Listed:        func(version string, all map[string]slice) { w.update(version, all, w.source.Publish) },
		Update: func(version string, all map[string]slice) {
			w.update(version, all, func(p *device.Published) { w.source.Succeed(time.Now(), p) })
		},
		Fail:      w.failed,
		Connected: w.client.Store,
	}
	for _, version := range versions() {
		w.watch.Resources = append(w.watch.Resources, schema.GroupVersionResource{Group: groupName, Version: version, Resource: resourceName})
	}
	return w, nil
}

// Run reads until ctx ends, and then returns nil. It must be called only once.
func (w *Watcher) Run(ctx context.Context) error {
	w.watch.Run(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settling != nil {
		w.settling.Stop()
	}
	return nil
}

// Published returns the devices, or nil while they are unknown: before the first
// answer, and MaxAge after the last one. As long as the devices are the same, so is
// the result.
func (w *Watcher) Published() *device.Published { return w.source.Table() }

// Changed returns a channel that receives when Published returns something new.
func (w *Watcher) Changed() <-chan struct{} { return w.source.Changed() }

// Status returns a copy of the state.
func (w *Watcher) Status() Status {
	s := Status{Status: w.source.Status()}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.APIVersion, s.Slices = w.version, w.slices
	if last, _ := w.source.Last(); last != nil {
		s.Devices = len(last.Devices)
	}
	return s
}

// trim parses a slice. One that cannot be parsed in full is logged once.
func (w *Watcher) trim(o metav1.Object, node string) (slice, bool) {
	object, ok := o.(*unstructured.Unstructured)
	if !ok {
		return slice{}, false
	}
	s, err := parseSlice(object.Object)
	if err == nil {
		delete(w.problems, o.GetName())
	} else if w.problems[o.GetName()] != err.Error() {
		w.problems[o.GetName()] = err.Error()
		w.log.Warn("ResourceSlice cannot be parsed in full; the missing devices have no owner",
			"slice", o.GetName(), "err", err, "hint", "check the driver that published it")
	}
	return s, s.node == node // a proxy can ignore field selectors
}

// update receives all slices of the node. A change that leaves a pool incomplete is
// published when the pool is complete, or when it does not become so.
func (w *Watcher) update(version string, all map[string]slice, publish func(*device.Published)) {
	devices, incomplete := join(all)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version, w.slices, w.devices = version, len(all), devices
	w.present = make(map[pool]bool, len(all))
	for _, s := range all {
		w.present[s.pool] = true
	}
	last, _ := w.source.Last()
	if last == nil || len(incomplete) == 0 {
		if w.settling != nil {
			w.settling.Stop()
			w.settling = nil
		}
		publish(w.next())
		return
	}
	w.log.Debug("Pools of devices are incomplete", "pools", incomplete)
	publish(last)
	if w.settling == nil {
		w.settling = time.AfterFunc(w.settle, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.settling != nil {
				w.settling = nil
				w.source.Publish(w.next())
			}
		})
	}
}

// next returns the devices to publish: the last ones, unless something changed. The
// lock is held.
func (w *Watcher) next() *device.Published {
	last, _ := w.source.Last()
	next := &device.Published{Version: 1, Devices: maps.Clone(w.devices)}
	if last != nil {
		next.Version = last.Version + 1
		w.recall(last, next.Devices, time.Now())
		if maps.Equal(last.Devices, next.Devices) {
			return last
		}
	}
	return next
}

// recall adds the devices of pools that have vanished. A kubelet that starts deletes
// all slices of its node (kubelet 1.37, NewDRAPluginManager in
// pkg/kubelet/cm/dra/plugin), and drivers publish them again after up to half a
// minute, while containers still hold the devices. The devices therefore remain
// until their pool is back, or for the maximum age. No container can get a device
// that no slice has, so this makes no wrong owner.
func (w *Watcher) recall(last *device.Published, devices map[device.PublishedName]device.PublishedDevice, now time.Time) {
	for name, d := range last.Devices {
		if _, known := w.gone[name]; !known {
			w.gone[name] = departed{d, now}
		}
	}
	for name, d := range w.gone {
		if _, back := devices[name]; back || w.present[pool{name.Driver, name.Pool}] || now.Sub(d.since) > w.maxAge {
			delete(w.gone, name)
		} else {
			devices[name] = d.PublishedDevice
		}
	}
}

// failed receives the errors of the watch.
func (w *Watcher) failed(err error) {
	if poll.ReasonOf(err) == poll.NotFound {
		err = poll.WithReason(reasonNotServed, fmt.Errorf("the API server serves none of %s %v: %w", groupName, versions(), err))
	}
	w.source.Fail(time.Now(), err)
}

// reasonNotServed means that the API server has no known version of the API.
const reasonNotServed poll.Reason = "not_served"

// hints returns what a user can do about each failure.
func hints() map[poll.Reason]string {
	return map[poll.Reason]string{
		poll.NoConfig:     "run in a pod with a service account and NODE_NAME set from spec.nodeName, or set --kubernetes.kubeconfig and --kubernetes.node-name",
		reasonNotServed:   "the cluster needs dynamic resource allocation: Kubernetes 1.34 has it, 1.32 and 1.33 with the feature gate DynamicResourceAllocation and --runtime-config=resource.k8s.io/v1beta1=true",
		poll.Forbidden:    "give the exporter's service account get, list and watch on resourceslices in the API group resource.k8s.io (a ClusterRole)",
		poll.Unauthorized: "check that the service account exists, and that its token is mounted and not expired",
		poll.Unavailable:  "check that the API server runs and can be reached from this node",
		poll.Timeout:      "check whether the API server is overloaded, and whether a firewall or a NetworkPolicy drops the connection",
		poll.RateLimited:  "check the flow schemas of the API server (kubectl get flowschemas)",
		poll.Malformed:    "check that the configured address is that of a Kubernetes API server",
		poll.Other:        "check the API server's log",
	}
}
