// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// derivedSample returns the fixture with derived fields. The H100 has the given ones,
// the A100 only its recovery action, and the third GPU is lost.
func derivedSample(t *testing.T, values map[model.FieldID]int64) (*model.Inventory, *model.Sample) {
	t.Helper()
	inv := testInventory(t)
	inv.Derived = DerivedFields()
	s := testSample(inv)
	s.Strings = append(s.Strings, "7a9d4a0e-6d0e-4a6c-8f0b-0c5a2f3b1d99")
	s.Derived = make([][]model.Cell, len(inv.Entities))
	for gpu, status := range []model.Status{model.StatusNotSupported, model.StatusNotSupported, model.StatusEntityLost} {
		s.Derived[gpu] = slices.Repeat([]model.Cell{model.NoValue(status)}, len(inv.Derived))
	}
	for field, value := range values {
		s.Derived[0][derivedColumn(t, inv, field)] = model.Int64Cell(value)
	}
	s.Derived[1][derivedColumn(t, inv, 1523)] = model.Int64Cell(0)
	return inv, s
}

func derivedColumn(t *testing.T, inv *model.Inventory, field model.FieldID) int {
	t.Helper()
	column := slices.Index(inv.Derived, field)
	if column < 0 {
		t.Fatalf("field %d is not read", field)
	}
	return column
}

// everyDerived has a value of nearly every derived field.
func everyDerived(t *testing.T) (*model.Inventory, *model.Sample) {
	t.Helper()
	inv, s := derivedSample(t, map[model.FieldID]int64{
		112: 0x48, 170: 3, 171: 0, 173: 4, 174: 0x0199, 175: 2,
		240: 1_500_000_000, 241: 0, 242: 2, 243: 0, 244: 0, 245: 0, 246: 3_600_000_000_000, 247: 0,
		310: 7, 311: 1, 312: 70, 313: 10, 318: 3, 319: 0, 342: 4, 343: 1, 328: 60, 329: 5, 346: 1,
		385: 637, 386: 3, 387: 0, 388: 0, 389: 0, 393: 1, 394: 2, 395: 0, 396: 1,
		1420: 250_000_000, 1421: 0, 1422: 0, 1423: 9, 1424: 0, 1507: 0, 1523: 4,
	})
	s.Derived[0][derivedColumn(t, inv, 172)] = model.StringCell(1)
	return inv, s
}

func TestDerivedGolden(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	inv, s := everyDerived(t)
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	families := map[string]bool{gpuClockEventSeconds.Name: true, gpuFabricInfo.Name: true}
	for _, r := range hardwareRows {
		families[r.family.Name] = true
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

// Each case is the value of a field and of the series on the H100; "" is no series.
func TestDerivedDecoding(t *testing.T) {
	for _, c := range []struct {
		field model.FieldID
		value int64
		name  string
		label string // of the wanted series; "" is any of the family
		want  string // its value
	}{
		{112, 0, "gpu_clock_event_active", `reason="gpu_idle"`, "0"},
		{112, 1, "gpu_clock_event_active", `reason="gpu_idle"`, "1"},
		{112, 0x100, "gpu_clock_event_active", `reason="display_clocks"`, "1"},
		{112, 0x80, "gpu_clock_event_active", `reason="hw_power_brake"`, "1"},
		{112, 0x80, "gpu_clock_event_active", `reason="hw_thermal"`, "0"},
		{170, 0, "gpu_fabric_state", "", ""}, // no fabric
		{170, 2, "gpu_fabric_state", `state="in_progress"`, "1"},
		{170, 4, "gpu_fabric_state", `state="failure"`, "1"},
		{170, 5, "gpu_fabric_state", `state="other"`, "1"},
		{170, 6, "gpu_fabric_state", "", ""}, // the driver library is too old
		{170, 9, "gpu_fabric_state", `state="other"`, "1"},
		{171, -11, "gpu_fabric_error_code", "", "-11"},
		{174, 0, "gpu_fabric_fault", "", ""},
		{174, 1, "gpu_fabric_fault", `fault="degraded_bandwidth"`, "1"},
		{174, 2, "gpu_fabric_fault", `fault="degraded_bandwidth"`, "0"},
		{174, 2, "gpu_fabric_fault", `fault="route_recovery"`, ""},
		{174, 1 << 4, "gpu_fabric_fault", `fault="route_unhealthy"`, "1"},
		{174, 1 << 8, "gpu_fabric_fault", `fault="incorrect_configuration"`, "0"},
		{174, 5 << 8, "gpu_fabric_fault", `fault="incorrect_configuration"`, "1"},
		{175, 0, "gpu_fabric_health", "", ""},
		{175, 3, "gpu_fabric_health", `state="limited_capacity"`, "1"},
		{240, 1_500_000_000, "gpu_violation_seconds_total", `policy="power"`, "1.5"},
		{240, -1, "gpu_violation_seconds_total", "", ""},
		{246, 2_000_000_000, "gpu_clocks_below_seconds_total", `clocks="application"`, "2"},
		{317, 6, "gpu_ecc_location_errors_total", `location="l2",type="uncorrected"`, "6"},
		{390, 6, "gpu_retired_pages", `cause="single_bit_ecc"`, "6"},
		{392, 1, "gpu_retired_pages_pending", "", "1"},
		{395, 1, "gpu_row_remap_failed", "", "1"},
		{1523, 0, "gpu_recovery_action", `action="none"`, "1"},
		{1523, 2, "gpu_recovery_action", `action="node_reboot"`, "1"},
		{1523, 2, "gpu_recovery_action", `action="none"`, "0"},
		{1523, 99, "gpu_recovery_action", `action="other"`, "1"},
	} {
		f, node, _ := newTestFamilies(t, testConfig(t))
		inv, s := derivedSample(t, map[model.FieldID]int64{c.field: c.value})
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
		got := ""
		for line := range strings.Lines(series(encode(t, f, expfmt.TypeTextPlain), c.name)) {
			if strings.Contains(line, "GPU-aaaa") && strings.Contains(line, c.label) {
				got = strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])
			}
		}
		if got != c.want {
			t.Errorf("field %d is %d: %s{%s} is %q, want %q", c.field, c.value, c.name, c.label, got, c.want)
		}
	}
}

// Derived fields do not count as fields of the counters file, and stale values are
// withheld.
func TestDerivedFieldsAreSeparate(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	before := series(encode(t, f, expfmt.TypeTextPlain), fieldsUnsupported.Name)
	inv, s := everyDerived(t)
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	body := encode(t, f, expfmt.TypeTextPlain)
	if after := series(body, fieldsUnsupported.Name); after != before {
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
		for line := range strings.Lines(series(encode(t, f, expfmt.TypeTextPlain), "gpu_clock_event_seconds_total")) {
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
		inv, s := derivedSample(t, values)
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
