// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// appendHolders appends the families that say who holds each device, and what
// they use of it.
func (f *Families) appendHolders(families []Family, v state.View, ownership *Ownership) []Family {
	if ownership == nil {
		return families
	}
	pods, owners := gpuPodInfo.family(), gpuOwners.family()
	jobs, containers := gpuJobInfo.family(), gpuContainerInfo.family()
	pods.Series, owners.Series = f.buffer(pods.Name), f.buffer(owners.Name)
	for i := range v.Inventory.Entities {
		l := &f.layout.entities[i]
		if l.own == nil {
			continue
		}
		holders := ownership.of(i)
		n := holders.count()
		if (n > 0 || ownership.Known && !holders.Unknown) && !v.Inventory.Entities[i].MIGMode { // that is held by its instances
			owners.Series = append(owners.Series, Series{l.own, Number(float64(n))})
		}
		for n := range l.owners {
			pods.Series = append(pods.Series, Series{l.owners[n].info, Number(1)})
		}
		for n := range holders.Jobs {
			jobs.Series = append(jobs.Series, Series{f.layout.render(renderedKey{i, gpuJobInfo.Name, 0, n}, func() []Label {
				return slices.Concat(l.identity, jobLabels(&holders.Jobs[n]))
			}), Number(1)})
		}
		for n := range holders.Containers {
			containers.Series = append(containers.Series, Series{f.layout.render(renderedKey{i, gpuContainerInfo.Name, 0, n}, func() []Label {
				return slices.Concat(l.identity, engineLabels(&holders.Containers[n]))
			}), Number(1)})
		}
	}
	families = append(families, pods, owners, jobs, containers)
	if f.layout.podLabels == nil && (f.cfg.Owners.LabelsFamily || f.cfg.Owners.SeriesLabels) {
		f.layout.podLabels = f.podLabels(ownership)
	}
	families = append(families, gpuPodLabels.family(f.layout.podLabels...))
	return f.appendUsage(families)
}

func jobLabels(j *Job) []Label {
	return []Label{{"account", j.Account}, {"job_id", j.ID}, {"job_name", j.Name},
		{"partition", j.Partition}, {"source", j.Source}, {"user", j.User}}
}

func engineLabels(c *Container) []Label {
	return append([]Label{{"compose_project", c.Project}, {"compose_service", c.Service},
		{"container_id", c.ID}, {"container_name", c.Name}, {"image", c.Image}}, prefixed("label_", c.Labels)...)
}

// podLabels returns the series of gpu_pod_labels: one for each pod that holds a
// device, whatever the number of its devices. Where labels are on the series of
// devices, the pods are those that share one, whose labels would be nowhere.
func (f *Families) podLabels(ownership *Ownership) []Series {
	type pod struct{ namespace, name string }
	known := map[pod]*PodMetadata{}
	for i := range ownership.Entities {
		if f.layout.entities[i].own == nil {
			continue
		}
		if _, single := ownership.Entities[i].single(); single && !f.cfg.Owners.LabelsFamily {
			continue
		}
		for _, o := range ownership.Entities[i].Owners {
			if o.Metadata != nil {
				known[pod{o.Namespace, o.Pod}] = o.Metadata
			}
		}
	}
	series := make([]Series, 0, len(known))
	for p, m := range known {
		labels := f.cfg.withHostname([]Label{{"namespace", p.namespace}, {"pod", p.name}})
		labels = slices.Concat(labels, f.cfg.podAttributes(m), prefixed("annotation_", m.Annotations), prefixed("label_", m.Labels))
		series = append(series, Series{NewLabelSet(labels...), Number(1)})
	}
	slices.SortFunc(series, func(a, b Series) int { return strings.Compare(a.Labels.text, b.Labels.text) })
	return series
}

// appendUsage appends what each owner uses of each device. A reading that is too
// old is nobody's use any more.
func (f *Families) appendUsage(families []Family) []Family {
	if f.usage.old || f.usage.owners == nil {
		return families
	}
	processes, memory, kinds := gpuPodProcesses.family(), gpuPodMemory.family(), gpuPodKinds.family()
	sm, encoder, decoder := gpuPodSM.family(), gpuPodEncoder.family(), gpuPodDecoder.family()
	for _, family := range []*Family{&processes, &memory, &kinds} {
		family.Series = f.buffer(family.Name)
	}
	add := func(to *Family, labels *LabelSet, v Value) {
		to.Series = append(to.Series, Series{labels, v})
	}
	for i, owners := range f.usage.owners {
		for n, used := range owners {
			l := &f.layout.entities[i]
			if l.own == nil || l.owners[n].usage == nil || !used.known {
				continue
			}
			labels := l.owners[n].usage
			add(&processes, labels, Integer(uint64(used.processes)))
			if used.memoryKnown {
				add(&memory, labels, Integer(used.memory))
				for kind, bytes := range used.kinds {
					if bytes > 0 {
						add(&kinds, l.owners[n].kinds[kind], Integer(bytes))
					}
				}
			}
			if used.rated {
				add(&sm, labels, Number(used.sm))
				add(&encoder, labels, Number(used.encode))
				add(&decoder, labels, Number(used.decode))
			}
		}
	}
	return append(families, processes, memory, kinds, sm, encoder, decoder)
}

// appendProcessState appends how reading and attributing processes goes.
func (f *Families) appendProcessState(families []Family) []Family {
	if f.usage.processes == nil {
		return families
	}
	troubles := make(map[string]int, len(f.usage.troubles))
	for t, n := range f.usage.troubles {
		troubles[string(t)] = n
	}
	unread := processesUnread.family()
	missing := map[[2]string]int{}
	for _, d := range f.usage.processes.Devices {
		if d.Listed != model.StatusOK {
			missing[[2]string{"list", d.Listed.String()}]++
		}
		if d.Utilization != model.StatusOK {
			missing[[2]string{"utilization", d.Utilization.String()}]++
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(missing), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		unread.Series = append(unread.Series, Series{NewLabelSet(Label{"reason", key[1]}, Label{"what", key[0]}), Number(float64(missing[key]))})
	}
	return append(families,
		processesRead.single(Number(seconds(f.usage.processes.Time))),
		counts(f, &processesUnattributed, troubles), unread)
}

// appendSources appends how the sources of owners do.
func appendSources(families []Family, sources map[string]SourceStatus, now time.Time) []Family {
	up, age, failures := sourceUp.family(), sourceAge.family(), sourceFailures.family()
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		s := sources[name]
		source := Label{"source", name}
		if !s.Part {
			up.Series = append(up.Series, Series{NewLabelSet(source), Bool(s.Up)})
		}
		if !s.LastSuccess.IsZero() {
			age.Series = append(age.Series, Series{NewLabelSet(source), Number(now.Sub(s.LastSuccess).Seconds())})
		}
		for _, reason := range slices.Sorted(maps.Keys(s.Failures)) {
			failures.Series = append(failures.Series, Series{NewLabelSet(source, Label{"reason", reason}), Number(float64(s.Failures[reason]))})
		}
	}
	return append(families, up, age, failures)
}
