// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector"
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

// once writes the exposition of one sample to w: the families of the devices, or all of
// them. node_exporter's textfile collector rejects the others, because it has families of
// the same names.
func (e *exporter) once(ctx context.Context, w io.Writer, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	stop := e.owners.Settle(ctx)
	defer stop()
	var page collector.Exposition
	if err := e.withSamples(ctx, func() {
		families := e.familiesWithProcesses(ctx)
		if all {
			page = *e.exposition(families)
			return
		}
		page.Families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
			return strings.HasPrefix(f.GetName(), "gpu_exporter_")
		})
	}); err != nil {
		return err
	}
	body, err := page.Append(nil, expfmt.NewFormat(expfmt.TypeTextPlain))
	if err != nil {
		e.log.Warn("Some metrics cannot be encoded", "err", err)
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing the metrics: %w", err)
	}
	return nil
}

// familiesWithProcesses returns the families with the newest processes attributed to
// their owners. A sampler may deliver newer processes in the meantime.
func (e *exporter) familiesWithProcesses(ctx context.Context) []*dto.MetricFamily {
	for {
		processes := e.collector.Processes()
		e.owners.AwaitPlaces(ctx, processes)
		families, _ := e.collector.Families()
		if e.collector.Processes() == processes || ctx.Err() != nil {
			return families
		}
	}
}

// takeSamples is [exporter.withSamples] for callers that read the samples later. It ends
// after onceTimeout.
func (e *exporter) takeSamples(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	return e.withSamples(ctx, func() {})
}

// withSamples calls use after a sampler has delivered onceSamples samples, and while it
// runs: afterwards, the page reports a sampler that is down. The error is the reason why
// it has not delivered them.
func (e *exporter) withSamples(ctx context.Context, use func()) error {
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
	use()
	return nil
}
