// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ownerTime is how long news of pods wait for the lookup of their owners, so
// that a pod does not first appear without its workload.
const ownerTime = 2 * time.Second

// Limits of the lookup of owners.
const (
	maxOwners   = 4096
	maxOwnerGap = 10 // from a pod to the topmost owner
	// maxTries is how often a lookup that may yet succeed is tried before the
	// pod has the highest owner that is known.
	maxTries = 3
)

// How long to wait before an owner is looked up again: after trouble, and after
// an answer that hardly changes, such as that we may not.
const (
	ownerRetry     = 20 * time.Second
	ownerLongRetry = 10 * time.Minute
)

// ownerRate is how often owners are looked up. A node of thousands must not
// strain the API server when it starts.
const ownerRate = 50 * time.Millisecond

// owners finds the workloads of pods: it follows the controllers upward, with
// one request for each owner that is not known. It belongs to one goroutine.
type owners struct {
	failed           func(owner, error)
	retry, longRetry time.Duration

	known     map[string]*ownerEntry    // by UID
	resources map[string]resourceOfKind // by API version and kind
	next      time.Time                 // when the next request may be made
}

// ownerEntry is what is known of one owner.
type ownerEntry struct {
	above   owner // its controller; zero if it has none
	found   bool  // above is known
	tries   int   // that failed
	lasting bool  // it failed for a reason that stays
	retry   time.Time
	used    bool // since the last cleaning
}

// resourceOfKind says where objects of a kind are.
type resourceOfKind struct {
	name       string
	namespaced bool
}

func newOwners(failed func(owner, error)) *owners {
	return &owners{
		failed: failed, retry: ownerRetry, longRetry: ownerLongRetry,
		known: make(map[string]*ownerEntry), resources: make(map[string]resourceOfKind),
	}
}

// top gives the workload of a pod, as far as it is known by now. If one of the
// owners cannot be looked up, it is the highest one that is known.
func (o *owners) top(r *record) Workload {
	at := r.controller
	if belongsToNode(at) {
		return Workload{}
	}
	for range maxOwnerGap {
		e := o.known[at.uid]
		switch {
		case e == nil, !e.found && !e.lasting && e.tries < maxTries:
			return Workload{}
		case !e.found:
			if at == r.controller {
				return direct(at, r.templateHash)
			}
			return Workload{Kind: at.kind, Name: at.name}
		case e.above == owner{}:
			return Workload{Kind: at.kind, Name: at.name}
		}
		at = e.above
	}
	return Workload{Kind: at.kind, Name: at.name}
}

// direct gives the workload as far as a pod itself tells: its controller, and
// above a ReplicaSet of a Deployment the Deployment. Its controller names the
// ReplicaSet after the Deployment and the hash that it also puts on the pods.
func direct(at owner, templateHash string) Workload {
	if belongsToNode(at) {
		return Workload{}
	}
	if at.kind == "ReplicaSet" && strings.HasPrefix(at.apiVersion, "apps/") && templateHash != "" {
		if name, ok := strings.CutSuffix(at.name, "-"+templateHash); ok && name != "" {
			return Workload{Kind: "Deployment", Name: name}
		}
	}
	return Workload{Kind: at.kind, Name: at.name}
}

// belongsToNode says whether a pod has no workload: it has no controller, or it
// is a static pod, whose mirror pod belongs to the node.
func belongsToNode(o owner) bool {
	return o.uid == "" || o.apiVersion == "v1" && o.kind == "Node"
}

// find looks up owners of these pods that are not known, for no longer than
// ownerTime. It says after what time there is more to look up; 0 if never.
func (o *owners) find(ctx context.Context, client *apiClient, records []*record) (again time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, ownerTime)
	defer cancel()
	o.clean()
	var next time.Time
	for _, r := range records {
		if belongsToNode(r.controller) {
			continue
		}
		at := r.controller
		for range maxOwnerGap {
			e := o.entry(at.uid)
			if !e.found && !time.Now().Before(e.retry) {
				if !o.mayAsk(ctx) { // the others wait for the next turn
					return max(time.Until(o.next), ownerRate)
				}
				o.look(ctx, client, r.pod.Namespace, at, e)
			}
			if !e.found {
				if next.IsZero() || e.retry.Before(next) {
					next = e.retry
				}
				break
			}
			if e.above == (owner{}) {
				break
			}
			at = e.above
		}
	}
	if next.IsZero() {
		return 0
	}
	return max(time.Until(next), ownerRate)
}

func (o *owners) entry(uid string) *ownerEntry {
	e := o.known[uid]
	if e == nil {
		e = &ownerEntry{}
		o.known[uid] = e
	}
	e.used = true
	return e
}

// clean forgets owners that no pod has had since the last time, once there are
// many.
func (o *owners) clean() {
	if len(o.known) < maxOwners {
		return
	}
	for uid, e := range o.known {
		if !e.used {
			delete(o.known, uid)
		}
		e.used = false
	}
	if len(o.known) >= maxOwners {
		clear(o.known)
	}
}

// mayAsk waits until the next request may be made, or says at once that it may
// not be made before ctx ends.
func (o *owners) mayAsk(ctx context.Context) bool {
	now := time.Now()
	// Requests that were not made lately may be made at once, up to a second's
	// worth of them.
	if least := now.Add(-time.Second); o.next.Before(least) {
		o.next = least
	}
	if end, ok := ctx.Deadline(); ok && end.Before(o.next) {
		return false
	}
	if wait := o.next.Sub(now); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	o.next = o.next.Add(ownerRate)
	return ctx.Err() == nil
}

// look asks for one owner.
func (o *owners) look(ctx context.Context, client *apiClient, namespace string, at owner, e *ownerEntry) {
	above, err := o.controllerOf(ctx, client, namespace, at)
	if err == nil {
		e.above, e.found = above, true
		return
	}
	if errors.Is(err, context.Canceled) {
		return // not its fault
	}
	e.tries++
	switch reasonOf(err) {
	case ReasonTimeout, ReasonUnavailable, ReasonRateLimited:
		// The others would fare no better.
		o.next = time.Now().Add(o.retry)
		e.retry = o.next
	case ReasonForbidden, ReasonNotFound, ReasonUnsupported, ReasonMalformed, ReasonTooLarge:
		e.lasting = true
		e.retry = time.Now().Add(o.longRetry)
	default:
		e.retry = time.Now().Add(o.retry)
	}
	o.failed(at, fmt.Errorf("looking up the owner of pods %s %s/%s: %w", at.kind, namespace, at.name, err))
}

func (o *owners) controllerOf(ctx context.Context, client *apiClient, namespace string, at owner) (owner, error) {
	resource, err := o.resource(ctx, client, at)
	if err != nil {
		return owner{}, err
	}
	path := versionPath(at.apiVersion)
	if resource.namespaced {
		path = append(path, "namespaces", namespace)
	}
	uid, above, err := client.controllerOf(ctx, append(path, resource.name, at.name))
	if err == nil && uid != at.uid {
		err = failed(ReasonNotFound, "another object has its name by now")
	}
	return above, err
}

// resource finds out where objects of the kind of an owner are.
func (o *owners) resource(ctx context.Context, client *apiClient, at owner) (resourceOfKind, error) {
	// Whoever creates a pod chooses these texts.
	for _, part := range append(strings.Split(at.apiVersion, "/"), at.name) {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "/%?#") {
			return resourceOfKind{}, failed(ReasonNotFound, "%q in %q is not the name of an object", at.name, at.apiVersion)
		}
	}
	if strings.Count(at.apiVersion, "/") > 1 {
		return resourceOfKind{}, failed(ReasonNotFound, "%q is not an API version", at.apiVersion)
	}
	key := at.apiVersion + " " + at.kind
	if known, ok := o.resources[key]; ok {
		return known, nil
	}
	list, err := client.resources(ctx, at.apiVersion)
	if err != nil {
		return resourceOfKind{}, fmt.Errorf("asking for the resources of %s: %w", at.apiVersion, err)
	}
	for _, r := range list {
		if r.Kind == at.kind && !strings.Contains(r.Name, "/") && r.Name != "" {
			if len(o.resources) >= maxOwners {
				clear(o.resources)
			}
			found := resourceOfKind{name: r.Name, namespaced: r.Namespaced}
			o.resources[key] = found
			return found, nil
		}
	}
	return resourceOfKind{}, failed(ReasonNotFound, "%s has no kind %s", at.apiVersion, at.kind)
}
