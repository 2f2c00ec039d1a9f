// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/collector"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// epoch is the time of every sample, and now a little later.
var (
	epoch = time.Unix(1_700_000_000, 0)
	now   = epoch.Add(2 * time.Second)
)

// hostile is a name that a page must escape.
const hostile = `"><script>document.title='owned'</script><img src=x onerror=alert(1)>{{.}}</style>&amp;'`

var gpuColumns = []model.FieldID{150, 140, 155, 252, 251, 253, 1001, 203, 230}

// testInput returns a ready node with three GPUs: one with values, one in MIG mode with two
// instances, and one that is lost.
func testInput(t *testing.T) *Input {
	t.Helper()
	line, err := config.Parse(nil, nil, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	gpu := func(id uint32, uuid, bus string) model.Entity {
		return model.Entity{
			Kind: model.KindGPU, Selected: true, ID: id, Parent: model.Unknown, UUID: uuid, PCIBusID: bus, Model: "NVIDIA H100 80GB HBM3",
			Serial: fmt.Sprint(1650000000000 + int(id)), VBIOS: "96.00.23.00.01", Index: int(id), Minor: int(id), InstanceID: model.Unknown,
		}
	}
	instance := func(id uint32, nvml int) model.Entity {
		return model.Entity{Kind: model.KindGPUInstance, Selected: true, ID: id, Parent: 1, InstanceID: nvml, Profile: "3g.40gb", Index: model.Unknown, Minor: model.Unknown}
	}
	inv := &model.Inventory{
		Generation: 1, Time: epoch, DriverVersion: "570.133.20", DCGMVersion: "4.6.0", Derived: []model.FieldID{1523, 153, 164, 396, 395, 112},
		Entities: model.Entities{
			gpu(0, "GPU-aaaa", "00000000:18:00.0"), gpu(1, "GPU-bbbb", "00000000:2A:00.0"), gpu(2, "GPU-cccc", "00000000:3A:00.0"),
			instance(7, 1), instance(8, 2),
			{Kind: model.KindComputeInstance, ID: 7, Parent: 3, UUID: "MIG-1111", Index: model.Unknown, Minor: model.Unknown},
		},
	}
	inv.Entities[1].MIGMode = true
	inv.Entities[2].State = model.EntityLost
	inv.Columns[model.KindGPU], inv.Columns[model.KindGPUInstance] = slices.Clone(gpuColumns), slices.Clone(gpuColumns)
	none := model.NoValue
	lost := func(n int) (row []model.Cell) {
		for range n {
			row = append(row, none(model.StatusEntityLost))
		}
		return row
	}
	sample := &model.Sample{
		Generation: 1, Time: epoch, Duration: 4 * time.Millisecond,
		Rows: model.Rows{
			{model.Int64Cell(58), model.Int64Cell(66), model.DoubleCell(537.4), model.Int64Cell(48000), model.Int64Cell(33000), model.Int64Cell(559), model.DoubleCell(0.72), model.Int64Cell(80), none(model.StatusNoData)},
			nil,
			lost(len(gpuColumns)),
			{model.Int64Cell(41), none(model.StatusNotSupported), model.DoubleCell(95.5), model.Int64Cell(100), model.Int64Cell(40000), none(model.StatusNotSupported), model.DoubleCell(0), none(model.StatusNotSupported), none(model.StatusNoData)},
			{model.Int64Cell(41), none(model.StatusNotSupported), model.DoubleCell(95.5), none(model.StatusBlank), model.Int64Cell(40000), none(model.StatusNotSupported), none(model.StatusBlank), none(model.StatusNotSupported), none(model.StatusNoData)},
			nil,
		},
		Derived: model.Rows{
			{model.Int64Cell(0), model.Int64Cell(30), model.DoubleCell(700), model.Int64Cell(0), model.Int64Cell(0), model.Int64Cell(4)},
			{model.Int64Cell(0), none(model.StatusNotSupported), model.DoubleCell(700), model.Int64Cell(0), model.Int64Cell(0), model.Int64Cell(1)},
			lost(6), nil, nil, nil,
		},
	}
	if err := inv.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := sample.Validate(inv); err != nil {
		t.Fatal(err)
	}
	in := &Input{Config: &line.Config, Node: "node-1"}
	in.Snapshot = collector.Snapshot{
		Time: now, Fresh: true, MaxAge: 30 * time.Second, Interval: 5 * time.Second, Ready: true,
		Counters: line.Config.Counters, Catalogue: line.Config.XIDs,
		Sampler: model.SamplerStatus{Running: true, Sampling: true, PID: 42, Started: epoch.Add(-time.Hour), Restarts: map[string]uint64{"config": 0, "crashed": 2}},
	}
	in.Inventory, in.Sample, in.Age = inv, sample, now.Sub(epoch)
	return in
}

// own gives the devices owners: a pod and its shares, a job, and pods on the instances.
func own(in *Input) {
	in.Owners = []owners.Source{{
		Findings:    []owners.Finding{{About: "kubelet", Name: "pod-resources", State: owners.OK, Detail: "5 device IDs held by containers"}},
		LastSuccess: now.Add(-3 * time.Second),
	}}
	in.Ownership = &metrics.Ownership{Known: true, Entities: make([]metrics.Holders, len(in.Inventory.Entities))}
	pod := metrics.Owner{Namespace: "ml", Pod: "train-0", Container: "main", Replica: "0", Metadata: &metrics.PodMetadata{WorkloadKind: "Job", Workload: "train"}}
	second := pod
	second.Replica = "1"
	in.Ownership.Entities[0] = metrics.Holders{
		Owners: []metrics.Owner{pod, second},
		Jobs:   []metrics.Job{{ID: "4711", User: "1000", Partition: "gpu"}},
	}
	in.Ownership.Entities[3] = metrics.Holders{Owners: []metrics.Owner{{Namespace: "ml", Pod: "serve-0", Container: "triton"}}}
}

// reportXID counts an XID of the GPU at a position, or of a GPU instance.
func reportXID(in *Input, entity int, code int64, age time.Duration) {
	if in.XIDs == nil {
		in.XIDs = map[xid.Key]xid.Count{}
	}
	in.XIDs[xid.Key{EntityKey: model.KeyOf(in.Inventory, entity), Code: code}] = xid.Count{Total: 1, Last: now.Add(-age)}
}
