// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpu_exporter/collector/model"
)

// Factor is what values are multiplied by.
func (c Counter) Factor() float64 {
	if c.Scale == 0 {
		return 1
	}
	return c.Scale
}

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
	f, ok := ByName(field)
	if id, err := strconv.ParseUint(field, 10, 16); err == nil {
		if f, ok = ByID(model.FieldID(id)); !ok {
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
		if strings.Contains(name, ":") || strings.HasPrefix(name, "__") || slices.Contains(OwnLabelNames(), name) {
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

// Counter is one line of a counters file: a field, and the metric or label that
// becomes of it.
type Counter struct {
	// Field is zero if the counter is computed.
	Field Field
	// Computed says which of dcgm-exporter's own counters it is, if it is one.
	Computed ComputedCounter
	// Name is the name as it stands in the file, and so the name of the metric
	// or label: current, legacy or that of dcgm-exporter 1.x.
	Name string
	Type MetricType // gauge, counter or label
	Help string
	// Scale is what values of the field are multiplied by; 0 is 1. It is set for
	// names in base units of which the field is in another unit.
	Scale float64

	// What a counters file cannot say, and the configuration file can.

	// Kinds are the kinds of entities that are asked, of those of [Field.AnsweredBy];
	// 0 is those of [Field.On] but compute instances.
	Kinds model.KindSet
	// Resolution is how often the field is looked at between two samples; 0 is not.
	Resolution time.Duration
	// Statistics adds the minimum, maximum and mean since the last sample,
	// Histogram a native histogram of what was seen. Both want a resolution.
	Statistics, Histogram bool
}

// On says whether entities of the kind are asked for the counter's field.
func (c Counter) On(kind model.EntityKind) bool {
	if c.Computed != 0 {
		return false
	}
	if c.Kinds != 0 {
		return c.Kinds.Has(kind)
	}
	// Beside its GPU instance, a compute instance would count twice in every sum.
	return kind != model.KindComputeInstance && c.Field.On(kind)
}

// refuse says why values of the field cannot become a metric of that type, or
// returns "".
func refuse(f Field, scale float64, metric MetricType) string {
	switch {
	case scale != 0 && metric == MetricLabel:
		return fmt.Sprintf("is a number that keeps changing and cannot be a label: write %s", f.Nature)
	case f.Type == model.ValueNone:
		return "marks the edge of a range of field ids and has no value: remove the line"
	case f.Type == model.ValueBlob:
		return "is a binary structure, not one value: it cannot be exported; remove the line"
	case f.Type == model.ValueTime:
		return "is a point in time in DCGM's own form: it cannot be exported; remove the line"
	case f.Type == model.ValueString && metric != MetricLabel:
		return fmt.Sprintf("is a text, and a %s is a number: write label, to put it on the other series of its entity", metric)
	}
	return ""
}

// Odd says what is odd about the counter's type, or returns "".
func (c Counter) Odd() string {
	field := c.Field
	switch {
	case c.Computed != 0:
	case c.Type == MetricLabel && (field.Type == model.ValueDouble || field.Nature == MetricCounter):
		return fmt.Sprintf("%s is a number that keeps changing: as a label it makes new series each time; write %s", c.Name, field.Nature)
	case c.Type != MetricLabel && c.Type != field.Nature && !customary(field, c.Type):
		return fmt.Sprintf("%s is by nature a %s, and the file makes it a %s: functions such as rate() will mislead", c.Name, field.Nature, c.Type)
	}
	return ""
}

// Repeats says whether values of the counter are also those of other, under another
// name.
func (c Counter) Repeats(other Counter) bool {
	if c.Computed != 0 || other.Computed != 0 || c.Field.ID != other.Field.ID || c.Name == other.Name {
		return false
	}
	for kind := range model.EntityKind(model.KindCount) {
		if c.On(kind) && other.On(kind) {
			return true
		}
	}
	return false
}

// customary says whether the type, although not the field's nature, is what
// people write and expect: dcgm-exporter's own files, their commented-out lines
// included, call the NVLink throughput, PCIe traffic and pending page
// retirements counters.
func customary(f Field, metric MetricType) bool {
	if metric != MetricCounter {
		return false
	}
	switch f.ID {
	case 392, 440, 449, 1009, 1010:
		return true
	}
	return false
}

// OwnLabelNames are the names that a device's series can have without any pod's
// label, whatever the configuration.
func OwnLabelNames() []string {
	return []string{
		"gpu", "UUID", "uuid", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "GPU_CI_ID", "hostname", "Hostname",
		"nvlink", "nvswitch", "gpu_uuid", "model_name", "cpu", "cpucore", "connectx",
		"container", "namespace", "pod", "container_name", "pod_name", "pod_namespace", "pod_uid", "vgpu",
		"workload", "workload_kind", "hpc_job", "err_code", "err_msg",
		"dra_claim_name", "dra_claim_namespace", "dra_driver_name", "dra_pool_name", "dra_device_name",
		"dra_mig_profile", "dra_mig_device_uuid",
	}
}

// The suffixes of the families that a counter with statistics adds to its own,
// and of its histogram. They cannot be confused with names of fields, which are
// in capitals, or with labels of theirs.
const (
	SuffixMin       = "_min"
	SuffixMax       = "_max"
	SuffixMean      = "_mean"
	SuffixHistogram = "_histogram"
)

// FamilyNames returns the names of the families that come of the counter: its
// own, and those of its statistics and histogram, with the names that the histogram's
// series have in text. A configuration in which two counters have one in common
// cannot be served.
func (c Counter) FamilyNames() []string {
	if c.Type == MetricLabel {
		return nil
	}
	names := []string{c.Name}
	if c.Tracked() && c.Statistics {
		names = append(names, c.Name+SuffixMin, c.Name+SuffixMax, c.Name+SuffixMean)
	}
	if c.Tracked() && c.Histogram {
		names = append(names, c.Name+SuffixHistogram)
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			names = append(names, c.Name+SuffixHistogram+suffix)
		}
	}
	return names
}

// NoStatistics says why the smallest, greatest and mean value of the counter would
// say nothing, nor a histogram, and what to do; or returns "".
func (c Counter) NoStatistics() string {
	const without = "leave resolution, statistics and histogram out"
	switch {
	case !c.Field.Type.Numeric() || c.Type == MetricLabel:
		return "is no series of numbers: " + without
	case c.Field.Nature == MetricCounter:
		return "only grows, so that its newest value says all: " + without
	case c.Type == MetricCounter:
		return "is a counter here, and statistics and histogram are of gauges: write type: gauge, or leave them out"
	case c.Field.coded():
		return "is a code or a bit mask, and no quantity: " + without
	}
	return ""
}

// coded says whether a numeric field is a code, an id or a bit mask: there is no
// more or less of it.
func (f Field) coded() bool {
	switch f.ID {
	case 58, 59, 63, 64, // ids of PCI, compute capability, other GPUs
		70, 71, 72, 73, 86, 87, 88, 89, // affinity
		112, 174, // reasons of clocks, health of the fabric
		XIDErrors, 856, 857, // codes of XIDs and of NVSwitches' errors
		1305, 1306, 1307, 1308, 1309: // registers of ConnectX
		return true
	}
	return false
}

// Tracked says whether the counter asks for more than the newest value. A label
// has none, and values that are no numbers have no minimum.
func (c Counter) Tracked() bool {
	return c.Type != MetricLabel && c.Field.Type.Numeric() && (c.Statistics || c.Histogram)
}
