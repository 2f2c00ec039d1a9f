// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpu_exporter/podmapper/internal/unixsocket"
	"gpu_exporter/podmapper/kubelettest"
)

// TestLooksAreBounded checks that however often the kubelet writes, List is not
// called more often than every 100 ms, and that the last call follows the last write
// by lastLook.
func TestLooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, kubelet := newPipedMapper(t, Config{Interval: time.Hour, MaxAge: time.Hour})
		time.Sleep(time.Second)
		calls := kubelet.Calls()
		for range 3333 { // 10 s
			m.checkpointWritten()
			time.Sleep(3 * time.Millisecond)
		}
		if n := kubelet.Calls() - calls; n < 90 || n > 101 {
			t.Errorf("%d calls in 10 s, want one every 100 ms", n)
		}
		time.Sleep(time.Minute)
		if late := m.Status().LastSuccess.Sub(*m.written.Load()); late < lastLook || late > lastLook+200*time.Millisecond {
			t.Errorf("the last refresh began %s after the last write, want %s", late, lastLook)
		}
		calls = kubelet.Calls()
		time.Sleep(time.Minute)
		if kubelet.Calls() != calls {
			t.Error("refreshes continue")
		}
	})
}

// kubeletRoot creates the directories of a kubelet.
func kubeletRoot(t *testing.T) (root, socket string) {
	t.Helper()
	root = t.TempDir()
	for _, dir := range []string{"pod-resources", deviceDir} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	return root, filepath.Join(root, "pod-resources", "kubelet.sock")
}

func writeCheckpoint(t *testing.T, path string) {
	t.Helper()
	if err := kubelettest.WriteCheckpoint(path); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointRefreshes checks that a checkpoint makes a new pod known, long before
// the next regular refresh.
func TestCheckpointRefreshes(t *testing.T) {
	root, socket := kubeletRoot(t)
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	writeCheckpoint(t, filepath.Join(root, claimCheckpoint))
	m := newMapper(t, Config{Socket: socket, DRA: true, Interval: time.Hour, MaxAge: time.Hour})
	run(t, m)
	eventually(t, "a table, and the watch", func() bool { return m.Table() != nil && m.Status().Watching })

	for _, tc := range []struct{ pod, file string }{
		{"a", filepath.Join(root, deviceDir, deviceCheckpoint)},
		{"b", filepath.Join(root, claimCheckpoint)},
		{"c", filepath.Join(root, deviceDir, deviceCheckpoint)},
	} {
		before := time.Now()
		kubelet.SetPods(kubelettest.Pod("ml", tc.pod, "main", gpuResource, gpuA))
		writeCheckpoint(t, tc.file)
		eventually(t, "pod "+tc.pod, func() bool { return pods(m.Table()) == tc.pod })
		if at := m.Table().Time; at.Before(before) || at.After(time.Now()) {
			t.Errorf("pod %s is known from %s on, before it came at %s", tc.pod, at, before)
		}
	}

	// A kubelet that lists the pod late. The owner counts from the checkpoint on.
	kubelet.SetPodsLater(2, kubelettest.Pod("ml", "late", "main", gpuResource, gpuA))
	writeCheckpoint(t, filepath.Join(root, deviceDir, deviceCheckpoint))
	eventually(t, "the late pod", func() bool { return pods(m.Table()) == "late" })
	if at, written := m.Table().Time, *m.written.Load(); at != written {
		t.Errorf("the late pod is known from %s on, want the checkpoint's time, %s", at, written)
	}

	// Other files of the kubelet are ignored.
	eventually(t, "all looks", func() bool { return m.Status().LastSuccess.Sub(*m.written.Load()) >= lastLook })
	written := m.written.Load()
	for _, other := range []string{
		filepath.Join(root, "cpu_manager_state"), filepath.Join(root, deviceDir, "nvidia-gpu.sock"),
	} {
		writeCheckpoint(t, other)
	}
	writeCheckpoint(t, filepath.Join(root, deviceDir, deviceCheckpoint)) // comes after them
	eventually(t, "another write", func() bool { return m.written.Load() != written })
	table := m.Table()
	refreshes := m.Status().Refreshes
	eventually(t, "another refresh", func() bool { return m.Status().Refreshes > refreshes })
	if m.Table() != table {
		t.Error("a checkpoint without a change results in a new table")
	}
}

// TestInvisibleCheckpoint checks that changes of claims do not count as watched where the
// kubelet's root directory exists and is not the kubelet's, as in a container that has only
// the directories below.
func TestInvisibleCheckpoint(t *testing.T) {
	root, socket := kubeletRoot(t)
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	for _, dra := range []bool{true, false} {
		m := newMapper(t, Config{Socket: socket, DRA: dra, Interval: 10 * time.Millisecond})
		run(t, m)
		eventually(t, "the watch", func() bool { return m.Table() != nil && m.checkpoint.Watching() && m.Status().Refreshes > 2 })
		if m.Status().Watching == dra {
			t.Errorf("DRA %v: watching %v", dra, !dra)
		}
		if dra {
			writeCheckpoint(t, filepath.Join(root, claimCheckpoint))
			eventually(t, "the checkpoint of claims", func() bool { return m.Status().Watching })
		}
	}
}

// TestDefaultCheckpointDir checks the paths, which are relative to the socket's.
func TestDefaultCheckpointDir(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want string
	}{
		{Config{}, "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"},
		{Config{DRA: true}, "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint /var/lib/kubelet/dra_manager_state"},
		{Config{Socket: "unix:///k/pod-resources/kubelet.sock"}, "/k/device-plugins/kubelet_internal_checkpoint"},
		{Config{CheckpointDir: "/elsewhere/d/", DRA: true}, "/elsewhere/d/kubelet_internal_checkpoint /elsewhere/dra_manager_state"},
	} {
		socket, err := unixsocket.Path(cmp.Or(tc.c.Socket, DefaultSocket))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for dir, file := range tc.c.checkpointFiles(socket) {
			got = append(got, filepath.Join(dir, file))
		}
		if len(got) == 2 && strings.HasSuffix(got[0], claimCheckpoint) {
			got[0], got[1] = got[1], got[0]
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%+v watches %q, want %q", tc.c, got, tc.want)
		}
	}
}
