// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpu_exporter/collector/dcgmsim"
)

// TestLiveTopology: lost and returned GPUs, links and switches and a repartition are
// visible without a restart of the sampler, and counters continue.
func TestLiveTopology(t *testing.T) {
	t.Parallel()
	n := startNode(t, "dgx-h100", append(fast, "--families=default,links", "--counters.file="+countersFile(t, topologyCounters))...)
	sampler := n.samplerPID()
	value := n.valueOf(t)
	value(216, 216, "gpu_nvlink_up")
	n.command(t, "xid 94 gpu 5")
	value(1, 1, "gpu_xid_code_errors_total", `gpu="5"`, `xid="94"`)

	n.command(t, "link gpu 3 port 17 down")
	value(0, 1, "gpu_nvlink_up", `nvlink="17",gpu="3"`)
	value(17, 1, "gpu_nvlinks", `gpu="3"`, `state="up"`)
	value(1, 1, "gpu_nvlinks", `gpu="3"`, `state="down"`)
	value(1, 8, "gpu_nvlinks", `state="down"`)
	value(215, 216, "gpu_nvlink_up")
	n.command(t, "link gpu 3 port 17 up")
	value(216, 216, "gpu_nvlink_up")

	n.command(t, "lose gpu 2")
	value(0, 1, "gpu_up", `gpu="2"`)
	value(198, 198, "gpu_nvlink_up")
	n.command(t, "return gpu 2")
	value(1, 1, "gpu_up", `gpu="2"`)
	value(216, 216, "gpu_nvlink_up")

	value(4, 4, "gpu_nvswitch_up")
	n.command(t, "switch 2 lost")
	value(0, 1, "gpu_nvswitch_up", `nvswitch="nvswitch2"`)
	value(3, 4, "gpu_nvswitch_up")
	value(4, 4, "gpu_nvswitch_info", "pci_bus_id=", "uuid=")
	n.command(t, "switch 2 back")
	value(4, 4, "gpu_nvswitch_up")
	value(216, 216, "gpu_nvlink_up")

	n.command(t, "detach gpu 5")
	value(0, 1, "gpu_up", `gpu="5"`)
	value(1, 1, "gpu_xid_code_errors_total", `gpu="5"`, `xid="94"`)
	n.command(t, "attach gpu 5")
	value(1, 1, "gpu_up", `gpu="5"`)
	n.command(t, "xid 94 gpu 5")
	value(2, 1, "gpu_xid_code_errors_total", `gpu="5"`, `xid="94"`)

	before, _ := sumOf(n.scrape(t), "gpu_busy_seconds_total", `gpu="1"`)
	n.command(t, "mig gpu 1 3g.40gb*2")
	n.eventually(t, "GPU 1 has two instances and no links", func() bool {
		body := n.scrape(t)
		_, instances := sumOf(body, "DCGM_FI_DEV_FB_TOTAL", `gpu="1"`, "GPU_I_ID=")
		_, links := sumOf(body, "gpu_nvlink_up", `gpu="1"`)
		return instances == 2 && links == 0
	})
	n.eventually(t, "the instances have busy seconds instead of GPU 1, which has the energy", func() bool {
		body := n.scrape(t)
		_, busy := sumOf(body, "gpu_busy_seconds_total", `gpu="1"`)
		_, counts := sumOf(body, "gpu_nvlinks", `gpu="1"`)
		_, source := sumOf(body, "gpu_exporter_source_info", `data="busy"`, `source="gr_engine"`)
		_, instances := sumOf(body, "gpu_busy_seconds_total", `gpu="1"`, "GPU_I_ID=")
		_, energy := sumOf(body, "gpu_energy_joules_total", `gpu="1"`)
		return busy == 2 && instances == 2 && source == 1 && energy == 1 && counts == 0
	})
	n.command(t, "mig gpu 1 off")
	value(216, 216, "gpu_nvlink_up")
	n.eventually(t, "the busy seconds of GPU 1 continue", func() bool {
		after, series := sumOf(n.scrape(t), "gpu_busy_seconds_total", `gpu="1"`)
		return series == 1 && after >= before
	})
	value(2, 1, "gpu_xid_code_errors_total", `gpu="5"`, `xid="94"`)
	if now := n.samplerPID(); now != sampler {
		t.Errorf("the sampler was replaced: %d, %d", sampler, now)
	}
}

// TestLinkStatesAge: while the link states cannot be read, gpu_nvlink_up is withheld and
// all other values continue.
func TestLinkStatesAge(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"fail dcgmGetNvLinkLinkStatus -3", "hang dcgmGetNvLinkLinkStatus"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "dgx-h100", append(fast, "--families=default,links,exporter-detail")...)
			value := n.valueOf(t)
			value(216, 216, "gpu_nvlink_up")
			value(1, 1, "gpu_exporter_nvlink_read_up")
			n.command(t, fault)
			n.command(t, "link gpu 0 port 3 down")
			value(0, 0, "gpu_nvlink_up")
			value(0, 0, "gpu_nvlinks")
			body := n.scrape(t)
			if up, count := sumOf(body, "gpu_exporter_nvlink_read_up"); up != 0 || count != 1 {
				t.Errorf("gpu_exporter_nvlink_read_up is %v in %d series", up, count)
			}
			if _, count := sumOf(body, "gpu_exporter_nvlink_last_read_timestamp_seconds"); count != 1 {
				t.Error("gpu_exporter_nvlink_last_read_timestamp_seconds is missing")
			}
			if up, _ := sumOf(body, "gpu_up"); up != 8 {
				t.Errorf("%v GPUs are up", up)
			}
			if up, _ := sumOf(body, "gpu_nvswitch_up"); up != 4 {
				t.Errorf("%v switches are up", up)
			}
			// A sampler that starts now cannot read them either.
			n.killSampler(t)
			value(1, 1, "gpu_exporter_sampler_restarts_by_reason_total", `"killed"`)
			value(1, 1, "gpu_exporter_sampler_up")
			body = n.scrape(t)
			if _, count := sumOf(body, "gpu_nvlink_up"); count != 0 {
				t.Errorf("a new sampler reports %d links", count)
			}
			if up, count := sumOf(body, "gpu_nvswitch_up"); strings.HasPrefix(fault, "fail") && up != 4 || int(up) != count {
				t.Errorf("a new sampler reports %v of %d switches up", up, count)
			}
			n.command(t, "clear dcgmGetNvLinkLinkStatus")
			value(215, 216, "gpu_nvlink_up")
			value(4, 4, "gpu_nvswitch_up")
			value(1, 1, "gpu_exporter_nvlink_read_up")
		})
	}
}

// TestDownLinksOutliveTheSampler: a new sampler reports links as down, although no link of
// their GPU or switch is up.
func TestDownLinksOutliveTheSampler(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	const config = "sample: {interval: 200ms, max-age: 1m}\nfields: [DCGM_FI_DEV_GPU_TEMP]\ncounters: {file: []}\n"
	writeFile(t, path, config)
	n := startNode(t, "dgx-h100", "--config.file="+path, "--families=default,links")
	value := n.valueOf(t)
	value(216, 216, "gpu_nvlink_up")
	for port := range 18 {
		n.command(t, fmt.Sprintf("link gpu 0 port %d down", port))
	}
	n.command(t, "mig gpu 2 3g.40gb*2")
	// Switch 1 connects 4 links of each GPU. GPU 0 and GPU 2 have no links now.
	n.command(t, "switch 1 lost")
	downs := func() {
		t.Helper()
		value(0, 18, "gpu_nvlink_up", `gpu="0"`)
		value(0, 0, "gpu_nvlink_up", `gpu="2"`)
		value(0, 16, "gpu_nvlink_up", `nvswitch="nvswitch1"`)
		value(14, 18, "gpu_nvlink_up", `gpu="7"`)
		value(140, 198, "gpu_nvlink_up")
	}
	downs()
	restarted := func(reason string) {
		t.Helper()
		n.eventually(t, "the next sampler works", func() bool {
			body := n.scrape(t)
			up, _ := sumOf(body, "gpu_exporter_sampler_up")
			restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_by_reason_total", reason)
			return up == 1 && restarts == 1
		})
	}
	pid := n.samplerPID()
	n.killSampler(t)
	restarted(`"killed"`)
	downs()
	writeFile(t, path, strings.ReplaceAll(config, "200ms", "300ms"))
	if status, answer := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Fatalf("/-/reload: %d %s", status, answer)
	}
	restarted(`"reconfigured"`)
	downs()
	if now := n.samplerPID(); now == pid {
		t.Error("the sampler was not replaced")
	}
	n.command(t, "clear")
	value(198, 198, "gpu_nvlink_up")
}

// TestHostengineWithDifferentGPUs: a host engine returns with different GPUs. They are
// published, the previous ones are down, and no GPU takes over counts of a different one.
func TestHostengineWithDifferentGPUs(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "he.sock")
	n := launchNode(t, "h100x8", append(fast, "-r", socket)...)
	engineOf := func(scenario string) (*dcgmsim.Node, *dcgmsim.Engine) {
		different := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(t)), "sim"), t.TempDir(), scenario)
		engine, err := different.StartEngine(t.Context(), "--domain-socket", socket)
		if err != nil {
			t.Fatal(err)
		}
		return different, engine
	}
	first, engine := engineOf("h100x8")
	n.eventually(t, "eight GPUs are up", func() bool {
		_, body := n.tryGet(t, "/metrics")
		up, _ := sumOf(body, "gpu_up")
		return up == 8
	})
	if _, err := first.Command(t.Context(), "xid 94 gpu 0"); err != nil {
		t.Fatal(err)
	}
	n.eventually(t, "the XID is counted", func() bool {
		total, _ := sumOf(n.scrape(t), "gpu_xid_code_errors_total", `gpu="0"`, `xid="94"`)
		return total == 1
	})
	uuid := n.uuid(t, "0")
	if err := engine.Kill(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "different.txt")
	if err := os.WriteFile(path, []byte("seed 99\nbase mixed4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, engine = engineOf(path)
	defer engine.Close()
	n.eventually(t, "four different GPUs are up, and the first eight are down", func() bool {
		body := n.scrape(t)
		up, all := sumOf(body, "gpu_up")
		return up == 4 && all == 12
	})
	body := n.scrape(t)
	if total, _ := sumOf(body, "gpu_xid_code_errors_total", uuid, `xid="94"`); total != 1 {
		t.Errorf("the removed GPU counts %v XIDs", total)
	}
	if total, _ := sumOf(body, "gpu_xid_code_errors_total", `xid="94"`); total != 1 {
		t.Errorf("all GPUs count %v XIDs", total)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", uuid); count != 0 {
		t.Errorf("the removed GPU has %d temperatures", count)
	}
}
