// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// counters60 lists 60 fields that every simulated GPU supports.
//
//go:embed counters60.csv
var counters60 []byte

// countersFabric adds fields of NVSwitches and NVLinks to counters60.
//
//go:embed counters-fabric.csv
var countersFabric []byte

// serveBare serves ready bytes with net/http: the floor of a scrape. Target is
// FILE@ADDRESS.
func serveBare(target, encoding string) error {
	file, address, _ := strings.Cut(target, "@")
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if encoding != "" {
			w.Header().Set("Content-Encoding", encoding)
		}
		_, _ = w.Write(body)
	})}
	return server.Serve(l)
}

// scrapes compares the CPU time per scrape of the exporter and of a bare handler
// with the same bytes.
func (b *bench) scrapes(ctx context.Context, scenario string, counters []byte) ([]row, error) {
	// The interval is long, so that all scrapes read the same sample.
	exporter, err := b.startExporter(ctx, scenario, counters, "--sample.interval=1h")
	if err != nil {
		return nil, err
	}
	defer exporter.stop()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, encoding := range []string{"", "gzip"} {
		body, err := exporter.scrape(ctx, encoding)
		if err != nil {
			return rows, err
		}
		file := filepath.Join(b.dir, "body")
		if err := os.WriteFile(file, body, 0o600); err != nil {
			return rows, err
		}
		bare, err := launch(self, func(address string) []string {
			return []string{"-bare", file + "@" + address, "-encoding", encoding}
		})
		if err != nil {
			return rows, err
		}
		measured, floor, err := b.alternate(ctx, exporter, bare, encoding, min(5_000, max(2_000, (1<<30)/len(body))))
		bare.stop()
		if err != nil {
			return rows, err
		}
		label := encoding
		if label == "" {
			label = "identity"
		}
		rows = append(rows, relative(fmt.Sprintf("CPU per scrape, %s, %s, %d bytes", scenario, label, len(body)), measured, floor))
	}
	return rows, nil
}

// alternate measures the two processes in turn, so that both see the same load of
// the machine.
func (b *bench) alternate(ctx context.Context, exporter, bare *process, encoding string, requests int) (measured, floor []time.Duration, err error) {
	if err := bare.waitFor(ctx, encoding, ""); err != nil {
		return nil, nil, err
	}
	for _, p := range []*process{exporter, bare} { // warm up
		if _, err := cpuPerScrape(ctx, p, encoding, requests/10); err != nil {
			return nil, nil, err
		}
	}
	for range b.rounds {
		m, err := cpuPerScrape(ctx, exporter, encoding, requests)
		if err != nil {
			return nil, nil, err
		}
		f, err := cpuPerScrape(ctx, bare, encoding, requests)
		if err != nil {
			return nil, nil, err
		}
		measured, floor = append(measured, m), append(floor, f)
	}
	return measured, floor, nil
}

func cpuPerScrape(ctx context.Context, p *process, encoding string, requests int) (time.Duration, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	for range requests {
		if _, err := p.scrape(ctx, encoding); err != nil {
			return 0, err
		}
	}
	after, err := p.cpu()
	return (after - before) / time.Duration(requests), err
}

// start measures the time from exec to the first scrape with values.
func (b *bench) start(ctx context.Context) ([]row, error) {
	var times []time.Duration
	for range 2*b.rounds + 1 {
		begin := time.Now()
		p, err := b.startExporter(ctx, "h100x8", counters60)
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin))
		p.stop()
	}
	return []row{absolute("start to first good scrape, h100x8", median(times).Seconds(), 0.5, "s")}, nil
}

// memory observes the exporter and the sampler with the built-in counters at an interval
// of 100 ms, with one scrape per second. Both run the same binary, so the proportional set
// size (PSS) counts their shared pages once.
func (b *bench) memory(ctx context.Context) ([]row, error) {
	p, err := b.startExporter(ctx, "h100x8", nil, "--sample.interval=100ms")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	sampler, err := p.sampler()
	if err != nil {
		return nil, err
	}
	var exporters, samplers, totals []float64 // MiB, one per second
	for begin := time.Now(); time.Since(begin) < b.duration; time.Sleep(time.Second) {
		if _, err := p.scrape(ctx, "gzip"); err != nil {
			return nil, err
		}
		e, err := proportionalSetSize(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		s, err := proportionalSetSize(sampler)
		if err != nil {
			return nil, err
		}
		exporters, samplers, totals = append(exporters, e), append(samplers, s), append(totals, e+s)
	}
	n := len(totals)
	tenth, middle := max(1, n/10), n/2
	if n < 20 {
		return nil, fmt.Errorf("%d readings in %v are too few to compare: choose a longer -duration", n, b.duration)
	}
	late := median(totals[n-tenth:])
	return []row{
		absolute(fmt.Sprintf("PSS of exporter and sampler after %v", b.duration), late, 35, "MiB"),
		{quantity: "  of the exporter", measured: fmt.Sprintf("%.4g MiB", median(exporters[n-tenth:])), floor: "-", ratio: "-", limit: "-"},
		{quantity: "  of the sampler", measured: fmt.Sprintf("%.4g MiB", median(samplers[n-tenth:])), floor: "-", ratio: "-", limit: "-"},
		absolute("growth of the PSS from the second tenth of the time to the last", late-median(totals[tenth:2*tenth]), 1, "MiB"),
		absolute("growth of the PSS in the second half of the time", late-median(totals[middle-tenth/2:middle+tenth/2+1]), 1, "MiB"),
	}, nil
}
