// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector"
)

// Reader reads through NVML what a sampler needs. MIGDevices and Processes may be
// called at the same time: NVML allows that, and both use one library of go-nvml,
// which changes its global state only when nobody has it open.
type Reader struct {
	log *slog.Logger
	lib nvml.Interface // counts who has it open

	mu       sync.Mutex // held while processes are read
	held     *Library   // what Processes keeps open; nil if it is closed
	opened   time.Time  // since when
	of       uint64     // the generation of the inventory since then
	lastSeen map[string]uint64
	troubles map[trouble]string
}

// NewReader returns a reader. It opens nothing yet.
func NewReader(log *slog.Logger) *Reader {
	return &Reader{log: log, lib: nvml.New(), lastSeen: make(map[string]uint64), troubles: make(map[trouble]string)}
}

// MIGDevices lists the MIG devices of all GPUs as they are now. It opens and
// closes the library each time, so that a driver which comes, goes or is updated
// in between does no harm. GPUs that cannot be read are logged and left out; the
// error is for a list that could not be had at all.
func (r *Reader) MIGDevices() ([]collector.MIGDevice, error) {
	l, err := open(r.lib)
	if err != nil {
		return nil, fmt.Errorf("opening NVML: %w", err)
	}
	defer r.close(l)
	gpus, err := l.GPUs()
	if err != nil {
		return nil, fmt.Errorf("listing GPUs: %w", err)
	}
	var all []collector.MIGDevice
	for _, g := range gpus {
		switch {
		case errors.Is(g.Err, ErrLost):
			r.log.Debug("NVML calls a GPU lost", "index", g.Index)
		case g.Err != nil:
			r.log.Warn("NVML does not tell all of a GPU", "index", g.Index, "uuid", g.UUID, "err", g.Err)
		}
		if g.UUID != "" { // without it, nobody knows whose they are
			all = append(all, g.MIGDevices...)
		}
	}
	return all, nil
}

// Close closes what Processes keeps open, unless it is still reading: a call that
// does not return is left to the end of the process.
func (r *Reader) Close() {
	if r.mu.TryLock() {
		r.release()
		r.mu.Unlock()
	}
}

func (r *Reader) release() {
	if r.held != nil {
		r.close(r.held)
		r.held = nil
	}
}

func (r *Reader) close(l *Library) {
	if err := l.Close(); err != nil {
		r.log.Debug("Closing NVML failed", "err", err)
	}
}
