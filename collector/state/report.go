// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"log/slog"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// xidLogPause is how long the log says nothing more of an XID that keeps coming:
// some come by the hundred, and the counter has them all.
const xidLogPause = time.Minute

// report says what happens to the GPUs: changes, never states.
type report struct {
	log  *slog.Logger
	xids *xid.Catalogue
	said []message // not logged yet
	// down says why each GPU was last found not to answer; those that answer are
	// there with an empty reason.
	down   map[string]string
	logged map[xid.Key]time.Time
}

type message struct {
	level slog.Level
	text  string
	attrs []any
}

func (r *report) say(level slog.Level, text string, attrs []any) {
	r.said = append(r.said, message{level, text, attrs})
}

// write logs messages. A log may block: no scrape may have to wait for it, so that
// the mutex of the node must not be held.
func (r *report) write(messages []message) {
	for _, m := range messages {
		r.log.Log(context.Background(), m.level, m.text, m.attrs...)
	}
}

func newReport(logger *slog.Logger, xids *xid.Catalogue) report {
	return report{log: logger, xids: xids, down: map[string]string{}, logged: map[xid.Key]time.Time{}}
}

// gpus compares the GPUs of a new sample with those of the last.
func (r *report) gpus(v View) {
	for i := range v.Inventory.Entities {
		if e := &v.Inventory.Entities[i]; e.Kind == model.KindGPU && e.Selected {
			r.gpu(e, silence(v, i))
		}
	}
	for i := range v.Gone {
		r.gpu(&v.Gone[i], "DCGM does not list it any more")
	}
}

func (r *report) gpu(e *model.Entity, why string) {
	before, known := r.down[e.UUID]
	if before == why && known {
		return
	}
	r.down[e.UUID] = why
	attrs := []any{"gpu", e.ID, "UUID", e.UUID, "pci_bus_id", e.PCIBusID}
	switch {
	case why != "":
		r.say(slog.LevelWarn, "GPU does not answer", append(attrs, "why", why))
	case known:
		r.say(slog.LevelInfo, "GPU answers again", attrs)
	}
}

// xid tells of an XID, unless the same was told of a moment ago. gpu may be nil;
// more are further attributes.
func (r *report) xid(gpu *model.Entity, key xid.Key, now time.Time, more ...any) {
	if last, ok := r.logged[key]; ok && now.Sub(last) < xidLogPause {
		return
	}
	r.logged[key] = now
	attrs := []any{"xid", key.Code, "meaning", r.xids.Message(key.Code)}
	if x, ok := r.xids.Lookup(key.Code); ok {
		attrs = append(attrs, "action", x.Action)
	}
	if gpu != nil {
		attrs = append(attrs, "gpu", gpu.ID, "UUID", gpu.UUID, "pci_bus_id", gpu.PCIBusID)
	}
	if key.Instance != model.Unknown {
		attrs = append(attrs, "GPU_I_ID", key.Instance, "GPU_I_PROFILE", key.Profile)
	}
	r.say(slog.LevelWarn, "XID error", append(attrs, more...))
}
