// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const packagePath = "gpu_exporter/collector/dcgmsim"

// Build compiles libdcgm.so.4, libnvidia-ml.so.1 and dcgmsimd into dir, with
// this package's Makefile. What is up to date there is left alone. Builds into
// the same directory, by whichever process, wait for each other.
func Build(ctx context.Context, dir string) error {
	source, err := sourceDir(ctx)
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("locating %s: %w", dir, err)
	}
	return build(ctx, source, dir)
}

// BuildShared is Build into a directory of the user's cache that is named after
// the sources, so that every test of a run, and the next run, finds it done.
func BuildShared(ctx context.Context) (dir string, err error) {
	source, err := sourceDir(ctx)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum, err := hashSources(source)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, "gpu_exporter-dcgmsim", sum)
	return dir, build(ctx, source, dir)
}

func build(ctx context.Context, source, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-s", "-f", filepath.Join(source, "Makefile"), "OUT="+dir)
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the stand-ins: %w\n%s", err, out)
	}
	return nil
}

// sourceDir asks the go command, which knows where the module lies however the
// binary was built.
func sourceDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", packagePath).Output()
	if err != nil {
		return "", fmt.Errorf("locating %s: %w", packagePath, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func hashSources(source string) (string, error) {
	h := sha256.New()
	for _, pattern := range []string{"Makefile", "src/*.c", "src/*.h"} {
		files, err := filepath.Glob(filepath.Join(source, pattern))
		if err != nil {
			return "", fmt.Errorf("listing sources: %w", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("reading sources: %w", err)
			}
			fmt.Fprintf(h, "%s %d\n", filepath.Base(file), len(text))
			h.Write(text)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
