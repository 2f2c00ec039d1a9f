// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// appendState appends the gpu_exporter_* families.
func (f *Families) appendState(families []Family, v state.View, ownership *Ownership) []Family {
	status := f.supervisor.Status()
	fresh := v.Sample != nil && v.Age <= f.cfg.MaxAge
	families = append(families,
		samplerUp.single(Bool(status.Sampling && fresh)),
		counts(f, &samplerRestarts, status.Restarts),
		samplerUnreapable.single(Bool(status.Unreapable)),
		counts(f, &framesRejected, status.FramesRejected))
	if v.Inventory != nil {
		families = append(families, migUp.single(Bool(!v.Inventory.InstancesUnknown)))
	}
	families = appendPause(families, status.ProfilingPausedUntil)
	if v.Sample != nil {
		families = append(families,
			lastSample.single(Number(seconds(v.Sample.Time))),
			sampleDuration.single(Number(v.Sample.Duration.Seconds())),
			counts(f, &fieldsUnsupported, withoutValue(v.Sample)))
		families = f.appendLinkState(families, v)
	}
	families = f.appendKernelLog(families, v)
	if f.owners == nil {
		return families
	}
	families = f.appendProcessState(families)
	families = appendSources(families, f.owners.Sources(), f.node.Clock())
	if ownership != nil {
		families = append(families, counts(f, &sourceStrays, ownership.Strays))
	}
	mapping, asked := f.owners.MappingStatus()
	if !asked {
		return families
	}
	families = append(families,
		mappingUp.single(Bool(mapping.Up)),
		counts(f, &mappingFailures, mapping.Failures))
	if !mapping.LastSuccess.IsZero() {
		families = append(families,
			mappingAge.single(Number(f.node.Clock().Sub(mapping.LastSuccess).Seconds())),
			mappingDuration.single(Number(mapping.Duration.Seconds())))
	}
	if ownership != nil && ownership.Mapped {
		families = append(families, mappingUnmatched.single(Number(float64(ownership.Unmatched))))
	}
	return families
}

// withoutValue counts the cells without a value by reason, all reasons present.
func withoutValue(s *model.Sample) map[string]int {
	var n [model.StatusCount]int
	for _, row := range s.Rows {
		for _, c := range row {
			if int(c.Status) < model.StatusCount {
				n[c.Status]++
			}
		}
	}
	byReason := make(map[string]int, model.StatusCount-1)
	for status := model.StatusOK + 1; int(status) < model.StatusCount; status++ {
		byReason[status.String()] = n[status]
	}
	return byReason
}
