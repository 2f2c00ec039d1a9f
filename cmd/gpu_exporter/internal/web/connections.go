// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"cmp"
	"net"
	"net/http"
	"slices"
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
	// connectionGrace is how long a connection is safe unless it is idle after a request.
	// A burst of connections must not take the place of one that is about to be used.
	connectionGrace = 100 * time.Millisecond
	// maxStreams bounds the requests of one HTTP/2 connection at the same time.
	maxStreams = 16
)

// connections bounds the number of connections. A new one closes the one that has been
// idle after a request for the longest time, or else the one that has waited the longest
// for its first request, or else the one whose request has lasted the longest. So clients
// that keep connections, or do not read, cannot keep a scraper out.
type connections struct {
	limit int

	mu   sync.Mutex
	open map[net.Conn]connection
}

type connection struct {
	state http.ConnState
	since time.Time
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
		for len(c.open) >= c.limit && !c.closeOldest() { // further ones wait in the socket's backlog
			c.mu.Unlock()
			time.Sleep(connectionGrace / 10)
			c.mu.Lock()
		}
	}
	c.open[conn] = connection{state: state, since: time.Now()}
}

// loss orders the states by what closing a connection costs. The request of a new
// connection may be on its way.
func loss(state http.ConnState) int {
	return slices.Index([]http.ConnState{http.StateIdle, http.StateNew, http.StateActive}, state)
}

// closeOldest reports whether there was a connection that it could close.
func (c *connections) closeOldest() bool {
	var oldest net.Conn
	for conn, s := range c.open {
		if s.state != http.StateIdle && time.Since(s.since) < connectionGrace {
			continue
		}
		o := c.open[oldest]
		if oldest == nil || cmp.Or(cmp.Compare(loss(s.state), loss(o.state)), s.since.Compare(o.since)) < 0 {
			oldest = conn
		}
	}
	if oldest == nil {
		return false
	}
	delete(c.open, oldest)
	if encrypted, ok := oldest.(interface{ NetConn() net.Conn }); ok {
		oldest = encrypted.NetConn() // closing a TLS connection writes, and could block
	}
	_ = oldest.Close() // the server notices
	return true
}
