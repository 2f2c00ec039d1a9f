// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import "slices"

// The families of what links GPUs.
var (
	gpuNVLinkUp = definition{"gpu_nvlink_up", MetricGauge, "Whether the NVLink carries data: 0 for one that is there and down. Links of a lost GPU have no value. Its labels are those of links: gpu_uuid and model_name, as with dcgm-exporter.",
		[]string{"nvlink", "nvswitch"}}
	gpuNVSwitchInfo = definition{"gpu_nvswitch_info", MetricGauge, "What is known of an NVSwitch; always 1.",
		[]string{"nvswitch", "pci_bus_id", "uuid"}}
)

// appendFabric appends the families of links and switches.
func (f *Families) appendFabric(families []Family, v nodeView, fresh bool) []Family {
	links, switches := gpuNVLinkUp.family(), gpuNVSwitchInfo.family()
	links.Series = f.room(links.Name)
	for i := range v.inventory.Entities {
		l, e := &f.layout.entities[i], &v.inventory.Entities[i]
		switch {
		case l.self == nil:
		case e.Kind == KindLink && fresh && e.State == EntityUp:
			links.Series = append(links.Series, Series{l.self, Bool(!e.LinkDown)})
		case e.Kind == KindSwitch:
			switches.Series = append(switches.Series, Series{f.layout.render(renderedKey{i, gpuNVSwitchInfo.Name, 0, 0}, func() []Label {
				return slices.Concat(l.identity, []Label{{"pci_bus_id", e.PCIBusID}, {"uuid", e.UUID}})
			}), Number(1)})
		}
	}
	return append(families, links, switches)
}
