// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// If the library has no symbol that go-dcgm calls, the process dies at the call,
// long after the library was loaded.
func TestLibraryHasWhatGoDCGMCalls(t *testing.T) {
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	lib, err := elf.Open(filepath.Join(dir, "libdcgm.so.4"))
	if err != nil {
		t.Fatal(err)
	}
	defer lib.Close()
	if name, err := lib.DynString(elf.DT_SONAME); err != nil || !slices.Equal(name, []string{"libdcgm.so.4"}) {
		t.Errorf("SONAME %v (%v), want libdcgm.so.4", name, err)
	}
	needed, err := lib.DynString(elf.DT_NEEDED)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range needed {
		if !regexp.MustCompile(`^lib(c|m|pthread|dl)\.so`).MatchString(name) {
			t.Errorf("needs %s", name)
		}
	}
	symbols, err := lib.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]bool{}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			defined[s.Name] = true
		}
	}
	module, err := goDCGM()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(module, "pkg", "dcgm", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources of go-dcgm: %v", err)
	}
	call := regexp.MustCompile(`\bC\.((?:dcgm|Dcgm|errorString)\w*)\(`)
	calls := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(text), -1) {
			// Conversions to a type look like calls.
			if regexp.MustCompile(`(_t|_f|_v\d+)$`).MatchString(m[1]) && !regexp.MustCompile(`^dcgm(Connect|GetCpuHierarchy|GetValuesSince|PolicyRegister)_v\d$`).MatchString(m[1]) {
				continue
			}
			calls++
			if !defined[m[1]] {
				t.Errorf("%s calls %s, which the library does not export", filepath.Base(file), m[1])
			}
		}
	}
	if calls < 60 {
		t.Errorf("found only %d calls in go-dcgm's sources", calls)
	}
}

func TestFieldMetadataCoversTheHeader(t *testing.T) {
	module, err := goDCGM()
	if err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(module, "pkg", "dcgm", "dcgm_fields.h"))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[int]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define (DCGM_FI_\w+)\s+(\d+)\s*$`).FindAllStringSubmatch(string(header), -1) {
		if id, _ := strconv.Atoi(m[2]); id > 0 && !regexp.MustCompile(`(FIRST|LAST)_\w*FIELD_ID$|INTERNAL_FIELDS`).MatchString(m[1]) {
			ids[id] = m[1]
		}
	}
	p := embedded(t, newNode(t, "none"))
	known := 0
	for id := 1; id <= 1700; id++ {
		a := p.do("meta %d", id)
		switch name, want := ids[id]; {
		case want && a.rc != 0:
			t.Errorf("%s (%d) has no metadata", name, id)
		case !want && a.rc == 0:
			t.Errorf("%d has metadata (%s) and is not in the header", id, a.text)
		case want:
			known++
		}
	}
	if known < 600 {
		t.Errorf("only %d fields known", known)
	}
	for id, want := range map[int]string{
		1: "type=s scope=0 level=0", 54: "type=s scope=1 level=5", 155: "type=d scope=1 level=1", 156: "type=i scope=1 level=1",
		230: "type=i scope=1 level=5", 1001: "type=d scope=1 level=5", 1005: "type=d scope=1 level=4", 780: "type=i scope=1 level=6",
		1611: "type=d scope=1 level=1",
	} {
		if a := p.ok("meta %d", id); !strings.Contains(a.text, want) {
			t.Errorf("field %d: %s, want %s", id, a.text, want)
		}
	}
}

func TestMetadataNeedsInit(t *testing.T) {
	p := startProbe(t, newNode(t, "none").Environ()...)
	p.expect(1, "meta 155")
	p.ok("init")
	p.ok("meta 155")
}

// The sample programs of go-dcgm run unchanged on the stand-in.
func TestGoDCGMSamples(t *testing.T) {
	n := newNode(t, "h100x8")
	path := filepath.Join(t.TempDir(), "engine.sock")
	if _, err := n.StartEngine(t.Context(), "--domain-socket", path); err != nil {
		t.Fatal(err)
	}
	n.must(t, "process gpu 1 pid 1 name init memory 512")
	dir := t.TempDir()
	var packages []string
	samples := map[string]struct {
		args  []string
		until time.Duration // sent SIGINT after that; 0: ends by itself
		want  []string
	}{
		"deviceInfo":       {[]string{"-connect", path, "-socket", "1"}, 0, []string{"Model                  : NVIDIA H100 80GB HBM3", "DCGMSupported          : Yes", "Bus ID                 : 00000000:DB:00.0", "NV18"}},
		"topology":         {nil, 0, []string{"GPU7 NV18", "CPUAffinity"}},
		"hostengineStatus": {nil, 0, []string{"Memory", "CPU"}},
		"dmon":             {nil, 3 * time.Second, []string{"# Idx", "\n    7 "}},
		"health":           {nil, 2500 * time.Millisecond, []string{"Status             : Healthy"}},
		"policy":           {nil, 5 * time.Second, []string{"Listening for violations", "XID Error", "{79}"}},
		"processInfo":      {[]string{"-pid", "1"}, 0, []string{"GPU ID			     : 1", "Max GPU Memory Used (bytes)  : 536870912"}},
	}
	for name := range samples {
		packages = append(packages, "github.com/NVIDIA/go-dcgm/samples/"+name)
	}
	build := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", dir + "/"}, packages...)...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the samples: %v\n%s", err, out)
	}
	for name, s := range samples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var out bytes.Buffer
			cmd := exec.CommandContext(ctx, filepath.Join(dir, name), s.args...)
			cmd.Env = append(append(os.Environ(), n.Environ()...), "__DCGM_DBG_FILE=/dev/null")
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if s.until > 0 {
				if name == "policy" {
					time.Sleep(time.Second)
					if _, err := n.Command(ctx, "xid 79 gpu 3"); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(s.until)
				_ = cmd.Process.Signal(syscall.SIGINT)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v", err)
			}
			for _, want := range s.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in its output", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}
