// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"context"
	"log/slog"

	"gpu_exporter/collector/dcgm"
	"gpu_exporter/collector/nvml"
	"gpu_exporter/collector/wire"
)

// sampleDCGM samples through the native libraries.
func sampleDCGM(ctx context.Context, c wire.SamplerConfig, commands <-chan wire.SamplerCommand, frames *wire.FrameWriter, logger *slog.Logger) error {
	reader := nvml.NewReader(logger)
	err := dcgm.Run(ctx, dcgm.Config{
		Sampler:    c,
		Frames:     frames,
		Commands:   commands,
		MIGDevices: reader.MIGDevices,
		Processes:  reader.Processes,
		Logger:     logger,
	})
	if err == nil {
		reader.Close() // a stuck driver would block it, and delay the report of err
	}
	return err
}
