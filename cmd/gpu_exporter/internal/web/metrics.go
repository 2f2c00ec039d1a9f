// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/common/expfmt"
)

// Encode appends an exposition to dst in a format. With an error it may still
// return a body without the metrics that could not be encoded.
type Encode func(dst []byte, format expfmt.Format) ([]byte, error)

// maxVariants bounds the bodies that are kept of one exposition. The scrapers of
// one installation request one or two; a client that requests every format must
// not fill the memory.
const maxVariants = 8

// Metrics serves /metrics. The first request for a variant of an exposition
// encodes it, and every further one gets the same bytes. The bodies are dropped
// with their exposition.
type Metrics struct {
	// Renew publishes a new exposition. Set it before the first request.
	Renew      func()
	log        *slog.Logger
	negotiator *negotiator
	turns      turns
	current    atomic.Pointer[page]
	renewing   sync.Mutex
	compressor compressor
}

// page is the bodies of one exposition.
type page struct {
	encode Encode
	stale  func() bool
	mu     sync.Mutex
	bodies []*body // in order of creation
}

// body is one variant of a page, ready to be written.
type body struct {
	variant variant
	once    sync.Once
	// Set by once, and read-only afterwards.
	bytes []byte
	err   error
	// The values of http.Header, which are created once per body.
	contentType, contentEncoding, contentLength []string
}

// errInterrupted is the error of a body while it is encoded. It remains if the
// encoder panics.
var errInterrupted = errors.New("encoding was interrupted")

// NewMetrics returns a handler that prepares at most limit answers at a time. It
// answers 503 before the first exposition is published.
func NewMetrics(limit int, log *slog.Logger) *Metrics {
	return &Metrics{log: log, negotiator: newNegotiator(), turns: newTurns(limit)}
}

// Publish replaces the exposition. It must not change afterwards, except that it becomes
// stale.
func (m *Metrics) Publish(e Encode, stale func() bool) {
	m.current.Store(&page{encode: e, stale: stale})
}

// newest returns the exposition that a request gets, or nil. The publisher renews it in
// time, unless the process was stopped or the machine suspended.
func (m *Metrics) newest() *page {
	p := m.current.Load()
	if p == nil || !p.stale() {
		return p
	}
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if p = m.current.Load(); p.stale() {
		m.Renew()
	}
	return m.current.Load()
}

func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, status, why := m.prepare(r)
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "1")
		http.Error(w, why, status)
		return
	}
	header := w.Header()
	header["Content-Type"] = b.contentType
	header["Content-Length"] = b.contentLength
	header["Vary"] = m.negotiator.vary
	if b.contentEncoding != nil {
		header["Content-Encoding"] = b.contentEncoding
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.bytes) // net/http closes the connection of a client that is gone or too slow
	}
}

// prepare returns the body for a request. The limit applies to this work, and not to the
// writes: clients that do not read must not keep others out.
func (m *Metrics) prepare(r *http.Request) (b *body, status int, why string) {
	if !m.turns.begin(r.Context()) {
		return nil, http.StatusServiceUnavailable,
			fmt.Sprintf("Limit of concurrent scrapes reached (%d, set by --web.max-requests), try again later.", cap(m.turns.slots))
	}
	defer m.turns.end()
	p := m.newest()
	if p == nil {
		return nil, http.StatusServiceUnavailable, "No metrics yet: the exporter is starting."
	}
	b = m.body(p, m.negotiator.negotiate(r.Header))
	if b.err != nil {
		return nil, http.StatusInternalServerError, "Encoding the metrics failed: " + b.err.Error()
	}
	return b, http.StatusOK, ""
}

// body returns the body of a variant. The first call for it encodes it.
func (m *Metrics) body(p *page, v variant) *body {
	b := p.find(v)
	b.once.Do(func() {
		b.bytes, b.err = m.encode(p, v)
		b.contentType = []string{string(v.format)}
		b.contentLength = []string{strconv.Itoa(len(b.bytes))}
		if v.coding != "" {
			b.contentEncoding = []string{v.coding}
		}
	})
	return b
}

// find returns the body of a variant, which may not be encoded yet.
func (p *page) find(v variant) *body {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.bodies {
		if b.variant == v {
			return b
		}
	}
	if len(p.bodies) == maxVariants {
		p.bodies = append(p.bodies[:0], p.bodies[1:]...) // requests in progress keep theirs
	}
	b := &body{variant: v, err: errInterrupted}
	p.bodies = append(p.bodies, b)
	return b
}

func (m *Metrics) encode(p *page, v variant) ([]byte, error) {
	if v.coding != "" {
		plain := m.body(p, variant{format: v.format})
		if plain.err != nil {
			return nil, plain.err
		}
		return m.compressor.compress(v.coding, plain.bytes)
	}
	body, err := p.encode(nil, v.format)
	if err != nil && len(body) > 0 {
		m.log.Warn("Some metrics could not be encoded and are left out", "format", v.format, "err", err)
		err = nil
	}
	return body, err
}

// compressor keeps its encoders, whose tables take some hundred kilobytes. Only
// the first request for a body compresses, so these requests can wait for each other.
type compressor struct {
	mu   sync.Mutex
	gzip *gzip.Writer
	zstd *zstd.Encoder
}

func (c *compressor) compress(coding string, src []byte) (_ []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dst := make([]byte, 0, len(src)/8) // the text of many similar series shrinks to a tenth
	if coding == codingZstd {
		if c.zstd == nil {
			c.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
			if err != nil {
				return nil, fmt.Errorf("creating a zstd encoder: %w", err)
			}
		}
		return c.zstd.EncodeAll(src, dst), nil
	}
	out := bytes.NewBuffer(dst)
	if c.gzip == nil {
		if c.gzip, err = gzip.NewWriterLevel(out, gzip.BestSpeed); err != nil {
			return nil, fmt.Errorf("creating a gzip writer: %w", err)
		}
	}
	c.gzip.Reset(out)
	_, err = c.gzip.Write(src)
	if err = errors.Join(err, c.gzip.Close()); err != nil {
		return nil, fmt.Errorf("compressing with gzip: %w", err)
	}
	c.gzip.Reset(nil) // releases the body
	return out.Bytes(), nil
}
