// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import "strconv"

// identity returns the fixed labels of an entity, or nil for one that is not
// selected. They are dcgm-exporter's in its order and spelling, which differs
// between GPUs and links (internal/pkg/rendermetrics/render_metrics.go). An
// instance carries its parent's UUID, bus id, device and model. What
// dcgm-exporter does not show has labels of the same kind.
func (cfg *FamiliesConfig) identity(inv *Inventory, i int) []Label {
	e := &inv.Entities[i]
	if !e.Selected {
		return nil
	}
	id := strconv.FormatUint(uint64(e.ID), 10)
	switch e.Kind {
	case KindGPU, KindGPUInstance, KindComputeInstance:
		return cfg.gpuIdentity(inv, i)
	case KindSwitch:
		return cfg.switchLabels(e.ID)
	case KindLink:
		return cfg.linkIdentity(inv, i)
	case KindCPU:
		return cfg.withHostname([]Label{{"cpu", id}})
	case KindCPUCore:
		cpu := strconv.FormatUint(uint64(inv.Entities[e.Parent].ID), 10)
		return cfg.withHostname([]Label{{"cpucore", id}, {"cpu", cpu}})
	case KindConnectX:
		return cfg.withHostname([]Label{{"connectx", id}})
	case KindVGPU:
		return cfg.withHostname([]Label{{"vgpu", id}})
	}
	return nil
}

func (cfg *FamiliesConfig) gpuIdentity(inv *Inventory, i int) []Label {
	e := &inv.Entities[i]
	gpu, ok := inv.GPU(i)
	if !ok {
		return nil
	}
	labels := cfg.gpuLabels(gpu)
	instance := e
	if e.Kind == KindComputeInstance {
		instance = &inv.Entities[e.Parent]
	}
	if e.Kind != KindGPU {
		labels = append(labels, Label{"GPU_I_PROFILE", instance.Profile}, Label{"GPU_I_ID", strconv.Itoa(instance.InstanceID)})
	}
	if e.Kind == KindComputeInstance {
		labels = append(labels, Label{"GPU_CI_ID", strconv.Itoa(e.InstanceID)})
	}
	return cfg.withHostname(labels)
}

func (cfg *FamiliesConfig) linkIdentity(inv *Inventory, i int) []Label {
	e := &inv.Entities[i]
	parent := &inv.Entities[e.Parent]
	if parent.Kind != KindGPU {
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

func (cfg *FamiliesConfig) switchLinkLabels(id uint32, port int) []Label {
	return append([]Label{{"nvlink", strconv.Itoa(port)}}, cfg.switchLabels(id)...)
}

// holderOf returns the position of the entity whose owners are those of the
// entity at position i: a link is its GPU's.
func holderOf(inv *Inventory, i int) int {
	if e := &inv.Entities[i]; e.Kind == KindLink {
		return e.Parent
	}
	return i
}
