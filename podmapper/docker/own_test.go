// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import "testing"

func TestOwnContainer(t *testing.T) {
	const id = "4fa6e0f0c8be4f2a8a7ab2e1f7f2f0f44fa6e0f0c8be4f2a8a7ab2e1f7f2f0f4"
	for _, tc := range []struct{ name, mountinfo, want string }{
		{"Docker", `1129 1038 0:130 / / rw,relatime master:428 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A
1151 1129 259:1 /var/lib/docker/containers/` + id + `/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/nvme0n1p1 rw
1152 1129 259:1 /var/lib/docker/containers/` + id + `/hostname /etc/hostname rw,relatime - ext4 /dev/nvme0n1p1 rw
`, id},
		{"Podman", `812 790 0:25 /containers/storage/overlay-containers/` + id + `/userdata/hosts /etc/hosts rw,nosuid - tmpfs tmpfs rw
`, id},
		{"Kubernetes", `812 790 259:1 /var/lib/kubelet/pods/7ac7a5c1-7c4d-4a6e-9d5a-0d2f3e4b5c6d/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
`, ""},
		{"host with mounts of containers", `95 29 0:50 / /var/lib/docker/containers/` + id + `/mounts/shm rw - tmpfs shm rw
`, ""},
		{"empty", "", ""},
		{"malformed", "/etc/hosts\n\x00\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ownContainer(tc.mountinfo); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
