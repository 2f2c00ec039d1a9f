// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gpu_exporter/collector/model"
)

// goDCGM returns the directory of go-dcgm's package.
func goDCGM(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/NVIDIA/go-dcgm/pkg/dcgm").Output()
	if err != nil {
		t.Fatalf("finding go-dcgm: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// TestABI compares the declarations and numbers of this package with DCGM's headers.
func TestABI(t *testing.T) {
	compile := func(probe string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "gcc", "-std=gnu11", "-Wall", "-Werror", "-fsyntax-only",
			"-I"+goDCGM(t), "-I.", probe).CombinedOutput()
		return string(out), err
	}
	probe := filepath.Join("testdata", "abi_probe.c")
	if out, err := compile(probe); err != nil {
		t.Errorf("the declarations differ from go-dcgm's headers: %v\n%s", err, out)
	}

	// A wrong number must fail.
	source, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.c")
	text := string(source) + "SAME(ABI_MAX_FIELDS, DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP + 1);\n"
	if err := os.WriteFile(wrong, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := compile(wrong); err == nil {
		t.Error("a wrong number compiles")
	}
}

// TestHealthErrorNames compares the names with DCGM's header.
func TestHealthErrorNames(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(goDCGM(t), "dcgm_errors.h"))
	if err != nil {
		t.Fatal(err)
	}
	codes, _, _ := strings.Cut(string(source), "} dcgmError_t;")
	checked := 0
	for _, m := range regexp.MustCompile(`DCGM_FR_(\w+)\s*=\s*(\d+)`).FindAllStringSubmatch(codes, -1) {
		code, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		want := m[1]
		if want == "ERROR_SENTINEL" {
			want = m[2] // the first code without a name
		}
		if got := model.HealthErrorName(uint32(code)); got != want {
			t.Errorf("code %d is %s, want %s", code, got, want)
		}
		checked++
	}
	if checked < 130 {
		t.Errorf("the header has only %d names", checked)
	}
}
