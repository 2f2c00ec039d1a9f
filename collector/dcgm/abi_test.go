// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

// TestABI compares abi.h, and the numbers in the Go files, with DCGM's headers.
func TestABI(t *testing.T) {
	compile := func(probe string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "gcc", "-std=gnu11", "-Wall", "-Werror", "-fsyntax-only",
			"-I"+goDCGM(t), "-I.", probe).CombinedOutput()
		return string(out), err
	}
	probe := filepath.Join("testdata", "abi_probe.c")
	if out, err := compile(probe); err != nil {
		t.Errorf("abi.h is not what go-dcgm's headers say: %v\n%s", err, out)
	}

	// The probe must be able to fail.
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

// TestHandle fails when go-dcgm keeps its connection otherwise than
// goDCGMHandle expects: a package variable that is one uintptr.
func TestHandle(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(goDCGM(t), "admin.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^type dcgmHandle struct\{ handle C\.dcgmHandle_t \}$`,
		`(?m)^\thandle +dcgmHandle$`,
	} {
		if !regexp.MustCompile(want).Match(source) {
			t.Errorf("go-dcgm's admin.go has no line %s", want)
		}
	}
}
