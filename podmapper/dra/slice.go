// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/podmapper"
)

// slice is what one ResourceSlice says.
type slice struct {
	name       string // of the object
	node       string // spec.nodeName
	pool       pool
	generation int64 // of the pool
	count      int64 // slices of the pool in that generation, on all nodes
	devices    []device
}

// pool is a set of slices that are replaced together.
type pool struct{ driver, name string }

type device struct {
	name string
	podmapper.PublishedDevice
}

// The part of a ResourceSlice that is of interest, in the JSON of
// resource.k8s.io v1, v1beta2 and v1beta1.
type (
	wireSlice struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Driver   string `json:"driver"`
			NodeName string `json:"nodeName"`
			Pool     struct {
				Name               string `json:"name"`
				Generation         int64  `json:"generation"`
				ResourceSliceCount int64  `json:"resourceSliceCount"`
			} `json:"pool"`
			Devices []json.RawMessage `json:"devices"`
		} `json:"spec"`
	}
	wireDevice struct {
		Name string `json:"name"`
		wireDescription
		Basic wireDescription `json:"basic"` // v1beta1
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
		Value json.RawMessage `json:"value"`
	}
)

// parseSlice reads a ResourceSlice of any of the three versions. A device that
// cannot be read costs only itself: the slice is valid, and without that
// device, also if there is an error.
func parseSlice(object []byte) (slice, error) {
	var wire wireSlice
	if err := json.Unmarshal(object, &wire); err != nil {
		return slice{name: wire.Metadata.Name}, err
	}
	s := slice{
		name:       wire.Metadata.Name,
		node:       wire.Spec.NodeName,
		pool:       pool{driver: wire.Spec.Driver, name: wire.Spec.Pool.Name},
		generation: wire.Spec.Pool.Generation,
		count:      wire.Spec.Pool.ResourceSliceCount,
		devices:    make([]device, 0, len(wire.Spec.Devices)),
	}
	if s.pool.driver == "" || s.pool.name == "" {
		return slice{name: s.name}, errors.New("it names no driver or no pool")
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

func parseDevice(driver string, raw []byte) (device, error) {
	var wire wireDevice
	if err := json.Unmarshal(raw, &wire); err != nil {
		return device{}, err
	}
	if wire.Name == "" {
		return device{}, errors.New("it has no name")
	}
	described := wire.wireDescription
	if len(described.Attributes) == 0 {
		described = wire.Basic
	}
	return device{name: wire.Name, PublishedDevice: described.device(driver)}, nil
}

// device reads the attributes that NVIDIA's driver publishes, and forks and
// simulations of it in the same words. The names of devices are not read: they
// have changed their form several times.
//
// https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu, cmd/gpu-kubelet-plugin,
// deviceinfo.go, mig.go and partitions.go. pcieBusID was the name until 25.8;
// index, parentIndex and minor are from before 25.8.
func (w *wireDescription) device(driver string) podmapper.PublishedDevice {
	a := newAttributes(driver, w.Attributes)
	d := podmapper.PublishedDevice{
		Type:           a.text("type"),
		UUID:           a.text("uuid"),
		ParentUUID:     a.text("parentuuid"),
		Profile:        a.text("profile"),
		PlacementStart: podmapper.NotPublished,
		PCIBusID:       cmp.Or(a.text("pcibusid"), a.text("pciebusid")),
	}
	if d.Type == typeMIG || d.ParentUUID != "" || d.Profile != "" {
		// index of a MIG device is that among the MIG devices of its GPU.
		d.Index, d.Minor = a.number("parentindex"), a.number("parentminor")
		d.PlacementStart = w.firstMemorySlice()
	} else {
		d.Index, d.Minor = a.number("index"), a.number("minor")
	}
	return d
}

const typeMIG = "mig"

// firstMemorySlice is where a MIG device starts, as NVML counts placements. A
// device that is made for a claim takes its memory slices from the counters of
// its GPU, memory-slice-0 and so on; one that exists has them as capacities,
// memorySlice0 and so on.
func (w *wireDescription) firstMemorySlice() int {
	for _, consumed := range w.ConsumesCounters {
		if first := firstOf(consumed.Counters); first != podmapper.NotPublished {
			return first
		}
	}
	return firstOf(w.Capacity)
}

func firstOf(amounts map[string]wireAmount) int {
	first := podmapper.NotPublished
	for name, amount := range amounts {
		_, id := splitName(name)
		number, ok := strings.CutPrefix(strings.ReplaceAll(id, "-", ""), "memoryslice")
		if !ok || amount.zero() {
			continue
		}
		if n, err := strconv.ParseUint(number, 10, 8); err == nil && (first == podmapper.NotPublished || int(n) < first) {
			first = int(n)
		}
	}
	return first
}

func (a wireAmount) zero() bool {
	switch strings.Trim(string(a.Value), `"`) {
	case "", "0", "null":
		return true
	}
	return false
}

// attributes are those of a device, by name in lower case and without domain.
type attributes struct {
	texts   map[string]string
	numbers map[string]int64
}

// newAttributes sorts out names. One without a domain is in the driver's own, so
// both spellings are in use, sometimes together. Where several domains have the
// name, the driver's own is preferred, then Kubernetes', then the first.
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

// splitName takes a QualifiedName apart, in lower case: drivers differ in how
// they write UUID and PCI.
func splitName(name string) (domain, id string) {
	name = strings.ToLower(name)
	if domain, id, ok := strings.Cut(name, "/"); ok {
		return domain, id
	}
	return "", name
}

func (a attributes) text(id string) string { return a.texts[id] }

// number takes what can be a number of a GPU.
func (a attributes) number(id string) int {
	if n, ok := a.numbers[id]; ok && n >= 0 && n < 1<<20 {
		return int(n)
	}
	return podmapper.NotPublished
}

// join gives the devices of all slices. Of each pool only the slices of the
// newest generation count: the others are on their way out.
//
// A pool with fewer slices than it says is incomplete. It may have slices for
// other nodes, or be in the middle of a change.
func join(all map[string]slice) (devices map[podmapper.PublishedName]podmapper.PublishedDevice, notes []string) {
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
			notes = append(notes, fmt.Sprintf("%s/%s: %d of %d slices", p.driver, p.name, e.seen, e.count))
		}
	}
	slices.Sort(notes)

	devices = make(map[podmapper.PublishedName]podmapper.PublishedDevice)
	contradicted := make(map[podmapper.PublishedName]bool)
	for _, s := range all {
		if s.generation != pools[s.pool].generation {
			continue
		}
		for _, d := range s.devices {
			name := podmapper.PublishedName{Driver: s.pool.driver, Pool: s.pool.name, Device: d.name}
			if other, twice := devices[name]; twice && other != d.PublishedDevice {
				contradicted[name] = true
			}
			devices[name] = d.PublishedDevice
		}
	}
	for name := range contradicted {
		delete(devices, name) // neither is believed
	}
	return devices, notes
}
