// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/common/expfmt"
)

const (
	// onceSamples is 3 because DCGM has no profiling values in the first sample, and
	// may have none in the second.
	onceSamples = 3
	// onceTimeout is longer than the supervisor allows a sampler to start.
	onceTimeout = 45 * time.Second
	// onceInterval is the longest time between these samples.
	onceInterval = 500 * time.Millisecond
)

// once writes the exposition of one sample to w.
func (e *exporter) once(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	stop := e.owners.Settle(ctx)
	defer stop()
	if err := e.takeSamples(ctx); err != nil {
		return err
	}
	e.owners.AwaitPlaces(ctx, e.collector.Processes())
	families, _ := e.collector.Families()
	body, err := e.exposition(families).Append(nil, expfmt.NewFormat(expfmt.TypeTextPlain))
	if err != nil {
		e.log.Warn("Some metrics cannot be encoded", "err", err)
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing the metrics: %w", err)
	}
	return nil
}

// takeSamples runs a sampler until it has delivered onceSamples samples. The error
// is the reason why it has not.
func (e *exporter) takeSamples(ctx context.Context) error {
	supervised, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.collector.RunSampler(supervised) }()
	defer func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			e.log.Warn("The sampler did not stop", "err", err)
		}
	}()

	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for samples := 0; samples < onceSamples; {
		select {
		case <-e.collector.Changed():
			samples++
		case <-poll.C:
			if fail := e.collector.SamplerStatus().LastFailure; fail.Message != "" {
				return fmt.Errorf("%s (%s)", fail.Message, fail.Reason)
			}
		case <-ctx.Done():
			_, reason := e.collector.Ready()
			return fmt.Errorf("no sample: %s", reason)
		}
	}
	return nil
}
