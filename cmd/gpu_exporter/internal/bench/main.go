// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures what gpu_exporter costs, as ratios against floors that
// are measured in the same run on the same machine, and prints a table. It
// drives the built binary over simulated nodes and must not be part of any test:
// times depend on the machine. BenchmarkSample in collector/dcgm measures the sampler.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() { os.Exit(run()) }

// options are the command line.
type options struct {
	exporter string
	soak     time.Duration
	rounds   int
	only     string
}

func run() int {
	var o options
	flag.StringVar(&o.exporter, "exporter", "build/gpu_exporter", "the binary to measure, with sim/ beside it")
	flag.DurationVar(&o.soak, "soak", 10*time.Minute, "how long to watch resident memory at 100 ms; 0 leaves it out")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each pair is measured; the median counts")
	flag.StringVar(&o.only, "only", "", "measure only the rows that contain this text")
	bare := flag.String("bare", "", "serve this file as a bare handler: how bench starts its own floor")
	encoding := flag.String("encoding", "", "Content-Encoding of -bare")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *bare != "":
		err = serveBare(*bare, *encoding)
	default:
		err = measureAll(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// row is one line of the table.
type row struct {
	what, measured, floor, ratio, reach string
	ok                                  bool
}

func measureAll(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "gpu_exporter-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir}
	measurements := []struct {
		name    string
		measure func(context.Context) ([]row, error)
	}{
		{"scrape h100x8", func(ctx context.Context) ([]row, error) {
			return b.scrapes(ctx, "h100x8 x 60 fields", "h100x8", b.counters())
		}},
		{"scrape 16x7", func(ctx context.Context) ([]row, error) {
			return b.scrapes(ctx, "16 x 7 instances x 60 fields", b.largeScenario(), b.counters())
		}},
		{"scrape dgx-h100", func(ctx context.Context) ([]row, error) {
			return b.scrapes(ctx, "dgx-h100", "dgx-h100", b.fabricCounters())
		}},
		{"owners", b.joining},
		{"garbage", b.garbage},
		{"start", b.start},
		{"hang", b.hang},
		{"memory", b.memory},
	}
	var rows []row
	var errs []error
	for _, m := range measurements {
		if !strings.Contains(m.name, o.only) || (m.name == "memory" && o.soak == 0) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", m.name)
		r, err := m.measure(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
		rows = append(rows, r...)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "what\tmeasured\tfloor\tratio\treach\t")
	for _, r := range rows {
		verdict := "ok"
		if r.reach == "" {
			verdict = ""
		} else if !r.ok {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, r.measured, r.floor, r.ratio, r.reach, verdict)
	}
	if err := w.Flush(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// maxRatio is the most that anything may cost, as a multiple of its floor.
const maxRatio = 1.5

// against makes a row of medians and their ratio.
func against(what string, measured, floor []time.Duration) row {
	m, f := median(measured), median(floor)
	ratio := float64(m) / float64(f)
	return row{
		what: what, measured: m.String(), floor: f.String(),
		ratio: fmt.Sprintf("%.2f", ratio), reach: fmt.Sprintf("<= %.1f", maxRatio), ok: ratio <= maxRatio,
	}
}

// atMost makes a row of one figure, which must not exceed limit.
func atMost(what string, measured, limit float64, unit string) row {
	return row{
		what: what, measured: fmt.Sprintf("%.4g %s", measured, unit), floor: "-", ratio: "-",
		reach: fmt.Sprintf("<= %.4g %s", limit, unit), ok: measured <= limit,
	}
}

func median[T interface{ ~int64 | ~float64 }](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
