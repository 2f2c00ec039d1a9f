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
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

const packagePath = "gpu_exporter/collector/dcgmsim"

// Build compiles libdcgm.so.4, libnvidia-ml.so.1 and dcgmsimd into dir with this
// package's Makefile. Files that are up to date are not built again. Builds into
// the same directory wait for each other, also across processes.
func Build(ctx context.Context, dir string) error {
	source, err := sourceDir(ctx)
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("locating %s: %w", dir, err)
	}
	return locked(dir, func() error { return build(ctx, source, dir) })
}

// BuildShared builds into a directory of the user's cache whose name is a hash of
// the sources, so that all tests and later runs reuse the result.
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
	return dir, locked(dir, func() error {
		complete := filepath.Join(dir, ".complete")
		if _, err := os.Stat(complete); err == nil {
			return nil
		}
		// An incomplete build may refer to the sources of a checkout that no longer exists.
		if err := os.RemoveAll(filepath.Join(dir, ".o")); err != nil {
			return fmt.Errorf("removing an incomplete build: %w", err)
		}
		if err := build(ctx, source, dir); err != nil {
			return err
		}
		return os.WriteFile(complete, nil, 0o644)
	})
}

// locked calls f while no other process builds into dir.
func locked(dir string, f func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("creating %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	return f()
}

func build(ctx context.Context, source, dir string) error {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-s", "-j", strconv.Itoa(runtime.NumCPU()), "-f", filepath.Join(source, "Makefile"), "OUT="+dir)
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the stand-ins: %w\n%s", err, out)
	}
	return nil
}

// sourceDir asks the go command for the package's directory, because the binary
// may have been built with -trimpath.
func sourceDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", packagePath).Output()
	if err != nil {
		return "", fmt.Errorf("locating %s: %w", packagePath, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func hashSources(source string) (string, error) {
	h := sha256.New()
	for _, pattern := range []string{"Makefile", "src/*/*.c", "src/*/*.h"} {
		files, err := filepath.Glob(filepath.Join(source, pattern))
		if err != nil {
			return "", fmt.Errorf("listing sources: %w", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("reading sources: %w", err)
			}
			fmt.Fprintf(h, "%s %d\n", strings.TrimPrefix(file, source), len(text))
			h.Write(text)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
