// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"testing"

	"gpu_exporter/collector/dcgmsim"
)

// node is a simulated node and a child process on it.
type node struct {
	*child
	sim *dcgmsim.Node
}

// startNode starts both; commands change the node before the child starts.
func startNode(t *testing.T, scenario string, commands ...string) *node {
	t.Helper()
	libraries, err := dcgmsim.BuildShared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{sim: dcgmsim.NewNode(libraries, t.TempDir(), scenario)}
	for _, line := range commands {
		n.command(t, line)
	}
	n.child = startChild(t, n.sim.Environ()...)
	return n
}

func (n *node) command(t *testing.T, line string) {
	t.Helper()
	if _, err := n.sim.Command(t.Context(), line); err != nil {
		t.Fatal(err)
	}
}
