// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestXID: XIDs are counted per GPU, and the counters outlive the sampler.
func TestXID(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", fast...)
	start := n.scrape(t)
	for _, severity := range []string{"critical", "warning", "application"} {
		if v, count := sumOf(start, "gpu_xid_errors_total", `severity="`+severity+`"`); v != 0 || count != 8 {
			t.Fatalf("at the start: %v of severity %s in %d series, want 0 in one of each GPU", v, severity, count)
		}
	}
	if _, count := sumOf(start, "gpu_xid_code_errors_total"); count != 0 {
		t.Fatalf("at the start: %d codes", count)
	}
	begin := time.Now().Truncate(time.Second)
	n.command(t, "xid 79 gpu 6")
	n.command(t, "xid 79 gpu 6")
	n.command(t, "xid 31 gpu 7")
	n.eventually(t, "the XIDs are counted", func() bool {
		body := n.scrape(t)
		two, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="6"`, `xid="79",name="ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS",severity="critical",action="`)
		one, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="7"`, `xid="31"`, `severity="application"`)
		return two == 2 && one == 1
	})
	body := n.scrape(t)
	if _, count := sumOf(body, "gpu_xid_code_errors_total"); count != 2 {
		t.Errorf("%d codes of GPUs, want 2", count)
	}
	for _, want := range []struct {
		sum    float64
		labels []string
	}{
		{2, []string{`gpu="6"`}}, {2, []string{`gpu="6"`, `severity="critical"`}},
		{1, []string{`gpu="7"`}}, {1, []string{`gpu="7"`, `severity="application"`}}, {3, nil},
	} {
		if sum, _ := sumOf(body, "gpu_xid_errors_total", want.labels...); sum != want.sum {
			t.Errorf("%v XIDs with %q, want %v", sum, want.labels, want.sum)
		}
	}
	v, _ := sumOf(body, "gpu_xid_code_last_timestamp_seconds", `gpu="6"`, `xid="79"`)
	if at := time.Unix(int64(v), 0); at.Before(begin) || at.After(time.Now()) {
		t.Errorf("the time of the last XID is %v, want at least %v", at, begin)
	}
	if !strings.Contains(body, `err_code="79",err_msg="`) {
		t.Error("the last-XID gauge has no attributes")
	}
	n.killSampler(t)
	n.eventually(t, "a new sampler has taken over", func() bool {
		body := n.scrape(t)
		up, _ := sumOf(body, "gpu_exporter_sampler_up")
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total")
		return up == 1 && restarts >= 1
	})
	body = n.scrape(t)
	critical, _ := sumOf(body, "gpu_xid_errors_total", `gpu="6"`, `severity="critical"`)
	if v, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="6"`, `xid="79"`); v != 2 || critical != 2 {
		t.Errorf("after the restart: %v, and %v by severity", v, critical)
	}
}

// TestLastXIDZero: the last-XID gauge is absent until the first XID, or 0 on request.
func TestLastXIDZero(t *testing.T) {
	t.Parallel()
	for _, zero := range []bool{false, true} {
		n := startNode(t, "h100x8", append(fast, fmt.Sprintf("--xid.last-zero=%v", zero))...)
		want := 0
		if zero {
			want = 7
		}
		n.command(t, "xid 79 gpu 6")
		n.eventually(t, "the XID is the last one", func() bool {
			v, count := sumOf(n.scrape(t), "DCGM_FI_DEV_XID_ERRORS", `gpu="6"`, `err_code="79"`)
			return v == 79 && count == 1
		})
		body := n.scrape(t)
		if v, count := sumOf(body, "DCGM_FI_DEV_XID_ERRORS", `err_code="0",err_msg="No Error"`); v != 0 || count != want {
			t.Errorf("zero=%v: sum %v of %d series without an XID, want %d", zero, v, count, want)
		}
		if _, count := sumOf(body, "DCGM_FI_DEV_XID_ERRORS"); count != want+1 {
			t.Errorf("zero=%v: %d series, want %d", zero, count, want+1)
		}
		n.command(t, "lose gpu 5")
		n.eventually(t, "a lost GPU has no value", func() bool {
			_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_XID_ERRORS", `gpu="5"`)
			return count == 0
		})
	}
}

// TestFatalXID: after XID 119, every field of every GPU is blank until the engine
// restarts.
func TestFatalXID(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	n.command(t, "xid 119 gpu 2")
	n.eventually(t, "every GPU is down", func() bool {
		up, gpus := sumOf(n.scrape(t), "gpu_up")
		return gpus == 8 && up == 0
	})
	if _, values := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP"); values != 0 {
		t.Errorf("%d blank values are published", values)
	}
	n.eventually(t, "a new sampler publishes the values", func() bool {
		body := n.scrape(t)
		up, _ := sumOf(body, "gpu_up")
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_by_reason_total", `"engine_blank"`)
		return up == 8 && restarts == 1
	})
	if v, _ := sumOf(n.scrape(t), "gpu_xid_code_errors_total", `xid="119"`); v != 1 {
		t.Errorf("counted %v times", v)
	}
}

// TestXIDBetweenSamplers: a host engine receives XIDs while no sampler runs. The next
// sampler counts them, each once.
func TestXIDBetweenSamplers(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "he.sock")
	n := launchNode(t, "h100x8", append(fast, "-r", socket)...)
	engine, err := n.sim.StartEngine(t.Context(), "--domain-socket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	n.eventually(t, "values come from the engine", func() bool {
		_, body := n.tryGet(t, "/metrics")
		_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
		return values == 8
	})
	n.killSampler(t)
	n.command(t, "xid 79 gpu 1")
	for range 2 { // the second sampler must not count it again
		n.eventually(t, "a sampler has taken over and the XID is counted", func() bool {
			body := n.scrape(t)
			up, _ := sumOf(body, "gpu_exporter_sampler_up")
			xids, _ := sumOf(body, "gpu_xid_code_errors_total", `gpu="1"`, `xid="79"`)
			return up == 1 && xids == 1
		})
		n.killSampler(t)
		n.eventually(t, "the sampler has exited", func() bool {
			up, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_up")
			return up == 0
		})
	}
}

// TestEveryXIDOnce: 100 XIDs on each of 8 GPUs count as 800, regardless of their source.
func TestEveryXIDOnce(t *testing.T) {
	t.Parallel()
	counters := "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).\nDCGM_EXP_XID_ERRORS_COUNT, gauge, XIDs in the window.\nDCGM_EXP_XID_ERRORS_TOTAL, counter, XIDs.\n"
	for name, tc := range map[string]struct {
		start  func(*testing.T, string, ...string) *node
		code   int
		source string
	}{
		"DCGM":                                {startNode, 48, ""},
		"kernel log":                          {loggedNode, 48, "kmsg only"},
		"both":                                {loggedNode, 48, "kmsg both"},
		"both, and DCGM reads the kernel log": {loggedNode, 79, "kmsg twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := tc.start(t, "h100x8", "--sample.interval=1s", "--counters.file="+countersFile(t, counters))
			n.command(t, "xid pace 0")
			for gpu := range 8 {
				n.command(t, fmt.Sprintf("xid %d gpu %d count 100 %s", tc.code, gpu, tc.source))
			}
			code := fmt.Sprintf(`xid="%d"`, tc.code)
			n.eventually(t, "800 XIDs are counted", func() bool { return n.xids(t, code) >= 800 })
			n.afterReports(t, tc.source)
			body := n.scrape(t)
			for gpu := range 8 {
				label := fmt.Sprintf(`gpu="%d"`, gpu)
				for _, family := range []string{"gpu_xid_code_errors_total", "DCGM_EXP_XID_ERRORS_TOTAL", "DCGM_EXP_XID_ERRORS_COUNT"} {
					if v, _ := sumOf(body, family, label, code); v != 100 {
						t.Errorf("%s of GPU %d: %v, want 100", family, gpu, v)
					}
				}
			}
		})
	}
}

// TestXIDsBeforeAReload: a sampler reports the XIDs that DCGM received after the newest
// sample before it exits, because an embedded engine exits with it.
func TestXIDsBeforeAReload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gpu_exporter.yaml")
	configure := func(interval string) { writeFile(t, file, "sample: {interval: "+interval+"}\n") }
	configure("6s")
	n := startNode(t, "h100x8", "--config.file="+file, "--dcgm.log", "--dcgm.log-level=ERROR")
	sampling := func(interval string) func() bool { // DCGM does not receive earlier XIDs
		return func() bool { return strings.Contains(n.log.String(), "interval="+interval+"\n") }
	}
	n.eventually(t, "the first sampler runs", sampling("6s"))
	for i, interval := range []string{"5s", "4s", "3s"} {
		n.command(t, fmt.Sprintf("xid 48 gpu %d count 3", i))
		n.eventually(t, "DCGM has received the XIDs", func() bool {
			return strings.Count(n.log.String(), fmt.Sprintf("XID 48 on GPU %d", i)) == 3
		})
		configure(interval)
		if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
		n.eventually(t, "the next sampler runs", sampling(interval))
		n.eventually(t, "the XIDs are counted", func() bool { return n.xids(t, `xid="48"`) == 3*(i+1) })
	}
}

// TestXIDOnInstance: an XID counts for the GPU instance in the kernel log's message, or
// for the GPU if the message has no instance.
func TestXIDOnInstance(t *testing.T) {
	t.Parallel()
	n := loggedNode(t, "a100x7-mig", fast...)
	n.command(t, "xid 13 gpu 0 ci 0 kmsg both")
	n.command(t, "xid 13 gpu 0 ci 1 kmsg both")
	n.command(t, "xid 31 gpu 0 ci 2 kmsg only")
	n.command(t, "xid 43 gpu 0 kmsg only")
	n.eventually(t, "the XIDs are counted", func() bool {
		return n.xids(t, `xid="13"`, "GPU_I_ID=") == 2 && n.xids(t, `xid="31"`, "GPU_I_ID=") == 1 && n.xids(t, `xid="43"`) == 1
	})
	n.afterReports(t, "kmsg both")
	if two, one := n.xids(t, `xid="13"`), n.xids(t, `xid="43"`, "GPU_I_ID="); two != 2 || one != 0 {
		t.Errorf("XID 13: %d, XID 43 on instances: %d; want 2 and 0", two, one)
	}
	if _, count := sumOf(n.scrape(t), "gpu_xid_code_errors_total", `xid="13"`, "GPU_I_ID="); count != 2 {
		t.Errorf("XID 13 on %d instances, want 2", count)
	}
	body := n.scrape(t)
	for xid, want := range map[string]float64{"13": 2, "31": 1} {
		if v, _ := sumOf(body, "gpu_xid_code_errors_total", `xid="`+xid+`"`, `severity="application"`, "GPU_I_ID="); v != want {
			t.Errorf("XID %s counts %v times with its severity, want %v", xid, v, want)
		}
	}
	if v, count := sumOf(body, "gpu_xid_errors_total", `severity="application"`, "GPU_I_ID="); v != 3 || count != 3 {
		t.Errorf("%v XIDs on %d instances by severity, want 3 on 3", v, count)
	}
}
