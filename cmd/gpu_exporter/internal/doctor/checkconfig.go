// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/wire"
)

// CheckConfig implements the command check-config. It prints the metrics that the
// configuration exports: the counters, the families of groups, and the number of series.
// The configuration has been validated; check sets up the exporter, and returns warnings and
// the mistakes that only this setup detects. The exit status is 1 after a mistake.
func CheckConfig(line config.CommandLine, check func(config.Config) (warnings []string, err error), stdout, stderr io.Writer) int {
	c := line.Config
	warnings, err := check(c)
	if err != nil {
		return fail(stderr, err)
	}
	for _, w := range append(line.Warnings, warnings...) {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	fmt.Fprintf(stdout, "%s every %v, of devices %s, from %s\n", c.CountersName, c.Interval, c.Devices, c.Source())
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	for _, m := range c.Counters {
		id := "computed"
		if m.Computed == 0 {
			id = strconv.Itoa(int(m.Field.ID))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", id, m.Name, m.Type, describeReading(m, c.Models), m.Help)
	}
	if err := cmp.Or(table.Flush(), writeGroups(stdout, c)); err != nil {
		return fail(stderr, fmt.Errorf("printing: %w", err))
	}
	return 0
}

// describeReading describes on which entities and how often a counter is read, such as
// "gpu,gpu_instance every 1s +_histogram".
func describeReading(m field.Counter, models []wire.ModelRule) string {
	var kinds []string
	for _, kind := range config.CollectedKinds() {
		if m.On(kind) {
			kinds = append(kinds, kind.String())
		}
	}
	text := strings.Join(kinds, ",")
	if m.Resolution > 0 {
		text += " every " + m.Resolution.String()
	}
	for _, name := range m.FamilyNames() {
		// The classic series of a histogram are implied.
		if suffix := strings.TrimPrefix(name, m.Name); suffix != "" && !strings.HasPrefix(suffix, "_histogram_") {
			text += " +" + suffix
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
