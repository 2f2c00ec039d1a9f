// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import "time"

// The thresholds of the alerts. "Ours" means that no public source has a number.
const (
	// xidWindow is how long an XID counts as new. The alerts of nvidia_gpu_exporter use 10 min.
	xidWindow = 10 * time.Minute
	// xidRepeats is the number of changes of an XID's time in xidRepeatWindow, after which
	// NVSentinel recommends support. The first event changes nothing, so 4 changes are 5
	// events. Events between two scrapes count once, which joins bursts.
	xidRepeats      = 4
	xidRepeatWindow = 24 * time.Hour
	// applicationXIDRepeats is the same for XIDs 13 and 31. NVSentinel diagnoses a GPU after 2
	// events; ours is 3, because a program that a restart repeats has 2 soon.
	applicationXIDRepeats = 2

	// thermalMarginCelsius is the margin at which a GPU exceeds its own maximum operating
	// temperature ("GPU Max Operating T.Limit Temp" of nvidia-smi -q is 0). Hardware slowdown
	// follows 2 to 3 degrees below (NVSentinel, ADR 042).
	thermalMarginCelsius = 0
	// hotGPUCelsius is the limit of Azure's healthagent, and applies to GPUs that report
	// neither a margin nor a slowdown temperature.
	hotGPUCelsius = 93
	// hotMemoryCelsius is the critical limit of VESSL's node check.
	hotMemoryCelsius = 95
	// throttledRatio is the part of throttledWindow with reduced clocks that is a loss worth a
	// repair: 45 s of 15 min. Ours.
	throttledRatio  = 0.05
	throttledWindow = 15 * time.Minute

	// linkQuiet is the time after a start of the exporter without alerts about NVLinks: links
	// train after a boot (NVSentinel issue 1701: 214 of 288 nodes reported links as down after
	// planned restarts, and none was faulty).
	linkQuiet = 15 * time.Minute
	// linkErrorsPerSecond is a hundredth of the CRC errors that DCGM's health check accepts on
	// one link (DcgmGPUHardwareLimits.h: 100 per second). Ours.
	linkErrorsPerSecond = 1
	// pcieReplaysPerMinute is the limit of DCGM's health check for 16 lanes of generation 5. It is
	// 16 for generation 4 and 8 for generation 3 (GetExpectedPcieReplayRate in
	// DcgmHealthWatch.cpp: one error in 10^12 bits), but no family has the generation.
	pcieReplaysPerMinute = 31
	// errorWindow is the window of the rates of errors of links and of PCIe.
	errorWindow = 15 * time.Minute
	// loadedRatio is the busy part of loadWindow from which the width of a PCIe link counts:
	// some systems reduce it while a GPU is idle. Ours.
	loadedRatio = 0.1
	loadWindow  = 10 * time.Minute
	// eccWindow is how long a new uncorrectable error counts. Ours.
	eccWindow = time.Hour

	// lostWindow is how long a smaller number of GPUs than before counts.
	lostWindow = time.Hour

	// IdleRatio is the busy part of loadWindow below which a held GPU is idle. Common limits
	// are 2 to 5 % of utilization (gpu-usage-audit, l9gpu); an H100 without work has 0.
	IdleRatio = 0.01
	// stalledBusyRatio and stalledPowerRatio are a job that waits: busy without use of power
	// (ClusterMAX names the check; the numbers are ours).
	stalledBusyRatio  = 0.9
	stalledPowerRatio = 0.4
	// inefficientRatio is the part of held time in which a namespace's GPUs compute, over
	// inefficientWindow. Alibaba's PAI cluster has a mean of 10.5 %. Ours.
	inefficientRatio  = 0.2
	inefficientWindow = 24 * time.Hour
	// inefficientGPUHours is the time held in the window from which the ratio matters: one GPU
	// for the whole day. Ours.
	inefficientGPUHours = 24

	// samplerRestarts in restartWindow is a crash loop: one crash is harmless. Ours.
	samplerRestarts = 3
	restartWindow   = time.Hour
	// clockSkew is the difference between the node's and Prometheus' clocks from which alerts
	// about XIDs are wrong: half of xidWindow.
	clockSkew = xidWindow / 2
	// jobWindow is how long a job counts as one of exporters after its last exporter went down.
	// Ours.
	jobWindow = 24 * time.Hour
	// lossWindow is how long lost records of the kernel log, and a missing library, count.
	lossWindow = 15 * time.Minute
)
