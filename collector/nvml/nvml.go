// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package nvml reads what DCGM does not return from the driver's libnvidia-ml.so.1:
// the UUIDs of MIG devices, by which device plugins identify them, and the processes
// on each device.
//
// Only the sampler process may use it, because a call into a stuck driver does not
// return and a broken library may end the process. No other package imports go-nvml.
// It must not know pods: the exporter process finds the owners of processes.
package nvml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector/model"
)

// libraryName is the name that go-nvml passes to dlopen, so LD_LIBRARY_PATH applies.
const libraryName = "libnvidia-ml.so.1"

// errLost means that a GPU has fallen off the bus.
var errLost = errors.New("GPU is lost")

// GPU is a GPU in NVML's enumeration.
type GPU struct {
	Index   int
	UUID    string
	MIGMode bool
	// MIGDevices are ordered by GPU instance and compute instance. A GPU in MIG mode
	// may have none.
	MIGDevices []model.MIGDevice
	// Err is why some of the above is missing: errLost for a lost GPU, of which only
	// the index is known. It does not affect other GPUs.
	Err error
}

// Library is the open library. One goroutine uses it. go-nvml has global state, so all
// libraries that are open at the same time belong to one [Reader].
type Library struct {
	handle *dl.DynamicLibrary // keeps the library loaded
	lib    nvml.Interface
	// The features that the library has functions for.
	mig, mps, utilization bool
	processes             error // why processes cannot be listed, or nil
}

// open loads and initialises the library.
func open(lib nvml.Interface) (*Library, error) {
	// go-nvml opens the library too, but drops the loader's message. It calls functions
	// without checking that they exist, and calling a missing one ends the process
	// ("symbol lookup error"), so this looks up all functions first.
	handle := dl.New(libraryName, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := handle.Open(); err != nil {
		return nil, fmt.Errorf("no %s: %w", libraryName, err)
	}
	l := &Library{handle: handle, lib: lib}
	if missing := firstMissing(handle, neededSymbols()); missing != "" {
		return nil, errors.Join(fmt.Errorf("%s has no function %s", libraryName, missing), handle.Close())
	}
	has := func(symbols [][]string) bool { return firstMissing(handle, symbols) == "" }
	l.mig, l.mps, l.utilization = has(migSymbols()), has(mpsSymbols()), has(utilizationSymbols())
	l.processes = processSupport(handle)
	if ret := l.lib.Init(); ret != nvml.SUCCESS {
		return nil, errors.Join(callError("nvmlInit", ret), handle.Close())
	}
	return l, nil
}

// neededSymbols are the functions that every read needs. Several names of one function
// are alternatives: go-nvml uses the newest one that exists.
func neededSymbols() [][]string {
	return [][]string{
		{"nvmlInit_v2", "nvmlInit"},
		{"nvmlShutdown"},
		{"nvmlErrorString"},
		{"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
		{"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"},
		{"nvmlDeviceGetUUID"},
	}
}

// migSymbols exist since driver 450.
func migSymbols() [][]string {
	return [][]string{
		{"nvmlDeviceGetMigMode"},
		{"nvmlDeviceGetMaxMigDeviceCount"},
		{"nvmlDeviceGetMigDeviceHandleByIndex"},
		{"nvmlDeviceGetGpuInstanceId"},
		{"nvmlDeviceGetComputeInstanceId"},
		{"nvmlDeviceGetGpuInstanceById"},
		{"nvmlGpuInstanceGetInfo"},
	}
}

func firstMissing(handle *dl.DynamicLibrary, symbols [][]string) string {
	for _, names := range symbols {
		if !slices.ContainsFunc(names, func(name string) bool { return handle.Lookup(name) == nil }) {
			return names[0]
		}
	}
	return ""
}

// Close shuts the library down and unloads it.
func (l *Library) Close() error {
	var err error
	if ret := l.lib.Shutdown(); ret != nvml.SUCCESS {
		err = callError("nvmlShutdown", ret)
	}
	return errors.Join(err, l.handle.Close())
}

// The largest counts that are believed. DCGM has at most 32 GPUs (dcgm_structs.h), a GPU
// at most 8 MIG devices.
const (
	maxGPUs       = 1024
	maxMIGDevices = 256
)

// believable returns an error for a count that would exhaust the memory or take for ever.
func believable(call string, count, most int) error {
	if count < 0 || count > most {
		return fmt.Errorf("%s returned %d: the layouts of the driver and nvml.h differ", call, count)
	}
	return nil
}

// count returns the number of GPUs.
func (l *Library) count() (int, error) {
	const call = "nvmlDeviceGetCount"
	count, ret := l.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return 0, callError(call, ret)
	}
	return count, believable(call, count, maxGPUs)
}

// GPUs returns all GPUs in the order of NVML's index, with their current MIG devices. An
// error of a GPU is in its Err; the returned error means that there is no list.
func (l *Library) GPUs() ([]GPU, error) {
	count, err := l.count()
	if err != nil {
		return nil, err
	}
	gpus := make([]GPU, count)
	for i := range gpus {
		gpus[i] = l.gpu(i)
	}
	return gpus, nil
}

func (l *Library) gpu(index int) GPU {
	g := GPU{Index: index}
	device, ret := l.lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		g.Err = callError("nvmlDeviceGetHandleByIndex", ret)
		return g
	}
	var errs []error
	if uuid, ret := device.GetUUID(); ret == nvml.SUCCESS {
		g.UUID = uuid
	} else {
		errs = append(errs, callError("nvmlDeviceGetUUID", ret))
	}
	if l.mig {
		var err error
		g.MIGMode, g.MIGDevices, err = migDevices(device, g.UUID)
		errs = append(errs, err)
	}
	g.Err = errors.Join(errs...)
	return g
}

func migDevices(parent nvml.Device, parentUUID string) (mode bool, devices []model.MIGDevice, err error) {
	mode, all, err := migHandles(parent)
	errs := []error{err}
	starts := make(map[int]int) // by GPU instance
	for _, m := range all {
		d := m.MIGDevice
		if _, known := starts[d.GPUInstanceID]; !known {
			starts[d.GPUInstanceID], err = placementStart(parent, d.GPUInstanceID)
			errs = append(errs, err)
		}
		d.PlacementStart, d.ParentUUID = starts[d.GPUInstanceID], parentUUID
		devices = append(devices, d)
	}
	return mode, devices, errors.Join(errs...)
}

// migHandle is a MIG device and its NVML handle.
type migHandle struct {
	handle          nvml.Device
	model.MIGDevice // without parent and placement
}

// migHandles lists the MIG devices of a GPU by GPU instance and compute instance. It
// omits unreadable devices and returns their errors.
func migHandles(parent nvml.Device) (mode bool, devices []migHandle, err error) {
	current, _, ret := parent.GetMigMode()
	switch {
	case ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.SUCCESS && current != nvml.DEVICE_MIG_ENABLE:
		return false, nil, nil
	case ret != nvml.SUCCESS:
		return false, nil, callError("nvmlDeviceGetMigMode", ret)
	}
	most, ret := parent.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return true, nil, callError("nvmlDeviceGetMaxMigDeviceCount", ret)
	}
	if err := believable("nvmlDeviceGetMaxMigDeviceCount", most, maxMIGDevices); err != nil {
		return true, nil, err
	}
	var errs []error
	for i := range most {
		device, ret := parent.GetMigDeviceHandleByIndex(i)
		if ret == nvml.ERROR_NOT_FOUND {
			continue // a free place; later places may be used
		}
		if ret != nvml.SUCCESS {
			errs = append(errs, callError("nvmlDeviceGetMigDeviceHandleByIndex", ret))
			continue
		}
		d, err := migDevice(device)
		if err != nil {
			errs = append(errs, err) // for example, just destroyed
			continue
		}
		d.Index = i
		devices = append(devices, migHandle{device, d})
	}
	slices.SortFunc(devices, func(a, b migHandle) int {
		return cmp.Or(cmp.Compare(a.GPUInstanceID, b.GPUInstanceID), cmp.Compare(a.ComputeInstanceID, b.ComputeInstanceID))
	})
	return true, devices, errors.Join(errs...)
}

func migDevice(device nvml.Device) (d model.MIGDevice, err error) {
	d.PlacementStart = model.Unknown
	var ret nvml.Return
	if d.UUID, ret = device.GetUUID(); ret != nvml.SUCCESS {
		return d, callError("nvmlDeviceGetUUID of a MIG device", ret)
	}
	if d.GPUInstanceID, ret = device.GetGpuInstanceId(); ret != nvml.SUCCESS {
		return d, callError("nvmlDeviceGetGpuInstanceId", ret)
	}
	if d.ComputeInstanceID, ret = device.GetComputeInstanceId(); ret != nvml.SUCCESS {
		return d, callError("nvmlDeviceGetComputeInstanceId", ret)
	}
	return d, nil
}

// placementStart returns the first memory slice of a GPU instance. NVML returns it to
// privileged users only (nvml.h), so an unknown placement is no error.
func placementStart(parent nvml.Device, instance int) (int, error) {
	gi, ret := parent.GetGpuInstanceById(instance)
	call := "nvmlDeviceGetGpuInstanceById"
	if ret == nvml.SUCCESS {
		var info nvml.GpuInstanceInfo
		call = "nvmlGpuInstanceGetInfo"
		if info, ret = gi.GetInfo(); ret == nvml.SUCCESS {
			return int(info.Placement.Start), nil
		}
	}
	switch ret {
	case nvml.ERROR_NO_PERMISSION, nvml.ERROR_NOT_SUPPORTED:
		return model.Unknown, nil
	}
	return model.Unknown, callError(call, ret)
}

func callError(call string, ret nvml.Return) error {
	// go-nvml's text is memory of the library, which may be unloaded.
	text := strings.Clone(ret.Error())
	if ret == nvml.ERROR_GPU_IS_LOST {
		return fmt.Errorf("%s: %w", call, errLost)
	}
	return fmt.Errorf("%s: %s (%d)", call, text, int(ret))
}
