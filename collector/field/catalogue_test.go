// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/field/internal/godcgm"
	"gpu_exporter/collector/model"
)

// TestCatalogueMatchesGoDCGM compares the names and IDs of the table with go-dcgm's.
func TestCatalogueMatchesGoDCGM(t *testing.T) {
	names, err := godcgm.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 1000 {
		t.Fatalf("go-dcgm has only %d names: the form of its source has changed", len(names))
	}
	for _, n := range names {
		f, ok := ByName(n.Name)
		switch {
		case !ok:
			t.Errorf("%s (field %d) is missing: run go generate ./collector/field", n.Name, n.ID)
		case f.ID != model.FieldID(n.ID):
			t.Errorf("%s is field %d, and %d in go-dcgm", n.Name, f.ID, n.ID)
		case n.Name != f.Name && !slices.Contains(f.Legacy(), n.Name):
			t.Errorf("field %d does not list its name %s", f.ID, n.Name)
		case n.Legacy && n.Name == f.Name:
			t.Errorf("the name of field %d is the legacy name %s", f.ID, n.Name)
		}
	}
	total := 0
	for f := range All() {
		for _, name := range f.Names() {
			total++
			if got, ok := ByName(name); !ok || got.ID != f.ID {
				t.Errorf("%s is a name of field %d and of field %d", name, f.ID, got.ID)
			}
		}
	}
	if total != len(names) {
		t.Errorf("the table has %d names, go-dcgm %d: run go generate ./collector/field", total, len(names))
	}
}

func TestCatalogueIsGenerated(t *testing.T) {
	out := filepath.Join(t.TempDir(), "table.go")
	cmd := exec.CommandContext(t.Context(), "go", "run", "./internal/fieldgen", "-o", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fieldgen: %v\n%s", err, text)
	}
	want, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("catalogue_table.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("catalogue_table.go is out of date: run go generate ./collector/field")
	}
}

func TestCatalogueIsConsistent(t *testing.T) {
	if !slices.IsSortedFunc(fieldTable[:], func(a, b Field) int { return int(a.ID) - int(b.ID) }) {
		t.Error("fieldTable is not sorted by ID")
	}
	for f := range All() {
		if got, ok := ByID(f.ID); !ok || got != f {
			t.Errorf("ByID(%d) = %v, %v", f.ID, got, ok)
		}
		if f.Help == "" || strings.HasPrefix(f.Help, " ") || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s has the help %q", f.Name, f.Help)
		}
		if (f.Type == model.ValueString) != (f.Nature == MetricLabel) {
			t.Errorf("%s is a %s and by nature a %s", f.Name, f.Type, f.Nature)
		}
		if f.Type.Numeric() != (f.Nature == MetricGauge || f.Nature == MetricCounter) {
			t.Errorf("%s is a %s and by nature a %s", f.Name, f.Type, f.Nature)
		}
		// Names in base units end with their unit, except that field 203 is still in
		// percent under its new name.
		for suffix, unit := range map[string]string{
			"_CELSIUS": "celsius", "_WATTS": "W", "_HERTZ": "Hz", "_RATIO": "ratio",
			"_JOULES_TOTAL": "J", "_BYTES_TOTAL": "bytes", "_NS": "ns",
		} {
			if strings.HasSuffix(f.Name, suffix) && f.Unit != unit && f.ID != 203 {
				t.Errorf("%s has the unit %q", f.Name, f.Unit)
			}
		}
	}
}

func TestFieldByName(t *testing.T) {
	for _, tc := range []struct {
		name   string
		id     model.FieldID
		typ    model.ValueType
		level  model.EntityKind
		nature MetricType
		unit   string
	}{
		// The legacy name, the 4.6 name and the name of dcgm-exporter 1.x of one field.
		{"DCGM_FI_DEV_GPU_UTIL", 203, model.ValueInt64, model.KindGPU, MetricGauge, "percent"},
		{"DCGM_FI_DEV_GPU_UTIL_RATIO", 203, model.ValueInt64, model.KindGPU, MetricGauge, "percent"},
		{"dcgm_gpu_utilization", 203, model.ValueInt64, model.KindGPU, MetricGauge, "percent"},
		{"DCGM_FI_DEV_POWER_USAGE", 155, model.ValueDouble, model.KindGPU, MetricGauge, "W"},
		{"DCGM_FI_DEV_BOARD_POWER_WATTS", 155, model.ValueDouble, model.KindGPU, MetricGauge, "W"},
		// Similar names of two fields in two units.
		{"DCGM_FI_DEV_SM_CLOCK", 100, model.ValueInt64, model.KindGPU, MetricGauge, "MHz"},
		{"DCGM_FI_DEV_SM_CLOCK_HERTZ", 1603, model.ValueInt64, model.KindGPU, MetricGauge, "Hz"},
		{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 156, model.ValueInt64, model.KindGPU, MetricCounter, "mJ"},
		{"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 1611, model.ValueDouble, model.KindGPU, MetricCounter, "J"},
		{"DCGM_FI_DEV_BAR1_TOTAL", 90, model.ValueInt64, model.KindComputeInstance, MetricGauge, "MiB"},
		{"DCGM_FI_DEV_BAR1_CAPACITY_BYTES", 1600, model.ValueInt64, model.KindComputeInstance, MetricGauge, "bytes"},
		// One field of each level.
		{"DCGM_FI_DRIVER_VERSION", 1, model.ValueString, model.KindGlobal, MetricLabel, ""},
		{"DCGM_FI_PROF_DRAM_ACTIVE", 1005, model.ValueDouble, model.KindGPUInstance, MetricGauge, "ratio"},
		{"DCGM_FI_DEV_XID_ERRORS", XIDErrors, model.ValueInt64, model.KindComputeInstance, MetricGauge, ""},
		{"DCGM_FI_DEV_VGPU_LICENSE_STATUS", 526, model.ValueInt64, model.KindGPU, MetricGauge, ""},
		{"DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT", 858, model.ValueInt64, model.KindSwitch, MetricGauge, "celsius"},
		{"DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_TX", 780, model.ValueInt64, model.KindLink, MetricCounter, ""},
		{"DCGM_FI_DEV_CPU_TEMP_CURRENT", 1110, model.ValueDouble, model.KindCPU, MetricGauge, "celsius"},
		{"DCGM_FI_DEV_CPU_UTIL_TOTAL", 1100, model.ValueDouble, model.KindCPUCore, MetricGauge, "ratio"},
		{"DCGM_FI_DEV_CONNECTX_HEALTH", 1300, model.ValueInt64, model.KindConnectX, MetricGauge, ""},
		// A binary field, and the edge of a range.
		{"DCGM_FI_DEV_SUPPORTED_CLOCKS", 130, model.ValueBlob, model.KindGPU, MetricNone, ""},
		{"DCGM_FI_LAST_NVSWITCH_FIELD_ID", 899, model.ValueNone, model.KindGlobal, MetricNone, ""},
		// The NVLink throughput is a rate (MB/s), despite its name.
		{"DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", 449, model.ValueInt64, model.KindGPU, MetricGauge, "MB/s"},
	} {
		f, ok := ByName(tc.name)
		if !ok {
			t.Errorf("%s is unknown", tc.name)
			continue
		}
		if f.ID != tc.id || f.Type != tc.typ || f.Level != tc.level || f.Nature != tc.nature || f.Unit != tc.unit {
			t.Errorf("%s = %d %s %s %s %q, want %d %s %s %s %q", tc.name,
				f.ID, f.Type, f.Level, f.Nature, f.Unit, tc.id, tc.typ, tc.level, tc.nature, tc.unit)
		}
	}
	for _, name := range []string{"", "DCGM_FI_DEV", "DCGM_FI_DEV_GPU_UTI", "DCGM_FI_DEV_GPU_UTIL ", "dcgm_fi_dev_gpu_util"} {
		if f, ok := ByName(name); ok {
			t.Errorf("%q is %s", name, f.Name)
		}
	}
	if f, ok := ByID(9999); ok {
		t.Errorf("field 9999 is %s", f.Name)
	}
}

func TestFieldLegacyNames(t *testing.T) {
	f, _ := ByID(155)
	if got, want := f.Legacy(), []string{"DCGM_FI_DEV_POWER_USAGE", "dcgm_power_usage"}; !slices.Equal(got, want) {
		t.Errorf("legacy names %v, want %v", got, want)
	}
	if f, _ := ByID(1603); len(f.Legacy()) != 0 {
		t.Errorf("%s has the legacy names %v", f.Name, f.Legacy())
	}
}

func TestFieldProfiling(t *testing.T) {
	for id, want := range map[model.FieldID]bool{203: false, 1001: true, 1012: true, 1075: true, 1100: false, 1532: false} {
		f, ok := ByID(id)
		if !ok || f.Profiling() != want {
			t.Errorf("%s: profiling %v, want %v", f.Name, f.Profiling(), want)
		}
	}
}

func TestFieldOn(t *testing.T) {
	all := []model.EntityKind{
		model.KindGlobal, model.KindGPU, model.KindSwitch, model.KindGPUInstance,
		model.KindComputeInstance, model.KindLink, model.KindCPU, model.KindCPUCore, model.KindConnectX,
	}
	for _, tc := range []struct {
		name string
		on   []model.EntityKind
	}{
		{"DCGM_FI_DRIVER_VERSION", []model.EntityKind{model.KindGPU, model.KindGPUInstance, model.KindGlobal}},
		{"DCGM_FI_DEV_GPU_TEMP", []model.EntityKind{model.KindGPU, model.KindGPUInstance}},
		{"DCGM_FI_PROF_DRAM_ACTIVE", []model.EntityKind{model.KindGPU, model.KindGPUInstance}},
		{"DCGM_FI_DEV_FB_USED", []model.EntityKind{model.KindGPU, model.KindGPUInstance, model.KindComputeInstance}},
		{"DCGM_FI_DEV_VGPU_LICENSE_STATUS", []model.EntityKind{model.KindGPU, model.KindGPUInstance}},
		{"DCGM_FI_DEV_NVSWITCH_LINK_STATUS", []model.EntityKind{model.KindLink}},
		{"DCGM_FI_DEV_NVSWITCH_PHYS_ID", []model.EntityKind{model.KindSwitch}},
		{"DCGM_FI_DEV_CPU_UTIL_TOTAL", []model.EntityKind{model.KindCPU, model.KindCPUCore}},
		{"DCGM_FI_DEV_CPU_TEMP_CURRENT", []model.EntityKind{model.KindCPU}},
		{"DCGM_FI_DEV_CONNECTX_HEALTH", []model.EntityKind{model.KindConnectX}},
		{"DCGM_FI_LAST_VGPU_FIELD_ID", nil},
	} {
		f, _ := ByName(tc.name)
		for _, kind := range all {
			if got, want := f.On(kind), slices.Contains(tc.on, kind); got != want {
				t.Errorf("%s on %s: %v, want %v", tc.name, kind, got, want)
			}
		}
	}
}

// TestFieldAnsweredBy covers the kinds that the configuration can select for a field.
func TestFieldAnsweredBy(t *testing.T) {
	for _, tc := range []struct {
		name string
		by   []model.EntityKind
	}{
		{"DCGM_FI_CUDA_DRIVER_VERSION", []model.EntityKind{model.KindGPU, model.KindSwitch, model.KindGPUInstance, model.KindComputeInstance, model.KindLink, model.KindCPU, model.KindCPUCore, model.KindConnectX}},
		{"DCGM_FI_DEV_GPU_TEMP", []model.EntityKind{model.KindGPU, model.KindGPUInstance, model.KindComputeInstance}},
		{"DCGM_FI_DEV_FB_USED", []model.EntityKind{model.KindGPU, model.KindGPUInstance, model.KindComputeInstance}},
		{"DCGM_FI_DEV_GPU_UUID", []model.EntityKind{model.KindGPU, model.KindSwitch, model.KindGPUInstance, model.KindComputeInstance}},
		{"DCGM_FI_DEV_NVLINK_TX_BYTES_TOTAL", []model.EntityKind{model.KindGPU, model.KindGPUInstance, model.KindComputeInstance, model.KindLink}},
		{"DCGM_FI_DEV_NVLINK_THROUGHPUT_PER_LINK", []model.EntityKind{model.KindLink}},
		{"DCGM_FI_DEV_NVSWITCH_PHYS_ID", []model.EntityKind{model.KindSwitch}},
		{"DCGM_FI_DEV_CPU_TEMP_CURRENT", []model.EntityKind{model.KindCPU, model.KindCPUCore}},
		{"DCGM_FI_DEV_CONNECTX_HEALTH", []model.EntityKind{model.KindConnectX}},
		{"DCGM_FI_LAST_VGPU_FIELD_ID", nil},
	} {
		f, _ := ByName(tc.name)
		var got []model.EntityKind
		for kind := model.KindGPU; kind < model.KindCount; kind++ {
			if f.AnsweredBy(kind) {
				got = append(got, kind)
			}
		}
		if !slices.Equal(got, tc.by) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.by)
		}
	}
}

func TestSuggestField(t *testing.T) {
	for _, tc := range []struct{ typed, want string }{
		{"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL"},
		{"dcgm_fi_dev_gpu_util", "DCGM_FI_DEV_GPU_UTIL"},
		{"DCGM_FI_DEV_GPU_UTILL", "DCGM_FI_DEV_GPU_UTIL"},
		{"DCGM_FI_DEV_GPU_UTILISATION", "DCGM_FI_DEV_GPU_UTIL_RATIO"},
		{"DCGM_FI_DEV_POWER_USEAGE", "DCGM_FI_DEV_POWER_USAGE"},
		{"DCGM_FI_DEV_XID_ERORRS", "DCGM_FI_DEV_XID_ERRORS"},
		{"DCGM_FI_PROF_PIPE_TENSER_ACTIVE", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"},
		{"GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP"},
		{"gr_engine_active", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"},
		{"PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_ACTIVE"},
		{"DCGM_FI_DEV_SM_ACTIVE", "DCGM_FI_PROF_SM_ACTIVE"},      // the wrong prefix
		{"DCGM_FI_DEV_GPU_UTIL_SAMPLES", "DCGM_FI_DEV_GPU_UTIL"}, // DCGM removed it
		{"GPU_UTIL_SAMPLES", "DCGM_FI_DEV_GPU_UTIL"},
		{"DCGM_FI_DEV_MEM_COPY_UTIL_SAMPLES", "DCGM_FI_DEV_MEM_COPY_UTIL"},
		{"DCGM_FI_DEV_CPU_TEMP", "DCGM_FI_DEV_CPU_TEMP_CELSIUS"}, // not the GPU's
		{"DCGM_FI_DEV_CPU_POWER", "DCGM_FI_DEV_CPU_POWER_WATTS"},
		{"DCGM_FI_DEV_FB_FRED", "DCGM_FI_DEV_FB_FREE"},
		{"DCGM_FI_DEV_FB_SIZE", ""},
		{"DCGM_EXP_XID_ERRORS_CONT", "DCGM_EXP_XID_ERRORS_COUNT"},
		{"DCGM_FI_DEV_GPU", ""},
		{"dcgm_gpu_temperature", ""},
		{"dcgm_gpu_tmep", "dcgm_gpu_temp"},
		{"node_cpu_seconds_total", ""},
		{"", ""},
		{"GPU__UTIL_", "DCGM_FI_DEV_GPU_UTIL"},
		{"x", ""},
		{strings.Repeat("DCGM_FI_DEV_", 100), ""},
	} {
		if got := Suggest(tc.typed); got != tc.want {
			t.Errorf("for %q: %q, want %q", tc.typed, got, tc.want)
		}
	}
}
