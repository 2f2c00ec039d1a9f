// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// maxConnections is enough for all scrapers of an installation. Each connection takes
	// about 20 KiB.
	maxConnections = 256
	minConnections = 8
	// reservedFiles are the descriptors that connections leave to the exporter: a start of
	// a sampler takes 12 at the same time, the sources of owners take the others.
	reservedFiles = 48
	// maxStreams bounds the requests of one HTTP/2 connection at the same time.
	maxStreams = 16
)

// connections bounds the number of connections. A new one closes the one that has been
// idle for the longest time, or else the one whose request has lasted the longest. So
// clients that keep connections, or do not read, cannot keep a scraper out.
type connections struct {
	limit int

	mu   sync.Mutex
	open map[net.Conn]connection
}

type connection struct {
	active bool // a request is being answered
	since  time.Time
}

// newConnections bounds the connections by the limit of descriptors, too.
func newConnections() *connections {
	limit := maxConnections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < maxConnections+reservedFiles {
		limit = max(minConnections, int(files.Cur)-reservedFiles)
	}
	return &connections{limit: limit, open: map[net.Conn]connection{}}
}

// changed is a http.Server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
		return
	case http.StateNew:
		if len(c.open) >= c.limit {
			c.closeOldest()
		}
	}
	c.open[conn] = connection{active: state == http.StateActive, since: time.Now()}
}

func (c *connections) closeOldest() {
	var oldest net.Conn
	for conn, s := range c.open {
		o := c.open[oldest]
		if oldest == nil || !s.active && o.active || s.active == o.active && s.since.Before(o.since) {
			oldest = conn
		}
	}
	delete(c.open, oldest)
	if encrypted, ok := oldest.(interface{ NetConn() net.Conn }); ok {
		oldest = encrypted.NetConn() // closing a TLS connection writes, and could block
	}
	_ = oldest.Close() // the server notices
}
