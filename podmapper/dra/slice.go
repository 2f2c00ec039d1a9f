// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"gpu_exporter/podmapper/device"
)

// slice is the content of one ResourceSlice.
type slice struct {
	node       string // spec.nodeName
	pool       pool
	generation int64 // of the pool
	count      int64 // slices of the pool in that generation, on all nodes
	devices    []namedDevice
}

// pool is a set of slices that are replaced together.
type pool struct{ driver, name string }

type namedDevice struct {
	name string
	device.PublishedDevice
}

// The relevant part of a ResourceSlice in resource.k8s.io v1, v1beta2 and v1beta1.
type (
	wireSlice struct {
		Spec struct {
			Driver   string `json:"driver"`
			NodeName string `json:"nodeName"`
			Pool     struct {
				Name               string `json:"name"`
				Generation         int64  `json:"generation"`
				ResourceSliceCount int64  `json:"resourceSliceCount"`
			} `json:"pool"`
			Devices []any `json:"devices"`
		} `json:"spec"`
	}
	wireDevice struct {
		Name            string `json:"name"`
		wireDescription `json:",inline"`
		Basic           wireDescription `json:"basic"` // v1beta1
	}
	wireDescription struct {
		Attributes       map[string]wireAttribute `json:"attributes"`
		Capacity         map[string]wireAmount    `json:"capacity"`
		ConsumesCounters []struct {
			Counters map[string]wireAmount `json:"counters"`
		} `json:"consumesCounters"`
	}
	wireAttribute struct {
		String  *string  `json:"string"`
		Int     *int64   `json:"int"`
		Strings []string `json:"strings"` // feature gate DRAListTypeAttributes
		Ints    []int64  `json:"ints"`
	}
	wireAmount struct {
		Value any `json:"value"` // a quantity
	}
)

// parseSlice parses a ResourceSlice of any of the three versions. If a device cannot
// be parsed, the slice is valid without it, and there is an error.
func parseSlice(object map[string]any) (slice, error) {
	var wire wireSlice
	if err := fromUnstructured(object, &wire); err != nil {
		return slice{}, err
	}
	s := slice{
		node:       wire.Spec.NodeName,
		pool:       pool{driver: wire.Spec.Driver, name: wire.Spec.Pool.Name},
		generation: wire.Spec.Pool.Generation,
		count:      wire.Spec.Pool.ResourceSliceCount,
	}
	if s.pool.driver == "" || s.pool.name == "" {
		return slice{node: s.node}, errors.New("it has no driver or no pool")
	}
	var errs []error
	for i, raw := range wire.Spec.Devices {
		d, err := parseDevice(s.pool.driver, raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("device %d: %w", i, err))
			continue
		}
		s.devices = append(s.devices, d)
	}
	return s, errors.Join(errs...)
}

func fromUnstructured(object map[string]any, into any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(object, into)
}

func parseDevice(driver string, raw any) (namedDevice, error) {
	object, ok := raw.(map[string]any)
	if !ok {
		return namedDevice{}, fmt.Errorf("it is a %T instead of an object", raw)
	}
	var wire wireDevice
	if err := fromUnstructured(object, &wire); err != nil {
		return namedDevice{}, err
	}
	if wire.Name == "" {
		return namedDevice{}, errors.New("it has no name")
	}
	description := wire.wireDescription
	if len(description.Attributes) == 0 {
		description = wire.Basic
	}
	return namedDevice{wire.Name, description.device(driver)}, nil
}

// device reads the attributes that NVIDIA's driver publishes, and forks and
// simulations of it as well. Names of devices are not parsed, because their form has
// changed several times.
//
// https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin,
// deviceinfo.go, mig.go and partitions.go. pcieBusID was the name until 25.8; index,
// parentIndex and minor are from before 25.8.
func (w *wireDescription) device(driver string) device.PublishedDevice {
	a := newAttributes(driver, w.Attributes)
	d := device.PublishedDevice{
		Type:           a.texts["type"],
		UUID:           a.texts["uuid"],
		ParentUUID:     a.texts["parentuuid"],
		Profile:        a.texts["profile"],
		PlacementStart: device.Unknown,
		PCIBusID:       cmp.Or(a.texts["pcibusid"], a.texts["pciebusid"]),
	}
	if d.Type == device.TypeMIG || d.ParentUUID != "" || d.Profile != "" {
		// The index of a MIG device is that among the MIG devices of its GPU.
		d.Index, d.Minor = a.number("parentindex"), a.number("parentminor")
		d.PlacementStart = w.firstMemorySlice()
	} else {
		d.Index, d.Minor = a.number("index"), a.number("minor")
	}
	return d
}

// firstMemorySlice returns the start of a MIG device, as NVML counts placements. A
// device that is created for a claim consumes the counters memory-slice-0 and so on of
// its GPU. An existing one has them as capacities, memorySlice0 and so on.
func (w *wireDescription) firstMemorySlice() int {
	for _, consumed := range w.ConsumesCounters {
		if first := firstOf(consumed.Counters); first != device.Unknown {
			return first
		}
	}
	return firstOf(w.Capacity)
}

func firstOf(amounts map[string]wireAmount) int {
	first := device.Unknown
	for name, amount := range amounts {
		_, id := splitName(name)
		number, ok := strings.CutPrefix(strings.ReplaceAll(id, "-", ""), "memoryslice")
		if value := fmt.Sprint(amount.Value); !ok || value == "" || value == "0" || amount.Value == nil {
			continue
		}
		if n, err := strconv.ParseUint(number, 10, 8); err == nil && (first == device.Unknown || int(n) < first) {
			first = int(n)
		}
	}
	return first
}

// attributes are those of a device, by name in lower case and without domain.
type attributes struct {
	texts   map[string]string
	numbers map[string]int64
}

// newAttributes resolves names. A name without a domain is in the driver's domain, so
// both spellings exist, sometimes together. If several domains have the name, the
// order is: the driver's own, that of Kubernetes, the alphabet.
func newAttributes(driver string, wire map[string]wireAttribute) attributes {
	a := attributes{texts: make(map[string]string), numbers: make(map[string]int64)}
	rank := func(name string) int {
		switch domain, _ := splitName(name); domain {
		case "", strings.ToLower(driver):
			return 0
		case "resource.kubernetes.io":
			return 1
		}
		return 2
	}
	names := slices.SortedFunc(maps.Keys(wire), func(x, y string) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), strings.Compare(x, y))
	})
	for _, name := range names {
		_, id := splitName(name)
		value := wire[name]
		if value.String == nil && len(value.Strings) == 1 {
			value.String = &value.Strings[0]
		}
		if value.Int == nil && len(value.Ints) == 1 {
			value.Int = &value.Ints[0]
		}
		if _, taken := a.texts[id]; !taken && value.String != nil {
			a.texts[id] = *value.String
		}
		if _, taken := a.numbers[id]; !taken && value.Int != nil {
			a.numbers[id] = *value.Int
		}
	}
	return a
}

// splitName returns the parts of a QualifiedName, in lower case: drivers differ in how they write
// UUID and PCI.
func splitName(name string) (domain, id string) {
	name = strings.ToLower(name)
	if domain, id, ok := strings.Cut(name, "/"); ok {
		return domain, id
	}
	return "", name
}

// number returns what can be a number of a GPU.
func (a attributes) number(id string) int {
	if n, ok := a.numbers[id]; ok && n >= 0 && n < 1<<20 {
		return int(n)
	}
	return device.Unknown
}

// join returns the devices of all slices. Only the newest generation of a pool
// counts; a driver is about to delete the others. It also returns the pools with fewer
// slices than announced: they have slices for other nodes, or are being changed.
func join(all map[string]slice) (devices map[device.PublishedName]device.PublishedDevice, incomplete []string) {
	type extent struct{ generation, count, seen int64 }
	pools := make(map[pool]extent)
	for _, s := range all {
		e, known := pools[s.pool]
		switch {
		case !known || s.generation > e.generation:
			e = extent{generation: s.generation, count: s.count, seen: 1}
		case s.generation == e.generation:
			e.seen++
			e.count = max(e.count, s.count)
		}
		pools[s.pool] = e
	}
	for p, e := range pools {
		if e.seen < e.count {
			incomplete = append(incomplete, fmt.Sprintf("%s/%s: %d of %d slices", p.driver, p.name, e.seen, e.count))
		}
	}
	slices.Sort(incomplete)

	devices = make(map[device.PublishedName]device.PublishedDevice)
	contradicted := make(map[device.PublishedName]bool)
	for _, s := range all {
		if s.generation != pools[s.pool].generation {
			continue
		}
		for _, d := range s.devices {
			name := device.PublishedName{Driver: s.pool.driver, Pool: s.pool.name, Device: d.name}
			if other, twice := devices[name]; twice && other != d.PublishedDevice {
				contradicted[name] = true
			}
			devices[name] = d.PublishedDevice
		}
	}
	for name := range contradicted {
		delete(devices, name) // neither description is reliable
	}
	return devices, incomplete
}
