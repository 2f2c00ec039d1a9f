// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

// #include "health.h"
import "C"

import "errors"

// Health makes health checks and reads the topology between GPUs. One goroutine
// at a time may use it, also while another goroutine uses the library.
type Health struct {
	l *Library
	h *C.struct_native_health
}

// NewHealth returns a Health of the library's engine.
func (l *Library) NewHealth() (*Health, error) {
	h := C.native_health_open(l.n)
	if h == nil {
		return nil, errors.New("preparing health checks: out of memory")
	}
	return &Health{l, h}, nil
}

// Watch watches all health systems of the entities of a group.
func (h *Health) Watch(group uintptr) Code {
	return Code(C.native_health_set(h.l.n, h.h, C.uintptr_t(group)))
}

// Incident is a finding of a health check.
type Incident struct {
	Entity  Pair
	System  uint32 // dcgmHealthSystems_t, a bit mask
	Result  int32  // dcgmHealthWatchResults_t
	Code    uint32 // dcgmError_t
	Message string
}

// Check checks the health of the entities of a watched group.
func (h *Health) Check(group uintptr) ([]Incident, Code) {
	c := Code(C.native_health_check(h.l.n, h.h, C.uintptr_t(group)))
	var incidents []Incident
	for i := range h.h.health.count {
		found := &h.h.health.incidents[i]
		incidents = append(incidents, Incident{
			Pair{uint32(found.entity.kind), uint32(found.entity.id)},
			uint32(found.system), int32(found.result), uint32(found.code), C.GoString(&found.message[0]),
		})
	}
	return incidents, c
}

// P2P is the P2P status between two GPUs.
type P2P struct {
	From, To uint32
	Status   uint32 // dcgmNvLinkP2PStatus_t
}

// P2P reads the P2P status of each GPU to each GPU ID, itself and unused IDs included.
func (h *Health) P2P() ([]P2P, Code) {
	c := Code(C.native_health_p2p(h.l.n, h.h))
	var all []P2P
	for _, from := range h.h.p2p.gpus[:h.h.p2p.count] {
		for to, status := range from.status {
			all = append(all, P2P{uint32(from.gpu), uint32(to), uint32(status)})
		}
	}
	return all, c
}

// Path is the connection of a GPU to a peer.
type Path struct {
	Peer  uint32
	Level uint64 // dcgmGpuTopologyLevel_t
}

// Paths reads the connections of a GPU.
func (h *Health) Paths(gpu uint32) ([]Path, Code) {
	c := Code(C.native_health_topology(h.l.n, h.h, C.uint32_t(gpu)))
	var all []Path
	for _, p := range h.h.topology.paths[:h.h.topology.count] {
		all = append(all, Path{uint32(p.gpu), uint64(p.path)})
	}
	return all, c
}
