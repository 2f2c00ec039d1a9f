// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// IDType resolves the device IDs that can mean two things. It never switches a
// form off: UUIDs, device names and MIG forms are recognised whatever it is.
//
// A bare number "N" is NVML's index N with IDTypeUID, and the device file
// /dev/nvidiaN (the minor number) with IDTypeDeviceName. On most nodes both are
// the same GPU. "nvidiaN" always is the minor number, as GKE's plugin means it;
// only for a GPU whose minor number is not known is it taken for the index.
type IDType string

// The values of --kubernetes-gpu-id-type.
const (
	IDTypeUID        IDType = "uid"
	IDTypeDeviceName IDType = "device-name"
)

// ParseIDType accepts the values of --kubernetes-gpu-id-type; an empty text is
// the default, IDTypeUID.
func ParseIDType(s string) (IDType, error) {
	switch t := IDType(s); t {
	case "":
		return IDTypeUID, nil
	case IDTypeUID, IDTypeDeviceName:
		return t, nil
	}
	return "", fmt.Errorf("unknown GPU ID type %q: it is %q or %q", s, IDTypeUID, IDTypeDeviceName)
}

// Owner is one hold of a container on a device.
type Owner struct {
	Namespace string
	Pod       string
	Container string
	Resource  string // e.g. nvidia.com/gpu.shared; empty with a Claim
	Replica   string // which share of the device; empty if it is not shared
	Claim     Claim  // zero for a device of a device plugin
}

// Assignment is one device in one container, as the kubelet lists it.
type Assignment struct {
	Owner Owner
	// ID is the device plugin's, verbatim, or the published name of a claim's
	// device.
	ID    string
	Known DeviceID // ID taken apart; FormUnknown if it means nothing to us
}

// Table is what the kubelet knew from one moment on. It does not change once it
// is published; callers must not modify what it holds. As long as the kubelet
// says the same, it is the same Table.
type Table struct {
	// Time is that moment: when the kubelet was asked, or when it wrote the
	// checkpoint with the change.
	Time        time.Time
	Version     uint64       // no two tables of a Mapper have the same
	Assignments []Assignment // sorted; no two are equal

	rules rules
}

// rules say how assignments are read.
type rules struct {
	idType IDType
	// drivers are those whose claims all are of GPUs.
	drivers map[string]bool
}

func compareOwners(a, b Owner) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Pod, b.Pod),
		strings.Compare(a.Container, b.Container),
		strings.Compare(a.Resource, b.Resource),
		// Replicas are decimal: "10" comes after "9".
		cmp.Compare(len(a.Replica), len(b.Replica)),
		strings.Compare(a.Replica, b.Replica),
		compareClaims(&a.Claim, &b.Claim),
	)
}

func compareClaims(a, b *Claim) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
		strings.Compare(a.Driver, b.Driver),
		strings.Compare(a.Pool, b.Pool),
		strings.Compare(a.Device, b.Device),
		strings.Compare(a.Share, b.Share),
	)
}

func compareAssignments(a, b Assignment) int {
	return cmp.Or(compareOwners(a.Owner, b.Owner), strings.Compare(a.ID, b.ID))
}

// missing says whether any of the assignments in before is not in now. Both
// are sorted.
func missing(before, now []Assignment) bool {
	for _, a := range before {
		if _, found := slices.BinarySearchFunc(now, a, compareAssignments); !found {
			return true
		}
	}
	return false
}

// handedOn says whether a device that a pod has in before is another pod's in now.
// The kubelet gives an ID of a device plugin to one pod at a time, so that it must
// know of the end of the first.
func handedOn(before, now []Assignment) bool {
	type device struct{ resource, id string }
	holders := make(map[device]*Owner, len(before))
	for i := range before {
		if a := &before[i]; a.Known.Form != FormClaim {
			holders[device{a.Owner.Resource, a.ID}] = &a.Owner
		}
	}
	for _, a := range now {
		if o, ok := holders[device{a.Owner.Resource, a.ID}]; ok && (o.Namespace != a.Owner.Namespace || o.Pod != a.Owner.Pod) {
			return true
		}
	}
	return false
}

// reuse replaces what now has in common with before by the latter, so that two
// tables share their texts. It says whether now has anything else. Both are
// sorted.
func reuse(before, now []Assignment) (added bool) {
	for i := range now {
		for len(before) > 0 && compareAssignments(before[0], now[i]) < 0 {
			before = before[1:]
		}
		if len(before) > 0 && before[0] == now[i] {
			now[i] = before[0]
		} else {
			added = true
		}
	}
	return added
}
