// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// TestLibraryMissing shows the failure on a node without DCGM.
func TestLibraryMissing(t *testing.T) {
	if f := startProcess(t, defaultConfig(), "LD_LIBRARY_PATH="+t.TempDir()).failure(); f.Reason != model.FailureLibraryMissing || !strings.Contains(f.Message, "libdcgm.so.4") {
		t.Errorf("failure %+v", f)
	}
}

// TestSymbolMissing shows the failure for a library without a needed function. Without
// the check the loader would end the process with exit status 127.
func TestSymbolMissing(t *testing.T) {
	source := filepath.Join(t.TempDir(), "old.c")
	if err := os.WriteFile(source, []byte("int dcgmConnect_v2(void) { return -1; }\nint dcgmDisconnect(void) { return -1; }\nint dcgmGetEntityGroupEntities(void) { return -1; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startProcess(t, defaultConfig(), "LD_LIBRARY_PATH="+compile(t, source)).failure()
	if f.Reason != model.FailureSymbolMissing || !strings.Contains(f.Message, "dcgmGetGpuStatus") {
		t.Errorf("failure %+v", f)
	}
}

// compile compiles a libdcgm.so.4 and returns its directory.
func compile(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "gcc", "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "-Inative",
		"-o", filepath.Join(dir, "libdcgm.so.4"), source).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// TestOddLibrary shows that values are identified by their IDs and not by their order, and
// that a GPU or field that makes a whole call fail only affects itself.
func TestOddLibrary(t *testing.T) {
	cfg := defaultConfig()
	cfg.Fields[gpu] = []model.FieldID{140, 150, 155, 230, 252, 1001}
	p := startProcess(t, cfg, "LD_LIBRARY_PATH="+compile(t, filepath.Join("testdata", "odd.c")))
	s := p.sample("a sample", func(*model.Sample) error { return nil })
	if len(p.inv.Entities) != 3 || p.inv.DriverVersion != "1 of 0" || p.inv.DCGMVersion != "" {
		t.Fatalf("inventory %+v", p.inv)
	}
	for id := range uint32(3) {
		e := p.inv.Entities[id]
		if want := fmt.Sprintf("54 of %d", id); e.UUID != want {
			t.Errorf("GPU %d has UUID %q, want %q", id, e.UUID, want)
		}
		for _, field := range []model.FieldID{140, 150, 252} {
			want := model.Int64Cell(1000*int64(id) + int64(field))
			if id == 2 {
				want = model.NoValue(model.StatusError)
			}
			if c := p.cell(s, gpu, id, field); c != want {
				t.Errorf("GPU %d, field %d: %+v, want %+v", id, field, c, want)
			}
		}
		if c := p.cell(s, gpu, id, 155); c.Status != model.StatusNotPermitted {
			t.Errorf("GPU %d: the refused field is %v", id, c.Status)
		}
		if c := p.cell(s, gpu, id, 1001); c.Status != model.StatusModuleMissing {
			t.Errorf("GPU %d: the profiling field is %v", id, c.Status)
		}
	}
	if c := p.cell(s, gpu, 0, 230); c.Status != model.StatusNoData {
		t.Errorf("the XID is %v", c.Status)
	}
}

// TestBadConfiguration shows that an invalid configuration is a failure.
func TestBadConfiguration(t *testing.T) {
	for _, change := range []func(*wire.SamplerConfig){
		func(c *wire.SamplerConfig) { c.Devices = "x:1" },
		func(c *wire.SamplerConfig) { c.Hostengine = "http://x" },
		func(c *wire.SamplerConfig) { c.Interval = 0 },
	} {
		cfg := defaultConfig()
		change(&cfg)
		if f := startProcess(t, cfg, "LD_LIBRARY_PATH="+t.TempDir()).failure(); f.Reason != model.FailureConfig {
			t.Errorf("%+v: failure %+v", cfg, f)
		}
	}
}
