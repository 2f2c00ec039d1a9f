// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// addDevices adds the identity of the devices and whether they answer. A GPU keeps
// its series when it is lost, and without a fresh sample.
func (p *page) addDevices() {
	for i := range p.v.Inventory.Entities {
		l := &p.layout.entities[i]
		if !l.device {
			continue
		}
		if p.v.Inventory.Entities[i].Kind == model.KindGPU {
			p.add(&gpuUp, l.identity, bit(p.fresh && !p.status.EngineGone && state.Answers(p.v, i)))
		}
		p.addInfo(&gpuInfo, i, 0, func() []*dto.LabelPair { return gpuInfoLabels(l.identity, p.v.Inventory, i) })
	}
	for _, gpu := range p.goneGPUs() {
		p.add(&gpuUp, p.cfg.gpuIdentity(gpu), 0)
	}
}

// goneGPUs returns the known GPUs that the inventory does not list any more.
func (p *page) goneGPUs() (gone []*model.Entity) {
	for i := range p.v.Gone {
		if gpu := &p.v.Gone[i]; model.FindGPU(p.v.Inventory, gpu.UUID) == nil {
			gone = append(gone, gpu)
		}
	}
	return gone
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
