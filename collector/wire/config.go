// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"time"

	"gpu_exporter/collector/model"
)

// SamplerConfig configures a sampler process. The supervisor writes it as one line of
// JSON to the sampler's standard input, which then remains open. Its end means that the
// exporter has exited.
type SamplerConfig struct {
	// Replaces is set by the supervisor if the sampler replaces a working one with
	// another configuration. The old sample is served until the new sampler has values
	// that need more than one reading (profiling).
	Replaces bool
	// Interval is the time between samples, and the update interval of the watches.
	Interval time.Duration
	// MaxAge is the age at which a value is stale, but at least 3 updates of its watch.
	MaxAge time.Duration
	// Fields are the fields to read, per kind of entity.
	Fields map[model.EntityKind][]model.FieldID
	// Models excludes fields from GPUs of some models.
	Models []ModelRule
	// Revision is returned in every inventory. It identifies the configuration that the
	// sampler uses.
	Revision uint64
	// Derived are the fields to read on each GPU for the gpu_* families.
	Derived []model.FieldID
	// Tracked are the fields whose values between samples are read too.
	Tracked []model.TrackedField
	// Devices is the device selector of --devices.
	Devices string
	// Switches selects NVSwitches (g) and their links by port (i). CPUs selects CPUs (g)
	// and their cores (i). Both use the notation of Devices; empty selects all.
	Switches, CPUs string
	// Hostengine is the address of a standalone engine; empty means embedded.
	Hostengine string
	// EventsSince is the time of the first event to report; zero means now. The
	// supervisor sets it for every sampler except the first. Only a standalone engine
	// records events between two samplers.
	EventsSince time.Time
	// Links are the links that earlier samplers reported. The supervisor sets it, because
	// DCGM does not distinguish a link that went down from an absent one.
	Links []model.KnownLinks
	// HealthInterval is the time between health checks; 0 disables them.
	HealthInterval time.Duration
	// Peers enables reading how the GPUs reach each other, together with the health
	// checks.
	Peers bool
	// Processes enables reading the processes on the devices.
	Processes bool
	// ProfilingPause is the time from the start during which profiling fields are not
	// watched.
	ProfilingPause time.Duration
	// DCGMLogLevel is DCGM's name of a log level; empty or NONE disables its log.
	DCGMLogLevel string
}

// ModelRule excludes a field from GPUs of some models, including their instances and
// links.
type ModelRule struct {
	Field model.FieldID
	// Match is a pattern for [ModelExpression]. The field is excluded from matching GPUs.
	// With Only, it is excluded from GPUs that no rule of the field with Only matches.
	Match string
	Only  bool
}

// ModelExpression returns the regular expression that a whole model name must match.
func ModelExpression(match string) (*regexp.Regexp, error) {
	return regexp.Compile("^(?:" + match + ")$")
}

// WriteTo writes the configuration as one line of JSON.
func (c SamplerConfig) WriteTo(w io.Writer) (int64, error) {
	line, err := json.Marshal(c)
	if err != nil {
		return 0, fmt.Errorf("encoding sampler configuration: %w", err)
	}
	n, err := w.Write(append(line, '\n'))
	if err != nil {
		return int64(n), fmt.Errorf("writing sampler configuration: %w", err)
	}
	return int64(n), nil
}

// ReadSamplerConfig reads one line of JSON. It does not read beyond the line.
func ReadSamplerConfig(r io.Reader) (SamplerConfig, error) {
	var (
		c    SamplerConfig
		line []byte
		b    [1]byte
	)
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return c, fmt.Errorf("reading sampler configuration: %w", err)
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return c, fmt.Errorf("decoding sampler configuration: %w", err)
	}
	return c, nil
}
