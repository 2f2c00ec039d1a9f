// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	// Only this library, and by the one file that knows how.
	build := exec.Command("make", "-s", "-C", filepath.Join("..", "dcgmsim"), "OUT="+dir, filepath.Join(dir, libraryName))
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("building the stand-in: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return dir, nil
})
