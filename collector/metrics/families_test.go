// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prommodel "github.com/prometheus/common/model"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update if that is correct):\n%s", path, firstDifference(string(got), string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			if i >= len(w) {
				w = append(w, make([]string, i-len(w)+1)...)
			}
			return "got:  " + g[i] + "\nwant: " + w[i]
		}
	}
	return "missing: " + w[len(g)]
}

// epoch is the time of every fixture.
var epoch = time.Unix(1_700_000_000, 250_000_000)

const testCounters = `
DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).
DCGM_FI_DEV_POWER_USAGE, gauge, Power draw (in W).
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, counter, "Energy \ ""since"" boot (in mJ)."
DCGM_FI_DEV_XID_ERRORS, gauge, Last XID.
DCGM_FI_DEV_FB_USED, gauge, Framebuffer used (in MiB).
DCGM_FI_PROF_GR_ENGINE_ACTIVE, gauge, Ratio of time the graphics engine is active.
DCGM_FI_DRIVER_VERSION, label, Driver version.
`

const testXIDs = `code,name,severity,action,investigation,meaning
13,GR_EXCEPTION,application,RESTART_APP,,Graphics engine exception
31,MMU_FAULT,warning,RESTART_APP,,GPU memory page fault
43,RESETCHANNEL,application,,,The channel was reset
79,OFF_THE_BUS,critical,RESTART_BM,,GPU has fallen off the bus
`

func testCatalogue(t *testing.T) *xid.Catalogue {
	t.Helper()
	xids, err := xid.ParseCatalogue(strings.NewReader(testXIDs), "xids.csv")
	if err != nil {
		t.Fatal(err)
	}
	return xids
}

func testConfig(t *testing.T) Config {
	t.Helper()
	counters, err := field.ParseCounters(strings.NewReader(testCounters), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Counters: counters.List, Selected: selection(t, "full"), XIDs: testCatalogue(t),
		HostnameLabel: "hostname", Hostname: "node1", MaxAge: 30 * time.Second,
	}
}

func selection(t testing.TB, list string) Selection {
	t.Helper()
	s, err := ParseSelection(list)
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

// testInventory has an H100, an A100 in MIG mode with two GPU instances, and a
// GPU that is lost.
func testInventory(t *testing.T) *model.Inventory {
	t.Helper()
	counters, err := field.ParseCounters(strings.NewReader(testCounters), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	var columns []model.FieldID
	for _, c := range counters.List {
		columns = append(columns, c.Field.ID)
	}
	gpu := func(id uint32, uuid, bus, name string) model.Entity {
		return model.Entity{Kind: model.KindGPU, Selected: true, ID: id, Parent: model.Unknown, UUID: uuid, PCIBusID: bus, Model: name,
			Brand: "NVIDIA", Index: int(id), Minor: int(id) + 1, InstanceID: model.Unknown, Port: model.Unknown}
	}
	inv := &model.Inventory{
		Generation: 1, Time: epoch, DriverVersion: "570.133.20",
		Entities: []model.Entity{
			gpu(0, "GPU-aaaa", "00000000:18:00.0", "NVIDIA H100 80GB HBM3"),
			gpu(1, "GPU-bbbb", "00000000:2A:00.0", "NVIDIA A100-SXM4-40GB"),
			gpu(3, "GPU-cccc", "00000000:3A:00.0", `Odd "\ name`),
			{Kind: model.KindGPUInstance, Selected: true, ID: 7, Parent: 1, InstanceID: 11, Profile: "1g.5gb", Index: model.Unknown, Minor: model.Unknown},
			{Kind: model.KindGPUInstance, Selected: true, ID: 8, Parent: 1, InstanceID: 12, Profile: "2g.10gb", Index: model.Unknown, Minor: model.Unknown},
			{Kind: model.KindComputeInstance, ID: 7, Parent: 3, UUID: "MIG-1111", InstanceID: 0, Index: model.Unknown, Minor: model.Unknown},
		},
	}
	inv.Entities[1].MIGMode = true
	inv.Entities[2].State = model.EntityLost
	inv.Columns[model.KindGPU] = columns
	inv.Columns[model.KindGPUInstance] = columns
	return inv
}

func testSample(inv *model.Inventory) *model.Sample {
	none := model.NoValue(model.StatusNotSupported)
	lost := model.NoValue(model.StatusEntityLost)
	return &model.Sample{
		Generation: inv.Generation, Time: epoch, LinksRead: epoch, SwitchesListed: true, Duration: 1500 * time.Microsecond,
		Strings: []string{"570.133.20"},
		Rows: [][]model.Cell{
			{model.Int64Cell(35), model.DoubleCell(210), model.Int64Cell(1_000_000_000), model.NoValue(model.StatusNoData), model.Int64Cell(8155), model.DoubleCell(0.2), model.StringCell(0)},
			{model.Int64Cell(41), model.DoubleCell(95.5), model.Int64Cell(9_007_199_254_740_993), model.Int64Cell(79), model.Int64Cell(0), model.DoubleCell(1.0 / 3), model.StringCell(0)},
			{lost, lost, lost, lost, lost, lost, lost},
			{model.Int64Cell(41), model.DoubleCell(95.5), none, model.NoValue(model.StatusNoData), model.Int64Cell(100), model.DoubleCell(0.0000001), model.StringCell(0)},
			{model.Int64Cell(41), model.DoubleCell(math.NaN()), none, model.NoValue(model.StatusNoData), model.Int64Cell(200), none, model.NoValue(model.StatusBlank)},
			nil,
		},
	}
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
	node := state.NewNode(slog.New(slog.DiscardHandler), testCatalogue(t))
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
				Jobs:       []Job{{ID: "41", Source: JobFile}, {ID: "42", Name: "llm", User: "ada", Account: "lab", Partition: "gpu", Source: JobSlurm}, {ID: "43", Source: JobFile}},
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

func TestExpositionGolden(t *testing.T) {
	owners := testOwners()
	for name, tc := range map[string]struct {
		format expfmt.FormatType
		change func(*Config)
	}{
		"families.prom":           {expfmt.TypeTextPlain, func(*Config) {}},
		"families.openmetrics":    {expfmt.TypeOpenMetrics, func(*Config) {}},
		"families-old-names.prom": {expfmt.TypeTextPlain, func(c *Config) { c.OldNames, c.ReplaceBlanks, c.HostnameLabel = true, true, "Hostname" }},
		"families-owners.prom": {expfmt.TypeTextPlain, func(c *Config) {
			c.Owners = OwnerForm{UID: true, Workload: true, SeriesLabels: true, LabelsFamily: true, Claims: true, Usage: true}
		}},
		"families-virtual-gpus.prom": {expfmt.TypeTextPlain, func(c *Config) {
			c.Owners = OwnerForm{VirtualGPUs: true, HPCJobs: true, Usage: true}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			tc.change(&cfg)
			f, node, _ := newTestFamilies(t, cfg)
			deliver(t, node, wire.Frame{Processes: testProcesses()})
			f.owners = owners
			golden(t, name, encode(t, f, tc.format))
		})
	}
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

// Every kind of entity has its labels. A link has the owners of its GPU.
func TestEntitiesGolden(t *testing.T) {
	cfg := testConfig(t)
	driver, _ := field.ByID(1)
	temperature, _ := field.ByID(150)
	cfg.Counters = []field.Counter{
		{Field: temperature, Name: "DCGM_FI_DEV_GPU_TEMP", Type: field.MetricGauge, Help: "Temperature.", Kinds: model.Kinds(model.KindGPU,
			model.KindSwitch, model.KindGPUInstance, model.KindComputeInstance, model.KindLink, model.KindCPU, model.KindCPUCore, model.KindConnectX)},
		{Field: driver, Name: "DCGM_FI_DRIVER_VERSION", Type: field.MetricLabel},
	}
	for name, fromOne := range map[string]bool{"families-entities.prom": false, "families-links-from-one.prom": true} {
		cfg.LinksFromOne = fromOne
		f, node, _ := newTestFamilies(t, cfg)
		inv, sample := fabricNode()
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: sample})
		f.owners = fixedOwners{ownership: &Ownership{Known: true, Mapped: true, Entities: []Holders{{Owners: []Owner{{Namespace: "ns", Pod: "pod", Container: "c"}}}}}}
		golden(t, name, encode(t, f, expfmt.TypeTextPlain))
	}
}

// A counter has series of its own kinds only, even if another counter reads the same
// field on more kinds.
func TestKindsOfACounter(t *testing.T) {
	cfg := testConfig(t)
	temperature, _ := field.ByID(150)
	cfg.Counters = append(cfg.Counters,
		field.Counter{Field: temperature, Name: "of_gpus", Type: field.MetricGauge, Kinds: model.Kinds(model.KindGPU)},
		field.Counter{Field: temperature, Name: "of_instances", Type: field.MetricGauge, Kinds: model.Kinds(model.KindGPUInstance)})
	f, _, _ := newTestFamilies(t, cfg)
	body := encode(t, f, expfmt.TypeTextPlain)
	for family, want := range map[string][2]int{"DCGM_FI_DEV_GPU_TEMP": {2, 2}, "of_gpus": {2, 0}, "of_instances": {0, 2}} {
		lines := strings.Split(strings.TrimSpace(series(body, family)), "\n")
		var got [2]int
		for _, line := range lines {
			if strings.Contains(line, "GPU_I_ID") {
				got[1]++
			} else if line != "" {
				got[0]++
			}
		}
		if got != want {
			t.Errorf("%s: %d of GPUs and %d of instances, want %v", family, got[0], got[1], want)
		}
	}
}

// The text and protobuf formats have equal content for Prometheus' own parsers.
func TestExpositionParses(t *testing.T) {
	f, _, _ := newTestFamilies(t, testConfig(t))
	parse := func(r io.Reader, format expfmt.Format) map[string]*dto.MetricFamily {
		families := map[string]*dto.MetricFamily{}
		dec := expfmt.NewDecoder(r, format)
		for {
			var mf dto.MetricFamily
			if err := dec.Decode(&mf); errors.Is(err, io.EOF) {
				return families
			} else if err != nil {
				t.Fatal(err)
			}
			if families[mf.GetName()] != nil {
				t.Errorf("family %s is repeated", mf.GetName())
			}
			families[mf.GetName()] = &mf
		}
	}
	text := parse(bytes.NewReader(encode(t, f, expfmt.TypeTextPlain)), expfmt.NewFormat(expfmt.TypeTextPlain))
	proto := parse(bytes.NewReader(encode(t, f, expfmt.TypeProtoDelim)), expfmt.NewFormat(expfmt.TypeProtoDelim))
	if len(text) != len(proto) || len(text) < 10 {
		t.Fatalf("%d families in text, %d in protobuf", len(text), len(proto))
	}
	for name, a := range text {
		b := proto[name]
		if b == nil || a.GetType() != b.GetType() || a.GetHelp() != b.GetHelp() || len(a.Metric) != len(b.Metric) {
			t.Errorf("%s differs:\ntext:  %v\nproto: %v", name, a, b)
			continue
		}
		for i := range a.Metric {
			if got, want := b.Metric[i].String(), a.Metric[i].String(); got != want && !strings.HasPrefix(name, "DCGM_") {
				t.Errorf("%s: %s in protobuf, %s in text", name, got, want)
			}
			for j, l := range a.Metric[i].Label {
				if !prommodel.LegacyValidation.IsValidLabelName(l.GetName()) || l.GetValue() != b.Metric[i].Label[j].GetValue() {
					t.Errorf("%s: label %v in text, %v in protobuf", name, l, b.Metric[i].Label[j])
				}
			}
		}
	}
}

// The gpu_* and gpu_exporter_* families pass the linter of promtool check metrics.
// DCGM's names are those of dcgm-exporter and cannot.
func TestOwnFamiliesLint(t *testing.T) {
	f, _, _ := newTestFamilies(t, testConfig(t))
	f.owners = fixedOwners{ownership: &Ownership{Known: true, Mapped: true}, status: SourceStatus{LastSuccess: epoch}}
	problems, err := promlint.New(bytes.NewReader(encode(t, f, expfmt.TypeTextPlain))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// modelName is dcgm-exporter's label, and families join on it.
		known := p.Text == "label names should be written in 'snake_case' not 'camelCase'"
		if !known && !strings.HasPrefix(p.Metric, "DCGM_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestFamiliesWithheldWhenStale(t *testing.T) {
	f, _, clock := newTestFamilies(t, testConfig(t))
	*clock = epoch.Add(31 * time.Second)
	body := encode(t, f, expfmt.TypeTextPlain)
	if strings.Contains(string(body), "\nDCGM_") {
		t.Errorf("a stale sample is published:\n%s", body)
	}
	if got := series(body, "gpu_up"); strings.Count(got, "} 0\n") != 3 {
		t.Errorf("gpu_up without a fresh sample:\n%s", got)
	}
	for _, name := range []string{"gpu_xid_errors_total", "gpu_info", "gpu_exporter_last_sample_timestamp_seconds", "gpu_exporter_sampler_restarts_total"} {
		if series(body, name) == "" {
			t.Errorf("%s disappeared with the sample", name)
		}
	}
	if got := series(body, "gpu_exporter_sampler_up"); got != "gpu_exporter_sampler_up 0\n" {
		t.Errorf("got %q", got)
	}
}

func TestLostGPUKeepsItsIdentity(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	up := func() string { return series(encode(t, f, expfmt.TypeTextPlain), "gpu_up") }
	const bbbb = `gpu_up{gpu="1",UUID="GPU-bbbb",pci_bus_id="00000000:2A:00.0",device="nvidia1",modelName="NVIDIA A100-SXM4-40GB",hostname="node1"} `
	if !strings.Contains(up(), bbbb+"1\n") {
		t.Fatalf("not up at first:\n%s", up())
	}
	// A new sampler finds GPU 1 lost without its identity, and does not find GPU 0.
	inv := &model.Inventory{Generation: 1, Time: epoch, Entities: []model.Entity{
		{Kind: model.KindGPU, State: model.EntityLost, Selected: true, ID: 1, Parent: model.Unknown, Index: model.Unknown, Minor: model.Unknown},
	}}
	deliver(t, node,
		wire.Frame{Inventory: inv},
		wire.Frame{Sample: &model.Sample{Generation: 1, Time: epoch, Rows: make([][]model.Cell, 1)}})
	got := up()
	if !strings.Contains(got, bbbb+"0\n") || !strings.Contains(got, `UUID="GPU-aaaa"`) || strings.Contains(got, `UUID=""`) {
		t.Errorf("after the loss:\n%s", got)
	}
	if n := strings.Count(got, "} 0\n"); n != 3 {
		t.Errorf("%d GPUs down, want 3:\n%s", n, got)
	}
	// A GPU that is not selected any more has no series.
	inv = &model.Inventory{Generation: 2, Time: epoch, Entities: []model.Entity{{Kind: model.KindGPU, State: model.EntityLost, ID: 1, Parent: model.Unknown, Index: model.Unknown, Minor: model.Unknown}}}
	deliver(t, node,
		wire.Frame{Inventory: inv},
		wire.Frame{Sample: &model.Sample{Generation: 2, Time: epoch, Rows: make([][]model.Cell, 1)}})
	if got := up(); strings.Contains(got, "GPU-bbbb") {
		t.Errorf("an unselected GPU has series:\n%s", got)
	}
	// Both come back.
	deliver(t, node,
		wire.Frame{Inventory: testInventory(t)},
		wire.Frame{Sample: testSample(testInventory(t))})
	if got := up(); !strings.Contains(got, bbbb+"1\n") || strings.Count(got, "\n") != 3 {
		t.Errorf("after the return:\n%s", got)
	}
}

// A GPU that the engine no longer lists keeps its gpu_up and its XIDs.
func TestGoneGPUKeepsItsCounters(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	inv := testInventory(t)
	inv.Generation = 2
	inv.Entities = inv.Entities[:1]
	s := testSample(inv)
	s.Rows = s.Rows[:1]
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	body := encode(t, f, expfmt.TypeTextPlain)
	for _, want := range []string{
		`gpu_up{gpu="1",UUID="GPU-bbbb",pci_bus_id="00000000:2A:00.0",device="nvidia1",modelName="NVIDIA A100-SXM4-40GB",hostname="node1"} 0`,
		`gpu_xid_errors_total{gpu="1",UUID="GPU-bbbb",pci_bus_id="00000000:2A:00.0",device="nvidia1",modelName="NVIDIA A100-SXM4-40GB",hostname="node1",severity="critical"} 1`,
		`gpu_xid_errors_total{gpu="1",UUID="GPU-bbbb",pci_bus_id="00000000:2A:00.0",device="nvidia1",modelName="NVIDIA A100-SXM4-40GB",hostname="node1",severity="warning"} 0`,
		`gpu_xid_code_errors_total{gpu="1",UUID="GPU-bbbb",pci_bus_id="00000000:2A:00.0",device="nvidia1",modelName="NVIDIA A100-SXM4-40GB",hostname="node1",xid="79",name="OFF_THE_BUS",severity="critical",action="RESTART_BM"} 1`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("missing: %s", want)
		}
	}
}

// With --devices=f a GPU in MIG mode is not read itself. It is up if an instance answers.
func TestMIGGPUAnswersThroughItsInstances(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	up := func(change func(rows [][]model.Cell)) string {
		inv := testInventory(t)
		s := testSample(inv)
		s.Rows[1] = nil
		change(s.Rows)
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
		body := series(encode(t, f, expfmt.TypeTextPlain), "gpu_up")
		return body[strings.Index(body, "GPU-bbbb"):]
	}
	if got := up(func([][]model.Cell) {}); !strings.Contains(strings.SplitN(got, "\n", 2)[0], "} 1") {
		t.Errorf("with values of its instances: %s", got)
	}
	if got := up(func(rows [][]model.Cell) {
		for _, row := range rows[3:5] {
			for i := range row {
				row[i] = model.NoValue(model.StatusBlank)
			}
		}
	}); !strings.Contains(strings.SplitN(got, "\n", 2)[0], "} 0") {
		t.Errorf("with none: %s", got)
	}
}

// Between a new inventory and its first sample, the old pair is published.
func TestInventoryAloneChangesNothing(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	before := encode(t, f, expfmt.TypeTextPlain)
	inv := testInventory(t)
	inv.Generation = 2
	inv.Entities = inv.Entities[:1]
	deliver(t, node, wire.Frame{Inventory: inv})
	after := encode(t, f, expfmt.TypeTextPlain)
	if string(before) != string(after) {
		t.Errorf("changed: %s", firstDifference(string(after), string(before)))
	}
}

func TestXIDCountersSurviveASamplerAndAReusedEntityID(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	count := func() string { return series(encode(t, f, expfmt.TypeTextPlain), "gpu_xid_code_errors_total") }
	const instance = `GPU_I_PROFILE="1g.5gb",GPU_I_ID="11",hostname="node1",xid="31",name="MMU_FAULT",severity="warning",action="RESTART_APP"} 2`
	if !strings.Contains(count(), instance) {
		t.Fatalf("the XIDs of a compute instance are missing:\n%s", count())
	}
	// After a repartition, entity 7 is a different instance.
	inv := testInventory(t)
	inv.Generation = 2
	inv.Entities[3].InstanceID, inv.Entities[3].Profile = 9, "3g.20gb"
	s := testSample(inv)
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	// The XIDs still belong to the former instance.
	if got := count(); strings.Contains(got, `GPU_I_ID="9"`) || strings.Count(got, instance) != 1 || !strings.Contains(got, `UUID="GPU-bbbb",pci_bus_id="00000000:2A:00.0",device="nvidia1",modelName="NVIDIA A100-SXM4-40GB",hostname="node1",xid="79",name="OFF_THE_BUS",severity="critical",action="RESTART_BM"} 1`) {
		t.Errorf("after the repartition:\n%s", got)
	}
	const total = `GPU_I_PROFILE="1g.5gb",GPU_I_ID="11",hostname="node1",severity="warning"} 2`
	if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_xid_errors_total"); strings.Count(got, total) != 1 || strings.Contains(got, `GPU_I_ID="9"`) {
		t.Errorf("totals after the repartition:\n%s", got)
	}
	// The old partition returns.
	deliver(t, node, wire.Frame{Inventory: testInventory(t)}, wire.Frame{Sample: testSample(testInventory(t))})
	if strings.Count(count(), instance) != 1 {
		t.Errorf("after the old partition returned:\n%s", count())
	}
}

func TestUnselectedGPUHasNoSeries(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	inv := testInventory(t)
	inv.Entities[0].Selected = false
	s := testSample(inv)
	s.Rows[0] = nil
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	if body := encode(t, f, expfmt.TypeTextPlain); strings.Contains(string(body), "GPU-aaaa") {
		t.Errorf("an unselected GPU has series:\n%s", body)
	}
}

func TestOwnersShareADevice(t *testing.T) {
	f, _, _ := newTestFamilies(t, testConfig(t))
	owner := func(pod, replica string) Owner {
		return Owner{Namespace: "ns", Pod: pod, Container: "c", Replica: replica}
	}
	for name, tc := range map[string]struct {
		owners []Owner
		labels bool
		rows   int
	}{
		"none":                        {nil, false, 0},
		"one":                         {[]Owner{owner("a", "")}, true, 1},
		"two replicas, one container": {[]Owner{owner("a", "0"), owner("a", "1")}, true, 2},
		"two pods":                    {[]Owner{owner("a", "0"), owner("b", "1")}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f.owners = fixedOwners{ownership: &Ownership{Entities: []Holders{{Owners: tc.owners}}}}
			body := encode(t, f, expfmt.TypeTextPlain)
			if got := strings.Contains(series(body, "DCGM_FI_DEV_GPU_TEMP"), `pod="a"`); got != tc.labels {
				t.Errorf("pod label on the device's series: %v, want %v", got, tc.labels)
			}
			if got := strings.Count(series(body, "gpu_pod_info"), "\n"); got != tc.rows {
				t.Errorf("%d rows of gpu_pod_info, want %d", got, tc.rows)
			}
			if got := strings.Count(series(body, "DCGM_FI_DEV_GPU_TEMP"), `UUID="GPU-aaaa"`); got != 1 {
				t.Errorf("%d series of one device", got)
			}
		})
	}
}

func deliver(t *testing.T, n *state.Node, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		if err := n.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
}
