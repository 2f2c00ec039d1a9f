// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"fmt"
	"path/filepath"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

// root is the root of the repository.
const root = "../.."

// node is an exporter on a simulated node.
type node struct {
	*exportertest.Node
	name string
	seed int
	base string // scenario
	down bool   // whether the exporter was stopped
}

// newNode returns a node whose identities and loads derive from the seed, so that no GPU is
// on two nodes.
func newNode(t *testing.T, name string, seed int, base string, args ...string) *node {
	t.Helper()
	n := &node{name: name, seed: seed, base: base, down: true}
	n.Node = exportertest.NewNode(t, n.scenario(t), append([]string{
		"--hostname=" + name, "--sample.interval=" + realInterval.String(), "--sample.resolution=" + resolution.String(), "--web.enable-admin-api",
	}, args...)...)
	return n
}

// scenario writes a scenario with further statements.
func (n *node) scenario(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), n.name)
	text := fmt.Sprintf("seed %d\nbase %s\n", n.seed, n.base)
	for _, s := range statements {
		text += s + "\n"
	}
	write(t, path, text)
	return path
}

// start starts the exporter and waits until it is ready.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.Start(t)
	n.Ready(t)
	n.down = false
}

// stop stops the exporter.
func (n *node) stop(t *testing.T) {
	t.Helper()
	n.down = true
	n.Stop(t)
}
