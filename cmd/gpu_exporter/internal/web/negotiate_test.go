// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// gathered is an exposition of the families of a registry, encoded as promhttp
// does it.
type gathered struct{ families []*dto.MetricFamily }

func (g *gathered) Append(dst []byte, format expfmt.Format) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	enc := expfmt.NewEncoder(b, format)
	for _, mf := range g.families {
		if err := enc.Encode(mf); err != nil {
			return nil, err
		}
	}
	if c, ok := enc.(expfmt.Closer); ok {
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// bothHandlers returns promhttp's handler and ours for the same metrics.
func bothHandlers(t testing.TB) (theirs, ours http.Handler) {
	t.Helper()
	reg := prometheus.NewRegistry()
	temp := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "DCGM_FI_DEV_GPU_TEMP", Help: "GPU temperature (in C)."}, []string{"gpu"})
	temp.WithLabelValues("0").Set(41)
	temp.WithLabelValues("1").Set(43)
	xids := prometheus.NewCounter(prometheus.CounterOpts{Name: "gpu_xid_errors_total", Help: "XID errors."})
	dotted := prometheus.NewGauge(prometheus.GaugeOpts{Name: "with.dots", Help: "A name that needs escaping."})
	reg.MustRegister(temp, xids, dotted)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics(40, slog.New(slog.DiscardHandler))
	m.Publish((&gathered{families}).Append, never)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
		m
}

func get(t testing.TB, h http.Handler, accept, acceptEncoding []string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	for _, v := range accept {
		r.Header.Add("Accept", v)
	}
	for _, v := range acceptEncoding {
		r.Header.Add("Accept-Encoding", v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// plainBody reads the body and undoes its content coding.
func plainBody(t testing.TB, resp *http.Response) string {
	t.Helper()
	var r io.Reader = resp.Body
	switch coding := resp.Header.Get("Content-Encoding"); coding {
	case "":
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	case "zstd":
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	default:
		t.Fatalf("unexpected Content-Encoding %q", coding)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// For the same Accept and Accept-Encoding, the handler and promhttp return the same
// headers and, after decompression, the same bytes.
func TestNegotiationIsPromhttps(t *testing.T) {
	const prometheus3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
	const prometheusProto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.7," + prometheus3
	accepts := map[string][]string{
		"none":                      nil,
		"empty":                     {""},
		"curl":                      {"*/*"},
		"browser":                   {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"prometheus 2":              {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"},
		"prometheus 3":              {prometheus3},
		"prometheus 3 protobuf":     {prometheusProto},
		"text 0.0.4":                {"text/plain;version=0.0.4"},
		"text without version":      {"text/plain"},
		"text of another version":   {"text/plain;version=9"},
		"text, escaped":             {"text/plain;version=0.0.4;escaping=underscores"},
		"text, dots":                {"text/plain;version=0.0.4;escaping=dots"},
		"text, values":              {"text/plain;version=0.0.4;escaping=values"},
		"text, unknown escaping":    {"text/plain;version=0.0.4;escaping=upside-down"},
		"openmetrics 1.0":           {"application/openmetrics-text;version=1.0.0"},
		"openmetrics, no version":   {"application/openmetrics-text"},
		"openmetrics, old":          {"application/openmetrics-text;version=0.0.1"},
		"openmetrics, utf-8":        {"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"},
		"openmetrics 2":             {"application/openmetrics-text;version=2.0.0"},
		"protobuf delimited":        {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"},
		"protobuf text":             {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text"},
		"protobuf compact":          {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text"},
		"protobuf of other message": {"application/vnd.google.protobuf;proto=other;encoding=delimited"},
		"json":                      {"application/json"},
		"quality decides":           {"application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=0.0.4;q=0.9"},
		"quality 0":                 {"text/plain;version=0.0.4;q=0"},
		"garbage":                   {";;;=,,q=q"},
		"two headers":               {"text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"},
	}
	encodings := map[string][]string{
		"none":              nil,
		"empty":             {""},
		"gzip":              {"gzip"},
		"zstd":              {"zstd"},
		"both":              {"gzip, zstd"},
		"both, other order": {"zstd, gzip"},
		"curl":              {"deflate, gzip, br, zstd"},
		"quality decides":   {"gzip;q=0.5, zstd;q=0.9"},
		"spaces":            {"  gzip ; q=0.5 ,zstd;q=0.4 "},
		"any":               {"*"},
		"any but identity":  {"identity;q=0, *"},
		"identity liked":    {"identity;q=1, gzip;q=0.8"},
		"gzip forbidden":    {"gzip;q=0"},
		"all forbidden":     {"identity;q=0, gzip;q=0, zstd;q=0"},
		"unknown":           {"br"},
		"case":              {"GZIP"},
		"broken quality":    {"gzip;q=x, zstd"},
		"other parameter":   {"gzip;level=9, zstd"},
		"fine quality":      {"gzip;q=0.123456789, zstd;q=0.12345678"},
		"two headers":       {"gzip;q=0.1", "zstd"},
		"empty elements":    {", gzip"},
		"quoted":            {`"gzip"`},
	}
	theirs, ours := bothHandlers(t)
	same := func(t *testing.T, accept, encoding []string) {
		t.Helper()
		want, got := get(t, theirs, accept, encoding), get(t, ours, accept, encoding)
		for _, name := range []string{"Content-Type", "Content-Encoding"} {
			if w, g := want.Header.Get(name), got.Header.Get(name); g != w {
				t.Errorf("%s is %q, of promhttp %q", name, g, w)
			}
		}
		if w, g := want.Header.Values("Vary"), got.Header.Values("Vary"); len(g) != 2 || g[0] != w[0] || g[1] != w[1] {
			t.Errorf("Vary is %q, of promhttp %q", g, w)
		}
		if w, g := plainBody(t, want), plainBody(t, got); g != w {
			t.Errorf("body is\n%s\nof promhttp\n%s", g, w)
		}
	}
	for name, accept := range accepts {
		t.Run("Accept/"+name, func(t *testing.T) { same(t, accept, []string{"gzip"}) })
	}
	for name, encoding := range encodings {
		t.Run("Accept-Encoding/"+name, func(t *testing.T) { same(t, []string{prometheus3}, encoding) })
	}
}

// For any headers, first decided and then remembered, the handler answers with the
// headers of promhttp and keeps a bounded number of combinations.
func FuzzNegotiation(f *testing.F) {
	f.Add("text/plain;version=0.0.4;q=0.3,*/*;q=0.2", "gzip;q=0.5, zstd")
	f.Add("application/openmetrics-text;version=1.0.0;escaping=values", "*;q=0.01,identity;q=0.")
	f.Add("", "deflate;q=1.5, gzip;q=00, \tzstd ;\n q=1")
	theirs, ours := bothHandlers(f)
	f.Fuzz(func(t *testing.T, accept, encoding string) {
		for range 2 { // decided, then remembered
			want := get(t, theirs, []string{accept}, []string{encoding})
			got := get(t, ours, []string{accept}, []string{encoding})
			for _, name := range []string{"Content-Type", "Content-Encoding"} {
				if w, g := want.Header.Get(name), got.Header.Get(name); g != w {
					t.Fatalf("Accept %q, Accept-Encoding %q: %s is %q, of promhttp %q", accept, encoding, name, g, w)
				}
			}
		}
		if n := len(ours.(*Metrics).negotiator.known); n > maxKnownHeaders {
			t.Fatalf("%d headers remembered", n)
		}
	})
}

// TestCountersKeepTheirType: OpenMetrics has no type for counters whose names do not end
// in _total, so a scraper that prefers it gets the text format.
func TestCountersKeepTheirType(t *testing.T) {
	_, ours := bothHandlers(t)
	resp := get(t, ours, []string{"application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}, nil)
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("Content-Type %q", got)
	}
}
