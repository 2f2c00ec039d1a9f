// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Device numbers of NVIDIA's driver, see nv-chrdev-numbers.h and nv-modeset.c of
// its kernel modules.
const (
	nvidiaMajor = "195"
	maxMinor    = 247 // of a GPU; nvidiactl and nvidia-modeset come after it
)

// parseDeviceList gives the minor numbers of the GPUs in the devices.list of a
// cgroup v1, sorted. told is false if the list does not tell GPUs apart: it
// allows all devices, or all of the driver.
//
// The kernel writes a list of exceptions only where the default is to deny
// (devcgroup_seq_show in security/device_cgroup.c). Slurm denies a job the GPUs
// that it has not got, one by one, so that under a cgroup that allows
// everything, which is usual outside of containers, the list of a job is
// "a *:* rwm" although it may use two GPUs only.
func parseDeviceList(content string) (minors []int, told bool, err error) {
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 {
			return nil, false, fmt.Errorf("list of devices: line %q does not have three fields", strings.TrimSpace(line))
		}
		major, minor, ok := strings.Cut(fields[1], ":")
		if !ok {
			return nil, false, fmt.Errorf("list of devices: %q is no device number", fields[1])
		}
		switch fields[0] {
		case "a":
			return nil, false, nil
		case "b":
			continue
		case "c":
		default:
			return nil, false, fmt.Errorf("list of devices: %q is no kind of device", fields[0])
		}
		if !strings.ContainsAny(fields[2], "rw") || major != nvidiaMajor && major != "*" {
			continue
		}
		if minor == "*" {
			return nil, false, nil
		}
		n, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return nil, false, fmt.Errorf("list of devices: %q is no device number", fields[1])
		}
		if n <= maxMinor {
			minors = append(minors, int(n))
		}
	}
	slices.Sort(minors)
	return slices.Compact(minors), true, nil
}
