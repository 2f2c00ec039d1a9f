// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"
)

// DefaultPodsSocket is where the kubelet serves the Pods API.
const DefaultPodsSocket = "/var/lib/kubelet/pods-api/pods-api.sock"

// watchFor is how long a watch is used before the next one begins. The kubelet
// (1.37) tells of a pod when its status changes, so labels that change alone are
// not told; and a kubelet that hangs has nothing to tell, either.
const watchFor = 2 * time.Minute

// How long to wait after a failure of the Pods API. A restart of the kubelet
// takes about a second.
const (
	podsAPIMinDelay = 200 * time.Millisecond
	podsAPIMaxDelay = 30 * time.Second
)

// window is for what the kubelet may send ahead, in bytes: the least that HTTP/2
// can have. More would only lie in memory.
const window = 64 << 10

var (
	errSilent  = errors.New("no word from the kubelet in time")
	errRenewal = errors.New("time for another watch")
)

// podsAPI watches the kubelet's Pods API.
type podsAPI struct {
	socket   string
	timeout  time.Duration // between two messages, until all pods are told
	watchFor time.Duration
	decoder  *decoder
	workload bool                   // workloads are asked for
	report   func([]*record, error) // all pods, or what went wrong
	oddity   func(error)            // something that costs one pod only

	shelf *shelf
}

// run watches until ctx ends. Each watch has a connection of its own, so that a
// kubelet that was replaced is not talked to any longer.
func (k *podsAPI) run(ctx context.Context) {
	delay := backoff{min: podsAPIMinDelay, max: podsAPIMaxDelay}
	for {
		synced, err := k.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if synced {
			delay.reset()
		}
		if errors.Is(err, errRenewal) {
			continue
		}
		k.report(nil, err)
		if !delay.wait(ctx, 0) {
			return
		}
	}
}

// watch does one watch, and says whether it told all pods before it ended.
func (k *podsAPI) watch(ctx context.Context) (synced bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(k.timeout, func() { cancel(errSilent) })
	defer silence.Stop()

	c, err := dialPodsAPI(k.socket)
	if err != nil {
		return false, failed(ReasonOther, "preparing the connection to the kubelet: %w", err)
	}
	defer func() { _ = c.Close() }() // an error says that it is closed
	fail := func(err error) error {
		cause := context.Cause(ctx)
		switch {
		case errors.Is(cause, errRenewal):
			return errRenewal
		case errors.Is(cause, errSilent):
			return failed(ReasonTimeout, "watching pods through %s: %w", k.socket, errSilent)
		}
		return failed(c.reason(err), "watching pods through %s: %w", k.socket, err)
	}

	k.shelf.begin()
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, podsv1alpha1.Pods_WatchPods_FullMethodName)
	if err != nil {
		return false, fail(err)
	}
	if err := errors.Join(stream.SendMsg(nil), stream.CloseSend()); err != nil {
		return false, fail(err)
	}
	for {
		e := podEvent{decoder: k.decoder}
		if err := stream.RecvMsg(&e); err != nil {
			return synced, fail(err)
		}
		now := time.Now()
		switch {
		case e.err != nil:
			k.oddity(fmt.Errorf("reading a pod from the kubelet: %w", e.err))
		case e.kind == podsv1alpha1.EventType_ADDED, e.kind == podsv1alpha1.EventType_MODIFIED:
			if k.workload {
				e.object.pod.Workload = direct(e.object.controller, e.object.templateHash)
			}
			k.shelf.put(e.object)
		case e.kind == podsv1alpha1.EventType_DELETED:
			k.shelf.remove(e.object.pod.UID, now)
		case e.kind == podsv1alpha1.EventType_INITIAL_SYNC_COMPLETE && !synced:
			synced = true
			k.shelf.end(now)
			silence.Stop()
			renewal := time.AfterFunc(k.watchFor, func() { cancel(errRenewal) })
			defer renewal.Stop()
		}
		if synced {
			k.report(k.shelf.sorted(now), nil)
		} else {
			silence.Reset(k.timeout)
		}
	}
}

// podsAPIConn is a connection to the Pods API.
type podsAPIConn struct {
	*grpc.ClientConn
	dialError atomic.Pointer[error] // of the last dial; grpc gives only its text
}

func dialPodsAPI(socket string) (*podsAPIConn, error) {
	c := &podsAPIConn{}
	conn, err := grpc.NewClient(
		"passthrough:///kubelet", // a path is not a URL
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
			c.dialError.Store(&err)
			return conn, err
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxObject), grpc.ForceCodecV2(podEventCodec{})),
	)
	c.ClientConn = conn
	return c, err
}

// reason sorts an error of a watch.
func (c *podsAPIConn) reason(err error) Reason {
	if errors.Is(err, io.EOF) {
		return ReasonUnavailable // the kubelet ended the watch
	}
	switch status.Code(err) {
	case codes.Unavailable:
		if dial := c.dialError.Load(); dial != nil {
			switch {
			case errors.Is(*dial, fs.ErrNotExist):
				return ReasonNoSocket
			case errors.Is(*dial, fs.ErrPermission):
				return ReasonForbidden
			}
		}
		return ReasonUnavailable
	case codes.FailedPrecondition: // the kubelet has just been started
		return ReasonUnavailable
	case codes.PermissionDenied, codes.Unauthenticated:
		return ReasonForbidden
	case codes.DeadlineExceeded:
		return ReasonTimeout
	case codes.ResourceExhausted:
		if strings.Contains(status.Convert(err).Message(), "larger than max") {
			return ReasonTooLarge
		}
		return ReasonDropped
	case codes.Unimplemented:
		return ReasonUnsupported
	}
	return ReasonOther
}

// podEvent takes a WatchPodsEvent. It reads only what is kept of the pod, so
// that a manifest of 64 KiB does not become objects of several times that.
type podEvent struct {
	decoder *decoder
	kind    podsv1alpha1.EventType
	object  object
	// err says what is wrong with the message. Unmarshal does not return it, as
	// the watch would end with it.
	err error
}

// Fields of WatchPodsEvent (k8s.io/kubelet/pkg/apis/pods/v1alpha1/api.proto).
const (
	podEventType protowire.Number = 1
	podEventPod  protowire.Number = 2
)

// podEventCodec gives messages to a podEvent; the request has no fields.
type podEventCodec struct{}

func (podEventCodec) Name() string                         { return "proto" }
func (podEventCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

func (podEventCodec) Unmarshal(data mem.BufferSlice, v any) error {
	e, ok := v.(*podEvent)
	if !ok {
		return fmt.Errorf("cannot unmarshal into %T", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	e.unmarshal(b.ReadOnlyData())
	return nil
}

func (e *podEvent) unmarshal(b []byte) {
	var pod []byte
	e.err = fields(b, func(field protowire.Number, value []byte, n uint64) error {
		switch field {
		case podEventType:
			e.kind = podsv1alpha1.EventType(int32(n))
		case podEventPod:
			pod = value
		}
		return nil
	})
	if e.err != nil {
		return
	}
	switch e.kind {
	case podsv1alpha1.EventType_ADDED, podsv1alpha1.EventType_MODIFIED, podsv1alpha1.EventType_DELETED:
		e.object, e.err = e.decoder.pod(pod)
	}
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
		return "", fmt.Errorf("socket of the Pods API %q: a path of 1 to %d bytes is needed", s, limit)
	}
	return path, nil
}
