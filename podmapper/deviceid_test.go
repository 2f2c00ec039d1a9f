// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"strings"
	"testing"
)

const (
	gpuA = "GPU-5fd4f4e1-9b29-4a1c-b0a6-0f6c8f5ed3a0"
	gpuB = "GPU-0b1ad8e2-3c44-4f0e-8f53-7f6d2f4b9c11"
	migA = "MIG-6a7e2b0c-1d7f-5d52-a63a-1f3fbb0c2c01"
	migB = "MIG-77c1c8a5-f8d4-5e0e-9a0b-0d5a8bd1f102"
)

func TestParseDeviceID(t *testing.T) {
	for _, tc := range []struct {
		id      string
		want    DeviceID
		replica string
	}{
		// NVIDIA's device plugin.
		{gpuA, DeviceID{Form: FormGPUUUID, UUID: gpuA}, ""},
		{gpuA + "::0", DeviceID{Form: FormGPUUUID, UUID: gpuA}, "0"},
		{gpuA + "::12", DeviceID{Form: FormGPUUUID, UUID: gpuA}, "12"},
		{migA, DeviceID{Form: FormMIGUUID, UUID: migA}, ""},
		{migA + "::3", DeviceID{Form: FormMIGUUID, UUID: migA}, "3"},
		{"MIG-" + gpuA + "/1/0", DeviceID{Form: FormMIGPath, UUID: gpuA, GPUInstance: 1}, ""},
		{"MIG-" + gpuA + "/13/2::1", DeviceID{Form: FormMIGPath, UUID: gpuA, GPUInstance: 13, ComputeInstance: 2}, "1"},
		// Plugins that count.
		{"0", DeviceID{Form: FormNumber}, ""},
		{"15", DeviceID{Form: FormNumber, Number: 15}, ""},
		{"2::1", DeviceID{Form: FormNumber, Number: 2}, "1"},
		// GKE's device plugin.
		{"nvidia0", DeviceID{Form: FormDeviceName}, ""},
		{"nvidia12", DeviceID{Form: FormDeviceName, Number: 12}, ""},
		{"nvidia7::4", DeviceID{Form: FormDeviceName, Number: 7}, "4"},
		{"nvidia0/vgpu3", DeviceID{Form: FormDeviceName}, "3"},
		{"nvidia1/gi5", DeviceID{Form: FormDeviceNameInstance, Number: 1, GPUInstance: 5}, ""},
		{"nvidia1/gi5/vgpu0", DeviceID{Form: FormDeviceNameInstance, Number: 1, GPUInstance: 5}, "0"},
		// Simulators' UUIDs of any length.
		{"GPU-0", DeviceID{Form: FormGPUUUID, UUID: "GPU-0"}, ""},

		// No known form: no guess.
		{"", DeviceID{}, ""},
		{"GPU-", DeviceID{}, ""},
		{"MIG-", DeviceID{}, ""},
		{"gpu-0", DeviceID{}, ""},
		{gpuA + "::", DeviceID{}, ""},
		{gpuA + "::x", DeviceID{}, ""},
		{gpuA + "::-1", DeviceID{}, ""},
		{gpuA + "::0::1", DeviceID{}, ""},
		{gpuA + "::0/vgpu1", DeviceID{}, ""},
		{"::0", DeviceID{}, ""},
		{"MIG-" + gpuA, DeviceID{}, ""},
		{"MIG-" + gpuA + "/1", DeviceID{}, ""},
		{"MIG-" + gpuA + "/1/", DeviceID{}, ""},
		{"MIG-" + gpuA + "/1/0/0", DeviceID{}, ""},
		{"MIG-GPU-/1/0", DeviceID{}, ""},
		{"nvidia", DeviceID{}, ""},
		{"nvidiactl", DeviceID{}, ""},
		{"nvidia0/gi", DeviceID{}, ""},
		{"nvidia0/gi1/vgpu", DeviceID{}, ""},
		{"nvidia0/ci1", DeviceID{}, ""},
		{"-1", DeviceID{}, ""},
		{"+1", DeviceID{}, ""},
		{" 1", DeviceID{}, ""},
		{"1.5", DeviceID{}, ""},
		{"0000:3b:00.0", DeviceID{}, ""},
		{"99999999999999999999", DeviceID{}, ""},
		{"GPU-a b", DeviceID{}, ""},
		{"GPU-a\nb", DeviceID{}, ""},
		{"GPU-" + strings.Repeat("a", maxDeviceID), DeviceID{}, ""},
	} {
		got, replica := ParseDeviceID(tc.id)
		if got != tc.want || replica != tc.replica {
			t.Errorf("ParseDeviceID(%q) = %+v, %q; want %+v, %q", tc.id, got, replica, tc.want, tc.replica)
		}
	}
}

func FuzzParseDeviceID(f *testing.F) {
	for _, id := range []string{
		"", "0", "nvidia0", "nvidia1/gi5/vgpu0", gpuA, gpuA + "::0", migA, "MIG-" + gpuA + "/1/0::7", "::", "/vgpu", "00", "nvidia007",
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		d, replica := ParseDeviceID(id)
		if d.Form == FormUnknown {
			if d != (DeviceID{}) || replica != "" {
				t.Fatalf("ParseDeviceID(%q): an unknown form carries %+v, %q", id, d, replica)
			}
			return
		}
		if strings.Trim(replica, "0123456789") != "" {
			t.Fatalf("ParseDeviceID(%q): replica %q is not a number", id, replica)
		}
		// What was understood can be written down and understood again.
		again, none := ParseDeviceID(d.String())
		if again != d || none != "" {
			t.Fatalf("ParseDeviceID(%q) = %+v, but its own spelling %q gives %+v, %q", id, d, d, again, none)
		}
	})
}
