// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// places are the places of the processes of a test.
type places map[uint32]ProcessPlace

func (p places) of(r *model.Processes) map[uint32]ProcessPlace {
	all := map[uint32]ProcessPlace{}
	for _, d := range r.Devices {
		for _, process := range d.Processes {
			place, ok := p[process.PID]
			if !ok {
				place.Trouble = ProcessGone
			}
			all[process.PID] = place
		}
	}
	return all
}

const mib = 1 << 20

// The usage of an owner is the sum of its processes, and 0 without any. It is unknown
// if some process may belong to the owner.
func TestUsage(t *testing.T) {
	inv := testInventory(t)
	owners := &Ownership{Entities: []Holders{
		0: {Owners: []Owner{
			{Namespace: "ml", Pod: "a", Container: "main", Replica: "0"},
			{Namespace: "ml", Pod: "a", Container: "main", Replica: "1"},
			{Namespace: "ml", Pod: "b", Container: "main", Replica: "2"},
			{Namespace: "ml", Pod: "b", Container: "side", Replica: "3"},
		}},
		3: {Owners: []Owner{{Namespace: "ml", Pod: "mig", Container: "main"}}},
		5: {},
	}}
	where := places{
		10: {Namespace: "ml", Pod: "a", Container: "main"},
		11: {Namespace: "ml", Pod: "a"}, // only its pod is known, which has one container on the device
		20: {Namespace: "ml", Pod: "b", Container: "side"},
		21: {Namespace: "ml", Pod: "b"}, // one of two containers
		30: {Namespace: "ml", Pod: "mig", Container: "main"},
		40: {Namespace: "ml", Pod: "stranger", Container: "main"},
		50: {Trouble: ProcessOutside},
		60: {Trouble: ProcessUnknownPod},
	}
	compute := func(pid uint32, memory uint64, sm float64) model.Process {
		return model.Process{PID: pid, Kind: model.ProcessCompute, MemoryBytes: memory, MemoryKnown: true, SM: sm, Encoder: sm / 2, Decoder: sm / 4}
	}
	unknownMemory := compute(20, 0, 0)
	unknownMemory.MemoryKnown = false

	type used struct {
		known              bool
		processes          int
		memory             uint64
		memoryKnown, rated bool
		sm                 float64
	}
	for _, tc := range []struct {
		name      string
		device    model.DeviceProcesses
		want      map[int]used // by position in owners of the entity
		entity    int
		troubles  map[ProcessTrouble]int
		ownership *Ownership
	}{
		{
			name:   "processes of several owners",
			device: model.DeviceProcesses{Entity: 0, Processes: []model.Process{compute(10, 3*mib, 0.5), compute(11, 2*mib, 0.125), compute(20, mib, 0.25)}},
			want:   map[int]used{0: {true, 2, 5 * mib, true, true, 0.625}, 2: {true, 0, 0, true, true, 0}, 3: {true, 1, mib, true, true, 0.25}},
		},
		{
			name:   "no process",
			device: model.DeviceProcesses{Entity: 0},
			want:   map[int]used{0: {true, 0, 0, true, true, 0}, 3: {true, 0, 0, true, true, 0}},
		},
		{
			name:     "processes of other pods and ended processes do not matter",
			device:   model.DeviceProcesses{Entity: 0, Processes: []model.Process{compute(40, mib, 0.1), compute(50, mib, 0.1), compute(99, mib, 0.1), compute(10, mib, 0.5)}},
			want:     map[int]used{0: {true, 1, mib, true, true, 0.5}, 2: {true, 0, 0, true, true, 0}},
			troubles: map[ProcessTrouble]int{processNoOwner: 1, ProcessOutside: 1, ProcessGone: 1},
		},
		{
			name:     "a process of an unknown pod makes all owners unknown",
			device:   model.DeviceProcesses{Entity: 0, Processes: []model.Process{compute(60, mib, 0.1), compute(10, mib, 0.5)}},
			want:     map[int]used{0: {false, 1, mib, true, true, 0.5}, 2: {false, 0, 0, true, true, 0}},
			troubles: map[ProcessTrouble]int{ProcessUnknownPod: 1},
		},
		{
			name:     "a process of one of two containers makes both unknown",
			device:   model.DeviceProcesses{Entity: 0, Processes: []model.Process{compute(21, mib, 0.1), compute(10, mib, 0.5)}},
			want:     map[int]used{0: {true, 1, mib, true, true, 0.5}, 2: {false, 0, 0, true, true, 0}, 3: {false, 0, 0, true, true, 0}},
			troubles: map[ProcessTrouble]int{processContainer: 1},
		},
		{
			name:   "memory unknown to the driver",
			device: model.DeviceProcesses{Entity: 0, Processes: []model.Process{unknownMemory, compute(10, mib, 0.5)}},
			want:   map[int]used{0: {true, 1, mib, true, true, 0.5}, 3: {true, 1, 0, false, true, 0}},
		},
		{
			name:   "no utilization",
			device: model.DeviceProcesses{Entity: 0, Utilization: model.StatusNotSupported, Processes: []model.Process{compute(10, mib, 0)}},
			want:   map[int]used{0: {true, 1, mib, true, false, 0}},
		},
		{
			name:   "no list",
			device: model.DeviceProcesses{Entity: 0, Listed: model.StatusNotPermitted, Utilization: model.StatusNotPermitted},
			want:   map[int]used{0: {}},
		},
		{
			name:   "processes of a compute instance count for its GPU instance",
			device: model.DeviceProcesses{Entity: 5, Utilization: model.StatusNotSupported, Processes: []model.Process{compute(30, 7*mib, 0)}},
			entity: 3,
			want:   map[int]used{0: {true, 1, 7 * mib, true, false, 0}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reading := &model.Processes{Generation: 1, Devices: []model.DeviceProcesses{tc.device}}
			u := newUsage(inv, reading, owners, where.of(reading))
			for i, want := range tc.want {
				o := u.owners[tc.entity][i]
				if got := (used{o.known, o.processes, o.memory, o.memoryKnown, o.rated, o.sm}); got != want {
					t.Errorf("owner %d uses %+v, want %+v", i, got, want)
				}
			}
			for trouble, n := range u.troubles {
				if n != tc.troubles[trouble] {
					t.Errorf("%d processes count as %s, want %d", n, trouble, tc.troubles[trouble])
				}
			}
		})
	}
}

// A reading of processes older than the age limit of samples is withheld.
func TestUsageWithheldWhenStale(t *testing.T) {
	cfg := testConfig(t)
	cfg.Owners.Usage = true
	f, node, clock := newTestFamilies(t, cfg)
	f.owners = fixedOwners{ownership: &Ownership{Entities: []Holders{0: {Owners: []Owner{{Namespace: "ml", Pod: "a", Container: "main"}}}, 5: {}}}}
	deliver(t, node, wire.Frame{Processes: &model.Processes{Generation: 1, Time: epoch, Devices: []model.DeviceProcesses{{Entity: 0}}}})
	if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_pod_memory_used_bytes"); !strings.HasSuffix(got, `pod="a"} 0`+"\n") {
		t.Errorf("fresh: %q", got)
	}
	*clock = epoch.Add(31 * time.Second)
	body := encode(t, f, expfmt.TypeTextPlain)
	if got := series(body, "gpu_pod_memory_used_bytes"); got != "" {
		t.Errorf("31 s later: %q", got)
	}
	if got := series(body, "gpu_exporter_processes_last_read_timestamp_seconds"); got == "" {
		t.Error("the time of the last reading is missing")
	}
}
