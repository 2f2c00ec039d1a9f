// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
)

func TestParseLogNames(t *testing.T) {
	for entry, want := range map[string]string{
		"ml_train-0_3a1e0f2e-8f0f-4a0e-9f43-2f8c8d0d7a11":                       "3a1e0f2e-8f0f-4a0e-9f43-2f8c8d0d7a11 ml train-0",
		"kube-system_kube-proxy-n.example.com_0123456789abcdef0123456789abcdef": "0123456789abcdef0123456789abcdef kube-system kube-proxy-n.example.com",
		"3a1e0f2e-8f0f-4a0e-9f43-2f8c8d0d7a11":                                  "", // before Kubernetes 1.14
		"ml_train-0_":                                                           "",
		"_train-0_u":                                                            "",
		"ml__u":                                                                 "",
		"a_b_c_d":                                                               "",
		"":                                                                      "",
	} {
		got := ""
		if uid, name, ok := parseLogDirectory(entry); ok {
			got = strings.Join([]string{uid, name.namespace, name.name}, " ")
		}
		if got != want {
			t.Errorf("directory %q: %q, want %q", entry, got, want)
		}
	}
	for entry, want := range map[string]string{
		"train-0_ml_main-" + id('a') + ".log":                  id('a') + " ml train-0 main",
		"a.b_ml_main-1-" + id('0') + ".log":                    id('0') + " ml a.b main-1",
		"train-0_ml_main-" + id('a'):                           "",
		"train-0_ml_main-" + id('a')[1:] + ".log":              "", // cut at 255 bytes
		"train-0_ml_main-" + id('g') + ".log":                  "",
		"train-0_ml_" + id('a') + ".log":                       "",
		"train-0_ml_-" + id('a') + ".log":                      "",
		"train-0_ml" + id('a') + ".log":                        "",
		"train-0_ml_main" + id('a') + ".log":                   "",
		".log":                                                 "",
		"_ml_main-" + id('a') + ".log":                         "",
		"train-0_ml_main-" + strings.ToUpper(id('a')) + ".log": "",
	} {
		got := ""
		if id, c, ok := parseLogSymlink(entry); ok {
			got = strings.Join([]string{id, c.pod.namespace, c.pod.name, c.name}, " ")
		}
		if got != want {
			t.Errorf("symlink %q: %q, want %q", entry, got, want)
		}
	}
}

func FuzzParseLogNames(f *testing.F) {
	f.Add("ml_train-0_3a1e0f2e-8f0f-4a0e-9f43-2f8c8d0d7a11")
	f.Add("train-0_ml_main-" + id('a') + ".log")
	f.Fuzz(func(t *testing.T, entry string) {
		if uid, name, ok := parseLogDirectory(entry); ok {
			if again := name.namespace + "_" + name.name + "_" + uid; again != entry {
				t.Errorf("%q became %q", entry, again)
			}
		}
		if id, c, ok := parseLogSymlink(entry); ok {
			if again := c.pod.name + "_" + c.pod.namespace + "_" + c.name + "-" + id + ".log"; again != entry {
				t.Errorf("%q became %q", entry, again)
			}
		}
	})
}

// indexOf returns the table of records and directories.
func indexOf(records []*record, pods map[string]podName, containers map[string]logContainer) *Pods {
	return newPods(SourceAPIServer, records, newLogNames(pods, containers))
}

// The directories complete the pods of the API server, unless they are ambiguous.
func TestLogsComplete(t *testing.T) {
	web := podName{"ml", "web-0"}
	a, b := id('a'), id('b')
	for _, tc := range []struct {
		name       string
		records    []*record
		pods       map[string]podName
		containers map[string]logContainer
		want       []string
		named      string // CgroupUID of the pod of the name
		container  string // UID of the pod of container a
	}{
		{
			name: "identities alone",
			pods: map[string]podName{"u-1": web}, containers: map[string]logContainer{a: {web, "main"}, b: {web, "side"}},
			want: []string{"ml/web-0 u-1 main@aa side@bb"}, named: "u-1", container: "u-1",
		},
		{
			name:    "containers of a known pod",
			records: []*record{{pod: &Pod{Namespace: "ml", Name: "web-0", UID: "u-1", CgroupUID: "u-1", Labels: []KeyValue{{"k", "v"}}}}},
			pods:    map[string]podName{"u-1": web}, containers: map[string]logContainer{a: {web, "main"}},
			want: []string{"ml/web-0 u-1 k=v main@aa"}, named: "u-1", container: "u-1",
		},
		{
			name:    "a static pod, by its own UID",
			records: []*record{{pod: &Pod{Namespace: "ml", Name: "web-0", UID: "u-mirror", CgroupUID: "u-1"}}},
			pods:    map[string]podName{"u-1": web}, containers: map[string]logContainer{a: {web, "main"}},
			want: []string{"ml/web-0 u-mirror cgroup=u-1 main@aa"}, named: "u-1", container: "u-mirror",
		},
		{
			name: "two pods of the name: the pod of the container is ambiguous",
			pods: map[string]podName{"u-1": web, "u-2": web}, containers: map[string]logContainer{a: {web, "main"}},
			want: []string{"ml/web-0  main@aa", "ml/web-0 u-1", "ml/web-0 u-2"}, named: "", container: "",
		},
		{
			name:    "two pods of the name, of which the source knows one",
			records: []*record{{pod: &Pod{Namespace: "ml", Name: "web-0", UID: "u-2", CgroupUID: "u-2"}}},
			pods:    map[string]podName{"u-1": web, "u-2": web}, containers: map[string]logContainer{a: {web, "main"}},
			want: []string{"ml/web-0  main@aa", "ml/web-0 u-1", "ml/web-0 u-2"}, named: "u-2", container: "",
		},
		{
			name: "containers without directories of pods",
			pods: nil, containers: map[string]logContainer{a: {web, "main"}},
			want: []string{"ml/web-0  main@aa"}, named: "", container: "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := indexOf(tc.records, tc.pods, tc.containers)
			if got := describe(p); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			named := p.ByName("ml", "web-0")
			if named == nil {
				named = &Pod{}
			}
			if named.CgroupUID != tc.named {
				t.Errorf("by name: %+v, want %q", named, tc.named)
			}
			of, name := p.ByContainerID(a)
			if of == nil || of.UID != tc.container || of.Name != "web-0" || name != "main" {
				t.Errorf("by container: %+v, %q, want %q", of, name, tc.container)
			}
		})
	}
}

// A pod that pretends to mirror another pod does not replace it.
func TestFakeMirrorPod(t *testing.T) {
	real1 := &record{pod: &Pod{Namespace: "ml", Name: "train", UID: "u-1", CgroupUID: "u-1"}}
	fake := &record{pod: &Pod{Namespace: "evil", Name: "fake", UID: "u-2", CgroupUID: "u-1"}}
	for _, records := range [][]*record{{real1, fake}, {fake, real1}} {
		if p := newPods(SourceAPIServer, records, nil).ByCgroupUID("u-1"); p.Name != "train" {
			t.Errorf("the pod is %q", p.Name)
		}
	}
}

func TestLogDirs(t *testing.T) {
	dir := t.TempDir()
	pods, containers := filepath.Join(dir, "pods"), filepath.Join(dir, "containers")
	d := logDirs{pods: pods, containers: containers}
	read := func() *logNames {
		t.Helper()
		names, err := d.read()
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	reason := func() Reason {
		_, err := d.read()
		if err == nil {
			return ""
		}
		return poll.ReasonOf(err)
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	if r := reason(); r != reasonNoDirectory {
		t.Errorf("without directories: %q", r)
	}
	do(os.Mkdir(pods, 0o755))
	if got := read(); len(got.pods) != 0 {
		t.Errorf("an empty directory: %v", got)
	}
	do(os.Mkdir(filepath.Join(pods, "ml_a_u-1"), 0o755))
	got := read()
	if got.pods["u-1"] != (podName{"ml", "a"}) {
		t.Errorf("with a pod: %v", got)
	}
	if read() != got {
		t.Error("without a change there are new names")
	}
	do(os.Mkdir(containers, 0o755))
	do(os.WriteFile(filepath.Join(containers, "a_ml_main-"+id('a')+".log"), nil, 0o644))
	if c := read().containers[id('a')]; c != (logContainer{podName{"ml", "a"}, "main"}) {
		t.Errorf("with a container: %+v", c)
	}
	do(os.RemoveAll(pods))
	if got := read(); len(got.pods) != 0 || len(got.containers) != 1 {
		t.Errorf("without the directory of pods: %+v", got)
	}
	do(os.RemoveAll(containers))
	if r := reason(); r != reasonNoDirectory {
		t.Errorf("without any directory: %q", r)
	}
	do(os.WriteFile(pods, nil, 0o644))
	if r := reason(); r == reasonNoDirectory || r == poll.Forbidden || r == "" {
		t.Errorf("a file: %q", r)
	}
}

// TestMissingLogDirectories checks that a container without the log directories, as is usual,
// does not fail: no warning, and no source in use that is down.
func TestMissingLogDirectories(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var log bytes.Buffer
	handler := slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil)
	s, err := New(Config{LogDir: filepath.Join(dir, "pods"), ContainerLogDir: filepath.Join(dir, "containers"), PodsSocket: filepath.Join(dir, "none"), Logger: slog.New(handler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	sourcetest.Eventually(t, "the reading", func() bool { return s.Status()[SourceLogDir].Reason == reasonNoDirectory })
	for source, status := range s.Status() {
		if status.InUse {
			t.Errorf("%s is in use: %+v", source, status)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("a warning: %s", log.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
