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
	"unicode"
	"unicode/utf8"

	"gpu_exporter/collector/model"
)

// Counter is a field, and the metric or label that it becomes.
type Counter struct {
	// Field is zero if the counter is computed.
	Field Field
	// Computed is zero if the counter is a field.
	Computed ComputedCounter
	// Name is the name of the metric or label. By default it is the name that the counters
	// file uses for the field: current, legacy, or of dcgm-exporter 1.x.
	Name string
	Type MetricType // gauge, counter or label
	Help string
	// Scale is the factor from the field's unit to the metric's unit; 0 means 1. It is set
	// for names in base units.
	Scale float64
	// ZeroXID publishes 0 for the last XID of a device without one.
	ZeroXID bool

	// Only the configuration file can set the following.

	// Kinds are the kinds of entities on which the field is read, out of those of
	// [Field.AnsweredBy]; 0 means those of [Field.On] except compute instances.
	Kinds model.KindSet
	// Resolution is the interval of readings between two samples; 0 means none.
	Resolution time.Duration
	// Statistics adds the minimum, maximum and mean since the previous sample, Histogram a
	// native histogram. Both need a resolution.
	Statistics, Histogram bool
}

// Factor returns the factor from the field's unit to the metric's unit.
func (c Counter) Factor() float64 { return cmp.Or(c.Scale, 1) }

var metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

// reservedPrefixes are the prefixes of the exporter's own families.
var reservedPrefixes = []string{"gpu_", "go_", "process_", "promhttp_", "scrape_"}

// prometheusNames are the names of series that Prometheus generates.
var prometheusNames = []string{"up", "ALERTS", "ALERTS_FOR_STATE"}

// NewCounter returns the counter of a field, by name or ID, or of a computed counter, by
// name. Empty values of name, metricType and help mean the field's.
func NewCounter(field, name, metricType, help string) (Counter, error) {
	if id, err := strconv.ParseUint(field, 10, 16); err == nil {
		f, ok := ByID(model.FieldID(id))
		if !ok {
			return Counter{}, fmt.Errorf("DCGM has no field %d", id)
		}
		field = f.DCGMName()
	}
	c, err := resolve(field)
	if err != nil {
		return Counter{}, err
	}
	if metricType == "" {
		err = c.setType(c.Type)
	} else {
		err = c.parseType(metricType)
	}
	if err == nil && help != "" {
		err = c.setHelp(help)
	}
	if err == nil && name != "" {
		err = checkName(name, c.Type)
		c.Name = name
	}
	if err != nil {
		return Counter{}, err
	}
	return c, nil
}

// resolve returns the counter with the name, and with the field's type and help text. With
// an error, the counter has only its name.
func resolve(name string) (Counter, error) {
	for _, c := range ComputedCounters() {
		if c.Name == name {
			return c, nil
		}
	}
	if unit, ok := findBaseUnit(func(u baseUnit) bool { return u.name == name }); ok {
		f, _ := ByID(unit.field)
		return Counter{Field: f, Name: name, Type: f.Nature, Help: unit.help, Scale: unit.scale}, nil
	}
	if f, ok := ByName(name); ok {
		return Counter{Field: f, Name: name, Type: f.Nature, Help: f.Help}, nil
	}
	unknown := Counter{Name: name}
	if name == "" {
		return unknown, errors.New("the field name is missing: write name, type and help, separated by commas")
	}
	if s := Suggest(name); s != "" {
		return unknown, fmt.Errorf("unknown field %s: did you mean %s?", shown(name), s)
	}
	return unknown, fmt.Errorf("unknown field %s: DCGM has no field of this name", shown(name))
}

// parseType sets the metric type to a word of a counters file.
func (c *Counter) parseType(word string) error {
	switch word {
	case "gauge":
		return c.setType(MetricGauge)
	case "counter":
		return c.setType(MetricCounter)
	case "label":
		return c.setType(MetricLabel)
	case "histogram", "summary":
		return fmt.Errorf("%s cannot be a %s: DCGM returns one number, not a distribution; write gauge or counter", shown(c.Name), word)
	case "":
		return fmt.Errorf("%s has no type: write gauge, counter or label", shown(c.Name))
	}
	return fmt.Errorf("%s has the unknown type %s: write gauge, counter or label", shown(c.Name), shown(word))
}

// notExportable is the error of a known field whose values cannot be exported as requested.
type notExportable string

func (e notExportable) Error() string { return string(e) }

// setType sets the metric type, if the field can have it.
func (c *Counter) setType(metric MetricType) error {
	f := c.Field
	switch {
	case c.Computed != 0 && metric == MetricLabel:
		return fmt.Errorf("%s cannot be a label, because it has several values: write %s", c.Name, c.Type)
	case c.Computed != 0:
		return nil // the type is fixed; dcgm-exporter's files call gauges counters
	case c.Scale != 0 && metric == MetricLabel:
		return fmt.Errorf("%s is a number that keeps changing and cannot be a label: write %s", c.Name, f.Nature)
	case f.Type == model.ValueNone && f.Name != "":
		return notExportable(c.Name + " marks the edge of a range of field IDs and has no value: remove it")
	case f.Type == model.ValueBlob:
		return notExportable(c.Name + " is a binary structure and cannot be exported: remove it")
	case f.Type == model.ValueTime:
		return notExportable(c.Name + " is a time in DCGM's own form and cannot be exported: remove it")
	case f.Type == model.ValueString && metric != MetricLabel:
		return notExportable(fmt.Sprintf("%s is text and cannot be a %s: write label, to add it to the other series of its entity", c.Name, metric))
	}
	c.Type = metric
	return nil
}

// setHelp sets the help text, if the exposition formats can contain it.
func (c *Counter) setHelp(help string) error {
	if !utf8.ValidString(help) {
		return fmt.Errorf("the help text of %s is not UTF-8: save the file as UTF-8", shown(c.Name))
	}
	if i := strings.IndexFunc(help, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(help[i:])
		return fmt.Errorf("the help text of %s has the control character %U: write it on one line, with spaces", shown(c.Name), r)
	}
	c.Help = help
	return nil
}

// checkName checks a name that the configuration gives to a metric or label.
func checkName(name string, metric MetricType) error {
	if !metricName.MatchString(name) {
		return fmt.Errorf("%q is not a valid metric name: use letters, digits, _ and :, and no digit first", name)
	}
	if metric == MetricLabel {
		if strings.Contains(name, ":") || strings.HasPrefix(name, "__") || slices.Contains(OwnLabelNames(), name) {
			return fmt.Errorf("%q cannot be a label: the device has such a label, or the name begins with __ or contains a colon; choose another name", name)
		}
	} else if slices.Contains(prometheusNames, name) {
		return fmt.Errorf("%q is the name of a series that Prometheus generates: choose another name", name)
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%q begins with %s, which is reserved for the exporter's own metrics: choose another name", name, prefix)
		}
	}
	return nil
}

// On reports whether the counter's field is read on entities of the kind.
func (c Counter) On(kind model.EntityKind) bool {
	if c.Computed != 0 {
		return false
	}
	if c.Kinds != 0 {
		return c.Kinds.Has(kind)
	}
	// A compute instance repeats its GPU instance, so every sum would count it twice.
	return kind != model.KindComputeInstance && c.Field.On(kind)
}

// Odd returns a warning about the counter's type, or "".
func (c Counter) Odd() string {
	field := c.Field
	switch {
	case c.Computed != 0:
	case c.Type == MetricLabel && (field.Type == model.ValueDouble || field.Nature == MetricCounter):
		return fmt.Sprintf("%s is a number that keeps changing, so that a label creates new series each time: write %s", c.Name, field.Nature)
	case c.Type != MetricLabel && c.Type != field.Nature && !customary(field, c.Type):
		return fmt.Sprintf("%s is a %s, but is configured as a %s: functions such as rate() return wrong results", c.Name, field.Nature, c.Type)
	}
	return ""
}

// Repeats reports whether the other counter has the same values under another name.
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

// customary reports whether the type is common although it is not the field's nature.
// dcgm-exporter's files declare the NVLink throughput, the PCIe traffic and the pending
// page retirements as counters.
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

// OwnLabelNames returns the names of all labels that a device's series can have in any
// configuration, except the labels of pods.
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

// The suffixes of the families of a counter's statistics and histogram.
const (
	SuffixMin       = "_min"
	SuffixMax       = "_max"
	SuffixMean      = "_mean"
	SuffixHistogram = "_histogram"
)

// FamilyNames returns the names of the counter's families: its own, those of its
// statistics and histogram, and the names of the histogram's series in the text format.
// The families of two counters must have different names.
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

// NoStatistics returns the reason why the counter cannot have statistics and a histogram,
// with the remedy, or "".
func (c Counter) NoStatistics() string {
	const remedy = "remove resolution, statistics and histogram"
	switch {
	case !c.Field.Type.Numeric() || c.Type == MetricLabel:
		return "is not a series of numbers: " + remedy
	case c.Field.Nature == MetricCounter:
		return "only increases, so that its newest value is sufficient: " + remedy
	case c.Type == MetricCounter:
		return "is configured as a counter, and statistics and histogram need a gauge: write type: gauge, or remove them"
	case c.Field.coded():
		return "is a code or a bit mask, not a quantity: " + remedy
	}
	return ""
}

// coded reports whether the numeric field is a code, an ID or a bit mask.
func (f Field) coded() bool {
	switch f.ID {
	case 58, 59, 63, 64, // PCI IDs, compute capability, NVLink peers
		70, 71, 72, 73, 86, 87, 88, 89, // affinity
		112, 174, // clock event reasons, fabric health
		XIDErrors, 856, 857, // XIDs and errors of NVSwitches
		1305, 1306, 1307, 1308, 1309: // registers of ConnectX
		return true
	}
	return false
}

// Tracked reports whether the counter needs every value, not only the newest.
func (c Counter) Tracked() bool {
	return c.Type != MetricLabel && c.Field.Type.Numeric() && (c.Statistics || c.Histogram)
}
