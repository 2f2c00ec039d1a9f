// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/collector/xid/kmsg"
	"gpu_exporter/etc"
)

const defaultKMsg = "/dev/kmsg"

// kernelLogRetry is how often a kernel log is tried that cannot be read.
const kernelLogRetry = 10 * time.Second

// kernelLog follows the kernel log for as long as the exporter runs, whatever
// becomes of samplers. A nil one follows nothing.
type kernelLog struct {
	path     string
	required bool
	tell     func(collector.KernelXID)
	readable func() // called whenever the log is opened
	log      *slog.Logger
	retry    time.Duration

	mu      sync.Mutex
	started bool      // it was tried
	current *kmsg.Log // nil if the log was never readable
	up      bool
	lost    uint64 // in logs before the current one
}

// newKernelLog says whether a kernel log is to be followed, and which. It opens
// nothing.
func newKernelLog(cfg config, env samplerEnv, tell func(collector.KernelXID), logger *slog.Logger) (*kernelLog, error) {
	path := cfg.KMsg
	switch {
	case cfg.KernelLog == kernelLogOff:
		return nil, nil
	case path != "":
	case cfg.Simulate != "":
		// This machine's log does not tell of simulated GPUs.
		if env.inherited != nil {
			path, _ = env.inherited(envKMsg)
		}
		if path == "" && cfg.KernelLog == kernelLogOn {
			return nil, fmt.Errorf("--%s=%s: the simulated node has no kernel log: set %s to a file, or leave the flag out", optKernelLog, kernelLogOn, envKMsg)
		}
		if path == "" {
			return nil, nil
		}
		if err := createFile(path); err != nil {
			return nil, fmt.Errorf("creating the simulated node's kernel log: %w", err)
		}
	case cfg.KernelLog == kernelLogAuto && !engineIsLocal(cfg.Hostengine):
		logger.Info("The kernel log is not followed: DCGM's engine may run on another machine", "engine", cfg.Hostengine, "if_not", "--"+optKernelLog+"="+kernelLogOn)
		return nil, nil
	}
	return &kernelLog{
		path: cmp.Or(path, defaultKMsg), required: cfg.KernelLog == kernelLogOn,
		tell: tell, readable: func() {}, log: logger, retry: kernelLogRetry,
	}, nil
}

// createFile makes an empty file unless there is one.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	return f.Close()
}

// engineIsLocal says whether the engine surely runs on this machine.
func engineIsLocal(address string) bool {
	if address == "" {
		return true
	}
	h, err := collector.ParseHostengine(address)
	if err != nil {
		return false // which newConfig has reported
	}
	ip, err := netip.ParseAddr(h.Host)
	return h.Unix || h.Host == "localhost" || err == nil && ip.IsLoopback()
}

// engineReadsKernelLog says whether DCGM's engine may read the kernel log. An
// embedded one may do what we may.
func engineReadsKernelLog(cfg config) bool {
	if cfg.Hostengine != "" {
		return true
	}
	if cfg.Simulate != "" {
		return false
	}
	l, err := kmsg.Open(defaultKMsg)
	if err == nil {
		_ = l.Close() // opened for reading
	}
	return err == nil
}

// open opens the log at its end. It is an error that it cannot be read only if
// somebody asked for it; else follow tries again.
func (k *kernelLog) open() error {
	if k == nil {
		return nil
	}
	l, err := kmsg.Open(k.path)
	k.mu.Lock()
	k.started = true
	k.mu.Unlock()
	switch {
	case err == nil:
		k.replace(l)
		k.log.Info(countedFromBoth, "file", k.path)
	case k.required:
		return fmt.Errorf("%w: run with CAP_SYSLOG and with the log mounted, or without --%s=%s", err, optKernelLog, kernelLogOn)
	default:
		k.log.Info("XIDs are counted from DCGM alone until the kernel log is readable", "err", err)
	}
	return nil
}

const countedFromBoth = "XIDs are counted from DCGM and from the kernel log"

// examine says whether the log can be read.
func (k *kernelLog) examine(d *diagnosis) {
	if k == nil {
		return
	}
	l, err := kmsg.Open(k.path)
	if err == nil {
		_ = l.Close() // opened for reading
		d.add("kernel log", k.path, healthy, "XIDs are counted from it, too", "")
		return
	}
	state := noted
	if k.required {
		state = broken
	}
	d.add("kernel log", k.path, state, err.Error(), "run with CAP_SYSLOG, and in a container with the device, to count XIDs that DCGM misses")
}

// replace makes l the log that is followed.
func (k *kernelLog) replace(l *kmsg.Log) {
	k.readable()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		k.lost += k.current.Lost()
		_ = k.current.Close() // opened for reading
	}
	k.current, k.up = l, true
}

func (k *kernelLog) opened() *kmsg.Log {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current
}

func (k *kernelLog) close() {
	if l := k.opened(); l != nil {
		_ = l.Close() // opened for reading
	}
}

// status implements collector.FamiliesConfig.KernelLog.
func (k *kernelLog) status() (collector.KernelLogStatus, bool) {
	if k == nil {
		return collector.KernelLogStatus{}, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := collector.KernelLogStatus{Up: k.up, Lost: k.lost}
	if k.current != nil {
		s.Lost += k.current.Lost()
	}
	return s, k.started
}

// follow tells of XIDs until ctx ends. A log that cannot be opened, or fails, is
// tried again, and then read from its end: what it has from before was told by DCGM,
// or is lost, and nothing counts twice.
func (k *kernelLog) follow(ctx context.Context) error {
	if k.opened() == nil {
		first := k.reopen(ctx)
		if first == nil {
			return nil
		}
		k.replace(first)
		k.log.Info(countedFromBoth, "file", k.path)
	}
	for {
		err := k.opened().Follow(ctx, func(x kmsg.XID) { k.tell(kernelXID(x, time.Now())) })
		if err == nil {
			return nil
		}
		k.mu.Lock()
		k.up = false
		k.mu.Unlock()
		k.log.Warn("The kernel log cannot be followed: XIDs are counted from DCGM alone until it can", "file", k.path, "err", err)
		next := k.reopen(ctx)
		if next == nil {
			return nil
		}
		k.replace(next)
		k.log.Info("The kernel log is followed again", "file", k.path)
	}
}

// reopen opens the log as soon as that is possible. It returns nil if ctx ends
// before.
func (k *kernelLog) reopen(ctx context.Context) *kmsg.Log {
	retry := time.NewTicker(k.retry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
		}
		l, err := kmsg.Open(k.path)
		if err == nil {
			return l
		}
		k.log.Debug("The kernel log is still not readable", "err", err)
	}
}

// kernelXID gives the record the time at which it was read, which is a moment
// after it was written. The kernel's own clock, which stands in the record, is
// off by minutes after a month and stops while the machine sleeps.
func kernelXID(x kmsg.XID, now time.Time) collector.KernelXID {
	return collector.KernelXID{
		Domain: x.Domain, Bus: x.Bus, Device: x.Device,
		Code: x.Code, GPUInstance: x.GPUInstance, Time: now,
		PID: x.PID, Process: x.Process, Text: x.Text,
	}
}

// loadXIDCatalogue returns the built-in catalogue with the changes of the file
// that the user gave.
func loadXIDCatalogue(cfg config) (*collector.XIDCatalogue, error) {
	xids, err := collector.ParseXIDCatalogue(etc.XIDCatalogue(), etc.XIDCatalogueName)
	if err != nil || cfg.XIDCatalogue == "" {
		return xids, err
	}
	f, err := os.Open(cfg.XIDCatalogue)
	if err != nil {
		return nil, fmt.Errorf("reading the XID catalogue: %w: check the path given with --%s", err, optXIDCatalogue)
	}
	defer f.Close()
	changes, err := collector.ParseXIDCatalogue(f, cfg.XIDCatalogue)
	if err != nil {
		return nil, err
	}
	return xids.With(changes), nil
}
