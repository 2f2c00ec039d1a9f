// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/goldentest"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
	"gpu_exporter/etc"
)

// render returns the page without its style and script.
func render(t *testing.T, s *Status) string {
	t.Helper()
	page, err := NewPages(func() *Status { return s }, true).HTML()
	if err != nil {
		t.Fatal(err)
	}
	short := regexp.MustCompile(`(?s)(<style>|<script>).*?(</style>|</script>)`).ReplaceAllString(string(page), "$1$2")
	return regexp.MustCompile(`\n(\s*\n)+`).ReplaceAllString(short, "\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	goldentest.File(t, filepath.Join("testdata", name), got, "golden")
}

// The page and the JSON of a node with a lost GPU, a MIG GPU and owners; of a node whose
// driver hangs; and of one without a library.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Input){
		"node": func(in *Input) {
			own(in)
			reportXID(in, 2, 79, 3*time.Minute)
			reportXID(in, 3, 31, 25*time.Hour)
			in.Summary, in.Steering = "node h100x8", "DCGMSIM_STATE=/tmp/x dcgmsimd --command"
		},
		"hung-driver": func(in *Input) {
			own(in)
			in.Age, in.Fresh, in.Ready, in.NotReady = 45*time.Second, false, false, "the newest sample is 45s old"
			in.Time = epoch.Add(in.Age)
			in.Sampler = model.SamplerStatus{NextStart: in.Time.Add(time.Second), LastFailure: model.Failure{Reason: "engine_stalled", Message: "no new values"}}
		},
		"missing-library": func(in *Input) {
			in.Inventory, in.Sample, in.Fresh, in.Age = nil, nil, false, 0
			in.Ready, in.NotReady = false, "no sample yet: loading libdcgm.so.4: not found"
			in.Sampler = model.SamplerStatus{LastFailure: model.Failure{Reason: "library_missing", Message: "loading libdcgm.so.4: not found"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := testInput(t)
			change(in)
			s := Build(in)
			s.Settings = []Setting{{"sample.interval", "5s", false}, {"kubernetes.enabled", "true", true}, {"simulate", "", false}}
			golden(t, name+".html", render(t, s))
			text, err := NewPages(func() *Status { return s }, false).JSON()
			if err != nil {
				t.Fatal(err)
			}
			var indented bytes.Buffer
			if err := json.Indent(&indented, text, "", "  "); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", indented.String())
		})
	}
}

// GPUs are ordered worst first, and each has the reason of its state first.
func TestStates(t *testing.T) {
	t.Parallel()
	base := testInput(t).Inventory.Entities[0]
	in := testInput(t)
	var entities model.Entities
	var rows, derived model.Rows
	for i := range 10 {
		e := base
		e.ID, e.UUID = uint32(i), "GPU-"+string(rune('a'+i))
		entities, rows = append(entities, e), append(rows, slices.Clone(in.Sample.Rows[0]))
		derived = append(derived, slices.Clone(in.Sample.Derived[0]))
		derived[i][5] = model.Int64Cell(0)
	}
	in.Inventory.Entities, in.Sample.Rows, in.Sample.Derived = entities, rows, derived
	reportXID(in, 0, 31, time.Minute)            // of the application
	reportXID(in, 1, 94, time.Minute)            // a warning
	reportXID(in, 2, 79, 25*time.Hour)           // history
	derived[3][3] = model.Int64Cell(1)           // remap pending
	derived[4][4] = model.Int64Cell(1)           // remap failed
	reportXID(in, 5, 79, time.Minute)            // critical
	derived[6][0] = model.Int64Cell(1)           // reset
	entities[7].State = model.EntityLost         // lost
	derived[8][5] = model.Int64Cell(1<<3 | 1<<7) // power brake
	in.Checked = &model.Health{Incidents: []model.HealthIncident{
		{Entity: 9, System: 4, Result: model.HealthFail, Code: 1},
		{Entity: 6, System: 9, Result: model.HealthFail, Code: 125}, // GPU_RECOVERY_RESET
	}}
	in.Gone = model.Entities{{Kind: model.KindGPU, ID: 10, UUID: "GPU-gone", Minor: model.Unknown}}
	want := []struct {
		id    uint32
		state State
		text  string
	}{
		{7, Lost, "fell off the bus"}, {10, Lost, "no longer lists"}, {6, Recovery, "gpu_reset"}, {5, CriticalXID, "XID 79"},
		{4, Unhealthy, "could not be remapped"}, {9, Unhealthy, "memory failed"},
		{1, Warning, "XID 94"}, {3, Warning, "waits for remapping"}, {8, Warning, "power brake"}, {0, Healthy, ""}, {2, Healthy, ""},
	}
	s := Build(in)
	for i, w := range want {
		g := s.GPUs[i]
		if g.ID != w.id || g.State != w.state || w.text != "" && (len(g.Problems) == 0 || !strings.Contains(g.Problems[0].Text, w.text)) {
			t.Errorf("row %d is GPU %d, %s %+v; want %+v", i, g.ID, g.State, g.Problems, w)
		}
		if len(g.Problems) > 1 {
			t.Errorf("GPU %d has the same problem twice: %+v", g.ID, g.Problems)
		}
		for _, p := range g.Problems {
			if p.Remedy == "" {
				t.Errorf("GPU %d: no remedy of %q", g.ID, p.Text)
			}
		}
	}
	if s.State != Lost || s.Summary != "11 GPUs: 2 lost, 1 recovery needed, 1 critical XID, 2 unhealthy, 3 warning, 2 healthy" {
		t.Errorf("%s, %s", s.State, s.Summary)
	}
}

// Without a fresh sample, every GPU is unknown or lost, and no value is shown. The same
// holds when the engine has failed.
func TestUnknown(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Input){
		"stale":       func(in *Input) { in.Fresh = false },
		"no sample":   func(in *Input) { in.Sample, in.Fresh = nil, false },
		"engine gone": func(in *Input) { in.Sampler.EngineGone = true },
	} {
		in := testInput(t)
		change(in)
		s := Build(in)
		for _, g := range s.GPUs {
			want := Unknown
			if g.ID == 2 {
				want = Lost
			}
			if g.State != want {
				t.Errorf("%s: GPU %d is %s", name, g.ID, g.State)
			}
			if g.Temperature.Value != nil && name != "engine gone" {
				t.Errorf("%s: GPU %d has %v °C", name, g.ID, *g.Temperature.Value)
			}
		}
	}
}

// A value has either a number or a reason, and a missing one has its own text on the page.
func TestValues(t *testing.T) {
	t.Parallel()
	in := testInput(t)
	s := Build(in)
	var check func(path string, v reflect.Value)
	check = func(path string, v reflect.Value) {
		switch {
		case v.Type() == reflect.TypeFor[Value]():
			if value := v.Interface().(Value); (value.Value == nil) == (value.Missing == "") {
				t.Errorf("%s is %+v", path, value)
			}
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() && f.Type != reflect.TypeFor[time.Time]() {
					check(path+"."+f.Name, v.Field(i))
				}
			}
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				check(path, v.Index(i))
			}
		}
	}
	check("Status", reflect.ValueOf(*s))
	byID := map[uint32]GPU{}
	for _, g := range s.GPUs {
		byID[g.ID] = g
	}
	whole, mig, lost := byID[0], byID[1], byID[2]
	for what, got := range map[string][2]any{
		"load":                      {*whole.Load.Value, 0.72},
		"memory":                    {*whole.MemoryUsed.Value, 48000. * mebibyte},
		"memory in total":           {*whole.MemoryTotal.Value, 81559. * mebibyte},
		"memory of an instance":     {*mig.Instances[0].MemoryTotal.Value, 40100. * mebibyte},
		"power limit":               {*whole.PowerLimit.Value, 700.},
		"clock reasons":             {strings.Join(whole.ClockReasons, " "), "power_cap"},
		"temperature of a MIG GPU":  {*mig.Temperature.Value, 41.},
		"memory of a MIG GPU":       {mig.MemoryUsed.Missing, perInstance},
		"an idle instance":          {*mig.Instances[0].Load.Value, 0.},
		"load of the other":         {mig.Instances[1].Load.Missing, "blank"},
		"total without its parts":   {mig.Instances[1].MemoryTotal.Missing, "blank"},
		"margin of a MIG GPU":       {mig.ThermalMargin.Missing, "not_supported"},
		"temperature of a lost GPU": {lost.Temperature.Missing, "entity_lost"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %v, want %v", what, got[0], got[1])
		}
	}
	in.Inventory.Columns[model.KindGPU][0] = 204 // another field in place of the temperature
	if got := Build(in).GPUs[1]; got.ID != 0 || got.Temperature.Missing != notRead {
		t.Errorf("GPU %d: the temperature that is not read is %+v", got.ID, got.Temperature)
	}
	for value, want := range map[Value]figure{
		{Missing: notRead}:         {"not read", classAbsent, "The counters do not include the field."},
		{Missing: "not_supported"}: {"not supported", classAbsent, ""},
		{Missing: "blank"}:         {"unknown", classUnknown, "Reason: blank"},
	} {
		if got := value.figure(1, "%.0f", ""); got != want {
			t.Errorf("%+v is shown as %+v, want %+v", value, got, want)
		}
	}
}

func TestOwners(t *testing.T) {
	t.Parallel()
	in := testInput(t)
	if g := Build(in).GPUs[1]; g.Held != noSource {
		t.Errorf("without sources, GPU %d is %s", g.ID, g.Held)
	}
	own(in)
	holding := func() map[string]Holding {
		all := map[string]Holding{}
		for _, g := range Build(in).GPUs {
			all[g.UUID] = g.Holding
			for _, instance := range g.Instances {
				all[instance.Profile+" "+string(rune('0'+instance.ID))] = instance.Holding
			}
		}
		return all
	}
	all := holding()
	for device, want := range map[string]string{"GPU-aaaa": held, "GPU-bbbb": perInstance, "GPU-cccc": free, "3g.40gb 1": held, "3g.40gb 2": free} {
		if all[device].Held != want {
			t.Errorf("%s is %s, want %s", device, all[device].Held, want)
		}
	}
	want := []Owner{
		{Kind: "pod", Namespace: "ml", Name: "train-0", Container: "main", Detail: "Job train", Shares: 2},
		{Kind: "job", Name: "4711", Detail: "1000, gpu", Shares: 1},
	}
	if got := all["GPU-aaaa"].Owners; !reflect.DeepEqual(got, want) {
		t.Errorf("owners %+v, want %+v", got, want)
	}
	in.Ownership.Entities[4].Unknown = true
	if got := holding()["3g.40gb 2"].Held; got != notKnown {
		t.Errorf("an instance with an unknown holder is %s", got)
	}
	in.Ownership.Known = false
	if got := holding()["GPU-cccc"].Held; got != notKnown {
		t.Errorf("with an incomplete source, a GPU is %s", got)
	}
	in.Owners[0].Findings[0].State = owners.Broken
	if s := Build(in); len(s.Problems) != 1 || s.Problems[0].State != Warning {
		t.Errorf("problems of a broken source: %+v", s.Problems)
	}
}

// Every text of the page is escaped: no name adds an element or an attribute.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	in := testInput(t)
	own(in)
	reportXID(in, 0, 79, time.Minute)
	in.Summary, in.Steering = "node", "steer"
	in.Sampler.LastFailure.Message = "x"
	s := Build(in)
	usual := render(t, s)
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			if v.Type() != reflect.TypeFor[State]() && v.String() != "" && v.String() != held && v.String() != "pod" && v.String() != "sampling" {
				v.SetString(hostile)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					fill(v.Field(i))
				}
			}
		case reflect.Slice:
			for i := range v.Len() {
				fill(v.Index(i))
			}
		case reflect.Pointer:
			if !v.IsNil() {
				fill(v.Elem())
			}
		}
	}
	fill(reflect.ValueOf(s))
	page := render(t, s)
	for _, tag := range []string{"<script", "<style", "</style", "<img", "<title", "<a "} {
		if got, want := strings.Count(page, tag), strings.Count(usual, tag); got != want {
			t.Errorf("%d × %s, want %d", got, tag, want)
		}
	}
	if strings.Contains(page, `"><script`) || strings.Contains(page, `onerror=alert(1)>`) {
		t.Error("a name is not escaped")
	}
	if strings.Count(page, "owned") < 30 {
		t.Errorf("the names are shown %d times only", strings.Count(page, "owned"))
	}
}

// The policy allows exactly the style and the script of the page, and the page loads
// nothing else.
func TestPolicy(t *testing.T) {
	t.Parallel()
	page, err := NewPages(func() *Status { return Build(testInput(t)) }, false).HTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"<style>" + pageStyle + "</style>", "<script>" + pageScript + "</script>"} {
		if bytes.Count(page, []byte(text)) != 1 {
			t.Errorf("the page does not have %.40s… as it is", text)
		}
	}
	if loads := regexp.MustCompile(`(?i)\b(src|srcset|style|on[a-z]+)=|@import|url\(|https?://`).FindString(string(page)); loads != "" {
		t.Errorf("the page has %q", loads)
	}
	if strings.Contains(Policy(), "unsafe") {
		t.Errorf("policy %s", Policy())
	}
}

// Each recovery action, and each XID that calls for action, has the remedy of its alert.
func TestRemedies(t *testing.T) {
	t.Parallel()
	recovery := definition.RecoveryRemedies()
	for i, name := range field.RecoveryActions() {
		want := recovery.Choose(map[string]string{"action": name}).For("GPU-1")
		if p := recoveryProblem(float64(i+1), "GPU-1"); !strings.HasSuffix(p.Text, " "+name) || p.Remedy != want {
			t.Errorf("action %d: %+v, want %s and %q", i+1, p, name, want)
		}
	}
	if p := recoveryProblem(99, "GPU-1"); p.Remedy != recovery.Choose(nil).For("GPU-1") {
		t.Errorf("an unknown action: %+v", p)
	}
	catalogue, err := xid.ParseCatalogue(etc.XIDCatalogue(), etc.XIDCatalogueName)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range catalogue.All() {
		remedy := xidRemedy(x, "GPU-1")
		want := definition.XIDRemedies().Choose(map[string]string{"xid": fmt.Sprint(x.Code), "action": x.Action}).For("GPU-1")
		if x.Action == "" && x.Severity == xid.Application {
			want = ""
		}
		if remedy != want {
			t.Errorf("XID %d, %s, action %q: remedy %q, want %q", x.Code, x.Severity, x.Action, remedy, want)
		}
	}
}

func BenchmarkPage(b *testing.B) {
	var t testing.T
	in := testInput(&t)
	base, row := in.Inventory.Entities[3], in.Sample.Rows[3]
	for range 110 {
		in.Inventory.Entities = append(in.Inventory.Entities, base)
		in.Sample.Rows, in.Sample.Derived = append(in.Sample.Rows, row), append(in.Sample.Derived, nil)
	}
	pages := NewPages(func() *Status { return Build(in) }, false)
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Build(in)
		}
	})
	b.Run("html", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pages.HTML(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
