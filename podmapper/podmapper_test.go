// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
	"gpu_exporter/podmapper/kubelettest"
)

func startKubelet(t testing.TB, pods ...*podresources.PodResources) (*kubelettest.Kubelet, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	k := kubelettest.New(socket)
	k.SetPods(pods...)
	if err := k.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Stop)
	return k, socket
}

func newMapper(t testing.TB, c Config) *Mapper {
	t.Helper()
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// run starts m.Run and ends it with the test.
func run(t *testing.T, m *Mapper) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func pods(t *Table) string {
	if t == nil {
		return "none"
	}
	var names []string
	for _, a := range t.Assignments {
		names = append(names, a.Owner.Pod)
	}
	return strings.Join(names, " ")
}

func TestRefresh(t *testing.T) {
	kubelet, socket := startKubelet(t,
		kubelettest.Pod("ml", "train", "main", gpuResource, gpuA),
		kubelettest.Pod("ml", "odd", "main", gpuResource, "who-knows"),
		kubelettest.Pod("kube-system", "proxy", "proxy", "cpu"),
	)
	m := newMapper(t, Config{Socket: "unix://" + socket})
	if m.Table() != nil {
		t.Error("there is a table before the first answer")
	}
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	table := m.Table()
	if got := pods(table); got != "odd train" {
		t.Errorf("assigned are %q", got)
	}
	s := m.Status()
	if !s.Up || s.Refreshes != 1 || s.LastSuccess.IsZero() || s.LastSuccess.After(table.Time) || s.Duration <= 0 ||
		s.Assignments != 2 || s.Err != nil || kubelet.Connections() != 1 {
		t.Errorf("status %+v", s)
	}

	// The same answer is the same table; another answer is another version, and
	// the old table is as it was.
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := m.Table(); again != table || !m.Status().LastSuccess.After(s.LastSuccess) {
		t.Errorf("the same answer: version %d confirmed at %s, after version %d confirmed at %s",
			again.Version, m.Status().LastSuccess, table.Version, s.LastSuccess)
	}
	kubelet.SetPods(kubelettest.Pod("ml", "next", "main", gpuResource, gpuA))
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := m.Table(); next.Version == table.Version || pods(next) != "next" || pods(table) != "odd train" {
		t.Errorf("after a change: version %d with %q, and the old table holds %q", next.Version, pods(next), pods(table))
	}
}

// TestOneConnection: many refreshes, many readers, one connection and no more
// goroutines than at the start.
func TestOneConnection(t *testing.T) {
	kubelet, socket := startKubelet(t, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
	m := newMapper(t, Config{Socket: socket, Interval: time.Millisecond})
	run(t, m)
	sourcetest.Eventually(t, "10 refreshes", func() bool { return kubelet.Calls() >= 10 })
	before := runtime.NumGoroutine()
	sourcetest.Eventually(t, "500 refreshes", func() bool {
		m.Trigger()
		return m.Table() != nil && m.Status().Refreshes >= 500
	})
	if n := kubelet.Connections(); n != 1 {
		t.Errorf("%d connections for %d calls", n, kubelet.Calls())
	}
	// A call under way has a few goroutines, on either side of the socket.
	if after := runtime.NumGoroutine(); after > before+10 {
		t.Errorf("%d goroutines grew to %d", before, after)
	}
}

func TestRunLeavesNothing(t *testing.T) {
	_, socket := startKubelet(t)
	before := runtime.NumGoroutine()
	for range 20 {
		m := newMapper(t, Config{Socket: socket})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		sourcetest.Eventually(t, "a refresh", func() bool { return m.Status().Up })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	sourcetest.Eventually(t, "goroutines ended", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// TestRestart checks a kubelet restart: the table remains, the new kubelet is noticed
// long before the next refresh, and its first answers, without the pods, are not
// accepted.
func TestRestart(t *testing.T) {
	train := kubelettest.Pod("ml", "train", "main", gpuResource, gpuA)
	static := kubelettest.Pod("kube-system", "monitor", "main", gpuResource, gpuB)
	for _, tc := range []struct {
		name    string
		atStart []*podresources.PodResources
	}{
		{"empty at first", nil},
		{"static pods only at first", []*podresources.PodResources{static}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kubelet, socket := startKubelet(t, train, static)
			m := newMapper(t, Config{Socket: socket, Interval: time.Hour, MaxAge: time.Hour})
			// Watched at every change, the table must never lose a pod.
			run(t, m)
			sourcetest.Eventually(t, "the first table", func() bool { return m.Table() != nil })

			kubelet.Stop()
			kubelet.SetPods(tc.atStart...)
			// The first refresh may still end in the old connection.
			sourcetest.Eventually(t, "the loss is seen", func() bool {
				return m.Refresh(t.Context()) != nil && m.Status().Reason == poll.NoSocket
			})
			if s := m.Status(); s.Up || pods(m.Table()) != "monitor train" {
				t.Errorf("while the kubelet is away: status %+v, pods %q", s, pods(m.Table()))
			}

			calls := kubelet.Calls()
			if err := kubelet.Start(); err != nil {
				t.Fatal(err)
			}
			sourcetest.Eventually(t, "the doubtful answer", func() bool { return kubelet.Calls() > calls && m.Status().Up })
			if got := pods(m.Table()); got != "monitor train" {
				t.Errorf("right after the restart the table holds %q", got)
			}
			kubelet.SetPods(train, static)
			changed := time.Now()
			sourcetest.Eventually(t, "the confirmed answer", func() bool { _, at := m.Confirmed(); return at.After(changed) })
			if got := pods(m.Table()); got != "monitor train" {
				t.Errorf("after the second look the table holds %q", got)
			}
			if n := kubelet.Connections(); n != 2 {
				t.Errorf("%d connections, want one per kubelet", n)
			}
		})
	}
}

// TestPodsEnd: owners that are really gone go, with or without a restart in
// between.
func TestPodsEnd(t *testing.T) {
	a, b := kubelettest.Pod("ml", "a", "main", gpuResource, gpuA), kubelettest.Pod("ml", "b", "main", gpuResource, gpuB)
	kubelet, socket := startKubelet(t, a, b)
	m := newMapper(t, Config{Socket: socket, Interval: time.Hour, MaxAge: time.Hour})
	m.confirm = 50 * time.Millisecond
	run(t, m)
	sourcetest.Eventually(t, "both pods", func() bool { return pods(m.Table()) == "a b" })

	// One of two ends, on the same connection: at once.
	if err := m.Refresh(t.Context()); err != nil { // this connection has given a table
		t.Fatal(err)
	}
	kubelet.SetPods(b)
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := pods(m.Table()); got != "b" {
		t.Errorf("the table holds %q, want b", got)
	}

	// So does the last one: at once, too.
	kubelet.SetPods()
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := pods(m.Table()); got != "" {
		t.Errorf("the table holds %q, want nothing", got)
	}

	// One ends while the kubelet restarts: with a later answer. Nothing but Run
	// asks for it.
	kubelet.SetPods(a, b)
	m.Trigger()
	sourcetest.Eventually(t, "both pods again", func() bool { return pods(m.Table()) == "a b" })
	kubelet.Stop()
	kubelet.SetPods(a)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	sourcetest.Eventually(t, "only a", func() bool { return pods(m.Table()) == "a" })

	// One ends while the kubelet restarts, and a different pod has its device: the
	// kubelet must know.
	only := time.Now()
	sourcetest.Eventually(t, "the connection is not new any more", func() bool {
		err := m.Refresh(t.Context())
		_, at := m.Confirmed()
		return err == nil && at.After(only)
	})
	m.confirm = time.Hour
	kubelet.Stop()
	kubelet.SetPods(b, kubelettest.Pod("ml", "heir", "main", gpuResource, gpuA))
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	sourcetest.Eventually(t, "the heir of a", func() bool { return pods(m.Table()) == "b heir" })
}

func TestHandedOver(t *testing.T) {
	pod := func(name string, ids ...string) []Assignment {
		return unmarshal(t, resourceFilter{claims: true}, kubelettest.Pod("ml", name, "main", gpuResource, ids...))
	}
	claim := func(name string) []Assignment {
		return unmarshal(t, resourceFilter{claims: true}, claimed(name, "gpu-0"))
	}
	side := unmarshal(t, resourceFilter{}, kubelettest.Pod("ml", "a", "side", gpuResource, gpuA))
	shared := unmarshal(t, resourceFilter{}, kubelettest.Pod("ml", "b", "main", gpuResource+".shared", gpuA))
	for _, tc := range []struct {
		name        string
		before, now []Assignment
		want        bool
	}{
		{"nothing", nil, nil, false},
		{"gone", pod("a", gpuA), nil, false},
		{"the same", pod("a", gpuA), pod("a", gpuA), false},
		{"another device", pod("a", gpuA), pod("b", gpuB), false},
		{"another replica", pod("a", gpuA+"::0"), pod("b", gpuA+"::1"), false},
		{"another resource", pod("a", gpuA), shared, false},
		{"another container", pod("a", gpuA), side, false},
		{"the device", pod("a", gpuA), pod("b", gpuA), true},
		{"a claim may be shared", claim("a"), claim("b"), false},
	} {
		if got := handedOver(tc.before, tc.now); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestErrors checks failures: the last good table remains, the status has the reason,
// and one warning has a hint.
func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		spoil  func(k *kubelettest.Kubelet)
		mend   func(k *kubelettest.Kubelet)
		reason Reason
	}{
		{
			name:   "slow",
			spoil:  func(k *kubelettest.Kubelet) { k.SetDelay(time.Hour) },
			mend:   func(k *kubelettest.Kubelet) { k.SetDelay(0) },
			reason: poll.Timeout,
		},
		{
			name:   "unimplemented",
			spoil:  func(k *kubelettest.Kubelet) { k.SetError(status.Error(codes.Unimplemented, "no v1")) },
			mend:   func(k *kubelettest.Kubelet) { k.SetError(nil) },
			reason: poll.Unsupported,
		},
		{
			name: "rate limited",
			spoil: func(k *kubelettest.Kubelet) {
				k.SetError(status.Error(codes.ResourceExhausted, "rejected by rate limit"))
			},
			mend:   func(k *kubelettest.Kubelet) { k.SetError(nil) },
			reason: poll.RateLimited,
		},
		{
			name:   "unknown status",
			spoil:  func(k *kubelettest.Kubelet) { k.SetError(errors.New("checkpoint is corrupt")) },
			mend:   func(k *kubelettest.Kubelet) { k.SetError(nil) },
			reason: poll.Other,
		},
		{
			name: "too large an answer",
			spoil: func(k *kubelettest.Kubelet) {
				k.SetPods(kubelettest.Pod("ml", strings.Repeat("x", maxAnswer), "main", gpuResource, gpuA))
			},
			mend: func(k *kubelettest.Kubelet) {
				k.SetPods(kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
			},
			reason: poll.TooLarge,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kubelet, socket := startKubelet(t, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
			var log sourcetest.Log
			timeout := sourcetest.Patience
			if tc.reason == poll.Timeout {
				timeout = 200 * time.Millisecond
			}
			m := newMapper(t, Config{Socket: socket, Timeout: timeout, Logger: log.Logger()})
			if err := m.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			good := m.Table()

			tc.spoil(kubelet)
			for range 3 {
				if err := m.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), socket) {
					t.Errorf("error %v does not name the socket", err)
				}
			}
			s := m.Status()
			if s.Up || s.Reason != tc.reason || s.Failures[tc.reason] != 3 || s.Refreshes != 4 || s.Err == nil {
				t.Errorf("status %+v, want reason %s three times", s, tc.reason)
			}
			if m.Table() != good {
				t.Error("the last good table is not kept")
			}
			if n := log.Lines("level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1", n)
			}
			if n := log.Lines("level=DEBUG"); n < 2 {
				t.Errorf("%d debug lines, want one for each further failure", n)
			}

			tc.mend(kubelet)
			if err := m.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !m.Status().Up || m.Status().Err != nil || !m.Status().LastSuccess.After(s.LastSuccess) {
				t.Errorf("after the repair: status %+v", m.Status())
			}
			if n := log.Lines("level=INFO"); n != 2 {
				t.Errorf("%d lines at Info, want one for up and one for up again", n)
			}
		})
	}
}

// TestNeverThere: a node without a kubelet, until there is one.
func TestNeverThere(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	var log sourcetest.Log
	m := newMapper(t, Config{Socket: socket, Interval: 5 * time.Millisecond, Logger: log.Logger()})
	run(t, m)
	sourcetest.Eventually(t, "20 refreshes", func() bool { return m.Status().Refreshes >= 20 })
	if s := m.Status(); s.Up || s.Reason != poll.NoSocket || m.Table() != nil {
		t.Errorf("status %+v", s)
	}
	if n := log.Lines("level=WARN"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	if log.Lines("--kubernetes.pod-resources-socket") == 0 {
		t.Error("the log has no hint")
	}

	kubelet := kubelettest.New(socket)
	kubelet.SetPods(kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	sourcetest.Eventually(t, "a table", func() bool { return pods(m.Table()) == "train" })
}

func TestForbidden(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may open every socket")
	}
	_, socket := startKubelet(t)
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	m := newMapper(t, Config{Socket: socket})
	if err := m.Refresh(t.Context()); err == nil || m.Status().Reason != poll.Forbidden {
		t.Errorf("error %v, status %+v", err, m.Status())
	}
}

// TestStrangers: something else than a kubelet listens.
func TestStrangers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		talk   func(net.Conn)
		reason Reason
	}{
		{"garbage", func(c net.Conn) {
			fmt.Fprint(c, strings.Repeat("HTTP/1.0 400 what?\r\n\r\n\x00\xff\xfe", 1000))
			_, _ = io.Copy(io.Discard, c)
		}, poll.Unavailable},
		{"hangs up", func(net.Conn) {}, poll.Unavailable},
		{"sends nothing", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, poll.Timeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "kubelet.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			var served sync.WaitGroup
			served.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					served.Go(func() { tc.talk(c); c.Close() })
				}
			})
			m := newMapper(t, Config{Socket: socket, Timeout: 300 * time.Millisecond})
			if err := m.Refresh(t.Context()); err == nil {
				t.Error("a refresh succeeds")
			}
			// The deadlines of the connection and of the call expire at the same time.
			if s := m.Status(); s.Up || m.Table() != nil || s.Reason != tc.reason && s.Reason != poll.Unavailable {
				t.Errorf("status %+v, want reason %s", s, tc.reason)
			}
			m.Close()
			l.Close()
			served.Wait()
		})
	}
}

// TestDropsEveryConnection: a server that completes the handshake and hangs up
// is not dialled in a tight loop.
func TestDropsEveryConnection(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var accepted sync.WaitGroup
	var mu sync.Mutex
	n := 0
	accepted.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
			// An empty SETTINGS frame is all that a grpc client waits for.
			_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
			time.Sleep(10 * time.Millisecond)
			c.Close()
		}
	})
	m := newMapper(t, Config{Socket: socket, Interval: time.Hour, MaxAge: time.Hour, Timeout: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	l.Close()
	accepted.Wait()
	// Each reconnection requests a refresh, and a refresh may dial as well.
	if limit := 4 * int(2*time.Second/idlePause); n > limit {
		t.Errorf("%d connections in 2 s, want at most %d", n, limit)
	}
}

func TestTooOld(t *testing.T) {
	kubelet, socket := startKubelet(t, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
	var log sourcetest.Log
	m := newMapper(t, Config{Socket: socket, Interval: 10 * time.Millisecond, MaxAge: 500 * time.Millisecond, Logger: log.Logger()})
	run(t, m)
	sourcetest.Eventually(t, "a table", func() bool { return m.Table() != nil })
	kubelet.SetError(status.Error(codes.Internal, "broken"))
	sourcetest.Eventually(t, "no table", func() bool { return m.Table() == nil })
	s := m.Status()
	if s.LastSuccess.IsZero() || s.Assignments != 0 {
		t.Errorf("status %+v, want the time of the expired table and no assignments", s)
	}
	sourcetest.Eventually(t, "the warning", func() bool { return log.Lines("has expired") > 0 })
	sourcetest.Eventually(t, "more refreshes", func() bool { return m.Status().Refreshes > s.Refreshes+5 })
	if n := log.Lines("has expired"); n != 1 {
		t.Errorf("%d lines about the expiry, want 1", n)
	}

	// After the expiry, fewer owners need no confirmation.
	kubelet.SetPods()
	kubelet.SetError(nil)
	sourcetest.Eventually(t, "an empty table", func() bool { return m.Table() != nil && pods(m.Table()) == "" })
}

// bigNode is a node of n pods as a kubelet with a static CPU manager lists it:
// most pods hold no GPU, and one container of each has exclusive CPUs.
func bigNode(n, containers, cpus int) []*podresources.PodResources {
	var all []*podresources.PodResources
	for i := range n {
		p := kubelettest.Pod(fmt.Sprintf("namespace-%d", i%20), fmt.Sprintf("deployment-%d-5d4c8f7b9-x%04d", i%40, i), "main", gpuResource)
		if i%8 == 0 {
			p = kubelettest.Pod(p.Namespace, p.Name, "main", "nvidia.com/gpu.shared", fmt.Sprintf("%s::%d", gpuA, i))
		}
		for c := 1; c < containers; c++ {
			side := &podresources.ContainerResources{Name: fmt.Sprintf("sidecar-%d", c)}
			for cpu := range cpus {
				side.CpuIds = append(side.CpuIds, int64(cpu))
			}
			p.Containers = append(p.Containers, side)
		}
		all = append(all, p)
	}
	return all
}

func messageSize(pods []*podresources.PodResources) int {
	return proto.Size(&podresources.ListPodResourcesResponse{PodResources: pods})
}

// TestBigNode: 500 pods whose answer is larger than grpc's default limit.
func TestBigNode(t *testing.T) {
	list := bigNode(500, 20, 512)
	_, socket := startKubelet(t, list...)
	size := messageSize(list)
	if size < 4<<20 || size > maxAnswer*2/3 {
		t.Fatalf("the answer has %d bytes: over 4 MiB and far below the limit was meant", size)
	}
	m := newMapper(t, Config{Socket: socket, Timeout: sourcetest.Patience})
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(m.Table().Assignments); n != 63 {
		t.Errorf("%d assignments, want 63", n)
	}
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    Config
		want string
	}{
		{"defaults", Config{}, ""},
		{"id type", Config{IDType: "serial"}, `unknown GPU ID type "serial"`},
		{"negative interval", Config{Interval: -1}, "must be positive"},
		{"negative timeout", Config{Timeout: -1}, "must be positive"},
		{"age below interval", Config{Interval: time.Hour}, "no less than the interval"},
		{"socket too long", Config{Socket: "/" + strings.Repeat("x", 200)}, "pod mapping: socket"},
		{"socket empty", Config{Socket: "unix://"}, "pod mapping: socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := New(tc.c)
			if err == nil {
				m.Close()
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestSocketReplaced: a kubelet that hangs keeps its connections. Once another
// one listens in its place, that one is asked.
func TestSocketReplaced(t *testing.T) {
	hung, socket := startKubelet(t, kubelettest.Pod("ml", "old", "main", gpuResource, gpuA))
	m := newMapper(t, Config{Socket: socket, Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond})
	run(t, m)
	sourcetest.Eventually(t, "the old pod", func() bool { return pods(m.Table()) == "old" })
	hung.SetDelay(time.Hour)
	sourcetest.Eventually(t, "the hang is seen", func() bool { return m.Status().Reason == poll.Timeout })
	if n := hung.Connections(); n != 1 {
		t.Errorf("%d connections to a kubelet that hangs, want 1", n)
	}

	next := kubelettest.New(socket)
	next.SetPods(kubelettest.Pod("ml", "new", "main", gpuResource, gpuA))
	if err := next.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Stop)
	sourcetest.Eventually(t, "the new pod", func() bool { return pods(m.Table()) == "new" })
	if n := next.Connections(); n != 1 {
		t.Errorf("%d connections to the new kubelet, want 1", n)
	}
}

// TestDevicePluginGone: the kubelet continues to list what its containers hold, and
// writes its checkpoint for each change of a plugin's devices. None of this is a
// change of owners.
func TestDevicePluginGone(t *testing.T) {
	root, socket := kubeletRoot(t)
	kubelet := kubelettest.New(socket)
	kubelet.SetPods(kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	m := newMapper(t, Config{Socket: socket, Interval: time.Hour, MaxAge: time.Hour})
	run(t, m)
	sourcetest.Eventually(t, "a table, and the watch", func() bool { return m.Table() != nil && m.checkpoint.Watching() })
	<-m.Changed()
	table := m.Table()
	for range 5 {
		refreshes := m.Status().Refreshes
		writeCheckpoint(t, filepath.Join(root, deviceDir, deviceCheckpoint))
		sourcetest.Eventually(t, "a refresh", func() bool { return m.Status().Refreshes > refreshes })
	}
	if m.Table() != table || len(m.Changed()) != 0 {
		t.Errorf("another table, with %q", pods(m.Table()))
	}
}

// pipes is a listener whose connections stay in this process, so that they work
// in a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// newPipedMapper runs a Mapper of a kubelet in the same bubble.
func newPipedMapper(t *testing.T, c Config, pods ...*podresources.PodResources) (*Mapper, *kubelettest.Kubelet) {
	t.Helper()
	kubelet, listener := kubelettest.New(""), newPipes()
	kubelet.SetPods(pods...)
	kubelet.StartOn(listener)
	c.Socket = "/nowhere/kubelet.sock"
	m := newMapper(t, c)
	m.Close()
	var err error
	if m.kubelet, err = newKubeletOver(listener.dial, c.Socket, DefaultTimeout); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	run(t, m)
	return m, kubelet
}

// TestHangingKubelet: a kubelet that does not answer for ten minutes costs
// nothing but the labels, and those not before they are too old.
func TestHangingKubelet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, kubelet := newPipedMapper(t, Config{}, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
		// One second off, so that no refresh begins or ends while something is
		// looked at or set.
		time.Sleep(time.Minute + time.Second)
		if !m.Status().Up || pods(m.Table()) != "train" {
			t.Fatalf("status %+v", m.Status())
		}

		kubelet.SetDelay(time.Hour)
		hung := m.Status().LastSuccess
		goroutines := 0
		for time.Since(hung) < 10*time.Minute {
			time.Sleep(DefaultTimeout + DefaultInterval)
			synctest.Wait()
			if n := runtime.NumGoroutine(); goroutines == 0 {
				goroutines = n
			} else if n > goroutines+2 { // the runtime starts some at times
				t.Fatalf("%d goroutines, where there were %d, after %s", n, goroutines, time.Since(hung))
			}
			if known := m.Table() != nil; known != (time.Since(hung) <= DefaultMaxAge) {
				t.Errorf("after %s, owners are known: %v", time.Since(hung), known)
			}
		}
		s := m.Status()
		if s.Up || s.Reason != poll.Timeout || s.Failures[poll.Timeout] < 30 || kubelet.Connections() != 1 {
			t.Errorf("%d connections, status %+v", kubelet.Connections(), s)
		}

		kubelet.SetDelay(0)
		time.Sleep(DefaultTimeout + DefaultInterval)
		if !m.Status().Up || pods(m.Table()) != "train" {
			t.Errorf("after it, status %+v", m.Status())
		}
	})
}
