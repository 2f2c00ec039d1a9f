// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"math"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

const (
	remedyLost    = "Drain the node and restart it. If the GPU stays lost, contact the vendor"
	remedyReset   = "Stop the processes on the GPU and reset it: nvidia-smi --gpu-reset"
	remedyRestart = "Drain the node and restart it"
	remedyFabric  = "Check the service nvidia-fabricmanager"
	remedyRMA     = "Drain the node and have the GPU examined by the vendor"
)

// recoveryRemedies are in the order of [field.RecoveryActions].
func recoveryRemedies() []string {
	return []string{
		remedyReset,
		remedyRestart,
		"Stop the applications that use peer-to-peer access, and reset the GPU when it is idle",
		"Let no new work start on the GPU, and reset it when it is idle",
		"Restart the IMEX domain of the node",
		"Drain the node and reset the bus of the GPU, or restart the node",
		remedyRestart,
	}
}

func recoveryProblem(action float64) Problem {
	n, names := int(action)-1, field.RecoveryActions()
	if action != math.Trunc(action) || n < 0 || n >= len(names) {
		return Problem{Recovery, fmt.Sprintf("The driver requests recovery action %v", action), "See the driver's documentation of this action"}
	}
	return Problem{Recovery, "The driver requests the recovery action " + names[n], recoveryRemedies()[n]}
}

// xidRemedy returns NVIDIA's action of an XID in words.
func xidRemedy(x xid.XID) string {
	switch x.Action {
	case "RESET_GPU":
		return remedyReset
	case "RESTART_BM":
		return remedyRestart
	case "RESTART_VM":
		return "Restart the virtual machine"
	case "RESTART_APP":
		return "Restart the application"
	case "IGNORE":
		return "Nothing to do"
	case "CONTACT_SUPPORT":
		return "Contact the vendor"
	case "UPDATE_SWFW":
		return "Update driver and firmware"
	case "CHECK_MECHANICALS":
		return "Check the power cables and the seat of the board"
	case "CHECK_UVM":
		return "See the kernel log for the messages of nvidia-uvm"
	case "WORKFLOW_XID_48":
		return "Memory error: follow the XIDs 63, 64, 94 or 95 next to it. Without one, drain the GPU and reset it"
	case "WORKFLOW_NVLINK_ERR", "WORKFLOW_NVLINK5_ERR":
		return "NVLink error: drain the GPU and reset it. If it returns, contact the vendor"
	case "XID_154":
		return "Follow the recovery action of the GPU"
	case "":
		if x.Severity != xid.Application {
			return "See the kernel log around its time"
		}
		return ""
	}
	return "See " + x.Action + " in NVIDIA's catalogue of XIDs"
}

// defect is a field of a GPU that reports a defect with any value but 0.
type defect struct {
	field        model.FieldID
	state        State
	text, remedy string
}

func defects() []defect {
	return []defect{
		{395, Unhealthy, "A memory row could not be remapped", remedyRMA},
		{1507, Unhealthy, "The memory has an error that cannot be repaired", remedyRMA},
		{346, Unhealthy, "The SRAM has more errors than its threshold", remedyRMA},
		{396, Warning, "A memory row waits for remapping", "Reset the GPU when it is idle"},
		{392, Warning, "A memory page waits for retirement", "Reset the GPU when it is idle"},
	}
}

// slowdowns are the reasons of reduced clocks that call for attention. The remaining ones
// are normal under load, or settings.
func slowdowns() map[string]Problem {
	return map[string]Problem{
		"hw_slowdown":    {Warning, "The hardware reduces the clocks", "Check the cooling and the power supply"},
		"sw_thermal":     {Warning, "The driver reduces the clocks because of the temperature", "Check the cooling"},
		"hw_thermal":     {Warning, "The hardware reduces the clocks because of the temperature", "Check the cooling"},
		"hw_power_brake": {Warning, "The power brake reduces the clocks", "Check the power supply of the node"},
	}
}

// addHardware adds the problems that fields of the GPU at position i report.
func (b *builder) addHardware(g *GPU, i int) {
	add := func(p Problem) { g.Problems = append(g.Problems, p) }
	if action := b.value(i, 1523); action.Value != nil && *action.Value > 0 {
		add(recoveryProblem(*action.Value))
	}
	for _, f := range defects() {
		if v := b.value(i, f.field); v.Value != nil && *v.Value > 0 {
			add(Problem{f.state, f.text, f.remedy})
		}
	}
	known := slowdowns()
	specific := false
	for _, reason := range g.ClockReasons {
		specific = specific || reason == "hw_thermal" || reason == "hw_power_brake"
	}
	for _, reason := range g.ClockReasons {
		if p, ok := known[reason]; ok && (reason != "hw_slowdown" || !specific) {
			add(p)
		}
	}
	// dcgmFabricManagerStatus_t in dcgm_structs.h: 1 is not started, 2 in progress, 4 a failure.
	switch v := b.value(i, 170); {
	case v.Value == nil:
	case *v.Value == 1 || *v.Value == 2:
		add(Problem{Warning, "The fabric manager has not set up the GPU yet", remedyFabric})
	case *v.Value == 4:
		add(Problem{Unhealthy, "The fabric manager failed to set up the GPU", remedyFabric})
	}
	if v := b.value(i, 175); v.Value != nil && *v.Value > 1 { // NVML_GPU_FABRIC_HEALTH_SUMMARY_* in nvml.h: 1 is healthy
		add(Problem{Unhealthy, "The NVLink fabric of the GPU is not healthy", remedyFabric})
	}
	if g.NVLinks != nil && g.NVLinks.Down > 0 {
		add(Problem{Warning, fmt.Sprintf("%d of %d NVLinks are down", g.NVLinks.Down, g.NVLinks.Up+g.NVLinks.Down), "Check the NVLinks with nvidia-smi nvlink -s, and the kernel log"})
	}
}

// commands are examples of what a simulated node can do.
func commands() []Command {
	return []Command{
		{"xid 79 gpu 0", "DCGM reports an XID"},
		{"lose gpu 0", "GPU 0 falls off the bus"},
		{"return gpu 0", "GPU 0 is back"},
		{"heat gpu 0 40", "GPU 0 is 40 degrees hotter"},
		{"reason gpu 0 hw_power_brake on", "the power brake reduces the clocks of GPU 0"},
		{"remap gpu 0 pending 1", "a memory row waits for remapping"},
		{"recovery gpu 0 reset", "the driver requests a reset"},
		{"health gpu 0 memory fail", "DCGM's health check fails"},
		{"load gpu all util 90", "all GPUs are busy"},
		{"hang sampling", "the driver hangs"},
		{"engine lost", "DCGM's engine fails"},
		{"clear", "removes all faults"},
	}
}
