// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/internal/godcgm"
)

// TestCatalogueHasAllOfGoDCGM fails when the go-dcgm that go.mod requires knows a
// name, or an id for it, that the table does not.
func TestCatalogueHasAllOfGoDCGM(t *testing.T) {
	names, err := godcgm.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 1000 {
		t.Fatalf("go-dcgm has %d names: its source has changed its form", len(names))
	}
	for _, n := range names {
		f, ok := FieldByName(n.Name)
		switch {
		case !ok:
			t.Errorf("%s (field %d) is missing: run go generate ./collector", n.Name, n.ID)
		case f.ID != FieldID(n.ID):
			t.Errorf("%s is field %d, and %d in go-dcgm", n.Name, f.ID, n.ID)
		case n.Name != f.Name && !slices.Contains(f.Legacy(), n.Name):
			t.Errorf("field %d does not list its name %s", f.ID, n.Name)
		case n.Legacy && n.Name == f.Name:
			t.Errorf("field %d goes by its legacy name %s", f.ID, n.Name)
		}
	}
	if len(nameTable) != len(names) {
		t.Errorf("the table has %d names, go-dcgm %d: run go generate ./collector", len(nameTable), len(names))
	}
}

func TestCatalogueIsWhatTheGeneratorWrites(t *testing.T) {
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
		t.Error("catalogue_table.go is not what fieldgen writes: run go generate ./collector")
	}
}

func TestCatalogueIsConsistent(t *testing.T) {
	if !slices.IsSortedFunc(fieldTable[:], func(a, b Field) int { return int(a.ID) - int(b.ID) }) {
		t.Error("fieldTable is not sorted by id")
	}
	if !slices.IsSortedFunc(nameTable[:], func(a, b fieldName) int { return strings.Compare(a.name, b.name) }) {
		t.Error("nameTable is not sorted by name")
	}
	for f := range Fields() {
		if got, ok := FieldByID(f.ID); !ok || got != f {
			t.Errorf("FieldByID(%d) = %v, %v", f.ID, got, ok)
		}
		if f.Help == "" || strings.HasPrefix(f.Help, " ") || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s has the help %q", f.Name, f.Help)
		}
		if (f.Type == ValueString) != (f.Nature == MetricLabel) {
			t.Errorf("%s is a %s and by nature a %s", f.Name, f.Type, f.Nature)
		}
		if f.Type.Numeric() != (f.Nature == MetricGauge || f.Nature == MetricCounter) {
			t.Errorf("%s is a %s and by nature a %s", f.Name, f.Type, f.Nature)
		}
		// The base-unit names say their unit themselves, but for one: field 203
		// kept the percent of DCGM_FI_DEV_GPU_UTIL under its new name.
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
		id     FieldID
		typ    ValueType
		level  EntityKind
		nature MetricType
		unit   string
	}{
		// Today's and the 4.6 name of one field, and that of dcgm-exporter 1.x.
		{"DCGM_FI_DEV_GPU_UTIL", 203, ValueInt64, KindGPU, MetricGauge, "percent"},
		{"DCGM_FI_DEV_GPU_UTIL_RATIO", 203, ValueInt64, KindGPU, MetricGauge, "percent"},
		{"dcgm_gpu_utilization", 203, ValueInt64, KindGPU, MetricGauge, "percent"},
		{"DCGM_FI_DEV_POWER_USAGE", 155, ValueDouble, KindGPU, MetricGauge, "W"},
		{"DCGM_FI_DEV_BOARD_POWER_WATTS", 155, ValueDouble, KindGPU, MetricGauge, "W"},
		// Names that look like a pair and are two fields in two units.
		{"DCGM_FI_DEV_SM_CLOCK", 100, ValueInt64, KindGPU, MetricGauge, "MHz"},
		{"DCGM_FI_DEV_SM_CLOCK_HERTZ", 1603, ValueInt64, KindGPU, MetricGauge, "Hz"},
		{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 156, ValueInt64, KindGPU, MetricCounter, "mJ"},
		{"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 1611, ValueDouble, KindGPU, MetricCounter, "J"},
		{"DCGM_FI_DEV_BAR1_TOTAL", 90, ValueInt64, KindComputeInstance, MetricGauge, "MiB"},
		{"DCGM_FI_DEV_BAR1_CAPACITY_BYTES", 1600, ValueInt64, KindComputeInstance, MetricGauge, "bytes"},
		// One of each level.
		{"DCGM_FI_DRIVER_VERSION", 1, ValueString, KindGlobal, MetricLabel, ""},
		{"DCGM_FI_PROF_DRAM_ACTIVE", 1005, ValueDouble, KindGPUInstance, MetricGauge, "ratio"},
		{"DCGM_FI_DEV_XID_ERRORS", FieldXID, ValueInt64, KindComputeInstance, MetricGauge, ""},
		{"DCGM_FI_DEV_VGPU_LICENSE_STATUS", 526, ValueInt64, KindVGPU, MetricGauge, ""},
		{"DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT", 858, ValueInt64, KindSwitch, MetricGauge, "celsius"},
		{"DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_TX", 780, ValueInt64, KindLink, MetricCounter, ""},
		{"DCGM_FI_DEV_CPU_TEMP_CURRENT", 1110, ValueDouble, KindCPU, MetricGauge, "celsius"},
		{"DCGM_FI_DEV_CPU_UTIL_TOTAL", 1100, ValueDouble, KindCPUCore, MetricGauge, "ratio"},
		{"DCGM_FI_DEV_CONNECTX_HEALTH", 1300, ValueInt64, KindConnectX, MetricGauge, ""},
		// A binary one, and the edge of a range.
		{"DCGM_FI_DEV_SUPPORTED_CLOCKS", 130, ValueBlob, KindGPU, MetricNone, ""},
		{"DCGM_FI_LAST_NVSWITCH_FIELD_ID", 899, ValueNone, KindGlobal, MetricNone, ""},
		// The NVLink throughput is a rate (MB/s), whatever its name says.
		{"DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", 449, ValueInt64, KindGPU, MetricGauge, "MB/s"},
	} {
		f, ok := FieldByName(tc.name)
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
		if f, ok := FieldByName(name); ok {
			t.Errorf("%q is %s", name, f.Name)
		}
	}
	if f, ok := FieldByID(9999); ok {
		t.Errorf("field 9999 is %s", f.Name)
	}
}

func TestFieldLegacyNames(t *testing.T) {
	f, _ := FieldByID(155)
	if got, want := f.Legacy(), []string{"DCGM_FI_DEV_POWER_USAGE", "dcgm_power_usage"}; !slices.Equal(got, want) {
		t.Errorf("legacy names %v, want %v", got, want)
	}
	if f, _ := FieldByID(1603); len(f.Legacy()) != 0 {
		t.Errorf("%s has the legacy names %v", f.Name, f.Legacy())
	}
}

func TestFieldProfiling(t *testing.T) {
	for id, want := range map[FieldID]bool{203: false, 1001: true, 1012: true, 1075: true, 1100: false, 1532: false} {
		f, ok := FieldByID(id)
		if !ok || f.Profiling() != want {
			t.Errorf("%s: profiling %v, want %v", f.Name, f.Profiling(), want)
		}
	}
}

func TestFieldOn(t *testing.T) {
	all := []EntityKind{
		KindGlobal, KindGPU, KindVGPU, KindSwitch, KindGPUInstance,
		KindComputeInstance, KindLink, KindCPU, KindCPUCore, KindConnectX,
	}
	for _, tc := range []struct {
		name string
		on   []EntityKind
	}{
		{"DCGM_FI_DRIVER_VERSION", []EntityKind{KindGPU, KindGPUInstance, KindGlobal}},
		{"DCGM_FI_DEV_GPU_TEMP", []EntityKind{KindGPU, KindGPUInstance}},
		{"DCGM_FI_PROF_DRAM_ACTIVE", []EntityKind{KindGPU, KindGPUInstance}},
		{"DCGM_FI_DEV_FB_USED", []EntityKind{KindGPU, KindGPUInstance, KindComputeInstance}},
		{"DCGM_FI_DEV_VGPU_LICENSE_STATUS", []EntityKind{KindGPU, KindVGPU}},
		{"DCGM_FI_DEV_NVSWITCH_LINK_STATUS", []EntityKind{KindLink}},
		{"DCGM_FI_DEV_NVSWITCH_PHYS_ID", []EntityKind{KindSwitch}},
		{"DCGM_FI_DEV_CPU_UTIL_TOTAL", []EntityKind{KindCPU, KindCPUCore}},
		{"DCGM_FI_DEV_CPU_TEMP_CURRENT", []EntityKind{KindCPU}},
		{"DCGM_FI_DEV_CONNECTX_HEALTH", []EntityKind{KindConnectX}},
		{"DCGM_FI_LAST_VGPU_FIELD_ID", nil},
	} {
		f, _ := FieldByName(tc.name)
		for _, kind := range all {
			if got, want := f.On(kind), slices.Contains(tc.on, kind); got != want {
				t.Errorf("%s on %s: %v, want %v", tc.name, kind, got, want)
			}
		}
	}
}

// What can be asked for beyond what is by default, and what cannot.
func TestFieldAnsweredBy(t *testing.T) {
	for _, tc := range []struct {
		name string
		by   []EntityKind
	}{
		{"DCGM_FI_CUDA_DRIVER_VERSION", []EntityKind{KindGPU, KindVGPU, KindSwitch, KindGPUInstance, KindComputeInstance, KindLink, KindCPU, KindCPUCore, KindConnectX}},
		{"DCGM_FI_DEV_GPU_TEMP", []EntityKind{KindGPU, KindGPUInstance, KindComputeInstance}},
		{"DCGM_FI_DEV_FB_USED", []EntityKind{KindGPU, KindGPUInstance, KindComputeInstance}},
		{"DCGM_FI_DEV_GPU_UUID", []EntityKind{KindGPU, KindSwitch, KindGPUInstance, KindComputeInstance}},
		{"DCGM_FI_DEV_NVLINK_TX_BYTES_TOTAL", []EntityKind{KindGPU, KindGPUInstance, KindComputeInstance, KindLink}},
		{"DCGM_FI_DEV_NVLINK_THROUGHPUT_PER_LINK", []EntityKind{KindLink}},
		{"DCGM_FI_DEV_NVSWITCH_PHYS_ID", []EntityKind{KindSwitch}},
		{"DCGM_FI_DEV_CPU_TEMP_CURRENT", []EntityKind{KindCPU, KindCPUCore}},
		{"DCGM_FI_DEV_CONNECTX_HEALTH", []EntityKind{KindConnectX}},
		{"DCGM_FI_LAST_VGPU_FIELD_ID", nil},
	} {
		f, _ := FieldByName(tc.name)
		var got []EntityKind
		for kind := KindGPU; kind < kindCount; kind++ {
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
		{"dcgm_gpu_temperature", ""},
		{"dcgm_gpu_tmep", "dcgm_gpu_temp"},
		{"node_cpu_seconds_total", ""},
		{"", ""},
		{"x", ""},
		{strings.Repeat("DCGM_FI_DEV_", 100), ""},
	} {
		if got := SuggestField(tc.typed); got != tc.want {
			t.Errorf("for %q: %q, want %q", tc.typed, got, tc.want)
		}
	}
}
