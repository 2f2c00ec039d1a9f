// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// holdings are the expected owners of devices: the owner labels on the series of devices
// and the rows of gpu_pod_info.
type holdings []holding

// holding is a container with a device or a share of it.
type holding struct {
	device
	pod     string
	replica string
	more    map[string]string // further labels, of a claim or a pod
}

// add records that a pod's container holds a device.
func (h *holdings) add(d device, pod string) { *h = append(*h, holding{device: d, pod: pod}) }

// addID records that a pod's container has a device ID.
func (h *holdings) addID(g *gpus, id, pod string) {
	_, replica, _ := strings.Cut(id, "::")
	*h = append(*h, holding{device: g.device(id), pod: pod, replica: replica})
}

// remove deletes the holdings of a pod.
func (h *holdings) remove(pod string) {
	*h = slices.DeleteFunc(*h, func(one holding) bool { return one.pod == pod })
}

// of returns the device of a pod that holds one.
func (h holdings) of(pod string) device {
	for _, one := range h {
		if one.pod == pod {
			return one.device
		}
	}
	return device{}
}

// with returns the holdings with further labels by pod.
func (h holdings) with(more map[string]map[string]string) holdings {
	all := slices.Clone(h)
	for i := range all {
		all[i].more = maps.Clone(all[i].more)
		if all[i].more == nil {
			all[i].more = map[string]string{}
		}
		maps.Copy(all[i].more, more[all[i].pod])
	}
	return all
}

// teamLabel is a label of all pods.
const teamLabel = "team"

// aboutOwners reports whether a label describes an owner.
func aboutOwners(name string) bool {
	switch name {
	case "namespace", "pod", "container", "replica", "pod_uid", "workload", "workload_kind", teamLabel:
		return true
	}
	return strings.HasPrefix(name, "dra_")
}

// owner returns the labels of a series that describe an owner.
func (s series) owner() map[string]string {
	labels := maps.Clone(s.labels)
	maps.DeleteFunc(labels, func(name, _ string) bool { return !aboutOwners(name) })
	return labels
}

func (one holding) labels() map[string]string {
	labels := map[string]string{"namespace": podNamespace, "pod": one.pod, "container": "main"}
	maps.Copy(labels, one.more)
	return labels
}

// row returns the labels in gpu_pod_info, which has no labels of the pod.
func (one holding) row() map[string]string {
	labels := one.labels()
	delete(labels, teamLabel)
	labels["replica"] = one.replica
	return labels
}

// check compares all series of devices and all rows of gpu_pod_info with the holdings.
func (h holdings) check(x exposition) error {
	sole, held, rows := map[device]map[string]string{}, map[device]int{}, map[string]bool{}
	for _, one := range h {
		rows[fmt.Sprint(one.device, one.row())] = true
		if held[one.device]++; held[one.device] == 1 {
			sole[one.device] = one.labels()
		} else {
			delete(sole, one.device)
		}
	}
	seen, got := map[device]bool{}, map[string]bool{}
	for _, s := range x {
		switch d := s.device(); {
		case strings.HasPrefix(s.name, "DCGM_FI_"):
			seen[d] = true
			if !maps.Equal(s.owner(), sole[d]) {
				return fmt.Errorf("%s of %v has the labels %v, want %v", s.name, d, s.owner(), sole[d])
			}
		case s.name == "gpu_pod_info":
			got[fmt.Sprint(d, s.owner())] = true
		}
	}
	for d := range held {
		if !seen[d] {
			return fmt.Errorf("no series of %v", d)
		}
	}
	if !maps.Equal(got, rows) {
		return fmt.Errorf("gpu_pod_info has %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(rows)))
	}
	return nil
}
