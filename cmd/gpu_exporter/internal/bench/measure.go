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

// counters60 lists 60 fields that every simulated GPU has values for.
//
//go:embed counters60.csv
var counters60 []byte

// countersFabric lists these, and fields of NVSwitches and NVLinks.
//
//go:embed counters-fabric.csv
var countersFabric []byte

// scenario16x7 is a node of 16 GPUs with seven instances each.
//
//go:embed scenario16x7.txt
var scenario16x7 []byte

// bench is one run.
type bench struct {
	options options
	dir     string
	nodes   int
}

func (b *bench) counters() string { return b.file("counters60.csv", counters60) }
func (b *bench) fabricCounters() string {
	return b.file("counters-fabric.csv", countersFabric)
}
func (b *bench) largeScenario() string { return b.file("scenario16x7.txt", scenario16x7) }
func (b *bench) file(name string, content []byte) string {
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "/dev/null" // the exporter will say what is wrong
	}
	return path
}

// serveBare is the floor of a scrape: net/http, one handler, ready bytes.
func serveBare(path, encoding string) error {
	file, address, ok := strings.Cut(path, "@")
	if !ok {
		return fmt.Errorf("-bare=%s: write FILE@ADDRESS", path)
	}
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

// scrapes compares the CPU time that the exporter and the bare handler take to
// answer with the same bytes.
func (b *bench) scrapes(ctx context.Context, name, scenario, counters string) ([]row, error) {
	// The interval is long, so that what is measured is scrapes of one sample:
	// what a sample costs is measured by itself.
	exporter, err := b.exporterWith(ctx, scenario, counters, "--collect-interval=1h")
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
		body, err := exporter.get(ctx, encoding)
		if err != nil {
			return rows, err
		}
		file := b.file("body", body)
		bare, err := b.launch(self, func(address string) []string {
			return []string{"-bare", file + "@" + address, "-encoding", encoding}
		})
		if err != nil {
			return rows, err
		}
		requests := min(20_000, max(2_000, (1<<30)/(len(body)+1)))
		ours, floor, err := b.alternate(ctx, exporter, bare, encoding, requests)
		bare.stop()
		if err != nil {
			return rows, err
		}
		label := "identity"
		if encoding != "" {
			label = encoding
		}
		rows = append(rows, against(fmt.Sprintf("CPU of a scrape, %s, %s, %d bytes", name, label, len(body)), ours, floor))
	}
	return rows, nil
}

func (b *bench) alternate(ctx context.Context, exporter, bare *process, encoding string, requests int) (ours, floor []time.Duration, err error) {
	for _, p := range []*process{exporter, bare} { // warm up
		if _, err := cpuPerScrape(ctx, p, encoding, requests/10); err != nil {
			return nil, nil, err
		}
	}
	for range b.options.rounds {
		o, err := cpuPerScrape(ctx, exporter, encoding, requests)
		if err != nil {
			return nil, nil, err
		}
		f, err := cpuPerScrape(ctx, bare, encoding, requests)
		if err != nil {
			return nil, nil, err
		}
		ours, floor = append(ours, o), append(floor, f)
	}
	return ours, floor, nil
}

func cpuPerScrape(ctx context.Context, p *process, encoding string, requests int) (time.Duration, error) {
	var err error
	for range 200 { // until it listens
		if _, err = p.get(ctx, encoding); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return 0, err
	}
	before, err := cpu(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	for range requests {
		if _, err := p.get(ctx, encoding); err != nil {
			return 0, err
		}
	}
	after, err := cpu(p.cmd.Process.Pid)
	return (after - before) / time.Duration(requests), err
}

// garbage measures what the exporter allocates for one sample, without scrapes
// and with one of each kind for every sample.
func (b *bench) garbage(ctx context.Context) ([]row, error) {
	p, err := b.exporterOn(ctx, "--collect-interval=100ms")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	allocated := func() (float64, error) {
		body, err := p.get(ctx, "")
		if err != nil {
			return 0, err
		}
		return metric(body, "go_memstats_alloc_bytes_total")
	}
	measure := func(each func() error) (float64, error) {
		const seconds, perSecond = 20, 10
		before, err := allocated()
		if err != nil {
			return 0, err
		}
		for end := time.Now().Add(seconds * time.Second); time.Now().Before(end); time.Sleep(time.Second / perSecond) {
			if err := each(); err != nil {
				return 0, err
			}
		}
		after, err := allocated()
		return (after - before) / (seconds * perSecond) / 1024, err
	}
	quiet, err := measure(func() error { return nil })
	if err != nil {
		return nil, err
	}
	scraped, err := measure(func() error {
		_, err := p.get(ctx, "gzip")
		return err
	})
	if err != nil {
		return nil, err
	}
	return []row{
		atMost("garbage of the exporter for one sample, nobody scrapes", quiet, 256, "KiB"),
		atMost("garbage of the exporter for one sample and one gzip scrape of it", scraped, 256, "KiB"),
	}, nil
}

// start measures the time from exec to the first scrape with values.
func (b *bench) start(ctx context.Context) ([]row, error) {
	var times []time.Duration
	for range 2*b.options.rounds + 1 {
		begin := time.Now()
		p, err := b.exporterOn(ctx)
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin))
		p.stop()
	}
	return []row{atMost("start to first good scrape, h100x8", median(times).Seconds(), 0.5, "s")}, nil
}

// hang compares the time of a scrape while DCGM hangs with that while it works,
// and counts what the exporter gathers meanwhile.
func (b *bench) hang(ctx context.Context) ([]row, error) {
	p, err := b.exporterOn(ctx, "--collect-interval=1s")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	scrapeTimes := func(d time.Duration) ([]time.Duration, error) {
		var times []time.Duration
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			begin := time.Now()
			if _, err := p.get(ctx, ""); err != nil {
				return nil, err
			}
			times = append(times, time.Since(begin))
		}
		return times, nil
	}
	counts := func() (goroutines float64, threads int, err error) {
		body, err := p.get(ctx, "")
		if err != nil {
			return 0, 0, err
		}
		if goroutines, err = metric(body, "go_goroutines"); err != nil {
			return 0, 0, err
		}
		threads, err = numberIn(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), "Threads")
		return goroutines, threads, err
	}
	healthy, err := scrapeTimes(10 * time.Second)
	if err != nil {
		return nil, err
	}
	goroutines, threads, err := counts()
	if err != nil {
		return nil, err
	}
	if err := p.command("hang *"); err != nil {
		return nil, err
	}
	// Long enough for the first sampler to be killed and others to hang as well.
	hanging, err := scrapeTimes(45 * time.Second)
	if err != nil {
		return nil, err
	}
	goroutinesAfter, threadsAfter, err := counts()
	if err != nil {
		return nil, err
	}
	return []row{
		against("time of a scrape while DCGM hangs, against a healthy one", hanging, healthy),
		atMost("goroutines gained in 45 s of DCGM hanging", goroutinesAfter-goroutines, 2, ""),
		atMost("threads gained in 45 s of DCGM hanging", float64(threadsAfter-threads), 2, ""),
	}, nil
}

// memory watches resident memory of exporter and sampler at an interval of
// 100 ms, scraped every second. The two are one program, so most pages of the
// sampler are pages of the exporter: the proportional set size counts them once.
func (b *bench) memory(ctx context.Context) ([]row, error) {
	p, err := b.exporterOn(ctx, "--collect-interval=100ms")
	if err != nil {
		return nil, err
	}
	defer p.stop()
	sampler, err := p.sampler()
	if err != nil {
		return nil, err
	}
	var proportional, resident []float64 // MiB, one a second
	for begin := time.Now(); time.Since(begin) < b.options.soak; time.Sleep(time.Second) {
		if _, err := p.get(ctx, "gzip"); err != nil {
			return nil, err
		}
		var pss, rss int
		for _, pid := range []int{p.cmd.Process.Pid, sampler} {
			size, err := numberIn(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
			if err != nil {
				return nil, err
			}
			pss += size
			if size, err = numberIn(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"); err != nil {
				return nil, err
			}
			rss += size
		}
		proportional, resident = append(proportional, float64(pss)/1024), append(resident, float64(rss)/1024)
	}
	tenth := max(1, len(proportional)/10)
	middle := len(proportional) / 2
	early, half := median(proportional[tenth:2*tenth+1]), median(proportional[middle-tenth:middle+1])
	late := median(proportional[len(proportional)-tenth:])
	what := fmt.Sprintf("exporter and sampler after %v at 100 ms", b.options.soak)
	return []row{
		atMost("resident memory of "+what, late, 45, "MiB"),
		atMost("growth of it from the second tenth of that time to the last", late-early, 1, "MiB"),
		atMost("growth of it in the second half of that time", late-half, 1, "MiB"),
		{what: "the same with shared pages counted twice", measured: fmt.Sprintf("%.4g MiB", median(resident[len(resident)-tenth:])), floor: "-", ratio: "-"},
	}, nil
}
