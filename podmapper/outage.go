// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"slices"
	"strings"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// keepFor is for how long the owners of pods remain that a restarted kubelet does not
// list because it does not reach the API server.
const keepFor = time.Hour

// isStatic reports whether a pod is static: the kubelet appends the node's name
// (pkg/kubelet/config/common.go, generatePodName). Without that name, no pod is.
func (m *Mapper) isStatic(pod string) bool {
	return m.node != "" && strings.HasSuffix(pod, "-"+strings.ToLower(m.node))
}

// withoutAPIServer reports whether the answer of a new connection has no pod of
// the API server. A kubelet that starts has none of them until it reaches the API
// server, and then all at once. Their containers run all the time.
func (m *Mapper) withoutAPIServer(answer *podresources.ListPodResourcesResponse, fresh bool) bool {
	listed := slices.ContainsFunc(answer.GetPodResources(), func(p *podresources.PodResources) bool { return !m.isStatic(p.GetName()) })
	m.clustered = m.clustered || listed
	if listed || !fresh || !m.clustered {
		m.away = time.Time{}
		return false
	}
	return true
}

// keep returns the assignments of now and those of the pods of the API server before.
// A device of a device plugin that a different pod holds by now does not remain.
func (m *Mapper) keep(before *Table, now []Assignment, start time.Time) []Assignment {
	if m.away.IsZero() {
		m.away = start
		m.log.Warn("The kubelet has restarted and lists no pod of the API server; the owners of devices remain",
			"max_age", keepFor, "hint", "check whether the node reaches the API server")
	}
	if before == nil || start.Sub(m.away) > keepFor {
		return now
	}
	holders := pluginHolders(now)
	all := slices.Clone(now)
	for i := range before.Assignments {
		a := &before.Assignments[i]
		_, listed := slices.BinarySearchFunc(now, *a, compareAssignments)
		if !listed && !m.isStatic(a.Owner.Pod) && holders[a.plugin()] == nil {
			all = append(all, *a)
		}
	}
	slices.SortFunc(all, compareAssignments)
	return all
}
