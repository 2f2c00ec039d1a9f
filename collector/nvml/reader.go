// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector/model"
)

// Reader reads MIG devices and processes. MIGDevices and Processes may run at the same
// time: NVML allows that, and both use one library of go-nvml, which changes its global
// state only when it is not open.
type Reader struct {
	log *slog.Logger
	lib nvml.Interface // counts its users

	known []GPU // the last answer of MIGDevices; nil: none

	mu       sync.Mutex // locked while processes are read
	held     *Library   // the open library of Processes, or nil
	opened   time.Time  // when it was opened
	of       uint64     // the generation of the inventory that it was opened for
	lastSeen map[string]uint64
	failures map[target]string // of the last pass; logged when they change
}

// NewReader returns a reader, which has opened nothing yet.
func NewReader(log *slog.Logger) *Reader {
	return &Reader{log: log, lib: nvml.New(), lastSeen: make(map[string]uint64), failures: make(map[target]string)}
}

// maxRereads is how often a GPU is read until two answers are equal.
const maxRereads = 3

// MIGDevices lists the current MIG devices of all GPUs. It opens and closes the library
// each time, so that it survives a driver that is loaded, unloaded or updated. It logs
// and omits unreadable GPUs; the error means that there is no list. The devices of a GPU that
// differ from its last ones count only if the next answer is the same: an answer may be
// damaged. Only those GPUs are read again, because a slow driver takes seconds for all. One
// goroutine uses it.
func (r *Reader) MIGDevices() ([]model.MIGDevice, error) {
	l, err := open(r.lib)
	if err != nil {
		return nil, fmt.Errorf("opening NVML: %w", err)
	}
	defer r.close(l)
	gpus, err := l.GPUs()
	if err != nil {
		return nil, fmt.Errorf("listing GPUs: %w", err)
	}
	for i := range gpus {
		if r.known == nil || i < len(r.known) && gpus[i].same(&r.known[i]) {
			continue
		}
		if !l.confirm(&gpus[i]) {
			return nil, fmt.Errorf("%d answers about the MIG devices of GPU %d differ", maxRereads+1, i)
		}
	}
	r.known = gpus
	r.logUnreadable(gpus)
	var all []model.MIGDevice
	for _, g := range gpus {
		if g.UUID != "" { // the GPU of these devices is known
			all = append(all, g.MIGDevices...)
		}
	}
	return all, nil
}

// confirm reads a GPU again until two answers are equal, and reports whether they are.
func (l *Library) confirm(g *GPU) bool {
	for range maxRereads {
		again := l.gpu(g.Index)
		if again.same(g) {
			return true
		}
		*g = again
	}
	return false
}

func (g *GPU) same(other *GPU) bool {
	return g.UUID == other.UUID && slices.Equal(g.MIGDevices, other.MIGDevices)
}

func (r *Reader) logUnreadable(gpus []GPU) {
	for _, g := range gpus {
		switch {
		case errors.Is(g.Err, errLost):
			r.log.Debug("NVML reports a lost GPU", "index", g.Index)
		case g.Err != nil:
			r.log.Warn("NVML returned only a part of a GPU's data", "index", g.Index, "uuid", g.UUID, "err", g.Err)
		}
	}
}

// Close closes the library of Processes, unless it is in use: only the end of the
// process ends a hung call.
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
