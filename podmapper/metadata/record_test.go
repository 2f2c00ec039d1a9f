// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpu_exporter/podmapper/internal/poll"
)

func all(string) bool { return true }

func yes() *bool { b := true; return &b }

// running returns the status of a running container.
func running(name, id string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, ContainerID: id, Image: "example.com/image", Ready: true}
}

// reader returns a Store that is not run.
func reader(t testing.TB, want Want) *Store {
	t.Helper()
	s, err := New(Config{Want: want, Source: SourcePodsAPI})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecode(t *testing.T) {
	long := strings.Repeat("x", maxValueBytes+1)
	for _, tc := range []struct {
		name string
		pod  corev1.Pod
		want record
	}{
		{
			name: "labels and annotations by key, containers by ID",
			pod: corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "ml", Name: "train-0", UID: "u-1", ResourceVersion: "42", GenerateName: "train-",
					Labels:        map[string]string{"team": "vision", "app": "train", "empty": "", "secret": "x"},
					Annotations:   map[string]string{"owner": "ana", "manifest": long, "secret": "y"},
					Finalizers:    []string{"example.com/f"},
					ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
				},
				Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main"}}},
				Status: corev1.PodStatus{
					InitContainerStatuses:      []corev1.ContainerStatus{running("init", "containerd://1a")},
					ContainerStatuses:          []corev1.ContainerStatus{running("main", "cri-o://3c"), running("waits", ""), running("old", "4d")},
					EphemeralContainerStatuses: []corev1.ContainerStatus{running("debug", "docker://2b")},
				},
			},
			want: record{
				pod: &Pod{
					Namespace: "ml", Name: "train-0", UID: "u-1", CgroupUID: "u-1",
					Labels:      []KeyValue{{"app", "train"}, {"empty", ""}, {"team", "vision"}},
					Annotations: []KeyValue{{"owner", "ana"}},
					Containers:  []Container{{"1a", "init"}, {"2b", "debug"}, {"3c", "main"}, {"4d", "old"}},
				},
			},
		},
		{
			name: "the controller among several owners",
			pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "ml", Name: "web-7d4b9c-x", UID: "u-2",
				Labels: map[string]string{labelTemplateHash: "7d4b9c"},
				OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "ConfigMap", Name: "c", UID: "u-c"},
					{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7d4b9c", UID: "u-r", Controller: yes(), BlockOwnerDeletion: yes()},
					{APIVersion: "v1", Kind: "Secret", Name: "s", UID: "u-s"},
				},
			}},
			want: record{
				pod: &Pod{
					Namespace: "ml", Name: "web-7d4b9c-x", UID: "u-2", CgroupUID: "u-2", Labels: []KeyValue{{labelTemplateHash, "7d4b9c"}},
					Workload: Workload{"Deployment", "web"},
				},
				controller:   owner{"apps/v1", "ReplicaSet", "web-7d4b9c", "u-r"},
				templateHash: "7d4b9c",
			},
		},
		{
			name: "a mirror pod has the cgroup of its static pod",
			pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "kube-system", Name: "monitor-n", UID: "u-3",
				Annotations: map[string]string{annotationMirror: "0123abcd", "kubernetes.io/config.hash": "0123abcd", "owner": "bob"},
			}},
			want: record{pod: &Pod{
				Namespace: "kube-system", Name: "monitor-n", UID: "u-3", CgroupUID: "0123abcd", Annotations: []KeyValue{{"owner", "bob"}},
			}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := reader(t, Want{
				Labels:      func(key string) bool { return key != "secret" },
				Annotations: func(key string) bool { return key == "owner" || key == "manifest" },
				Workload:    true,
			})
			got, err := s.decode(marshal(t, &tc.pod))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got  %+v of %+v\nwant %+v of %+v", got, *got.pod, tc.want, *tc.want.pod)
			}

			// The metadata alone gives the same record, without the containers.
			got, err = s.newRecord(&metav1.PartialObjectMetadata{ObjectMeta: tc.pod.ObjectMeta})
			tc.want.pod.Containers = nil
			if err != nil || !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("from the metadata: got %+v, error %v", got.pod, err)
			}
		})
	}
}

func TestDecodeKeepsOnlyWhatIsRequested(t *testing.T) {
	got, err := reader(t, Want{}).decode(marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"b": "c"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "u-j", Controller: yes()}},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if got.pod.Labels != nil || got.pod.Annotations != nil || got.pod.Workload != (Workload{}) {
		t.Errorf("kept %+v", got.pod)
	}
}

// The labels and annotations of a pod are bounded together. The cut is counted and logged
// once.
func TestDecodeBounds(t *testing.T) {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{}, Annotations: map[string]string{}}}
	for i := range 256 {
		pod.Labels[fmt.Sprintf("key-%03d", i)] = strings.Repeat("v", i)
		pod.Annotations[fmt.Sprintf("key-%03d", i)] = strings.Repeat("v", 1000)
	}
	s := reader(t, Want{Labels: all, Annotations: all})
	var log bytes.Buffer
	s.once.log = slog.New(slog.NewTextHandler(&log, nil))
	for n := range uint64(3) {
		got, err := s.decode(marshal(t, &pod))
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, kv := range slices.Concat(got.pod.Labels, got.pod.Annotations) {
			size += len(kv.Key) + len(kv.Value)
		}
		if pairs := len(got.pod.Labels) + len(got.pod.Annotations); pairs != maxPairs || size > maxPairBytes || got.pod.Labels[0].Key != "key-000" {
			t.Errorf("%d pairs of %d bytes", pairs, size)
		}
		if counted := s.podsAPI.Status().Failures[poll.TooLarge]; counted != n+1 || strings.Count(log.String(), "omitted=448") != 1 {
			t.Errorf("counted %d times, logged %s", counted, log.String())
		}
	}
	for _, change := range []func(){func() { pod.Labels, pod.Annotations, pod.Name = nil, nil, strings.Repeat("x", 1<<20) }, func() { pod.Name, pod.UID = "a", types.UID(strings.Repeat("x", 300)) }} {
		change()
		if _, err := s.decode(marshal(t, &pod)); poll.ReasonOf(err) != poll.Malformed {
			t.Errorf("a long name: %v", err)
		}
	}
}

func TestDecodeMalformedPods(t *testing.T) {
	good := marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{"k": "v"}}})
	for name, b := range map[string][]byte{
		"empty":        {},
		"truncated":    good[:len(good)-1],
		"no UID":       marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "a"}}),
		"no name":      marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", UID: "u"}}),
		"not UTF-8":    bytes.Replace(good, []byte("v"), []byte("\xff"), 1),
		"not protobuf": []byte("HTTP/1.1 400 Bad Request"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := reader(t, Want{Labels: all, Annotations: all}).decode(b); err == nil || poll.ReasonOf(err) != poll.Malformed {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A record of any bytes is complete, bounded and UTF-8.
func FuzzDecode(f *testing.F) {
	f.Add(marshal(f, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{"k": "v"}, Annotations: map[string]string{annotationMirror: "m"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: "j", UID: "uj", APIVersion: "batch/v1", Controller: yes()}},
		},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running("main", "containerd://1a")}},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := reader(t, Want{Labels: all, Annotations: all, Workload: true}).decode(b)
		if err != nil {
			if poll.ReasonOf(err) != poll.Malformed {
				t.Errorf("the reason of %v is %q", err, poll.ReasonOf(err))
			}
			return
		}
		p := r.pod
		if p.Namespace == "" || p.Name == "" || p.UID == "" || p.CgroupUID == "" || len(p.Labels) > maxPairs || len(p.Annotations) > maxPairs {
			t.Errorf("an incomplete record: %+v", p)
		}
		for _, kv := range p.Labels {
			if !utf8.ValidString(kv.Key+kv.Value) || len(kv.Value) > maxValueBytes {
				t.Errorf("the label %q is %q", kv.Key, kv.Value)
			}
		}
		for _, text := range []string{p.Namespace, p.Name, p.UID, p.CgroupUID, p.Workload.Kind, p.Workload.Name} {
			if !utf8.ValidString(text) {
				t.Errorf("%q is not UTF-8", text)
			}
		}
		for _, c := range p.Containers {
			if !utf8.ValidString(c.ID + c.Name) {
				t.Errorf("the container %q has the ID %q", c.Name, c.ID)
			}
		}
	})
}

// A podSet keeps the order of changes, and pods that have just ended.
func TestPodSet(t *testing.T) {
	start := time.Now()
	set := newPodSet()
	of := func(name, uid, label string) *record {
		return &record{pod: &Pod{Namespace: "ml", Name: name, UID: uid, CgroupUID: uid, Labels: []KeyValue{{"k", label}}}}
	}
	uids := func(now time.Time) (all string) {
		for _, r := range set.table(now).records {
			all += r.pod.UID
			if !r.ended.IsZero() {
				all += "(ended)"
			}
			all += " "
		}
		return strings.TrimSpace(all)
	}
	set.replace(slices.Values([]*record{of("b", "2", "x"), of("a", "1", "x")}), start)
	if got := uids(start); got != "1 2" {
		t.Errorf("the first pods are %s", got)
	}
	first := set.records["1"]
	set.put(of("a", "1", "x"))
	if set.records["1"] != first {
		t.Error("an equal record is a change")
	}
	set.put(of("a", "1", "y"))
	if now := set.records["1"]; now == first || !first.olderThan(now) || first.pod.Labels[0].Value != "x" {
		t.Errorf("a changed label gives %+v", now)
	}
	set.put(of("a", "3", "x"))
	set.end("1", start)
	set.end("9", start)
	if old, now := set.records["1"], set.records["3"]; !old.olderThan(now) || now.olderThan(old) {
		t.Error("a pod that has ended is newer than a pod that exists")
	}
	set.replace(slices.Values([]*record{of("a", "3", "x")}), start.Add(time.Second))
	if got := uids(start.Add(linger - time.Second)); got != "1(ended) 3 2(ended)" {
		t.Errorf("within a minute: %s", got)
	}
	if got := uids(start.Add(linger)); got != "3 2(ended)" {
		t.Errorf("after a minute: %s", got)
	}
}

// A kubelet that starts without the API server lists static pods only. The other pods run,
// so they have not ended.
func TestPodSetWithoutAPIServer(t *testing.T) {
	start := time.Now()
	of := func(uid string, static bool) *record {
		return &record{pod: &Pod{Namespace: "ml", Name: uid, UID: uid, CgroupUID: uid}, static: static}
	}
	set := newPodSet()
	for _, step := range []struct {
		after  time.Duration
		listed []*record
		ended  string
	}{
		{0, []*record{of("train", false), of("proxy", true), of("old", true)}, ""},
		{time.Second, []*record{of("proxy", true)}, "old"},
		{time.Minute, nil, "old proxy"},
		{2 * time.Minute, []*record{of("new", false)}, "old proxy train"},
	} {
		set.replaceListed(step.listed, start.Add(step.after))
		var ended []string
		for uid, r := range set.records {
			if !r.ended.IsZero() {
				ended = append(ended, uid)
			}
		}
		slices.Sort(ended)
		if got := strings.Join(ended, " "); got != step.ended {
			t.Errorf("after %s: ended are %q, want %q", step.after, got, step.ended)
		}
	}
	set.replaceListed(nil, start.Add(time.Hour))
	set.replaceListed(nil, start.Add(3*time.Hour))
	if set.records["new"].ended.IsZero() {
		t.Error("a pod remains for ever")
	}
}
