// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"gpu_exporter/collector/wire"
)

const (
	// probeHold is how long a hostengine must keep a connection open, in silence, to
	// count as listening, and probeRetry the time to the next probe if it does not.
	probeHold  = 500 * time.Millisecond
	probeRetry = 500 * time.Millisecond
	// probeTimeout bounds the time to connect.
	probeTimeout = time.Second
)

// listensAgain returns a channel that is closed when the hostengine listens after a time
// when it did not. An engine that listens all the time and fails afterwards is not back.
// The channel is nil for an embedded engine and for vsock addresses.
func (s *Supervisor) listensAgain(ctx context.Context) <-chan struct{} {
	s.mu.Lock()
	address := s.sampler.Hostengine
	s.mu.Unlock()
	engine, err := wire.ParseHostengine(address)
	if err != nil || engine.URI {
		return nil
	}
	network := "tcp"
	if engine.Unix {
		network = "unix"
	}
	back := make(chan struct{})
	go func() {
		for absent := false; ctx.Err() == nil; {
			listening := listens(ctx, network, engine.Target)
			if listening && absent {
				close(back)
				return
			}
			if !listening {
				absent = true
				select {
				case <-ctx.Done():
				case <-time.After(probeRetry):
				}
			}
		}
	}()
	return back
}

// listens reports whether the hostengine accepts a connection and keeps it open. A proxy
// without an engine behind it closes the connection. A hostengine sends nothing before it
// is asked. A connection of the next probe follows at once, so that an engine that ends and
// is replaced within milliseconds is noticed too.
func listens(ctx context.Context, network, address string) bool {
	dialer := net.Dialer{Timeout: probeTimeout}
	connection, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { connection.Close() })()
	if err := connection.SetReadDeadline(time.Now().Add(probeHold)); err != nil {
		return false
	}
	_, err = connection.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}
