// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid/kmsg"
)

// newKernelLog returns a follower of the kernel log that reports XIDs to the node,
// or nil if none is to be followed. It opens nothing.
func newKernelLog(cfg *config.Static, env sampler.Environment, node *state.Node, logger *slog.Logger) (*kmsg.Follower, error) {
	path := cfg.KMsg
	switch {
	case cfg.KernelLog == config.KernelLogOff:
		return nil, nil
	case path != "":
	case cfg.Simulate != "": // this machine's log has no simulated GPUs
		path = env.KernelLog
		if path == "" && cfg.KernelLog == config.KernelLogOn {
			return nil, errors.New("--xid.kernel-log=on: the simulated node has no kernel log: set DCGMSIM_KMSG to a file, or omit the flag")
		}
		if path == "" {
			return nil, nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return nil, fmt.Errorf("creating the simulated node's kernel log: %w", err)
		}
		f.Close()
	case cfg.KernelLog == config.KernelLogAuto && !engineIsLocal(cfg.Hostengine):
		logger.Info("The kernel log is not followed: DCGM's engine may run on another machine", "engine", cfg.Hostengine, "if_not", "--xid.kernel-log=on")
		return nil, nil
	}
	return kmsg.NewFollower(kmsg.FollowerConfig{
		Path: cmp.Or(path, config.DefaultKMsg), Required: cfg.KernelLog == config.KernelLogOn,
		Readable: node.SetKernelLog,
		Deliver:  node.AddKernelXID,
		Logger:   logger,
	}), nil
}

func (e *exporter) kernelLogStatus() (model.KernelLogStatus, bool) {
	up, lost, ok := e.kernelLog.Status()
	return model.KernelLogStatus{Up: up, Lost: lost}, ok
}

// engineIsLocal reports whether the engine is known to run on this machine.
func engineIsLocal(address string) bool {
	if address == "" {
		return true
	}
	h, err := wire.ParseHostengine(address)
	if err != nil {
		return false // package config has reported it
	}
	ip, err := netip.ParseAddr(h.Host)
	return h.Unix || h.Host == "localhost" || err == nil && ip.IsLoopback()
}

// engineReadsKernelLog reports whether DCGM's engine may read the kernel log. An
// embedded engine has the exporter's permissions.
func engineReadsKernelLog(cfg *config.Static) bool {
	if cfg.Hostengine != "" {
		return true
	}
	if cfg.Simulate != "" {
		return false
	}
	l, err := kmsg.Open(config.DefaultKMsg)
	if err != nil {
		return false
	}
	_ = l.Close() // opened for reading
	return true
}

// KernelLog implements doctor.Node: it returns the path of the kernel log, empty if
// none is followed, and why it cannot be read.
func (e *exporter) KernelLog() (path string, err error) {
	if e.kernelLog == nil {
		return "", nil
	}
	l, err := kmsg.Open(e.kernelLog.Path)
	if err == nil {
		_ = l.Close() // opened for reading
	}
	return e.kernelLog.Path, err
}
