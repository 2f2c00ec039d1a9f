// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
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

// Validate checks the topology against its inventory.
func (p *Peers) Validate(inv *Inventory) error {
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
