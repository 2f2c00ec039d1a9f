// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// defaultPort is DCGM_HE_PORT_NUMBER (dcgm_structs.h).
const defaultPort = "5555"

// Hostengine is the address of a standalone engine.
type Hostengine struct {
	// Target is the argument of the DCGM call: host:port, a path, or a vsock URI.
	Target string
	// Host is a name or an IP address; empty for a unix or vsock socket.
	Host string
	Unix bool
	// URI is set if the target needs dcgmConnect_v3, which DCGM has since 4.5. The
	// other forms use dcgmConnect_v2, which every DCGM 4 has.
	URI bool
}

// ParseHostengine reads the address of a standalone engine: a host with or without
// a port, an absolute path of a unix socket, or a tcp://, unix:// or vsock:// URI.
func ParseHostengine(text string) (Hostengine, error) {
	bad := func(why string) (Hostengine, error) {
		return Hostengine{}, fmt.Errorf("%q: %s; write host, host:port, [ipv6]:port, /path, tcp://host:port, unix:///path or vsock://cid:port", text, why)
	}
	s := strings.TrimSpace(text)
	if s == "" {
		return bad("the address is empty")
	}
	scheme, rest, isURI := strings.Cut(s, "://")
	if !isURI {
		scheme, rest = "tcp", s
		if strings.HasPrefix(s, "/") {
			scheme = "unix"
		}
	}
	switch strings.ToLower(scheme) {
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return bad("the path of a unix socket must be absolute")
		}
		// sizeof(sockaddr_un.sun_path) is 108 with the terminating zero.
		if len(rest) > 107 {
			return bad("the path of a unix socket must be shorter than 108 bytes")
		}
		return Hostengine{Target: rest, Unix: true}, nil
	case "vsock":
		cid, port, hasPort := strings.Cut(rest, ":")
		if _, err := strconv.ParseUint(cid, 10, 32); err != nil {
			return bad("the vsock cid is not a number")
		}
		// DCGM 4.6 documents a default port for vsock, but requires one
		// (common/UriParser.cpp).
		if !hasPort {
			port = defaultPort
		}
		if !validPort(port) {
			return bad("the port is not a number from 1 to 65535")
		}
		return Hostengine{Target: "vsock://" + cid + ":" + port, URI: true}, nil
	case "tcp":
		host, port := rest, defaultPort
		switch {
		case isIP(rest) && hasPort(rest):
			colon := strings.LastIndexByte(rest, ':')
			return Hostengine{}, fmt.Errorf("%q can mean an address, or an address and a port: write [%s]%s for the port, or [%s] for the address",
				text, rest[:colon], rest[colon:], rest)
		case isIP(rest): // includes an IPv6 address without brackets
		case strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"):
			host = rest[1 : len(rest)-1]
		case strings.Contains(rest, ":"):
			var err error
			if host, port, err = net.SplitHostPort(rest); err != nil {
				return bad("it is neither host:port nor [ipv6]:port")
			}
		}
		if host == "" {
			return bad("the host is missing")
		}
		if strings.ContainsFunc(host, notOfHost) || !isIP(host) && (strings.Contains(host, ":") || rest[0] == '[') {
			return bad("the host is not a name or an address")
		}
		if !validPort(port) {
			return bad("the port is not a number from 1 to 65535")
		}
		return Hostengine{Target: net.JoinHostPort(host, port), Host: host}, nil
	}
	return bad("unknown scheme " + scheme)
}

// notOfHost reports whether no name or address of a host contains the character.
func notOfHost(r rune) bool { return r == ' ' || !unicode.IsPrint(r) || strings.ContainsRune("/[]", r) }

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// hasPort reports whether an IPv6 address without brackets remains an address without its
// last part, which can be a port. Example: fd00::2:5555.
func hasPort(ip string) bool {
	colon := strings.LastIndexByte(ip, ':')
	return colon > 0 && isIP(ip[:colon]) && validPort(ip[colon+1:])
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
