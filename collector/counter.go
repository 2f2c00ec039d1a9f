// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

// reservedPrefixes begin the names of families that the exporter has of its own.
var reservedPrefixes = []string{"gpu_", "go_", "process_", "promhttp_", "scrape_"}

// prometheusNames are those of series that Prometheus makes itself.
var prometheusNames = []string{"up", "ALERTS", "ALERTS_FOR_STATE"}

// NewCounter returns the counter that the words describe: a field by its name or
// id, or a computed counter by its name, and the name, type and help of its metric,
// of which those that are empty are the field's. The error says what is wrong and
// what to do.
func NewCounter(field, name, metricType, help string) (Counter, error) {
	c, err := counterOf(field, metricType, help)
	if err != nil {
		return Counter{}, err
	}
	if name != "" {
		if err := checkName(name, c.Type); err != nil {
			return Counter{}, err
		}
		c.Name = name
	}
	return c, nil
}

// counterOf is NewCounter for a metric with the field's name.
func counterOf(field, metricType, help string) (Counter, error) {
	p := countersParser{first: map[string]int{}}
	if computed, itsHelp, ok := computedByName(field); ok {
		p.computed(0, computed, field, cmp.Or(metricType, computed.Nature().String()), cmp.Or(help, itsHelp))
		if len(p.problems) > 0 {
			return Counter{}, errors.New(p.problems[0].Message)
		}
		return p.counters.List[0], nil
	}
	f, ok := FieldByName(field)
	if id, err := strconv.ParseUint(field, 10, 16); err == nil {
		if f, ok = FieldByID(FieldID(id)); !ok {
			return Counter{}, fmt.Errorf("DCGM has no field %d", id)
		}
		field = f.DCGMName()
	}
	var scale float64
	if unit, inBaseUnit := baseUnitByName(field); !ok || inBaseUnit {
		f, scale, ok = p.field(0, field)
		if inBaseUnit {
			help = cmp.Or(help, unit.help)
		}
	}
	metric, typeOK := f.Nature, true
	if metricType != "" {
		metric, typeOK = p.metricType(0, field, metricType)
	}
	helpOK := p.help(0, field, cmp.Or(help, f.Help))
	if !ok || !typeOK || !helpOK {
		return Counter{}, errors.New(leaveOut(p.problems[0].Message))
	}
	if reason := refuse(f, scale, metric); reason != "" {
		return Counter{}, fmt.Errorf("%s %s", field, leaveOut(reason))
	}
	return Counter{Field: f, Name: field, Type: metric, Help: cmp.Or(help, f.Help), Scale: scale}, nil
}

// leaveOut makes of advice for a counters file some for a field that stands elsewhere.
func leaveOut(message string) string {
	return strings.ReplaceAll(message, "remove the line", "leave the field out")
}

// checkName says what is wrong with a name that is not the field's.
func checkName(name string, metric MetricType) error {
	if !metricName.MatchString(name) {
		return fmt.Errorf("%q is no name for a metric: use letters, digits, _ and :, and no digit first", name)
	}
	if metric == MetricLabel {
		if strings.Contains(name, ":") || strings.HasPrefix(name, "__") || slices.Contains(ownLabelNames(), name) {
			return fmt.Errorf("%q is no name for a label here: it is one of the device's, or begins with __, or has a colon: choose another name", name)
		}
	} else if slices.Contains(prometheusNames, name) {
		return fmt.Errorf("%q is the name of series that Prometheus makes itself: choose another name", name)
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%q begins with %s, which is for the exporter's own metrics: choose another name", name, prefix)
		}
	}
	return nil
}

// KindByName returns the kind with the name that [EntityKind.String] gives.
func KindByName(name string) (EntityKind, bool) {
	for kind, known := range kindNames {
		if known == name {
			return EntityKind(kind), true
		}
	}
	return 0, false
}

// KindNames are the names of all kinds that can be read.
func KindNames() []string { return append([]string(nil), kindNames[KindGPU:]...) }
