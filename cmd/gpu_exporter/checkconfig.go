// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/prometheus/exporter-toolkit/web"

	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/collector"
)

// checkConfig prints what the exporter would do, or all that is wrong with its
// files; the flags are checked already. It returns the exit status.
func checkConfig(c config, warnings, environ []string, stdout, stderr io.Writer) int {
	var problems []string
	counters, rules, err := loadCounters(c)
	if err != nil {
		problems = append(problems, err.Error())
	}
	if _, err := loadXIDCatalogue(c); err != nil {
		problems = append(problems, err.Error())
	}
	if err := web.Validate(c.WebConfigFile); err != nil {
		problems = append(problems, fmt.Sprintf("--%s=%s: %v", optWebConfig, c.WebConfigFile, err))
	}
	o, err := owners.New(ownersConfig(c), slog.New(slog.DiscardHandler))
	if err != nil {
		problems = append(problems, err.Error())
	} else if err := o.SlicesError(); err != nil {
		warnings = append(warnings, fmt.Sprintf("--%s: %v", optDRA, err))
	}
	warning, err := trySamplerEnv(c, environ)
	if err != nil {
		problems = append(problems, err.Error())
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	if len(problems) > 0 {
		for line := range strings.Lines(strings.Join(problems, "\n")) {
			printf(stderr, "error: %s\n", strings.TrimSuffix(line, "\n"))
		}
		return 1
	}
	for _, w := range counters.Warnings {
		warnings = append(warnings, w.String())
	}
	for _, w := range append(warnings, uncollected(counters)...) {
		printf(stderr, "warning: %s\n", w)
	}

	printf(stdout, "%s every %v, of devices %s, from %s\n", countersName(c), c.Interval, c.Devices, c.source())
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	for _, m := range counters.List {
		id := "computed"
		if m.Computed == 0 {
			id = strconv.Itoa(int(m.Field.ID))
		}
		printf(table, "%s\t%s\t%s\t%s\t%s\n", id, m.Name, m.Type, asked(m, rules), m.Help)
	}
	if err := table.Flush(); err != nil {
		printf(stderr, "error: printing: %v\n", err)
		return 1
	}
	return 0
}

// asked says which kinds of entities are asked for a counter, and how finely.
func asked(m collector.Counter, models []collector.ModelRule) string {
	var kinds []string
	for _, kind := range collectedKinds() {
		if m.On(kind) {
			kinds = append(kinds, kind.String())
		}
	}
	text := strings.Join(kinds, ",")
	if m.Resolution > 0 {
		text += " every " + m.Resolution.String()
	}
	for _, name := range m.FamilyNames() {
		// The series that a histogram is in text go without saying.
		if more := strings.TrimPrefix(name, m.Name); more != "" && !strings.HasPrefix(more, "_histogram_") {
			text += " +" + more
		}
	}
	for _, rule := range models {
		switch {
		case rule.Field != m.Field.ID || m.Computed != 0:
		case rule.Only:
			text += " of " + rule.Match
		default:
			text += " not of " + rule.Match
		}
	}
	return text
}

// trySamplerEnv says what is wrong with where the libraries come from.
func trySamplerEnv(c config, environ []string) (warning string, err error) {
	executable, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the path of this program: %w", err)
	}
	env, err := newSamplerEnv(c, environ, executable)
	if errors.Is(err, sampler.ErrNoStandIns) {
		err = nil // the machine that this configuration is for may have them
	}
	return env.Warning, errors.Join(err, env.Close())
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
