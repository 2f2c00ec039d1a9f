// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"gpu_exporter/collector/model"
	"gpu_exporter/podmapper/device"
)

// State is how well something works.
type State string

// The states.
const (
	OK      State = "ok"
	Noted   State = "note"   // worth knowing; everything configured works
	Limited State = "warn"   // part of what is configured does not work
	Broken  State = "broken" // what is configured does not work
)

// Finding is the state of a source, or of something that it read. The command doctor
// prints it as JSON.
type Finding struct {
	About  string `json:"about"` // such as kubelet
	Name   string `json:"name"`  // such as pod-resources
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"`
}

// DeviceFinding is the meaning of a device ID of the kubelet.
type DeviceFinding struct {
	ID                                  string
	Namespace, Pod, Container, Resource string
	Form                                string
	Entities                            []int // positions in the inventory; empty: no device
	Why, Advice                         string
}

// Report is the result of an examination.
type Report struct {
	Findings []Finding
	Devices  []DeviceFinding
}

// Examine reports the state of every source, and what the owners hold on the
// devices of inv, which may be nil. Settle must have started the sources.
func (o *Owners) Examine(inv *model.Inventory) Report {
	var r Report
	for _, s := range o.states() {
		r.Findings = append(r.Findings, s.findings...)
	}
	if inv == nil {
		return r
	}
	all, in := devices(inv), o.inputs()
	for _, res := range in.mapping.At(o.placesOf(inv), in.mapped).Match(all, in.published).Resolutions {
		r.Devices = append(r.Devices, DeviceFinding{
			ID: res.ID, Namespace: res.Owner.Namespace, Pod: res.Owner.Pod, Container: res.Owner.Container,
			Resource: res.Owner.Resource, Form: res.Known.Form.String(), Entities: res.Devices, Why: res.Reason, Advice: res.Hint,
		})
	}
	x := device.NewIndex(all, device.IDTypeUID)
	for _, u := range in.engine.Match(x).Unmatched {
		r.Findings = append(r.Findings, Finding{"docker", u.Name, Limited, u.Request + ": " + u.Reason, u.Hint})
	}
	for _, h := range strays(in.jobs.Match(x, nil)) {
		r.Findings = append(r.Findings, Finding{"job files", h.Device.String(), Limited,
			"job " + h.Job.ID + " is on a device that this node does not have", "see the scheduler's prolog"})
	}
	return r
}

func errorText(err error) string {
	if err == nil {
		return "no answer yet"
	}
	return err.Error()
}
