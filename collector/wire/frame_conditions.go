// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"math"
	"time"

	"gpu_exporter/collector/model"
)

// What a checked entity, an incident and a pair of peers take in a frame at least.
const (
	checkedSize  = 1 + 8
	incidentSize = 1 + 1 + 1 + 4
	peerSize     = 5
)

// WriteHealth writes the outcome of a health check on the entities of the inventory
// with its generation.
func (f *FrameWriter) WriteHealth(h *model.Health) error {
	f.begin()
	f.u64(h.Generation)
	f.u64(uint64(h.Time.UnixNano()))
	f.u64(uint64(h.Duration))
	f.str(h.Failure)
	f.num(len(h.Checked))
	for _, c := range h.Checked {
		f.num(c.Entity)
		f.u64(uint64(c.Since.UnixNano()))
	}
	f.num(len(h.Incidents))
	for _, i := range h.Incidents {
		f.num(i.Entity)
		f.u8(uint8(i.System))
		f.u8(uint8(i.Result))
		f.u32(i.Code)
	}
	return f.flush(frameHealth)
}

func (d *decoder) health() *model.Health {
	h := &model.Health{
		Generation: d.u64(),
		Time:       d.time(),
		Duration:   time.Duration(d.u64()),
		Failure:    d.str(),
	}
	if n := d.count(checkedSize); n > 0 {
		h.Checked = make([]model.CheckedEntity, n)
	}
	for i := range h.Checked {
		h.Checked[i] = model.CheckedEntity{Entity: d.num(), Since: d.time()}
	}
	if n := d.count(incidentSize); n > 0 {
		h.Incidents = make([]model.HealthIncident, n)
	}
	for i := range h.Incidents {
		h.Incidents[i] = model.HealthIncident{Entity: d.num(), System: model.HealthSystem(d.u8()), Result: model.HealthResult(d.u8()), Code: d.u32()}
	}
	return h
}

// WritePeers writes the topology between the GPUs of the inventory with its
// generation.
func (f *FrameWriter) WritePeers(p *model.Peers) error {
	f.begin()
	f.u64(p.Generation)
	f.u64(uint64(p.Time.UnixNano()))
	f.num(len(p.Pairs))
	for _, pair := range p.Pairs {
		f.num(pair.Entity)
		f.num(pair.Peer)
		f.num(pair.P2P)
		f.num(pair.NVLinks)
		f.u8(uint8(pair.Path))
	}
	return f.flush(framePeers)
}

func (d *decoder) peers() *model.Peers {
	p := &model.Peers{Generation: d.u64(), Time: d.time()}
	if n := d.count(peerSize); n > 0 {
		p.Pairs = make([]model.Peer, n)
	}
	for i := range p.Pairs {
		p.Pairs[i] = model.Peer{Entity: d.num(), Peer: d.num(), P2P: d.num(), NVLinks: d.num(), Path: model.PeerPath(d.u8())}
	}
	return p
}

// profilingSize is what a GPU takes in a frame at the least: entity, state, rewatches.
const profilingSize = 1 + 1 + 4

// WriteProfiling writes how profiling stands on the GPUs of the newest inventory.
func (f *FrameWriter) WriteProfiling(p *model.Profiling) error {
	f.begin()
	f.u64(p.Generation)
	f.num(len(p.GPUs))
	for _, g := range p.GPUs {
		f.num(g.Entity)
		f.u8(uint8(g.State))
		f.u32(g.Rewatches)
	}
	return f.flush(frameProfiling)
}

func (d *decoder) profiling() *model.Profiling {
	p := &model.Profiling{Generation: d.u64(), GPUs: make([]model.GPUProfiling, d.count(profilingSize))}
	for i := range p.GPUs {
		g := model.GPUProfiling{Entity: d.num(), State: model.ProfilingState(d.u8()), Rewatches: d.u32()}
		if int(g.State) >= model.ProfilingStateCount {
			d.failed = true // it is an index further on
		}
		p.GPUs[i] = g
	}
	return p
}

// WriteTracks writes what was seen between samples.
func (f *FrameWriter) WriteTracks(t *model.Tracks) error {
	f.begin()
	f.u64(t.Generation)
	f.num(len(t.List))
	for i := range t.List {
		track := &t.List[i]
		f.num(track.Entity)
		f.num(int(track.Field))
		f.num(len(track.Points))
		var at int64
		for _, p := range track.Points {
			f.buf = binary.AppendVarint(f.buf, p.At-at) // short, but for the first
			at = p.At
			f.u64(math.Float64bits(p.Value))
		}
	}
	return f.flush(frameTracks)
}

// pointSize is the least that a point takes: time and value.
const pointSize = 1 + 8

func (d *decoder) tracks() *model.Tracks {
	t := &model.Tracks{Generation: d.u64()}
	t.List = make([]model.Track, d.count(3))
	for i := range t.List {
		track := &t.List[i]
		track.Entity, track.Field = d.num(), model.FieldID(d.num())
		track.Points = make([]model.Point, d.count(pointSize))
		var at int64
		for j := range track.Points {
			at += int64(d.num())
			track.Points[j] = model.Point{At: at, Value: math.Float64frombits(d.u64())}
		}
	}
	return t
}
