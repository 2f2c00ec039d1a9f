// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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

// kubeletRoot makes the directories of a kubelet.
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

// TestCheckpointRefreshes: a new pod is known as soon as the kubelet has written
// it down, however far the next refresh is.
func TestCheckpointRefreshes(t *testing.T) {
	root, socket := kubeletRoot(t)
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
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

	// A kubelet that lists the pod only after it has written the checkpoint. It is
	// known from the checkpoint on all the same.
	kubelet.SetPodsLater(2, kubelettest.Pod("ml", "late", "main", gpuResource, gpuA))
	writeCheckpoint(t, filepath.Join(root, deviceDir, deviceCheckpoint))
	eventually(t, "the late pod", func() bool { return pods(m.Table()) == "late" })
	if at, written := m.Table().Time, *m.written.Load(); at != written {
		t.Errorf("the late pod is known from %s on, want the checkpoint's time, %s", at, written)
	}

	// What else the kubelet writes does not matter.
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
		t.Error("a checkpoint without a change gives another table")
	}
}

func TestOtherFilesAreIgnored(t *testing.T) {
	dir := t.TempDir()
	noticed := make(chan struct{}, 100)
	c := newCheckpoint(map[string]string{dir: deviceCheckpoint}, func() { noticed <- struct{}{} }, logTo(&syncBuffer{}))
	t.Cleanup(c.close)
	c.watch()
	for _, name := range []string{"other", "kubelet.sock", deviceCheckpoint + "~"} {
		writeCheckpoint(t, filepath.Join(dir, name))
	}
	writeCheckpoint(t, filepath.Join(dir, deviceCheckpoint))
	<-noticed
	c.close() // nothing comes after that
	if n := len(noticed); n != 0 {
		t.Errorf("%d writes too many were noticed", n)
	}
}

// TestCheckpointDirectory: absent it is mentioned once, for those who debug; it is
// noticed when it comes, and when another one takes its place.
func TestCheckpointDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), deviceDir)
	noticed := make(chan struct{}, 100)
	var log syncBuffer
	c := newCheckpoint(map[string]string{dir: deviceCheckpoint}, func() { noticed <- struct{}{} }, logTo(&log))
	t.Cleanup(c.close)
	for range 3 {
		c.watch()
	}
	if c.watching() || log.count("cannot be watched") != 1 || log.count("level=DEBUG") != 1 {
		t.Errorf("watching %v; logged:\n%s", c.watching(), log.b.String())
	}
	for _, come := range []func() error{
		func() error { return os.Mkdir(dir, 0o750) },
		func() error { return os.RemoveAll(dir) },
		func() error { return os.Mkdir(dir, 0o750) },
		func() error { return os.Rename(dir, dir+".old") },
		func() error { return os.Mkdir(dir, 0o750) },
	} {
		if err := come(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(dir)
		eventually(t, "the watch follows", func() bool { c.watch(); return c.watching() == (err == nil) })
		if err != nil {
			continue
		}
		// A directory of that name was told from the one before.
		for len(noticed) > 0 {
			<-noticed
		}
		writeCheckpoint(t, filepath.Join(dir, deviceCheckpoint))
		<-noticed
	}
}

// TestNoInotify: where the limits are exhausted, the poll must do, and one line
// says which limits.
func TestNoInotify(t *testing.T) {
	dir := t.TempDir()
	var log syncBuffer
	noticed := make(chan struct{}, 1)
	c := newCheckpoint(map[string]string{dir: deviceCheckpoint}, func() { noticed <- struct{}{} }, logTo(&log))
	t.Cleanup(c.close)

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // nothing more can be opened; what is open stays
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.watch()
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if c.watching() || log.count("level=WARN") != 1 || log.count("max_user_instances") != 1 {
		t.Errorf("watching %v; logged:\n%s", c.watching(), log.b.String())
	}

	c.watch()
	writeCheckpoint(t, filepath.Join(dir, deviceCheckpoint))
	<-noticed
}

// TestDefaultCheckpointDir: beside the socket's directory, as the kubelet has it.
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
		m := newMapper(t, tc.c)
		var got []string
		for dir, file := range m.checkpoint.files {
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
