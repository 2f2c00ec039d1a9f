// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kubelettest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// server serves one API of the kubelet on a socket.
type server struct {
	socket      string
	register    func(grpc.ServiceRegistrar)
	connections atomic.Int64

	running sync.Mutex // guards the fields below
	grpc    *grpc.Server
	done    chan struct{}
}

// Start listens and serves. Like the kubelet, it replaces an old socket file.
func (s *server) Start() error {
	s.running.Lock()
	defer s.running.Unlock()
	if s.grpc != nil {
		return errors.New("the kubelet is running already")
	}
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the old socket: %w", err)
	}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		return err
	}
	s.serve(l)
	return nil
}

// StartOn serves on a listener instead of the socket. Stop closes the listener.
func (s *server) StartOn(l net.Listener) {
	s.running.Lock()
	defer s.running.Unlock()
	s.serve(l)
}

func (s *server) serve(l net.Listener) {
	server, done := grpc.NewServer(), make(chan struct{})
	s.register(server)
	s.grpc, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(countingListener{l, &s.connections}) // ends with Stop
	}()
}

// Stop ends the server at once: its connections break and its socket disappears.
func (s *server) Stop() {
	s.running.Lock()
	server, done := s.grpc, s.done
	s.grpc = nil
	s.running.Unlock()
	if server != nil {
		server.Stop()
		<-done
	}
}

// Connections counts the connections accepted so far.
func (s *server) Connections() int { return int(s.connections.Load()) }

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}
