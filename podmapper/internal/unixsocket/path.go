// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package unixsocket parses the addresses of unix sockets in flags. It must not open
// them.
package unixsocket

import (
	"fmt"
	"strings"
	"syscall"
)

// Path returns the path in a plain path, or in a URL such as unix:///run/docker.sock.
func Path(address string) (string, error) {
	path, isURL := strings.CutPrefix(address, "unix:")
	if isURL {
		path = strings.TrimPrefix(path, "//")
	}
	if scheme, _, ok := strings.Cut(path, "://"); ok {
		return "", fmt.Errorf("socket %q: %s is not supported; use the path of a unix socket", address, scheme)
	}
	// sun_path ends with a zero byte.
	if limit := len(syscall.RawSockaddrUnix{}.Path) - 1; path == "" || len(path) > limit {
		return "", fmt.Errorf("socket %q: the path must have 1 to %d bytes", address, limit)
	}
	return path, nil
}
