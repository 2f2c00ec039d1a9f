// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"time"
	"unsafe"

	"gpu_exporter/collector/model"
)

// Pair is DCGM's name of an entity. Its layout is that of dcgmGroupEntityPair_t.
type Pair struct{ Kind, ID uint32 }

// PairOf returns the pair of an entity of the given kind.
func PairOf(kind model.EntityKind, id uint32) Pair { return Pair{uint32(kind), id} }

// Cell is one value that DCGM returned. Its layout is that of struct native_cell.
type Cell struct {
	Bits   int64
	Time   int64 // µs since 1970, by the engine's clock
	Status Code
	Type   uint16 // 'i', 'd', 's', 't' or 'b'
	length uint16
}

// The compiler rejects a different size of the C structures.
var (
	_ [unsafe.Sizeof(Cell{})]struct{} = [C.sizeof_struct_native_cell]struct{}{}
	_ [unsafe.Sizeof(Pair{})]struct{} = [C.sizeof_struct_abi_pair]struct{}{}
)

// Event is a sample of a field whose samples are events, such as XIDs.
type Event struct {
	Entity Pair
	Time   int64 // µs since 1970, by the engine's clock
	Code   int64
}

// Library is the open libdcgm.so.4 with a connection to an engine.
type Library struct {
	n    *C.struct_native
	Path string // of the file that the loader opened
}

// OpenError is a library that cannot be used.
type OpenError struct {
	Detail  string
	Missing bool // Detail is the name of a missing function
}

func (e *OpenError) Error() string {
	if e.Missing {
		return "libdcgm.so.4 has no function " + e.Detail
	}
	return e.Detail
}

// Open opens libdcgm.so.4. The error is an [*OpenError].
func Open() (*Library, error) {
	var (
		text    [4096]C.char
		missing C.int
	)
	n := C.native_open(&text[0], C.size_t(len(text)), &missing)
	if n == nil {
		return nil, &OpenError{Detail: C.GoString(&text[0]), Missing: missing != 0}
	}
	return &Library{n: n, Path: C.GoString(&text[0])}, nil
}

// Has reports whether the library has a function.
func (l *Library) Has(symbol string) bool {
	s := C.CString(symbol)
	defer C.free(unsafe.Pointer(s))
	return C.native_symbol(l.n, s) != nil
}

// UseEmbedded makes all calls go to the embedded engine of this process.
func (l *Library) UseEmbedded() { l.n.handle = C.ABI_EMBEDDED_HANDLE }

// Handle is the dcgmHandle_t of the calls.
func (l *Library) Handle() uintptr { return uintptr(l.n.handle) }

// AddressKind is the form of the address of a standalone engine.
type AddressKind int

// The forms of addresses.
const (
	AddressTCP  AddressKind = C.NATIVE_TCP
	AddressUnix AddressKind = C.NATIVE_UNIX
	AddressURI  AddressKind = C.NATIVE_URI // needs dcgmConnect_v3
)

// Connect connects to a standalone engine. DCGM must be initialised. [Library.Disconnect]
// ends the connection.
func (l *Library) Connect(address string, kind AddressKind) Code {
	s := C.CString(address)
	defer C.free(unsafe.Pointer(s))
	return Code(C.native_connect(l.n, s, C.enum_native_address(kind)))
}

// Disconnect ends the connection, and with it the watches made over it.
func (l *Library) Disconnect() Code { return Code(C.native_disconnect(l.n)) }

// ProfilingFields returns the profiling fields that a GPU supports. A field may be repeated.
func (l *Library) ProfilingFields(gpu uint32) ([]uint16, Code) {
	var fields [C.NATIVE_PROFILING_FIELDS]uint16
	var count C.int
	c := Code(C.native_profiling_fields(l.n, C.uint32_t(gpu), (*C.uint16_t)(&fields[0]), &count))
	return fields[:count], c
}

// ChunkSize is the number of values that one call of DCGM returns at most.
const ChunkSize = C.NATIVE_CHUNK

// Request is one bulk read of every field of every entity. The cell of entity e
// and field f is cells[Base[e]+f].
type Request struct {
	Entities []Pair
	Fields   []uint16
	Base     []uint32
}

// Read reads the newest values from DCGM's cache or, if live, from the driver. It
// returns an error code only if the engine is lost; other errors are in the cells.
func (l *Library) Read(r *Request, live bool, cells []Cell) Code {
	if len(r.Entities) == 0 || len(r.Fields) == 0 {
		return OK
	}
	var flags C.uint32_t
	if live {
		flags = C.ABI_FLAG_LIVE
	}
	return Code(C.native_read(l.n,
		(*C.struct_abi_pair)(unsafe.Pointer(&r.Entities[0])), C.uint32_t(len(r.Entities)),
		(*C.uint16_t)(&r.Fields[0]), C.uint32_t(len(r.Fields)),
		(*C.uint32_t)(&r.Base[0]),
		flags, (*C.struct_native_cell)(unsafe.Pointer(&cells[0]))))
}

// Uptime returns the time of CLOCK_MONOTONIC, which has no steps and which all processes of
// the node share.
func Uptime() time.Duration { return time.Duration(C.native_uptime()) }

// ResetStrings frees the strings of earlier reads.
func (l *Library) ResetStrings() { C.native_reset_strings(l.n) }

// Text returns the text of a string cell, valid until the next read.
func (l *Library) Text(c *Cell) []byte {
	if c.length == 0 {
		return nil
	}
	at := unsafe.Add(unsafe.Pointer(l.n.strings), c.Bits)
	return unsafe.Slice((*byte)(at), int(c.length))
}

func (l *Library) CreateGroup(name string) (uintptr, Code) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var group C.uintptr_t
	c := Code(C.native_group_create(l.n, s, &group))
	return uintptr(group), c
}

func (l *Library) AddToGroup(group uintptr, e Pair) Code {
	return Code(C.native_group_add(l.n, C.uintptr_t(group), C.uint32_t(e.Kind), C.uint32_t(e.ID)))
}

func (l *Library) DestroyGroup(group uintptr) Code {
	return Code(C.native_group_destroy(l.n, C.uintptr_t(group)))
}

// CreateFieldGroup creates a group of fields, of which there is at least one.
func (l *Library) CreateFieldGroup(name string, fields []uint16) (uintptr, Code) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var group C.uintptr_t
	c := Code(C.native_field_group_create(l.n, s, (*C.uint16_t)(&fields[0]), C.int(len(fields)), &group))
	return uintptr(group), c
}

func (l *Library) DestroyFieldGroup(group uintptr) Code {
	return Code(C.native_field_group_destroy(l.n, C.uintptr_t(group)))
}

// Watch is a watch of a group of fields on a group of entities.
type Watch struct{ Group, Fields uintptr }

// Watch starts a watch. The first values may be read before it returns.
func (l *Library) Watch(w Watch, intervalMicros int64, keepSeconds float64, keepSamples int) Code {
	return Code(C.native_watch(l.n, C.uintptr_t(w.Group), C.uintptr_t(w.Fields),
		C.int64_t(intervalMicros), C.double(keepSeconds), C.int(keepSamples)))
}

func (l *Library) Unwatch(w Watch) Code {
	return Code(C.native_unwatch(l.n, C.uintptr_t(w.Group), C.uintptr_t(w.Fields)))
}

// Update makes the engine update all fields that are due, and waits for it.
func (l *Library) Update() Code { return Code(C.native_update(l.n)) }

// EventsSince returns the samples of a watch from the time since on, and the time
// to continue from. Both times are µs of the engine's clock.
func (l *Library) EventsSince(w Watch, since int64) (events []Event, next int64, c Code) {
	var nextSince C.int64_t
	c = Code(C.native_values_since(l.n, C.uintptr_t(w.Group), C.uintptr_t(w.Fields), C.int64_t(since), &nextSince))
	for _, e := range unsafe.Slice(l.n.events, int(l.n.event_count)) {
		events = append(events, Event{Pair{uint32(e.entity.kind), uint32(e.entity.id)}, int64(e.ts), int64(e.code)})
	}
	return events, int64(nextSince), c
}
