// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector/model"
)

const (
	// noInstance is NVML's instance ID of a process outside of instances.
	noInstance = math.MaxUint32
	// samplingPeriod is the longest time between the driver's utilisation samples
	// (nvml.h, nvmlUtilization_t).
	samplingPeriod = time.Second
	// reopenAfter is how long a library stays open while calls fail.
	reopenAfter = time.Minute
)

// errLongProcessInfo means that the layout of the lists does not match the functions' names.
var errLongProcessInfo = errors.New("this driver returns process lists in an incompatible layout, as 535.43 to 535.86 do: update it")

// processSymbols are the functions that list processes. go-nvml uses the newest.
func processSymbols() [][]string {
	return [][]string{
		{"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses"},
		{"nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses"},
	}
}

// mpsSymbols exist since driver 470. The function without a version suffix does not have
// the version 1 layout that go-nvml would read (NVIDIA/go-nvml issue 28).
func mpsSymbols() [][]string {
	return [][]string{{"nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v2"}}
}

func utilizationSymbols() [][]string { return [][]string{{"nvmlDeviceGetProcessUtilization"}} }

// processSupport returns why a library's process lists cannot be read, or nil.
func processSupport(handle *dl.DynamicLibrary) error {
	if missing := firstMissing(handle, processSymbols()); missing != "" {
		return fmt.Errorf("%s has no function %s", libraryName, missing)
	}
	// Some drivers return longer version 3 entries than every nvml.h declares: reading
	// them would overwrite memory. XuehaiPan/nvitop's pull requests 79, 89 and 94 describe
	// how to detect them.
	has := func(name string) bool { return handle.Lookup(name) == nil }
	if has("nvmlDeviceGetComputeRunningProcesses_v3") && has("nvmlDeviceGetConfComputeMemSizeInfo") &&
		!has("nvmlDeviceGetRunningProcessDetailList") {
		return errLongProcessInfo
	}
	return nil
}

// Processes reads the processes on the selected GPUs of the inventory. A failure of a
// device is in its statuses, and logged when it changes; the error means that nothing
// could be read.
//
// The library stays open between readings. It is reopened for a new inventory, because
// it only knows the GPUs that existed when it was opened, and after failures.
func (r *Reader) Processes(inv *model.Inventory) (*model.Processes, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != nil && r.of != inv.Generation {
		r.release()
	}
	if r.held == nil {
		l, err := open(r.lib)
		if err != nil {
			return nil, fmt.Errorf("opening NVML: %w", err)
		}
		r.held, r.opened, r.of = l, time.Now(), inv.Generation
	}
	start := time.Now()
	p := pass{l: r.held, inv: inv, lastSeen: r.lastSeen}
	if err := p.read(); err != nil {
		r.release()
		return nil, err
	}
	r.logFailures(p.failures)
	slices.SortFunc(p.devices, func(a, b model.DeviceProcesses) int { return cmp.Compare(a.Entity, b.Entity) })
	now := time.Now()
	return &model.Processes{Generation: inv.Generation, Time: now, Duration: now.Sub(start), Devices: p.devices}, nil
}

// logFailures logs the failures that the last pass did not have. It closes a library
// that has been open for a while if reopening it may help.
func (r *Reader) logFailures(failures []failure) {
	found := make(map[target]string, len(failures))
	reopen := false
	for _, f := range failures {
		text := f.err.Error()
		changed := r.failures[f.target] != text
		found[f.target] = text
		log := r.log.Warn
		switch f.status {
		case model.StatusNotSupported:
			log = r.log.Debug
		case model.StatusNotPermitted:
		default:
			reopen = reopen || changed || time.Since(r.opened) > reopenAfter
		}
		if changed {
			log("the processes on a device are not completely known", "missing", f.data, "uuid", f.uuid, "err", f.err)
		}
	}
	r.failures = found
	if reopen {
		r.release()
	}
}

// target names the data of a device that could not be read.
type target struct{ uuid, data string }

// The data of a device.
const (
	processList        = "list"
	processUtilization = "utilization"
)

type failure struct {
	target
	status model.Status
	err    error
}

// pass is one reading of all devices.
type pass struct {
	l        *Library
	inv      *model.Inventory
	lastSeen map[string]uint64 // by GPU: the time of the newest utilisation sample that was used, in µs since 1970
	devices  []model.DeviceProcesses
	failures []failure
}

func (p *pass) fail(uuid, data string, status model.Status, err error) {
	p.failures = append(p.failures, failure{target{uuid, data}, status, err})
}

func (p *pass) read() error {
	count, err := p.l.count()
	if err != nil {
		return err
	}
	wanted := make(map[string]int)
	for i, e := range p.inv.Entities {
		if e.Kind == model.KindGPU && e.Selected && e.UUID != "" {
			wanted[e.UUID] = i
		}
	}
	lost := false
	for i := range count {
		device, ret := p.l.lib.DeviceGetHandleByIndex(i)
		var uuid string
		if ret == nvml.SUCCESS {
			uuid, ret = device.GetUUID()
		}
		lost = lost || ret == nvml.ERROR_GPU_IS_LOST
		if at, ok := wanted[uuid]; ok {
			delete(wanted, uuid)
			p.gpu(device, at)
		}
	}
	for uuid, at := range wanted {
		if lost || p.inv.Entities[at].State != model.EntityUp {
			p.unread(at, model.StatusEntityLost)
			continue
		}
		p.unread(at, model.StatusNotFound)
		p.fail(uuid, processList, model.StatusNotFound, errors.New("NVML does not list the GPU"))
	}
	return nil
}

// unread sets the status of a GPU, or of its instances, whose processes are unknown.
func (p *pass) unread(gpu int, why model.Status) {
	if !p.inv.Entities[gpu].MIGMode {
		p.devices = append(p.devices, model.DeviceProcesses{Entity: gpu, Listed: why, Utilization: why})
		return
	}
	whole, compute := p.instances(gpu)
	for _, at := range append(whole, compute...) {
		p.devices = append(p.devices, model.DeviceProcesses{Entity: at, Listed: why, Utilization: why})
	}
}

// instances returns the positions of the compute instances of a GPU, and of the GPU
// instances without any.
func (p *pass) instances(gpu int) (whole, compute []int) {
	parts := make(map[int]int) // number of compute instances by GPU instance
	for i, e := range p.inv.Entities {
		if e.Kind == model.KindGPUInstance && e.Parent == gpu {
			parts[i] = 0
		}
		if _, ok := parts[e.Parent]; ok && e.Kind == model.KindComputeInstance {
			parts[e.Parent]++
			compute = append(compute, i)
		}
	}
	for at, n := range parts {
		if n == 0 {
			whole = append(whole, at)
		}
	}
	return whole, compute
}

func (p *pass) gpu(device nvml.Device, at int) {
	e := &p.inv.Entities[at]
	var mode bool
	var all []migHandle
	if p.l.mig {
		var err error
		if mode, all, err = migHandles(device); err != nil {
			p.unread(at, model.StatusError)
			p.fail(e.UUID, processList, model.StatusError, err)
			return
		}
	}
	switch {
	case mode != e.MIGMode: // the next inventory will have the new mode
		p.unread(at, model.StatusNoData)
	case mode:
		p.migGPU(device, at, all)
	default:
		p.wholeGPU(device, at)
	}
}

func (p *pass) wholeGPU(device nvml.Device, at int) {
	uuid := p.inv.Entities[at].UUID
	list, status, err := p.l.list(device)
	if status != model.StatusOK {
		p.unread(at, status)
		p.fail(uuid, processList, status, err)
		return
	}
	d := model.DeviceProcesses{Entity: at, Processes: merge(list)}
	if d.Utilization, err = p.utilization(device, uuid, d.Processes); err != nil {
		p.fail(uuid, processUtilization, d.Utilization, err)
	}
	p.devices = append(p.devices, d)
}

// migPlace is an instance of a GPU by NVML's IDs; compute is noInstance for a whole GPU
// instance.
type migPlace struct{ instance, compute uint32 }

// migLists are process lists by instance, and the status of each missing list.
type migLists struct {
	of     map[migPlace][]listed
	status map[migPlace]model.Status
	whole  model.Status // of the GPU's own list
}

// migGPU reads the processes on the MIG devices of a GPU. NVML has no utilisation in MIG
// mode (nvml.h).
func (p *pass) migGPU(device nvml.Device, at int, all []migHandle) {
	found := p.listMIG(device, all)
	if _, after, err := migHandles(device); err != nil || !slices.EqualFunc(all, after, func(a, b migHandle) bool { return a.MIGDevice == b.MIGDevice }) {
		p.unread(at, model.StatusNoData) // the lists may be of old or new instances
		return
	}
	uuids := make(map[migPlace]string, len(all))
	for _, m := range all {
		uuids[m.place()] = m.UUID
	}
	add := func(at int, place migPlace, status model.Status) {
		d := model.DeviceProcesses{Entity: at, Listed: status, Utilization: status}
		if status == model.StatusOK {
			d.Processes, d.Utilization = merge(found.of[place]), model.StatusNotSupported
		}
		p.devices = append(p.devices, d)
	}
	whole, compute := p.instances(at)
	for _, at := range compute {
		e := &p.inv.Entities[at]
		place := migPlace{uint32(p.inv.Entities[e.Parent].InstanceID), uint32(e.InstanceID)}
		status := found.status[place]
		if uuid, ok := uuids[place]; !ok || e.UUID != "" && e.UUID != uuid { // destroyed or replaced
			status = model.StatusNotFound
		}
		add(at, place, status)
	}
	for _, at := range whole {
		add(at, migPlace{uint32(p.inv.Entities[at].InstanceID), noInstance}, found.whole)
	}
}

func (m migHandle) place() migPlace {
	return migPlace{uint32(m.GPUInstanceID), uint32(m.ComputeInstanceID)}
}

// listMIG lists the processes on the MIG devices of a GPU. The GPU's own list has all of
// them with their instance IDs, but only for users who may monitor MIG (nvml.h). If that
// list is refused, empty or without IDs, this reads the list of each device.
func (p *pass) listMIG(device nvml.Device, all []migHandle) migLists {
	list, whole, _ := p.l.list(device)
	found := migLists{make(map[migPlace][]listed), make(map[migPlace]model.Status), whole}
	if len(list) > 0 && !slices.ContainsFunc(list, func(l listed) bool { return l.instance == noInstance }) {
		for _, process := range list {
			place := migPlace{process.instance, process.compute}
			found.of[place] = append(found.of[place], process)
		}
		return found
	}
	for _, m := range all {
		list, status, err := p.l.list(m.handle)
		if status != model.StatusOK && whole == model.StatusOK {
			continue // only the GPU can be listed, as on a vGPU host: there is no process
		}
		if status != model.StatusOK {
			p.fail(m.UUID, processList, status, err)
		}
		found.of[m.place()], found.status[m.place()] = list, status
	}
	return found
}

// listed is an entry of one of NVML's lists of processes.
type listed struct {
	model.Process
	instance, compute uint32
}

// list returns the processes in NVML's lists of a GPU or MIG device. If one list fails,
// the others would be incomplete: then it returns none, with the status and the error.
func (l *Library) list(device nvml.Device) ([]listed, model.Status, error) {
	if l.processes != nil {
		return nil, model.StatusNotSupported, l.processes
	}
	var all []listed
	for _, of := range []struct {
		call string
		kind model.ProcessKind
		read func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", model.ProcessCompute, device.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", model.ProcessGraphics, device.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", model.ProcessMPS, device.GetMPSComputeRunningProcesses},
	} {
		if of.kind == model.ProcessMPS && !l.mps {
			continue
		}
		infos, ret := guarded(of.read)
		if ret == nvml.ERROR_NOT_SUPPORTED && of.kind != model.ProcessCompute {
			continue // there cannot be such processes
		}
		if ret != nvml.SUCCESS {
			return nil, statusOf(ret), callError(of.call, ret)
		}
		for _, info := range infos {
			if info.Pid == 0 {
				return nil, model.StatusError, fmt.Errorf("%s lists process 0: the layouts of the driver and nvml.h differ", of.call)
			}
			process := listed{instance: info.GpuInstanceId, compute: info.ComputeInstanceId}
			process.PID, process.Kind = info.Pid, of.kind
			if info.UsedGpuMemory != math.MaxUint64 { // NVML_VALUE_NOT_AVAILABLE
				process.MemoryBytes, process.MemoryKnown = info.UsedGpuMemory, true
			}
			all = append(all, process)
		}
	}
	return all, model.StatusOK, nil
}

// merge returns the processes of one device by PID. A process in several lists has all
// of its memory in each (nvml.h, usedGpuMemory), which must not count twice.
func merge(list []listed) []model.Process {
	slices.SortStableFunc(list, func(a, b listed) int { return cmp.Compare(a.PID, b.PID) })
	var all []model.Process
	for _, l := range list {
		if len(all) == 0 || all[len(all)-1].PID != l.PID {
			all = append(all, l.Process)
			continue
		}
		p := &all[len(all)-1]
		p.MemoryBytes = max(p.MemoryBytes, l.MemoryBytes)
		p.MemoryKnown = p.MemoryKnown || l.MemoryKnown
		switch {
		case l.Kind == p.Kind:
		case l.Kind == model.ProcessMPS: // the list of compute processes has MPS clients too
			p.Kind = model.ProcessMPS
		case p.Kind != model.ProcessMPS:
			p.Kind = model.ProcessComputeGraphics
		}
	}
	return all
}

// utilization sets the utilisation of the processes since the last pass, but at least of
// the last second, from the driver's samples. It is unknown in a GPU's first pass.
//
// The driver keeps the samples of the last 10 to 20 s. NVML returns the average of each
// process since a given time (nvml.h: one entry "per process running, that had some
// non-zero utilization"). With time 0 the average would cover all samples, and a process
// that has stopped would seem busy for 20 s.
func (p *pass) utilization(device nvml.Device, uuid string, processes []model.Process) (model.Status, error) {
	if !p.l.utilization {
		return model.StatusNotSupported, errors.New("the library has no nvmlDeviceGetProcessUtilization")
	}
	// The driver may return a sample some time after it was taken.
	now := uint64(time.Now().Add(-samplingPeriod).UnixMicro())
	since, known := p.lastSeen[uuid]
	since = min(since, now) // the clock may have been set back
	if !known {
		since = now
	}
	samples, ret := guarded(func() ([]nvml.ProcessUtilizationSample, nvml.Return) { return device.GetProcessUtilization(since) })
	switch ret {
	case nvml.SUCCESS, nvml.ERROR_NOT_FOUND: // not found: no process was active
	default:
		delete(p.lastSeen, uuid)
		return statusOf(ret), callError("nvmlDeviceGetProcessUtilization", ret)
	}
	used, newest := newUsage(samples, since, uint64(time.Now().UnixMicro()))
	p.lastSeen[uuid] = max(newest, now)
	if !known {
		return model.StatusNoData, nil
	}
	for i := range processes {
		process := &processes[i]
		u := used[process.PID]
		process.SM, process.Encoder, process.Decoder = u.mean(u.sm), u.mean(u.encoder), u.mean(u.decoder)
		if max(process.SM, process.Encoder, process.Decoder) > 1 {
			return model.StatusError, fmt.Errorf("nvmlDeviceGetProcessUtilization returned more than 100 %% for process %d", process.PID)
		}
	}
	return model.StatusOK, nil
}

// usage is a sum of the percentages of a process over n samples.
type usage struct{ n, sm, encoder, decoder int }

func (u usage) mean(sum int) float64 { return float64(sum) / float64(100*max(1, u.n)) }

// newUsage adds up the samples by PID, normally one per process, and returns the time of
// the newest one. Some drivers fill the rest of the list with garbage (Syllo/nvtop issue
// 110), mostly with times outside of the range.
func newUsage(samples []nvml.ProcessUtilizationSample, since, now uint64) (used map[uint32]usage, newest uint64) {
	used = make(map[uint32]usage, len(samples))
	for _, s := range samples {
		if s.TimeStamp <= since || s.TimeStamp > now {
			continue
		}
		newest = max(newest, s.TimeStamp)
		u := used[s.Pid]
		used[s.Pid] = usage{u.n + 1, u.sm + int(s.SmUtil), u.encoder + int(s.EncUtil), u.decoder + int(s.DecUtil)}
	}
	return used, newest
}

// guarded makes a go-nvml call that returns a list. go-nvml panics if the library
// returns a length beyond the list. It also allocates a list of any length that the library
// demands, which nothing here can bound: RLIMIT_DATA of the sampler process does.
func guarded[T any](call func() ([]T, nvml.Return)) (list []T, ret nvml.Return) {
	defer func() {
		if recover() != nil {
			list, ret = nil, nvml.ERROR_UNKNOWN
		}
	}()
	return call()
}

// statusOf returns the status of data that a failed call did not return.
func statusOf(ret nvml.Return) model.Status {
	switch ret {
	case nvml.SUCCESS:
		return model.StatusOK
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND:
		return model.StatusNotSupported
	case nvml.ERROR_NO_PERMISSION:
		return model.StatusNotPermitted
	case nvml.ERROR_NOT_FOUND, nvml.ERROR_INVALID_ARGUMENT: // the device of the handle was destroyed
		return model.StatusNotFound
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED:
		return model.StatusEntityLost
	case nvml.ERROR_NO_DATA:
		return model.StatusNoData
	}
	return model.StatusError
}
