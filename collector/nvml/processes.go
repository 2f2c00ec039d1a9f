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

	"gpu_exporter/collector"
)

const (
	// noInstance is the id of the instance of a process that is in none.
	noInstance = math.MaxUint32
	// samplingPeriod is how far apart the driver's samples of the utilisation are,
	// at most (nvml.h, nvmlUtilization_t).
	samplingPeriod = time.Second
	// reopenAfter is how long a library stays open with which something failed.
	reopenAfter = time.Minute
)

// errLongProcessInfo says that the lists have another layout than their functions' names say.
var errLongProcessInfo = errors.New("this driver lists processes in a form of its own, as 535.43 to 535.86 do: update it")

// processSymbols are those of the lists of processes. go-nvml takes the newest.
func processSymbols() [][]string {
	return [][]string{
		{"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses"},
		{"nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses"},
	}
}

// mpsSymbols came with driver 470. What has no number does not have the layout of
// version 1 that go-nvml would read (NVIDIA/go-nvml issue 28).
func mpsSymbols() [][]string {
	return [][]string{{"nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v2"}}
}

func utilizationSymbols() [][]string { return [][]string{{"nvmlDeviceGetProcessUtilization"}} }

// processSupport says why a library's lists of processes cannot be read.
func processSupport(handle *dl.DynamicLibrary) error {
	if missing := firstMissing(handle, processSymbols()); missing != "" {
		return fmt.Errorf("%s has no function %s", libraryName, missing)
	}
	// Some drivers have longer entries in the lists of version 3 than nvml.h had
	// before and has since: to read them would overwrite memory. Which drivers, and
	// how to tell, is in XuehaiPan/nvitop's pull requests 79, 89 and 94.
	has := func(name string) bool { return handle.Lookup(name) == nil }
	if has("nvmlDeviceGetComputeRunningProcesses_v3") && has("nvmlDeviceGetConfComputeMemSizeInfo") &&
		!has("nvmlDeviceGetRunningProcessDetailList") {
		return errLongProcessInfo
	}
	return nil
}

// Processes reads the processes on the selected GPUs of the inventory. What could
// not be read of a device is told by its statuses, and logged when that changes;
// the error is for a reading that could not be had at all.
//
// The library stays open between readings. It is opened anew for another
// inventory, since it knows the GPUs that there were when it was opened, and when
// something failed.
func (r *Reader) Processes(inv *collector.Inventory) (*collector.Processes, error) {
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
	r.settle(p.failures)
	slices.SortFunc(p.devices, func(a, b collector.DeviceProcesses) int { return cmp.Compare(a.Entity, b.Entity) })
	now := time.Now()
	return &collector.Processes{Generation: inv.Generation, Time: now, Duration: now.Sub(start), Devices: p.devices}, nil
}

// settle logs what failed and had not failed at the last pass, and closes the
// library if that may be the library's fault.
func (r *Reader) settle(failures []failure) {
	found := make(map[trouble]string, len(failures))
	reopen := false
	for _, f := range failures {
		text := f.err.Error()
		changed := r.troubles[f.trouble] != text
		found[f.trouble] = text
		log := r.log.Warn
		switch f.status {
		case collector.StatusNotSupported:
			log = r.log.Debug
		case collector.StatusNotPermitted:
		default:
			reopen = reopen || changed || time.Since(r.opened) > reopenAfter
		}
		if changed {
			log("Not all is known of the processes on a device", "missing", f.what, "uuid", f.uuid, "err", f.err)
		}
	}
	r.troubles = found
	if reopen {
		r.release()
	}
}

// trouble names what of which device could not be read.
type trouble struct{ uuid, what string }

// What can be missing.
const (
	processList        = "list"
	processUtilization = "utilization"
)

type failure struct {
	trouble
	status collector.Status
	err    error
}

// pass is one reading of all devices.
type pass struct {
	l        *Library
	inv      *collector.Inventory
	lastSeen map[string]uint64 // by GPU, the newest sample of the utilisation that counted already, in µs since 1970
	devices  []collector.DeviceProcesses
	failures []failure
}

func (p *pass) fail(uuid, what string, status collector.Status, err error) {
	p.failures = append(p.failures, failure{trouble{uuid, what}, status, err})
}

func (p *pass) read() error {
	count, ret := p.l.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return callError("nvmlDeviceGetCount", ret)
	}
	wanted := make(map[string]int)
	for i, e := range p.inv.Entities {
		if e.Kind == collector.KindGPU && e.Selected && e.UUID != "" {
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
		if lost || p.inv.Entities[at].State != collector.EntityUp {
			p.unread(at, collector.StatusEntityLost)
			continue
		}
		p.unread(at, collector.StatusNotFound)
		p.fail(uuid, processList, collector.StatusNotFound, errors.New("NVML does not list the GPU"))
	}
	return nil
}

// unread says of a GPU, or of its instances, why their processes are not known.
func (p *pass) unread(gpu int, why collector.Status) {
	if !p.inv.Entities[gpu].MIGMode {
		p.devices = append(p.devices, collector.DeviceProcesses{Entity: gpu, Listed: why, Utilization: why})
		return
	}
	instances, compute := p.instances(gpu)
	for _, at := range compute {
		delete(instances, p.inv.Entities[at].Parent)
		p.devices = append(p.devices, collector.DeviceProcesses{Entity: at, Listed: why, Utilization: why})
	}
	for at := range instances {
		p.devices = append(p.devices, collector.DeviceProcesses{Entity: at, Listed: why, Utilization: why})
	}
}

// instances returns the positions of the instances of a GPU.
func (p *pass) instances(gpu int) (instances map[int]bool, compute []int) {
	instances = make(map[int]bool)
	for i, e := range p.inv.Entities {
		switch {
		case e.Kind == collector.KindGPUInstance && e.Parent == gpu:
			instances[i] = true
		case e.Kind == collector.KindComputeInstance && instances[e.Parent]:
			compute = append(compute, i)
		}
	}
	return instances, compute
}

func (p *pass) gpu(device nvml.Device, at int) {
	e := &p.inv.Entities[at]
	var mode bool
	var all []migHandle
	if p.l.mig {
		var err error
		if mode, all, err = migHandles(device); err != nil {
			p.unread(at, collector.StatusError)
			p.fail(e.UUID, processList, collector.StatusError, err)
			return
		}
	}
	switch {
	case mode != e.MIGMode: // the next inventory will say so, too
		p.unread(at, collector.StatusNoData)
	case mode:
		p.migGPU(device, at, all)
	default:
		p.wholeGPU(device, at)
	}
}

func (p *pass) wholeGPU(device nvml.Device, at int) {
	uuid := p.inv.Entities[at].UUID
	list, status, err := p.l.list(device)
	if status != collector.StatusOK {
		p.unread(at, status)
		p.fail(uuid, processList, status, err)
		return
	}
	d := collector.DeviceProcesses{Entity: at, Processes: merge(list)}
	if d.Utilization, err = p.utilization(device, uuid, d.Processes); err != nil {
		p.fail(uuid, processUtilization, d.Utilization, err)
	}
	p.devices = append(p.devices, d)
}

// migPlace is an instance of a GPU by NVML's ids; compute is noInstance for a GPU
// instance as a whole.
type migPlace struct{ instance, compute uint32 }

// migLists are lists of processes by where they run, and why one is missing.
type migLists struct {
	of     map[migPlace][]listed
	status map[migPlace]collector.Status
	whole  collector.Status // of the GPU's own list
}

// migGPU reads the processes on the MIG devices of a GPU. Their utilisation is
// known of none: NVML has none with MIG (nvml.h).
func (p *pass) migGPU(device nvml.Device, at int, all []migHandle) {
	found := p.listMIG(device, all)
	if _, after, err := migHandles(device); err != nil || !slices.EqualFunc(all, after, func(a, b migHandle) bool { return a.MIGDevice == b.MIGDevice }) {
		p.unread(at, collector.StatusNoData) // what was read may be of the old instances, or of the new
		return
	}
	uuids := make(map[migPlace]string, len(all))
	for _, m := range all {
		uuids[m.place()] = m.UUID
	}
	add := func(at int, place migPlace, status collector.Status) {
		d := collector.DeviceProcesses{Entity: at, Listed: status, Utilization: status}
		if status == collector.StatusOK {
			d.Processes, d.Utilization = merge(found.of[place]), collector.StatusNotSupported
		}
		p.devices = append(p.devices, d)
	}
	instances, compute := p.instances(at)
	split := make(map[int]bool)
	for _, at := range compute {
		e := &p.inv.Entities[at]
		split[e.Parent] = true
		place := migPlace{uint32(p.inv.Entities[e.Parent].InstanceID), uint32(e.InstanceID)}
		uuid, ok := uuids[place]
		switch {
		case !ok || e.UUID != "" && e.UUID != uuid: // gone, or another one by now
			add(at, place, collector.StatusNotFound)
		default:
			add(at, place, found.status[place])
		}
	}
	for at := range instances {
		place := migPlace{uint32(p.inv.Entities[at].InstanceID), noInstance}
		if !split[at] || len(found.of[place]) > 0 {
			add(at, place, found.whole)
		}
	}
}

func (m migHandle) place() migPlace {
	return migPlace{uint32(m.GPUInstanceID), uint32(m.ComputeInstanceID)}
}

// listMIG lists the processes on the MIG devices of a GPU. The GPU itself has
// them all, with the ids of their instances, but tells only those who may monitor
// MIG (nvml.h). So a list that is refused, has no ids or is empty is not the last
// word: then each device is asked.
func (p *pass) listMIG(device nvml.Device, all []migHandle) migLists {
	list, whole, _ := p.l.list(device)
	found := migLists{make(map[migPlace][]listed), make(map[migPlace]collector.Status), whole}
	if len(list) > 0 && !slices.ContainsFunc(list, func(l listed) bool { return l.instance == noInstance }) {
		for _, process := range list {
			place := migPlace{process.instance, process.compute}
			found.of[place] = append(found.of[place], process)
		}
		return found
	}
	for _, m := range all {
		list, status, err := p.l.list(m.handle)
		if status != collector.StatusOK && whole == collector.StatusOK {
			continue // as in a host of vGPUs, where only the GPU can be asked: none is there
		}
		if status != collector.StatusOK {
			p.fail(m.UUID, processList, status, err)
		}
		found.of[m.place()], found.status[m.place()] = list, status
	}
	return found
}

// listed is an entry of one of NVML's lists of processes.
type listed struct {
	collector.Process
	instance, compute uint32
}

// list returns what is in NVML's lists of a GPU or MIG device. If one cannot be
// had, the others are not all of it: then there are none, and the status and the
// error say why.
func (l *Library) list(device nvml.Device) ([]listed, collector.Status, error) {
	if l.processes != nil {
		return nil, collector.StatusNotSupported, l.processes
	}
	var all []listed
	for _, of := range []struct {
		call string
		kind collector.ProcessKind
		read func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", collector.ProcessCompute, device.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", collector.ProcessGraphics, device.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", collector.ProcessMPS, device.GetMPSComputeRunningProcesses},
	} {
		if of.kind == collector.ProcessMPS && !l.mps {
			continue
		}
		infos, ret := guarded(of.read)
		if ret == nvml.ERROR_NOT_SUPPORTED && of.kind != collector.ProcessCompute {
			continue // such processes cannot be there
		}
		if ret != nvml.SUCCESS {
			return nil, statusOf(ret), callError(of.call, ret)
		}
		for _, info := range infos {
			if info.Pid == 0 {
				return nil, collector.StatusError, fmt.Errorf("%s lists process 0: the driver and nvml.h differ", of.call)
			}
			process := listed{instance: info.GpuInstanceId, compute: info.ComputeInstanceId}
			process.PID, process.Kind = info.Pid, of.kind
			if info.UsedGpuMemory != math.MaxUint64 { // NVML_VALUE_NOT_AVAILABLE
				process.MemoryBytes, process.MemoryKnown = info.UsedGpuMemory, true
			}
			all = append(all, process)
		}
	}
	return all, collector.StatusOK, nil
}

// merge returns the processes of one device by PID. One that is in several lists
// has in each all of its memory (nvml.h, usedGpuMemory), which must not count twice.
func merge(list []listed) []collector.Process {
	slices.SortStableFunc(list, func(a, b listed) int { return cmp.Compare(a.PID, b.PID) })
	var all []collector.Process
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
		case l.Kind == collector.ProcessMPS: // a client of MPS is in the list of compute processes, too
			p.Kind = collector.ProcessMPS
		case p.Kind != collector.ProcessMPS:
			p.Kind = collector.ProcessComputeGraphics
		}
	}
	return all
}

// utilization fills in how much of the GPU the processes have used since the last
// pass, and in no less than the last second, by the driver's samples. In a GPU's
// first pass it is not known.
//
// The driver keeps the last samples, those of 10 to 20 s, and NVML says of each
// process that has done something since a given time how much that was on average
// (nvml.h has one entry "per process running, that had some non-zero utilization").
// The time must be given: with 0, the average would be that of all samples kept,
// and a process that has stopped would be busy for as long.
func (p *pass) utilization(device nvml.Device, uuid string, processes []collector.Process) (collector.Status, error) {
	if !p.l.utilization {
		return collector.StatusNotSupported, errors.New("the library has no nvmlDeviceGetProcessUtilization")
	}
	// What the driver has sampled by now it may hand out a little later.
	now := uint64(time.Now().Add(-samplingPeriod).UnixMicro())
	since, known := p.lastSeen[uuid]
	since = min(since, now) // the clock may have been set back
	if !known {
		since = now
	}
	samples, ret := guarded(func() ([]nvml.ProcessUtilizationSample, nvml.Return) { return device.GetProcessUtilization(since) })
	switch ret {
	case nvml.SUCCESS, nvml.ERROR_NOT_FOUND: // not found: none did anything
	default:
		delete(p.lastSeen, uuid)
		return statusOf(ret), callError("nvmlDeviceGetProcessUtilization", ret)
	}
	used := newUsage(samples, since, uint64(time.Now().UnixMicro()))
	p.lastSeen[uuid] = max(used.newest, now)
	if !known {
		return collector.StatusNoData, nil
	}
	for i := range processes {
		process := &processes[i]
		u := used.of[process.PID]
		if u.impossible {
			return collector.StatusError, fmt.Errorf("nvmlDeviceGetProcessUtilization says more than 100 %% of process %d", process.PID)
		}
		process.SM, process.Encoder, process.Decoder = u.mean(u.sm), u.mean(u.encoder), u.mean(u.decoder)
	}
	return collector.StatusOK, nil
}

// usage is the utilisation of processes that some samples tell.
type usage struct {
	of     map[uint32]processUsage
	newest uint64 // µs since 1970
}

// processUsage is a sum of percentages, over n samples.
type processUsage struct {
	n, sm, encoder, decoder int
	impossible              bool // a sample had what is no percentage
}

func (u processUsage) mean(sum int) float64 {
	if u.n == 0 {
		return 0
	}
	return float64(sum) / float64(100*u.n)
}

// newUsage sums up the samples, of which there should be one a process. Some
// drivers fill the rest of the list with garbage (Syllo/nvtop issue 110), most of
// which is of times that were not asked for.
func newUsage(samples []nvml.ProcessUtilizationSample, since, now uint64) usage {
	u := usage{of: make(map[uint32]processUsage, len(samples))}
	for _, s := range samples {
		if s.TimeStamp <= since || s.TimeStamp > now {
			continue
		}
		u.newest = max(u.newest, s.TimeStamp)
		p := u.of[s.Pid]
		p.n++
		p.impossible = p.impossible || s.SmUtil > 100 || s.EncUtil > 100 || s.DecUtil > 100
		p.sm += int(s.SmUtil)
		p.encoder += int(s.EncUtil)
		p.decoder += int(s.DecUtil)
		u.of[s.Pid] = p
	}
	return u
}

// guarded makes a call of go-nvml that returns a list. go-nvml slices by what the
// library returns, and panics where that contradicts itself.
func guarded[T any](call func() ([]T, nvml.Return)) (list []T, ret nvml.Return) {
	defer func() {
		if recover() != nil {
			list, ret = nil, nvml.ERROR_UNKNOWN
		}
	}()
	return call()
}

// statusOf is the status of what a call did not give.
func statusOf(ret nvml.Return) collector.Status {
	switch ret {
	case nvml.SUCCESS:
		return collector.StatusOK
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND:
		return collector.StatusNotSupported
	case nvml.ERROR_NO_PERMISSION:
		return collector.StatusNotPermitted
	case nvml.ERROR_NOT_FOUND, nvml.ERROR_INVALID_ARGUMENT: // the device of the handle has gone
		return collector.StatusNotFound
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED:
		return collector.StatusEntityLost
	case nvml.ERROR_NO_DATA:
		return collector.StatusNoData
	}
	return collector.StatusError
}
