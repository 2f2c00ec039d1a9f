// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Device numbers of NVIDIA's driver, from nv-chrdev-numbers.h and nv-modeset.c of
// its kernel modules.
const (
	nvidiaMajor = "195"
	maxMinor    = 247 // of a GPU; nvidiactl and nvidia-modeset have higher ones
)

// parseDeviceList returns the sorted minor numbers of the GPUs in devices.list of a
// v1 cgroup. known is false if the list allows all devices, or all of the driver.
//
// The kernel lists exceptions only if the default is to deny (devcgroup_seq_show in
// security/device_cgroup.c). Slurm denies GPUs one by one. Below a cgroup that
// allows everything, as usual outside of containers, the list of a job with two
// GPUs is therefore "a *:* rwm".
func parseDeviceList(content string) (minors []int, known bool, err error) {
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 || !slices.Contains([]string{"a", "b", "c"}, fields[0]) {
			return nil, false, errors.New("devices.list has an unexpected line")
		}
		kind, access := fields[0], fields[2]
		major, minor, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(minor, 10, 32)
		if err != nil && minor != "*" {
			return nil, false, errors.New("devices.list has an unexpected device number")
		}
		granted := kind == "c" && strings.ContainsAny(access, "rw") && (major == nvidiaMajor || major == "*")
		switch {
		case kind == "a", granted && minor == "*":
			return nil, false, nil
		case granted && n <= maxMinor:
			minors = append(minors, int(n))
		}
	}
	slices.Sort(minors)
	return slices.Compact(minors), true, nil
}
