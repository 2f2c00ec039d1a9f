// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// Only the selected families are built, and gpu_exporter_family_group_info reports the
// groups. The counters do not depend on the selection.
func TestSelectedFamilies(t *testing.T) {
	for _, list := range []string{"lean", "default", "full", "xids", "full,-errors,-exporter", "-full"} {
		cfg := conditionsConfig(t)
		cfg.Selected = selection(t, list)
		cfg.Owners = OwnerForm{LabelsFamily: true, Usage: true}
		f, node, _ := newTestFamilies(t, cfg)
		f.owners = testOwners()
		inv, s := everyDerived(t) // all fields, as before a reload
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s}, wire.Frame{Health: testHealth()}, wire.Frame{Peers: testPeers()}, wire.Frame{Processes: testProcesses()})
		body := encode(t, f, expfmt.TypeTextPlain)
		found := familiesOf(t, []string{string(body)})
		for _, g := range definition.Groups() {
			for _, d := range g.Families {
				if len(found[d.Name]) > 0 && !slices.Contains(cfg.Selected.Groups(), g.Name) {
					t.Errorf("%s: %s is published", list, d.Name)
				}
			}
		}
		if len(found["DCGM_FI_DEV_GPU_TEMP"]) == 0 {
			t.Errorf("%s: the counters are missing", list)
		}
		var groups []string
		for _, labels := range found[definition.SelectedGroup.Name] {
			groups = append(groups, labels["group"])
		}
		if want := cfg.Selected.Groups(); cfg.Selected.Has(&definition.SelectedGroup) && !slices.Equal(groups, want) {
			t.Errorf("%s: the groups are %v, want %v", list, groups, want)
		}
	}
}

// What no selected family or counter needs is not read.
func TestNeeds(t *testing.T) {
	computed := func(c field.ComputedCounter) []field.Counter { return []field.Counter{{Computed: c}} }
	for name, tc := range map[string]struct {
		list                 string
		counters             []field.Counter
		virtual              bool
		peers, health, usage bool
	}{
		"lean":                           {list: "lean"},
		"default":                        {list: "default", health: true, usage: true},
		"full":                           {list: "full", peers: true, health: true, usage: true},
		"peers with the health checks":   {list: "lean,peers", peers: true, health: true},
		"health alone":                   {list: "health-detail", health: true},
		"usage in detail":                {list: "usage-detail", usage: true},
		"a counter of P2P":               {list: "lean", counters: computed(field.P2PStatus), peers: true, health: true},
		"a counter of health":            {list: "lean", counters: computed(field.GPUHealthStatus), health: true},
		"a counter of clock events":      {list: "lean", counters: computed(field.ClockEventsCount)},
		"dcgm-exporter's form of owners": {list: "lean", virtual: true, usage: true},
	} {
		cfg := Config{Selected: selection(t, tc.list), Counters: tc.counters, Owners: OwnerForm{VirtualGPUs: tc.virtual}}
		if cfg.NeedsPeers() != tc.peers || cfg.NeedsHealth() != tc.health || cfg.NeedsUsage() != tc.usage {
			t.Errorf("%s: peers %v, health %v, usage %v", name, cfg.NeedsPeers(), cfg.NeedsHealth(), cfg.NeedsUsage())
		}
	}
}

// The fields that are read in addition to those of the counters are those of the
// selected families.
func TestFieldsOfGroups(t *testing.T) {
	for list, want := range map[string][]model.FieldID{
		"lean":                 {1523},
		"-full":                nil,
		"energy,engines,busy":  nil,
		"limits":               {66, 140, 150, 153, 158, 164, 236, 238},
		"clocks":               {112, 1420, 1421, 1422, 1423, 1424},
		"nvlink":               {409, 419, 429, 439, 1206, 1209, 1212},
		"fabric":               {170, 171, 172, 173, 174, 175},
		"errors":               {202, 310, 311, 346, 389, 392, 395, 396, 1507},
		"links,peers":          nil,
		"health,health-detail": nil,
	} {
		cfg := Config{Selected: selection(t, list)}
		if got := cfg.DerivedFields(); !slices.Equal(got, want) {
			t.Errorf("%s reads %v, want %v", list, got, want)
		}
		switches := []model.FieldID(nil)
		if list == "nvlink" {
			switches = []model.FieldID{858, 864}
		}
		if got := cfg.SwitchFields(); !slices.Equal(got, switches) {
			t.Errorf("%s reads %v of switches, want %v", list, got, switches)
		}
	}
	for _, c := range []field.ComputedCounter{field.ClockEventsCount, field.ClockEventsTotal} {
		cfg := Config{Counters: []field.Counter{{Computed: c}}}
		if got := cfg.DerivedFields(); !slices.Equal(got, []model.FieldID{112, 1420, 1421, 1422, 1423, 1424}) {
			t.Errorf("computed counter %v reads %v", c, got)
		}
	}
	tracked := func(list string) (ids []model.FieldID) {
		s := selection(t, list)
		for _, f := range state.TrackedFields(nil, (&Config{Selected: s}).Integrates, time.Second) {
			ids = append(ids, f.Field)
		}
		return ids
	}
	if got := tracked("lean"); !slices.Equal(got, []model.FieldID{1001, 203}) {
		t.Errorf("lean tracks %v", got)
	}
	if got := tracked("default,-engines,-traffic"); !slices.Equal(got, []model.FieldID{1001, 203, 156, 155}) {
		t.Errorf("default without engines and traffic tracks %v", got)
	}
	if got := tracked("devices"); got != nil {
		t.Errorf("devices track %v", got)
	}
}

// A total exists at 0 from the start. Its parts by reason follow the first occurrence.
func TestByReason(t *testing.T) {
	type counts = map[string]uint64
	for name, tc := range map[string]struct {
		restarts, rejected, failures counts
		want                         map[string]string
	}{
		"nothing occurred": {
			counts{"crash": 0, "timeout": 0}, counts{}, counts{"timeout": 0},
			map[string]string{
				definition.SamplerRestarts.Name: "gpu_exporter_sampler_restarts_total 0\n", definition.SamplerRestartsByReason.Name: "",
				definition.FramesRejected.Name: "gpu_exporter_frames_rejected_total 0\n", definition.FramesRejectedByReason.Name: "",
				definition.OwnerSourceFailures.Name: `gpu_exporter_owner_source_failures_total{source="slurm"} 0` + "\n" + `gpu_exporter_owner_source_failures_total{source="pod_resources"} 0` + "\n", definition.OwnerSourceFailuresByReason.Name: "",
			},
		},
		"several reasons": {
			counts{"timeout": 2, "crash": 1, "exit": 0}, counts{"future": 3}, counts{"timeout": 1, "forbidden": 2},
			map[string]string{
				definition.SamplerRestarts.Name:         "gpu_exporter_sampler_restarts_total 3\n",
				definition.SamplerRestartsByReason.Name: `gpu_exporter_sampler_restarts_by_reason_total{reason="crash"} 1` + "\n" + `gpu_exporter_sampler_restarts_by_reason_total{reason="timeout"} 2` + "\n",
				definition.FramesRejected.Name:          "gpu_exporter_frames_rejected_total 3\n",
				definition.FramesRejectedByReason.Name:  `gpu_exporter_frames_rejected_by_reason_total{reason="future"} 3` + "\n",
				definition.OwnerSourceFailures.Name:     `gpu_exporter_owner_source_failures_total{source="slurm"} 3` + "\n" + `gpu_exporter_owner_source_failures_total{source="pod_resources"} 0` + "\n",
				definition.OwnerSourceFailuresByReason.Name: `gpu_exporter_owner_source_failures_by_reason_total{source="slurm",reason="forbidden"} 2` + "\n" +
					`gpu_exporter_owner_source_failures_by_reason_total{source="slurm",reason="timeout"} 1` + "\n",
			},
		},
	} {
		f, _, _ := newTestFamilies(t, testConfig(t))
		f.supervisor = fixedSupervisor{Restarts: tc.restarts, FramesRejected: tc.rejected}
		f.owners = fixedOwners{sources: map[string]SourceStatus{"slurm": {Up: true, Failures: tc.failures}}}
		body := encode(t, f, expfmt.TypeTextPlain)
		for family, want := range tc.want {
			if got := series(body, family); got != want {
				t.Errorf("%s: %s is\n%swant\n%s", name, family, got, want)
			}
		}
	}

	// Fields without a value are counted likewise.
	f, node, _ := newTestFamilies(t, testConfig(t))
	inv, s := testInventory(t), testSample(testInventory(t))
	for _, row := range s.Rows {
		for i := range row {
			row[i] = model.Int64Cell(1)
		}
	}
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	body := encode(t, f, expfmt.TypeTextPlain)
	if got := series(body, definition.FieldsMissing.Name) + series(body, definition.FieldsMissingByReason.Name); got != "gpu_exporter_fields_missing 0\n" {
		t.Errorf("all fields have values:\n%s", got)
	}
}

// The usual states of owner sources are at most four series for each.
func TestOwnerSources(t *testing.T) {
	f, _, _ := newTestFamilies(t, testConfig(t))
	f.owners = fixedOwners{
		status:    SourceStatus{Up: true, LastSuccess: epoch},
		sources:   map[string]SourceStatus{"slurm": {Up: true, LastSuccess: epoch.Add(time.Second)}, "never": {}, "api_server": {Part: true, Failures: map[string]uint64{"forbidden": 1}}},
		ownership: &Ownership{Known: true, Mapped: true, Unmatched: 2, Strays: map[string]int{"slurm": 1}},
	}
	body := encode(t, f, expfmt.TypeTextPlain)
	for family, want := range map[*definition.Family]string{
		&definition.OwnerSourceUp:               `never 0; slurm 1; pod_resources 1`,
		&definition.OwnerSourceLastSuccess:      `slurm 1.70000000125e+09; pod_resources 1.70000000025e+09`,
		&definition.OwnerSourceUnmatchedDevices: `slurm 1; pod_resources 2`,
		&definition.OwnerSourceFailures:         `api_server 1; never 0; slurm 0; pod_resources 0`,
	} {
		var got []string
		for line := range strings.Lines(series(body, family.Name)) {
			_, own, _ := strings.Cut(strings.TrimSpace(line), `source="`)
			got = append(got, strings.Replace(own, `"}`, "", 1))
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s: %s, want %s", family.Name, strings.Join(got, "; "), want)
		}
	}
}
