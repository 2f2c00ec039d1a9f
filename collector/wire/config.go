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

// SamplerConfig is all that a sampler process needs to know. The supervisor
// hands it over as one line of JSON on the sampler's standard input, which then
// stays open: its end tells the sampler that the exporter is gone.
type SamplerConfig struct {
	// Replaces says that the sampler takes the place of a working one because of
	// another configuration. The supervisor sets it. The old sample serves until the
	// new one has what takes more than one reading, which is profiling.
	Replaces bool
	// Interval is the time between samples, and the update interval of the watches.
	Interval time.Duration
	// Fields are the fields to read, per kind of entity.
	Fields map[model.EntityKind][]model.FieldID
	// Models says which fields GPUs of some models are not asked for.
	Models []ModelRule
	// Revision comes back in every inventory: it tells which configuration of this
	// exporter the sampler has.
	Revision uint64
	// Derived are the fields to read on each GPU for our own families about it.
	Derived []model.FieldID
	// Tracked are the fields of which every value is wanted, also between samples.
	Tracked []model.TrackedField
	// Devices is the device selector of --devices; see ParseSelector.
	Devices string
	// Switches selects NVSwitches (g) and their links by port (i), CPUs selects CPUs
	// (g) and their cores (i), in the notation of Devices; empty is all.
	Switches, CPUs string
	// Hostengine is the address of a standalone engine; empty means embedded.
	Hostengine string
	// EventsSince is when to begin with events that the engine still has; zero is
	// now. The supervisor sets it for every sampler but the first: a standalone
	// engine has what came between two samplers, an embedded one has not.
	EventsSince time.Time
	// Links are those that earlier samplers knew. The supervisor sets it: DCGM does not
	// tell a link that is down from one that never was.
	Links []model.KnownLinks
	// HealthInterval is the time between health checks; 0 is none.
	HealthInterval time.Duration
	// Processes says that the processes on the devices are read, too.
	Processes bool
	// ProfilingPause is for how long the profiling fields are not watched at first;
	// 0 means not at all.
	ProfilingPause time.Duration
	// DCGMLogLevel is DCGM's own level name; empty or NONE means silent.
	DCGMLogLevel string
}

// ModelRule keeps a field from GPUs of some models, and from what lies in them.
type ModelRule struct {
	Field model.FieldID
	// Match is as for [ModelExpression]. GPUs that it matches
	// lack the field; with Only, all others do, unless another such rule of the
	// field matches them.
	Match string
	Only  bool
}

// ModelExpression returns the regular expression that a whole model name must match.
func ModelExpression(match string) (*regexp.Regexp, error) {
	return regexp.Compile("^(?:" + match + ")$")
}

// WriteTo writes the configuration as the sampler reads it.
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

// ReadSamplerConfig reads what WriteTo wrote and leaves the rest of r unread.
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
