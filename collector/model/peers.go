// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Peers is the topology of the node's GPUs. It is immutable once published.
type Peers struct {
	Generation uint64 // of the inventory
	Time       time.Time
	Pairs      []Peer
}

// Peer is the connection from one GPU to another.
type Peer struct {
	Entity, Peer int // positions in [Inventory.Entities]
	// P2P is the status of peer access over NVLink (dcgmNvLinkGpuP2PStatus_t), or
	// Unknown. 0 means that it works.
	P2P int
	// NVLinks is the number of active links between the two GPUs, or Unknown.
	NVLinks int
	Path    PeerPath
}

// PeerPath is the farthest component on the PCIe path between two GPUs: the number of the
// bit in dcgmGpuTopologyLevel_t plus 1.
type PeerPath uint8

// PeerPathUnknown is the path that DCGM does not report.
const PeerPathUnknown PeerPath = 0

// peerPathNames are the names in nvidia-smi topo, except BOARD, for which it has no name.
var peerPathNames = []string{"unknown", "BOARD", "PIX", "PXB", "PHB", "NODE", "SYS"}

func (p PeerPath) String() string { return NameOf(peerPathNames, p, "path") }

// Validate checks the topology against its inventory.
func (p *Peers) Validate(inv *Inventory) error {
	for _, pair := range p.Pairs {
		for _, entity := range []int{pair.Entity, pair.Peer} {
			if err := inv.checkEntity("topology", entity, -1, Kinds(KindGPU)); err != nil {
				return err
			}
		}
		if pair.Entity == pair.Peer {
			return fmt.Errorf("entity %d is its own peer", pair.Entity)
		}
		if pair.P2P < Unknown || pair.NVLinks < Unknown || int(pair.Path) >= len(peerPathNames) {
			return fmt.Errorf("entities %d and %d: P2P status %d, %d links, %v", pair.Entity, pair.Peer, pair.P2P, pair.NVLinks, pair.Path)
		}
	}
	return nil
}
