// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package health

import "testing"

func TestPeerPath(t *testing.T) {
	for _, c := range []struct {
		v     uint64
		path  string
		links int
	}{
		{0, "unknown", 0}, {0x1, "BOARD", 0}, {0x2, "PIX", 0}, {0x8, "PHB", 0}, {0x20, "SYS", 0}, {0x210, "NODE", 2},
		{0x2000000 | 0x20, "SYS", 18}, {0x20000000000, "unknown", 34}, {0x40, "unknown", 0},
	} {
		if path, links := peerPath(c.v); path.String() != c.path || links != c.links {
			t.Errorf("%#x is %v with %d links, want %s with %d", c.v, path, links, c.path, c.links)
		}
	}
}
