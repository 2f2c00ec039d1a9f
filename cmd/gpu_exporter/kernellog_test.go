// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
)

// loggedNode starts a node with a kernel log.
func loggedNode(t *testing.T, scenario string, args ...string) *node {
	t.Helper()
	path := writeFile(t, filepath.Join(t.TempDir(), "kmsg"), "")
	n := startNode(t, scenario, append(args, "--path.kmsg="+path)...)
	n.sim.KernelLog = path
	return n
}

// xids returns the sum of gpu_xid_code_errors_total over the series with the labels.
func (n *node) xids(t *testing.T, labels ...string) int {
	t.Helper()
	v, _ := sumOf(n.scrape(t), "gpu_xid_code_errors_total", labels...)
	return int(v)
}

// afterReports waits until DCGM has reported all earlier XIDs. It triggers one more XID,
// because DCGM reports XIDs in order. The source is an argument of the stand-in's command
// xid.
func (n *node) afterReports(t *testing.T, source string) {
	t.Helper()
	before := n.xids(t, `xid="62"`)
	n.command(t, "xid 62 gpu 0 "+source)
	n.eventually(t, "the additional XID is counted", func() bool { return n.xids(t, `xid="62"`) == before+1 })
	for range 3 { // DCGM's reports arrive with the samples
		n.nextSample(t)
	}
}

// TestXIDsThatDCGMReportsLate: DCGM receives one XID per second, the kernel log all at
// once. DCGM's later reports do not count again.
func TestXIDsThatDCGMReportsLate(t *testing.T) {
	t.Parallel()
	n := loggedNode(t, "h100x8", fast...)
	n.command(t, "xid pace 1000")
	n.command(t, "xid 48 gpu 1 count 3 kmsg both")
	n.command(t, "xid 79 gpu 2 kmsg twice")
	n.eventually(t, "the XIDs are counted", func() bool { return n.xids(t, `gpu="1"`, `xid="48"`) == 3 && n.xids(t, `gpu="2"`, `xid="79"`) == 1 })
	n.afterReports(t, "kmsg both")
	if a, b := n.xids(t, `xid="48"`), n.xids(t, `xid="79"`); a != 3 || b != 1 {
		t.Errorf("XID 48: %d, XID 79: %d; want 3 and 1", a, b)
	}
}

// TestLoggedXIDBetweenSamplers: while no sampler runs, only the kernel log has the XIDs.
func TestLoggedXIDBetweenSamplers(t *testing.T) {
	t.Parallel()
	n := loggedNode(t, "h100x8", fast...)
	n.command(t, "xid 48 gpu 1 kmsg both")
	n.eventually(t, "the first is counted", func() bool { return n.xids(t, `gpu="1"`, `xid="48"`) == 1 })
	n.killSampler(t)
	n.command(t, "xid 48 gpu 1 kmsg both")
	n.command(t, "xid 74 gpu 3 kmsg only")
	n.eventually(t, "a new sampler has taken over", func() bool {
		body := n.scrape(t)
		up, _ := sumOf(body, "gpu_exporter_sampler_up")
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total")
		return up == 1 && restarts >= 1
	})
	n.afterReports(t, "kmsg both")
	if a, b := n.xids(t, `gpu="1"`, `xid="48"`), n.xids(t, `gpu="3"`, `xid="74"`); a != 2 || b != 1 {
		t.Errorf("XID 48: %d, XID 74: %d; want 2 and 1", a, b)
	}
}

// TestKernelLogAppearsLater: a kernel log that becomes readable is followed from then on.
// XIDs that DCGM reported before count once, and later XIDs count once too.
func TestKernelLogAppearsLater(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kmsg")
	n := startNode(t, "h100x8", append(fast, "--path.kmsg="+path)...)
	n.has(t, 0, "gpu_exporter_kernel_log_up")
	n.afterReports(t, "")
	n.command(t, "xid 48 gpu 1")
	n.eventually(t, "the first is counted", func() bool { return n.xids(t, `xid="48"`) == 1 })
	n.sim.KernelLog = path
	writeFile(t, path, "")
	n.has(t, 1, "gpu_exporter_kernel_log_up")
	n.command(t, "xid 48 gpu 1 kmsg both")
	n.command(t, "xid 74 gpu 3 kmsg only")
	n.eventually(t, "the XIDs are counted", func() bool { return n.xids(t, `xid="48"`) == 2 && n.xids(t, `xid="74"`) == 1 })
	n.afterReports(t, "kmsg both")
	if got := n.xids(t, `xid="48"`); got != 2 {
		t.Errorf("XID 48: %d, want 2", got)
	}
}

// TestKernelLogState: XIDs of unknown PCI addresses have their own counter, messages of
// user space are ignored, and a rotated log is followed.
func TestKernelLogState(t *testing.T) {
	t.Parallel()
	n := loggedNode(t, "h100x8", fast...)
	write := func(flags int, text string) {
		t.Helper()
		f, err := os.OpenFile(n.sim.KernelLog, os.O_WRONLY|os.O_CREATE|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write(os.O_APPEND, "3,1,1,-;NVRM: Xid (PCI:0042:18:00): 79, gone\n12,2,1,-;NVRM: Xid (PCI:0000:18:00): 74, a program's\n")
	n.eventually(t, "the unmatched XID is counted", func() bool {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_kernel_log_unmatched_xids_total")
		return v == 1
	})
	if err := os.Rename(n.sim.KernelLog, n.sim.KernelLog+".1"); err != nil {
		t.Fatal(err)
	}
	n.command(t, "xid 48 gpu 3 kmsg only")
	n.eventually(t, "the new log is read", func() bool { return n.xids(t, `gpu="3"`, `xid="48"`) == 1 })
	body := n.scrape(t)
	if up, count := sumOf(body, "gpu_exporter_kernel_log_up"); up != 1 || count != 1 {
		t.Errorf("gpu_exporter_kernel_log_up is %v", up)
	}
	if lost, count := sumOf(body, "gpu_exporter_kernel_log_lost_records_total"); lost != 0 || count != 1 {
		t.Errorf("%v lost", lost)
	}
	if n := n.xids(t, `xid="74"`); n != 0 {
		t.Errorf("a message of user space is counted %d times", n)
	}
}

// TestKernelLogPath: the configuration decides which kernel log is followed.
func TestKernelLogPath(t *testing.T) {
	sim := filepath.Join(t.TempDir(), "kmsg")
	simulated, bare := sampler.Environment{KernelLog: sim}, sampler.Environment{}
	for name, tc := range map[string]struct {
		cfg  config.Static
		env  sampler.Environment
		path string // empty: no log is followed
		log  string
		err  string
	}{
		"default":                     {config.Static{}, bare, config.DefaultKMsg, "", ""},
		"another path":                {config.Static{KMsg: "/host/dev/kmsg"}, bare, "/host/dev/kmsg", "", ""},
		"off":                         {config.Static{KernelLog: config.KernelLogOff}, bare, "", "", ""},
		"local engine":                {config.Static{Hostengine: "localhost:5555"}, bare, config.DefaultKMsg, "", ""},
		"local address":               {config.Static{Hostengine: "[::1]:5555"}, bare, config.DefaultKMsg, "", ""},
		"unix socket":                 {config.Static{Hostengine: "/run/dcgm.sock"}, bare, config.DefaultKMsg, "", ""},
		"remote engine":               {config.Static{Hostengine: "gpu7:5555"}, bare, "", "another machine", ""},
		"engine in the hypervisor":    {config.Static{Hostengine: "vsock://2:5555"}, bare, "", "another machine", ""},
		"remote engine, on":           {config.Static{Hostengine: "gpu7:5555", KernelLog: config.KernelLogOn}, bare, config.DefaultKMsg, "", ""},
		"simulated":                   {config.Static{Simulate: "h100x8"}, bare, "", "", ""},
		"simulated, with a log":       {config.Static{Simulate: "h100x8"}, simulated, sim, "", ""},
		"simulated, different path":   {config.Static{Simulate: "h100x8", KMsg: "/x"}, simulated, "/x", "", ""},
		"simulated without a log, on": {config.Static{Simulate: "h100x8", KernelLog: config.KernelLogOn}, bare, "", "", "the simulated node has no kernel log"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			if tc.cfg.KernelLog == "" {
				tc.cfg.KernelLog = config.KernelLogAuto
			}
			path, err := kernelLogPath(&tc.cfg, tc.env, slog.New(slog.NewTextHandler(&log, nil)))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if path != tc.path {
				t.Errorf("follows %q, want %q", path, tc.path)
			}
			if !strings.Contains(log.String(), tc.log) || (tc.log == "") != (log.Len() == 0) {
				t.Errorf("log: %s", &log)
			}
		})
	}
}
