// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
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
	Resource  string // e.g. nvidia.com/gpu.shared
	Replica   string // which share of the device; empty if it is not shared
}

// Assignment is one device ID in one container, as the kubelet lists it.
type Assignment struct {
	Owner Owner
	ID    string   // verbatim
	Known DeviceID // ID taken apart; FormUnknown if it means nothing to us
}

// Table is what the kubelet said at one time. It does not change once it is
// published; callers must not modify what it holds.
type Table struct {
	Time        time.Time    // when the kubelet was asked
	Version     uint64       // changes exactly when Assignments does
	Assignments []Assignment // sorted; no two are equal

	idType IDType
}

// DeviceKind says what a Device is.
type DeviceKind uint8

// The kinds of device that can have an owner. The zero value is for anything
// else, such as a link, so that a description can hold the place of each entity.
const (
	KindOther DeviceKind = iota
	KindGPU
	KindGPUInstance
	KindComputeInstance
)

// NoMinor is the Device.Minor of a GPU whose minor number is not known.
const NoMinor = -1

// Device describes one device of the node to Table.Match.
type Device struct {
	Kind            DeviceKind
	GPUUUID         string   // of the GPU; of the parent GPU for an instance
	Index           int      // NVML index of that GPU
	Minor           int      // N of its /dev/nvidiaN, or NoMinor
	GPUInstance     int      // NVML id, for both kinds of instance
	ComputeInstance int      // NVML id, for a compute instance
	MIGUUIDs        []string // MIG devices that lie in this instance
}

// Match joins a table with the devices of the node.
type Match struct {
	// Owners[i] are the owners of devices[i], sorted, each once.
	Owners [][]Owner
	// Unmatched are the assignments of no device that was given: IDs of no
	// known form, or of a GPU that is not there.
	Unmatched []Assignment
}

// Match finds the owners of devices. Give it every device of the node, also
// those that are not exported, or their IDs count as unmatched. The result
// stays valid for the same devices as long as the table's Version does.
//
// An ID that names an instance never gives the GPU around it an owner. The
// owner of a whole GPU instance also owns the compute instances in it, and a
// GPU instance has the owners of all compute instances in it.
//
// A nil table has no assignments.
func (t *Table) Match(devices []Device) Match {
	m := Match{Owners: make([][]Owner, len(devices))}
	if t == nil || len(t.Assignments) == 0 {
		return m
	}
	byID := make(map[DeviceID][]int, 3*len(devices))
	var ids []DeviceID
	for i, d := range devices {
		ids = d.appendIDs(ids[:0], t.idType)
		for _, id := range ids {
			byID[id] = append(byID[id], i)
		}
	}
	for _, a := range t.Assignments {
		at := byID[a.Known] // FormUnknown is no device's ID
		if a.Known.Form == FormMIGPath {
			around := a.Known
			around.ComputeInstance = anyComputeInstance
			at = slices.Concat(at, byID[around])
		}
		if len(at) == 0 {
			m.Unmatched = append(m.Unmatched, a)
		}
		for _, i := range at {
			m.Owners[i] = append(m.Owners[i], a.Owner)
		}
	}
	for i := range m.Owners {
		slices.SortFunc(m.Owners[i], compareOwners)
		m.Owners[i] = slices.Compact(m.Owners[i])
	}
	return m
}

// anyComputeInstance marks, in a FormMIGPath, the GPU instance itself.
const anyComputeInstance = -1

// appendIDs appends every DeviceID that means d.
func (d Device) appendIDs(ids []DeviceID, t IDType) []DeviceID {
	file := d.Minor // N of nvidiaN
	if file == NoMinor {
		file = d.Index
	}
	switch d.Kind {
	case KindOther:
		return ids
	case KindGPU:
		number := d.Index
		if t == IDTypeDeviceName {
			number = file
		}
		return append(ids,
			DeviceID{Form: FormGPUUUID, UUID: d.GPUUUID},
			DeviceID{Form: FormNumber, Number: number},
			DeviceID{Form: FormDeviceName, Number: file})
	}
	path := DeviceID{Form: FormMIGPath, UUID: d.GPUUUID, GPUInstance: d.GPUInstance, ComputeInstance: anyComputeInstance}
	if d.Kind == KindComputeInstance {
		path.ComputeInstance = d.ComputeInstance
	}
	ids = append(ids, path, DeviceID{Form: FormDeviceNameInstance, Number: file, GPUInstance: d.GPUInstance})
	for _, uuid := range d.MIGUUIDs {
		ids = append(ids, DeviceID{Form: FormMIGUUID, UUID: uuid})
	}
	return ids
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
	)
}

func compareAssignments(a, b Assignment) int {
	return cmp.Or(compareOwners(a.Owner, b.Owner), strings.Compare(a.ID, b.ID))
}

// resourceFilter picks the extended resources that stand for NVIDIA devices.
type resourceFilter struct {
	names map[string]bool // in addition to everything below nvidia.com/
}

const nvidiaDomain = "nvidia.com/"

func (f resourceFilter) wants(resource string) bool {
	return strings.HasPrefix(resource, nvidiaDomain) || f.names[resource]
}

// numbersAreGPUs says whether a bare number in this resource can mean a GPU.
// NVIDIA's KubeVirt and sandbox plugins also register below nvidia.com/
// (nvidia.com/GA102GL_A10, nvidia.com/pgpu) and their IDs are IOMMU group
// numbers; a wrong owner is worse than none.
func (f resourceFilter) numbersAreGPUs(resource string) bool {
	rest, ok := strings.CutPrefix(resource, nvidiaDomain+"gpu")
	return f.names[resource] || ok && (rest == "" || rest[0] == '.' || rest[0] == '-')
}

// assignments picks the wanted devices out of the kubelet's answer: sorted, and
// without repetitions, since the kubelet lists a container's devices in one
// entry per resource and NUMA node.
func (f resourceFilter) assignments(list *podresources.ListPodResourcesResponse) []Assignment {
	var all []Assignment
	for _, pod := range list.GetPodResources() {
		for _, container := range pod.GetContainers() {
			for _, devices := range container.GetDevices() {
				resource := devices.GetResourceName()
				if !f.wants(resource) {
					continue
				}
				for _, id := range devices.GetDeviceIds() {
					known, replica := ParseDeviceID(id)
					if known.Form == FormNumber && !f.numbersAreGPUs(resource) {
						known, replica = DeviceID{}, ""
					}
					all = append(all, Assignment{
						Owner: Owner{
							Namespace: pod.GetNamespace(),
							Pod:       pod.GetName(),
							Container: container.GetName(),
							Resource:  resource,
							Replica:   replica,
						},
						ID:    id,
						Known: known,
					})
				}
			}
		}
	}
	slices.SortFunc(all, compareAssignments)
	return slices.Compact(all)
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
