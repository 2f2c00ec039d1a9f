// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/collector"
)

// kernelLogPath returns the path of the kernel log with the XIDs of the node's GPUs, or
// "" if none is followed.
func kernelLogPath(cfg *config.Static, env sampler.Environment, logger *slog.Logger) (string, error) {
	_, isLocal := cfg.Engine()
	switch {
	case cfg.KernelLog == config.KernelLogOff:
		return "", nil
	case cfg.KMsg != "":
		return cfg.KMsg, nil
	case cfg.Simulate != "": // this machine's log has no simulated GPUs
		if env.KernelLog == "" {
			if cfg.KernelLog == config.KernelLogOn {
				return "", errors.New("--xid.kernel-log=on: the simulated node has no kernel log: set DCGMSIM_KMSG to a file, or omit the flag")
			}
			return "", nil
		}
		f, err := os.OpenFile(env.KernelLog, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return "", fmt.Errorf("creating the simulated node's kernel log: %w", err)
		}
		f.Close()
		return env.KernelLog, nil
	case cfg.KernelLog == config.KernelLogAuto && !isLocal:
		logger.Info("The kernel log is not followed: DCGM's engine may run on another machine", "engine", cfg.Hostengine, "if_not", "--xid.kernel-log=on")
		return "", nil
	}
	return config.DefaultKMsg, nil
}

// engineReadsKernelLog reports whether DCGM's engine may read the kernel log, which it
// does at the default path only. An embedded engine has the exporter's permissions.
func engineReadsKernelLog(cfg *config.Static) bool {
	return cfg.Hostengine != "" || cfg.Simulate == "" && collector.ProbeKernelLog(config.DefaultKMsg) == nil
}
