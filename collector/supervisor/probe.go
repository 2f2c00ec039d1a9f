// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"net"
	"time"

	"gpu_exporter/collector/wire"
)

const (
	// probeInterval is the time between two probes of the hostengine's socket, and
	// probeTimeout the limit of one.
	probeInterval = time.Second
	probeTimeout  = time.Second
)

// listensAgain returns a channel that is closed when the hostengine accepts a connection
// after it had refused one. An engine that accepts connections and fails afterwards is
// not back. The channel is nil for an embedded engine and for vsock addresses.
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
		dialer := net.Dialer{Timeout: probeTimeout}
		timer := time.NewTicker(probeInterval)
		defer timer.Stop()
		for refused := false; ; {
			connection, err := dialer.DialContext(ctx, network, engine.Target)
			if err == nil {
				connection.Close()
			}
			if err == nil && refused {
				close(back)
				return
			}
			refused = refused || err != nil
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
	}()
	return back
}
