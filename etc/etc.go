// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package etc holds the files that the binary needs to work without any file
// installed beside it. It must hold data only; what reads it lives elsewhere.
package etc

import (
	_ "embed"
	"io"
	"strings"
)

//go:embed default-counters.csv
var defaultCounters string

//go:embed xid-catalogue.csv
var xidCatalogue string

// DefaultCountersName is what messages call the built-in default counters.
const DefaultCountersName = "built-in default-counters.csv"

// XIDCatalogueName is what messages call the built-in XID catalogue.
const XIDCatalogueName = "built-in xid-catalogue.csv"

// DefaultCounters returns the counters file to use where none is given.
func DefaultCounters() io.Reader { return strings.NewReader(defaultCounters) }

// XIDCatalogue returns what is known about XID codes.
func XIDCatalogue() io.Reader { return strings.NewReader(xidCatalogue) }
