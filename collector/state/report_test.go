// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// The log has each change once.
func TestReport(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	node := NewNode(logger, fixture.XIDs(t))
	clock := epoch
	node.Clock = func() time.Time { return clock }
	deliver := func(change func(*model.Inventory, *model.Sample), events ...model.Event) string {
		t.Helper()
		log.Reset()
		inv := testInventory(t)
		s := testSample(inv)
		change(inv, s)
		if err := errors.Join(node.Deliver(wire.Frame{Inventory: inv}), node.Deliver(wire.Frame{Sample: s}), node.Deliver(wire.Frame{Events: &model.Events{Generation: 1, List: events}})); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	nothing := func(*model.Inventory, *model.Sample) {}
	lose := func(inv *model.Inventory, s *model.Sample) {
		inv.Entities[0].State = model.EntityLost
		s.Rows[0] = nil
	}
	fail := func(_ *model.Inventory, s *model.Sample) {
		for i := range s.Rows[0] {
			s.Rows[0][i] = model.NoValue(model.StatusError)
		}
	}
	xid := model.Event{Kind: model.EventXID, Entity: 5, Time: epoch, Code: 31}
	for _, step := range []struct {
		what string
		got  string
		want string
	}{
		{"start, with a lost GPU", deliver(nothing), `level=WARN msg="GPU does not answer" gpu=3 UUID=GPU-cccc pci_bus_id=00000000:3A:00.0 reason=lost`},
		{"no change", deliver(nothing), ""},
		{"lost", deliver(lose), `level=WARN msg="GPU does not answer" gpu=0 UUID=GPU-aaaa pci_bus_id=00000000:18:00.0 reason=lost`},
		{"still lost", deliver(lose), ""},
		{"back", deliver(nothing), `level=INFO msg="GPU answers again" gpu=0 UUID=GPU-aaaa pci_bus_id=00000000:18:00.0`},
		{"reads fail", deliver(fail), `level=WARN msg="GPU does not answer" gpu=0 UUID=GPU-aaaa pci_bus_id=00000000:18:00.0 reason="no values, most are: error"`},
		{"back again", deliver(nothing), `level=INFO msg="GPU answers again" gpu=0 UUID=GPU-aaaa pci_bus_id=00000000:18:00.0`},
		{"a burst of XIDs", deliver(nothing, xid, xid, xid), `level=WARN msg="XID error" xid=31 meaning="GPU memory page fault" action=RESTART_APP gpu=1 UUID=GPU-bbbb pci_bus_id=00000000:2A:00.0 GPU_I_ID=11 GPU_I_PROFILE=1g.5gb`},
		{"gone", deliver(func(inv *model.Inventory, s *model.Sample) {
			inv.Entities, s.Rows = inv.Entities[1:2], s.Rows[1:2]
		}), `level=WARN msg="GPU does not answer" gpu=0 UUID=GPU-aaaa pci_bus_id=00000000:18:00.0 reason="DCGM no longer lists it"
level=WARN msg="GPU does not answer" gpu=3 UUID=GPU-cccc pci_bus_id=00000000:3A:00.0 reason="DCGM no longer lists it"`},
	} {
		if got := strings.TrimSpace(step.got); got != step.want {
			t.Errorf("%s:\n%s\nwant:\n%s", step.what, got, step.want)
		}
	}
}

// blockedWriter is a log without a reader.
type blockedWriter chan struct{}

func (w blockedWriter) Write(b []byte) (int, error) {
	w <- struct{}{}
	return len(b), nil
}

// A blocked log, such as a full pipe, does not delay readers of the samples.
func TestBlockedLog(t *testing.T) {
	log := make(blockedWriter)
	node := NewNode(slog.New(slog.NewTextHandler(log, nil)), fixture.XIDs(t))
	node.Clock = func() time.Time { return epoch }
	inv := testInventory(t) // with a lost GPU, which is logged
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: testSample(inv)})
	}()
	<-node.Changed()
	seen := make(chan *model.Sample)
	go func() { seen <- node.View().Sample }()
	select {
	case s := <-seen:
		if s == nil {
			t.Error("View has no sample")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("timed out: the log delays View")
	}
	<-log
	<-delivered
}
