// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of what is kept of a pod. Values of labels have 63 bytes at most; an
// annotation may be a whole manifest, which is no use in a metric.
const (
	maxValue = 1024
	maxPairs = 256      // labels or annotations
	maxKeys  = 16 << 10 // that a decoder remembers
)

// object is what is taken from a pod, or from the metadata of any object.
type object struct {
	pod             *Pod // without its workload
	controller      owner
	templateHash    string // of the ReplicaSet that made the pod
	resourceVersion string
}

// owner is the controller of an object: it is in the same namespace, or in none.
type owner struct{ apiVersion, kind, name, uid string }

// Marks that Kubernetes itself puts on pods.
const (
	// A Deployment's ReplicaSet is named after the Deployment and this label.
	labelTemplateHash = "pod-template-hash"
	// On a mirror pod: the UID of the static pod behind it. Source: kubelet
	// pkg/kubelet/pod/mirror_client.go and pkg/kubelet/config/common.go.
	annotationMirror = "kubernetes.io/config.mirror"
)

// decoder takes pods apart, and keeps what is allowed only. It belongs to one
// goroutine.
type decoder struct {
	labels, annotations keys
	log                 *slog.Logger
}

// keys remembers which keys are allowed. Pods have few different ones.
type keys struct {
	allow func(string) bool // nil: none
	known map[string]*key
}

type key struct {
	name    string
	allowed bool
	warned  bool
}

func newDecoder(labels, annotations func(string) bool, log *slog.Logger) *decoder {
	return &decoder{labels: keys{allow: labels}, annotations: keys{allow: annotations}, log: log}
}

// of gives what is known of a key, or nil if it is not allowed.
func (k *keys) of(name []byte) *key {
	if k.allow == nil {
		return nil
	}
	one := k.known[string(name)]
	if one == nil {
		one = &key{name: string(name)}
		one.allowed = k.allow(one.name)
		if k.known == nil || len(k.known) == maxKeys {
			k.known = make(map[string]*key)
		}
		k.known[one.name] = one
	}
	if !one.allowed {
		return nil
	}
	return one
}

// Fields of core/v1 Pod (k8s.io/api/core/v1/generated.proto). Its metadata is
// in the same field as that of PartialObjectMetadata.
const (
	podMetadata protowire.Number = 1
	podStatus   protowire.Number = 3

	statusContainers          protowire.Number = 8
	statusInitContainers      protowire.Number = 10
	statusEphemeralContainers protowire.Number = 13

	containerName protowire.Number = 1
	containerID   protowire.Number = 8
)

// Fields of ObjectMeta and OwnerReference
// (k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto).
const (
	metaName            protowire.Number = 1
	metaNamespace       protowire.Number = 3
	metaUID             protowire.Number = 5
	metaResourceVersion protowire.Number = 6
	metaLabels          protowire.Number = 11
	metaAnnotations     protowire.Number = 12
	metaOwnerReferences protowire.Number = 13

	ownerKind       protowire.Number = 1
	ownerName       protowire.Number = 3
	ownerUID        protowire.Number = 4
	ownerAPIVersion protowire.Number = 5
	ownerController protowire.Number = 6

	mapKey   protowire.Number = 1
	mapValue protowire.Number = 2
)

// object takes a Pod or a PartialObjectMetadata apart. It copies what it keeps.
func (d *decoder) object(b []byte) (object, error) {
	o := object{pod: &Pod{}}
	err := fields(b, func(field protowire.Number, value []byte, _ uint64) error {
		switch field {
		case podMetadata:
			return d.metadata(value, &o)
		case podStatus:
			return fields(value, func(field protowire.Number, value []byte, _ uint64) error {
				switch field {
				case statusContainers, statusInitContainers, statusEphemeralContainers:
					return container(value, o.pod)
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return object{}, err
	}
	o.finish()
	return o, nil
}

// pod is object for one that must be a pod.
func (d *decoder) pod(b []byte) (object, error) {
	o, err := d.object(b)
	if err == nil && (o.pod.UID == "" || o.pod.Name == "" || o.pod.Namespace == "") {
		err = fmt.Errorf("%w: a pod without UID, name or namespace", errMalformed)
	}
	return o, err
}

func (d *decoder) metadata(b []byte, o *object) error {
	return fields(b, func(field protowire.Number, value []byte, _ uint64) error {
		switch field {
		case metaName:
			return text(value, &o.pod.Name)
		case metaNamespace:
			return text(value, &o.pod.Namespace)
		case metaUID:
			return text(value, &o.pod.UID)
		case metaResourceVersion:
			return text(value, &o.resourceVersion)
		case metaLabels:
			return d.pair(value, &d.labels, &o.pod.Labels, labelTemplateHash, &o.templateHash)
		case metaAnnotations:
			return d.pair(value, &d.annotations, &o.pod.Annotations, annotationMirror, &o.pod.CgroupUID)
		case metaOwnerReferences:
			return controller(value, &o.controller)
		}
		return nil
	})
}

// pair takes an entry of a map of texts: into pairs if its key is allowed, and
// into mark if its key is that of the mark.
func (d *decoder) pair(entry []byte, k *keys, pairs *[]KeyValue, markKey string, mark *string) error {
	var name, value []byte
	err := fields(entry, func(field protowire.Number, v []byte, _ uint64) error {
		switch field {
		case mapKey:
			name = v
		case mapValue:
			value = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	if string(name) == markKey && len(value) <= maxValue {
		if err := text(value, mark); err != nil {
			return err
		}
	}
	one := k.of(name)
	switch {
	case one == nil:
		return nil
	case len(value) > maxValue:
		if !one.warned {
			one.warned = true
			d.log.Warn("The value is too long for a label and is left out", "key", one.name, "bytes", len(value), "max_bytes", maxValue)
		}
		return nil
	}
	pair := KeyValue{Key: one.name}
	if err := text(value, &pair.Value); err != nil {
		return err
	}
	*pairs = append(*pairs, pair)
	return nil
}

func controller(b []byte, o *owner) error {
	var found owner
	controls := false
	err := fields(b, func(field protowire.Number, value []byte, n uint64) error {
		switch field {
		case ownerKind:
			return text(value, &found.kind)
		case ownerName:
			return text(value, &found.name)
		case ownerUID:
			return text(value, &found.uid)
		case ownerAPIVersion:
			return text(value, &found.apiVersion)
		case ownerController:
			controls = n != 0
		}
		return nil
	})
	if err == nil && controls {
		*o = found
	}
	return err
}

func container(b []byte, p *Pod) error {
	var c Container
	err := fields(b, func(field protowire.Number, value []byte, _ uint64) error {
		switch field {
		case containerName:
			return text(value, &c.Name)
		case containerID:
			return text(value, &c.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, id, ok := strings.Cut(c.ID, "://"); ok {
		c.ID = id
	}
	if c.ID != "" { // it has none before it is made
		p.Containers = append(p.Containers, c)
	}
	return nil
}

// finish puts what was read in order.
func (o *object) finish() {
	p := o.pod
	if p.CgroupUID == "" {
		p.CgroupUID = p.UID
	}
	p.Labels, p.Annotations = inOrder(p.Labels), inOrder(p.Annotations)
	slices.SortFunc(p.Containers, func(a, b Container) int { return strings.Compare(a.ID, b.ID) })
}

// inOrder sorts pairs, in no more memory than they need.
func inOrder(pairs []KeyValue) []KeyValue {
	slices.SortFunc(pairs, func(a, b KeyValue) int { return strings.Compare(a.Key, b.Key) })
	return slices.Clone(pairs[:min(len(pairs), maxPairs)])
}

// text copies a text.
func text(b []byte, s *string) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: a text that is not UTF-8", errMalformed)
	}
	*s = string(b)
	return nil
}
