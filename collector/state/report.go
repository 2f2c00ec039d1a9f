// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"log/slog"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// xidLogPause is the time between two log records of one XID on one device. Some XIDs come
// by the hundred; the counter includes them all.
const xidLogPause = time.Minute

// report logs changes of the GPUs, and XIDs.
type report struct {
	log  *slog.Logger
	xids *xid.Catalogue
	// pending holds the log calls to make without the node's mutex: a log may block, and
	// no scrape may wait for it.
	pending []func()
	reasons map[string]string // why each GPU does not answer, by UUID; "" if it answers
	logged  map[xid.Key]time.Time
}

func newReport(logger *slog.Logger, xids *xid.Catalogue) report {
	return report{log: logger, xids: xids, reasons: map[string]string{}, logged: map[xid.Key]time.Time{}}
}

// gpus logs how the GPUs of a new sample differ from those of the previous one.
func (r *report) gpus(v View) {
	for i := range v.Inventory.Entities {
		if e := &v.Inventory.Entities[i]; e.Kind == model.KindGPU && e.Selected {
			r.gpu(e, Silence(v, i))
		}
	}
	for i := range v.Gone {
		r.gpu(&v.Gone[i], "DCGM no longer lists it")
	}
}

func (r *report) gpu(e *model.Entity, reason string) {
	before, known := r.reasons[e.UUID]
	if before == reason && known {
		return
	}
	r.reasons[e.UUID] = reason
	log := r.log.With("gpu", e.ID, "UUID", e.UUID, "pci_bus_id", e.PCIBusID)
	switch {
	case reason != "":
		r.pending = append(r.pending, func() { log.Warn("GPU does not answer", "reason", reason) })
	case known:
		r.pending = append(r.pending, func() { log.Info("GPU answers again") })
	}
}

// xid logs an XID, at most once per xidLogPause. gpu may be nil; more holds further
// attributes.
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
	attrs = append(attrs, more...)
	r.pending = append(r.pending, func() { r.log.Warn("XID error", attrs...) })
}
