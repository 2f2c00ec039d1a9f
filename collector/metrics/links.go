// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// The families of what links GPUs.
var (
	gpuNVLinkUp = definition{"gpu_nvlink_up", field.MetricGauge, "Whether the NVLink carries data: 0 for one that is there and down. Links of a lost GPU have no value, and none has one while they cannot be read: see gpu_exporter_nvlink_read_up. Its labels are those of links: gpu_uuid and model_name, as with dcgm-exporter.",
		[]string{"nvlink", "nvswitch"}}
	gpuNVSwitchUp = definition{"gpu_nvswitch_up", field.MetricGauge, "Whether the NVSwitch answers: 1 if the newest sample is fresh and has its temperature, or whether it must be reset (fields 858 and 864); 0 if these are blank or no longer renewed, if DCGM does not list it any more, or if there is no fresh sample. Absent where DCGM has neither field.",
		[]string{"nvswitch"}}
	gpuNVSwitchInfo = definition{"gpu_nvswitch_info", field.MetricGauge, "What is known of an NVSwitch, be it lost or not; always 1.",
		[]string{"nvswitch", "pci_bus_id", "uuid"}}

	linksUp   = definition{"gpu_exporter_nvlink_read_up", field.MetricGauge, "Whether it is known which NVLinks are up: 1 if that was read no longer ago than a sample may be old (and 3 s). While it is 0, gpu_nvlink_up is absent.", nil}
	linksLast = definition{"gpu_exporter_nvlink_last_read_timestamp_seconds", field.MetricGauge, "When it was last read which NVLinks are up.", nil}
)

// appendLinkState appends how the reading of links does.
func (f *Families) appendLinkState(families []Family, v state.View) []Family {
	_, fresh := v.LinksFresh(f.cfg.MaxAge)
	families = append(families, linksUp.single(Bool(fresh)))
	if v.Sample.LinksRead.IsZero() {
		return families
	}
	return append(families, linksLast.single(Number(seconds(v.Sample.LinksRead))))
}

// SwitchFields returns the fields that are read of each NVSwitch, whatever the
// counters file names. DCGM has a status of GPUs (dcgmGetGpuStatus) and none of
// switches, and goes on listing one that fails: only what it reads of a switch tells.
// What it may remember (the PCI address, the last SXid) does not.
func SwitchFields() []model.FieldID { return []model.FieldID{858, 864} }

// switchUp says whether the newest sample has a value of the switch at position i,
// and whether it tells. A field that the switch, or the library behind it, does not
// have says nothing.
func switchUp(v state.View, i int) (up, known bool) {
	columns := v.Inventory.Columns[model.KindSwitch]
	for c, cell := range v.Sample.Rows[i] {
		if !slices.Contains(SwitchFields(), columns[c]) {
			continue
		}
		switch cell.Status {
		case model.StatusOK:
			return true, true
		case model.StatusBlank, model.StatusStale, model.StatusEntityLost, model.StatusError:
			known = true
		}
	}
	return false, known
}

// switchLabels are the identity of a switch, which is no more than its number.
func (cfg *Config) switchLabels(id uint32) []Label {
	return cfg.withHostname([]Label{{"nvswitch", "nvswitch" + strconv.FormatUint(uint64(id), 10)}})
}

// appendFabric appends the families of links and switches.
func (f *Families) appendFabric(families []Family, v state.View, fresh bool) []Family {
	links, switches, up := gpuNVLinkUp.family(), gpuNVSwitchInfo.family(), gpuNVSwitchUp.family()
	links.Series = f.buffer(links.Name)
	_, linksFresh := v.LinksFresh(f.cfg.MaxAge)
	for i := range v.Inventory.Entities {
		l, e := &f.layout.entities[i], &v.Inventory.Entities[i]
		switch {
		case l.self == nil:
		case e.Kind == model.KindLink && linksFresh && e.State == model.EntityUp:
			links.Series = append(links.Series, Series{l.self, Bool(!e.LinkDown)})
		case e.Kind == model.KindSwitch:
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
	for _, gone := range v.GoneSwitches {
		if fresh && !v.Sample.SwitchesListed {
			break // the sampler has yet to look: the call for the links, made with it, may hang
		}
		if model.FindSwitch(v.Inventory, gone.ID) == nil {
			up.Series = append(up.Series, Series{NewLabelSet(f.cfg.switchLabels(gone.ID)...), Bool(false)})
		}
	}
	for _, gone := range v.GoneLinks {
		if linksFresh && model.FindSwitch(v.Inventory, gone.Switch) == nil {
			links.Series = append(links.Series, Series{NewLabelSet(f.cfg.switchLinkLabels(gone.Switch, gone.Port)...), Bool(false)})
		}
	}
	return append(families, links, switches, up)
}
