// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// The node of the tests.
var (
	epoch         = fixture.Epoch
	testInventory = fixture.Inventory
	testSample    = fixture.Sample
)

func testConfig(t *testing.T) Config {
	t.Helper()
	counters, err := field.ParseCounters(strings.NewReader(fixture.Counters), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Counters: counters.List, Selected: selection(t, "full"), XIDs: fixture.XIDs(t),
		HostnameLabel: "hostname", Hostname: "node1", MaxAge: 30 * time.Second,
	}
}

func selection(t testing.TB, list string) definition.Selection {
	t.Helper()
	s, err := definition.ParseSelection(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// derivedFields are those of all families.
func derivedFields(t testing.TB) []model.FieldID {
	t.Helper()
	return (&Config{Selected: selection(t, "full")}).DerivedFields()
}

// fixedOwners is an OwnerSource with a constant state.
type fixedOwners struct {
	ownership *Ownership
	status    SourceStatus
	sources   map[string]SourceStatus
	places    places
}

func (f fixedOwners) Ownership(*model.Inventory, time.Time) *Ownership { return f.ownership }

func (f fixedOwners) Places(p *model.Processes) (map[uint32]ProcessPlace, bool) {
	return f.places.of(p), true
}

func (f fixedOwners) MappingStatus() (SourceStatus, bool) { return f.status, true }

func (f fixedOwners) Sources() map[string]SourceStatus { return f.sources }

// fixedSupervisor is a supervisor with a constant state.
type fixedSupervisor model.SamplerStatus

func (f fixedSupervisor) Status() model.SamplerStatus { return model.SamplerStatus(f) }

// newTestNode returns a node with the fixture, received at epoch, and its clock.
func newTestNode(t *testing.T) (*state.Node, *time.Time) {
	t.Helper()
	clock := epoch
	node := state.NewNode(slog.New(slog.DiscardHandler), fixture.XIDs(t))
	node.Clock = func() time.Time { return clock }
	inv := testInventory(t)
	for _, f := range []wire.Frame{
		{Inventory: inv},
		{Sample: testSample(inv)},
		{Events: &model.Events{Generation: 1, List: []model.Event{
			{Kind: model.EventXID, Entity: 1, Time: epoch, Code: 79},
			{Kind: model.EventXID, Entity: 5, Time: epoch, Code: 31},
			{Kind: model.EventXID, Entity: 5, Time: epoch.Add(-time.Second), Code: 31},
		}}},
	} {
		if err := node.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
	return node, &clock
}

// newTestFamilies returns a builder of the fixture, received at epoch, its node and
// its clock.
func newTestFamilies(t *testing.T, cfg Config) (*Families, *state.Node, *time.Time) {
	t.Helper()
	node, clock := newTestNode(t)
	f := New(cfg, node, nil, nil)
	f.Keep()
	f.supervisor = fixedSupervisor{Running: true, Sampling: true,
		Restarts:       map[string]uint64{"crash": 1, "timeout": 0},
		FramesRejected: map[string]uint64{"future": 0}}
	return f, node, clock
}

func encode(t *testing.T, f *Families, typ expfmt.FormatType) []byte {
	t.Helper()
	body, err := (&Exposition{Families: f.Build()}).Append(nil, expfmt.NewFormat(typ))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// series returns the lines of one family, without comments.
func series(body []byte, name string) string {
	var b strings.Builder
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name+"{") || strings.HasPrefix(line, name+" ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// testOwners has a pod, batch jobs and a container that hold one GPU, two pods that
// share an instance, and a pod that holds an instance through a claim.
func testOwners() fixedOwners {
	train := &PodMetadata{
		UID: "0a1b", WorkloadKind: "Job", Workload: "train",
		Labels:      []Label{{"app.kubernetes.io/name", "llm"}, {"device", "mine"}, {"team", `the "A" team`}},
		Annotations: []Label{{"example.com/cost-center", "42"}},
	}
	return fixedOwners{
		status: SourceStatus{LastSuccess: epoch.Add(-2 * time.Second), Failures: map[string]uint64{"timeout": 2}},
		sources: map[string]SourceStatus{
			"api_server": {Failures: map[string]uint64{"forbidden": 3, "timeout": 0}},
			"slurm":      {Up: true, LastSuccess: epoch.Add(-time.Second)},
		},
		places: places{
			100: {Namespace: "ml", Pod: "train-0", Container: "main"},
			101: {Namespace: "ml", Pod: "infer-1"},
			102: {Trouble: ProcessOutside},
		},
		ownership: &Ownership{Known: true, Unmatched: 1, Mapped: true, Strays: map[string]int{"job_files": 1}, Entities: []Holders{
			0: {
				Owners:     []Owner{{Namespace: "ml", Pod: "train-0", Container: "main", Metadata: train}},
				Jobs:       []Job{{ID: "41", Source: JobFile}, {ID: "42", Name: "llm", User: "ada", Account: "lab", Partition: "gpu", Source: "slurm"}, {ID: "43", Source: JobFile}},
				Containers: []Container{{ID: "c0ffee", Name: "notebook", Image: "jupyter:1", Project: "lab", Service: "nb", Labels: []Label{{"org.example/owner", "ada"}}}},
			},
			3: {Owners: []Owner{
				{Namespace: "ml", Pod: "infer-0", Container: "main", Replica: "0", Metadata: &PodMetadata{UID: "2c3d"}},
				{Namespace: "ml", Pod: "infer-1", Container: "main", Replica: "1"},
			}},
			4: {Owners: []Owner{{Namespace: "ml", Pod: "claimed", Container: "main", Claim: Claim{
				Namespace: "ml", Name: "one-slice", Driver: "gpu.nvidia.com", Pool: "node1", Device: "gpu-1-mig-14-4-2", MIGProfile: "2g.10gb", MIGUUID: "MIG-2222",
			}}}},
			5: {},
		}},
	}
}

// testProcesses has processes of the owners of testOwners, and one of no pod.
func testProcesses() *model.Processes {
	return &model.Processes{Generation: 1, Time: epoch, Devices: []model.DeviceProcesses{
		{Entity: 0, Processes: []model.Process{
			{PID: 100, Kind: model.ProcessCompute, MemoryBytes: 8 << 30, MemoryKnown: true, SM: 0.75, Encoder: 0.25},
			{PID: 102, Kind: model.ProcessGraphics, MemoryBytes: 4 << 20, MemoryKnown: true, SM: 0.0625},
		}},
		{Entity: 5, Utilization: model.StatusNotSupported, Processes: []model.Process{{PID: 101, Kind: model.ProcessMPS, MemoryBytes: 1 << 30, MemoryKnown: true}}},
	}}
}

// fabricInventory has one entity of each kind, and a link that is down.
func fabricInventory() *model.Inventory {
	inv := &model.Inventory{Generation: 1, Time: epoch, DriverVersion: "570.133.20", Entities: []model.Entity{
		{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-aaaa", PCIBusID: "00000000:18:00.0", Model: "NVIDIA H100 80GB HBM3", Index: 0, Minor: 0},
		{Kind: model.KindSwitch, ID: 2, Parent: model.Unknown, UUID: "SWX-1", PCIBusID: "00000000:05:00.0"},
		{Kind: model.KindGPUInstance, ID: 7, Parent: 0, InstanceID: 11, Profile: "1g.10gb"},
		{Kind: model.KindComputeInstance, ID: 9, Parent: 2, InstanceID: 1},
		{Kind: model.KindLink, ID: 0x001, Parent: 0, Port: 0},
		{Kind: model.KindLink, ID: 0x101, Parent: 0, Port: 1, LinkDown: true},
		{Kind: model.KindLink, ID: 0x02002803, Parent: 1, Port: 40},
		{Kind: model.KindCPU, ID: 1, Parent: model.Unknown},
		{Kind: model.KindCPUCore, ID: 73, Parent: 7},
		{Kind: model.KindConnectX, ID: 4, Parent: model.Unknown},
	}}
	for i := range inv.Entities {
		inv.Entities[i].Selected = true
		if inv.Entities[i].Kind != model.KindGPU {
			inv.Columns[inv.Entities[i].Kind] = []model.FieldID{150}
		}
	}
	inv.Columns[model.KindGPU] = []model.FieldID{150, 1}
	inv.Columns[model.KindSwitch] = []model.FieldID{150, 858}
	return inv
}

// fabricNode returns the inventory with a value of every column.
func fabricNode() (*model.Inventory, *model.Sample) {
	inv := fabricInventory()
	sample := &model.Sample{Generation: 1, Time: epoch, LinksRead: epoch, Strings: []string{"570.133.20"}}
	for i := range inv.Entities {
		sample.Rows = append(sample.Rows, []model.Cell{model.Int64Cell(int64(30 + i))})
	}
	sample.Rows[0] = append(sample.Rows[0], model.StringCell(0))
	sample.Rows[1] = append(sample.Rows[1], model.Int64Cell(40))
	return inv, sample
}

func deliver(t *testing.T, n *state.Node, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		if err := n.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
}
