// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"fmt"
	"strconv"
	"strings"
)

// Form is the way in which a device plugin names a device.
type Form uint8

// The forms of device IDs seen in the field.
const (
	// FormUnknown is a text of no known form. It is kept and counted.
	FormUnknown Form = iota
	// FormGPUUUID is NVML's UUID of a whole GPU, "GPU-…": NVIDIA's plugin.
	FormGPUUUID
	// FormNumber is a bare number, "0".
	FormNumber
	// FormDeviceName is a device file below /dev, "nvidia0": GKE's plugin.
	FormDeviceName
	// FormDeviceNameInstance is a GPU instance below a device file,
	// "nvidia0/gi1": GKE's plugin with MIG. The number after gi is NVML's GPU
	// instance id.
	FormDeviceNameInstance
	// FormMIGUUID is NVML's UUID of a MIG device, "MIG-…" (driver R470 and
	// newer).
	FormMIGUUID
	// FormMIGPath is the name of a MIG device before driver R470:
	// "MIG-GPU-<uuid>/<GPU instance>/<compute instance>".
	FormMIGPath
	// FormTegra is the one integrated GPU of a Tegra system, "tegra": NVIDIA's
	// plugin, which knows no more about it.
	FormTegra
	// FormClaim is a device that a ResourceClaim gave and that a ResourceSlice
	// describes. ParseDeviceID never gives it.
	FormClaim
)

// String says in words what an ID of the form means.
func (f Form) String() string {
	switch f {
	case FormGPUUUID:
		return "UUID of a GPU"
	case FormNumber:
		return "number of a GPU"
	case FormDeviceName:
		return "device file of a GPU"
	case FormDeviceNameInstance:
		return "GPU instance below a device file"
	case FormMIGUUID:
		return "UUID of a MIG device"
	case FormMIGPath:
		return "MIG device by GPU and instances"
	case FormTegra:
		return "integrated GPU"
	case FormClaim:
		return "device of a ResourceClaim"
	}
	return "no known form"
}

// maxDeviceID bounds what is taken for a device ID. The longest real one, a
// MIG path with a replica, is under 80 bytes.
const maxDeviceID = 160

// DeviceID says which device an ID means. It can be compared and used as a map
// key. Fields that the form does not have are zero.
type DeviceID struct {
	Form Form
	// UUID is that of FormGPUUUID and FormMIGUUID, and the GPU's in FormMIGPath. What
	// follows its prefix is in lower case, as NVML writes it.
	UUID            string
	Number          int // FormNumber, FormDeviceName, FormDeviceNameInstance
	GPUInstance     int // FormDeviceNameInstance, FormMIGPath
	ComputeInstance int // FormMIGPath
}

// ParseDeviceID takes a device ID apart, as the kubelet passes it on from the
// device plugin. The second result is the replica, the text after "::"
// (NVIDIA's plugin, time-slicing and MPS) or "/vgpu" (GKE's sharing), and is
// empty for a device that is not shared.
//
// A text of no known form gives FormUnknown and no replica.
func ParseDeviceID(id string) (DeviceID, string) {
	if len(id) > maxDeviceID {
		return DeviceID{}, ""
	}
	base, replica, shared := strings.Cut(id, "::")
	if !shared {
		base, replica, shared = strings.Cut(id, "/vgpu")
	}
	if shared {
		if _, ok := parseNumber(replica); !ok {
			return DeviceID{}, ""
		}
	}
	d, ok := parseBase(base)
	if !ok {
		return DeviceID{}, ""
	}
	return d, replica
}

func parseBase(s string) (DeviceID, bool) {
	// MIG-GPU- before MIG-: the older form starts with the newer one's prefix.
	if rest, ok := strings.CutPrefix(s, "MIG-GPU-"); ok {
		uuid, path, ok := strings.Cut(rest, "/")
		if !ok || !isUUIDText(uuid) {
			return DeviceID{}, false
		}
		giText, ciText, ok := strings.Cut(path, "/")
		if !ok {
			return DeviceID{}, false
		}
		gi, ok1 := parseNumber(giText)
		ci, ok2 := parseNumber(ciText)
		if !ok1 || !ok2 {
			return DeviceID{}, false
		}
		return DeviceID{Form: FormMIGPath, UUID: "GPU-" + strings.ToLower(uuid), GPUInstance: gi, ComputeInstance: ci}, true
	}
	if rest, ok := strings.CutPrefix(s, "MIG-"); ok {
		return DeviceID{Form: FormMIGUUID, UUID: canonicalUUID(s)}, isUUIDText(rest)
	}
	if rest, ok := strings.CutPrefix(s, "GPU-"); ok {
		return DeviceID{Form: FormGPUUUID, UUID: canonicalUUID(s)}, isUUIDText(rest)
	}
	if rest, ok := strings.CutPrefix(s, "nvidia"); ok {
		numText, giText, instance := strings.Cut(rest, "/gi")
		n, ok := parseNumber(numText)
		if !ok {
			return DeviceID{}, false
		}
		if !instance {
			return DeviceID{Form: FormDeviceName, Number: n}, true
		}
		gi, ok := parseNumber(giText)
		return DeviceID{Form: FormDeviceNameInstance, Number: n, GPUInstance: gi}, ok
	}
	if s == tegraID {
		return DeviceID{Form: FormTegra}, true
	}
	n, ok := parseNumber(s)
	return DeviceID{Form: FormNumber, Number: n}, ok
}

const tegraID = "tegra"

// canonicalUUID takes a UUID with its prefix, GPU- or MIG-.
func canonicalUUID(s string) string {
	if len(s) < 4 {
		return s
	}
	rest := strings.ToLower(s[4:])
	if rest == s[4:] {
		return s
	}
	return s[:4] + rest
}

// parseNumber takes what a program prints for a number: decimal digits without
// a sign, a blank or a leading zero, and no more of them than fit an int32. So
// no two IDs mean the same device without being the same text.
func parseNumber(s string) (int, bool) {
	if len(s) == 0 || len(s) > 9 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// isUUIDText is lenient about the length: simulators do not always write 36
// characters, and the text is only compared with what NVML says.
func isUUIDText(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-':
		default:
			return false
		}
	}
	return true
}

// String gives the ID back in the spelling of its form, without a replica.
func (d DeviceID) String() string {
	switch d.Form {
	case FormGPUUUID, FormMIGUUID:
		return d.UUID
	case FormNumber:
		return strconv.Itoa(d.Number)
	case FormDeviceName:
		return "nvidia" + strconv.Itoa(d.Number)
	case FormDeviceNameInstance:
		return fmt.Sprintf("nvidia%d/gi%d", d.Number, d.GPUInstance)
	case FormMIGPath:
		return fmt.Sprintf("MIG-%s/%d/%d", d.UUID, d.GPUInstance, d.ComputeInstance)
	case FormTegra:
		return tegraID
	}
	return "unknown"
}
