// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"slices"
	"strings"
)

// PublishedName names a device in ResourceSlices. It is unique in the cluster.
type PublishedName struct{ Driver, Pool, Device string }

// String returns the three parts, separated by slashes.
func (n PublishedName) String() string { return n.Driver + "/" + n.Pool + "/" + n.Device }

// PublishedDevice is the description of a device in a ResourceSlice. Attributes
// that the slice omits are empty or Unknown.
type PublishedDevice struct {
	Type       string // gpu, mig, vfio, or the driver's own term
	UUID       string // GPU-… or MIG-…
	ParentUUID string // of the GPU of a MIG device
	Profile    string // of a MIG device, such as 1g.10gb
	// PlacementStart is the first memory slice of a MIG device in its GPU. With the
	// profile it identifies an instance that was created for a claim, whose UUID no
	// slice contains.
	PlacementStart int
	Index, Minor   int    // of the GPU, as NVML counts
	PCIBusID       string // of the GPU, in any spelling
}

// Types of published devices.
const (
	TypeGPU = "gpu"
	TypeMIG = "mig"
	// TypeVFIO is a GPU for a virtual machine. It is bound to a different driver, so
	// the node cannot measure it.
	TypeVFIO = "vfio"
)

// Published is the content of the ResourceSlices of this node. It is immutable.
// A nil Published has no devices.
type Published struct {
	Version uint64 // changes exactly when Devices changes
	Devices map[PublishedName]PublishedDevice
}

// Device returns a published device.
func (p *Published) Device(name PublishedName) (PublishedDevice, bool) {
	if p == nil {
		return PublishedDevice{}, false
	}
	d, ok := p.Devices[name]
	return d, ok
}

// ID returns the meaning of the published UUID, or FormUnknown.
func (d *PublishedDevice) ID() ID {
	id, replica := ParseID(d.UUID)
	if replica != "" || id.Form != FormGPUUUID && id.Form != FormMIGUUID && id.Form != FormMIGPath {
		return ID{}
	}
	return id
}

// IsMIG reports whether the device is a MIG device.
func (d *PublishedDevice) IsMIG() bool { return d.Type == TypeMIG || d.Profile != "" }

// MIGUUIDOf returns the UUID of a MIG device that resolved to these positions:
// the published one, else that of the instance if it has exactly one.
func (x *Index) MIGUUIDOf(d PublishedDevice, at []int) string {
	if id := d.ID(); id.Form == FormMIGUUID || id.Form == FormMIGPath {
		return d.UUID
	}
	if !d.IsMIG() {
		return ""
	}
	for _, i := range slices.Backward(at) { // the compute instance follows its GPU instance
		if uuids := x.devices[i].MIGUUIDs; len(uuids) == 1 {
			return uuids[0]
		}
	}
	return ""
}

const (
	hintSlice    = "check the attributes of the device: kubectl get resourceslices -o yaml"
	hintMIGClaim = "this ends when the exporter has seen the instance that the driver created; if it persists, compare the ResourceSlice with nvidia-smi mig -lgi"
)

// FindPublished returns the positions of the devices that get an owner by a
// published device. Claimed are all published devices that claims on this node
// hold. They matter for MIG devices that can only be identified by their profile.
func (x *Index) FindPublished(d PublishedDevice, claimed []PublishedDevice) ([]int, Miss) {
	if id := d.ID(); id.Form != FormUnknown {
		at, miss := x.FindText(id, d.UUID)
		if len(at) == 0 {
			miss.Reason = fmt.Sprintf("it is published as %s, and %s", d.UUID, miss.Reason)
			if d.IsMIG() {
				miss.Hint = hintMIGClaim
			}
		}
		return at, miss
	}
	gpu, miss := x.gpuOf(&d)
	if gpu == nil {
		return nil, miss
	}
	if !d.IsMIG() {
		return x.Find(GPUUUID(gpu.GPUUUID))
	}
	instance, reason := x.instanceOf(gpu, &d, claimed)
	if instance == nil {
		return nil, Miss{Reason: reason, Hint: hintMIGClaim}
	}
	if instance.Kind == KindGPUInstance {
		return x.Find(ID{Form: FormDeviceNameInstance, Number: instance.minorOrIndex(), GPUInstance: instance.GPUInstance})
	}
	return x.Find(ID{Form: FormMIGPath, UUID: canonicalUUID(instance.GPUUUID), GPUInstance: instance.GPUInstance, ComputeInstance: instance.ComputeInstance})
}

// gpuOf returns the GPU that a published device is, or is part of. The first
// attribute that can be compared decides: after a GPU is lost the indexes move,
// so a lower attribute could match the wrong GPU.
func (x *Index) gpuOf(d *PublishedDevice) (*Device, Miss) {
	var id ID
	address, ok := ParsePCIBusID(d.PCIBusID)
	switch {
	case d.ParentUUID != "":
		id = GPUUUID(d.ParentUUID)
	case ok && x.knowsPCI():
		id = address
	case d.Index != Unknown:
		id = ID{Form: FormIndex, Number: d.Index}
	case d.Minor != Unknown:
		id = ID{Form: FormDeviceName, Number: d.Minor}
	default:
		return nil, Miss{Reason: "its ResourceSlice has neither UUID, PCI bus ID, index nor minor number", Hint: hintSlice}
	}
	at, miss := x.Find(id)
	if len(at) == 0 {
		miss.Hint = hintSlice
		return nil, miss
	}
	return &x.devices[at[0]], Miss{}
}

func (x *Index) knowsPCI() bool {
	return slices.ContainsFunc(x.devices, func(d Device) bool { return d.Kind == KindGPU && d.PCIBusID != "" })
}

// instanceOf returns the instance of a GPU that a published MIG device without a
// UUID is. Its profile and first slice identify it. Where one of the two sides
// does not know the slice, the profile suffices if the GPU has one such instance
// and claims hold one such device.
func (x *Index) instanceOf(gpu *Device, d *PublishedDevice, claimed []PublishedDevice) (*Device, string) {
	if d.Profile == "" {
		return nil, "its ResourceSlice has neither UUID nor profile"
	}
	kind := KindGPUInstance
	if base, _ := splitProfile(d.Profile); strings.Contains(base, "c.") {
		kind = KindComputeInstance // 1c.2g.20gb is part of a 2g.20gb
	}
	var same, exact []*Device
	placed := false
	for i := range x.devices {
		e := &x.devices[i]
		equal, exactly := compareProfiles(e.Profile, d.Profile)
		if e.Kind != kind || e.GPUUUID != gpu.GPUUUID || !equal {
			continue
		}
		if d.PlacementStart != Unknown && e.PlacementStart != Unknown {
			if e.PlacementStart != d.PlacementStart {
				continue
			}
			if kind == KindGPUInstance {
				return e, ""
			}
			placed = true
		}
		same = append(same, e)
		if exactly {
			exact = append(exact, e)
		}
	}
	if len(exact) > 0 {
		same = exact
	}
	switch {
	case len(same) == 0 && d.PlacementStart != Unknown:
		return nil, fmt.Sprintf("GPU %d has no instance %s at slice %d", gpu.Index, d.Profile, d.PlacementStart)
	case len(same) == 0:
		return nil, fmt.Sprintf("GPU %d has no instance %s", gpu.Index, d.Profile)
	case len(same) > 1:
		return nil, fmt.Sprintf("GPU %d has %d instances %s, and their placement does not identify one", gpu.Index, len(same), d.Profile)
	}
	if n := x.countClaimed(gpu, d.Profile, claimed); n > 1 && !placed {
		return nil, fmt.Sprintf("GPU %d has one instance %s, but claims hold %d such devices", gpu.Index, d.Profile, n)
	}
	return same[0], ""
}

// countClaimed counts the claimed MIG devices of a GPU and a profile that have no
// UUID.
func (x *Index) countClaimed(gpu *Device, profile string, claimed []PublishedDevice) int {
	n := 0
	for i := range claimed {
		d := &claimed[i]
		if same, _ := compareProfiles(d.Profile, profile); !same || d.ID().Form != FormUnknown {
			continue
		}
		if g, _ := x.gpuOf(d); g == gpu {
			n++
		}
	}
	return n
}

// compareProfiles compares MIG profiles. Some sources omit the suffix after the
// memory, such as +me (media engines); exactly includes it.
func compareProfiles(a, b string) (same, exactly bool) {
	baseA, suffixA := splitProfile(a)
	baseB, suffixB := splitProfile(b)
	same = baseA == baseB && baseA != ""
	return same, same && suffixA == suffixB
}

// splitProfile returns "1g.10gb" and "+me" for "1g.10gb+me" and for "1g.10gb.me".
func splitProfile(s string) (base, suffix string) {
	s = strings.ToLower(s)
	base, suffix, ok := strings.Cut(s, "gb")
	if !ok {
		return s, ""
	}
	if rest, dotted := strings.CutPrefix(suffix, "."); dotted {
		suffix = "+" + rest
	}
	return base + "gb", suffix
}
