// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package exportertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gpu_exporter/collector/dcgmsim"
)

// Node is an exporter on a simulated node. The simulated hardware outlives the exporter.
type Node struct {
	*Server // the exporter; nil before the first start
	Sim     *dcgmsim.Node
	Args    []string
}

// NewNode returns a node whose exporter does not run. The scenario is a built-in name or the
// path of a file.
func NewNode(t testing.TB, scenario string, args ...string) *Node {
	t.Helper()
	return &Node{Sim: dcgmsim.NewNode(Built(t, "sim"), t.TempDir(), scenario), Args: args}
}

// Start starts the exporter and waits until it listens on a port that the kernel chose.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	n.Server = Start(t, []string{"DCGMSIM_STATE=" + n.Sim.State, "DCGMSIM_CONTROL=" + n.Sim.Control}, Built(t, "gpu_exporter"),
		append([]string{"--web.listen-address=127.0.0.1:0", "--simulate=" + n.Sim.Scenario}, n.Args...)...)
}

// Command steers the simulated node, whether or not a sampler runs.
func (n *Node) Command(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if _, err := n.Sim.Command(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
}

// SamplerPID returns the process ID of the sampler, or 0 if there is none.
func (n *Node) SamplerPID() int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.Process.Pid))
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue // the thread ended
		}
		for child := range strings.FieldsSeq(string(children)) {
			if pid, err := strconv.Atoi(child); err == nil {
				return pid
			}
		}
	}
	return 0
}

// KillSampler kills the sampler.
func (n *Node) KillSampler(t testing.TB) {
	t.Helper()
	pid := n.SamplerPID()
	if pid == 0 {
		t.Fatal("no sampler runs")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
