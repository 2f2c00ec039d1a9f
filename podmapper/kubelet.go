// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/internal/poll"
)

const (
	// maxAnswer bounds the kubelet's answer. A node with 500 pods of 20 containers
	// and all its exclusive CPUs needs half of it. The default of grpc, 4 MiB, is
	// too little for such a node.
	maxAnswer = 16 << 20
	// idlePause slows down redials of a server that accepts connections only to drop
	// them. For grpc each of them is a success, so its own back-off does not apply.
	idlePause = 200 * time.Millisecond
)

// kubelet is the connection to the kubelet's pod-resources socket.
type kubelet struct {
	socket  string
	timeout time.Duration // of one call
	conn    *grpc.ClientConn

	connections atomic.Uint64           // made so far
	dialError   atomic.Pointer[error]   // of the last dial; grpc returns only its text
	dialled     atomic.Pointer[dialled] // by the last successful dial
}

// dialled is a connection, and the socket's file at that time.
type dialled struct {
	net.Conn
	file fs.FileInfo
}

func newKubelet(socket string, timeout time.Duration) (*kubelet, error) {
	return newKubeletOver(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, socket, timeout)
}

func newKubeletOver(dial func(context.Context) (net.Conn, error), socket string, timeout time.Duration) (*kubelet, error) {
	k := &kubelet{socket: socket, timeout: timeout}
	var err error
	k.conn, err = grpc.NewClient(
		// passthrough instead of grpc's unix resolver: a path is not a URL, and a
		// custom dialer ignores the proxy of the environment.
		"passthrough:///kubelet",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			// Before the dial: a file that is replaced in between costs one more dial.
			file, _ := os.Stat(socket)
			c, err := dial(ctx)
			k.dialError.Store(&err)
			if err == nil {
				k.dialled.Store(&dialled{Conn: c, file: file})
				k.connections.Add(1)
			}
			return c, err
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0), // a long interval must not cost a dial per refresh
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			// A kubelet restart takes about a second, and a dial of a socket is cheap.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: timeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	)
	return k, err
}

// list calls List. Without a connection it fails at once.
func (k *kubelet) list(ctx context.Context) (*podresources.ListPodResourcesResponse, error) {
	k.leaveReplaced()
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	answer, err := podresources.NewPodResourcesListerClient(k.conn).List(ctx, &podresources.ListPodResourcesRequest{})
	if dial := k.dialError.Load(); status.Code(err) == codes.Unavailable && dial != nil && *dial != nil {
		err = *dial
	}
	if err != nil {
		return nil, fmt.Errorf("listing pod resources from %s: %w", k.socket, err)
	}
	return answer, nil
}

// leaveReplaced closes the connection if the socket is a different file by now. A
// kubelet that hangs keeps its connections while its successor listens on a new
// file.
func (k *kubelet) leaveReplaced() {
	d := k.dialled.Load()
	if d == nil || d.file == nil {
		return
	}
	file, err := os.Stat(k.socket)
	if err != nil || os.SameFile(file, d.file) && file.ModTime().Equal(d.file.ModTime()) {
		return
	}
	if k.dialled.CompareAndSwap(d, nil) {
		_ = d.Close() // the successor is dialled, whatever happens to this one
	}
}

// watch keeps the connection up between refreshes, and calls connected for each new
// one: a kubelet may have restarted. It returns when ctx ends or the connection is
// closed.
func (k *kubelet) watch(ctx context.Context, connected func()) {
	var seen uint64
	for {
		state := k.conn.GetState()
		switch state {
		case connectivity.Idle:
			select {
			case <-time.After(idlePause):
				k.conn.Connect()
			case <-ctx.Done():
				return
			}
		case connectivity.Ready:
			// The count, because states can change faster than they are observed.
			if n := k.connections.Load(); n != seen {
				seen = n
				connected()
			}
		case connectivity.Shutdown:
			return
		}
		if !k.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// Reason is the cause of a failed refresh.
type Reason = poll.Reason

// hints returns what a user can do about each failure of a refresh.
func hints() map[Reason]string {
	return map[Reason]string{
		poll.NoSocket:    "mount the node's /var/lib/kubelet/pod-resources into the container, or set the socket's path with --kubernetes.pod-resources-socket",
		poll.Forbidden:   "run the exporter as a user that can open the socket (root by default)",
		poll.Unavailable: "check that the kubelet runs; mount the directory of the socket, because a mount of the file does not survive a kubelet restart",
		poll.Timeout:     "check whether the kubelet is overloaded or stuck",
		poll.TooLarge:    "check the kubelet's log",
		poll.Malformed:   "check which program listens on the socket, and whether a device plugin has IDs that are not UTF-8",
		poll.RateLimited: "check which other clients on the node call pod-resources too often",
		poll.Unsupported: "the kubelet must serve pod-resources v1 (Kubernetes 1.20 and newer)",
		poll.Other:       "check the kubelet's log",
	}
}
