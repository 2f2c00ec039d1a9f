// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
)

// TestEngineStopsAfterEvent checks that an engine that stops right after an event is not
// dialled more often than the retries allow.
func TestEngineStopsAfterEvent(t *testing.T) {
	e := startEngine(t)
	e.set("train", fakeContainer{inspect: `"DeviceRequests":[{"Driver":"nvidia","DeviceIDs":["0"],"Capabilities":[["gpu"]]}]`})
	w := newWatcher(t, Config{Socket: e.socket, Interval: time.Hour, MaxAge: time.Hour})
	run(t, w)
	sourcetest.Eventually(t, "the stream of events", func() bool { return w.Status().Watching })
	e.report("start")
	e.stop()
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dials atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			c.Close()
		}
	}()
	begin := time.Now()
	sourcetest.Eventually(t, "several dials", func() bool { return dials.Load() >= 4 })
	time.Sleep(time.Second) // a spinning follower makes thousands
	// A refresh and a follower dial at most twice each before a pause of at least a second.
	if n, limit := dials.Load(), 4*(int64(time.Since(begin).Seconds())+2); n > limit {
		t.Errorf("%d dials in %s, want at most %d", n, time.Since(begin), limit)
	}
}

// TestOneContainerIsBounded checks that the names and labels of one container are cut, and
// that the cut is counted and logged once.
func TestOneContainerIsBounded(t *testing.T) {
	e := startEngine(t)
	labels := map[string]string{composeProject: strings.Repeat("é", 1<<20)}
	for i := range 300 {
		labels["org.example."+strings.Repeat("x", i)] = strings.Repeat("v", 100)
	}
	e.set("train", fakeContainer{labels: labels, inspect: `"DeviceRequests":[{"Driver":"nvidia","DeviceIDs":["0"],"Capabilities":[["gpu"]]}]`})
	var log sourcetest.Log
	w := newWatcher(t, Config{Socket: e.socket, Timeout: sourcetest.Patience, KeepLabel: func(key string) bool { return strings.HasPrefix(key, "org.") }, Logger: log.Logger()})
	for range 2 {
		if err := w.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c := w.Table().Holds[0].Container
	size := 0
	for _, l := range c.Labels {
		size += len(l.Key) + len(l.Value)
	}
	if len(c.ComposeProject) > maxText || len(c.Labels) > maxLabels || size > maxLabelBytes || len(c.Labels) < 10 {
		t.Errorf("a project of %d bytes, %d labels of %d bytes", len(c.ComposeProject), len(c.Labels), size)
	}
	if n := w.Poller.Status().Failures[poll.TooLarge]; n != 1 || log.Lines("level=WARN", "more or longer labels") != 1 {
		t.Errorf("counted %d times, log %s", n, log.String())
	}
}
