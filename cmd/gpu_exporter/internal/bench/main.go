// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures the cost of gpu_exporter and prints a table. It runs the
// built binary on simulated nodes. CPU times are compared with a floor that is
// measured in the same run, because they depend on the machine. For the same reason
// no test may depend on them.
//
// The costs of one sample are measured by BenchmarkSample in collector/metrics (the
// exporter) and in collector/dcgm (the sampler).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var b bench
	flag.StringVar(&b.exporter, "exporter", "build/gpu_exporter", "the binary to measure; the stand-ins are in the directory sim next to it")
	flag.DurationVar(&b.duration, "duration", 10*time.Minute, "how long to observe the memory; 0 skips it")
	flag.IntVar(&b.rounds, "rounds", 5, "number of measurements, of which the median counts")
	flag.StringVar(&b.only, "only", "", "run only the measurements whose name contains this text")
	bare := flag.String("bare", "", "internal: serve this file with a bare handler")
	encoding := flag.String("encoding", "", "internal: Content-Encoding of -bare")
	flag.Parse()
	if *bare != "" {
		return serveBare(*bare, *encoding)
	}
	return b.run(ctx)
}

// bench is one run.
type bench struct {
	exporter string
	duration time.Duration
	rounds   int
	only     string

	dir   string // for a copy of the binary, counters files and the state of simulated nodes
	nodes int    // started so far
}

// row is one line of the table.
type row struct {
	quantity, measured, floor, ratio, limit string
	exceeded                                bool
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "gpu_exporter-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.copyExporter(); err != nil {
		return err
	}
	var rows []row
	var errs []error
	for _, m := range []struct {
		name    string
		measure func(context.Context) ([]row, error)
	}{
		{"scrape h100x8", func(ctx context.Context) ([]row, error) { return b.scrapes(ctx, "h100x8", counters60) }},
		{"scrape dgx-h100", func(ctx context.Context) ([]row, error) { return b.scrapes(ctx, "dgx-h100", countersFabric) }},
		{"start", b.start},
		{"memory", b.memory},
	} {
		if !strings.Contains(m.name, b.only) || (m.name == "memory" && b.duration == 0) {
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
	fmt.Fprintln(w, "quantity\tmeasured\tfloor\tratio\tlimit\t")
	for _, r := range rows {
		verdict := "ok"
		if r.exceeded {
			verdict = "EXCEEDED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.quantity, r.measured, r.floor, r.ratio, r.limit, verdict)
	}
	return errors.Join(append(errs, w.Flush())...)
}

// copyExporter copies the binary, so that no other process shares its pages, and drops the
// copy from the page cache. The kernel then reads it in small pieces, as after a boot: it
// may keep a file that was just written in pieces of 2 MiB, which count in full.
func (b *bench) copyExporter() (err error) {
	standIns, err := filepath.Abs(filepath.Join(filepath.Dir(b.exporter), "sim"))
	if err != nil {
		return err
	}
	from, err := os.Open(b.exporter)
	if err != nil {
		return err
	}
	defer from.Close()
	b.exporter = filepath.Join(b.dir, "gpu_exporter")
	to, err := os.OpenFile(b.exporter, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(to.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("dropping %s from the page cache: %w", b.exporter, err)
	}
	return os.Symlink(standIns, filepath.Join(b.dir, "sim"))
}

// maxRatio limits the CPU time of a scrape to a multiple of the bare handler's.
const maxRatio = 1.3

// relative returns a row that compares the medians of measurements and of a floor.
func relative(quantity string, measured, floor []time.Duration) row {
	m, f := median(measured), median(floor)
	ratio := float64(m) / float64(f)
	return row{
		quantity: quantity, measured: m.String(), floor: f.String(),
		ratio: fmt.Sprintf("%.2f", ratio), limit: fmt.Sprintf("<= %.1f", maxRatio), exceeded: ratio > maxRatio,
	}
}

// absolute returns a row of one value and its limit.
func absolute(quantity string, measured, limit float64, unit string) row {
	return row{
		quantity: quantity, measured: fmt.Sprintf("%.4g %s", measured, unit), floor: "-", ratio: "-",
		limit: fmt.Sprintf("<= %.4g %s", limit, unit), exceeded: measured > limit,
	}
}

func median[T interface{ ~int64 | ~float64 }](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
