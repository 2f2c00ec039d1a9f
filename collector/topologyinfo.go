// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Peers says how the GPUs of the node reach each other. It is immutable once
// published.
type Peers struct {
	// Generation is the inventory that the entities are of.
	Generation uint64
	Time       time.Time
	Pairs      []Peer
}

// Peer is how one GPU reaches another one.
type Peer struct {
	Entity, Peer int // positions in [Inventory.Entities]
	// P2P is dcgmNvLinkGpuP2PStatus_t: whether they reach each other over NVLink. 0
	// is yes, anything else why not; Unknown.
	P2P int
	// NVLinks is the number of links that are up between them, or Unknown.
	NVLinks int
	// Path is what their PCIe traffic goes through at the most.
	Path PeerPath
}

// PeerPath is the PCIe path between two GPUs: dcgmGpuTopologyLevel_t, as the number
// of the bit plus 1.
type PeerPath uint8

// PeerPathUnknown says that the path is not known.
const PeerPathUnknown PeerPath = 0

const peerPaths = 7

// peerPathNames are those of nvidia-smi topo, where it has one.
var peerPathNames = [peerPaths]string{"", "BOARD", "PIX", "PXB", "PHB", "NODE", "SYS"}

func (p PeerPath) String() string {
	if int(p) < len(peerPathNames) {
		return peerPathNames[p]
	}
	return fmt.Sprintf("path(%d)", uint8(p))
}

// peersMaxAge is how old the topology between GPUs may be: it is read each minute,
// with a health check.
const peersMaxAge = 5 * time.Minute

func (p *Peers) validate(inv *Inventory) error {
	gpu := func(i int) bool { return i >= 0 && i < len(inv.Entities) && inv.Entities[i].Kind == KindGPU }
	for _, pair := range p.Pairs {
		if !gpu(pair.Entity) || !gpu(pair.Peer) || pair.Entity == pair.Peer {
			return fmt.Errorf("entities %d and %d are no two GPUs", pair.Entity, pair.Peer)
		}
		if pair.P2P < Unknown || pair.NVLinks < Unknown || int(pair.Path) >= peerPaths {
			return fmt.Errorf("entities %d and %d: P2P status %d, %d links, %v", pair.Entity, pair.Peer, pair.P2P, pair.NVLinks, pair.Path)
		}
	}
	return nil
}

// peersState is what a Node knows of the topology between GPUs.
type peersState struct {
	newest   *Peers
	of       *Inventory
	received time.Time
}

func (n *Node) setPeers(p *Peers) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != p.Generation {
		return &RejectError{Reason: rejectInventory, Err: fmt.Errorf("topology of inventory %d", p.Generation)}
	}
	if err := p.validate(n.latest); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
	}
	n.peers = peersState{p, n.latest, n.now()}
	return nil
}

var (
	gpuP2PStatus    = definition{"gpu_p2p_status", MetricGauge, "Whether the GPU reaches the peer over NVLink: 0 yes; 1 chipset, 2 GPU or 3 topology not supported; 4 disabled by a registry key; 5 not supported; 6 unknown.", []string{"peer_gpu", "peer_uuid"}}
	gpuPeerLinks    = definition{"gpu_peer_nvlinks", MetricGauge, "NVLinks that are up between the GPU and the peer, directly or over switches.", []string{"peer_gpu", "peer_uuid"}}
	gpuTopologyInfo = definition{"gpu_topology_info", MetricGauge, "What PCIe traffic between the GPU and the peer goes through at the most: BOARD one board, PIX one switch, PXB several switches, PHB a host bridge, NODE one CPU, SYS the link between CPUs; always 1.",
		[]string{"path", "peer_gpu", "peer_uuid"}}
)

// freshPeers returns the newest topology, or nil where there is none that is fresh.
func (f *Families) freshPeers(v nodeView) *Peers {
	if v.peers.newest == nil || f.node.now().Sub(v.peers.received) > max(peersMaxAge, f.cfg.healthMaxAge()) {
		return nil
	}
	return v.peers.newest
}

// at is as that of healthState.
func (s peersState) at(inv *Inventory) peersState {
	if s.newest == nil || s.of == inv || inv == nil {
		return s
	}
	positions := s.of.positionsIn(inv)
	moved := *s.newest
	moved.Pairs = nil
	for _, pair := range s.newest.Pairs {
		pair.Entity, pair.Peer = positions[pair.Entity], positions[pair.Peer]
		if pair.Entity != Unknown && pair.Peer != Unknown {
			moved.Pairs = append(moved.Pairs, pair)
		}
	}
	s.newest, s.of = &moved, inv
	return s
}

// appendPeers appends how the GPUs reach each other.
func (f *Families) appendPeers(families []Family, v nodeView) []Family {
	p := f.freshPeers(v)
	if p == nil {
		return families
	}
	status, links, path := gpuP2PStatus.family(), gpuPeerLinks.family(), gpuTopologyInfo.family()
	for _, family := range []*Family{&status, &links, &path} {
		family.Series = f.room(family.Name)
	}
	for _, pair := range p.Pairs {
		l := &f.layout.entities[pair.Entity]
		if l.own == nil {
			continue
		}
		peer := func() []Label {
			gpu := &v.inventory.Entities[pair.Peer]
			return []Label{{"peer_gpu", strconv.FormatUint(uint64(gpu.ID), 10)}, {"peer_uuid", gpu.UUID}}
		}
		both := f.layout.render(renderedKey{pair.Entity, gpuP2PStatus.Name, int64(pair.Peer), 0}, func() []Label {
			return slices.Concat(l.identity, peer())
		})
		if pair.P2P != Unknown {
			status.Series = append(status.Series, Series{both, Number(float64(pair.P2P))})
		}
		if pair.NVLinks != Unknown {
			links.Series = append(links.Series, Series{both, Number(float64(pair.NVLinks))})
		}
		if pair.Path != PeerPathUnknown {
			path.Series = append(path.Series, Series{f.layout.render(renderedKey{pair.Entity, gpuTopologyInfo.Name, int64(pair.Peer), int(pair.Path)}, func() []Label {
				return slices.Concat(l.identity, []Label{{"path", pair.Path.String()}}, peer())
			}), Number(1)})
		}
	}
	return append(families, status, links, path)
}
