// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// podLife is the life of a pod. All pods of a node end at the same time, and other pods
// follow them at once. Nodes differ in when that is.
const podLife = 40 * time.Minute

// fleet is nodes of several kinds.
type fleet struct {
	nodes []*node
}

// node is one of the fleet.
type node struct {
	number int
	series []series // of its kind, shared
}

// series is one series of all nodes of a kind.
type series struct {
	name    string
	labels  map[string]string
	first   float64
	second  float64
	rate    float64 // per second, of a counter
	counter bool
	owned   bool // has the labels of a pod
}

func newFleet(kinds []*kind, nodes int) *fleet {
	f := &fleet{}
	var shares []int // the kind of each of 100 nodes
	all := make([][]series, len(kinds))
	for i, k := range kinds {
		all[i] = k.series()
		for range k.share {
			shares = append(shares, i)
		}
	}
	for n := range nodes {
		// 37 and 100 have no common factor, so the kinds are mixed.
		f.nodes = append(f.nodes, &node{n, all[shares[n*37%len(shares)]]})
	}
	return f
}

func (k *kind) series() []series {
	list := []series{{name: "up", labels: map[string]string{}, first: 1, second: 1}}
	for _, key := range slices.Sorted(maps.Keys(k.first)) {
		r := k.first[key]
		s := series{name: r.family, labels: r.labels, first: r.value, second: r.value, counter: r.counter, owned: r.labels["pod"] != ""}
		if later, ok := k.second[key]; ok {
			s.second = later.value
			s.rate = (later.value - r.value) / k.between.Seconds()
		}
		list = append(list, s)
	}
	return list
}

// series returns the number of series at one time.
func (f *fleet) series() (n int) {
	for _, node := range f.nodes {
		n += len(node.series)
	}
	return n
}

// generation counts the pods of a node.
func (n *node) generation(t time.Time) int64 {
	offset := time.Duration(n.number*97%40) * time.Minute
	return t.Add(offset).Unix() / int64(podLife.Seconds())
}

// load is the load of the node's GPUs, 0 to 1. A fifth of the nodes is idle.
func (n *node) load() float64 { return max(0, float64(n.number*53%100)-20) / 80 }

// labelsOf returns the labels of a series of the node, without those of a target.
func (n *node) labelsOf(s *series, generation int64) map[string]string {
	result := map[string]string{}
	for name, value := range s.labels {
		switch {
		case name == "hostname":
			value = n.hostname()
		case name == "pod":
			value = fmt.Sprintf("%s-%x", value, generation)
		default:
			value = uuids.ReplaceAllString(value, fmt.Sprintf("$1-%08x", n.number))
		}
		result[name] = value
	}
	return result
}

func (n *node) hostname() string { return fmt.Sprintf("node-%04d", n.number) }

// target adds the labels of a target, as Prometheus does.
func (n *node) target(name string, own map[string]string) labels.Labels {
	own["__name__"], own["job"], own["instance"], own["cluster"] = name, "gpu_exporter", n.hostname()+":9400", "prod"
	return labels.FromMap(own)
}

// value returns the value at a time, which is some steps and seconds after the start.
func (n *node) value(s *series, t time.Time, step int, elapsed float64) float64 {
	switch {
	case s.counter:
		return s.first + s.rate*elapsed*n.load()
	case strings.HasPrefix(s.name, "gpu_exporter_") && strings.HasSuffix(s.name, "_timestamp_seconds") && s.first > 0:
		return math.Round(float64(t.UnixMilli())/1000) - 1
	case step%2 == 0:
		return s.first
	default:
		return s.second
	}
}
