// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import "path/filepath"

// The files that the kubelet writes when it has given devices to a container, below
// its root directory. In kubelet 1.37 (pkg/kubelet/cm/devicemanager/manager.go,
// cm/dra/manager.go, apis/podresources/server_v1.go):
//
//   - A pod is in the kubelet's list before it is admitted, and its devices are in
//     the device manager's memory before the checkpoint is written. A List after the
//     checkpoint therefore contains them. Each container causes one checkpoint.
//   - Claims are prepared after the admission. The claim checkpoint is written twice:
//     before the driver is called, without the devices, and after List contains them.
//   - Each write creates a temporary file and renames it, so the directory has to be
//     watched.
//   - The end of a pod writes no device checkpoint. It writes the claim checkpoint if
//     no other pod uses the claim.
//   - A change of the health of a device also writes the device checkpoint.
const (
	deviceDir        = "device-plugins"
	deviceCheckpoint = "kubelet_internal_checkpoint"
	claimCheckpoint  = "dra_manager_state" // in the root directory
)

// checkpointFiles returns the names of the checkpoints by directory. The kubelet's
// socket is in a directory below its root directory.
func checkpointFiles(socket string, claims bool) map[string]string {
	root := filepath.Dir(filepath.Dir(socket))
	files := map[string]string{filepath.Join(root, deviceDir): deviceCheckpoint}
	if claims {
		files[root] = claimCheckpoint
	}
	return files
}
