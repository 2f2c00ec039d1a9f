// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/http"
	"net/url"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/prometheus/client_golang/prometheus/promhttp/zstd" // makes promhttp offer zstd
	"github.com/prometheus/common/expfmt"
)

const codingZstd = string(promhttp.Zstd)

// variant is one form of an exposition's body.
type variant struct {
	format expfmt.Format
	coding string // Content-Encoding; empty: none
}

// negotiator finds the variant that a request accepts. promhttp decides, on an
// empty exposition. Scrapers send the same headers each time, so the answers to the first
// few combinations are kept.
//
// OpenMetrics is not offered: in it, counters whose names do not end in _total have the type
// unknown, which OpenTelemetry and managed collectors store as gauges. The text format keeps
// the type, and all scrapers that accept OpenMetrics accept text as well.
type negotiator struct {
	decider http.Handler
	vary    []string // Accept, Accept-Encoding

	mu    sync.RWMutex
	known map[acceptHeaders]variant
}

type acceptHeaders struct{ accept, acceptEncoding string }

// Clients choose the headers, so the number and size of the kept ones are bounded.
const (
	maxKnownHeaders = 64
	maxHeaderLength = 512
)

func newNegotiator() *negotiator {
	return &negotiator{
		decider: promhttp.HandlerFor(prometheus.NewRegistry(), promhttp.HandlerOpts{}),
		vary:    []string{"Accept", "Accept-Encoding"},
		known:   make(map[acceptHeaders]variant),
	}
}

func (n *negotiator) negotiate(h http.Header) variant {
	if len(h["Accept"]) > 1 || len(h["Accept-Encoding"]) > 1 {
		return n.decide(h)
	}
	key := acceptHeaders{h.Get("Accept"), h.Get("Accept-Encoding")}
	n.mu.RLock()
	v, ok := n.known[key]
	n.mu.RUnlock()
	if ok {
		return v
	}
	v = n.decide(h)
	if len(key.accept)+len(key.acceptEncoding) <= maxHeaderLength {
		n.mu.Lock()
		if len(n.known) < maxKnownHeaders {
			n.known[key] = v
		}
		n.mu.Unlock()
	}
	return v
}

func (n *negotiator) decide(h http.Header) variant {
	answer := headerWriter{}
	n.decider.ServeHTTP(answer, &http.Request{Method: http.MethodGet, URL: &url.URL{}, Header: http.Header{
		"Accept": h["Accept"], "Accept-Encoding": h["Accept-Encoding"],
	}})
	header := answer.Header()
	return variant{format: expfmt.Format(header.Get("Content-Type")), coding: header.Get("Content-Encoding")}
}

// headerWriter is a response of which only the header is kept.
type headerWriter http.Header

func (w headerWriter) Header() http.Header         { return http.Header(w) }
func (w headerWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w headerWriter) WriteHeader(int)             {}
