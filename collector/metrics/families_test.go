// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prommodel "github.com/prometheus/common/model"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/goldentest"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	goldentest.File(t, filepath.Join("testdata", name), string(got), "golden")
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
		t.Errorf("changed: %s", goldentest.FirstDifference(string(after), string(before)))
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
