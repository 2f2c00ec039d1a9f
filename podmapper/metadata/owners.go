// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"gpu_exporter/podmapper/internal/kube"
	"gpu_exporter/podmapper/internal/poll"
)

// Bounds of the lookup of owners.
const (
	maxOwners     = 4096 // remembered owners, and kinds
	maxOwnerDepth = 10   // from a pod to its topmost owner
	// maxTries is the number of failed lookups after which a pod gets the highest
	// known owner. Until then its workload is unknown, so that it does not change.
	maxTries = 3
	forever  = 1 << 62 // of an entry; the caches are bounded by their size
)

// ownerTime bounds the lookups before a table is published. A pod should not appear
// without its workload first.
const ownerTime = 2 * time.Second

// Pauses before an owner is looked up again: after a failure that can pass, and
// after one that rarely does, such as a missing permission.
const (
	ownerRetry     = 20 * time.Second
	ownerLongRetry = 10 * time.Minute
)

// Rate of the lookups. All nodes of a cluster can start at the same time.
const (
	ownersPerSecond = 20
	ownerBurst      = 40
)

// labelTemplateHash is on the pods of a Deployment. Their ReplicaSet is named after
// the Deployment and this hash.
const labelTemplateHash = "pod-template-hash"

// owner is the controller of a pod or of another owner. It is in the namespace of
// the pod, or in none.
type owner struct{ apiVersion, kind, name, uid string }

// controllerOf returns the controller of an object. It is zero without one.
func controllerOf(o metav1.Object) owner {
	c := metav1.GetControllerOfNoCopy(o)
	if c == nil {
		return owner{}
	}
	return owner{apiVersion: c.APIVersion, kind: c.Kind, name: c.Name, uid: string(c.UID)}
}

// direct returns the workload that a pod shows without a lookup: its controller, or
// the Deployment of its ReplicaSet. The node is the controller of mirror pods.
func (r *record) direct() Workload {
	c := r.controller
	if c.uid == "" || c.apiVersion == "v1" && c.kind == "Node" {
		return Workload{}
	}
	if c.kind == "ReplicaSet" && strings.HasPrefix(c.apiVersion, "apps/") && r.templateHash != "" {
		if name, ok := strings.CutSuffix(c.name, "-"+r.templateHash); ok && name != "" {
			return Workload{Kind: "Deployment", Name: name}
		}
	}
	return Workload{Kind: c.kind, Name: c.name}
}

// ownerLookup finds the workloads of pods. It follows the controllers upwards, with
// one request for each unknown owner. It is for one goroutine, except client.
type ownerLookup struct {
	failed func(owner, error)
	client atomic.Pointer[kube.Client]
	limit  flowcontrol.RateLimiter
	known  *cache.LRUExpireCache // *ownerEntry by UID
	kinds  *cache.LRUExpireCache // kindResource by schema.GroupVersionKind
	paused time.Time             // no request before, because the API server is in trouble
}

// ownerEntry is what is known of one owner.
type ownerEntry struct {
	above owner // its controller; zero if it has none
	found bool  // above is known
	tries int   // failed lookups
	final bool  // it failed for a reason that rarely passes
	retry time.Time
}

func (e *ownerEntry) pending() bool { return !e.found && !e.final && e.tries < maxTries }

type kindResource struct {
	schema.GroupVersionResource
	namespaced bool
}

func newOwnerLookup(failed func(owner, error)) *ownerLookup {
	return &ownerLookup{
		failed: failed, known: cache.NewLRUExpireCache(maxOwners), kinds: cache.NewLRUExpireCache(maxOwners),
		limit: flowcontrol.NewTokenBucketRateLimiter(ownersPerSecond, ownerBurst),
	}
}

// workload returns the workload of a pod. It is the highest known owner if a lookup
// fails for good. Pending means that it is not known yet.
func (o *ownerLookup) workload(ctx context.Context, r *record) (w Workload, pending bool) {
	if r.direct() == (Workload{}) {
		return Workload{}, false
	}
	at := r.controller
	for range maxOwnerDepth {
		e := o.entry(ctx, r.pod.Namespace, at)
		switch {
		case e.pending():
			return Workload{}, true
		case !e.found && at == r.controller:
			return r.direct(), false
		case !e.found, e.above == owner{}:
			return Workload{Kind: at.kind, Name: at.name}, false
		}
		at = e.above
	}
	return Workload{Kind: at.kind, Name: at.name}, false
}

// entry returns what is known of an owner, after a lookup if that may help.
func (o *ownerLookup) entry(ctx context.Context, namespace string, at owner) *ownerEntry {
	e := &ownerEntry{}
	if known, ok := o.known.Get(at.uid); ok {
		e = known.(*ownerEntry)
	} else {
		o.known.Add(at.uid, e, forever)
	}
	now := time.Now()
	client := o.client.Load()
	if e.found || now.Before(e.retry) || now.Before(o.paused) || client == nil || ctx.Err() != nil || !o.limit.TryAccept() {
		return e
	}
	above, err := o.controllerOf(ctx, client, namespace, at)
	switch {
	case err == nil:
		e.above, e.found = above, true
		return e
	case errors.Is(ctx.Err(), context.Canceled): // the caller stops
		return e
	}
	now = time.Now()
	e.tries++
	e.retry = now.Add(ownerRetry)
	switch poll.ReasonOf(err) {
	case poll.Timeout, poll.Unavailable, poll.RateLimited:
		o.paused = e.retry
	case poll.Forbidden, poll.NotFound, poll.Unsupported, poll.Malformed, poll.TooLarge:
		e.final, e.retry = true, now.Add(ownerLongRetry)
	}
	o.failed(at, fmt.Errorf("looking up the owner of pods %s %s/%s: %w", at.kind, namespace, at.name, err))
	return e
}

// controllerOf requests the metadata of an owner and returns its controller.
func (o *ownerLookup) controllerOf(ctx context.Context, client *kube.Client, namespace string, at owner) (owner, error) {
	r, err := o.resource(ctx, client, at)
	if err != nil {
		return owner{}, err
	}
	if !r.namespaced {
		namespace = ""
	}
	object, err := client.Metadata.Resource(r.GroupVersionResource).Namespace(namespace).Get(ctx, at.name, metav1.GetOptions{})
	switch {
	case err != nil:
		return owner{}, kube.WithReason(err)
	case string(object.UID) != at.uid:
		return owner{}, poll.WithReason(poll.NotFound, errors.New("a newer object has its name"))
	}
	return controllerOf(object), nil
}

// resource returns the resource of the kind of an owner.
func (o *ownerLookup) resource(ctx context.Context, client *kube.Client, at owner) (kindResource, error) {
	gv, err := schema.ParseGroupVersion(at.apiVersion)
	// Everyone who may create pods chooses these texts, which become a path.
	for _, part := range []string{gv.Group, gv.Version, at.name} {
		if problems := rest.IsValidPathSegmentName(part); len(problems) > 0 || at.name == "" || gv.Version == "" {
			err = fmt.Errorf("the API version %q or the name %q is invalid", at.apiVersion, at.name)
		}
	}
	if err != nil {
		return kindResource{}, poll.WithReason(poll.NotFound, err)
	}
	gvk := gv.WithKind(at.kind)
	if known, ok := o.kinds.Get(gvk); ok {
		return known.(kindResource), nil
	}
	gvr, namespaced, err := client.Resource(ctx, gvk)
	if err != nil {
		return kindResource{}, err
	}
	found := kindResource{gvr, namespaced}
	o.kinds.Add(gvk, found, forever)
	return found, nil
}
