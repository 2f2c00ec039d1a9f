// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"strconv"
	"strings"

	"gpu_exporter/collector/model"
)

func byName(a, b Label) int { return cmp.Compare(a.Name, b.Name) }

func (cfg *Config) gpuLabels(gpu *model.Entity) []Label {
	uuidName := "UUID"
	if cfg.OldNames {
		uuidName = "uuid"
	}
	id := strconv.FormatUint(uint64(gpu.ID), 10)
	return []Label{
		{"gpu", id}, {uuidName, gpu.UUID}, {"pci_bus_id", gpu.PCIBusID},
		{"device", "nvidia" + id}, {"modelName", cfg.modelName(gpu)},
	}
}

func (cfg *Config) modelName(gpu *model.Entity) string {
	if cfg.ReplaceBlanks {
		return strings.Join(strings.Fields(gpu.Model), "-")
	}
	return gpu.Model
}

func (cfg *Config) withHostname(labels []Label) []Label {
	if cfg.Hostname == "" {
		return labels
	}
	return append(labels, Label{cfg.HostnameLabel, cfg.Hostname})
}

// identity returns the fixed labels of an entity, or nil for one that is not
// selected. They are dcgm-exporter's in its order and spelling, which differs
// between GPUs and links (internal/pkg/rendermetrics/render_metrics.go). An
// instance carries its parent's UUID, bus id, device and model. What
// dcgm-exporter does not show has labels of the same kind.
func (cfg *Config) identity(inv *model.Inventory, i int) []Label {
	e := &inv.Entities[i]
	if !e.Selected {
		return nil
	}
	id := strconv.FormatUint(uint64(e.ID), 10)
	switch e.Kind {
	case model.KindGPU, model.KindGPUInstance, model.KindComputeInstance:
		return cfg.gpuIdentity(inv, i)
	case model.KindSwitch:
		return cfg.switchLabels(e.ID)
	case model.KindLink:
		return cfg.linkIdentity(inv, i)
	case model.KindCPU:
		return cfg.withHostname([]Label{{"cpu", id}})
	case model.KindCPUCore:
		cpu := strconv.FormatUint(uint64(inv.Entities[e.Parent].ID), 10)
		return cfg.withHostname([]Label{{"cpucore", id}, {"cpu", cpu}})
	case model.KindConnectX:
		return cfg.withHostname([]Label{{"connectx", id}})
	case model.KindVGPU:
		return cfg.withHostname([]Label{{"vgpu", id}})
	}
	return nil
}

func (cfg *Config) gpuIdentity(inv *model.Inventory, i int) []Label {
	e := &inv.Entities[i]
	gpu, ok := inv.GPU(i)
	if !ok {
		return nil
	}
	labels := cfg.gpuLabels(gpu)
	instance := e
	if e.Kind == model.KindComputeInstance {
		instance = &inv.Entities[e.Parent]
	}
	if e.Kind != model.KindGPU {
		labels = append(labels, Label{"GPU_I_PROFILE", instance.Profile}, Label{"GPU_I_ID", strconv.Itoa(instance.InstanceID)})
	}
	if e.Kind == model.KindComputeInstance {
		labels = append(labels, Label{"GPU_CI_ID", strconv.Itoa(e.InstanceID)})
	}
	return cfg.withHostname(labels)
}

func (cfg *Config) linkIdentity(inv *model.Inventory, i int) []Label {
	e := &inv.Entities[i]
	parent := &inv.Entities[e.Parent]
	if parent.Kind != model.KindGPU {
		return cfg.switchLinkLabels(parent.ID, e.Port)
	}
	port := e.Port
	if cfg.LinksFromOne {
		port++
	}
	id := strconv.FormatUint(uint64(parent.ID), 10)
	return cfg.withHostname([]Label{
		{"nvlink", strconv.Itoa(port)}, {"gpu", id}, {"gpu_uuid", parent.UUID}, {"pci_bus_id", parent.PCIBusID},
		{"device", "nvidia" + id}, {"model_name", cfg.modelName(parent)},
	})
}

func (cfg *Config) switchLinkLabels(id uint32, port int) []Label {
	return append([]Label{{"nvlink", strconv.Itoa(port)}}, cfg.switchLabels(id)...)
}

// holderOf returns the position of the entity whose owners are those of the
// entity at position i: a link is its GPU's.
func holderOf(inv *model.Inventory, i int) int {
	if e := &inv.Entities[i]; e.Kind == model.KindLink {
		return e.Parent
	}
	return i
}

// goneIdentity returns the identity labels of a GPU that the inventory lacks.
func (cfg *Config) goneIdentity(gpu *model.Entity) []Label {
	return cfg.withHostname(cfg.gpuLabels(gpu))
}
