// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// standIn gives the directory of the stand-in, which is built once for all
// tests.
func standIn(t *testing.T) string {
	t.Helper()
	dir, err := builtStandIn()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var builtStandIn = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nvml-stand-in-")
	if err != nil {
		return "", err
	}
	header, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		return "", fmt.Errorf("finding nvml.h: %w", err)
	}
	args := []string{
		"-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread",
		"-Wl,-soname," + libraryName, "-Wl,--no-undefined",
		"-I" + filepath.Join(strings.TrimSpace(string(header)), "pkg", "nvml"),
		"-o", filepath.Join(dir, libraryName),
	}
	for _, source := range []string{"nvml.c", "node.c", "load.c", "mig.c", "scenario.c", "command.c"} {
		args = append(args, filepath.Join("..", "dcgmsim", source))
	}
	if out, err := exec.Command("gcc", append(args, "-lm")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the stand-in: %w\n%s", err, out)
	}
	return dir, nil
})
