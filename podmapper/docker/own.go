// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// OwnContainer gives the ID of the container that this process runs in, or an
// empty text outside of containers and where it cannot be told.
//
// The process's cgroup does not tell: with cgroup v2 an engine gives a container
// a namespace of its own, in which the path is "/". But Docker and Podman mount
// files from a directory with the container's ID over /etc/hostname and others.
func OwnContainer() string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	return ownContainer(f)
}

// ownContainer reads the format of proc_pid_mountinfo(5).
func ownContainer(mountinfo io.Reader) string {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		switch root, mountPoint := fields[3], fields[4]; mountPoint {
		case "/etc/hostname", "/etc/hosts", "/etc/resolv.conf":
			for part := range strings.SplitSeq(root, "/") {
				if len(part) == idLength && isID(part) {
					return part
				}
			}
		}
	}
	return ""
}
