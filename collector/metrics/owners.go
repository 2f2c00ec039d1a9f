// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"

	"gpu_exporter/collector/metrics/definition"

	dto "github.com/prometheus/client_model/go"
)

// addOwners adds the holders of each device.
func (p *page) addOwners() {
	if p.ownership == nil {
		return
	}
	for i := range p.v.Inventory.Entities {
		l := &p.layout.entities[i]
		if !l.device {
			continue
		}
		holders := p.ownership.of(i)
		n := holders.count()
		// A GPU in MIG mode is held through its instances.
		if (n > 0 || p.ownership.Known && !holders.Unknown) && !p.v.Inventory.Entities[i].MIGMode {
			p.add(&definition.GPUOwners, l.identity, float64(n))
		}
		for n := range holders.Owners {
			p.addInfo(&definition.GPUPodInfo, i, n, func() []*dto.LabelPair { return p.cfg.podInfoLabels(l.identity, &holders.Owners[n]) })
		}
		for n := range holders.Jobs {
			p.addInfo(&definition.GPUJobInfo, i, n, func() []*dto.LabelPair { return jobLabels(l.identity, &holders.Jobs[n]) })
		}
		for n := range holders.Containers {
			p.addInfo(&definition.GPUContainerInfo, i, n, func() []*dto.LabelPair { return containerLabels(l.identity, &holders.Containers[n]) })
		}
	}
	for _, labels := range p.layout.podLabels {
		p.add(&definition.GPUPodLabels, labels, 1)
	}
}

// podInfoLabels returns the labels of gpu_pod_info. OldNames does not apply to them,
// because dcgm-exporter has no such family.
func (cfg *Config) podInfoLabels(identity []*dto.LabelPair, o *Owner) []*dto.LabelPair {
	labels := with(identity, "container", o.Container, "namespace", o.Namespace, "pod", o.Pod, "replica", o.Replica)
	return slices.Concat(labels, cfg.claimLabels(o.Claim), cfg.podAttributes(o.Metadata))
}

func jobLabels(identity []*dto.LabelPair, j *Job) []*dto.LabelPair {
	return with(identity, "account", j.Account, "job_id", j.ID, "job_name", j.Name,
		"partition", j.Partition, "source", j.Source, "user", j.User)
}

func containerLabels(identity []*dto.LabelPair, c *Container) []*dto.LabelPair {
	labels := with(identity, "compose_project", c.Project, "compose_service", c.Service,
		"container_id", c.ID, "container_name", c.Name, "image", c.Image)
	return append(labels, prefixed("label_", c.Labels)...)
}

// podLabelRows returns the labels of the series of gpu_pod_labels: one for each pod
// that holds a device. If the devices' series have the labels, the rows are only
// those of pods that share a device.
func (l *layout) podLabelRows(cfg *Config) [][]*dto.LabelPair {
	if l.ownership == nil || !cfg.Owners.LabelsFamily && !cfg.Owners.SeriesLabels {
		return nil
	}
	type pod struct{ namespace, name string }
	known := map[pod]*PodMetadata{}
	for i := range l.ownership.Entities {
		if i >= len(l.entities) || !l.entities[i].device {
			continue
		}
		holders := &l.ownership.Entities[i]
		if _, single := holders.single(); single && !cfg.Owners.LabelsFamily {
			continue
		}
		for _, o := range holders.Owners {
			if o.Metadata != nil {
				known[pod{o.Namespace, o.Pod}] = o.Metadata
			}
		}
	}
	rows := make([][]*dto.LabelPair, 0, len(known))
	for p, m := range known {
		labels := cfg.withHostname(with(nil, "namespace", p.namespace, "pod", p.name))
		rows = append(rows, slices.Concat(labels, cfg.podAttributes(m), prefixed("annotation_", m.Annotations), prefixed("label_", m.Labels)))
	}
	slices.SortFunc(rows, func(a, b []*dto.LabelPair) int { // by namespace, then pod
		return slices.CompareFunc(a[:2], b[:2], func(x, y *dto.LabelPair) int { return strings.Compare(x.GetValue(), y.GetValue()) })
	})
	return rows
}
