// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	gpuA = "GPU-5fd4f4e1-9b29-4a1c-b0a6-0f6c8f5ed3a0"
	gpuB = "GPU-0b1ad8e2-3c44-4f0e-8f53-7f6d2f4b9c11"
	migA = "MIG-6a7e2b0c-1d7f-5d52-a63a-1f3fbb0c2c01"
	migB = "MIG-77c1c8a5-f8d4-5e0e-9a0b-0d5a8bd1f102"
)

func TestParseID(t *testing.T) {
	for _, tc := range []struct {
		id      string
		want    ID
		replica string
	}{
		// NVIDIA's device plugin.
		{gpuA, ID{Form: FormGPUUUID, UUID: gpuA}, ""},
		{gpuA + "::0", ID{Form: FormGPUUUID, UUID: gpuA}, "0"},
		{gpuA + "::12", ID{Form: FormGPUUUID, UUID: gpuA}, "12"},
		{migA, ID{Form: FormMIGUUID, UUID: migA}, ""},
		{migA + "::3", ID{Form: FormMIGUUID, UUID: migA}, "3"},
		{"MIG-" + gpuA + "/1/0", ID{Form: FormMIGPath, UUID: gpuA, GPUInstance: 1}, ""},
		{"MIG-" + gpuA + "/13/2::1", ID{Form: FormMIGPath, UUID: gpuA, GPUInstance: 13, ComputeInstance: 2}, "1"},
		// Device plugins with numbers.
		{"0", ID{Form: FormNumber}, ""},
		{"15", ID{Form: FormNumber, Number: 15}, ""},
		{"2::1", ID{Form: FormNumber, Number: 2}, "1"},
		// GKE's device plugin.
		{"nvidia0", ID{Form: FormDeviceName}, ""},
		{"nvidia12", ID{Form: FormDeviceName, Number: 12}, ""},
		{"nvidia7::4", ID{Form: FormDeviceName, Number: 7}, "4"},
		{"nvidia0/vgpu3", ID{Form: FormDeviceName}, "3"},
		{"nvidia1/gi5", ID{Form: FormDeviceNameInstance, Number: 1, GPUInstance: 5}, ""},
		{"nvidia1/gi5/vgpu0", ID{Form: FormDeviceNameInstance, Number: 1, GPUInstance: 5}, "0"},
		// Each form with either way of sharing.
		{gpuA + "/vgpu4", ID{Form: FormGPUUUID, UUID: gpuA}, "4"},
		{migA + "/vgpu2", ID{Form: FormMIGUUID, UUID: migA}, "2"},
		{"MIG-" + gpuA + "/1/0/vgpu5", ID{Form: FormMIGPath, UUID: gpuA, GPUInstance: 1}, "5"},
		{"nvidia1/gi5::7", ID{Form: FormDeviceNameInstance, Number: 1, GPUInstance: 5}, "7"},
		{"3/vgpu1", ID{Form: FormNumber, Number: 3}, "1"},
		// The integrated GPU of a Tegra system.
		{"tegra", ID{Form: FormTegra}, ""},
		{"tegra::1", ID{Form: FormTegra}, "1"},
		// The case of a UUID does not matter.
		{"GPU-" + strings.ToUpper(gpuA[4:]), ID{Form: FormGPUUUID, UUID: gpuA}, ""},
		{"MIG-" + strings.ToUpper(migA[4:]) + "::0", ID{Form: FormMIGUUID, UUID: migA}, "0"},
		{"MIG-GPU-" + strings.ToUpper(gpuA[4:]) + "/1/0", ID{Form: FormMIGPath, UUID: gpuA, GPUInstance: 1}, ""},
		// Simulators write UUIDs of any length.
		{"GPU-0", ID{Form: FormGPUUUID, UUID: "GPU-0"}, ""},

		// Unknown forms.
		{"", ID{}, ""},
		{"GPU-", ID{}, ""},
		{"MIG-", ID{}, ""},
		{"gpu-0", ID{}, ""},
		{gpuA + "::", ID{}, ""},
		{gpuA + "::x", ID{}, ""},
		{gpuA + "::-1", ID{}, ""},
		{gpuA + "::0::1", ID{}, ""},
		{gpuA + "::0/vgpu1", ID{}, ""},
		{"::0", ID{}, ""},
		{"MIG-" + gpuA, ID{}, ""},
		{"MIG-" + gpuA + "/1", ID{}, ""},
		{"MIG-" + gpuA + "/1/", ID{}, ""},
		{"MIG-" + gpuA + "/1/0/0", ID{}, ""},
		{"MIG-GPU-/1/0", ID{}, ""},
		{"nvidia", ID{}, ""},
		{"nvidiactl", ID{}, ""},
		{"nvidia0/gi", ID{}, ""},
		{"nvidia0/gi1/vgpu", ID{}, ""},
		{"nvidia0/ci1", ID{}, ""},
		{"-1", ID{}, ""},
		{"+1", ID{}, ""},
		{" 1", ID{}, ""},
		{"1.5", ID{}, ""},
		{"0000:3b:00.0", ID{}, ""},
		{"99999999999999999999", ID{}, ""},
		{"GPU-a b", ID{}, ""},
		{"00", ID{}, ""},
		{"nvidia01", ID{}, ""},
		{gpuA + "::01", ID{}, ""},
		{gpuA + "/vgpu", ID{}, ""},
		{gpuA + "__1", ID{}, ""}, // nvshare's plugin
		{"Tegra", ID{}, ""},
		{"GPU-a\nb", ID{}, ""},
		{"GPU-" + strings.Repeat("a", maxID), ID{}, ""},
	} {
		got, replica := ParseID(tc.id)
		if got != tc.want || replica != tc.replica {
			t.Errorf("ParseID(%q) = %+v, %q; want %+v, %q", tc.id, got, replica, tc.want, tc.replica)
		}
	}
}

// someID returns an ID of a random form as a device plugin might write it, and its
// meaning.
func someID(r *rand.Rand) (text string, want ID, replica string) {
	number := func() int { return r.IntN([]int{2, 16, 1000}[r.IntN(3)]) }
	uuid := func() (spelled, canonical string) {
		b := make([]byte, 16)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		canonical = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
		if r.IntN(4) == 0 {
			return strings.ToUpper(canonical), canonical
		}
		return canonical, canonical
	}
	switch want.Form = Form(1 + r.IntN(int(FormTegra))); want.Form {
	case FormGPUUUID, FormMIGUUID:
		spelled, canonical := uuid()
		prefix := map[Form]string{FormGPUUUID: "GPU-", FormMIGUUID: "MIG-"}[want.Form]
		text, want.UUID = prefix+spelled, prefix+canonical
	case FormNumber:
		want.Number = number()
		text = fmt.Sprint(want.Number)
	case FormDeviceName:
		want.Number = number()
		text = fmt.Sprintf("nvidia%d", want.Number)
	case FormDeviceNameInstance:
		want.Number, want.GPUInstance = number(), number()
		text = fmt.Sprintf("nvidia%d/gi%d", want.Number, want.GPUInstance)
	case FormMIGPath:
		spelled, canonical := uuid()
		want.UUID, want.GPUInstance, want.ComputeInstance = "GPU-"+canonical, number(), number()
		text = fmt.Sprintf("MIG-GPU-%s/%d/%d", spelled, want.GPUInstance, want.ComputeInstance)
	case FormTegra:
		text = "tegra"
	}
	switch r.IntN(3) {
	case 0:
		replica = fmt.Sprint(number())
		text += "::" + replica
	case 1:
		replica = fmt.Sprint(number())
		text += "/vgpu" + replica
	}
	return text, want, replica
}

// mutate changes a text at one to three positions.
func mutate(r *rand.Rand, text string) string {
	const letters = "0123456789abcdefABCDEFGPUMIGnvidiagpu-:/ \x00\xff"
	b := []byte(text)
	for range 1 + r.IntN(3) {
		c := letters[r.IntN(len(letters))]
		at := r.IntN(len(b) + 1)
		switch op := r.IntN(3); {
		case op == 0 || at == len(b):
			b = slices.Insert(b, at, c)
		case op == 1:
			b[at] = c
		default:
			b = slices.Delete(b, at, at+1)
		}
	}
	return string(b)
}

const draws = 20000

// TestRandomIDs parses IDs of every form back into their parts.
func TestRandomIDs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range draws {
		text, want, wantReplica := someID(r)
		if got, replica := ParseID(text); got != want || replica != wantReplica {
			t.Fatalf("ParseID(%q) = %+v, %q; want %+v, %q", text, got, replica, want, wantReplica)
		}
	}
}

// TestMutatedIDs checks that an ID with a flaw never means a device that does not
// have exactly this ID.
func TestMutatedIDs(t *testing.T) {
	x := NewIndex(node(), IDTypeUID)
	// Every ID of the node, written by hand.
	ids := map[string][]int{
		gpuA: {0}, gpuB: {1}, "0": {0}, "1": {1}, "nvidia1": {0}, "nvidia0": {1},
		"nvidia0/gi2": {2, 3, 4}, "nvidia0/gi9": {5},
		migA: {2, 3}, migB: {2, 4},
		"MIG-" + gpuB + "/2/0": {2, 3}, "MIG-" + gpuB + "/2/1": {2, 4},
	}
	// GPU instances whose compute instances are not listed.
	anyCI := map[string][]int{"MIG-" + gpuB + "/2/": {2}, "MIG-" + gpuB + "/9/": {5}}
	seeds := slices.Sorted(maps.Keys(ids))
	share := regexp.MustCompile(`^(.*?)(?:(?:::|/vgpu)(?:0|[1-9][0-9]{0,8}))?$`)
	number := regexp.MustCompile(`^(?:0|[1-9][0-9]{0,8})$`)
	r := rand.New(rand.NewPCG(3, 4))
	matched := 0
	for range draws {
		text := seeds[r.IntN(len(seeds))] + []string{"", "::1", "/vgpu0"}[r.IntN(3)]
		text = mutate(r, text)
		base := ""
		if m := share.FindStringSubmatch(text); m != nil {
			base = m[1]
		}
		if len(base) > 4 && (base[:4] == "GPU-" || base[:4] == "MIG-") {
			rest := base[4:]
			if after, old := strings.CutPrefix(rest, "GPU-"); old && base[:4] == "MIG-" {
				base = "MIG-GPU-" + strings.ToLower(after)
			} else {
				base = base[:4] + strings.ToLower(rest)
			}
		}
		want, known := ids[base]
		for prefix, at := range anyCI {
			if rest, ok := strings.CutPrefix(base, prefix); ok && number.MatchString(rest) && !known {
				want = at
			}
		}
		id, _ := ParseID(text)
		got, miss := x.FindText(id, text)
		if !slices.Equal(got, want) {
			t.Fatalf("%q means %v, want %v", text, got, want)
		}
		if len(got) > 0 {
			matched++
		} else if miss.Reason == "" || miss.Hint == "" {
			t.Fatalf("%q means nothing, without a reason and a hint: %+v", text, miss)
		}
	}
	if matched == 0 || matched > draws/2 {
		t.Errorf("%d of %d mutated IDs still mean a device: adjust the number of mutations", matched, draws)
	}
}

func FuzzParseID(f *testing.F) {
	for _, id := range []string{
		"", "0", "nvidia0", "nvidia1/gi5/vgpu0", gpuA, gpuA + "::0", migA, "MIG-" + gpuA + "/1/0::7", "::", "/vgpu", "00", "nvidia007", "tegra", "GPU-ABC",
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		d, replica := ParseID(id)
		if d.Form == FormUnknown {
			if d != (ID{}) || replica != "" {
				t.Fatalf("ParseID(%q): an unknown form carries %+v, %q", id, d, replica)
			}
			return
		}
		if strings.Trim(replica, "0123456789") != "" {
			t.Fatalf("ParseID(%q): replica %q is not a number", id, replica)
		}
		// The ID in its own spelling parses to the same ID.
		again, none := ParseID(d.String())
		if again != d || none != "" {
			t.Fatalf("ParseID(%q) = %+v, but its own spelling %q gives %+v, %q", id, d, d, again, none)
		}
	})
}
