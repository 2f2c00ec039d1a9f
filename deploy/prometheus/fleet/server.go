// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// startPrometheus starts a server on a directory of blocks, and waits until it is ready.
func (b *bench) startPrometheus(ctx context.Context, data, config, address string) (server v1.API, stop func() error, err error) {
	file := filepath.Join(b.dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, b.prometheus, "--config.file="+file, "--storage.tsdb.path="+data, "--storage.tsdb.retention.time=10y",
		"--web.listen-address="+address, "--log.level=warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		return cmd.Wait()
	}
	if server, err = newAPI(address); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	for {
		resp, err := http.Get("http://" + address + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return server, stop, nil
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, errors.Join(ctx.Err(), stop())
		}
	}
}

// fleetGPUs is the size of the fleet to which memory is scaled.
const fleetGPUs = 10_000

// ingestion is what a Prometheus scrapes and evaluates.
type ingestion struct {
	name  string
	has   func(*series) bool
	rules bool
}

// memory lets a Prometheus scrape the fleet: all series, with and without the rules, and then
// those of the counters file only, which are the families of dcgm-exporter.
func (b *bench) memory(ctx context.Context, f *fleet) error {
	debug.FreeOSMemory() // of the database
	fmt.Printf("\nA Prometheus that scrapes %d GPUs every %v, for %v; peak memory\n", len(f.nodes)*gpusPerNode, scrapeInterval, b.ingest)
	fmt.Printf("%-26s %8s %10s %12s %10s %14s %14s %8s\n", "", "families", "series", "resident", "heap", "per series", "10,000 GPUs", "cores")
	all := func(*series) bool { return true }
	for i, in := range []ingestion{
		{"default preset and rules", all, true},
		{"default preset", all, false},
		{"as dcgm-exporter", func(s *series) bool { return strings.HasPrefix(s.name, "DCGM_") }, false},
	} {
		if err := b.ingestPages(ctx, f, in, filepath.Join(b.dir, "ingested", strconv.Itoa(i))); err != nil {
			return fmt.Errorf("%s: %w", in.name, err)
		}
	}
	return nil
}

func (b *bench) ingestPages(ctx context.Context, f *fleet, in ingestion, data string) (err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	start := time.Now()
	pages := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.URL.Query().Get("node"))
		if err != nil || i < 0 || i >= len(f.nodes) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(f.nodes[i].text(time.Now(), time.Since(start), in.has)) // a scrape that ended early
	})}
	go func() { _ = pages.Serve(listener) }() // ends with Close
	defer func() { err = errors.Join(err, pages.Close()) }()

	address, err := freeAddress()
	if err != nil {
		return err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: %v}\n", scrapeInterval)
	if in.rules {
		rules, err := filepath.Abs(b.rules)
		if err != nil {
			return err
		}
		fmt.Fprintf(&config, "rule_files: [%q, %q]\n", filepath.Join(rules, "recording.yaml"), filepath.Join(rules, "alerts.yaml"))
	}
	fmt.Fprintf(&config, "scrape_configs:\n- job_name: prometheus\n  scrape_interval: 5s\n  static_configs: [{targets: [%q]}]\n", address)
	config.WriteString("- job_name: gpu_exporter\n  honor_labels: true\n  static_configs:\n")
	families := map[string]bool{}
	for i, n := range f.nodes {
		fmt.Fprintf(&config, "  - {targets: [%q], labels: {__param_node: \"%d\", instance: %q}}\n", listener.Addr(), i, n.hostname())
		for j := range n.series {
			if in.has(&n.series[j]) && n.series[j].name != "up" {
				families[n.series[j].name] = true
			}
		}
	}
	server, stop, err := b.startPrometheus(ctx, data, config.String(), address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	select {
	case <-time.After(b.ingest):
	case <-ctx.Done():
		return ctx.Err()
	}
	value := func(expr string) float64 {
		result, _, _, queryErr := server.Query(ctx, expr, time.Now())
		vector, ok := result.(model.Vector)
		switch {
		case queryErr != nil:
			err = errors.Join(err, queryErr)
		case !ok || len(vector) != 1:
			err = errors.Join(err, fmt.Errorf("%s has %v", expr, result))
		default:
			return float64(vector[0].Value)
		}
		return 0
	}
	const self = `{job="prometheus"}`
	seconds := int(b.ingest.Seconds())
	if up := value(`sum(up{job="gpu_exporter"})`); up != float64(len(f.nodes)) {
		return errors.Join(err, fmt.Errorf("%.0f of %d targets are up", up, len(f.nodes)))
	}
	count := value("prometheus_tsdb_head_series" + self)
	resident := value(fmt.Sprintf("max_over_time(process_resident_memory_bytes%s[%ds])", self, seconds))
	heap := value(fmt.Sprintf("max_over_time(go_memstats_heap_inuse_bytes%s[%ds])", self, seconds))
	// The first half has the creation of all series.
	cores := value(fmt.Sprintf("rate(process_cpu_seconds_total%s[%ds])", self, seconds/2))
	if err != nil {
		return err
	}
	fmt.Printf("%-26s %8d %10.0f %8.0f MiB %6.0f MiB %10.2f KiB %10.2f GiB %8.2f\n", in.name, len(families), count, resident/(1<<20), heap/(1<<20),
		resident/count/(1<<10), resident/(1<<30)*fleetGPUs/float64(len(f.nodes)*gpusPerNode), cores)
	return nil
}

// freeAddress returns an address on which nothing listens.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// text is a page of the node in the text format.
func (n *node) text(t time.Time, elapsed time.Duration, has func(*series) bool) []byte {
	var b strings.Builder
	family := ""
	for i := range n.series {
		s := &n.series[i]
		if s.name == "up" || !has(s) {
			continue
		}
		if s.name != family {
			family = s.name
			kind := "gauge"
			if s.counter {
				kind = "counter"
			}
			fmt.Fprintf(&b, "# TYPE %s %s\n", family, kind)
		}
		own := n.labelsOf(s, n.generation(t))
		var pairs []string
		for name, value := range own {
			pairs = append(pairs, fmt.Sprintf("%s=%q", name, value))
		}
		slices.Sort(pairs)
		fmt.Fprintf(&b, "%s{%s} %g\n", s.name, strings.Join(pairs, ","), n.value(s, t, int(elapsed/scrapeInterval), elapsed.Seconds()))
	}
	return []byte(b.String())
}
