// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package definition

// Condition is a state of a GPU that a family reports by a value larger than Above.
type Condition struct {
	Family *Family
	Above  float64
}

// Unhealthy are the conditions that make a GPU unhealthy: it answers, but must get no new work.
// The status page and the record gpu:state:code agree on them. XIDs are not among them, because
// they are events: no value reports that their cause is gone.
func Unhealthy() []Condition {
	return []Condition{
		{&GPURecoveryAction, 0},
		{&GPUHealthStatus, 1}, // 1 is a warning
		{&GPUFabricState, 3},  // 1 and 2 are states on the way to registration, which is 0
		{&GPUFabricHealth, 0},
		{&GPURowRemapFailed, 0},
		{&GPUMemoryUnrepairable, 0},
		{&GPUSRAMThresholdExceeded, 0}, // DCGM_FR_SRAM_THRESHOLD has the severity isolate (dcgm_errors.c)
	}
}
