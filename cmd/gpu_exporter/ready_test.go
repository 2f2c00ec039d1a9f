// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestReady: the command ready reports whether the GPUs of a running exporter answer, and
// why not.
func TestReady(t *testing.T) {
	t.Parallel()
	n := startNode(t, "t4x1", "--sample.interval=200ms")
	query := func(args ...string) (stdout, stderr string, err error) {
		cmd := exec.CommandContext(t.Context(), built(t), append([]string{"ready"}, args...)...)
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		err = cmd.Run()
		return out.String(), log.String(), err
	}
	if stdout, stderr, err := query("http://" + n.address); err != nil || !strings.Contains(stdout, "is ready") || stderr != "" {
		t.Errorf("ready: %v, prints %q and %q", err, stdout, stderr)
	}
	n.command(t, "lose gpu 0")
	n.eventually(t, "the loss", func() bool {
		return strings.Contains(n.scrape(t), "\ngpu_exporter_sampler_up 1") && gpusUp(n.scrape(t)) == 0
	})
	if stdout, stderr, err := query("http://" + n.address + "/"); err == nil || stdout != "" ||
		!strings.Contains(stderr, "error: status 503: ") || !strings.Contains(stderr, "answers") {
		t.Errorf("not ready: %v, prints %q and %q", err, stdout, stderr)
	}
	if _, stderr, err := query("http://127.0.0.1:1"); err == nil || !strings.Contains(stderr, "connection refused") {
		t.Errorf("without an exporter: %v, prints %q", err, stderr)
	}
	if _, stderr, err := query("http://"+n.address, "another"); err == nil || !strings.Contains(stderr, `unexpected argument "another"`) {
		t.Errorf("with two addresses: %v, prints %q", err, stderr)
	}
}
