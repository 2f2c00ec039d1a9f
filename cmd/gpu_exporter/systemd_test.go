// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notifySocket is a socket that receives as systemd does.
type notifySocket struct {
	*net.UnixConn
	path string
}

func newNotifySocket(t *testing.T) notifySocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return notifySocket{conn, path}
}

// next reads messages until one begins with the prefix, and returns the earlier ones.
func (s notifySocket) next(t *testing.T, prefix string) (earlier []string) {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for buffer := make([]byte, 4096); ; {
		size, err := s.Read(buffer)
		if err != nil {
			t.Fatalf("no message begins with %q: %v; received: %q", prefix, err, earlier)
		}
		if strings.HasPrefix(string(buffer[:size]), prefix) {
			return earlier
		}
		earlier = append(earlier, string(buffer[:size]))
	}
}

// TestSystemd: a unit of Type=notify learns when the exporter serves, reloads and ends. The
// watchdog is answered while the driver hangs, also after the sampler was killed.
func TestSystemd(t *testing.T) {
	t.Parallel()
	socket := newNotifySocket(t)
	n := launchNodeWith(t, "t4x1", func(n *node) {
		n.cmd.Env = append(n.cmd.Env, "NOTIFY_SOCKET="+socket.path, "WATCHDOG_USEC=200000")
	}, "--sample.interval=200ms", "--sample.max-age=1s")
	socket.next(t, "READY=1")
	socket.next(t, "WATCHDOG=1\nSTATUS=GPUs answer")
	n.command(t, "hang *")
	socket.next(t, "WATCHDOG=1\nSTATUS=Not ready: ")
	n.eventually(t, "the sampler is killed", func() bool {
		count, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total")
		return count > 0
	})
	send := func(s syscall.Signal) {
		if err := n.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	send(syscall.SIGHUP)
	socket.next(t, "RELOADING=1\nMONOTONIC_USEC=")
	socket.next(t, "READY=1")
	socket.next(t, "WATCHDOG=1\nSTATUS=Not ready: ")
	send(syscall.SIGTERM)
	socket.next(t, "STOPPING=1")
}

// The watchdog is not answered without a publication.
func TestSystemdStuckPublisher(t *testing.T) {
	socket := newNotifySocket(t)
	t.Setenv("NOTIFY_SOCKET", socket.path)
	t.Setenv("WATCHDOG_USEC", "1000")
	for _, stuck := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		requested := make(chan struct{})
		s := newSystemd(slog.New(slog.DiscardHandler), func() (bool, string) { return true, "" }, func() { requested <- struct{}{} })
		done := make(chan error)
		go func() { done <- s.run(ctx) }()
		<-requested
		if !stuck {
			s.alive()
			<-requested
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if messages := socket.next(t, "STOPPING=1"); (len(messages) == 0) != stuck {
			t.Errorf("stuck %v: messages %q", stuck, messages)
		}
	}
}
