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

// SamplerCommand is what a running sampler is told: a line of JSON each, after
// the configuration, on its standard input. The newest one holds.
type SamplerCommand struct {
	// ProfilingPause is for how long from now the profiling fields are not watched;
	// 0 ends a pause. A duration, so that a step of the clock does not change it.
	ProfilingPause time.Duration
}

// maxCommandLine bounds a line; ours are far shorter.
const maxCommandLine = 4 << 10

// ReadSamplerCommands calls deliver for each command that comes from r, until r
// ends, which is no error.
func ReadSamplerCommands(r io.Reader, deliver func(SamplerCommand)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxCommandLine)
	var errs []error
	for lines.Scan() {
		var c SamplerCommand
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			errs = append(errs, fmt.Errorf("decoding a command: %w", err))
			continue
		}
		deliver(c)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("reading commands: %w", err))
	}
	return errors.Join(errs...)
}
