// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// identity returns the identity labels of an entity, or nil if it is not selected.
// They have dcgm-exporter's order and spelling, which differs between GPUs and
// links (internal/pkg/rendermetrics/render_metrics.go). An instance has the UUID,
// bus ID, device and model of its GPU.
func (cfg *Config) identity(inv *model.Inventory, i int) []*dto.LabelPair {
	e := &inv.Entities[i]
	if !e.Selected {
		return nil
	}
	id := decimal(e.ID)
	switch e.Kind {
	case model.KindGPU, model.KindGPUInstance, model.KindComputeInstance:
		gpu, ok := inv.GPU(i)
		switch {
		case !ok:
			return nil
		case e.Kind == model.KindGPU:
			return cfg.gpuIdentity(gpu)
		case e.Kind == model.KindGPUInstance:
			return cfg.instanceIdentity(gpu, e.Profile, e.InstanceID)
		}
		parent := &inv.Entities[e.Parent]
		return cfg.instanceIdentity(gpu, parent.Profile, parent.InstanceID, "GPU_CI_ID", decimal(e.InstanceID))
	case model.KindSwitch:
		return cfg.switchIdentity(e.ID)
	case model.KindLink:
		return cfg.linkIdentity(inv, i)
	case model.KindCPU:
		return cfg.withHostname(with(nil, "cpu", id))
	case model.KindCPUCore:
		return cfg.withHostname(with(nil, "cpucore", id, "cpu", decimal(inv.Entities[e.Parent].ID)))
	case model.KindConnectX:
		return cfg.withHostname(with(nil, "connectx", id))
	}
	return nil
}

func (cfg *Config) withHostname(labels []*dto.LabelPair) []*dto.LabelPair {
	if cfg.Hostname == "" {
		return labels
	}
	return append(labels, pair(cfg.HostnameLabel, cfg.Hostname))
}

func (cfg *Config) modelName(gpu *model.Entity) string {
	if cfg.ReplaceBlanks {
		return strings.Join(strings.Fields(gpu.Model), "-")
	}
	return gpu.Model
}

// gpuIdentity returns the identity labels of a GPU, which the inventory need not have,
// with more names and values before the hostname.
func (cfg *Config) gpuIdentity(gpu *model.Entity, more ...string) []*dto.LabelPair {
	uuid, id := "UUID", decimal(gpu.ID)
	if cfg.OldNames {
		uuid = "uuid"
	}
	labels := with(nil, "gpu", id, uuid, gpu.UUID, "pci_bus_id", gpu.PCIBusID, "device", "nvidia"+id, "modelName", cfg.modelName(gpu))
	return cfg.withHostname(with(labels, more...))
}

// instanceIdentity returns the identity labels of a GPU instance, which the
// inventory need not have.
func (cfg *Config) instanceIdentity(gpu *model.Entity, profile string, id int, more ...string) []*dto.LabelPair {
	return cfg.gpuIdentity(gpu, append([]string{"GPU_I_PROFILE", profile, "GPU_I_ID", decimal(id)}, more...)...)
}

func (cfg *Config) linkIdentity(inv *model.Inventory, i int) []*dto.LabelPair {
	e := &inv.Entities[i]
	parent := &inv.Entities[e.Parent]
	if parent.Kind != model.KindGPU {
		return cfg.switchLinkIdentity(parent.ID, e.Port)
	}
	id := decimal(parent.ID)
	return cfg.withHostname(with(nil, "nvlink", cfg.linkNumber(e), "gpu", id, "gpu_uuid", parent.UUID,
		"pci_bus_id", parent.PCIBusID, "device", "nvidia"+id, "model_name", cfg.modelName(parent)))
}

// linkNumber returns the label of a link of a GPU.
func (cfg *Config) linkNumber(link *model.Entity) string {
	if cfg.LinksFromOne {
		return decimal(link.Port + 1)
	}
	return decimal(link.Port)
}

func (cfg *Config) switchIdentity(id uint32) []*dto.LabelPair {
	return cfg.withHostname(with(nil, "nvswitch", "nvswitch"+decimal(id)))
}

func (cfg *Config) switchLinkIdentity(id uint32, port int) []*dto.LabelPair {
	return append(with(nil, "nvlink", decimal(port)), cfg.switchIdentity(id)...)
}

// holderOf returns the position of the entity that has the owners of the entity at
// position i: a link has those of its GPU.
func holderOf(inv *model.Inventory, i int) int {
	if e := &inv.Entities[i]; e.Kind == model.KindLink {
		return e.Parent
	}
	return i
}

// addDevices adds the identity of the devices and whether they answer. A GPU keeps
// its series when it is lost, and without a fresh sample.
func (p *page) addDevices() {
	for i := range p.v.Inventory.Entities {
		l := &p.layout.entities[i]
		if !l.device {
			continue
		}
		if p.v.Inventory.Entities[i].Kind == model.KindGPU {
			p.add(&definition.GPUUp, l.identity, bit(p.fresh && !p.status.EngineGone && state.Answers(p.v, i)))
		}
		p.addInfo(&definition.GPUInfo, i, 0, func() []*dto.LabelPair { return gpuInfoLabels(l.identity, p.v.Inventory, i) })
	}
	for i := range p.v.Gone {
		p.add(&definition.GPUUp, p.cfg.gpuIdentity(&p.v.Gone[i]), 0)
	}
}

// migUUID returns the UUID of the MIG device that an instance is, as in the IDs of
// device plugins. A GPU instance with several compute instances has several.
func migUUID(inv *model.Inventory, i int) string {
	var uuids []string
	for at := range inv.Entities {
		if e := &inv.Entities[at]; e.Kind == model.KindComputeInstance && e.UUID != "" && (at == i || e.Parent == i) {
			uuids = append(uuids, e.UUID)
		}
	}
	return strings.Join(uuids, ",")
}

// gpuInfoLabels returns the labels of gpu_info without those whose value is unknown.
func gpuInfoLabels(identity []*dto.LabelPair, inv *model.Inventory, i int) []*dto.LabelPair {
	gpu, _ := inv.GPU(i)
	number := func(n int) string {
		if n == model.Unknown {
			return ""
		}
		return strconv.Itoa(n)
	}
	return append(with(identity), nonEmpty(with(nil, "brand", gpu.Brand, "driver_version", inv.DriverVersion,
		"mig_uuid", migUUID(inv, i), "minor", number(gpu.Minor), "nvml_index", number(gpu.Index), "serial", gpu.Serial, "vbios_version", gpu.VBIOS))...)
}
