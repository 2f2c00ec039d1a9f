// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gpu_exporter/podmapper/internal/sourcetest"
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
	sourcetest.Eventually(t, "a table, and the watch", func() bool { return m.Table() != nil && m.checkpoint.Watching() })

	for _, tc := range []struct{ pod, file string }{
		{"a", filepath.Join(root, deviceDir, deviceCheckpoint)},
		{"b", filepath.Join(root, claimCheckpoint)},
		{"c", filepath.Join(root, deviceDir, deviceCheckpoint)},
	} {
		before := time.Now()
		kubelet.SetPods(kubelettest.Pod("ml", tc.pod, "main", gpuResource, gpuA))
		writeCheckpoint(t, tc.file)
		sourcetest.Eventually(t, "pod "+tc.pod, func() bool { return pods(m.Table()) == tc.pod })
		if at := m.Table().Time; at.Before(before) || at.After(time.Now()) {
			t.Errorf("pod %s is known from %s on, before it came at %s", tc.pod, at, before)
		}
	}

	// A kubelet that lists the pod late. The owner counts from the checkpoint on.
	kubelet.SetPodsLater(2, kubelettest.Pod("ml", "late", "main", gpuResource, gpuA))
	writeCheckpoint(t, filepath.Join(root, deviceDir, deviceCheckpoint))
	sourcetest.Eventually(t, "the late pod", func() bool { return pods(m.Table()) == "late" })
	if at, written := m.Table().Time, *m.written.Load(); at != written {
		t.Errorf("the late pod is known from %s on, want the checkpoint's time, %s", at, written)
	}

	// Other files of the kubelet are ignored.
	sourcetest.Eventually(t, "all looks", func() bool { return m.Status().LastSuccess.Sub(*m.written.Load()) >= lastLook })
	written := m.written.Load()
	for _, other := range []string{
		filepath.Join(root, "cpu_manager_state"), filepath.Join(root, deviceDir, "nvidia-gpu.sock"),
	} {
		writeCheckpoint(t, other)
	}
	writeCheckpoint(t, filepath.Join(root, deviceDir, deviceCheckpoint)) // comes after them
	sourcetest.Eventually(t, "another write", func() bool { return m.written.Load() != written })
	table := m.Table()
	refreshes := m.Status().Refreshes
	sourcetest.Eventually(t, "another refresh", func() bool { return m.Status().Refreshes > refreshes })
	if m.Table() != table {
		t.Error("a checkpoint without a change results in a new table")
	}
}

// TestCheckpointFiles checks the paths, which are relative to the socket's.
func TestCheckpointFiles(t *testing.T) {
	for _, tc := range []struct {
		socket string
		claims bool
		want   map[string]string
	}{
		{DefaultSocket, false, map[string]string{"/var/lib/kubelet/device-plugins": "kubelet_internal_checkpoint"}},
		{DefaultSocket, true, map[string]string{"/var/lib/kubelet/device-plugins": "kubelet_internal_checkpoint", "/var/lib/kubelet": "dra_manager_state"}},
		{"/k/pod-resources/kubelet.sock", false, map[string]string{"/k/device-plugins": "kubelet_internal_checkpoint"}},
	} {
		if got := checkpointFiles(tc.socket, tc.claims); !maps.Equal(got, tc.want) {
			t.Errorf("%s, claims %v: %v, want %v", tc.socket, tc.claims, got, tc.want)
		}
	}
}
