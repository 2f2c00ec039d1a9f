// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/collector"
	"gpu_exporter/collector/xid/kmsg"
	"gpu_exporter/etc"
)

const defaultKMsg = "/dev/kmsg"

// newKernelLog returns a follower of the kernel log that reports XIDs to the node,
// or nil if none is to be followed. It opens nothing.
func newKernelLog(cfg config, env sampler.Environment, node *collector.Node, logger *slog.Logger) (*kmsg.Follower, error) {
	path := cfg.KMsg
	switch {
	case cfg.KernelLog == kernelLogOff:
		return nil, nil
	case path != "":
	case cfg.Simulate != "": // this machine's log has no simulated GPUs
		path = env.KernelLog
		if path == "" && cfg.KernelLog == kernelLogOn {
			return nil, fmt.Errorf("--%s=%s: the simulated node has no kernel log: set DCGMSIM_KMSG to a file, or omit the flag", optKernelLog, kernelLogOn)
		}
		if path == "" {
			return nil, nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return nil, fmt.Errorf("creating the simulated node's kernel log: %w", err)
		}
		f.Close()
	case cfg.KernelLog == kernelLogAuto && !engineIsLocal(cfg.Hostengine):
		logger.Info("The kernel log is not followed: DCGM's engine may run on another machine", "engine", cfg.Hostengine, "if_not", "--"+optKernelLog+"="+kernelLogOn)
		return nil, nil
	}
	return kmsg.NewFollower(kmsg.FollowerConfig{
		Path: cmp.Or(path, defaultKMsg), Required: cfg.KernelLog == kernelLogOn,
		Opened: node.ExpectKernelSamples,
		Tell:   func(x kmsg.XID) { node.AddKernelXID(kernelXID(x, time.Now())) },
		Logger: logger,
	}), nil
}

// kernelXID converts an XID. Its time is when it was read, a moment after it was
// written: the kernel's clock in the record is off by minutes after a month, and
// stops while the machine sleeps.
func kernelXID(x kmsg.XID, now time.Time) collector.KernelXID {
	return collector.KernelXID{
		Domain: x.Domain, Bus: x.Bus, Device: x.Device,
		Code: x.Code, GPUInstance: x.GPUInstance, Time: now,
		PID: x.PID, Process: x.Process, Text: x.Text,
	}
}

func (e *exporter) kernelLogStatus() (collector.KernelLogStatus, bool) {
	up, lost, ok := e.kernelLog.Status()
	return collector.KernelLogStatus{Up: up, Lost: lost}, ok
}

// engineIsLocal reports whether the engine is known to run on this machine.
func engineIsLocal(address string) bool {
	if address == "" {
		return true
	}
	h, err := collector.ParseHostengine(address)
	if err != nil {
		return false // newConfig has reported it
	}
	ip, err := netip.ParseAddr(h.Host)
	return h.Unix || h.Host == "localhost" || err == nil && ip.IsLoopback()
}

// engineReadsKernelLog reports whether DCGM's engine may read the kernel log. An
// embedded engine has the exporter's permissions.
func engineReadsKernelLog(cfg config) bool {
	if cfg.Hostengine != "" {
		return true
	}
	if cfg.Simulate != "" {
		return false
	}
	l, err := kmsg.Open(defaultKMsg)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// examineKernelLog reports whether the log can be read.
func examineKernelLog(k *kmsg.Follower, d *diagnosis) {
	if k == nil {
		return
	}
	l, err := kmsg.Open(k.Path)
	if err == nil {
		l.Close()
		d.add("kernel log", k.Path, healthy, "XIDs are counted from it, too", "")
		return
	}
	state := noted
	if k.Required {
		state = broken
	}
	d.add("kernel log", k.Path, state, err.Error(), "run with CAP_SYSLOG, and in a container with the device, to count XIDs that DCGM misses")
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
