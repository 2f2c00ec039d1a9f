// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import "time"

// What a checked entity, an incident and a pair of peers take in a frame at least.
const (
	checkedSize  = 1 + 8
	incidentSize = 1 + 1 + 1 + 4
	peerSize     = 5
)

// WriteHealth writes the outcome of a health check on the entities of the inventory
// with its generation.
func (f *FrameWriter) WriteHealth(h *Health) error {
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

func (d *decoder) health() *Health {
	h := &Health{
		Generation: d.u64(),
		Time:       d.time(),
		Duration:   time.Duration(d.u64()),
		Failure:    d.str(),
	}
	if n := d.count(checkedSize); n > 0 {
		h.Checked = make([]CheckedEntity, n)
	}
	for i := range h.Checked {
		h.Checked[i] = CheckedEntity{Entity: d.num(), Since: d.time()}
	}
	if n := d.count(incidentSize); n > 0 {
		h.Incidents = make([]HealthIncident, n)
	}
	for i := range h.Incidents {
		h.Incidents[i] = HealthIncident{Entity: d.num(), System: HealthSystem(d.u8()), Result: HealthResult(d.u8()), Code: d.u32()}
	}
	return h
}

// WritePeers writes the topology between the GPUs of the inventory with its
// generation.
func (f *FrameWriter) WritePeers(p *Peers) error {
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

func (d *decoder) peers() *Peers {
	p := &Peers{Generation: d.u64(), Time: d.time()}
	if n := d.count(peerSize); n > 0 {
		p.Pairs = make([]Peer, n)
	}
	for i := range p.Pairs {
		p.Pairs[i] = Peer{Entity: d.num(), Peer: d.num(), P2P: d.num(), NVLinks: d.num(), Path: PeerPath(d.u8())}
	}
	return p
}
