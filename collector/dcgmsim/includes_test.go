// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The C modules depend on each other without cycles, and so do their directories.
// A module is a .c file with the header of the same name. "go test -v" prints the
// graph.
func TestIncludesAreAcyclic(t *testing.T) {
	files, err := filepath.Glob("src/*/*.[ch]")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d sources, %v", len(files), err)
	}
	include := regexp.MustCompile(`(?m)^#include "(\w+/\w+)\.h"$`)
	modules, directories := map[string][]string{}, map[string][]string{}
	add := func(graph map[string][]string, from, to string) {
		if from != to && !slices.Contains(graph[from], to) {
			graph[from] = append(graph[from], to)
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		module := strings.TrimSuffix(strings.TrimPrefix(file, "src/"), filepath.Ext(file))
		for _, m := range include.FindAllStringSubmatch(string(text), -1) {
			add(modules, module, m[1])
			add(directories, filepath.Dir(module), filepath.Dir(m[1]))
		}
	}
	for _, graph := range []map[string][]string{directories, modules} {
		for _, from := range slices.Sorted(maps.Keys(graph)) {
			t.Logf("%s: %s", from, strings.Join(graph[from], " "))
		}
		if cycle := findCycle(graph); cycle != nil {
			t.Errorf("include cycle: %s", strings.Join(cycle, " → "))
		}
	}
}

// findCycle returns the nodes of a cycle, or nil.
func findCycle(graph map[string][]string) []string {
	done := map[string]bool{}
	var path []string
	var visit func(node string) []string
	visit = func(node string) []string {
		if i := slices.Index(path, node); i >= 0 {
			return append(slices.Clone(path[i:]), node)
		}
		if done[node] {
			return nil
		}
		path = append(path, node)
		for _, to := range graph[node] {
			if cycle := visit(to); cycle != nil {
				return cycle
			}
		}
		path = path[:len(path)-1]
		done[node] = true
		return nil
	}
	for node := range graph {
		if cycle := visit(node); cycle != nil {
			return cycle
		}
	}
	return nil
}
