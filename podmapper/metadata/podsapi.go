// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"gpu_exporter/podmapper/internal/poll"
)

// DefaultPodsSocket is the socket of the kubelet's Pods API.
const DefaultPodsSocket = "/var/lib/kubelet/pods-api/pods-api.sock"

// watchFor is how long one watch is used. The kubelet (1.37) sends a pod when its
// status changes, so a new watch finds labels that have changed alone, and a kubelet
// that hangs.
const watchFor = 2 * time.Minute

// maxMessage bounds one pod. etcd accepts 1.5 MiB by default; the manifest of a static
// pod has no bound.
const maxMessage = 16 << 20

// window is what the kubelet may send ahead, in bytes: the minimum of HTTP/2. More
// would only use memory.
const window = 64 << 10

var (
	errSilent  = poll.WithReason(poll.Timeout, errors.New("no message from the kubelet in time"))
	errRenewal = errors.New("time for a new watch")
)

// followPodsAPI watches the Pods API until a watch fails. Each watch has its own
// connection, so that it reaches the kubelet that listens now.
func (s *Store) followPodsAPI(ctx context.Context, pods *podSet) {
	for {
		err := s.watchPodsAPI(ctx, pods)
		switch {
		case ctx.Err() != nil:
			return
		case !errors.Is(err, errRenewal):
			s.podsAPI.Fail(time.Now(), fmt.Errorf("watching pods through %s: %w", s.c.PodsSocket, err))
			return
		}
	}
}

func (s *Store) watchPodsAPI(ctx context.Context, pods *podSet) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(s.c.Timeout, func() { cancel(errSilent) })
	defer silence.Stop()

	// An error of gRPC's own dialing is only a text.
	socket, err := (&net.Dialer{}).DialContext(ctx, "unix", s.c.PodsSocket)
	if err != nil {
		return err
	}
	defer socket.Close()
	conn, err := grpc.NewClient("passthrough:///kubelet",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return socket, nil }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it fails only if it is closed already
	fail := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return withPodsAPIReason(err)
	}
	watch, err := podsv1alpha1.NewPodsClient(conn).WatchPods(ctx, &podsv1alpha1.WatchPodsRequest{})
	if err != nil {
		return fail(err)
	}
	var initial []*record // until the kubelet has sent all pods
	synced := false
	for {
		event, err := watch.Recv()
		if err != nil {
			return fail(err)
		}
		now := time.Now()
		if !synced {
			silence.Reset(s.c.Timeout)
		}
		switch event.Type {
		case podsv1alpha1.EventType_ADDED, podsv1alpha1.EventType_MODIFIED, podsv1alpha1.EventType_DELETED:
			r, err := s.decode(event.Pod)
			switch {
			case err != nil:
				s.omit(s.podsAPI, err)
			case event.Type == podsv1alpha1.EventType_DELETED:
				pods.end(r.pod.UID, now)
			case synced:
				pods.put(r)
			default:
				initial = append(initial, r)
			}
		case podsv1alpha1.EventType_INITIAL_SYNC_COMPLETE:
			if !synced {
				synced = true
				silence.Stop()
				defer time.AfterFunc(s.watchFor, func() { cancel(errRenewal) }).Stop()
				pods.replaceListed(initial, now)
				initial = nil
			}
		}
		if synced {
			s.publishFrom(SourcePodsAPI, pods.table(now))
		}
	}
}

// Fields in k8s.io/api/core/v1/generated.proto. The package itself would add 5 MB to
// the program, and to the memory of both processes.
const (
	podMetadata, podStatus                             = 1, 3
	initStatuses, containerStatuses, ephemeralStatuses = 10, 8, 13 // of a pod's status
	containerName, containerID                         = 1, 8      // of a container's status
)

// decode makes a record of a pod in its wire form.
func (s *Store) decode(b []byte) (*record, error) {
	var meta metav1.ObjectMeta
	var containers []Container
	err := eachField(b, func(number protowire.Number, value []byte) error {
		switch number {
		case podMetadata:
			return meta.Unmarshal(value)
		case podStatus:
			return eachField(value, func(number protowire.Number, value []byte) error {
				if number != initStatuses && number != containerStatuses && number != ephemeralStatuses {
					return nil
				}
				c, err := decodeContainer(value)
				if c.ID != "" { // a container that has not started has none
					containers = append(containers, c)
				}
				return err
			})
		}
		return nil
	})
	if err != nil {
		return nil, poll.WithReason(poll.Malformed, fmt.Errorf("decoding a pod: %w", err))
	}
	r, err := s.newRecord(&meta)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(containers, func(a, b Container) int { return strings.Compare(a.ID, b.ID) })
	r.pod.Containers = containers
	return r, r.validate()
}

func decodeContainer(status []byte) (c Container, err error) {
	err = eachField(status, func(number protowire.Number, value []byte) error {
		switch number {
		case containerName:
			c.Name = string(value)
		case containerID:
			c.ID = string(value)
		}
		return nil
	})
	if _, id, ok := strings.Cut(c.ID, "://"); ok {
		c.ID = id
	}
	return c, err
}

// eachField calls each with the strings and messages in a message.
func eachField(message []byte, each func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message[tag:])
			if err := each(number, value); err != nil {
				return err
			}
		}
		message = message[tag+size:]
	}
	return nil
}

// withPodsAPIReason adds the reason to an error of the kubelet.
func withPodsAPIReason(err error) error {
	switch status.Code(err) {
	case codes.FailedPrecondition: // the kubelet starts
		return poll.WithReason(poll.Unavailable, err)
	case codes.ResourceExhausted:
		if poll.ReasonOf(err) != poll.TooLarge {
			return poll.WithReason(reasonDropped, err)
		}
	}
	return err
}
