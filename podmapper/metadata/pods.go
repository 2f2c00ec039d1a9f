// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package metadata provides the pods of this node: their UIDs, labels, annotations
// and workloads, and the pod of a container or of a cgroup.
//
// It reads one source at a time: the kubelet's Pods API (Kubernetes 1.37 and newer)
// or the API server, of which it requests only the metadata of this node's pods.
// Without the Pods API, the names in /var/log/pods and /var/log/containers add the
// IDs of containers.
//
// A Store reads in the background and publishes an immutable Pods, so a scrape never
// waits for a source. The package must not know metrics: its callers convert keys to
// label names.
package metadata

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Pod is one pod. It is immutable.
type Pod struct {
	Namespace, Name string
	// UID is the UID that the source reports. A static pod has two: the Pods API and
	// the log directories report the kubelet's, the API server that of the mirror pod.
	UID string
	// CgroupUID is the UID in the names of the pod's cgroups and log directories. It
	// differs from UID only for a static pod that the API server reports.
	CgroupUID string
	// Labels and Annotations are the allowed ones, sorted by key.
	Labels, Annotations []KeyValue
	// Workload is zero for a pod without a controller, for a static pod, while the
	// workload is not known, and unless Want requests it.
	Workload Workload
	// Containers are the started containers, init and ephemeral ones included, sorted
	// by ID. Nil if they are not known.
	Containers []Container
}

// KeyValue is a label or an annotation of a pod.
type KeyValue struct{ Key, Value string }

// Workload is the topmost controller of a pod.
type Workload struct{ Kind, Name string }

// Container is a container of a pod.
type Container struct {
	ID   string // without the prefix of the runtime, such as containerd://
	Name string
}

func (p *Pod) equal(q *Pod) bool {
	if p == nil || q == nil {
		return p == q
	}
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

// Pods is the table of the pods of this node. It is immutable. A nil *Pods is an
// empty table.
type Pods struct {
	// Source is where labels, annotations, workloads and UIDs come from. It is empty
	// if the table has only names from the log directories.
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

// All returns the pods, sorted by namespace, name and UID. A pod remains for a
// minute after its end, because the newest sample can be older than its end.
func (p *Pods) All() []*Pod {
	if p == nil {
		return nil
	}
	return p.all
}

// ByName returns the newest pod of this name. It returns nil if there is none, or if
// the newest one is not known.
func (p *Pods) ByName(namespace, name string) *Pod {
	if p == nil {
		return nil
	}
	return p.byName[podName{namespace, name}]
}

// ByCgroupUID returns the pod with this UID in the names of its cgroups, or nil.
func (p *Pods) ByCgroupUID(uid string) *Pod {
	if p == nil {
		return nil
	}
	return p.byCgroupUID[uid]
}

// ByContainerID returns the pod and the name of a container, or nil.
func (p *Pods) ByContainerID(id string) (pod *Pod, container string) {
	if p == nil {
		return nil, ""
	}
	c := p.byContainer[id]
	return c.pod, c.name
}

// newPods makes a table of the sorted records of a source and the names in the log
// directories. logs may be nil.
func newPods(source Source, records []*record, logs *logNames) *Pods {
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
		name := podName{pod.Namespace, pod.Name}
		if other := newest[name]; other == nil || other.olderThan(r) {
			newest[name], p.byName[name] = r, pod
		}
	}
	for _, pod := range logs.missingFrom(p) {
		p.add(pod)
		// A directory name does not show whether its pod is the newest of its name, so
		// a source wins, and several directories without a source are ambiguous.
		name := podName{pod.Namespace, pod.Name}
		if newest[name] != nil {
			continue
		}
		if _, ambiguous := p.byName[name]; ambiguous {
			p.byName[name] = nil
		} else {
			p.byName[name] = pod
		}
	}
	slices.SortFunc(p.all, comparePods)
	return p
}

func (p *Pods) add(pod *Pod) {
	p.all = append(p.all, pod)
	// Everyone who may create pods can set the annotation of a mirror pod. Such a pod
	// must not replace the pod that has the UID.
	if other := p.byCgroupUID[pod.CgroupUID]; pod.CgroupUID != "" && (other == nil || other.UID != other.CgroupUID) {
		p.byCgroupUID[pod.CgroupUID] = pod
	}
	for _, c := range pod.Containers {
		p.byContainer[c.ID] = containerOf{pod: pod, name: c.Name}
	}
}

// equal reports whether both tables have the same content.
func (p *Pods) equal(q *Pods) bool {
	return p != nil && p.Source == q.Source && slices.EqualFunc(p.all, q.all, (*Pod).equal) &&
		maps.EqualFunc(p.byName, q.byName, (*Pod).equal)
}
