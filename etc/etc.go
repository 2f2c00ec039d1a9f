// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package etc holds the files that the binary needs to work without any file
// installed beside it. It must hold data only; what reads it lives elsewhere.
package etc

import (
	"bytes"
	"embed"
	"io"
	"strings"
)

//go:embed default-counters.csv dcgm-4.9-counters.csv everything-counters.csv
var counters embed.FS

//go:embed xid-catalogue.csv
var xidCatalogue string

// DefaultCountersName is what messages call the built-in default counters.
const DefaultCountersName = "built-in default-counters.csv"

// XIDCatalogueName is what messages call the built-in XID catalogue.
const XIDCatalogueName = "built-in xid-catalogue.csv"

// DefaultCounters returns the counters file to use where none is given.
func DefaultCounters() io.Reader {
	text, _ := Counters("default") // it is embedded
	return text
}

const countersSuffix = "-counters.csv"

// CountersNames are the names of the counters files, which are those of their files
// without "-counters.csv".
func CountersNames() []string { return []string{"default", "dcgm-4.9", "everything"} }

// Counters returns the counters file with the name, if there is one.
func Counters(name string) (io.Reader, bool) {
	text, err := counters.ReadFile(name + countersSuffix)
	return bytes.NewReader(text), err == nil
}

// CountersFile is what messages call the counters file with the name.
func CountersFile(name string) string { return "built-in " + name + countersSuffix }

// XIDCatalogue returns what is known about XID codes.
func XIDCatalogue() io.Reader { return strings.NewReader(xidCatalogue) }
