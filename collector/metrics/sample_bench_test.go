// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
	"gpu_exporter/etc"
)

// benchNode is a node of 8 H100 with 18 NVLinks each and 4 NVSwitches, each GPU held
// by a pod.
func benchNode(b *testing.B, preset string) (Config, *model.Inventory, *Ownership) {
	b.Helper()
	counters, err := field.ParseCounters(etc.DefaultCounters(), "default")
	if err != nil {
		b.Fatal(err)
	}
	xids, err := xid.ParseCatalogue(etc.XIDCatalogue(), etc.XIDCatalogueName)
	if err != nil {
		b.Fatal(err)
	}
	inv := &model.Inventory{Generation: 1, Time: time.Now(), DriverVersion: "570.133.20"}
	owners := &Ownership{Known: true, Mapped: true}
	for g := range 8 {
		inv.Entities = append(inv.Entities, model.Entity{Kind: model.KindGPU, Selected: true, ID: uint32(g), Parent: model.Unknown,
			UUID: fmt.Sprintf("GPU-%08x-9b29-4a1c-b0a6-0f6c8f5ed3a0", g), PCIBusID: fmt.Sprintf("00000000:%02X:00.0", g), Model: "NVIDIA H100 80GB HBM3",
			Index: g, Minor: g, InstanceID: model.Unknown, Port: model.Unknown})
		owners.Entities = append(owners.Entities, Holders{Owners: []Owner{{Namespace: "research", Pod: fmt.Sprintf("llm-training-%d", g), Container: "main"}}})
	}
	for s := range 4 {
		inv.Entities = append(inv.Entities, model.Entity{Kind: model.KindSwitch, Selected: true, ID: uint32(s), Parent: model.Unknown})
	}
	for link := range 8 * 18 {
		inv.Entities = append(inv.Entities, model.Entity{Kind: model.KindLink, Selected: true, ID: uint32(link), Parent: link / 18, Port: link % 18})
	}
	for kind := range inv.Columns {
		for _, c := range counters.List {
			if c.On(model.EntityKind(kind)) {
				inv.Columns[kind] = append(inv.Columns[kind], c.Field.ID)
			}
		}
	}
	cfg := Config{Counters: counters.List, Selected: selection(b, preset), XIDs: xids, HostnameLabel: "hostname", Hostname: "node-1.example.com", MaxAge: time.Hour, HealthInterval: time.Minute}
	inv.Derived = cfg.DerivedFields()
	return cfg, inv, owners
}

// benchSample has a value of every field.
func benchSample(inv *model.Inventory) *model.Sample {
	s := &model.Sample{Generation: 1, Time: time.Now(), LinksRead: time.Now(), SwitchesListed: true, Strings: []string{"570.133.20"},
		Rows: make([][]model.Cell, len(inv.Entities)), Derived: make([][]model.Cell, len(inv.Entities))}
	cell := func(id model.FieldID, entity int) model.Cell {
		switch f, _ := field.ByID(id); f.Type {
		case model.ValueString:
			return model.StringCell(0)
		case model.ValueDouble:
			return model.DoubleCell(float64(entity) + 0.3)
		}
		return model.Int64Cell(int64(entity) + 1)
	}
	for i := range inv.Entities {
		for _, id := range inv.Columns[inv.Entities[i].Kind] {
			s.Rows[i] = append(s.Rows[i], cell(id, i))
		}
		if inv.Entities[i].Kind == model.KindGPU {
			for _, id := range inv.Derived {
				s.Derived[i] = append(s.Derived[i], cell(id, i))
			}
		}
	}
	return s
}

func benchConditions(inv *model.Inventory) (*model.Health, *model.Peers) {
	health, peers := &model.Health{Generation: 1, Time: time.Now()}, &model.Peers{Generation: 1, Time: time.Now()}
	for i := range 8 {
		health.Checked = append(health.Checked, model.CheckedEntity{Entity: i, Since: inv.Time.Add(-time.Hour)})
		for j := range 8 {
			if i != j {
				peers.Pairs = append(peers.Pairs, model.Peer{Entity: i, Peer: j, NVLinks: 18, Path: 6})
			}
		}
	}
	return health, peers
}

// BenchmarkSample is the cost of one sample with a preset: decoding its frames, updating
// the state, building the families and encoding them as text once. cpu-ms/op includes
// garbage collection.
func BenchmarkSample(b *testing.B) {
	for _, preset := range []string{"default", "full"} {
		b.Run(preset, func(b *testing.B) { benchmarkSample(b, preset) })
	}
}

func benchmarkSample(b *testing.B, preset string) {
	cfg, inv, ownership := benchNode(b, preset)
	node := state.NewNode(slog.New(slog.DiscardHandler), cfg.XIDs)
	tracked := state.TrackedFields(cfg.Counters, cfg.Integrates, time.Second)
	node.Track(tracked, time.Second)
	families := New(cfg, node, fixedSupervisor{Running: true, Sampling: true}, fixedOwners{ownership: ownership, status: SourceStatus{Up: true}})
	var pipe bytes.Buffer
	writer, reader := wire.NewFrameWriter(&pipe), wire.NewFrameReader(&pipe)
	write := func(frames ...wire.Frame) {
		b.Helper()
		for _, f := range frames {
			if err := writer.Write(f); err != nil {
				b.Fatal(err)
			}
		}
	}
	read := func(frames int) {
		b.Helper()
		for range frames {
			f, err := reader.Next()
			if err != nil {
				b.Fatal(err)
			}
			if err := node.Deliver(f); err != nil {
				b.Fatal(err)
			}
		}
	}
	health, peers := benchConditions(inv)
	write(wire.Frame{Inventory: inv}, wire.Frame{Health: health}, wire.Frame{Peers: peers})
	read(3)
	cpu := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	var used time.Duration
	size, series := 0, 0
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		tracks := &model.Tracks{Generation: 1}
		for i := range 8 {
			for _, f := range tracked {
				if f.Kinds.Has(model.KindGPU) {
					point := model.Point{At: inv.Time.UnixMicro() + int64(n)*1e6, Value: float64(i)}
					tracks.List = append(tracks.List, model.Track{Entity: i, Field: f.Field, Points: []model.Point{point}})
				}
			}
		}
		write(wire.Frame{Tracks: tracks}, wire.Frame{Sample: benchSample(inv)})
		begin := cpu()
		b.StartTimer()
		read(2)
		page := Exposition{Families: families.Build()}
		body, err := page.Append(nil, "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8")
		if err != nil {
			b.Fatal(err)
		}
		used += cpu() - begin
		size, series = len(body), bytes.Count(body, []byte("\n"))-2*len(page.Families)
	}
	b.ReportMetric(used.Seconds()*1e3/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(size)/1024, "KiB-text")
	b.ReportMetric(float64(series), "series")
}
