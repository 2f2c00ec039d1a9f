// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"strconv"
	"strings"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/proc"
)

// DefaultMIGMinors is the driver's list of its MIG device files,
// /dev/nvidia-caps/nvidia-capN.
const DefaultMIGMinors = "/proc/driver/nvidia-caps/mig-minors"

// migCapabilities maps N of nvidia-capN to an ID of FormMIGCapability. A GPU
// instance has device.Unknown as its ComputeInstance. The list contains all
// possible instances, so it is independent of the MIG layout.
type migCapabilities map[int]device.ID

// maxMinorsBytes bounds the file. It has about 32 × 15 × 9 lines.
const maxMinorsBytes = 1 << 20

func readMIGMinors(path string) (migCapabilities, error) {
	content, err := proc.ReadFile(path, maxMinorsBytes)
	if err != nil {
		return nil, err
	}
	return parseMIGMinors(string(content))
}

// parseMIGMinors parses lines such as "gpu0/gi1/access 12" and
// "gpu0/gi1/ci0/access 13", see "Device Nodes and Capabilities" in NVIDIA's MIG
// user guide. The number after gpu is the minor number of the GPU.
func parseMIGMinors(content string) (migCapabilities, error) {
	all := make(migCapabilities)
	for line := range strings.Lines(content) {
		name, minor, _ := strings.Cut(strings.TrimSpace(line), " ")
		instance, ok := strings.CutSuffix(name, "/access")
		n, err := strconv.ParseUint(minor, 10, 31)
		if !ok || err != nil {
			continue
		}
		gpu, rest, _ := strings.Cut(instance, "/")
		gi, ci, isCompute := strings.Cut(rest, "/")
		id := device.ID{Form: device.FormMIGCapability, ComputeInstance: device.Unknown}
		var ok1, ok2 bool
		id.Number, ok1 = cutNumber(gpu, "gpu")
		id.GPUInstance, ok2 = cutNumber(gi, "gi")
		if isCompute {
			id.ComputeInstance, ok = cutNumber(ci, "ci")
		}
		if ok && ok1 && ok2 {
			all[int(n)] = id
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the list has no MIG device files")
	}
	return all, nil
}
