// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strconv"
	"strings"
)

// EntityKey names a GPU, or an instance of it, across inventories and samplers.
// DCGM's entity ids cannot: they are reused after a MIG reconfiguration.
type EntityKey struct {
	UUID     string // of the GPU
	Instance int    // NVML's GPU instance id, or Unknown for the GPU itself
	Profile  string
}

// KeyOf returns the key of the GPU or GPU instance that the entity at
// position i is or lies in.
func KeyOf(inv *Inventory, i int) EntityKey {
	key := EntityKey{Instance: Unknown}
	for i >= 0 && i < len(inv.Entities) {
		switch e := &inv.Entities[i]; e.Kind {
		case KindGPU:
			key.UUID = e.UUID
			return key
		case KindGPUInstance:
			key.Instance, key.Profile = e.InstanceID, e.Profile
			i = e.Parent
		default:
			i = e.Parent
		}
	}
	return key
}

// FieldKey names a field of an entity across inventories and samplers.
type FieldKey struct {
	Entity EntityKey
	Kind   EntityKind
	ID     uint32 // of an entity that is not in a GPU, or whose UUID is unknown; else 0
	Field  FieldID
}

// FieldKeyOf returns the key of the field on the entity at a position.
func FieldKeyOf(inv *Inventory, entity int, field FieldID) FieldKey {
	e := &inv.Entities[entity]
	key := FieldKey{Entity: KeyOf(inv, entity), Kind: e.Kind, Field: field}
	if e.Kind != KindGPU && e.Kind != KindGPUInstance || key.Entity.UUID == "" {
		key.ID = e.ID
	}
	return key
}

// PCIAddress is where a GPU is, without the function.
type PCIAddress struct {
	Domain      uint32
	Bus, Device uint8
}

// ParsePCIAddress reads a bus id as DCGM writes it: 00000000:18:00.0.
func ParsePCIAddress(busID string) (PCIAddress, bool) {
	busID, _, _ = strings.Cut(busID, ".")
	parts := strings.Split(busID, ":")
	if len(parts) != 3 {
		return PCIAddress{}, false
	}
	var n [3]uint64
	for i, bits := range []int{32, 8, 8} {
		v, err := strconv.ParseUint(parts[i], 16, bits)
		if err != nil {
			return PCIAddress{}, false
		}
		n[i] = v
	}
	return PCIAddress{uint32(n[0]), uint8(n[1]), uint8(n[2])}, true
}
