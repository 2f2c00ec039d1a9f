// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// everyDerived has a value of nearly every derived field.
func everyDerived(t *testing.T) (*model.Inventory, *model.Sample) {
	t.Helper()
	inv, s := fixture.DerivedSample(t, derivedFields(t), map[model.FieldID]int64{
		66: 1, 112: 0x48, 153: 47, 158: 92, 164: 700, 170: 4, 171: -11, 173: 4, 174: 0x0199, 175: 2,
		202: 5, 236: 16, 238: 16, 240: 1_500_000_000, 241: 0, 242: 2, 243: 0, 244: 0, 245: 0, 246: 3_600_000_000_000, 247: 0,
		310: 7, 311: 1, 312: 70, 313: 10, 318: 3, 319: 0, 342: 4, 343: 1, 328: 60, 329: 5, 346: 1,
		385: 637, 386: 3, 387: 0, 388: 0, 389: 0, 393: 1, 394: 2, 395: 0, 396: 1,
		409: 1, 419: 0, 429: 2, 439: 0,
		1420: 250_000_000, 1421: 0, 1422: 0, 1423: 9, 1424: 0, 1507: 0, 1523: 4,
	})
	s.Derived[0][fixture.DerivedColumn(t, inv, 172)] = model.StringCell(1)
	return inv, s
}

func TestDerivedGolden(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	inv, s := everyDerived(t)
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	families := map[string]bool{definition.GPUClockEventSeconds.Name: true, definition.GPUClockPolicySeconds.Name: true}
	for _, r := range hardwareRows {
		families[r.family.Name] = true
	}
	for _, s := range hardwareStates {
		for _, d := range s.families {
			families[d.Name] = true
		}
	}
	var text strings.Builder
	for line := range strings.Lines(string(encode(t, f, expfmt.TypeTextPlain))) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if families[name[:strings.IndexAny(name, "{ ")]] {
			text.WriteString(line)
		}
	}
	golden(t, "derived.prom", []byte(text.String()))
}

// Each case is the values of some fields, and the series of a family on the H100: its own
// labels, if it has any, and its value.
func TestDerivedDecoding(t *testing.T) {
	type values = map[model.FieldID]int64
	for _, c := range []struct {
		fields values
		family string
		want   string
	}{
		{values{112: 0x101}, "gpu_clock_event_active", `reason="clocks_setting" 0; reason="display_clocks" 1; reason="gpu_idle" 1; ` +
			`reason="hw_power_brake" 0; reason="hw_slowdown" 0; reason="hw_thermal" 0; reason="power_cap" 0; reason="sw_thermal" 0; reason="sync_boost" 0`},
		{values{150: 40}, "gpu_temperature_celsius", `sensor="gpu" 40`},
		{values{150: 40, 140: 50}, "gpu_temperature_celsius", `sensor="gpu" 40; sensor="memory" 50`},
		{values{150: 40, 153: 47}, "gpu_temperature_celsius", ""},
		{values{150: 40, 153: 47}, "gpu_thermal_margin_celsius", "47"},
		{values{153: -3}, "gpu_thermal_margin_celsius", "-3"},
		{values{158: 92}, "gpu_slowdown_temperature_celsius", "92"},
		{values{164: 700}, "gpu_power_limit_watts", "700"},
		{values{238: 8}, "gpu_pcie_link_width", "8"},
		{values{236: 16}, "gpu_pcie_link_width_max", "16"},
		{values{66: 0}, "gpu_persistence_mode", "0"},
		{values{66: 1}, "gpu_persistence_mode", "1"},
		{values{202: 3}, "gpu_pcie_replays_total", "3"},
		{values{409: 1, 419: 2, 429: 4, 439: 8}, "gpu_nvlink_errors_total", "15"},
		{values{409: 1, 419: 2}, "gpu_nvlink_errors_total", "3"},
		{values{409: 1, 419: -2}, "gpu_nvlink_errors_total", ""},
		{nil, "gpu_nvlink_errors_total", ""},

		{values{170: 0}, "gpu_fabric_state", ""}, // no fabric
		{values{170: 1}, "gpu_fabric_state", "1"},
		{values{170: 1}, "gpu_fabric_state_info", `state="not_started" 1`},
		{values{170: 2}, "gpu_fabric_state", "2"},
		{values{170: 2}, "gpu_fabric_state_info", `state="in_progress" 1`},
		{values{170: 3, 171: 0}, "gpu_fabric_state", "0"},
		{values{170: 3, 171: 0}, "gpu_fabric_state_info", ""},
		{values{170: 4, 171: -11}, "gpu_fabric_state", "4"},
		{values{170: 4, 171: -11}, "gpu_fabric_state_info", `state="failure",error="-11" 1`},
		{values{170: 4, 171: 0}, "gpu_fabric_state_info", `state="failure" 1`},
		{values{170: 5}, "gpu_fabric_state", "5"},
		{values{170: 5}, "gpu_fabric_state_info", `state="other" 1`},
		{values{170: 6}, "gpu_fabric_state", ""}, // the driver library is too old
		{values{170: 9}, "gpu_fabric_state", "9"},
		{values{170: 9}, "gpu_fabric_state_info", `state="other" 1`},

		{values{174: 0}, "gpu_fabric_health", ""},
		{values{174: 1}, "gpu_fabric_health", "2"},
		{values{174: 1}, "gpu_fabric_health_info", `state="unhealthy",fault="degraded_bandwidth" 1`},
		{values{174: 2}, "gpu_fabric_health", "0"},
		{values{174: 2}, "gpu_fabric_health_info", ""},
		{values{174: 1<<4 | 1<<2}, "gpu_fabric_health_info", `state="unhealthy",fault="route_recovery" 1; state="unhealthy",fault="route_unhealthy" 1`},
		{values{174: 1 << 6}, "gpu_fabric_health_info", `state="unhealthy",fault="access_timeout_recovery" 1`},
		{values{174: 1 << 8}, "gpu_fabric_health", "0"},
		{values{174: 5 << 8}, "gpu_fabric_health_info", `state="unhealthy",fault="incorrect_configuration" 1`},
		{values{174: -1}, "gpu_fabric_health", ""},
		{values{175: 0}, "gpu_fabric_health", ""},
		{values{175: 1}, "gpu_fabric_health", "0"},
		{values{175: 1}, "gpu_fabric_health_info", ""},
		{values{175: 2}, "gpu_fabric_health", "2"},
		{values{175: 2}, "gpu_fabric_health_info", `state="unhealthy" 1`},
		{values{175: 3, 174: 1}, "gpu_fabric_health", "3"},
		{values{175: 3, 174: 1}, "gpu_fabric_health_info", `state="limited_capacity",fault="degraded_bandwidth" 1`},
		{values{175: 1, 174: 1}, "gpu_fabric_health", "2"}, // a contradiction is not healthy
		{values{175: 0, 174: 2}, "gpu_fabric_health", "0"},
		{values{175: 7}, "gpu_fabric_health_info", `state="other" 1`},

		{values{240: 1_500_000_000}, "gpu_violation_seconds_total", `policy="power" 1.5`},
		{values{240: -1}, "gpu_violation_seconds_total", ""},
		{values{246: 2_000_000_000}, "gpu_clocks_below_seconds_total", `clocks="application" 2`},
		{values{310: 3, 311: 1}, "gpu_ecc_errors_total", `type="correctable" 3; type="uncorrectable" 1`},
		{values{317: 6}, "gpu_ecc_location_errors_total", `location="l2",type="uncorrectable" 6`},
		{values{316: 7}, "gpu_ecc_location_errors_total", `location="l2",type="correctable" 7`},
		{values{393: 2}, "gpu_remapped_rows", `type="uncorrectable" 2`},
		{values{389: 2}, "gpu_row_remap_exhausted_banks", "2"},
		{values{390: 6}, "gpu_retired_pages", `cause="single_bit_ecc" 6`},
		{values{392: 1}, "gpu_retired_pages_pending", "1"},
		{values{395: 1}, "gpu_row_remap_failed", "1"},
		{values{396: 1}, "gpu_row_remap_pending", "1"},
		{values{1507: 1}, "gpu_memory_unrepairable", "1"},
		{values{346: 2}, "gpu_sram_threshold_exceeded", "1"},

		{values{1523: 0}, "gpu_recovery_action", "0"},
		{values{1523: 0}, "gpu_recovery_action_info", ""},
		{values{1523: 2}, "gpu_recovery_action", "2"},
		{values{1523: 2}, "gpu_recovery_action_info", `action="node_reboot" 1`},
		{values{1523: 7}, "gpu_recovery_action_info", `action="system_reboot" 1`},
		{values{1523: 99}, "gpu_recovery_action", "99"},
		{values{1523: 99}, "gpu_recovery_action_info", `action="other" 1`},
		{values{1523: -1}, "gpu_recovery_action", ""},
		{nil, "gpu_recovery_action", ""},
	} {
		f, node, _ := newTestFamilies(t, testConfig(t))
		inv, s := fixture.DerivedSample(t, derivedFields(t), c.fields)
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
		if got := ofH100(encode(t, f, expfmt.TypeTextPlain), c.family); got != c.want {
			t.Errorf("%v: %s is %q, want %q", c.fields, c.family, got, c.want)
		}
	}
}

// ofH100 returns the own labels and values of a family on the H100, sorted.
func ofH100(body []byte, family string) string {
	var found []string
	for line := range strings.Lines(series(body, family)) {
		_, own, is := strings.Cut(line, `UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1"`)
		if is {
			found = append(found, strings.TrimSpace(strings.Replace(strings.TrimPrefix(own, ","), "}", "", 1)))
		}
	}
	slices.Sort(found)
	return strings.Join(found, "; ")
}

// A value that is unknown for a moment changes no series to another one: neither the
// margin to a temperature, nor a sum of counters to a smaller one.
func TestUnknownForAMoment(t *testing.T) {
	for status, lasting := range map[model.Status]bool{
		model.StatusNotSupported: true, model.StatusNotFound: true, model.StatusExcluded: true,
		model.StatusBlank: false, model.StatusStale: false, model.StatusNoData: false, model.StatusError: false,
	} {
		f, node, _ := newTestFamilies(t, testConfig(t))
		inv, s := fixture.DerivedSample(t, derivedFields(t), map[model.FieldID]int64{150: 40, 409: 1, 419: 2, 429: 4, 439: 8})
		for _, field := range []model.FieldID{153, 429} {
			s.Derived[0][fixture.DerivedColumn(t, inv, field)] = model.NoValue(status)
		}
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
		body := encode(t, f, expfmt.TypeTextPlain)
		temperature, errors := "", ""
		if lasting {
			temperature, errors = `sensor="gpu" 40`, "11"
		}
		if got := ofH100(body, "gpu_temperature_celsius"); got != temperature {
			t.Errorf("%s: temperature %q, want %q", status, got, temperature)
		}
		if got := ofH100(body, "gpu_nvlink_errors_total"); got != errors {
			t.Errorf("%s: NVLink errors %q, want %q", status, got, errors)
		}
	}
}

// Derived fields do not count as fields of the counters file, and stale values are
// withheld.
func TestDerivedFieldsAreSeparate(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	before := series(encode(t, f, expfmt.TypeTextPlain), definition.FieldsMissingByReason.Name)
	inv, s := everyDerived(t)
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	body := encode(t, f, expfmt.TypeTextPlain)
	if after := series(body, definition.FieldsMissingByReason.Name); after != before {
		t.Errorf("fields without a value:\n%s\nwith derived ones:\n%s", before, after)
	}
	if got := series(body, "gpu_recovery_action"); !strings.Contains(got, "GPU-bbbb") || strings.Contains(got, "GPU-cccc") || strings.Contains(got, "GPU_I_ID") {
		t.Errorf("not exactly the GPUs that answer:\n%s", got)
	}
	*clock = epoch.Add(time.Hour)
	if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_recovery_action"); got != "" {
		t.Errorf("after an hour without a sample:\n%s", got)
	}
}

// Reasons that the driver does not count are integrated from sample to sample. They
// continue after a restart of the sampler and a loss of the GPU.
func TestClockEventSeconds(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	seconds := func(reason string) string {
		body := encode(t, f, expfmt.TypeTextPlain)
		for line := range strings.Lines(series(body, "gpu_clock_event_seconds_total") + series(body, "gpu_clock_policy_seconds_total")) {
			if strings.Contains(line, "GPU-aaaa") && strings.Contains(line, `reason="`+reason+`"`) {
				return strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])
			}
		}
		return ""
	}
	at := epoch
	sample := func(after time.Duration, values map[model.FieldID]int64) {
		t.Helper()
		at = at.Add(after)
		*clock = at
		inv, s := fixture.DerivedSample(t, derivedFields(t), values)
		s.Time = at
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	}
	check := func(what string, want map[string]string) {
		t.Helper()
		for reason, value := range want {
			if got := seconds(reason); got != value {
				t.Errorf("%s: %s is %q, want %q", what, reason, got, value)
			}
		}
	}
	const idle, cap, slowdown = 1, 4, 8
	sample(0, map[model.FieldID]int64{112: idle, 1420: 7e9})
	check("first", map[string]string{"gpu_idle": "0", "power_cap": "7", "hw_thermal": "0"})
	sample(10*time.Second, map[model.FieldID]int64{112: idle | slowdown, 1420: 8e9})
	check("idle at both ends, slow at one", map[string]string{"gpu_idle": "10", "hw_slowdown": "5", "power_cap": "8"})
	sample(10*time.Second, map[model.FieldID]int64{112: cap})
	check("a driver count is absent, not replaced by samples", map[string]string{"gpu_idle": "15", "hw_slowdown": "10", "power_cap": ""})
	sample(10*time.Second, map[model.FieldID]int64{112: cap, 1420: 9e9, 1423: 5e9})
	check("a count from samples continues from samples", map[string]string{"hw_thermal": "0", "power_cap": "9"})
	sample(10*time.Second, nil)
	sample(10*time.Second, map[model.FieldID]int64{112: idle})
	check("a time without values is left out", map[string]string{"gpu_idle": "15"})
	sample(10*time.Second, map[model.FieldID]int64{112: idle})
	check("and then the count continues", map[string]string{"gpu_idle": "25"})
	sample(time.Hour, map[model.FieldID]int64{112: idle})
	check("an hour without samples", map[string]string{"gpu_idle": "25"})
	*clock = at.Add(time.Hour)
	check("a count from samples remains", map[string]string{"gpu_idle": "25", "power_cap": ""})
}
