// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"fmt"
	"strconv"
	"strings"
)

// nvidiaDriver is the DRA driver whose devices are GPUs and parts of them.
const nvidiaDriver = "gpu.nvidia.com"

// The types of published devices that are of interest (NVIDIA's driver,
// attribute "type").
const (
	typeGPU = "gpu"
	typeMIG = "mig"
	// typeVFIO is a GPU for a virtual machine. It is bound to another driver, so
	// that nothing on this node can look at it.
	typeVFIO = "vfio"
)

const (
	reasonNoSlices    = "the ResourceSlices of this node are not known, and only they say which device this is"
	hintNoSlices      = "give the exporter's service account get, list and watch on resourceslices (resource.k8s.io)"
	reasonNotInSlices = "no ResourceSlice of this node has this device"
	hintNotInSlices   = "this passes once the driver has published the device; if it lasts, see the driver's log"
	hintDriver        = "see the attributes of the device: kubectl get resourceslices -o yaml"
	hintMIGClaim      = "this passes once the exporter has seen the instance that the driver made; if it lasts, compare the ResourceSlice with nvidia-smi mig -lgi"
)

// device looks up a device; a nil p has none.
func (p *Published) device(name PublishedName) (PublishedDevice, bool) {
	if p == nil {
		return PublishedDevice{}, false
	}
	d, ok := p.Devices[name]
	return d, ok
}

// concerns says whether a claim's device is, or may be, a GPU or a part of one.
// Other drivers give network cards, channels between nodes and what not.
func (r rules) concerns(c *Claim, d PublishedDevice, listed bool) bool {
	if listed && d.Type == typeVFIO {
		return false
	}
	if c.Driver == nvidiaDriver || r.drivers[c.Driver] {
		return true
	}
	return listed && (d.Type == typeGPU || d.Type == typeMIG || d.id().Form != FormUnknown)
}

// id is what the published UUID means.
func (d *PublishedDevice) id() DeviceID {
	id, replica := ParseDeviceID(d.UUID)
	switch id.Form {
	case FormGPUUUID, FormMIGUUID, FormMIGPath:
		if replica == "" {
			return id
		}
	}
	return DeviceID{}
}

// findPublished gives the positions of the devices that get an owner by a
// claim's device, or says why there are none. It completes the claim.
func (x *index) findPublished(c *Claim, d PublishedDevice, t *Table, published *Published) (at []int, reason, hint string) {
	mig := d.Type == typeMIG || d.Profile != ""
	if mig {
		c.MIGProfile = d.Profile
	}
	if id := d.id(); id.Form != FormUnknown {
		if id.Form != FormGPUUUID {
			c.MIGUUID = d.UUID
		}
		if at = x.find(id); len(at) > 0 {
			return at, "", ""
		}
		reason, hint = x.whyNot(&Assignment{ID: d.UUID, Known: id})
		if mig {
			hint = hintMIGClaim
		}
		return nil, fmt.Sprintf("it is published as %s, and %s", d.UUID, reason), hint
	}
	gpu, reason := x.gpuOf(&d)
	if reason != "" {
		return nil, reason, hintDriver
	}
	if !mig {
		return []int{gpu}, "", ""
	}
	i, reason := x.instanceOf(gpu, &d, t, published)
	if reason != "" {
		return nil, reason, hintMIGClaim
	}
	instance := &x.devices[i]
	if len(instance.MIGUUIDs) == 1 {
		c.MIGUUID = instance.MIGUUIDs[0]
	}
	if instance.Kind == KindGPUInstance {
		return x.find(DeviceID{Form: FormDeviceNameInstance, Number: instance.file(), GPUInstance: instance.GPUInstance}), "", ""
	}
	return x.find(DeviceID{
		Form: FormMIGPath, UUID: canonicalUUID(instance.GPUUUID),
		GPUInstance: instance.GPUInstance, ComputeInstance: instance.ComputeInstance,
	}), "", ""
}

// gpuOf gives the position of the GPU that a published device is or lies in.
// The first thing published that can be compared decides; a GPU that is lost
// must not be taken for its neighbour because the indexes have moved.
func (x *index) gpuOf(d *PublishedDevice) (i int, reason string) {
	if d.ParentUUID != "" {
		return x.gpuWith("UUID "+d.ParentUUID, func(g *Device) bool { return strings.EqualFold(g.GPUUUID, d.ParentUUID) })
	}
	if address, ok := parsePCIBusID(d.PCIBusID); ok && x.knowsPCI() {
		return x.gpuWith("PCI bus ID "+d.PCIBusID, func(g *Device) bool {
			other, ok := parsePCIBusID(g.PCIBusID)
			return ok && other == address
		})
	}
	if d.Index != NotPublished {
		return x.gpuWith("index "+strconv.Itoa(d.Index), func(g *Device) bool { return g.Index == d.Index })
	}
	if d.Minor != NotPublished {
		return x.gpuWith("minor number "+strconv.Itoa(d.Minor), func(g *Device) bool { return g.file() == d.Minor })
	}
	return 0, "its ResourceSlice says neither UUID, PCI bus ID, index nor minor number"
}

func (x *index) knowsPCI() bool {
	for i := range x.devices {
		if x.devices[i].Kind == KindGPU && x.devices[i].PCIBusID != "" {
			return true
		}
	}
	return false
}

func (x *index) gpuWith(name string, is func(*Device) bool) (int, string) {
	found := -1
	for i := range x.devices {
		if g := &x.devices[i]; g.Kind == KindGPU && is(g) {
			if found >= 0 {
				return 0, "several GPUs on this node have the " + name
			}
			found = i
		}
	}
	if found < 0 {
		return 0, "no GPU on this node has the " + name
	}
	return found, ""
}

// instanceOf gives the position of the instance of a GPU that a published MIG
// device without a UUID is. Its profile and its first slice identify it. Where
// one of the two sides does not know that slice, the profile must do: if the
// GPU has one such instance, and one such device is claimed.
func (x *index) instanceOf(gpu int, d *PublishedDevice, t *Table, published *Published) (i int, reason string) {
	if d.Profile == "" {
		return 0, "its ResourceSlice says neither UUID nor profile"
	}
	kind := KindGPUInstance
	if base, _ := splitProfile(d.Profile); strings.Contains(base, "c.") {
		kind = KindComputeInstance // 1c.2g.20gb is a part of a 2g.20gb
	}
	var open, exact []int
	placed := false // what is open is at the right place
	for i := range x.devices {
		e := &x.devices[i]
		if e.Kind != kind || e.GPUUUID != x.devices[gpu].GPUUUID {
			continue
		}
		same, exactly := sameProfile(e.Profile, d.Profile)
		if !same {
			continue
		}
		if d.PlacementStart != NotPublished && e.PlacementStart != NotPublished {
			if e.PlacementStart != d.PlacementStart {
				continue
			}
			if kind == KindGPUInstance {
				return i, ""
			}
			placed = true
		}
		open = append(open, i)
		if exactly {
			exact = append(exact, i)
		}
	}
	if len(exact) > 0 {
		open = exact
	}
	name := fmt.Sprintf("GPU %d", x.devices[gpu].Index)
	switch {
	case len(open) == 0 && d.PlacementStart != NotPublished:
		return 0, fmt.Sprintf("%s has no instance %s at slice %d", name, d.Profile, d.PlacementStart)
	case len(open) == 0:
		return 0, fmt.Sprintf("%s has no instance %s", name, d.Profile)
	case len(open) > 1:
		return 0, fmt.Sprintf("%s has %d instances %s, and their places do not tell which one it is", name, len(open), d.Profile)
	}
	if n := x.claimed(gpu, d.Profile, t, published); n > 1 && !placed {
		return 0, fmt.Sprintf("%s has one instance %s, but %d such devices are claimed", name, d.Profile, n)
	}
	return open[0], ""
}

// claimed counts the devices of a profile on a GPU that claims hold.
func (x *index) claimed(gpu int, profile string, t *Table, published *Published) int {
	names := make(map[PublishedName]struct{})
	for i := range t.Assignments {
		c := &t.Assignments[i].Owner.Claim
		d, ok := published.device(c.PublishedName)
		if same, _ := sameProfile(d.Profile, profile); !ok || !same || d.id().Form != FormUnknown {
			continue
		}
		if at, reason := x.gpuOf(&d); reason == "" && at == gpu {
			names[c.PublishedName] = struct{}{}
		}
	}
	return len(names)
}

// sameProfile compares MIG profiles. Some sources leave out what follows the
// memory, such as +me (media engines), so that is compared only by exactly.
func sameProfile(a, b string) (same, exactly bool) {
	baseA, restA := splitProfile(a)
	baseB, restB := splitProfile(b)
	same = baseA == baseB && baseA != ""
	return same, same && restA == restB
}

// splitProfile gives "1g.10gb" and "+me" for "1g.10gb+me" and for "1g.10gb.me".
func splitProfile(s string) (base, rest string) {
	s = strings.ToLower(s)
	base, rest, ok := strings.Cut(s, "gb")
	if !ok {
		return s, ""
	}
	if r, dotted := strings.CutPrefix(rest, "."); dotted {
		rest = "+" + r
	}
	return base + "gb", rest
}

// parsePCIBusID takes domain:bus:device.function in hexadecimal, where the
// domain has any number of digits or is missing.
func parsePCIBusID(s string) (address [4]uint32, ok bool) {
	rest, function, ok := strings.Cut(s, ".")
	if !ok {
		return address, false
	}
	parts := strings.Split(rest, ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return address, false
	}
	for i, part := range append(parts, function) {
		n, err := strconv.ParseUint(part, 16, 32)
		if err != nil {
			return address, false
		}
		address[i] = uint32(n)
	}
	return address, true
}
