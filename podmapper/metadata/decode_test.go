// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bufio"
	"bytes"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func all(string) bool { return true }

func yes() *bool { b := true; return &b }

// running gives the status of a running container.
func running(name, id string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, ContainerID: id, Image: "example.com/image", Ready: true}
}

func TestDecodePod(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	for _, tc := range []struct {
		name string
		pod  corev1.Pod
		want object
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
					ContainerStatuses:          []corev1.ContainerStatus{running("main", "cri-o://3c"), running("waits", "")},
					EphemeralContainerStatuses: []corev1.ContainerStatus{running("debug", "docker://2b")},
				},
			},
			want: object{
				pod: &Pod{
					Namespace: "ml", Name: "train-0", UID: "u-1", CgroupUID: "u-1",
					Labels:      []KeyValue{{"app", "train"}, {"empty", ""}, {"team", "vision"}},
					Annotations: []KeyValue{{"owner", "ana"}},
					Containers:  []Container{{"1a", "init"}, {"2b", "debug"}, {"3c", "main"}},
				},
				resourceVersion: "42",
			},
		},
		{
			name: "the controller, not another owner",
			pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "ml", Name: "web-7d4b9c-x", UID: "u-2",
				Labels: map[string]string{labelTemplateHash: "7d4b9c"},
				OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "ConfigMap", Name: "c", UID: "u-c"},
					{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7d4b9c", UID: "u-r", Controller: yes(), BlockOwnerDeletion: yes()},
					{APIVersion: "v1", Kind: "Secret", Name: "s", UID: "u-s"},
				},
			}},
			want: object{
				pod:          &Pod{Namespace: "ml", Name: "web-7d4b9c-x", UID: "u-2", CgroupUID: "u-2", Labels: []KeyValue{{labelTemplateHash, "7d4b9c"}}},
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
			want: object{pod: &Pod{
				Namespace: "kube-system", Name: "monitor-n", UID: "u-3", CgroupUID: "0123abcd", Annotations: []KeyValue{{"owner", "bob"}},
			}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDecoder(
				func(key string) bool { return key != "secret" },
				func(key string) bool { return key == "owner" || key == "manifest" },
				slog.New(slog.DiscardHandler))
			got, err := d.pod(marshal(t, &tc.pod))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v of %+v\nwant %+v of %+v", got, *got.pod, tc.want, *tc.want.pod)
			}

			// The metadata alone says the same, but for the containers.
			partial := metav1.PartialObjectMetadata{ObjectMeta: tc.pod.ObjectMeta}
			got, err = d.pod(marshal(t, &partial))
			tc.want.pod.Containers = nil
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("of its metadata: got %+v, error %v", got.pod, err)
			}
		})
	}
}

func TestDecodeKeepsNothingUnasked(t *testing.T) {
	d := newDecoder(nil, nil, slog.New(slog.DiscardHandler))
	got, err := d.pod(marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"b": "c"},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if got.pod.Labels != nil || got.pod.Annotations != nil {
		t.Errorf("kept %v and %v", got.pod.Labels, got.pod.Annotations)
	}
}

// A pod may have any number of labels; a metric may not.
func TestDecodeBounds(t *testing.T) {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{}}}
	for i := range 4 * maxPairs {
		pod.Labels["key-"+strings.Repeat("x", i)] = "v"
	}
	got, err := newDecoder(all, nil, slog.New(slog.DiscardHandler)).pod(marshal(t, &pod))
	if err != nil || len(got.pod.Labels) != maxPairs || got.pod.Labels[0].Key != "key-" {
		t.Errorf("%d labels, error %v", len(got.pod.Labels), err)
	}
}

func TestDecodeBadPods(t *testing.T) {
	good := marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{"k": "v"}}})
	for name, b := range map[string][]byte{
		"empty":              {},
		"cut":                good[:len(good)-1],
		"no UID":             marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "a"}}),
		"no name":            marshal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", UID: "u"}}),
		"not UTF-8":          bytes.Replace(good, []byte("v"), []byte("\xff"), 1),
		"no protobuf at all": []byte("HTTP/1.1 400 Bad Request"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newDecoder(all, all, slog.New(slog.DiscardHandler)).pod(b); reasonOf(err) != ReasonMalformed {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The decoder takes any text, and agrees with Kubernetes' own on what that
// accepts.
func FuzzDecodePod(f *testing.F) {
	f.Add(marshal(f, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ml", Name: "a", UID: "u", Labels: map[string]string{"k": "v"}, Annotations: map[string]string{annotationMirror: "m"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: "j", UID: "uj", APIVersion: "batch/v1", Controller: yes()}},
		},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running("main", "containerd://1a")}},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := newDecoder(all, all, slog.New(slog.DiscardHandler)).object(b)
		if err != nil {
			return
		}
		var pod corev1.Pod
		if pod.Unmarshal(b) != nil {
			return // it checks fields that are nothing to us
		}
		if string(pod.UID) != got.pod.UID || pod.Name != got.pod.Name || pod.Namespace != got.pod.Namespace {
			t.Errorf("got %+v, it is %s/%s %s", got.pod, pod.Namespace, pod.Name, pod.UID)
		}
		for _, kv := range got.pod.Labels {
			if v, ok := pod.Labels[kv.Key]; !ok || len(got.pod.Labels) == len(pod.Labels) && v != kv.Value {
				t.Errorf("label %q is %q, not %q", kv.Key, v, kv.Value)
			}
		}
	})
}

func FuzzReadList(f *testing.F) {
	list := metav1.PartialObjectMetadataList{
		ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "next"},
		Items:    []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "b"}}},
	}
	f.Add(envelope(f, kindList, &list))
	f.Add([]byte(envelopeMagic))
	f.Fuzz(func(_ *testing.T, b []byte) {
		// A reader of one byte at a time puts every cut to the test.
		_, _ = readList(bufio.NewReaderSize(bytes.NewReader(b), 16), func(b []byte) error {
			_, err := newDecoder(all, all, slog.New(slog.DiscardHandler)).object(b)
			return err
		})
	})
}

func FuzzWatchReader(f *testing.F) {
	f.Add(frame(f, eventAdded, kindObject, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "a"}}))
	f.Add(frame(f, eventError, kindStatus, &metav1.Status{Code: 410, Message: "too old"}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		events := watchReader{r: bytes.NewReader(b)}
		for {
			if _, err := events.next(); err != nil {
				return
			}
		}
	})
}

func TestReadList(t *testing.T) {
	list := metav1.PartialObjectMetadataList{
		ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "next"},
		Items: []metav1.PartialObjectMetadata{
			{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{"manifest": strings.Repeat("x", 3<<20)}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "c"}},
		},
	}
	whole := envelope(t, kindList, &list)
	read := func(b []byte) (names string, meta listMeta, err error) {
		meta, err = readList(bufio.NewReader(bytes.NewReader(b)), func(b []byte) error {
			o, err := newDecoder(nil, nil, slog.New(slog.DiscardHandler)).object(b)
			names += o.pod.Name
			return err
		})
		return names, meta, err
	}
	if names, meta, err := read(whole); err != nil || names != "abc" || meta != (listMeta{"7", "next"}) {
		t.Errorf("read %q, %+v, error %v", names, meta, err)
	}
	// Fields that are not known, of each type, are no trouble, wherever they are.
	var odd []byte
	odd = protowire.AppendVarint(protowire.AppendTag(odd, 90, protowire.VarintType), 300)
	odd = protowire.AppendFixed32(protowire.AppendTag(odd, 91, protowire.Fixed32Type), 1)
	odd = protowire.AppendFixed64(protowire.AppendTag(odd, 92, protowire.Fixed64Type), 1)
	odd = protowire.AppendBytes(protowire.AppendTag(odd, 93, protowire.BytesType), make([]byte, 1000))
	raw := append(append(odd[:len(odd):len(odd)], marshal(t, &list)...), odd...)
	newer := append(append([]byte(envelopeMagic), odd...), marshal(t, &runtime.Unknown{TypeMeta: runtime.TypeMeta{Kind: kindList}, Raw: raw})...)
	if names, meta, err := read(append(newer, odd...)); err != nil || names != "abc" || meta != (listMeta{"7", "next"}) {
		t.Errorf("with unknown fields: read %q, %+v, error %v", names, meta, err)
	}
	for _, n := range []int{0, 3, 10, 60, 100, len(whole) / 2, len(whole) - 10} {
		if _, _, err := read(whole[:n]); reasonOf(err) != ReasonUnavailable {
			t.Errorf("cut after %d of %d bytes: error %v", n, len(whole), err)
		}
	}
	for name, b := range map[string][]byte{
		"whole pods": envelope(t, "PodList", &corev1.PodList{Items: []corev1.Pod{{}}}),
		"JSON":       []byte(`{"kind":"PartialObjectMetadataList"}`),
		"HTML":       []byte("<html><body>Sign in</body></html>"),
	} {
		if _, _, err := read(b); reasonOf(err) != ReasonMalformed {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// marshaler is an object of Kubernetes with a protobuf form.
type marshaler interface{ Marshal() ([]byte, error) }

func marshal(t testing.TB, m marshaler) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// envelope gives an object as the API server sends it.
func envelope(t testing.TB, kind string, m marshaler) []byte {
	t.Helper()
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: kind}, Raw: marshal(t, m)}
	return append([]byte(envelopeMagic), marshal(t, &u)...)
}

// frame gives an event of a watch as the API server sends it.
func frame(t testing.TB, event, kind string, m marshaler) []byte {
	t.Helper()
	b := marshal(t, &metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: envelope(t, kind, m)}})
	n := len(b)
	return append([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, b...)
}
