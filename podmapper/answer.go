// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of what is kept of an answer. A node has at most 16 GPUs of 7 instances
// that are shared some ten times, and names are no longer than 253 bytes.
const (
	maxAssignments = 16384
	maxText        = 8 << 20
	textCost       = 32 // of a text, beside its bytes
)

var (
	errTooMuch   = fmt.Errorf("more than %d devices or %d MiB of names", maxAssignments, maxText>>20)
	errMalformed = errors.New("not an answer of the pod-resources API")
	errFound     = errors.New("found") // ends a search
)

// resourceFilter picks what stands for NVIDIA devices.
type resourceFilter struct {
	names  map[string]bool // extended resources, in addition to everything below nvidia.com/
	claims bool            // also the devices of ResourceClaims
}

const nvidiaDomain = "nvidia.com/"

func (f resourceFilter) wants(resource string) bool {
	return strings.HasPrefix(resource, nvidiaDomain) || f.names[resource]
}

// numbersAreGPUs says whether a bare number in this resource can mean a GPU.
// NVIDIA's KubeVirt and sandbox plugins also register below nvidia.com/
// (nvidia.com/GA102GL_A10, nvidia.com/pgpu) and their IDs are IOMMU group
// numbers; a wrong owner is worse than none.
func (f resourceFilter) numbersAreGPUs(resource string) bool {
	rest, ok := strings.CutPrefix(resource, nvidiaDomain+"gpu")
	return f.names[resource] || ok && (rest == "" || rest[0] == '.' || rest[0] == '-')
}

// answer takes the kubelet's answer to List, in its wire form. It reads only
// what the filter wants, and not by way of the generated types: those make of
// 64 MiB that are nothing but empty pods objects of more than 5 GiB.
type answer struct {
	filter resourceFilter
	// assignments are sorted and without repetitions, since the kubelet lists a
	// container's devices in one entry per resource and NUMA node.
	assignments []Assignment
	// err is errMalformed or errTooMuch. Unmarshal does not return it, as grpc
	// would make another error of it.
	err error

	text  int
	names map[string]string // those that many pods have in common
}

// answerCodec gives messages to an answer; the request has no fields.
type answerCodec struct{}

func (answerCodec) Name() string                         { return "proto" }
func (answerCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

func (answerCodec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("cannot unmarshal into %T", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	a.unmarshal(b.ReadOnlyData())
	return nil
}

// Fields of the messages in k8s.io/kubelet/pkg/apis/podresources/v1/api.proto.
const (
	listPods protowire.Number = 1

	podName       protowire.Number = 1
	podNamespace  protowire.Number = 2
	podContainers protowire.Number = 3

	containerName             protowire.Number = 1
	containerDevices          protowire.Number = 2
	containerDynamicResources protowire.Number = 5

	devicesResource protowire.Number = 1
	devicesIDs      protowire.Number = 2

	dynamicClaimName      protowire.Number = 2
	dynamicClaimNamespace protowire.Number = 3
	dynamicClaimResources protowire.Number = 4

	claimDriver protowire.Number = 2
	claimPool   protowire.Number = 3
	claimDevice protowire.Number = 4
	claimShare  protowire.Number = 5
)

func (a *answer) unmarshal(b []byte) {
	a.names = make(map[string]string)
	a.err = message(b).each(listPods, a.pod)
	a.names = nil
	if a.err != nil {
		a.assignments = nil
		return
	}
	slices.SortFunc(a.assignments, compareAssignments)
	a.assignments = slices.Compact(a.assignments)
}

func (a *answer) pod(m message) error {
	var o Owner
	// Only once it is known that the pod holds something are its names copied.
	named := false
	return m.each(podContainers, func(c message) error {
		devices, dynamic := c.has(containerDevices), a.filter.claims && c.has(containerDynamicResources)
		if !devices && !dynamic {
			return nil
		}
		if !named {
			named = true
			if err := errors.Join(a.read(m, podName, &o.Pod), a.shared(m, podNamespace, &o.Namespace)); err != nil {
				return err
			}
		}
		return a.container(c, o)
	})
}

func (a *answer) container(m message, o Owner) error {
	if err := a.read(m, containerName, &o.Container); err != nil {
		return err
	}
	err := m.each(containerDevices, func(d message) error { return a.devices(d, o) })
	if err == nil && a.filter.claims {
		err = m.each(containerDynamicResources, func(d message) error { return a.claim(d, o) })
	}
	return err
}

func (a *answer) devices(m message, o Owner) error {
	if err := a.shared(m, devicesResource, &o.Resource); err != nil || !a.filter.wants(o.Resource) {
		return err
	}
	return m.each(devicesIDs, func(b message) error {
		var id string
		if err := a.take(b, &id); err != nil {
			return err
		}
		known, replica := ParseDeviceID(id)
		if known.Form == FormNumber && !a.filter.numbersAreGPUs(o.Resource) {
			known, replica = DeviceID{}, ""
		}
		o.Replica = replica
		return a.add(Assignment{Owner: o, ID: id, Known: known})
	})
}

func (a *answer) claim(m message, o Owner) error {
	if err := errors.Join(a.shared(m, dynamicClaimName, &o.Claim.Name), a.shared(m, dynamicClaimNamespace, &o.Claim.Namespace)); err != nil {
		return err
	}
	return m.each(dynamicClaimResources, func(r message) error {
		c := &o.Claim
		if err := errors.Join(a.shared(r, claimDriver, &c.Driver), a.shared(r, claimPool, &c.Pool),
			a.shared(r, claimDevice, &c.Device), a.read(r, claimShare, &c.Share)); err != nil {
			return err
		}
		return a.add(Assignment{Owner: o, ID: c.String(), Known: DeviceID{Form: FormClaim}})
	})
}

func (a *answer) add(one Assignment) error {
	if len(a.assignments) == maxAssignments {
		return errTooMuch
	}
	a.assignments = append(a.assignments, one)
	return nil
}

// read gives the last value of a text field of m, as protobuf wants it.
func (a *answer) read(m message, field protowire.Number, s *string) error {
	b, err := m.last(field)
	if err != nil {
		return err
	}
	return a.take(b, s)
}

// shared is read for a text that others have, too.
func (a *answer) shared(m message, field protowire.Number, s *string) error {
	b, err := m.last(field)
	if err != nil {
		return err
	}
	if known, ok := a.names[string(b)]; ok {
		*s = known
		return nil
	}
	if err := a.take(b, s); err != nil {
		return err
	}
	a.names[*s] = *s
	return nil
}

// take copies a text out of the answer.
func (a *answer) take(b []byte, s *string) error {
	if len(b) == 0 {
		*s = ""
		return nil
	}
	if a.text += len(b) + textCost; a.text > maxText {
		return errTooMuch
	}
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: a text that is not UTF-8", errMalformed)
	}
	*s = string(b)
	return nil
}

// message is the wire form of a protobuf message.
type message []byte

// each calls f for each value of a field of texts or messages.
func (m message) each(field protowire.Number, f func(message) error) error {
	for len(m) > 0 {
		number, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		}
		m = m[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, m); n < 0 {
				return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
			}
			m = m[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(m)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		}
		m = m[n:]
		if number == field {
			if err := f(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// last gives the last value of a field, or nil if it has none.
func (m message) last(field protowire.Number) (value message, err error) {
	err = m.each(field, func(v message) error { value = v; return nil })
	return value, err
}

// has says whether m has the field. What cannot be read is for each to report.
func (m message) has(field protowire.Number) bool {
	return m.each(field, func(message) error { return errFound }) != nil
}
