// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// runFields runs the command fields without a node.
func runFields(t *testing.T, args string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	line, err := config.Parse(append([]string{config.Fields}, strings.Fields(args)...), nil, &out, nil)
	if err != nil {
		t.Fatal(err)
	}
	status = Fields(t.Context(), line, nil, &out, &errs)
	return status, out.String(), errs.String()
}

func TestFieldsSelection(t *testing.T) {
	t.Parallel()
	// ids are the IDs of the fields in the output; "-": no field matches.
	tests := []struct {
		args string
		ids  string
	}{
		{"203", "203"},
		{"dcgm_fi_dev_gpu_util", "203"},          // part of a name
		{"DCGM_FI_DEV_XID_ERRORS", "230"},        // a legacy name
		{"dcgm_power_usage", "155"},              // a name of dcgm-exporter 1.x
		{"*_app_clock_hertz", "1606 1607"},       // a pattern matches the whole name
		{"app_clock_hertz", "1606 1607"},         // a part matches anywhere
		{"100 1?1", "100"},                       // a number is an ID; no name is 1?1
		{"--entity=nvswitch --type=double", "-"}, // all filters must match
		{"--entity=cpu,connectx power", "1130 1131 1132 1133"},
		{"--entity=cpu_core --entity=cpu_core --type=int64", "1120"},
		{"--type=binary --entity=global", "362"},
		{"energy --type=counter,label", "156 1611"},
		{"0", "-"},                  // computed counters have no ID
		{"dcgm_exp_*_total", "0 0"}, // computed
		{"xid_errors", "230 0 0"},   // a field and two computed counters
		{"dcgm_exp --entity=gpu_instance", "0 0"},
		{"dcgm_exp --entity=link", "-"},
		{"dcgm_exp --type=gauge", "0 0 0 0"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := runFields(t, "--output=json "+tt.args)
			if tt.ids == "-" {
				if status != 1 || stdout != "" || !strings.Contains(stderr, "no field matches") {
					t.Errorf("status %d\n%s%s", status, stdout, stderr)
				}
				return
			}
			var fields []description
			if err := json.Unmarshal([]byte(stdout), &fields); err != nil || status != 0 {
				t.Fatalf("status %d, %v\n%s", status, err, stderr)
			}
			var ids []string
			for _, f := range fields {
				ids = append(ids, strconv.Itoa(int(f.ID)))
			}
			if got := strings.Join(ids, " "); got != tt.ids {
				t.Errorf("fields %s, want %s", got, tt.ids)
			}
		})
	}
}

func TestFieldsOutput(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args   string
		status int
		want   string
		stderr string
	}{
		{args: "203 1002", want: `
ID    NAME                        TYPE     VALUE   UNIT
203   DCGM_FI_DEV_GPU_UTIL        gauge    int64   percent
      Time in which a kernel ran on the GPU (in percent). Read on gpu, gpu_instance. Also
      dcgm_gpu_utilization. In base units DCGM_FI_DEV_GPU_UTIL_RATIO.
1002  DCGM_FI_PROF_SM_UTIL_RATIO  gauge    double  ratio
      Share of cycles in which an SM had a warp assigned (ratio). Needs profiling. Read on gpu,
      gpu_instance, compute_instance. Also DCGM_FI_PROF_SM_ACTIVE, dcgm_fi_prof_sm_active.
`},
		{args: "dcgm_exp_p2p_status dcgm_exp_xid_errors_total", want: `
ID    NAME                       TYPE     VALUE   UNIT
-     DCGM_EXP_P2P_STATUS        gauge    int64   -
      Status of the NVLink between two GPUs. Computed by the exporter. Read on gpu.
-     DCGM_EXP_XID_ERRORS_TOTAL  counter  int64   -
      XID errors since the exporter started. Computed by the exporter. Read on gpu, gpu_instance.
`},
		{args: "dcgm_exp_p2p_stats", status: 1, stderr: "gpu_exporter: error: no field matches (did you mean DCGM_EXP_P2P_STATUS?)\n"},
		{args: "1120 --output=json", want: `
[
  {
    "id": 1120,
    "name": "DCGM_FI_DEV_CPU_CLOCK_CURRENT",
    "legacy_names": [],
    "type": "gauge",
    "value_type": "int64",
    "unit": "kHz",
    "level": "cpu_core",
    "kinds": [
      "cpu",
      "cpu_core"
    ],
    "profiling": false,
    "help": "Clock of the CPU core (in kHz).",
    "computed": false,
    "base_unit_name": ""
  }
]
`},
		{args: "dcgm_fi_dev_gpu_utl", status: 1, stderr: "gpu_exporter: error: no field matches (did you mean DCGM_FI_DEV_GPU_UTIL?)\n"},
		{args: "203 --type=counter", status: 1, stderr: "gpu_exporter: error: no field matches\n"},
		{args: "[x --entity=gpus --type=gouge", status: 1, stderr: `
gpu_exporter: error: "[x" is not a pattern: close each [
gpu_exporter: error: --entity: unknown kind of entity "gpus": use gpu, nvswitch, gpu_instance, compute_instance, link, cpu, cpu_core, connectx or global
gpu_exporter: error: --type: unknown type "gouge": use counter, gauge, label, binary, double, int64 or string
`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := runFields(t, tt.args)
			if status != tt.status {
				t.Errorf("exit status %d, want %d", status, tt.status)
			}
			if got, want := stdout, strings.TrimPrefix(tt.want, "\n"); got != want {
				t.Errorf("printed:\n%s\nwant:\n%s", got, want)
			}
			if got, want := stderr, strings.TrimPrefix(tt.stderr, "\n"); got != want {
				t.Errorf("errors:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// TestFieldsListsAll: all fields and computed counters are listed, except names that mark
// the edge of a range.
func TestFieldsListsAll(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := runFields(t, "")
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	for line := range strings.Lines(stdout) {
		if columns := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); columns > 100 {
			t.Errorf("%d columns: %s", columns, line)
		}
	}
	for _, c := range field.ComputedCounters() {
		if !strings.Contains(stdout, " "+c.Name+" ") {
			t.Errorf("%s is not listed", c.Name)
		}
	}
	for f := range field.All() {
		listed := strings.Contains(stdout, "\n"+strconv.Itoa(int(f.ID))+" ")
		if want := f.Type != model.ValueNone; listed != want {
			t.Errorf("%s: listed %v, want %v", f.Name, listed, want)
		}
	}
}

// fieldsOnNode runs fields --node on a simulated node, after the commands that steer it.
func fieldsOnNode(t *testing.T, scenario string, commands ...string) map[model.FieldID]description {
	t.Helper()
	sim := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(t)), "sim"), t.TempDir(), scenario)
	for _, command := range commands {
		if _, err := sim.Command(t.Context(), command); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), built(t), config.Fields, "--node", "--simulate="+scenario, "--output=json")
	cmd.Env = append(os.Environ(), "DCGMSIM_STATE="+sim.State, "DCGMSIM_CONTROL="+sim.Control)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var list []description
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	byID := make(map[model.FieldID]description, len(list))
	for _, f := range list {
		if f.Computed {
			if f.Node != nil {
				t.Errorf("%s is computed, and on the node it is %v", f.Name, f.Node)
			}
			continue
		}
		byID[f.ID] = f
	}
	return byID
}

// TestFieldsOfANode: an engine can watch all fields of all kinds at once, and each cell has
// a status.
func TestFieldsOfANode(t *testing.T) {
	t.Parallel()
	for scenario, want := range map[string]map[model.FieldID]string{
		"h100x8":     {150: "gpu ok", 60: "gpu not_read", 1130: "no such entity", 1525: "link ok"},
		"mixed4":     {150: "gpu ok", 1001: "gpu 0 ok, 1,3,5 module_not_loaded"},
		"dgx-h100":   {858: "nvswitch ok", 1002: "gpu ok", 1524: "nvswitch blank"},
		"gb200":      {1130: "cpu ok", 1120: "cpu blank; cpu_core ok"},
		"h100x8-mig": {67: "gpu ok; gpu_instance ok", 155: "gpu ok; gpu_instance ok"},
		"none":       {150: "no such entity", 60: "no such entity"},
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			fields := fieldsOnNode(t, scenario)
			for id, text := range want {
				if got := supportText(fields[id].Node); got != text {
					t.Errorf("%s: %q, want %q", fields[id].Name, got, text)
				}
			}
			odd := []string{model.StatusNotWatched.String(), model.StatusError.String(), model.StatusUnexpectedType.String(),
				model.StatusNotFound.String(), model.StatusEntityLost.String(), model.StatusExcluded.String()}
			for _, f := range fields {
				for _, k := range f.Node {
					for _, s := range k.Statuses {
						if slices.Contains(odd, s.Status) {
							t.Errorf("%s is %s on %d of kind %s", f.Name, s.Status, s.Entities, k.Kind)
						}
					}
				}
			}
		})
	}
}

// TestFieldsDifferBetweenGPUs: a lost GPU and a GPU without a value are listed separately.
func TestFieldsDifferBetweenGPUs(t *testing.T) {
	t.Parallel()
	fields := fieldsOnNode(t, "h100x8", "lose gpu 3", "blank field 140 gpu 5")
	for id, want := range map[model.FieldID]string{
		150: "gpu 0-2,4-7 ok, 3 entity_lost",
		140: "gpu 0-2,4,6-7 ok, 3 entity_lost, 5 blank",
	} {
		if got := supportText(fields[id].Node); got != want {
			t.Errorf("%s: %q, want %q", fields[id].Name, got, want)
		}
	}
}

func TestFieldsOfABrokenNode(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), built(t), config.Fields, "--node", "--simulate=no-such-node", "150")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() != 1 || len(out) > 0 || !strings.Contains(stderr.String(), "no-such-node") {
		t.Errorf("error %v\n%s%s", err, out, &stderr)
	}
}

func TestIDRanges(t *testing.T) {
	t.Parallel()
	for want, ids := range map[string][]uint32{
		"": nil, "0": {0}, "0-1": {0, 1}, "0-3,5": {0, 1, 2, 3, 5}, "1,3,5": {1, 3, 5}, "7-9": {7, 8, 9},
	} {
		if got := idRanges(ids); got != want {
			t.Errorf("%v are %q, want %q", ids, got, want)
		}
	}
}
