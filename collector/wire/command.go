// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// SamplerCommand changes a running sampler. Commands follow the configuration on the
// sampler's standard input, as one line of JSON each. The newest one applies.
type SamplerCommand struct {
	// ProfilingPause is the time from now during which profiling fields are not watched;
	// 0 ends a pause. It is a duration, so that a step of the clock does not change it.
	ProfilingPause time.Duration
}

// maxCommandLine bounds a line in bytes. Commands have about 30.
const maxCommandLine = 4 << 10

// ReadSamplerCommands calls deliver for each command until the end of r. It skips
// invalid lines and returns their errors at the end.
func ReadSamplerCommands(r io.Reader, deliver func(SamplerCommand)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxCommandLine)
	var errs []error
	for lines.Scan() {
		var c SamplerCommand
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			errs = append(errs, fmt.Errorf("decoding command: %w", err))
			continue
		}
		deliver(c)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("reading commands: %w", err))
	}
	return errors.Join(errs...)
}
