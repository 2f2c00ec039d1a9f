// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"path/filepath"
	"slices"
	"strings"

	"gpu_exporter/podmapper/internal/proc"
)

// OwnContainer returns the ID of the container in which this process runs. It is
// empty outside of containers, and if it is unknown.
//
// The process's cgroup does not have it: with cgroup v2 an engine creates a cgroup
// namespace, in which the path is "/". But Docker and Podman mount files such as
// /etc/hostname from a directory whose name is the container's ID.
func OwnContainer() string {
	content, err := proc.ReadFile(filepath.Join(proc.DefaultRoot, "self", "mountinfo"), maxMountinfoBytes)
	if err != nil {
		return ""
	}
	return ownContainer(string(content))
}

// maxMountinfoBytes bounds the mounts of the exporter's own container.
const maxMountinfoBytes = 4 << 20

// ownContainer parses proc_pid_mountinfo(5).
func ownContainer(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !slices.Contains([]string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}, fields[4]) {
			continue
		}
		for part := range strings.SplitSeq(fields[3], "/") {
			if len(part) == idLength && isID(part) {
				return part
			}
		}
	}
	return ""
}
