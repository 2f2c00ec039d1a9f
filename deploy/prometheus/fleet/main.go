// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command fleet measures what the pages, rules and dashboards of a fleet cost Prometheus.
// It records the pages of simulated nodes, multiplies them to a fleet with pods that come
// and go, and prints three tables: the cost of the rules, the time of each dashboard query,
// and the memory of a Prometheus that scrapes the fleet.
//
// Figures depend on the machine. No test may depend on them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	exporter, prometheus string // programs
	rules                string // directory of recording.yaml and alerts.yaml
	dashboards           string // directory of the JSON files
	nodes                int
	history, ruled       time.Duration // of the pages; of them, with recording rules
	ingest               time.Duration
	all                  bool

	dir string
}

const (
	scrapeInterval = 30 * time.Second
	ruleInterval   = 30 * time.Second // of recording.yaml
	gpusPerNode    = 8
)

// The limits of the tables.
const (
	maxRuleCPU   = 0.10 // of one core
	maxRuleAdded = 12   // series per GPU
	maxQuery     = time.Second
)

var errExceeded = errors.New("a limit is exceeded")

func run(ctx context.Context) (err error) {
	start := time.Now()
	var b bench
	flag.StringVar(&b.exporter, "exporter", "build/gpu_exporter", "the exporter; the stand-ins are in the directory sim next to it")
	flag.StringVar(&b.prometheus, "prometheus", "build/tools/prometheus", "the Prometheus server")
	flag.StringVar(&b.rules, "rules", "deploy/prometheus", "directory of recording.yaml and alerts.yaml")
	flag.StringVar(&b.dashboards, "dashboards", "grafana/dashboards", "directory of the dashboards")
	flag.IntVar(&b.nodes, "nodes", 1250, "number of nodes of eight GPUs")
	flag.DurationVar(&b.history, "history", 2*time.Hour, "time that the pages cover")
	flag.DurationVar(&b.ruled, "ruled", 65*time.Minute, "newest part of it that the rules cover")
	flag.DurationVar(&b.ingest, "ingest", 5*time.Minute, "how long Prometheus scrapes the fleet; 0 skips it")
	flag.BoolVar(&b.all, "all", false, "print all queries, not only the slowest 20")
	flag.Parse()
	if b.ruled < 5*time.Minute {
		return errors.New("-ruled must be at least 5m, the longest interval of a group of rules")
	}
	if b.dir, err = os.MkdirTemp("", "gpu_exporter-fleet-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	kinds, err := b.record(ctx)
	if err != nil {
		return fmt.Errorf("recording the pages of simulated nodes: %w", err)
	}
	f := newFleet(kinds, b.nodes)
	fmt.Printf("%d nodes, %d GPUs, %d series\n", b.nodes, b.nodes*gpusPerNode, f.series())
	data := filepath.Join(b.dir, "data")
	exceeded, err := b.fill(ctx, f, data)
	if err != nil {
		return fmt.Errorf("filling the database: %w", err)
	}
	slow, err := b.queries(ctx, data)
	if err != nil {
		return fmt.Errorf("timing the queries: %w", err)
	}
	if b.ingest > 0 {
		if err := b.memory(ctx, f); err != nil {
			return fmt.Errorf("measuring the memory: %w", err)
		}
	}
	fmt.Printf("\nThis run took %v, at most %d MiB, and %d MiB of a server\n", time.Since(start).Round(time.Second),
		usage(syscall.RUSAGE_SELF).Maxrss>>10, usage(syscall.RUSAGE_CHILDREN).Maxrss>>10)
	if exceeded || slow {
		return errExceeded
	}
	return nil
}
