// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// maxAnswer bounds the kubelet's answer. A node with 500 pods of 20 containers
// and all its exclusive CPUs stays below a tenth of it; grpc's default of 4 MiB
// is too little for such a node.
const maxAnswer = 64 << 20

// idlePause keeps a server that accepts connections only to drop them from
// being dialled without a pause: for grpc each of those was a success, so its
// own backoff does not apply.
const idlePause = 200 * time.Millisecond

// kubelet is the one connection to the kubelet's pod-resources socket.
type kubelet struct {
	socket string
	conn   *grpc.ClientConn

	// connections counts the connections made, so that an answer can be told
	// to come from a kubelet that has just been started.
	connections atomic.Uint64
	// dialError is the outcome of the last dial. grpc gives only its text.
	dialError atomic.Pointer[error]
	// dialled is the connection that the last successful dial made.
	dialled atomic.Pointer[dialled]
}

// dialled is a connection and the socket's file that it was made through.
type dialled struct {
	net.Conn
	file fs.FileInfo
}

func newKubelet(socket string, connectTimeout time.Duration) (*kubelet, error) {
	return newKubeletOver(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, socket, connectTimeout)
}

func newKubeletOver(dial func(context.Context) (net.Conn, error), socket string, connectTimeout time.Duration) (*kubelet, error) {
	k := &kubelet{socket: socket}
	conn, err := grpc.NewClient(
		// passthrough, not grpc's unix resolver: a path is not a URL, and a
		// dialer of our own neither meets a proxy from the environment.
		"passthrough:///kubelet",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			// Before the dial: a file that is replaced meanwhile then only costs
			// another dial.
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
			// A kubelet restart takes about a second; a dial of a local socket
			// costs next to nothing.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.ForceCodecV2(answerCodec{})),
	)
	if err != nil {
		return nil, err
	}
	k.conn = conn
	return k, nil
}

// list asks once. It fails at once, not at the deadline, while there is no
// connection to be had.
func (k *kubelet) list(ctx context.Context, timeout time.Duration, filter resourceFilter) ([]Assignment, error) {
	k.leaveReplaced()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := &answer{filter: filter}
	if err := k.conn.Invoke(ctx, podresources.PodResourcesLister_List_FullMethodName, nil, a); err != nil {
		return nil, err
	}
	return a.assignments, a.err
}

// leaveReplaced ends the connection if the socket's file is another one by now.
// A kubelet that was stopped in the middle (hung, or in a debugger) keeps its
// connections, while its successor listens on a new file.
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
		d.Close()
	}
}

// watch keeps the connection up between refreshes, and calls back for every
// new one: what it leads to may be a kubelet that has just been started. It
// returns when ctx ends or the connection is closed.
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
			// Counted, and not told from the states, which may change faster
			// than they are looked at.
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

func (k *kubelet) close() error { return k.conn.Close() }

// Reason says in one word why a refresh failed.
type Reason string

// The reasons for a failed refresh.
const (
	ReasonNoSocket    Reason = "no_socket"    // the socket's file is not there
	ReasonForbidden   Reason = "forbidden"    // no permission to open it
	ReasonUnavailable Reason = "unavailable"  // nothing, or no kubelet, answers on it
	ReasonTimeout     Reason = "timeout"      // no answer in time
	ReasonTooLarge    Reason = "too_large"    // the answer is over 64 MiB, or has more devices than a node can have
	ReasonMalformed   Reason = "malformed"    // the answer is not one of this API
	ReasonRateLimited Reason = "rate_limited" // the kubelet refuses more calls
	ReasonUnsupported Reason = "unsupported"  // this kubelet has no List call
	ReasonOther       Reason = "other"        // any other status
)

// Reasons lists every Reason, for metrics that start at zero.
func Reasons() []Reason {
	return []Reason{
		ReasonNoSocket, ReasonForbidden, ReasonUnavailable, ReasonTimeout,
		ReasonTooLarge, ReasonMalformed, ReasonRateLimited, ReasonUnsupported, ReasonOther,
	}
}

// Hint is what a user can do about it.
func (r Reason) Hint() string {
	switch r {
	case ReasonNoSocket:
		return "mount the node's /var/lib/kubelet/pod-resources into the container, or give the socket's path with --pod-resources-kubelet-socket"
	case ReasonForbidden:
		return "run the exporter as a user that may open the socket (root by default)"
	case ReasonUnavailable:
		return "see whether the kubelet runs; after its restart the socket must be seen through a mount of its directory, not of the file"
	case ReasonTimeout:
		return "see whether the kubelet is overloaded or stuck"
	case ReasonRateLimited:
		return "see which other clients on the node call pod-resources too often"
	case ReasonMalformed:
		return "see which program listens on the socket"
	case ReasonUnsupported:
		return "the kubelet must serve pod-resources v1 (Kubernetes 1.20 and newer)"
	}
	return "see the kubelet's log"
}

// reason sorts an error of list.
func (k *kubelet) reason(err error) Reason {
	switch {
	case errors.Is(err, errTooMuch):
		return ReasonTooLarge
	case errors.Is(err, errMalformed):
		return ReasonMalformed
	}
	switch status.Code(err) {
	case codes.Unavailable:
		if dial := k.dialError.Load(); dial != nil {
			switch {
			case errors.Is(*dial, fs.ErrNotExist):
				return ReasonNoSocket
			case errors.Is(*dial, fs.ErrPermission):
				return ReasonForbidden
			}
		}
		return ReasonUnavailable
	case codes.DeadlineExceeded, codes.Canceled:
		return ReasonTimeout
	case codes.ResourceExhausted:
		// grpc's own refusal and the kubelet's rate limit (100 calls a second
		// for all clients together) share the code.
		if strings.Contains(status.Convert(err).Message(), "larger than max") {
			return ReasonTooLarge
		}
		return ReasonRateLimited
	case codes.Unimplemented:
		return ReasonUnsupported
	}
	return ReasonOther
}

// socketPath takes a plain path or the URL forms of a unix socket.
func socketPath(s string) (string, error) {
	path := s
	if rest, ok := strings.CutPrefix(s, "unix://"); ok {
		path = rest
	} else if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		path = rest
	}
	// sun_path ends with a zero byte.
	if limit := len(syscall.RawSockaddrUnix{}.Path) - 1; path == "" || len(path) > limit {
		return "", fmt.Errorf("kubelet socket %q: a path of 1 to %d bytes is needed", s, limit)
	}
	return path, nil
}
