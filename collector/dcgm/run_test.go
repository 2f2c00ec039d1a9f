// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// TestWholeGPUs shows the inventory and the values of a node of whole GPUs.
func TestWholeGPUs(t *testing.T) {
	start := time.Now()
	p := newNode(t, "h100x8").start(defaultConfig())
	first := p.frame("the first frame")
	if first.Inventory == nil {
		t.Fatalf("the first frame is %+v, want the inventory", first)
	}
	inv := first.Inventory
	if inv.Generation != 1 || inv.DCGMVersion != "4.6.0" || inv.DriverVersion == "" {
		t.Errorf("generation %d, DCGM %q, driver %q", inv.Generation, inv.DCGMVersion, inv.DriverVersion)
	}
	buses := []string{"18", "2A", "3A", "5D", "9A", "AB", "BA", "DB"}
	gpus := inDevices(inv)
	if len(gpus) != len(buses) {
		t.Fatalf("%d GPUs and instances, want %d", len(gpus), len(buses))
	}
	uuids := make(map[string]bool)
	for i, e := range gpus {
		uuids[e.UUID] = true
		want := model.Entity{
			Kind: model.KindGPU, State: model.EntityUp, Selected: true, ID: uint32(i), Parent: model.Unknown,
			PCIBusID: "00000000:" + buses[i] + ":00.0", Model: "NVIDIA H100 80GB HBM3", Brand: "NVIDIA",
			Index: i, Minor: i, InstanceID: model.Unknown, PlacementStart: model.Unknown, Port: model.Unknown,
			UUID: e.UUID, Serial: e.Serial, VBIOS: e.VBIOS,
		}
		if e != want || !strings.HasPrefix(e.UUID, "GPU-") || e.Serial == "" || e.VBIOS == "" {
			t.Errorf("GPU %d is\n%+v, want\n%+v", i, e, want)
		}
	}
	if len(uuids) != len(buses) {
		t.Errorf("%d different UUIDs", len(uuids))
	}

	// The first sample already has values, except profiling.
	if f := p.frame("the profiling states"); f.Profiling == nil {
		t.Fatalf("the second frame is %+v, want the profiling states", f)
	}
	f := p.frame("the first sample")
	if f.Sample == nil {
		t.Fatalf("the third frame is %+v, want a sample", f)
	}
	t.Logf("start to first sample: %v", time.Since(start))
	for i := range gpus {
		id := uint32(i)
		if c := p.cell(f.Sample, gpu, id, 155); c.Status != model.StatusOK || c.Float64() < 10 || c.Float64() > 1000 {
			t.Errorf("GPU %d: power %v W, %v", i, c.Float64(), c.Status)
		}
		if c := p.cell(f.Sample, gpu, id, 150); c.Status != model.StatusOK || c.Int64() < 10 || c.Int64() > 100 {
			t.Errorf("GPU %d: temperature %v, %v", i, c.Int64(), c.Status)
		}
		if c := p.cell(f.Sample, gpu, id, 1); c.Status != model.StatusOK || f.Sample.String(c) != inv.DriverVersion {
			t.Errorf("GPU %d: driver %q, %v", i, f.Sample.String(c), c.Status)
		}
		if c := p.cell(f.Sample, gpu, id, 230); c.Status != model.StatusNoData {
			t.Errorf("GPU %d: XID %v, want no data", i, c.Status)
		}
	}
	s := p.has(gpu, 7, 1001, model.StatusOK)
	if c := p.cell(s, gpu, 7, 1001); c.Type != model.ValueDouble || c.Float64() < 0 || c.Float64() > 1 {
		t.Errorf("graphics engine activity %v", c.Float64())
	}

	// Values are updated.
	before := p.frame("a sample").Sample
	after := p.sample("energy to grow", func(s *model.Sample) error {
		if p.cell(s, gpu, 0, 156).Int64() <= p.cell(before, gpu, 0, 156).Int64() {
			return errors.New("it does not")
		}
		return nil
	})
	if !after.Time.After(before.Time) {
		t.Errorf("times %v and %v", before.Time, after.Time)
	}
}

// TestMIG shows instances, their identity, and which entities are read.
func TestMIG(t *testing.T) {
	// NVML names one of the compute instances; DCGM names the others.
	n := newNode(t, "h100x8-mig")
	probe := n.start(defaultConfig())
	inv := probe.inventory("the inventory")
	var first model.Entity
	for _, e := range inv.Entities {
		if e.Kind == compute {
			first = e
			break
		}
	}
	instance := inv.Entities[first.Parent]
	device := model.MIGDevice{
		UUID: "MIG-from-nvml", ParentUUID: inv.Entities[instance.Parent].UUID,
		GPUInstanceID: instance.InstanceID, ComputeInstanceID: first.InstanceID,
	}
	list, err := json.Marshal([]model.MIGDevice{device})
	if err != nil {
		t.Fatal(err)
	}
	probe.stdin.Close()

	cfg := defaultConfig()
	cfg.Fields[compute] = []model.FieldID{252, 1001}
	p := n.start(cfg, migVariable+"="+string(list))
	inv = p.inventory("the inventory")
	counts := make(map[model.EntityKind]int)
	profiles := make(map[string]int)
	ids := make(map[int][]int) // NVML's IDs of the instances of a GPU
	for i, e := range inv.Entities {
		if e.Kind.OfGPU() {
			counts[e.Kind]++
		}
		switch e.Kind {
		case inst:
			profiles[e.Profile]++
			ids[e.Parent] = append(ids[e.Parent], e.InstanceID)
			if e.UUID != "" || inv.Entities[e.Parent].Kind != gpu || !inv.Entities[e.Parent].MIGMode {
				t.Errorf("instance %+v of %+v", e, inv.Entities[e.Parent])
			}
		case compute:
			if !strings.HasPrefix(e.UUID, "MIG-") || inv.Entities[e.Parent].Kind != inst {
				t.Errorf("compute instance %+v", e)
			}
			if (e.UUID == device.UUID) != (e.ID == first.ID) {
				t.Errorf("compute instance %d has UUID %s", e.ID, e.UUID)
			}
			if g, ok := inv.GPU(i); !ok || g.ID != e.ID/7 {
				t.Errorf("compute instance %d is of GPU %v", e.ID, g)
			}
		}
	}
	if want := map[model.EntityKind]int{gpu: 8, inst: 7 + 3 + 2 + 1 + 4, compute: 7 + 3 + 3 + 1 + 4}; fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", counts, want)
	}
	if want := map[string]int{"1g.10gb": 8, "2g.20gb": 5, "3g.40gb": 2, "4g.40gb": 1, "7g.80gb": 1}; fmt.Sprint(profiles) != fmt.Sprint(want) {
		t.Errorf("profiles %v, want %v", profiles, want)
	}
	if got := slices.Sorted(slices.Values(ids[0])); !slices.Equal(got, []int{7, 8, 9, 10, 11, 12, 13}) {
		t.Errorf("NVML's IDs of GPU 0's instances are %v", got)
	}

	s := p.has(inst, 0, 1001, model.StatusOK)
	for _, id := range []uint32{0, 1, 2, 4, 5} {
		if row := s.Rows[p.entity(gpu, id)]; len(row) != 0 {
			t.Errorf("MIG GPU %d has a row", id)
		}
	}
	if e := inv.Entities[p.entity(gpu, 3)]; !e.MIGMode || len(s.Rows[3]) == 0 {
		t.Errorf("GPU 3 has MIG on and no instances: MIG mode %v, row of %d", e.MIGMode, len(s.Rows[3]))
	}
	whole := p.cell(s, inst, 28, 252) // 7g.80gb of GPU 4
	part := p.cell(s, inst, 0, 252)   // 1g.10gb of GPU 0
	if whole.Status != model.StatusOK || part.Status != model.StatusOK {
		t.Errorf("used framebuffer of instances: %v and %v", whole.Status, part.Status)
	}
	if c := p.cell(s, inst, 0, 203); c.Status == model.StatusOK {
		t.Errorf("an instance has a GPU utilisation of %v", c.Int64())
	}
	p.has(compute, 0, 1001, model.StatusOK)
}

// TestSelectedDevices shows that only selected devices have rows.
func TestSelectedDevices(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	for devices, want := range map[string]string{
		"f":            "gpu:3 gpu:6 gpu:7 gpu_instance:0-6 gpu_instance:7-9 gpu_instance:14-15 gpu_instance:28 gpu_instance:35-38",
		"g:0,6":        "gpu:0 gpu:6",
		"i:14-15":      "gpu_instance:14-15",
		"g:7+i:28,200": "gpu:7 gpu_instance:28",
	} {
		cfg := defaultConfig()
		cfg.Devices = devices
		p := n.start(cfg)
		s := p.sample("a sample", func(*model.Sample) error { return nil })
		var got []string
		first, last := uint32(0), uint32(0)
		flush := func(kind string) {
			if first == last {
				got = append(got, fmt.Sprintf("%s:%d", kind, first))
			} else {
				got = append(got, fmt.Sprintf("%s:%d-%d", kind, first, last))
			}
		}
		open := ""
		for i, e := range p.inv.Entities {
			if len(s.Rows[i]) == 0 {
				continue
			}
			if open == e.Kind.String() && e.Kind == inst && e.ID == last+1 && e.ID/7 == last/7 {
				last = e.ID
				continue
			}
			if open != "" {
				flush(open)
			}
			open, first, last = e.Kind.String(), e.ID, e.ID
		}
		flush(open)
		if strings.Join(got, " ") != want {
			t.Errorf("--devices.gpus=%s reads %s, want %s", devices, strings.Join(got, " "), want)
		}
		p.stdin.Close()
		<-p.exited
	}
}

// TestMixedModels shows that each GPU has the fields that its model supports.
func TestMixedModels(t *testing.T) {
	p := newNode(t, "mixed4").start(defaultConfig())
	inv := p.inventory("the inventory")
	var got []string
	for _, e := range inDevices(inv) {
		got = append(got, fmt.Sprintf("%d index %d minor %d %s", e.ID, e.Index, e.Minor, e.Model))
	}
	want := []string{
		"0 index 3 minor 2 NVIDIA H100 80GB HBM3", "1 index 0 minor 0 NVIDIA A100-SXM4-40GB",
		"3 index 1 minor 3 NVIDIA L4", "5 index 2 minor 1 Tesla T4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("GPUs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	s := p.has(gpu, 0, 1001, model.StatusOK)
	for _, id := range []uint32{1, 3, 5} {
		for _, field := range []model.FieldID{1001, 1010} {
			if c := p.cell(s, gpu, id, field); c.Status != model.StatusModuleMissing {
				t.Errorf("GPU %d: field %d is %v, want %v", id, field, c.Status, model.StatusModuleMissing)
			}
		}
		if c := p.cell(s, gpu, id, 150); c.Status != model.StatusOK {
			t.Errorf("GPU %d: temperature is %v", id, c.Status)
		}
	}
	// A T4 has no HBM, so its memory temperature is not supported.
	cfg := defaultConfig()
	cfg.Fields[gpu] = []model.FieldID{140, 150}
	p = newNode(t, "t4x1").start(cfg)
	p.has(gpu, 0, 140, model.StatusNotSupported)
}

// TestBlankEngine shows that a blank is not a number and does not affect other fields.
func TestBlankEngine(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 3, 155, model.StatusOK)
	n.command("blank field 155 gpu 3")
	n.command("blank field 150 gpu 3")
	s := p.sample("two blanks", func(s *model.Sample) error {
		if a, b := p.cell(s, gpu, 3, 155).Status, p.cell(s, gpu, 3, 150).Status; a != model.StatusBlank || b != model.StatusBlank {
			return fmt.Errorf("power is %v, temperature %v", a, b)
		}
		return nil
	})
	if c := p.cell(s, gpu, 3, 156); c.Status != model.StatusOK {
		t.Errorf("energy is %v", c.Status)
	}
	if c := p.cell(s, gpu, 4, 155); c.Status != model.StatusOK {
		t.Errorf("another GPU's power is %v", c.Status)
	}
	n.command("unblank field 155 gpu 3")
	p.has(gpu, 3, 155, model.StatusOK)
}

// TestXIDs shows that each XID is one event of the entity that DCGM recorded it for.
func TestXIDs(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	cfg := defaultConfig()
	cfg.Interval = 300 * time.Millisecond // so that several come in one interval
	p := n.start(cfg)
	p.inventory("the inventory")
	p.frame("a sample")
	before := time.Now().Add(-time.Second)
	n.command("xid 13 gpu 6")
	n.command("xid 31 gpu 6")
	n.command("xid 31 gpu 6")
	n.command("xid 43 gpu 0 ci 2")
	n.command("xid 45 gpu 1 gi 1")
	events, inv := p.events("five XIDs", 5)
	var got []string
	for _, e := range events {
		on := inv.Entities[e.Entity]
		got = append(got, fmt.Sprintf("%d on %v %d", e.Code, on.Kind, on.ID))
		if e.Kind != model.EventXID || e.Time.Before(before) || e.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("event %+v", e)
		}
	}
	slices.Sort(got)
	want := []string{"13 on gpu 6", "31 on gpu 6", "31 on gpu 6", "43 on compute_instance 2", "45 on gpu_instance 8"}
	if !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	// The newest one remains a value.
	s := p.has(gpu, 6, 230, model.StatusOK)
	if c := p.cell(s, gpu, 6, 230); c.Int64() != 31 {
		t.Errorf("the XID of GPU 6 is %d, want 31", c.Int64())
	}

	// A topology change neither repeats nor loses XIDs.
	n.command("mig gpu 5 7g.80gb")
	n.command("xid 48 gpu 7")
	if events, inv := p.events("XID 48", 1); events[0].Code != 48 || inv.Entities[events[0].Entity].ID != 7 {
		t.Errorf("event %+v", events[0])
	}
	quiet := time.Now().Add(2 * time.Second)
	for time.Now().Before(quiet) {
		if f := p.frame("no event"); f.Events != nil {
			t.Errorf("repeated events: %+v", f.Events)
		}
	}

	// A new sampler does not report old XIDs of the node.
	p.stdin.Close()
	<-p.exited
	p = n.start(cfg)
	p.inventory("the inventory")
	p.frame("a sample")
	n.command("xid 92 gpu 3")
	if events, _ := p.events("XID 92", 1); events[0].Code != 92 {
		t.Errorf("event %+v", events[0])
	}
}

// TestEngineLost shows that the sampler ends when its engine is lost.
func TestEngineLost(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("engine lost")
	if f := p.failure(); f.Reason != model.FailureHostengineLost || f.Message == "" {
		t.Errorf("failure %+v", f)
	}
}

// TestReadingFails shows that a failed bulk read does not end the sampler.
func TestReadingFails(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("fail dcgmEntitiesGetLatestValues -3")
	p.has(gpu, 0, 150, model.StatusError)
	n.command("clear dcgmEntitiesGetLatestValues")
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("fail dcgmEntitiesGetLatestValues -21")
	if f := p.failure(); f.Reason != model.FailureHostengineLost {
		t.Errorf("failure %+v", f)
	}
}

// TestValuesSinceFails shows that the newest XID is reported without the event query.
func TestValuesSinceFails(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("fail dcgmGetValuesSince_v2 -16")
	n.command("xid 48 gpu 1")
	if events, _ := p.events("XID 48", 1); events[0].Code != 48 || events[0].Entity != 1 {
		t.Errorf("event %+v", events[0])
	}
	n.command("clear dcgmGetValuesSince_v2")
	n.command("xid 63 gpu 1")
	// DCGM returns 48 again; it is not reported again.
	if events, _ := p.events("XID 63", 1); events[0].Code != 63 {
		t.Errorf("event %+v", events[0])
	}
}

// TestInitFails shows the failure of an engine that does not start.
func TestInitFails(t *testing.T) {
	n := newNode(t, "h100x8")
	n.command("fail dcgmStartEmbedded -7")
	if f := n.start(defaultConfig()).failure(); f.Reason != model.FailureInitFailed || !strings.Contains(f.Message, "embedded") {
		t.Errorf("failure %+v", f)
	}
}

// TestWatchFails shows that the sampler fails if nothing can be watched.
func TestWatchFails(t *testing.T) {
	n := newNode(t, "h100x8")
	n.command("fail dcgmWatchFields -3")
	if f := n.start(defaultConfig()).failure(); f.Reason != model.FailureWatchFailed {
		t.Errorf("failure %+v", f)
	}
}

// TestUnknownField shows that a field which DCGM does not know, such as one of a newer
// DCGM, does not affect other fields.
func TestUnknownField(t *testing.T) {
	cfg := defaultConfig()
	cfg.Fields[gpu] = append([]model.FieldID{9999}, cfg.Fields[gpu]...)
	p := newNode(t, "h100x8").start(cfg)
	s := p.has(gpu, 0, 150, model.StatusOK)
	if c := p.cell(s, gpu, 0, 9999); c.Status != model.StatusNotFound {
		t.Errorf("field 9999 is %v", c.Status)
	}
	p.has(gpu, 7, 1001, model.StatusOK)
}

// TestManyFields shows more fields than the limit of a field group and of a request.
func TestManyFields(t *testing.T) {
	cfg := defaultConfig()
	cfg.Fields[gpu] = nil
	for f := range field.All() {
		if f.On(gpu) && f.Type.Numeric() {
			cfg.Fields[gpu] = append(cfg.Fields[gpu], f.ID)
		}
	}
	if len(cfg.Fields[gpu]) <= 2*watch.MaxFields {
		t.Fatalf("only %d fields", len(cfg.Fields[gpu]))
	}
	p := newNode(t, "h100x8").start(cfg)
	s := p.has(gpu, 7, 1001, model.StatusOK)
	for _, id := range []model.FieldID{100, 150, 155, 203, 252} {
		if c := p.cell(s, gpu, 7, id); c.Status != model.StatusOK {
			t.Errorf("field %d is %v", id, c.Status)
		}
	}
	counts := make(map[string]int)
	for _, c := range s.Rows[7] {
		counts[c.Status.String()]++
	}
	t.Logf("%d fields: %v", len(cfg.Fields[gpu]), counts)
	if counts["error"] > 0 || counts["not_watched"] > 0 || counts["unexpected_type"] > 0 {
		t.Errorf("statuses %v", counts)
	}
}

// TestNoGPUs shows that a node without GPUs has samples.
func TestNoGPUs(t *testing.T) {
	p := newNode(t, "none").start(defaultConfig())
	inv := p.inventory("the inventory")
	if len(inv.Entities) != 0 || inv.DriverVersion == "" {
		t.Errorf("inventory %+v", inv)
	}
	for range 3 {
		p.sample("a sample", func(*model.Sample) error { return nil })
	}
}

// TestHang shows that a hung call does not keep the process running after its exporter.
func TestHang(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("hang dcgmEntitiesGetLatestValues")
	for quiet := false; !quiet; {
		select {
		case <-p.frames:
		case <-time.After(time.Second):
			quiet = true
		}
	}
	p.stdin.Close()
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the sampler did not end")
	}
	if !p.cmd.ProcessState.Success() {
		t.Errorf("the sampler ended with %v", p.cmd.ProcessState)
	}
}

// TestLog shows that an embedded engine logs to the standard output, and not to a file.
func TestLog(t *testing.T) {
	cfg := defaultConfig()
	cfg.DCGMLogLevel = "DEBUG"
	n := newNode(t, "h100x8")
	p := n.start(cfg)
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("xid 1019 gpu 0")
	p.events("an XID", 1)
	p.stdin.Close()
	<-p.exited
	p.mu.Lock()
	loud := p.output.String()
	p.mu.Unlock()
	if !strings.Contains(loud, "XID 1019") {
		t.Errorf("the log on standard output is %q", loud)
	}
	cfg.DCGMLogLevel = ""
	p = n.start(cfg)
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("xid 1019 gpu 0")
	p.events("an XID", 1)
	p.stdin.Close()
	<-p.exited
	p.mu.Lock()
	quiet := p.output.String()
	p.mu.Unlock()
	if quiet != "" {
		t.Errorf("without a level, standard output has %q", quiet)
	}
	// Other engines may write to this file, but not about this XID.
	if text, err := os.ReadFile("/var/log/nv-hostengine.log"); err == nil && strings.Contains(string(text), "XID 1019") {
		t.Error("the log is in DCGM's default file")
	}
}

// TestStalled shows the detection of an engine whose sampling thread hangs: it answers
// with values that are never updated.
func TestStalled(t *testing.T) {
	start := time.Now()
	s := &sampler{cfg: Config{Sampler: wire.SamplerConfig{Interval: 20 * time.Second}}, reading: &reading{}, newestSince: start}
	// Engine and sampler run at the same interval but not in step: a sample may repeat values.
	for i, want := range []time.Duration{0, 20 * time.Second, 0, 20 * time.Second} {
		s.reading.newest = 100 + int64(i/2)
		if got := s.valueAge(start.Add(time.Duration(i) * 20 * time.Second)); got != want {
			t.Errorf("reading %d: age %v, want %v", i, got, want)
		}
	}
	s.newest, s.newestSince = 0, start
	at := func(seconds int, newest int64) error {
		s.reading.newest = newest
		return s.checkProgress(s.valueAge(start.Add(time.Duration(seconds) * time.Second)))
	}
	for i, step := range []struct {
		seconds int
		newest  int64
		stalled bool
	}{
		{0, 0, false}, {90, 0, false}, // no value yet
		{100, 5, false}, {155, 5, false}, {161, 5, true},
		{162, 3, false}, // the clock was set back
		{220, 3, false}, {223, 3, true},
		{300, 9, false},
	} {
		err := at(step.seconds, step.newest)
		var failed *FailureError
		if stalled := errors.As(err, &failed) && failed.Failure.Reason == model.FailureEngineStalled; stalled != step.stalled {
			t.Errorf("step %d: %v, want stalled %v", i, err, step.stalled)
		}
	}
}

// TestFrozen shows that samples continue with the age of the values while the engine does
// not update them.
func TestFrozen(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("hang sampling")
	p.sample("old values", func(s *model.Sample) error {
		if age := time.Since(s.Time); age < 2*time.Second {
			return fmt.Errorf("they are %v old", age)
		}
		return nil
	})
	frozen := time.Now()
	n.command("clear sampling")
	p.sample("new values", func(s *model.Sample) error {
		if s.Time.Before(frozen) {
			return fmt.Errorf("the sample is of %v", s.Time)
		}
		return nil
	})
}

// TestSlowDriver shows that a slow driver delays the first sample but not the inventory.
func TestSlowDriver(t *testing.T) {
	n := newNode(t, "h100x8")
	n.command("slow sampling 3000")
	cfg := defaultConfig()
	cfg.Interval = time.Second
	p := n.start(cfg)
	inv := p.inventory("the inventory")
	s := p.has(gpu, 0, 150, model.StatusOK)
	if delay := s.Time.Sub(inv.Time); delay < 2*time.Second {
		t.Errorf("the sample is %v younger than the inventory, want the delay of the driver", delay)
	}
}

// TestEngineNeedsRestart shows when an engine is restarted: it is embedded, a GPU that is
// up answered before, and none has answered for a while.
func TestEngineNeedsRestart(t *testing.T) {
	temperature, activity, utilization := []model.FieldID{150}, []model.FieldID{1001}, []model.FieldID{203}
	for name, tc := range map[string]struct {
		state             model.EntityState
		columns, derived  []model.FieldID
		ofInstance        []model.FieldID // columns; nil: the GPU has no instance
		hostengine        string
		answered, restart bool
	}{
		"as after XID 119":                  {model.EntityUp, temperature, nil, nil, "", true, true},
		"never a value":                     {model.EntityUp, temperature, nil, nil, "", false, false},
		"the only GPU is lost":              {model.EntityLost, temperature, nil, nil, "", true, false},
		"no fields":                         {model.EntityUp, nil, nil, nil, "", true, false},
		"a standalone engine":               {model.EntityUp, temperature, nil, nil, "localhost", true, false},
		"only profiling is read":            {model.EntityUp, activity, nil, nil, "", true, true},
		"profiling and derived fields read": {model.EntityUp, activity, temperature, nil, "", true, true},
		"utilization of an instance":        {model.EntityUp, nil, nil, utilization, "", true, false},
		"an instance and derived fields":    {model.EntityUp, nil, temperature, utilization, "", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			inv := &model.Inventory{Entities: []model.Entity{{Kind: gpu, State: tc.state, Parent: model.Unknown}}, Derived: tc.derived}
			inv.Columns[gpu] = tc.columns
			if tc.ofInstance != nil {
				inv.Entities = append(inv.Entities, model.Entity{Kind: inst, State: tc.state, Parent: 0})
				inv.Columns[inst] = tc.ofInstance
			}
			p := newPlan(inv, selectors{}, map[uint32]capability{0: {fields: map[uint16]bool{1001: true}}})
			s := &sampler{
				cfg:     Config{Sampler: wire.SamplerConfig{Interval: time.Second, Hostengine: tc.hostengine}},
				reading: newReading(nil, p, make([]int64, len(inv.Entities)), time.Second, time.Minute),
			}
			for i := range s.reading.cells {
				s.reading.cells[i] = native.Cell{Time: 1, Type: 'i', Bits: 1}
				if !tc.answered {
					s.reading.cells[i].Status = native.NoData
				}
			}
			s.reading.fill()
			start := time.Now()
			if err := s.checkAnswers(start); err != nil {
				t.Fatal(err)
			}
			for i := range s.reading.cells {
				s.reading.cells[i].Status = native.NoData
			}
			s.reading.fill()
			if err := s.checkAnswers(start.Add(blankTimeout)); err != nil {
				t.Fatalf("too early: %v", err)
			}
			var failed *FailureError
			err := s.checkAnswers(start.Add(blankTimeout + time.Second))
			if restart := errors.As(err, &failed) && failed.Failure.Reason == model.FailureEngineBlank; restart != tc.restart {
				t.Errorf("got %v, want restart %v", err, tc.restart)
			}
		})
	}
}

// TestReplacingSamplerHasProfiling shows that the first sample of a sampler that replaces
// a working one has profiling values.
func TestReplacingSamplerHasProfiling(t *testing.T) {
	cfg := defaultConfig()
	cfg.Replaces = true
	p := newNode(t, "h100x8").start(cfg)
	if f := p.frame("the first frame"); f.Inventory == nil {
		t.Fatalf("the first frame is %+v, want the inventory", f)
	}
	s := p.sample("the first sample", func(*model.Sample) error { return nil })
	for id := range uint32(8) {
		if c := p.cell(s, gpu, id, 1001); c.Status != model.StatusOK {
			t.Errorf("GPU %d: graphics engine activity is %v", id, c.Status)
		}
	}
}
