// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
)

const conditionCounters = `
DCGM_FI_DEV_GPU_TEMP, gauge, Temperature.
DCGM_EXP_CLOCK_EVENTS_COUNT, gauge, Clock events in the window.
DCGM_EXP_CLOCK_EVENTS_TOTAL, counter, Clock events.
DCGM_EXP_GPU_HEALTH_STATUS, gauge, Health.
DCGM_EXP_P2P_STATUS, gauge, P2P.
`

// TestConditions: each fault of the hardware changes the family of its condition for the
// affected GPU only. Accumulated counters continue after a sampler restart.
func TestConditions(t *testing.T) {
	t.Parallel()
	n := startNode(t, "dgx-h100", "--families=full", "--sample.interval=200ms", "--health.interval=1s", "--counters.file="+countersFile(t, conditionCounters))
	for _, c := range []struct {
		command, family, match string
		want                   float64
		info                   string // label of the state, in a series that different GPUs do not have
	}{
		{"reason gpu 2 hw_slowdown on", "gpu_clock_event_active", `reason="hw_slowdown"`, 1, ""},
		{"recovery gpu 2 reboot", "gpu_recovery_action", "", 2, `action="node_reboot"`},
		{"fabric gpu 2 failure -11", "gpu_fabric_state", "", 4, `state="failure",error="-11"`},
		{"remap gpu 2 failure 1", "gpu_row_remap_failed", "", 1, ""},
		{"ecc gpu 2 dbe 3 sram", "gpu_ecc_location_errors_total", `location="sram",type="uncorrectable"`, 3, ""},
		{"link gpu 2 port 3 down", "gpu_health_system_status", `system="nvlink"`, 2, ""},
		{"", "gpu_health_status", "", 2, ""},
		{"", "gpu_nvlinks", `state="down"`, 1, ""},
	} {
		if c.command != "" {
			n.command(t, c.command)
		}
		n.eventually(t, c.family+" after "+c.command, func() bool {
			body := n.scrape(t)
			one, _ := sumOf(body, c.family, `gpu="2"`, c.match)
			other, found := sumOf(body, c.family, `gpu="3"`, c.match)
			return one == c.want && found == 1 && other == 0
		})
		if c.info != "" {
			body := n.scrape(t)
			_, named := sumOf(body, c.family+"_info", `gpu="2"`, c.info)
			if _, all := sumOf(body, c.family+"_info"); named != 1 || all != 1 {
				t.Errorf("after %s: %s_info has %d series, %d of them with %s", c.command, c.family, all, named, c.info)
			}
		}
	}
	body := n.scrape(t)
	if got, found := sumOf(body, "gpu_ecc_errors_total", `gpu="2"`); got != 3 || found != 2 {
		t.Errorf("%v errors in %d series, want 3 in 2", got, found)
	}
	n.eventually(t, "a health check reports the recovery action and the errors", func() bool {
		body := n.scrape(t)
		driver, _ := sumOf(body, "gpu_health_incident_info", `gpu="2"`, `error="GPU_RECOVERY_REBOOT"`, `system="driver"`)
		memory, _ := sumOf(body, "DCGM_EXP_GPU_HEALTH_STATUS", `gpu="2"`, `health_watch="MEM"`)
		return driver == 1 && memory == 20
	})
	if _, found := sumOf(n.scrape(t), "DCGM_EXP_P2P_STATUS", `link_status="OK"`); found != 8*7 {
		t.Errorf("%d pairs of GPUs have P2P status OK, want 56", found)
	}

	slow := func(family string) float64 {
		v, _ := sumOf(n.scrape(t), family, `gpu="2"`, `"hw_slowdown"`)
		return v
	}
	n.eventually(t, "1 s of slowdown is counted", func() bool { return slow("gpu_clock_event_seconds_total") > 1 })
	seconds, samples, sampler := slow("gpu_clock_event_seconds_total"), slow("DCGM_EXP_CLOCK_EVENTS_TOTAL"), n.samplerPID()
	n.command(t, "crash dcgmEntitiesGetLatestValues")
	n.eventually(t, "the sampler exits", func() bool { return n.samplerPID() != sampler })
	n.command(t, "clear dcgmEntitiesGetLatestValues")
	n.eventually(t, "1 s more of slowdown is counted", func() bool {
		now, count := slow("gpu_clock_event_seconds_total"), slow("DCGM_EXP_CLOCK_EVENTS_TOTAL")
		if now < seconds {
			t.Fatalf("slowdown decreased to %v s from %v s", now, seconds)
		}
		return now > seconds+1 && count > samples+3
	})
}
