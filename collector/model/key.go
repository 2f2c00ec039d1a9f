// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strconv"
	"strings"
)

// EntityKey identifies a GPU or GPU instance across inventories and samplers. DCGM's
// entity IDs are unsuitable, because they are reused after a MIG repartition.
type EntityKey struct {
	UUID     string // of the GPU
	Instance int    // NVML's GPU instance ID, or Unknown for the GPU itself
	Profile  string
}

// KeyOf returns the key of the entity at position i, or of the GPU or GPU instance that
// contains it.
func KeyOf(inv *Inventory, i int) EntityKey {
	key := EntityKey{Instance: Unknown}
	for i >= 0 && i < len(inv.Entities) {
		e := &inv.Entities[i]
		switch e.Kind {
		case KindGPU:
			key.UUID = e.UUID
			return key
		case KindGPUInstance:
			key.Instance, key.Profile = e.InstanceID, e.Profile
		}
		i = e.Parent
	}
	return key
}

// FieldKey identifies a field of an entity across inventories and samplers.
type FieldKey struct {
	Entity EntityKey
	Kind   EntityKind
	ID     uint32 // DCGM's ID if the entity is not a GPU or GPU instance, or the UUID is unknown; else 0
	Field  FieldID
}

// FieldKeyOf returns the key of a field on the entity at a position.
func FieldKeyOf(inv *Inventory, entity int, field FieldID) FieldKey {
	e := &inv.Entities[entity]
	key := FieldKey{Entity: KeyOf(inv, entity), Kind: e.Kind, Field: field}
	if e.Kind != KindGPU && e.Kind != KindGPUInstance || key.Entity.UUID == "" {
		key.ID = e.ID
	}
	return key
}

// PCIAddress is the PCI address of a GPU without the function number.
type PCIAddress struct {
	Domain      uint32
	Bus, Device uint8
}

// ParsePCIAddress parses a bus ID in DCGM's form, such as 00000000:18:00.0.
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
