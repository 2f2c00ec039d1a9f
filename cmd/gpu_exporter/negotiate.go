// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/common/expfmt"
)

// encoding is a content coding of HTTP.
type encoding string

const (
	identityEncoding encoding = "identity"
	gzipEncoding     encoding = "gzip"
	zstdEncoding     encoding = "zstd"
)

// offeredEncodings in the order of preference that promhttp has: it decides only
// between codings that the client likes equally.
var offeredEncodings = [...]encoding{identityEncoding, gzipEncoding, zstdEncoding}

// variant is one form of an exposition's body.
type variant struct {
	format   expfmt.Format
	encoding encoding
}

// negotiator finds the variant that a request asks for. Scrapers send the same
// headers each time, so it remembers the answers to the first few it sees.
type negotiator struct {
	formats []expfmt.Format

	mu    sync.RWMutex
	known map[acceptHeaders]variant
}

type acceptHeaders struct{ accept, acceptEncoding string }

// What negotiator remembers is bounded, since clients choose the headers.
const (
	maxKnownHeaders = 64
	maxHeaderLength = 512
)

func newNegotiator() *negotiator {
	return &negotiator{
		formats: expfmt.DefaultOpenMetricsAcceptedFormats(),
		known:   make(map[acceptHeaders]variant),
	}
}

func (n *negotiator) negotiate(h http.Header) variant {
	accept, encodings := h["Accept"], h["Accept-Encoding"]
	if len(accept) > 1 || len(encodings) > 1 {
		return n.decide(h)
	}
	var key acceptHeaders
	if len(accept) == 1 {
		key.accept = accept[0]
	}
	if len(encodings) == 1 {
		key.acceptEncoding = encodings[0]
	}
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
	return variant{
		format:   expfmt.NegotiateAccept(h, n.formats...),
		encoding: negotiateEncoding(h["Accept-Encoding"]),
	}
}

// negotiateEncoding chooses as promhttp does: the offered coding with the highest
// quality, and identity if the client names none, or none that is offered, or
// forbids all.
func negotiateEncoding(headers []string) encoding {
	best, bestQuality := identityEncoding, -1.0
	accepted := parseAcceptEncoding(headers)
	for _, offer := range offeredEncodings {
		for _, a := range accepted {
			if a.quality > bestQuality && (a.coding == "*" || a.coding == string(offer)) {
				best, bestQuality = offer, a.quality
			}
		}
	}
	if bestQuality == 0 {
		return identityEncoding
	}
	return best
}

type acceptedCoding struct {
	coding  string
	quality float64
}

// parseAcceptEncoding reads Accept-Encoding (RFC 9110, 12.5.3). From the first
// thing on that it cannot read, the rest of that header line is left out.
func parseAcceptEncoding(headers []string) []acceptedCoding {
	var list []acceptedCoding
	for _, rest := range headers {
		for more := true; more; {
			var c acceptedCoding
			c.coding, rest = cutToken(rest)
			if c.coding == "" {
				break
			}
			c.quality = 1
			rest = skipBlanks(rest)
			if after, ok := strings.CutPrefix(rest, ";"); ok {
				after, ok = strings.CutPrefix(skipBlanks(after), "q=")
				if ok {
					c.quality, rest, ok = cutQuality(after)
				}
				if !ok {
					break
				}
			}
			list = append(list, c)
			rest, more = strings.CutPrefix(skipBlanks(rest), ",")
			rest = skipBlanks(rest)
		}
	}
	return list
}

func skipBlanks(s string) string { return strings.TrimLeft(s, " \t\r\n") }

// cutToken cuts a token, in which a slash may stand, from the front of s.
func cutToken(s string) (token, rest string) {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),:;<=>?@[]\{}`, c) >= 0 {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// cutQuality cuts a weight, such as 0.5, from the front of s.
func cutQuality(s string) (q float64, rest string, ok bool) {
	if s == "" || s[0] != '0' && s[0] != '1' {
		return 0, "", false
	}
	q, rest = float64(s[0]-'0'), s[1:]
	fraction, ok := strings.CutPrefix(rest, ".")
	if !ok {
		return q, rest, true
	}
	scale := 0.1
	for fraction != "" && fraction[0] >= '0' && fraction[0] <= '9' {
		q += float64(fraction[0]-'0') * scale
		scale /= 10
		fraction = fraction[1:]
	}
	return q, fraction, true
}
