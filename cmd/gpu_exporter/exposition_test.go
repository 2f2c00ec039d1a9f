// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var labelValue = regexp.MustCompile(`="(?:[^"\\]|\\.)*"`)

// skeleton reduces an exposition to one line for each DCGM family: name, type and label
// names in their order.
func skeleton(body string) string {
	types, lines := map[string]string{}, map[string]string{}
	for line := range strings.Lines(body) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" {
			types[fields[2]] = fields[3]
		}
		name, rest, ok := strings.Cut(line, "{")
		if !ok || !strings.HasPrefix(name, "DCGM_") {
			continue
		}
		labels, _, _ := strings.Cut(rest, "} ")
		lines[name] = fmt.Sprintf("%s %s %s", name, types[name], labelValue.ReplaceAllString(labels, ""))
	}
	var all []string
	for _, line := range lines {
		all = append(all, line)
	}
	slices.Sort(all)
	return strings.Join(all, "\n") + "\n"
}

// TestSameShapeAsDCGMExporter compares with testdata/dcgm-exporter-h100x8.txt, the
// skeleton of dcgm-exporter's page on a node of eight H100. The selection of families does
// not affect it.
func TestSameShapeAsDCGMExporter(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/dcgm-exporter-h100x8.txt")
	if err != nil {
		t.Fatal(err)
	}
	// Labels and values that dcgm-exporter has on the same node, by the number of the GPU.
	addresses := []string{"18", "2A", "3A", "5D", "9A", "AB", "BA", "DB"}
	constants := map[string]string{
		"DCGM_FI_DEV_MEM_CLOCK": "2619", "DCGM_FI_DEV_FB_RESERVED": "620", "DCGM_FI_DEV_VGPU_LICENSE_STATUS": "0",
		"DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "0", "DCGM_FI_DEV_ROW_REMAP_FAILURE": "0",
		"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": "0", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": "0",
	}
	for _, families := range []string{"lean", "default", "full"} {
		t.Run(families, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", append(fast, "--families="+families)...)
			var got string
			n.eventually(t, "the profiling fields have values", func() bool {
				got = n.scrape(t)
				_, count := sumOf(got, "DCGM_FI_PROF_DRAM_ACTIVE")
				return count == 8
			})
			if s := skeleton(got); s != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", s, want)
			}
			series := 0
			for line := range strings.Lines(got) {
				if strings.HasPrefix(line, "DCGM_") {
					series++
				}
			}
			if series != 192 {
				t.Errorf("%d DCGM series, dcgm-exporter has 192", series)
			}
			for family, value := range constants {
				for gpu, address := range addresses {
					line := regexp.MustCompile(fmt.Sprintf(`(?m)^%s\{gpu="%d",UUID="GPU-[0-9a-f-]{36}",pci_bus_id="00000000:%s:00.0",device="nvidia%d",`+
						`modelName="NVIDIA H100 80GB HBM3",hostname="[^"]+",DCGM_FI_DRIVER_VERSION="570.133.20"\} %s$`, family, gpu, address, gpu, value))
					if !line.MatchString(got) {
						t.Errorf("no line %s", line)
					}
				}
			}
			for gpu := range addresses {
				memory := 0.0
				for _, family := range []string{"DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_RESERVED"} {
					mib, _ := sumOf(got, family, fmt.Sprintf(`gpu="%d"`, gpu))
					memory += mib
				}
				if memory < 81557 || memory > 81560 { // 81559 MiB, in parts that are rounded
					t.Errorf("GPU %d has %v MiB of memory", gpu, memory)
				}
			}
		})
	}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	for scenario, want := range map[string]struct{ gpus, instances int }{
		"h100x8": {8, 0}, "h100x8-mig": {8, 17}, "a100x8": {8, 0}, "a100x7-mig": {1, 7},
		"t4x1": {1, 0}, "mixed4": {4, 0}, "none": {0, 0},
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, scenario, append(slices.Clone(fast), "--devices.allow-none="+strconv.FormatBool(want.gpus == 0))...)
			body := n.scrape(t)
			if up, gpus := sumOf(body, "gpu_up"); gpus != want.gpus || int(up) != want.gpus {
				t.Errorf("%d GPUs, %v of them up, want %d", gpus, up, want.gpus)
			}
			if _, instances := sumOf(body, "DCGM_FI_DEV_FB_USED", "GPU_I_ID="); instances != want.instances {
				t.Errorf("%d GPU instances, want %d", instances, want.instances)
			}
			if got := strings.Count(body, `UUID=""`); got != 0 {
				t.Errorf("%d series without a UUID", got)
			}
		})
	}
}

// TestProfilingPerGPU: on a mixed node, H100 has profiling values. A100 and T4 have none,
// because they need a module that is not loaded.
func TestProfilingPerGPU(t *testing.T) {
	t.Parallel()
	n := startNode(t, "mixed4", fast...)
	n.eventually(t, "a GPU has profiling values", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_PROF_GR_ENGINE_ACTIVE")
		return count > 0
	})
	body := n.scrape(t)
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "DCGM_FI_PROF_") && !strings.Contains(line, "H100") {
			t.Errorf("a GPU without the module has a profiling value: %s", line)
		}
	}
	if v, _ := sumOf(body, "gpu_exporter_fields_missing_by_reason", `"module_not_loaded"`); v == 0 {
		t.Error("no field is counted as module_not_loaded")
	}
}

// TestFieldStatistics: the configuration file enables statistics and a histogram of one
// field. The histogram continues after a sampler restart.
func TestFieldStatistics(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gpu_exporter.yaml")
	const text = `
fields:
  - {field: DCGM_FI_DEV_POWER_USAGE, name: board_power, type: gauge, help: Power., resolution: 100ms, statistics: true, histogram: true}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", "--sample.interval=1s", "--config.file="+file)
	n.command(t, "load gpu all bursts")
	n.eventually(t, "a burst lies between the lowest and the highest value", func() bool {
		body := n.scrape(t)
		low, lows := sumOf(body, "board_power_min", `gpu="0"`)
		mean, means := sumOf(body, "board_power_mean", `gpu="0"`)
		high, highs := sumOf(body, "board_power_max", `gpu="0"`)
		return lows == 1 && means == 1 && highs == 1 && high > 2*low && low < mean && mean < high
	})
	n.eventually(t, "the histogram has more than 10 values", func() bool {
		body := n.scrape(t)
		before, _ := sumOf(body, "board_power_histogram_count", `gpu="0"`)
		return before > 10
	})
	before, _ := sumOf(n.scrape(t), "board_power_histogram_count", `gpu="0"`)
	n.killSampler(t)
	n.eventually(t, "the histogram continues with the next sampler", func() bool {
		body := n.scrape(t)
		after, _ := sumOf(body, "board_power_histogram_count", `gpu="0"`)
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total")
		return restarts > 0 && after > before
	})
}

// TestModels: the configuration file adds and removes fields by GPU model.
func TestModels(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), `
counters: {file: []}
fields: [DCGM_FI_DEV_GPU_TEMP, DCGM_FI_DEV_FB_USED]
models:
  - {match: Tesla T4, without: [DCGM_FI_DEV_FB_USED]}
  - {match: .*H100.*, fields: [DCGM_FI_DEV_POWER_USAGE, DCGM_FI_DEV_GPU_TEMP]}
  - {match: H100, without: [DCGM_FI_DEV_GPU_TEMP]} # the pattern must match the whole name
  - {match: .*H100.*, without: [DCGM_FI_PROF_SM_ACTIVE]} # no counter has this field
`)
	n := startNode(t, "mixed4", append(fast, "--config.file="+path)...)
	body := n.scrape(t)
	for family, want := range map[string]int{"DCGM_FI_DEV_GPU_TEMP": 4, "DCGM_FI_DEV_FB_USED": 3, "DCGM_FI_DEV_POWER_USAGE": 1} {
		_, all := sumOf(body, family)
		_, h100 := sumOf(body, family, `modelName="NVIDIA H100`)
		if all != want || h100 != 1 {
			t.Errorf("%s: %d series, %d of an H100, want %d and 1", family, all, h100, want)
		}
	}
	n.eventually(t, "the integrals exist", func() bool {
		body = n.scrape(t)
		_, count := sumOf(body, "gpu_engine_active_seconds_total", `modelName="NVIDIA H100`, `engine="dram"`)
		return count == 1
	})
	if _, sm := sumOf(body, "gpu_engine_active_seconds_total", `modelName="NVIDIA H100`, `engine="sm"`); sm != 0 {
		t.Error("the H100 has the integral of an excluded field")
	}
	if _, t4 := sumOf(body, "DCGM_FI_DEV_FB_USED", `modelName="Tesla T4"`); t4 != 0 {
		t.Errorf("the T4 has %d series of an excluded field", t4)
	}
	if v, _ := sumOf(body, "gpu_exporter_fields_missing_by_reason", `"excluded"`); v != 4 {
		t.Errorf("%v cells are excluded, want 4", v)
	}
	reasons, _ := sumOf(body, "gpu_exporter_fields_missing_by_reason")
	if all, count := sumOf(body, "gpu_exporter_fields_missing"); all != reasons || count != 1 {
		t.Errorf("%v cells are missing in %d series, %v by reason", all, count, reasons)
	}
	const unmatched = "An entry of models matches no GPU here"
	n.eventually(t, "an entry that matches no GPU is logged", func() bool { return strings.Contains(n.log.String(), unmatched) })
	for _, want := range []string{"match=H100 gpus=", "DCGM_FI_DEV_GPU_TEMP, for GPUs that match"} {
		if !strings.Contains(n.log.String(), want) {
			t.Errorf("%q is missing in the log", want)
		}
	}
	if got := strings.Count(n.log.String(), unmatched); got != 1 {
		t.Errorf("logged %d times", got)
	}
	writeFile(t, path, "fields: [DCGM_FI_DEV_GPU_TEMP]\ncounters: {file: []}\nmodels: [{match: B200, without: [150]}]\n")
	n.eventually(t, "an entry that matches no GPU is logged after a reload", func() bool { return strings.Contains(n.log.String(), "match=B200 gpus=") })
}
