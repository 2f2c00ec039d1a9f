// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/prometheus/common/expfmt"
)

// nodeText is an exposition like that of a node with GPUs: fields x GPUs lines
// with the usual labels.
func nodeText(gpus, fields int) string {
	var b bytes.Buffer
	random := rand.New(rand.NewPCG(1, 2))
	for f := range fields {
		name := "DCGM_FI_DEV_FIELD_NUMBER_" + strconv.Itoa(f)
		fmt.Fprintf(&b, "# HELP %s What this field of the GPU means.\n# TYPE %s gauge\n", name, name)
		for g := range gpus {
			fmt.Fprintf(&b, `%s{gpu="%d",UUID="GPU-%08x-%04x-4f5c-9a3e-0123456789ab",pci_bus_id="00000000:%02X:00.0",device="nvidia%d",modelName="NVIDIA H100 80GB HBM3",hostname="node-1.example.com",DCGM_FI_DRIVER_VERSION="570.133.20",container="train",namespace="research",pod="llm-%d"} %d`+"\n",
				name, g, g*7919, g, g, g, g, random.IntN(100000))
		}
	}
	return b.String()
}

// BenchmarkScrape compares a scrape of a body that is ready with a bare handler
// that writes the same bytes, both over a kept-alive connection. cpu-ns/op is the
// CPU time of client and server together; the client is the same and does little.
func BenchmarkScrape(b *testing.B) {
	sizes := []struct {
		name   string
		gpus   int
		fields int
	}{{"8x100", 8, 100}, {"112x60", 112, 60}}
	for _, size := range sizes {
		body := nodeText(size.gpus, size.fields)
		for _, coding := range []string{"identity", "gzip"} {
			h := serving(40, &text{body: body})
			first := get(b, h, nil, []string{coding})
			ready, err := io.ReadAll(first.Body)
			if err != nil {
				b.Fatal(err)
			}
			bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", string(expfmt.FmtText))
				w.Header().Set("Content-Length", strconv.Itoa(len(ready)))
				if coding != "identity" {
					w.Header().Set("Content-Encoding", coding)
				}
				_, _ = w.Write(ready)
			})
			whole, err := testHandler(promhttp.InstrumentMetricHandler(prometheus.NewRegistry(), h), alwaysReady, false)
			if err != nil {
				b.Fatal(err)
			}
			for _, handler := range []struct {
				name string
				http.Handler
			}{{"bare", bare}, {"handler", h}, {"exporter", whole}} {
				b.Run(fmt.Sprintf("%s/%s/%dKB/%s", size.name, coding, len(ready)>>10, handler.name), func(b *testing.B) {
					benchmarkScrape(b, handler.Handler, coding, len(ready))
				})
			}
		}
	}
}

func benchmarkScrape(b *testing.B, handler http.Handler, coding string, size int) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := newServer(handler, defaultTimeouts(), slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	request := []byte("GET /metrics HTTP/1.1\r\nHost: node\r\nUser-Agent: Prometheus/3\r\n" +
		"Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n" +
		"Accept-Encoding: " + coding + "\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n")
	in := bufio.NewReaderSize(conn, 64<<10)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		length := 0
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
				if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
					b.Fatal(err)
				}
			}
			if len(bytes.TrimSpace(line)) == 0 {
				break
			}
		}
		if length != size {
			b.Fatalf("body of %d bytes, want %d", length, size)
		}
		if _, err := in.Discard(length); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkFirstScrape is what the first scrape of a sample costs on top: it
// compresses the text, which is encoded already.
func BenchmarkFirstScrape(b *testing.B) {
	body := []byte(nodeText(8, 100))
	var c compressor
	for _, coding := range []string{"gzip", codingZstd} {
		b.Run(coding, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				var err error
				if dst, err = c.compress(coding, body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(body))/float64(len(dst)), "ratio")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
