// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/prometheus/exporter-toolkit/web"
)

// checkConfig prints what the exporter would do, or all that is wrong with its
// files; the flags are checked already. It returns the exit status.
func checkConfig(c config, warnings []string, stdout, stderr io.Writer) int {
	for _, w := range warnings {
		printf(stderr, "warning: %s\n", w)
	}
	var problems []string
	counters, err := loadCounters(c)
	if err != nil {
		problems = append(problems, err.Error())
	}
	if err := web.Validate(c.WebConfigFile); err != nil {
		problems = append(problems, fmt.Sprintf("%s: %v", c.WebConfigFile, err))
	}
	if len(problems) > 0 {
		for line := range strings.Lines(strings.Join(problems, "\n")) {
			printf(stderr, "error: %s\n", strings.TrimSuffix(line, "\n"))
		}
		return 1
	}
	for _, w := range counters.Warnings {
		printf(stderr, "warning: %s\n", w)
	}

	printf(stdout, "%s every %v, of devices %s, from %s\n", countersName(c), c.Interval, c.Devices, c.source())
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	for _, m := range counters.List {
		printf(table, "%d\t%s\t%s\t%s\n", m.Field.ID, m.Name, m.Type, m.Help)
	}
	if err := table.Flush(); err != nil {
		printf(stderr, "error: printing: %v\n", err)
		return 1
	}
	return 0
}

// source says in words where values come from.
func (c config) source() string {
	switch {
	case c.Simulate != "" && c.Hostengine != "":
		return "the host engine at " + c.Hostengine + ", through the stand-ins of scenario " + c.Simulate
	case c.Simulate != "":
		return "the simulated node " + c.Simulate
	case c.Hostengine != "":
		return "the host engine at " + c.Hostengine
	default:
		return "an embedded host engine"
	}
}
