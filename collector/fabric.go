// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strconv"
)

// The families of what links GPUs.
var (
	gpuNVLinkUp = definition{"gpu_nvlink_up", MetricGauge, "Whether the NVLink carries data: 0 for one that is there and down. Links of a lost GPU have no value. Its labels are those of links: gpu_uuid and model_name, as with dcgm-exporter.",
		[]string{"nvlink", "nvswitch"}}
	gpuNVSwitchUp = definition{"gpu_nvswitch_up", MetricGauge, "Whether the NVSwitch answers: 1 if the newest sample is fresh and has its temperature, or whether it must be reset (fields 858 and 864); 0 if these are blank or no longer renewed, if DCGM does not list it any more, or if there is no fresh sample. Absent where DCGM has neither field.",
		[]string{"nvswitch"}}
	gpuNVSwitchInfo = definition{"gpu_nvswitch_info", MetricGauge, "What is known of an NVSwitch, be it lost or not; always 1.",
		[]string{"nvswitch", "pci_bus_id", "uuid"}}
)

// SwitchFields returns the fields that are read of each NVSwitch, whatever the
// counters file names. DCGM has a status of GPUs (dcgmGetGpuStatus) and none of
// switches, and goes on listing one that fails: only what it reads of a switch tells.
// What it may remember (the PCI address, the last SXid) does not.
func SwitchFields() []FieldID { return []FieldID{858, 864} }

// switchUp says whether the newest sample has a value of the switch at position i,
// and whether it tells. A field that the switch, or the library behind it, does not
// have says nothing.
func switchUp(v nodeView, i int) (up, known bool) {
	columns := v.inventory.Columns[KindSwitch]
	for c, cell := range v.sample.Rows[i] {
		if !slices.Contains(SwitchFields(), columns[c]) {
			continue
		}
		switch cell.Status {
		case StatusOK:
			return true, true
		case StatusBlank, StatusStale, StatusEntityLost, StatusError:
			known = true
		}
	}
	return false, known
}

// switchLabels are the identity of a switch, which is no more than its number.
func (cfg *FamiliesConfig) switchLabels(id uint32) []Label {
	return cfg.withHostname([]Label{{"nvswitch", "nvswitch" + strconv.FormatUint(uint64(id), 10)}})
}

// appendFabric appends the families of links and switches.
func (f *Families) appendFabric(families []Family, v nodeView, fresh bool) []Family {
	links, switches, up := gpuNVLinkUp.family(), gpuNVSwitchInfo.family(), gpuNVSwitchUp.family()
	links.Series = f.room(links.Name)
	for i := range v.inventory.Entities {
		l, e := &f.layout.entities[i], &v.inventory.Entities[i]
		switch {
		case l.self == nil:
		case e.Kind == KindLink && fresh && e.State == EntityUp:
			links.Series = append(links.Series, Series{l.self, Bool(!e.LinkDown)})
		case e.Kind == KindSwitch:
			answers, known := false, true
			if fresh {
				answers, known = switchUp(v, i)
			}
			if known {
				up.Series = append(up.Series, Series{l.self, Bool(answers)})
			}
			switches.Series = append(switches.Series, Series{f.layout.render(renderedKey{i, gpuNVSwitchInfo.Name, 0, 0}, func() []Label {
				return slices.Concat(l.identity, []Label{{"pci_bus_id", e.PCIBusID}, {"uuid", e.UUID}})
			}), Number(1)})
		}
	}
	for _, gone := range v.goneSwitches {
		if findSwitch(v.inventory, gone.ID) == nil {
			up.Series = append(up.Series, Series{NewLabelSet(f.cfg.switchLabels(gone.ID)...), Bool(false)})
		}
	}
	return append(families, links, switches, up)
}
