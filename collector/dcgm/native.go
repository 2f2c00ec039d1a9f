// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "native.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"gpu_exporter/collector"
)

// code is a dcgmReturn_t (dcgm_structs.h).
type code int32

// The codes that are told apart here.
const (
	codeOK                 code = 0
	codeBadParam           code = -1
	codeNotSupported       code = -6
	codeUninitialized      code = -10
	codeTimeout            code = -11
	codeUnknownField       code = -13
	codeNoData             code = -14
	codeStaleData          code = -15
	codeNotWatched         code = -16
	codeNoPermission       code = -17
	codeGPULost            code = -18
	codeConnectionInvalid  code = -21
	codeGPUNotSupported    code = -22
	codeRequiresRoot       code = -29
	codeFieldUnsupported   code = -32
	codeModuleNotLoaded    code = -33
	codeInUse              code = -34
	codeProfNotSupported   code = -36
	codeProfLibraryError   code = -37
	codeInstanceNotFound   code = -45
	codeComputeInstMissing code = -46
	codeNVMLNotLoaded      code = -56
	codeGPUsDetached       code = -67
	codeNoAnswer           code = C.NATIVE_NO_ANSWER
)

// lost says whether the engine cannot be talked to any more.
func (c code) lost() bool {
	return c == codeConnectionInvalid || c == codeTimeout || c == codeUninitialized
}

// pair names an entity. It is laid out as dcgmGroupEntityPair_t.
type pair struct{ kind, id uint32 }

func pairOf(kind collector.EntityKind, id uint32) pair { return pair{uint32(kind), id} }

// nativeCell mirrors struct native_cell.
type nativeCell struct {
	bits   int64
	ts     int64
	status code
	typ    uint16
	length uint16
}

// The mirrors above must be as large as what they mirror.
var (
	_ [unsafe.Sizeof(nativeCell{})]struct{} = [C.sizeof_struct_native_cell]struct{}{}
	_ [unsafe.Sizeof(pair{})]struct{}       = [C.sizeof_struct_abi_pair]struct{}{}
)

// event is a sample of a field whose samples are events.
type event struct {
	entity pair
	ts     int64
	code   int64
}

type gpuState struct {
	id     uint32
	status entityStatus
}

// entityStatus is DcgmEntityStatus_t.
type entityStatus int32

const (
	statusUnknown  entityStatus = 0
	statusOK       entityStatus = 1
	statusLost     entityStatus = 4
	statusFake     entityStatus = 5
	statusDetached entityStatus = 7
)

// migEntry is one row of DCGM's hierarchy: a GPU instance or compute instance.
type migEntry struct {
	entity, parent                       pair
	nvmlGPUInstance, nvmlComputeInstance uint32
}

// topology is what the engine says the node consists of.
type topology struct {
	gpus []gpuState
	mig  []migEntry
}

// library is libdcgm.so.4 as native.c knows it.
type library struct {
	n    *C.struct_native
	path string // of the file that the loader took
}

// openError says why the library cannot be used.
type openError struct {
	detail  string
	missing bool // detail is the symbol that is missing
}

func (e *openError) Error() string {
	if e.missing {
		return "libdcgm.so.4 has no function " + e.detail
	}
	return e.detail
}

func openLibrary() (*library, error) {
	var (
		text    [4096]C.char
		missing C.int
	)
	n := C.native_open(&text[0], C.size_t(len(text)), &missing)
	if n == nil {
		return nil, &openError{detail: C.GoString(&text[0]), missing: missing != 0}
	}
	return &library{n: n, path: C.GoString(&text[0])}, nil
}

func (l *library) has(symbol string) bool {
	s := C.CString(symbol)
	defer C.free(unsafe.Pointer(s))
	return C.native_has(l.n, s) != 0
}

func (l *library) setHandle(handle uintptr) { l.n.handle = C.uintptr_t(handle) }

// err returns nil for a good code, and otherwise what was being done and why it failed.
func (l *library) err(c code, doing string) error {
	if c == codeOK {
		return nil
	}
	return &callError{code: c, doing: doing, text: C.GoString(C.native_error_text(l.n, C.int(c)))}
}

// callError is a call that DCGM answered with an error code.
type callError struct {
	code        code
	doing, text string
}

func (e *callError) Error() string {
	return fmt.Sprintf("%s: %s (%d)", e.doing, e.text, e.code)
}

// checkTopology asks what the node consists of and says whether that changed.
// instances is the code of listing the instances of the GPUs: when it is not
// good, they stay as they were.
func (l *library) checkTopology() (changed bool, instances, c code) {
	var isChanged, ofInstances C.int
	c = code(C.native_check_topology(l.n, &isChanged, &ofInstances))
	return isChanged != 0, code(ofInstances), c
}

// topology returns what the last checkTopology found.
func (l *library) topology() topology {
	t := &l.n.topology
	top := topology{
		gpus: make([]gpuState, t.gpu_count),
		mig:  make([]migEntry, t.mig_count),
	}
	for i := range top.gpus {
		top.gpus[i] = gpuState{uint32(t.gpus[i].id), entityStatus(t.gpus[i].status)}
	}
	for i := range top.mig {
		e := &t.mig[i]
		top.mig[i] = migEntry{
			entity:              pair{uint32(e.entity.kind), uint32(e.entity.id)},
			parent:              pair{uint32(e.parent.kind), uint32(e.parent.id)},
			nvmlGPUInstance:     uint32(e.nvml_gpu_instance),
			nvmlComputeInstance: uint32(e.nvml_compute_instance),
		}
	}
	return top
}

// request is one bulk read: every field on every entity. The cell of entity e
// and field f is cells[base[e]+column[f]].
type request struct {
	entities []pair
	fields   []uint16
	base     []uint32
	column   []uint16
}

// read reads the newest values from DCGM's cache, or, if live, from the driver.
func (l *library) read(r *request, live bool, cells []nativeCell) code {
	if len(r.entities) == 0 || len(r.fields) == 0 {
		return codeOK
	}
	var flags C.uint32_t
	if live {
		flags = C.ABI_FLAG_LIVE
	}
	return code(C.native_read(l.n,
		(*C.struct_abi_pair)(unsafe.Pointer(&r.entities[0])), C.uint32_t(len(r.entities)),
		(*C.uint16_t)(&r.fields[0]), C.uint32_t(len(r.fields)),
		(*C.uint32_t)(&r.base[0]), (*C.uint16_t)(&r.column[0]),
		flags, (*C.struct_native_cell)(unsafe.Pointer(&cells[0]))))
}

// floor makes the calls of read and nothing else, for the benchmark.
func (l *library) floor(r *request, times int) code {
	return code(C.native_floor(l.n,
		(*C.struct_abi_pair)(unsafe.Pointer(&r.entities[0])), C.uint32_t(len(r.entities)),
		(*C.uint16_t)(&r.fields[0]), C.uint32_t(len(r.fields)), C.uint32_t(times)))
}

// threadCPU is the CPU time of the calling thread in nanoseconds.
func threadCPU() int64 { return int64(C.native_thread_cpu()) }

func (l *library) resetStrings() { C.native_reset_strings(l.n) }

// bytes returns the text of a string cell, valid until the next read.
func (l *library) bytes(c *nativeCell) []byte {
	if c.length == 0 {
		return nil
	}
	at := unsafe.Add(unsafe.Pointer(l.n.strings), c.bits)
	return unsafe.Slice((*byte)(at), int(c.length))
}

// reads returns the number of bulk reads, and of those that were made again per entity.
func (l *library) reads() (calls, degraded uint64) {
	return uint64(l.n.calls), uint64(l.n.degraded)
}

func (l *library) createGroup(name string) (uintptr, code) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var group C.uintptr_t
	c := code(C.native_group_create(l.n, s, &group))
	return uintptr(group), c
}

func (l *library) addToGroup(group uintptr, e pair) code {
	return code(C.native_group_add(l.n, C.uintptr_t(group), C.uint32_t(e.kind), C.uint32_t(e.id)))
}

func (l *library) removeFromGroup(group uintptr, e pair) code {
	return code(C.native_group_remove(l.n, C.uintptr_t(group), C.uint32_t(e.kind), C.uint32_t(e.id)))
}

func (l *library) destroyGroup(group uintptr) code {
	return code(C.native_group_destroy(l.n, C.uintptr_t(group)))
}

func (l *library) createFieldGroup(name string, fields []uint16) (uintptr, code) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var group C.uintptr_t
	c := code(C.native_field_group_create(l.n, s, (*C.uint16_t)(&fields[0]), C.int(len(fields)), &group))
	return uintptr(group), c
}

func (l *library) destroyFieldGroup(group uintptr) code {
	return code(C.native_field_group_destroy(l.n, C.uintptr_t(group)))
}

func (l *library) watch(w watch, intervalMicros int64, keepSeconds float64, keepSamples int) code {
	return code(C.native_watch(l.n, C.uintptr_t(w.group), C.uintptr_t(w.fields),
		C.int64_t(intervalMicros), C.double(keepSeconds), C.int(keepSamples)))
}

func (l *library) unwatch(w watch) code {
	return code(C.native_unwatch(l.n, C.uintptr_t(w.group), C.uintptr_t(w.fields)))
}

// update makes the engine sample everything that is due, and waits for it.
func (l *library) update() code { return code(C.native_update(l.n)) }

// valuesSince returns the samples that came at or after since, and the time to
// ask from next. The slice is valid until the next call.
func (l *library) valuesSince(w watch, since int64) ([]event, int64, code) {
	var next C.int64_t
	c := code(C.native_values_since(l.n, C.uintptr_t(w.group), C.uintptr_t(w.fields), C.int64_t(since), &next))
	if l.n.event_count == 0 {
		return nil, int64(next), c
	}
	events := make([]event, l.n.event_count)
	for i, e := range unsafe.Slice(l.n.events, int(l.n.event_count)) {
		events[i] = event{pair{uint32(e.entity.kind), uint32(e.entity.id)}, int64(e.ts), int64(e.code)}
	}
	return events, int64(next), c
}
