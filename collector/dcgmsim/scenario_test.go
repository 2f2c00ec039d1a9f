// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestScenarioShapes(t *testing.T) {
	for scenario, want := range map[string]struct {
		devices, attributes string
		instances, compute  int
	}{
		"h100x8":     {"0 1 2 3 4 5 6 7", "bus=00000000:18:00.0 name=NVIDIA H100 80GB HBM3 driver=570.133.20 fb=81559 power=700 mig=0", 0, 0},
		"h100x8-mig": {"0 1 2 3 4 5 6 7", "mig=1", 17, 18},
		"a100x8":     {"0 1 2 3 4 5 6 7", "name=NVIDIA A100-SXM4-80GB", 0, 0},
		"a100x7-mig": {"0", "name=NVIDIA A100-SXM4-40GB", 7, 7},
		"t4x1":       {"0", "name=Tesla T4 driver=570.133.20 fb=15360 power=70", 0, 0},
		"mixed4":     {"0 1 3 5", "bus=00000000:C1:00.0 name=NVIDIA H100 80GB HBM3", 0, 0},
		"dgx-h100":   {"0 1 2 3 4 5 6 7", "bus=00000000:18:00.0 name=NVIDIA H100 80GB HBM3", 0, 0},
		"gb200":      {"0 1 2 3", "bus=00000008:01:00.0 name=NVIDIA GB200 driver=580.95.05 fb=189471 power=1200", 0, 0},
		"none":       {"", "", 0, 0},
	} {
		t.Run(scenario, func(t *testing.T) {
			p := embedded(t, newNode(t, scenario))
			for _, command := range []string{"devices", "supported", "entities 1 1"} {
				got := strings.TrimSpace(strings.SplitN(strings.TrimPrefix(p.ok("%s", command).text, "rc=0"), " took_ms", 2)[0])
				if got != want.devices {
					t.Errorf("%s: %q, want %q", command, got, want.devices)
				}
			}
			if want.devices != "" {
				if a := p.ok("attributes 0"); !strings.Contains(a.text, want.attributes) {
					t.Errorf("attributes: %s, want %s", a.text, want.attributes)
				}
			}
			for group, count := range map[int]int{feGPUI: want.instances, feGPUCI: want.compute} {
				if got := len(strings.Fields(p.ok("entities %d 0", group).text)) - 2; got != count {
					t.Errorf("%d entities of kind %d, want %d", got, group, count)
				}
			}
			if scenario != "gb200" {
				p.expect(stModuleNotLoaded, "entities 7 0") // CPUs need Grace
			}
			p.ok("stop")
			p.ok("start") // an engine can restart in the same process
			p.ok("stop")
		})
	}
}

func TestScenariosAreThoseOfTheLibrary(t *testing.T) {
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "dcgmsimd"), "--scenarios").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, Scenarios()) {
		t.Errorf("library %v, package %v", got, Scenarios())
	}
}

func TestScenarioFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "two.scenario")
	text := `# two of a kind, one of another
seed 42
driver 580.10.01
cuda 13.0
model h200 like h100
model h200 name NVIDIA H200
model h200 fb_total_mib 143771
gpu h200 count 2
gpu t4 id 9 minor 4 bus 00000001:02:00.0 serial 123 uuid GPU-11111111-2222-5333-8444-555555555555
mig gpu 0 1g.18gb*2
load gpu 1 util 30 mem 40
at 300ms lose gpu 9
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, path)
	p := embedded(t, n)
	if a := p.ok("attributes 9"); !strings.Contains(a.text, "uuid=GPU-11111111-2222-5333-8444-555555555555 bus=00000001:02:00.0") || !strings.Contains(a.text, "driver=580.10.01") {
		t.Error(a.text)
	}
	if a := p.ok("attributes 1"); !strings.Contains(a.text, "name=NVIDIA H200") || !strings.Contains(a.text, "fb=143771") {
		t.Error(a.text)
	}
	if got := strings.Count(p.ok("hierarchy").text, "4/"); got < 2 {
		t.Errorf("%d instances", got)
	}
	if x, err := n.Truth(t.Context(), 1); err != nil || x.Util != 0.3 {
		t.Errorf("fixed load: %+v, %v", x, err)
	}
	eventually(t, "the timed command was carried out", func() bool { return p.ok("status 9").get(t, "status") == "4" })
}

func TestScenarioMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown statement":  {"base t4x1\nfrobnicate\n", ":2: unknown command frobnicate"},
		"late base":          {"gpu t4\nbase h100x8\n", ":2: base must be the first statement"},
		"late seed":          {"gpu t4\nseed 3\n", ":2: seed must be the first statement"},
		"unknown model":      {"\n\ngpu tpu\n", ":3: no model tpu"},
		"same id twice":      {"gpu t4 id 3\ngpu t4 id 3\n", ":2: GPU id 3 is in use"},
		"bad layout":         {"gpu t4\nmig gpu 0 1g.2gb\n", ":2: MIG layout 1g.2gb on Tesla T4: the model does not support MIG"},
		"layout too large":   {"gpu h100\nmig gpu 0 1g.10gb*8\n", ":2: MIG layout"},
		"bad number":         {"model h100 fb_total_mib lots\n", ":1: fb_total_mib: lots is not a number"},
		"bad duration":       {"at soon xid 79 gpu 0\n", ":1: usage: at DURATION COMMAND"},
		"no such GPU":        {"gpu t4\nlose gpu 4\n", ":2: no GPU with DCGM id 4"},
		"too few ports":      {"base h100x8\nswitches 1\n", ":2: a switch has 64 ports"},
		"GPU after switches": {"gpu h100\nswitches 1\ngpu h100\n", ":3: GPUs must be defined before the switches"},
		"too few trunks":     {"gpu h100\nswitches 3 trunks 1,2\n", ":2: trunks: give one number of ports"},
		"too many cores":     {"cpus 8 cores 200\n", ":1: more than 8 CPUs, or more than 1024 cores"},
		"no link there":      {"base h100x8\nlink gpu 0 port 18 down\n", ":2: GPU 0 has no link at port 18"},
		"error in a base":    {"base nowhere\n", "scenario nowhere is not built in, and cannot be read as a file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.scenario")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, path)
			_, err := n.Command(t.Context(), "state")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := n.StartEngine(t.Context()); err == nil {
				t.Error("an engine started")
			}
		})
	}
}

func scenarioFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.scenario")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
