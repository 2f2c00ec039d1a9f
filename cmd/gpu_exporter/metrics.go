// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

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

// exposition is everything that one scrape answers; *collector.Exposition is
// one. Two expositions are the same generation if they are equal, so the dynamic
// type must be a pointer.
type exposition interface {
	// Append encodes the exposition. With an error it may still return a body: one
	// that lacks what could not be encoded.
	Append(dst []byte, format expfmt.Format) ([]byte, error)
}

// maxVariants bounds the bodies that are kept of one generation. Scrapers of one
// installation ask for one or two; a client that goes through all formats and
// escapings must not make us keep dozens of copies.
const maxVariants = 8

// metricsHandler serves /metrics. Each variant of a generation is encoded once,
// by the first request for it, and is ready bytes for all others. Bodies of old
// generations are used again for new ones as soon as nobody reads them.
type metricsHandler struct {
	current    func() exposition
	log        *slog.Logger
	negotiator *negotiator

	limit    int64
	limitMsg string
	serving  atomic.Int64

	mu    sync.Mutex
	live  *generation
	spare map[variant][]byte

	gzip gzipCompressor
	zstd zstdCompressor
}

// generation is the bodies of one exposition.
type generation struct {
	exposition exposition
	// The rest is guarded by metricsHandler.mu.
	bodies  []*body // in order of creation
	readers int
	retired bool
}

// body is one variant of a generation, ready to be written.
type body struct {
	variant variant
	once    sync.Once
	// Set by once, and then only read.
	bytes  []byte
	err    error
	header bodyHeader
	// shared says that a writer may still hold bytes. Guarded by metricsHandler.mu.
	shared bool
}

// bodyHeader holds header values as http.Header wants them, so that they are
// made once per body. They must not be changed.
type bodyHeader struct{ contentType, contentEncoding, contentLength []string }

var varyHeader = []string{"Accept", "Accept-Encoding"}

// errEncoderDied is what a body's error is while it is being made, and stays if
// that panics.
var errEncoderDied = errors.New("encoding was cut short")

// newMetricsHandler serves what current returns, to at most limit requests at a
// time. current may return nil as long as there is nothing to serve. It is not
// called by two requests at once.
func newMetricsHandler(current func() exposition, limit int, log *slog.Logger) *metricsHandler {
	return &metricsHandler{
		current:    current,
		log:        log,
		negotiator: newNegotiator(),
		limit:      int64(limit),
		limitMsg:   fmt.Sprintf("Limit of concurrent scrapes reached (%d, set by --%s), try again later.", limit, optMaxRequests),
		spare:      make(map[variant][]byte),
	}
}

func (h *metricsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.serving.Add(-1)
	if h.serving.Add(1) > h.limit {
		w.Header().Set("Retry-After", "1")
		http.Error(w, h.limitMsg, http.StatusServiceUnavailable)
		return
	}

	g, b := h.acquire(h.negotiator.negotiate(r.Header))
	if g == nil {
		http.Error(w, "No metrics yet: the exporter is starting.", http.StatusServiceUnavailable)
		return
	}
	torn := true // unless the write below completes, somebody may still read the bytes
	defer func() { h.release(g, b, torn) }()
	b.once.Do(func() { h.fill(g, b) })
	if b.err != nil {
		torn = false
		http.Error(w, "Encoding the metrics failed: "+b.err.Error(), http.StatusInternalServerError)
		return
	}

	header := w.Header()
	header["Content-Type"] = b.header.contentType
	header["Content-Length"] = b.header.contentLength
	header["Vary"] = varyHeader
	if b.header.contentEncoding != nil {
		header["Content-Encoding"] = b.header.contentEncoding
	}
	if r.Method == http.MethodHead {
		torn = false
		return
	}
	// An error is the client's: it went away or was too slow. net/http has closed
	// the connection then.
	_, err := w.Write(b.bytes)
	torn = err != nil
}

// acquire returns the current generation and its body for v, which may have to
// be filled. The caller releases both.
func (h *metricsHandler) acquire(v variant) (*generation, *body) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Asked under the lock, so that a request that is overtaken cannot bring back
	// an older generation.
	e := h.current()
	if e == nil {
		return nil, nil
	}
	if h.live == nil || h.live.exposition != e {
		if h.live != nil {
			h.live.retired = true
			h.recycle(h.live)
		}
		h.live = &generation{exposition: e}
	}
	h.live.readers++
	return h.live, h.live.body(v)
}

// body finds or makes the body for v. It needs metricsHandler.mu.
func (g *generation) body(v variant) *body {
	for _, b := range g.bodies {
		if b.variant == v {
			return b
		}
	}
	if len(g.bodies) == maxVariants {
		// Whoever reads it keeps it; it is not recycled.
		g.bodies = append(g.bodies[:0], g.bodies[1:]...)
	}
	b := &body{variant: v, err: errEncoderDied}
	g.bodies = append(g.bodies, b)
	return b
}

func (h *metricsHandler) release(g *generation, b *body, torn bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if torn {
		// HTTP/2 gives up on a write while its frame may still be under way.
		b.shared = true
	}
	g.readers--
	h.recycle(g)
}

// recycle keeps the memory of a generation's bodies if nobody will read them
// again. It needs h.mu.
func (h *metricsHandler) recycle(g *generation) {
	if !g.retired || g.readers > 0 {
		return
	}
	clear(h.spare) // of variants that nobody asks for any more
	for _, b := range g.bodies {
		if !b.shared && cap(b.bytes) > 0 {
			h.spare[b.variant] = b.bytes[:0]
		}
	}
	g.bodies = nil
}

// buffer returns memory for a body of variant v.
func (h *metricsHandler) buffer(v variant) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	buf := h.spare[v]
	delete(h.spare, v)
	return buf
}

// fill makes the bytes and headers of b.
func (h *metricsHandler) fill(g *generation, b *body) {
	b.bytes, b.err = h.encode(g, b.variant)
	b.header.contentType = []string{string(b.variant.format)}
	b.header.contentLength = []string{strconv.Itoa(len(b.bytes))}
	if b.variant.encoding != identityEncoding {
		b.header.contentEncoding = []string{string(b.variant.encoding)}
	}
}

func (h *metricsHandler) encode(g *generation, v variant) ([]byte, error) {
	if v.encoding == identityEncoding {
		body, err := g.exposition.Append(h.buffer(v), v.format)
		if err != nil && len(body) > 0 {
			h.log.Warn("Some metrics could not be encoded and are left out", "format", v.format, "err", err)
			err = nil
		}
		return body, err
	}

	// The same text may be asked for without compression: it is encoded once for
	// both.
	plain := variant{format: v.format, encoding: identityEncoding}
	h.mu.Lock()
	b := g.body(plain)
	h.mu.Unlock()
	b.once.Do(func() { h.fill(g, b) })
	if b.err != nil {
		return nil, b.err
	}
	if v.encoding == zstdEncoding {
		return h.zstd.compress(h.buffer(v), b.bytes)
	}
	return h.gzip.compress(h.buffer(v), b.bytes)
}

// gzipCompressor is a writer that is made once: its tables take some hundred
// kilobytes. Only first requests for a body come here, so they can take turns.
type gzipCompressor struct {
	mu sync.Mutex
	w  *gzip.Writer
}

func (c *gzipCompressor) compress(dst, src []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := bytes.NewBuffer(dst)
	if c.w == nil {
		w, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
		if err != nil {
			return nil, fmt.Errorf("making a gzip writer: %w", err)
		}
		c.w = w
	} else {
		c.w.Reset(out)
	}
	if _, err := c.w.Write(src); err != nil {
		return nil, fmt.Errorf("compressing with gzip: %w", err)
	}
	if err := c.w.Close(); err != nil {
		return nil, fmt.Errorf("compressing with gzip: %w", err)
	}
	return out.Bytes(), nil
}

// zstdCompressor is an encoder that is made when the first client asks for it.
type zstdCompressor struct {
	mu sync.Mutex
	e  *zstd.Encoder
}

func (c *zstdCompressor) compress(dst, src []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.e == nil {
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true),
		)
		if err != nil {
			return nil, fmt.Errorf("making a zstd encoder: %w", err)
		}
		c.e = e
	}
	return c.e.EncodeAll(src, dst), nil
}
