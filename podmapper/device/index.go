// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"slices"
	"strings"
)

// Index resolves IDs to positions in a list of devices. It is immutable.
type Index struct {
	devices []Device
	idType  IDType
	byID    map[ID][]int // ascending positions
	mig     bool         // a GPU is in MIG mode
}

// Miss explains why an ID resolves to no device. It is zero for a match.
type Miss struct {
	Reason string // why there is no match
	Hint   string // what a user can do about it
}

// NewIndex makes an Index. Devices must contain every device of the node,
// including those that are not exported, or their IDs count as unmatched.
func NewIndex(devices []Device, idType IDType) *Index {
	x := &Index{devices: devices, idType: idType, byID: make(map[ID][]int, 6*len(devices))}
	x.mig = slices.ContainsFunc(devices, func(d Device) bool { return d.MIGMode })
	for i := range devices {
		switch d := &devices[i]; d.Kind {
		case KindGPU:
			x.addGPU(i, d)
		case KindGPUInstance, KindComputeInstance:
			x.addInstance(i, d)
		}
	}
	if gpus := x.byID[ID{Form: FormTegra}]; len(gpus) > 1 {
		delete(x.byID, ID{Form: FormTegra})
	}
	return x
}

func (x *Index) add(i int, id ID) { x.byID[id] = append(x.byID[id], i) }

func (x *Index) addGPU(i int, d *Device) {
	number := d.Index
	if x.idType == IDTypeDeviceName {
		number = d.minorOrIndex()
	}
	x.add(i, ID{Form: FormNumber, Number: number})
	x.add(i, ID{Form: FormIndex, Number: d.Index})
	x.add(i, ID{Form: FormDeviceName, Number: d.minorOrIndex()})
	x.add(i, ID{Form: FormTegra})
	if d.GPUUUID != "" {
		x.add(i, GPUUUID(d.GPUUUID))
	}
	if d.DCGMID != Unknown {
		x.add(i, ID{Form: FormDCGM, Number: d.DCGMID})
	}
	if !x.mig {
		x.add(i, ID{Form: FormSlurm, Number: d.Index})
	}
	if address, ok := ParsePCIBusID(d.PCIBusID); ok {
		x.add(i, address)
	}
}

func (x *Index) addInstance(i int, d *Device) {
	x.add(i, ID{Form: FormDeviceNameInstance, Number: d.minorOrIndex(), GPUInstance: d.GPUInstance})
	if d.DCGMID != Unknown {
		x.add(i, ID{Form: FormDCGMInstance, Number: d.DCGMID, GPUInstance: d.GPUInstance})
	}
	compute := Unknown // the GPU instance itself
	if d.Kind == KindComputeInstance {
		compute = d.ComputeInstance
		if d.MIGIndex != Unknown {
			x.add(i, ID{Form: FormMIGIndex, Number: d.Index, MIGIndex: d.MIGIndex})
		}
	}
	x.add(i, ID{Form: FormMIGPath, UUID: canonicalUUID(d.GPUUUID), GPUInstance: d.GPUInstance, ComputeInstance: compute})
	x.add(i, ID{Form: FormMIGCapability, Number: d.minorOrIndex(), GPUInstance: d.GPUInstance, ComputeInstance: compute})
	for _, uuid := range d.MIGUUIDs {
		x.add(i, MIGUUID(uuid))
	}
}

// Find returns the ascending positions of the devices that get an owner by an ID.
// If there are none, it returns an explanation.
//
// An ID of an instance never matches the GPU around it. An ID of a GPU instance
// also matches the compute instances in it. An ID of a compute instance also
// matches the GPU instance around it.
func (x *Index) Find(id ID) ([]int, Miss) {
	at := x.byID[id]
	if len(at) == 0 && id.Form == FormMIGPath {
		// Sources that do not list compute instances still list GPU instances.
		id.ComputeInstance = Unknown
		at = x.byID[id]
	}
	switch {
	case len(at) == 0:
		return nil, x.explain(id)
	case !x.oneDevice(at):
		return nil, Miss{
			fmt.Sprintf("several devices of this node match %s (%s)", id, id.Form),
			"check the driver's list of devices (nvidia-smi -L)",
		}
	}
	if first := &x.devices[at[0]]; len(at) == 1 && first.Kind == KindComputeInstance {
		around := x.byID[ID{Form: FormMIGPath, UUID: canonicalUUID(first.GPUUUID), GPUInstance: first.GPUInstance, ComputeInstance: Unknown}]
		at = slices.Concat(at, around)
		slices.Sort(at)
	}
	return at, Miss{}
}

// FindUsable is Find, except that a GPU in MIG mode does not match.
func (x *Index) FindUsable(id ID) ([]int, Miss) {
	at, miss := x.Find(id)
	if len(at) == 1 && !x.devices[at[0]].Usable() {
		return nil, Miss{
			fmt.Sprintf("GPU %d is in MIG mode, so only its MIG devices can be used", x.devices[at[0]].Index),
			"request a MIG device by its UUID (nvidia-smi -L)",
		}
	}
	return at, miss
}

// FindText is Find for an ID that ParseID returned. The text improves the
// explanation.
func (x *Index) FindText(id ID, text string) ([]int, Miss) {
	at, miss := x.Find(id)
	if len(at) > 0 {
		return at, Miss{}
	}
	if gpu := x.gpuOfShare(text); gpu != nil {
		return nil, Miss{
			fmt.Sprintf("it starts with the UUID of GPU %d, but the rest has no known form", gpu.Index),
			"device plugins that share GPUs with their own scheduler do not report to the kubelet which GPU a pod uses; use NVIDIA's or GKE's sharing",
		}
	}
	if parsed, _ := ParseID(text); id.Form == FormUnknown && parsed.Form == FormNumber {
		return nil, Miss{
			"numbers in this resource are not GPUs: KubeVirt's and NVIDIA's sandbox device plugins use IOMMU groups",
			"if they are GPU indexes, add the resource with --kubernetes.resource-names",
		}
	}
	return nil, miss
}

// Usable returns the positions of all usable devices.
func (x *Index) Usable() []int {
	var at []int
	for i := range x.devices {
		if x.devices[i].Usable() {
			at = append(at, i)
		}
	}
	return at
}

// oneDevice reports whether positions are one GPU, or one GPU instance and compute
// instances in it.
func (x *Index) oneDevice(at []int) bool {
	first := &x.devices[at[0]]
	for _, i := range at[1:] {
		d := &x.devices[i]
		if !first.isInstance() || !d.isInstance() || d.Index != first.Index || d.GPUUUID != first.GPUUUID || d.GPUInstance != first.GPUInstance {
			return false
		}
	}
	return true
}

// gpuOfShare returns the GPU whose UUID is the start of a longer text, or nil.
func (x *Index) gpuOfShare(text string) *Device {
	for i := range x.devices {
		d := &x.devices[i]
		n := len(d.GPUUUID)
		// GPU-12 is not a share of a simulator's GPU-1.
		if d.Kind == KindGPU && n > 0 && len(text) > n && strings.EqualFold(text[:n], d.GPUUUID) && !isAlphanumeric(text[n]) {
			return d
		}
	}
	return nil
}

const (
	hintLost = "check whether the GPU is lost (gpu_up), and whether the exporter can see all GPUs (NVIDIA_VISIBLE_DEVICES=all)"
	hintMIG  = "after a repartition this ends with the next inventory; if it persists, restart the device plugin, which still allocates MIG devices that no longer exist"
)

// Len returns the number of devices.
func (x *Index) Len() int { return len(x.devices) }

// explain returns why an ID matches no device.
func (x *Index) explain(id ID) Miss {
	gpu := ID{Number: id.Number} // of an instance
	switch id.Form {
	case FormMIGPath:
		gpu = GPUUUID(id.UUID)
	case FormDeviceNameInstance, FormMIGCapability:
		gpu.Form = FormDeviceName
	case FormMIGIndex:
		gpu.Form = FormIndex
	case FormDCGMInstance:
		gpu.Form = FormDCGM
	}
	if gpu.Form != FormUnknown {
		if at := x.byID[gpu]; len(at) > 0 {
			return Miss{fmt.Sprintf("no instance of GPU %d matches %s", x.devices[at[0]].Index, id), hintMIG}
		}
		id = gpu
	}
	name := fmt.Sprintf("index %d", id.Number)
	switch {
	case id.Form == FormGPUUUID:
		name = "UUID " + id.UUID
	case id.Form == FormPCIBusID:
		name = "PCI bus ID " + id.PCIBusID
	case id.Form == FormDeviceName, id.Form == FormNumber && x.idType == IDTypeDeviceName:
		name = fmt.Sprintf("device file /dev/nvidia%d", id.Number)
	case id.Form == FormDCGM:
		name = fmt.Sprintf("DCGM ID %d", id.Number)
	case id.Form == FormMIGUUID:
		return Miss{"no MIG device on this node has the UUID " + id.UUID, hintMIG}
	case id.Form == FormTegra:
		return Miss{"it means the only GPU of a node; " + x.gpus(), hintLost}
	case id.Form == FormSlurm && x.mig:
		return Miss{"on a node with MIG, Slurm numbers MIG devices as well, so the number does not identify a device",
			"the job's processes identify its MIG devices"}
	case id.Form == FormUnknown:
		return Miss{"it has no known form", "report the ID and its device plugin to the exporter's developers"}
	}
	return Miss{fmt.Sprintf("no GPU on this node has the %s; %s", name, x.gpus()), hintLost}
}

func (x *Index) gpus() string {
	n := 0
	for i := range x.devices {
		if x.devices[i].Kind == KindGPU {
			n++
		}
	}
	if n == 1 {
		return "the node has 1 GPU"
	}
	return fmt.Sprintf("the node has %d GPUs", n)
}
