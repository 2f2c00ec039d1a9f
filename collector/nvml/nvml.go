// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package nvml reads from the driver's libnvidia-ml.so.1 what DCGM does not
// tell: the UUIDs of MIG devices, by which device plugins name them and which
// DCGM does not always know, and the processes on each device.
//
// It must be used in the sampler process only, since a call into a stuck driver
// does not return, and a broken library may end the process. It is the only
// package that imports go-nvml. It knows nothing of pods: whose a process is, is
// found out in the exporter process.
package nvml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector"
)

// libraryName is what go-nvml gives to dlopen, so LD_LIBRARY_PATH applies.
const libraryName = "libnvidia-ml.so.1"

var (
	// ErrNoLibrary says that there is no libnvidia-ml.so.1, as on a node
	// without NVIDIA's driver or in a container that was not given it.
	ErrNoLibrary = errors.New("no " + libraryName)
	// ErrNoDriver says that the library is there, but the driver is not loaded
	// or not the library's.
	ErrNoDriver = errors.New("NVIDIA driver not loaded or not of the library's version")
	// ErrLost says that a GPU has fallen off the bus.
	ErrLost = errors.New("GPU is lost")
)

// GPU is a GPU as NVML names it.
type GPU struct {
	Index    int // position in NVML's enumeration
	UUID     string
	Minor    int    // N of /dev/nvidiaN, or collector.Unknown
	PCIBusID string // such as 00000000:18:00.0
	MIGMode  bool
	// MIGDevices are ordered by GPU instance and compute instance. There may be
	// none although MIG is on.
	MIGDevices []collector.MIGDevice
	// Err says why some of the above is missing; ErrLost for a lost GPU, of
	// which nothing but the index is known. It does not affect other GPUs.
	Err error
}

// Library is the open library, to be used from one goroutine. go-nvml keeps
// global state: those that are open at the same time must be of one [Reader].
type Library struct {
	handle *dl.DynamicLibrary // keeps the library in the process while it is in use
	lib    nvml.Interface
	// What the library has functions for.
	mig, placement, mps, utilization bool
	processes                        error // why there are no lists of processes, or nil
}

// open loads and initialises the library. The error is ErrNoLibrary or
// ErrNoDriver where one of them is the cause.
func open(lib nvml.Interface) (*Library, error) {
	// go-nvml would do this, too, but without the loader's text, and it calls
	// functions without a look whether they are there. A call of a missing one
	// ends the process ("symbol lookup error"), so all are looked up before.
	handle := dl.New(libraryName, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := handle.Open(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLibrary, err)
	}
	l := &Library{handle: handle, lib: lib}
	if missing := firstMissing(handle, neededSymbols()); missing != "" {
		return nil, errors.Join(fmt.Errorf("%s has no function %s", libraryName, missing), handle.Close())
	}
	has := func(symbols [][]string) bool { return firstMissing(handle, symbols) == "" }
	l.mig, l.placement = has(migSymbols()), has(placementSymbols())
	l.mps, l.utilization, l.processes = has(mpsSymbols()), has(utilizationSymbols()), processSupport(handle)
	if ret := l.lib.Init(); ret != nvml.SUCCESS {
		return nil, errors.Join(callError("nvmlInit", ret), handle.Close())
	}
	return l, nil
}

// neededSymbols are the functions without which nothing can be read. Several
// names of one function are alternatives: go-nvml takes the newest that exists.
func neededSymbols() [][]string {
	return [][]string{
		{"nvmlInit_v2", "nvmlInit"},
		{"nvmlShutdown"},
		{"nvmlErrorString"},
		{"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
		{"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"},
		{"nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo"},
		{"nvmlDeviceGetUUID"},
		{"nvmlDeviceGetMinorNumber"},
	}
}

// migSymbols came with driver 450.
func migSymbols() [][]string {
	return [][]string{
		{"nvmlDeviceGetMigMode"},
		{"nvmlDeviceGetMaxMigDeviceCount"},
		{"nvmlDeviceGetMigDeviceHandleByIndex"},
		{"nvmlDeviceGetGpuInstanceId"},
		{"nvmlDeviceGetComputeInstanceId"},
	}
}

// placementSymbols came with driver 450, too.
func placementSymbols() [][]string {
	return [][]string{{"nvmlDeviceGetGpuInstanceById"}, {"nvmlGpuInstanceGetInfo"}}
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

// GPUs reads all GPUs that the driver has, in the order of NVML's index, with
// their MIG devices as they are now. What could not be read of a GPU is told
// in its Err; the error is for a list that could not be had at all.
func (l *Library) GPUs() ([]GPU, error) {
	count, ret := l.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, callError("nvmlDeviceGetCount", ret)
	}
	gpus := make([]GPU, count)
	for i := range gpus {
		gpus[i] = l.gpu(i)
	}
	return gpus, nil
}

func (l *Library) gpu(index int) GPU {
	g := GPU{Index: index, Minor: collector.Unknown}
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
	// Not supported in a virtual machine with a vGPU.
	if minor, ret := device.GetMinorNumber(); ret == nvml.SUCCESS {
		g.Minor = minor
	} else if ret != nvml.ERROR_NOT_SUPPORTED {
		errs = append(errs, callError("nvmlDeviceGetMinorNumber", ret))
	}
	// The numbers and not the text: older versions of the call have no text
	// with all of the domain.
	if pci, ret := device.GetPciInfo(); ret == nvml.SUCCESS {
		g.PCIBusID = fmt.Sprintf("%08X:%02X:%02X.0", pci.Domain, pci.Bus, pci.Device)
	} else {
		errs = append(errs, callError("nvmlDeviceGetPciInfo", ret))
	}
	if l.mig {
		var err error
		g.MIGMode, g.MIGDevices, err = l.migDevices(device, g.UUID)
		errs = append(errs, err)
	}
	g.Err = errors.Join(errs...)
	return g
}

func (l *Library) migDevices(parent nvml.Device, parentUUID string) (mode bool, devices []collector.MIGDevice, err error) {
	mode, all, err := migHandles(parent)
	errs := []error{err}
	starts := make(map[int]int) // by GPU instance
	for _, m := range all {
		d := m.MIGDevice
		start, known := starts[d.GPUInstanceID]
		if !known && l.placement {
			if start, err = placementStart(parent, d.GPUInstanceID); err != nil {
				errs = append(errs, err)
			}
			starts[d.GPUInstanceID] = start
			known = true
		}
		if known {
			d.PlacementStart = start
		}
		d.ParentUUID = parentUUID
		devices = append(devices, d)
	}
	return mode, devices, errors.Join(errs...)
}

// migHandle is a MIG device and the handle by which it can be asked.
type migHandle struct {
	handle              nvml.Device
	collector.MIGDevice // without its parent and placement
}

// migHandles lists the MIG devices of a GPU by GPU instance and compute
// instance. Those that could not be read are missing, and told in the error.
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
	var errs []error
	for i := range most {
		device, ret := parent.GetMigDeviceHandleByIndex(i)
		if ret == nvml.ERROR_NOT_FOUND {
			continue // places may be free, also before others that are not
		}
		if ret != nvml.SUCCESS {
			errs = append(errs, callError("nvmlDeviceGetMigDeviceHandleByIndex", ret))
			continue
		}
		d, err := migDevice(device)
		if err != nil {
			errs = append(errs, err) // it may just have been destroyed
			continue
		}
		devices = append(devices, migHandle{device, d})
	}
	slices.SortFunc(devices, func(a, b migHandle) int {
		return cmp.Or(cmp.Compare(a.GPUInstanceID, b.GPUInstanceID), cmp.Compare(a.ComputeInstanceID, b.ComputeInstanceID))
	})
	return true, devices, errors.Join(errs...)
}

func migDevice(device nvml.Device) (d collector.MIGDevice, err error) {
	d.PlacementStart = collector.Unknown
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

// placementStart returns the first memory slice of a GPU instance. Only a
// privileged user is told (nvml.h), so that not to know it is no error.
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
		return collector.Unknown, nil
	}
	return collector.Unknown, callError(call, ret)
}

func callError(call string, ret nvml.Return) error {
	// go-nvml's text lies in the library and goes away with it.
	text := strings.Clone(ret.Error())
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return fmt.Errorf("%s: %w (%d: %s)", call, ErrNoLibrary, int(ret), text)
	case nvml.ERROR_DRIVER_NOT_LOADED, nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return fmt.Errorf("%s: %w (%d: %s)", call, ErrNoDriver, int(ret), text)
	case nvml.ERROR_GPU_IS_LOST:
		return fmt.Errorf("%s: %w", call, ErrLost)
	}
	return fmt.Errorf("%s: %s (%d)", call, text, int(ret))
}
