// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// hostengine is the address of a standalone host engine, taken apart.
type hostengine struct {
	scheme string // tcp, unix or vsock
	host   string // of tcp; the context id of vsock; the path of unix
	port   string // empty: DCGM's default
}

// parseHostengine checks the forms that DCGM's dcgmConnect_v3 takes, and a path.
func parseHostengine(s string) (hostengine, error) {
	const forms = "write HOST:PORT, [IPV6]:PORT, the path of a unix socket, tcp://HOST:PORT, unix://PATH or vsock://CID:PORT"
	h := hostengine{scheme: "tcp"}
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		h.scheme, rest = scheme, after
	} else if strings.HasPrefix(s, "/") {
		h.scheme = "unix"
	}
	if strings.TrimSpace(rest) == "" {
		return h, fmt.Errorf("the address %q is empty: %s", s, forms)
	}
	switch h.scheme {
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return h, fmt.Errorf("%q: the path of a unix socket starts with /", s)
		}
		h.host = rest
		return h, nil
	case "tcp", "vsock":
	default:
		return h, fmt.Errorf("%q: unknown scheme %q: %s", s, h.scheme, forms)
	}
	if ip, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		h.host = ip.String()
		return h, nil
	}
	if !strings.Contains(rest, ":") {
		h.host = rest
	} else {
		var err error
		if h.host, h.port, err = net.SplitHostPort(rest); err != nil {
			return h, fmt.Errorf("%q is not an address: %s", s, forms)
		}
		if n, err := strconv.ParseUint(h.port, 10, 32); err != nil || n == 0 || h.scheme == "tcp" && n > math.MaxUint16 {
			return h, fmt.Errorf("%q: %q is not a port", s, h.port)
		}
	}
	if h.host == "" || strings.ContainsAny(h.host, " \t\r\n/") {
		return h, fmt.Errorf("%q: %q is not a host: %s", s, h.host, forms)
	}
	if h.scheme == "vsock" {
		if _, err := strconv.ParseUint(h.host, 10, 32); err != nil {
			return h, fmt.Errorf("%q: %q is not a context id, which is a number", s, h.host)
		}
	}
	return h, nil
}
