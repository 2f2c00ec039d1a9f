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

// memory lets a Prometheus scrape the fleet, first with all series and then with those of
// the counters only, which are the families of dcgm-exporter.
func (b *bench) memory(ctx context.Context, f *fleet) error {
	fmt.Printf("\nMemory of a Prometheus that scrapes the fleet every %v, after %v\n", scrapeInterval, b.ingest)
	for _, pages := range []struct {
		name string
		has  func(*series) bool
	}{
		{"default preset", func(*series) bool { return true }},
		{"only the counters file (as dcgm-exporter)", func(s *series) bool { return strings.HasPrefix(s.name, "DCGM_") }},
	} {
		if err := b.ingestPages(ctx, f, pages.name, pages.has); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) ingestPages(ctx context.Context, f *fleet, name string, has func(*series) bool) (err error) {
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
		_, _ = w.Write(f.nodes[i].text(time.Now(), time.Since(start), has)) // a scrape that ended early
	})}
	go func() { _ = pages.Serve(listener) }() // ends with Close
	defer func() { err = errors.Join(err, pages.Close()) }()

	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: %v}\nscrape_configs:\n- job_name: gpu_exporter\n  honor_labels: true\n  static_configs:\n", scrapeInterval)
	for i, n := range f.nodes {
		fmt.Fprintf(&config, "  - {targets: [%q], labels: {__param_node: \"%d\", instance: %q}}\n", listener.Addr(), i, n.hostname())
	}
	config.WriteString("- job_name: prometheus\n  static_configs: [{targets: ['127.0.0.1:19491']}]\n")
	server, stop, err := b.startPrometheus(ctx, filepath.Join(b.dir, "ingested", strconv.Itoa(len(name))), config.String(), "127.0.0.1:19491")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	select {
	case <-time.After(b.ingest):
	case <-ctx.Done():
		return ctx.Err()
	}
	var values []float64
	for _, expr := range []string{
		`prometheus_tsdb_head_series`, `process_resident_memory_bytes{job="prometheus"}`, `go_memstats_heap_inuse_bytes{job="prometheus"}`,
		`sum(up{job="gpu_exporter"})`, fmt.Sprintf(`rate(process_cpu_seconds_total{job="prometheus"}[%ds])`, int(b.ingest.Seconds())),
	} {
		result, _, _, err := server.Query(ctx, expr, time.Now())
		if err != nil {
			return err
		}
		vector, ok := result.(model.Vector)
		if !ok || len(vector) != 1 {
			return fmt.Errorf("%s has %v", expr, result)
		}
		values = append(values, float64(vector[0].Value))
	}
	fmt.Printf("%-44s %9.0f series %7.0f MiB resident %7.0f MiB heap %5.2f KiB per series %5.2f cores; %.0f of %d targets up\n",
		name, values[0], values[1]/(1<<20), values[2]/(1<<20), values[1]/values[0]/(1<<10), values[4], values[3], len(f.nodes))
	return nil
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
