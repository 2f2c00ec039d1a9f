// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Form is the way in which a source names a device.
type Form uint8

// The forms of ParseID are those of device plugins. The others are built by the
// source that uses them.
const (
	// FormUnknown is a text of no known form.
	FormUnknown Form = iota
	// FormGPUUUID is NVML's UUID of a GPU, "GPU-…": NVIDIA's device plugin.
	FormGPUUUID
	// FormNumber is a bare number, "0". IDType decides what it means.
	FormNumber
	// FormDeviceName is the device file /dev/nvidiaN, "nvidia0": GKE's device
	// plugin.
	FormDeviceName
	// FormDeviceNameInstance is a GPU instance below a device file,
	// "nvidia0/gi1": GKE's device plugin with MIG.
	FormDeviceNameInstance
	// FormMIGUUID is NVML's UUID of a MIG device, "MIG-…", since driver R470.
	FormMIGUUID
	// FormMIGPath is the name of a MIG device before driver R470,
	// "MIG-GPU-<uuid>/<GPU instance>/<compute instance>".
	FormMIGPath
	// FormTegra is the integrated GPU of a Tegra system, "tegra".
	FormTegra
	// FormClaim is a device of a ResourceClaim. Only FindPublished resolves it.
	FormClaim

	// FormIndex is NVML's index of a GPU.
	FormIndex
	// FormPCIBusID is the PCI address of a GPU.
	FormPCIBusID
	// FormMIGIndex is a MIG device by NVML's index of its GPU and the index of
	// nvmlDeviceGetMigDeviceHandleByIndex, "0:1": NVIDIA's container tools.
	FormMIGIndex
	// FormMIGCapability is a compute instance by the minor number of its GPU, as in
	// /proc/driver/nvidia-caps/mig-minors.
	FormMIGCapability
	// FormDCGM is DCGM's ID of a GPU, which is dcgm-exporter's label gpu.
	FormDCGM
	// FormDCGMInstance is DCGM's ID of a GPU and NVML's ID of a GPU instance in it.
	FormDCGMInstance
	// FormSlurm is a position in Slurm's list of the node's GPUs, as in
	// SLURM_JOB_GPUS. The list has the order of NVML's indexes (gres.conf(5)), but
	// on a node with MIG each MIG device has its own position.
	FormSlurm
)

// String returns a description of the form for people.
func (f Form) String() string {
	names := [...]string{
		FormUnknown:            "no known form",
		FormGPUUUID:            "UUID of a GPU",
		FormNumber:             "number of a GPU",
		FormDeviceName:         "device file of a GPU",
		FormDeviceNameInstance: "GPU instance below a device file",
		FormMIGUUID:            "UUID of a MIG device",
		FormMIGPath:            "MIG device by GPU and instances",
		FormTegra:              "integrated GPU",
		FormClaim:              "device of a ResourceClaim",
		FormIndex:              "NVML index of a GPU",
		FormPCIBusID:           "PCI bus ID of a GPU",
		FormMIGIndex:           "MIG device by index",
		FormMIGCapability:      "MIG device by capability file",
		FormDCGM:               "DCGM ID of a GPU",
		FormDCGMInstance:       "GPU instance by DCGM ID",
		FormSlurm:              "Slurm index of a GPU",
	}
	return names[min(int(f), len(names)-1)]
}

// IDType decides the meaning of FormNumber. It affects no other form.
type IDType string

// The values of --kubernetes.gpu-id-type. On most nodes both numbers are equal.
const (
	IDTypeUID        IDType = "uid"         // NVML's index
	IDTypeDeviceName IDType = "device-name" // N of /dev/nvidiaN
)

// ParseIDType accepts the values of --kubernetes.gpu-id-type. An empty string is
// IDTypeUID.
func ParseIDType(s string) (IDType, error) {
	switch t := IDType(s); t {
	case "":
		return IDTypeUID, nil
	case IDTypeUID, IDTypeDeviceName:
		return t, nil
	}
	return "", fmt.Errorf("unknown GPU ID type %q: use %q or %q", s, IDTypeUID, IDTypeDeviceName)
}

// ID names a device. It is comparable. Fields that the form does not use are zero.
type ID struct {
	Form Form
	// UUID of FormGPUUUID and FormMIGUUID, and of the GPU in FormMIGPath. The part
	// after the prefix is in lower case, as NVML writes it.
	UUID string
	// Number is the index, minor number, DCGM ID or Slurm position of the GPU.
	Number          int
	GPUInstance     int    // FormDeviceNameInstance, FormMIGPath, FormMIGCapability, FormDCGMInstance
	ComputeInstance int    // FormMIGPath, FormMIGCapability
	MIGIndex        int    // FormMIGIndex
	PCIBusID        string // FormPCIBusID; in the form that PCIBusID returns
}

// GPUUUID returns the ID of the GPU with this UUID, in any case.
func GPUUUID(uuid string) ID { return ID{Form: FormGPUUUID, UUID: canonicalUUID(uuid)} }

// MIGUUID returns the ID of the MIG device with this UUID, in any case.
func MIGUUID(uuid string) ID { return ID{Form: FormMIGUUID, UUID: canonicalUUID(uuid)} }

// Compare orders IDs by form, then by their fields.
func (d ID) Compare(e ID) int {
	return cmp.Or(
		cmp.Compare(d.Form, e.Form),
		cmp.Compare(d.Number, e.Number),
		strings.Compare(d.UUID, e.UUID),
		cmp.Compare(d.GPUInstance, e.GPUInstance),
		cmp.Compare(d.ComputeInstance, e.ComputeInstance),
		cmp.Compare(d.MIGIndex, e.MIGIndex),
		strings.Compare(d.PCIBusID, e.PCIBusID),
	)
}

// String returns the ID in the spelling of its form, without a replica.
func (d ID) String() string {
	switch d.Form {
	case FormGPUUUID, FormMIGUUID:
		return d.UUID
	case FormNumber, FormIndex:
		return strconv.Itoa(d.Number)
	case FormDeviceName:
		return "nvidia" + strconv.Itoa(d.Number)
	case FormDeviceNameInstance:
		return fmt.Sprintf("nvidia%d/gi%d", d.Number, d.GPUInstance)
	case FormMIGPath:
		return fmt.Sprintf("MIG-%s/%d/%d", d.UUID, d.GPUInstance, d.ComputeInstance)
	case FormTegra:
		return tegra
	case FormPCIBusID:
		return d.PCIBusID
	case FormMIGIndex:
		return fmt.Sprintf("%d:%d", d.Number, d.MIGIndex)
	case FormMIGCapability:
		return fmt.Sprintf("gpu%d/gi%d/ci%d", d.Number, d.GPUInstance, d.ComputeInstance)
	case FormDCGM:
		return fmt.Sprintf("GPU %d", d.Number)
	case FormDCGMInstance:
		return fmt.Sprintf("GPU %d instance %d", d.Number, d.GPUInstance)
	case FormSlurm:
		return fmt.Sprintf("Slurm GPU %d", d.Number)
	}
	return "unknown"
}

const (
	tegra = "tegra"
	// maxID bounds the text of an ID. The longest real one, a MIG path with a
	// replica, has less than 80 bytes.
	maxID = 160
)

// ParseID parses a device plugin's device ID. The replica is the text after "::"
// (NVIDIA's plugin, time-slicing and MPS) or "/vgpu" (GKE's plugin, sharing), and
// empty for a device that is not shared. A text of no known form is FormUnknown
// and has no replica.
func ParseID(text string) (id ID, replica string) {
	if len(text) > maxID {
		return ID{}, ""
	}
	base, replica, shared := strings.Cut(text, "::")
	if !shared {
		base, replica, shared = strings.Cut(text, "/vgpu")
	}
	if shared {
		if _, ok := parseNumber(replica); !ok {
			return ID{}, ""
		}
	}
	id, ok := parseBase(base)
	if !ok {
		return ID{}, ""
	}
	return id, replica
}

func parseBase(s string) (ID, bool) {
	// MIG-GPU- precedes MIG-, its prefix.
	if rest, ok := strings.CutPrefix(s, "MIG-GPU-"); ok {
		uuid, path, _ := strings.Cut(rest, "/")
		giText, ciText, _ := strings.Cut(path, "/")
		gi, ok1 := parseNumber(giText)
		ci, ok2 := parseNumber(ciText)
		return ID{Form: FormMIGPath, UUID: "GPU-" + strings.ToLower(uuid), GPUInstance: gi, ComputeInstance: ci},
			ok1 && ok2 && isUUIDText(uuid)
	}
	if rest, ok := strings.CutPrefix(s, "MIG-"); ok {
		return MIGUUID(s), isUUIDText(rest)
	}
	if rest, ok := strings.CutPrefix(s, "GPU-"); ok {
		return GPUUUID(s), isUUIDText(rest)
	}
	if rest, ok := strings.CutPrefix(s, "nvidia"); ok {
		numberText, giText, instance := strings.Cut(rest, "/gi")
		n, ok := parseNumber(numberText)
		if !instance {
			return ID{Form: FormDeviceName, Number: n}, ok
		}
		gi, giOK := parseNumber(giText)
		return ID{Form: FormDeviceNameInstance, Number: n, GPUInstance: gi}, ok && giOK
	}
	if s == tegra {
		return ID{Form: FormTegra}, true
	}
	n, ok := parseNumber(s)
	return ID{Form: FormNumber, Number: n}, ok
}

// canonicalUUID lowers the part after the four bytes of the prefix, GPU- or MIG-.
func canonicalUUID(s string) string {
	if len(s) < 4 {
		return s
	}
	return s[:4] + strings.ToLower(s[4:])
}

// parseNumber accepts decimal digits without a sign or a leading zero, at most
// nine of them. Two different texts therefore never mean the same number.
func parseNumber(s string) (int, bool) {
	if len(s) == 0 || len(s) > 9 || len(s) > 1 && s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// isUUIDText accepts any length, because simulators write short UUIDs.
func isUUIDText(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && !isAlphanumeric(c) {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// ParsePCIBusID parses domain:bus:device.function in hexadecimal. The domain can
// have any number of digits, or be missing.
func ParsePCIBusID(s string) (ID, bool) {
	rest, function, ok := strings.Cut(s, ".")
	if !ok {
		return ID{}, false
	}
	parts := strings.Split(rest, ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return ID{}, false
	}
	var address [4]uint64
	for i, part := range append(parts, function) {
		var err error
		if address[i], err = strconv.ParseUint(part, 16, 32); err != nil {
			return ID{}, false
		}
	}
	return ID{Form: FormPCIBusID, PCIBusID: fmt.Sprintf("%04x:%02x:%02x.%x", address[0], address[1], address[2], address[3])}, true
}
