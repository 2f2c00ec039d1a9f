// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package metadata knows the pods of this node: their UIDs, labels,
// annotations and workloads, and which pod a container or a cgroup belongs to.
//
// It has three sources. The kubelet's Pods API (Kubernetes 1.37 and newer)
// needs neither the API server nor any permission there. The API server is
// asked for the metadata of this node's pods only, never for their specs. The
// names below /var/log/pods and /var/log/containers give identities without any
// API.
//
// Everything is read in the background and published as immutable Pods; a
// scrape never waits for a source. The package must not know metrics: how keys
// become label names is for others to say.
package metadata

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Pod is one pod. It is immutable, and so is what it holds.
type Pod struct {
	Namespace, Name string
	// UID is the pod's, as its source calls it. A static pod has two: the one
	// that the kubelet gave it (the Pods API and the log directory say this
	// one), and that of its mirror pod in the API server.
	UID string
	// CgroupUID is the one after which the kubelet names the pod's cgroups and
	// log directories. It is UID except for a static pod that is seen through
	// the API server, whose annotation kubernetes.io/config.mirror has it.
	CgroupUID string
	// Labels and Annotations are those that Config allows, sorted by key.
	Labels, Annotations []KeyValue
	// Workload is zero for a pod without a controller, for a static pod, while
	// the workload is not known, and unless Config asks for it.
	Workload Workload
	// Containers are those with an ID by now, also init and ephemeral ones,
	// sorted by ID. Nil where they are not known.
	Containers []Container
}

// KeyValue is a label or an annotation, as it is in the pod.
type KeyValue struct{ Key, Value string }

// Workload is what a pod belongs to: the topmost controller above it.
type Workload struct{ Kind, Name string }

// Container is a container of a pod.
type Container struct {
	ID   string // without the runtime's prefix such as containerd://
	Name string
}

func (p *Pod) equal(q *Pod) bool {
	return p.Namespace == q.Namespace && p.Name == q.Name && p.UID == q.UID && p.CgroupUID == q.CgroupUID &&
		p.Workload == q.Workload && slices.Equal(p.Labels, q.Labels) && slices.Equal(p.Annotations, q.Annotations) &&
		slices.Equal(p.Containers, q.Containers)
}

func comparePods(a, b *Pod) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
		strings.Compare(a.UID, b.UID),
		strings.Compare(a.CgroupUID, b.CgroupUID),
	)
}

// Pods are the pods of this node at one moment. They are immutable. A nil *Pods
// knows no pod.
type Pods struct {
	Version uint64    // no two Pods of a Store have the same
	Time    time.Time // since when this is known
	// Source is where labels, annotations, workloads and UIDs are from. Empty
	// while they are not known: there are identities at most.
	Source Source

	all         []*Pod
	byName      map[podName]*Pod
	byCgroupUID map[string]*Pod
	byContainer map[string]containerOf
}

type podName struct{ namespace, name string }

type containerOf struct {
	pod  *Pod
	name string
}

// All gives the pods, sorted by namespace, name and UID. A pod that has ended is
// among them for a minute more, so that the last samples with it find it.
func (p *Pods) All() []*Pod {
	if p == nil {
		return nil
	}
	return p.all
}

// ByName gives the pod of this name, or nil. Of several that had the name, one
// after the other, it is the newest; nil if it is not known which one that is.
func (p *Pods) ByName(namespace, name string) *Pod {
	if p == nil {
		return nil
	}
	return p.byName[podName{namespace, name}]
}

// ByCgroupUID gives the pod after whose UID a cgroup is named, or nil.
func (p *Pods) ByCgroupUID(uid string) *Pod {
	if p == nil {
		return nil
	}
	return p.byCgroupUID[uid]
}

// ByContainerID gives the pod that a container belongs to, and the container's
// name; nil and empty if the container is not known.
func (p *Pods) ByContainerID(id string) (pod *Pod, container string) {
	if p == nil {
		return nil, ""
	}
	c := p.byContainer[id]
	return c.pod, c.name
}

// index makes Pods of what the sources say. Records are sorted as pods are;
// logs may be nil.
func index(source Source, records []*record, logs *logged) *Pods {
	p := &Pods{
		Source:      source,
		byName:      make(map[podName]*Pod, len(records)),
		byCgroupUID: make(map[string]*Pod, len(records)),
		byContainer: make(map[string]containerOf, len(records)),
	}
	newest := make(map[podName]*record, len(records))
	for _, r := range records {
		pod := logs.complete(r.pod)
		p.add(pod)
		key := podName{pod.Namespace, pod.Name}
		if other := newest[key]; other == nil || other.olderThan(r) {
			newest[key], p.byName[key] = r, pod
		}
	}
	for _, pod := range logs.others(p) {
		p.add(pod)
		// Which of several directories is the running pod's does not show in
		// their names. A source that knows wins.
		key := podName{pod.Namespace, pod.Name}
		if newest[key] != nil {
			continue
		}
		if _, known := p.byName[key]; known {
			p.byName[key] = nil
		} else {
			p.byName[key] = pod
		}
	}
	slices.SortFunc(p.all, comparePods)
	return p
}

// equal says whether q tells the same, whatever its version. A nil p is equal to
// none.
func (p *Pods) equal(q *Pods) bool {
	if p == nil {
		return false
	}
	same := func(a, b *Pod) bool { return a == b || a != nil && b != nil && a.equal(b) }
	return p.Source == q.Source && slices.EqualFunc(p.all, q.all, same) && maps.EqualFunc(p.byName, q.byName, same)
}

func (p *Pods) add(pod *Pod) {
	p.all = append(p.all, pod)
	// Anyone who may create pods can give one the annotation of a mirror pod.
	// It must not take the place of the pod whose UID that is.
	if other := p.byCgroupUID[pod.CgroupUID]; pod.CgroupUID != "" && (other == nil || other.UID != other.CgroupUID) {
		p.byCgroupUID[pod.CgroupUID] = pod
	}
	for _, c := range pod.Containers {
		p.byContainer[c.ID] = containerOf{pod: pod, name: c.Name}
	}
}
