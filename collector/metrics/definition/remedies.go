// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package definition

import (
	"slices"
	"strings"
)

// Remedy is what to do about a fault: the texts that the status page and the alerts share. It has
// no full stop at its end. UUID in it stands for the UUID of the GPU.
type Remedy string

// For returns the remedy for the GPU with the UUID.
func (r Remedy) For(uuid string) string { return strings.ReplaceAll(string(r), "UUID", uuid) }

// The remedies of faults that are not an action of the driver or of an XID.
const (
	RemedyLost     Remedy = "Drain the node, read the XIDs of the GPU, and restart the node; power-cycle it if the GPU does not return"
	RemedyReplace  Remedy = "Drain the GPU, run NVIDIA's field diagnostic, and request a replacement"
	RemedyPending  Remedy = "Reset the GPU when its jobs have ended: nvidia-smi --gpu-reset -i UUID"
	RemedyFabric   Remedy = "Drain the node, check nvidia-fabricmanager or nvidia-imex, and reset the GPU"
	RemedyLinks    Remedy = "Drain the node, reset its GPUs, and check the NVSwitch at the other end if the links remain down"
	RemedySwitch   Remedy = "Drain the node, restart nvidia-fabricmanager, and reboot the node if the NVSwitch remains down"
	RemedyCooling  Remedy = "Check fans, coolant, air flow and inlet temperature of the node"
	RemedyPower    Remedy = "Check the power supplies of the node and the power limit of its rack"
	RemedyDiagnose Remedy = "Drain the node and run dcgmi diag -r 2"
)

// Choice is the remedy for some values of a label.
type Choice struct {
	Label  string // empty in the last choice, which always matches
	Values []string
	Remedy Remedy
}

// Remedies are the remedies by the labels of a series. The first choice that matches counts.
type Remedies []Choice

// Choose returns the remedy for a series with the labels. An absent label is empty.
func (r Remedies) Choose(labels map[string]string) Remedy {
	for _, c := range r {
		if c.Label == "" || slices.Contains(c.Values, labels[c.Label]) {
			return c.Remedy
		}
	}
	return ""
}

// RecoveryRemedies are the remedies by the label action of gpu_recovery_action_info. The sources
// are "GPU Recovery Action" and "--gpu-reset" in https://docs.nvidia.com/deploy/nvidia-smi/.
func RecoveryRemedies() Remedies {
	of := func(action string, remedy Remedy) Choice { return Choice{"action", []string{action}, remedy} }
	return Remedies{
		of("gpu_reset", "Stop the processes on the GPU and reset it: nvidia-smi --gpu-reset -i UUID"),
		of("node_reboot", "Drain the node and reboot it; a warm reboot is sufficient"),
		of("drain_p2p", "Accept no new jobs on the GPU, end its jobs that use peer-to-peer access, and read the action again; if it remains, reset the GPU"),
		of("drain_and_reset", "Accept no new jobs on the GPU, let its jobs end, and reset it: nvidia-smi --gpu-reset -i UUID"),
		of("recover_imex_domain", "Restart the IMEX domain: nvidia-imex on all its nodes"),
		of("bus_reset", "Drain the GPU and reset its PCIe bus: nvidia-smi -r bus -i UUID; if that fails, power-cycle the node"),
		of("system_reboot", "Drain and reboot the whole system, including the other nodes of its NVLink domain"),
		{Remedy: `Read "GPU Recovery Action" of nvidia-smi -q -i UUID: the action is newer than this exporter`},
	}
}

// XIDRemedies are the remedies by the labels xid and action of the gpu_xid_code_* families. The
// actions are those of NVIDIA's catalogue, whose sheet "Guidance Classes" explains them:
// https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html.
func XIDRemedies() Remedies {
	of := func(remedy Remedy, actions ...string) Choice { return Choice{"action", actions, remedy} }
	return Remedies{
		{"xid", []string{"94"}, "Restart the application, and reset the GPU when its jobs have ended"},
		{"xid", []string{"95"}, "Drain the GPU, reset it, and discard the results of all its jobs since the error"},
		of("Drain the GPU and reset it: nvidia-smi --gpu-reset -i UUID", "RESET_GPU"),
		of("Drain the node and restart it; power-cycle it if the GPU does not return", "RESTART_BM"),
		of("Restart the virtual machine", "RESTART_VM"),
		of("Restart the application", "RESTART_APP"),
		of("Nothing to do", "IGNORE"),
		of("Collect nvidia-bug-report.sh and contact the vendor", "CONTACT_SUPPORT"),
		of("Update driver and firmware", "UPDATE_SWFW"),
		of("Check the power cables and the seat of the board", "CHECK_MECHANICALS"),
		of("Reset the GPU if UVM or vGPU is in use; otherwise there is nothing to do", "CHECK_UVM"),
		of("Follow the XID before it; if it is alone, restart nvidia-fabricmanager", "WORKFLOW_XID_45"),
		of("Drain the GPU and reset it: at once, or when its jobs have ended if XID 63 or 64 occurs with it", "WORKFLOW_XID_48"),
		of("Drain the node, decode the XID in the kernel log with NVIDIA's catalogue, reset its GPUs, and check the link", "WORKFLOW_NVLINK_ERR", "WORKFLOW_NVLINK5_ERR"),
		of("Follow the recovery action of the GPU", "XID_154"),
		of("Read the kernel log and NVIDIA's XID catalogue, and plan a check of the node", ""),
		{Remedy: "Follow the action in NVIDIA's XID catalogue"},
	}
}
