// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"gpu_exporter/collector/wire"
)

// A hostengine that listens again ends the back-off. One that accepts connections all the
// time does not.
func TestBackOffEndsWhenTheEngineIsBack(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			address := filepath.Join(t.TempDir(), "s")
			if network == "tcp" {
				free, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				address = free.Addr().String()
				free.Close()
			}
			s := New(Config{})
			s.sampler = wire.SamplerConfig{Hostengine: address}
			listening := make(chan time.Time, 1)
			go func() {
				time.Sleep(2 * time.Second)
				l, err := net.Listen(network, address)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { l.Close() })
				listening <- time.Now()
			}()
			if !s.backOff(t.Context(), 10*time.Minute) {
				t.Fatal("the back-off did not notice that the engine is back")
			}
			t.Logf("%v after it listens", time.Since(<-listening).Round(time.Millisecond))
			if s.backOff(t.Context(), 3*time.Second) {
				t.Error("an engine that accepts connections all the time is back")
			}
		})
	}
	t.Run("replaced within an instant", func(t *testing.T) {
		address := filepath.Join(t.TempDir(), "s")
		first, accepted := serve(t, address, false)
		s := New(Config{})
		s.sampler = wire.SamplerConfig{Hostengine: address}
		go func() {
			<-accepted // the probe is connected
			first()
			serve(t, address, false)
		}()
		if !s.backOff(t.Context(), 10*time.Minute) {
			t.Error("the back-off did not notice that the engine was replaced")
		}
	})
	t.Run("a proxy without an engine", func(t *testing.T) {
		address := filepath.Join(t.TempDir(), "s")
		serve(t, address, true)
		s := New(Config{})
		s.sampler = wire.SamplerConfig{Hostengine: address}
		if s.backOff(t.Context(), 3*time.Second) {
			t.Error("a proxy that closes every connection is an engine")
		}
	})
	s := New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if s.listensAgain(ctx) != nil {
		t.Error("an embedded engine is probed")
	}
}

// serve accepts connections on a socket. It closes each at once, or when end is called, which
// also removes the socket. accepted receives the first one.
func serve(t *testing.T, address string, closing bool) (end func(), accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Error(err)
		return
	}
	first := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			if all = append(all, c); len(all) == 1 {
				close(first)
			}
			if closing {
				c.Close()
			}
		}
		for _, c := range all {
			c.Close()
		}
	}()
	end = func() { l.Close(); <-done }
	t.Cleanup(end)
	return end, first
}
