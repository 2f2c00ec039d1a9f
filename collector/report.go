// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"log/slog"
	"time"
)

// xidLogPause is how long the log says nothing more of an XID that keeps coming:
// some come by the hundred, and the counter has them all.
const xidLogPause = time.Minute

// report says what happens to the GPUs: changes, never states.
type report struct {
	log  *slog.Logger
	xids *XIDCatalogue
	said []message // not logged yet
	// down says why each GPU was last found not to answer; those that answer are
	// there with an empty reason.
	down   map[string]string
	logged map[xidKey]time.Time
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

func newReport(logger *slog.Logger, xids *XIDCatalogue) report {
	return report{log: logger, xids: xids, down: map[string]string{}, logged: map[xidKey]time.Time{}}
}

// gpus compares the GPUs of a new sample with those of the last.
func (r *report) gpus(v nodeView) {
	for i := range v.inventory.Entities {
		if e := &v.inventory.Entities[i]; e.Kind == KindGPU && e.Selected {
			r.gpu(e, silence(v, i))
		}
	}
	for i := range v.gone {
		r.gpu(&v.gone[i], "DCGM does not list it any more")
	}
}

func (r *report) gpu(e *Entity, why string) {
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

// silence says why the GPU at position i does not answer, or "" if it does.
func silence(v nodeView, i int) string {
	if answers(v, i) {
		return ""
	}
	if state := v.inventory.Entities[i].State; state != EntityUp {
		return state.String()
	}
	var n [statusCount]int
	most := StatusNoData
	for j, row := range v.sample.Rows {
		if j != i && v.inventory.Entities[j].Parent != i {
			continue
		}
		for _, c := range row {
			if n[c.Status]++; c.Status != StatusOK && n[c.Status] > n[most] {
				most = c.Status
			}
		}
	}
	return "it has no values, most are: " + most.String()
}

// xid tells of an XID, unless the same was told of a moment ago. gpu may be nil;
// more are further attributes.
func (r *report) xid(gpu *Entity, key xidKey, now time.Time, more ...any) {
	if last, ok := r.logged[key]; ok && now.Sub(last) < xidLogPause {
		return
	}
	r.logged[key] = now
	attrs := []any{"xid", key.code, "meaning", r.xids.Message(key.code)}
	if x, ok := r.xids.Lookup(key.code); ok {
		attrs = append(attrs, "action", x.Action)
	}
	if gpu != nil {
		attrs = append(attrs, "gpu", gpu.ID, "UUID", gpu.UUID, "pci_bus_id", gpu.PCIBusID)
	}
	if key.instance != Unknown {
		attrs = append(attrs, "GPU_I_ID", key.instance, "GPU_I_PROFILE", key.profile)
	}
	r.say(slog.LevelWarn, "XID error", append(attrs, more...))
}
