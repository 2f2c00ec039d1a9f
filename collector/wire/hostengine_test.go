// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"
)

func TestParseHostengine(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Hostengine
	}{
		{"localhost:5555", Hostengine{Target: "localhost:5555", Host: "localhost"}},
		{"node-1.example", Hostengine{Target: "node-1.example:5555", Host: "node-1.example"}},
		{"10.0.0.7", Hostengine{Target: "10.0.0.7:5555", Host: "10.0.0.7"}},
		{" 10.0.0.7:5556 ", Hostengine{Target: "10.0.0.7:5556", Host: "10.0.0.7"}},
		{"[::1]:5557", Hostengine{Target: "[::1]:5557", Host: "::1"}},
		{"[::1]", Hostengine{Target: "[::1]:5555", Host: "::1"}},
		{"::1", Hostengine{Target: "[::1]:5555", Host: "::1"}},
		{"fd00::2", Hostengine{Target: "[fd00::2]:5555", Host: "fd00::2"}},
		{"fd00::2:a", Hostengine{Target: "[fd00::2:a]:5555", Host: "fd00::2:a"}},
		{"fd00:0:0:0:0:0:0:2", Hostengine{Target: "[fd00:0:0:0:0:0:0:2]:5555", Host: "fd00:0:0:0:0:0:0:2"}},
		{"[fd00::2:5555]", Hostengine{Target: "[fd00::2:5555]:5555", Host: "fd00::2:5555"}},
		{"[fd00::2]:5555", Hostengine{Target: "[fd00::2]:5555", Host: "fd00::2"}},
		{"tcp://node-1", Hostengine{Target: "node-1:5555", Host: "node-1"}},
		{"TCP://node-1:1234", Hostengine{Target: "node-1:1234", Host: "node-1"}},
		{"tcp://[2001:db8::1]:1234", Hostengine{Target: "[2001:db8::1]:1234", Host: "2001:db8::1"}},
		{"/run/nvidia/he.sock", Hostengine{Target: "/run/nvidia/he.sock", Unix: true}},
		{"unix:///run/he.sock", Hostengine{Target: "/run/he.sock", Unix: true}},
		{"vsock://2:5555", Hostengine{Target: "vsock://2:5555", URI: true}},
		{"vsock://2", Hostengine{Target: "vsock://2:5555", URI: true}},
	} {
		got, err := ParseHostengine(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("ParseHostengine(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{
		"", " ", ":5555", "host:", "host:0", "host:65536", "host:http", "a:b:c", "[::1", "[nonsense]:1",
		"tcp://", "tcp:///path", "http://host:1", "unix://", "unix://relative", "unix://host/path",
		"vsock://", "vsock://host:1", "vsock://2:", "ho st", "tcp://\rP", "host\u00a0:1", "ho\x00st",
		"fd00::2:5555", "tcp://fd00::2:5555", "fe80::1%eth0:5555",
	} {
		if got, err := ParseHostengine(text); err == nil {
			t.Errorf("ParseHostengine(%q) = %+v, want an error", text, got)
		}
	}
}

// An IPv6 address and a port without brackets look like a longer address.
func TestAmbiguousHostengine(t *testing.T) {
	const want = `"fd00::2:5555" can mean an address, or an address and a port: write [fd00::2]:5555 for the port, or [fd00::2:5555] for the address`
	if _, err := ParseHostengine("fd00::2:5555"); err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

func FuzzParseHostengine(f *testing.F) {
	for _, s := range []string{"localhost:5555", "[::1]:1", "/run/x", "vsock://2:1", "tcp://h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseHostengine(text)
		if err != nil {
			return
		}
		// Parsing the target again returns the same address.
		again := a.Target
		if b, err := ParseHostengine(again); err != nil || b != a {
			t.Errorf("ParseHostengine(%q) = %+v, but its target gives %+v, %v", text, a, b, err)
		}
	})
}
