// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package etc embeds the counters files and the XID catalogue, so that the binary works
// without installed files. It must contain only data and no code that interprets it.
package etc

import (
	"bytes"
	"embed"
	"io"
	"strings"
)

//go:embed default-counters.csv dcgm-4.9-counters.csv 1.x-compatibility-counters.csv everything-counters.csv
var counters embed.FS

//go:embed xid-catalogue.csv
var xidCatalogue string

// DefaultCountersName is the name of the built-in default counters in messages.
const DefaultCountersName = "built-in default-counters.csv"

// XIDCatalogueName is the name of the built-in XID catalogue in messages.
const XIDCatalogueName = "built-in xid-catalogue.csv"

// DefaultCounters returns the default counters file.
func DefaultCounters() io.Reader {
	text, _ := Counters("default") // always embedded
	return text
}

const countersSuffix = "-counters.csv"

// CountersNames returns the names of the counters files, without "-counters.csv".
func CountersNames() []string {
	return []string{"default", "dcgm-4.9", "1.x-compatibility", "everything"}
}

// Counters returns the counters file with the name. It returns false if there is none.
func Counters(name string) (io.Reader, bool) {
	text, err := counters.ReadFile(name + countersSuffix)
	return bytes.NewReader(text), err == nil
}

// CountersFile returns the name of a counters file in messages.
func CountersFile(name string) string { return "built-in " + name + countersSuffix }

// XIDCatalogue returns the XID catalogue.
func XIDCatalogue() io.Reader { return strings.NewReader(xidCatalogue) }
