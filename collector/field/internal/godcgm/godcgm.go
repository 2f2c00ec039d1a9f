// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package godcgm reads the names of DCGM's fields from the source text of the go-dcgm
// module in go.mod. The generator of collector/field's table and its test use it. The
// exporter must not import it.
package godcgm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Module is go-dcgm's module path.
const Module = "github.com/NVIDIA/go-dcgm"

// Name is a field name that go-dcgm resolves.
type Name struct {
	Name   string
	ID     uint16
	Legacy bool // in go-dcgm's map of legacy names
}

// Names returns all names, sorted by name. The go command locates the module.
func Names(ctx context.Context) ([]Name, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", Module)
	dir, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("locating %s with go list: %w", Module, err)
	}
	path := strings.TrimSpace(string(dir))
	if path == "" {
		return nil, fmt.Errorf("%s is not downloaded: run go mod download %s", Module, Module)
	}
	return Read(filepath.Join(path, "pkg", "dcgm", "const_fields.go"))
}

// entry matches an element of go-dcgm's maps from names to IDs.
var entry = regexp.MustCompile(`(?m)^\s*"(\w+)":\s*(\d+),`)

// Read returns the names in go-dcgm's const_fields.go, sorted by name. If both maps have a
// name, the current one wins, as in go-dcgm's GetFieldID.
func Read(path string) ([]Name, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading go-dcgm's fields: %w", err)
	}
	_, tables, hasCurrent := strings.Cut(string(text), "\nvar dcgmFields = ")
	current, legacy, hasLegacy := strings.Cut(tables, "\nvar legacyDCGMFields = ")
	if !hasCurrent || !hasLegacy {
		return nil, fmt.Errorf("%s does not define dcgmFields before legacyDCGMFields", path)
	}
	names := map[string]Name{}
	for i, source := range []string{current, legacy} {
		for _, match := range entry.FindAllStringSubmatch(source, -1) {
			id, err := strconv.ParseUint(match[2], 10, 16)
			if err != nil {
				return nil, fmt.Errorf("ID of %s: %w", match[1], err)
			}
			if _, exists := names[match[1]]; !exists {
				names[match[1]] = Name{match[1], uint16(id), i == 1}
			}
		}
	}
	return slices.SortedFunc(maps.Values(names), func(a, b Name) int { return strings.Compare(a.Name, b.Name) }), nil
}
