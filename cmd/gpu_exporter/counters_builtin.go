// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"gpu_exporter/collector"
	"gpu_exporter/etc"
)

// builtInPrefix begins the name of a built-in counters file where the path of one
// may stand. It keeps the names apart from those of files.
const builtInPrefix = "builtin:"

// builtInCounters are what can be given in place of a path.
func builtInCounters() []string {
	names := etc.CountersNames()
	for i, name := range names {
		names[i] = builtInPrefix + name
	}
	return names
}

func isBuiltIn(path string) bool { return strings.HasPrefix(path, builtInPrefix) }

// readCounters reads the counters file at path, or the built-in one that it names.
func readCounters(path string) (*collector.Counters, error) {
	name, builtIn := strings.CutPrefix(path, builtInPrefix)
	if !builtIn {
		return collector.LoadCounters(path)
	}
	text, ok := etc.Counters(name)
	if !ok {
		return nil, fmt.Errorf("%s: there is no built-in counters file of that name: use %s, or the path of a file", path, listOf(builtInCounters()))
	}
	return collector.ParseCounters(text, etc.CountersFile(name))
}
