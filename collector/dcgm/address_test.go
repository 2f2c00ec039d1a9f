// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import "testing"

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		text string
		want address
	}{
		{"localhost:5555", address{target: "localhost:5555"}},
		{"node-1.example", address{target: "node-1.example:5555"}},
		{"10.0.0.7", address{target: "10.0.0.7:5555"}},
		{" 10.0.0.7:5556 ", address{target: "10.0.0.7:5556"}},
		{"[::1]:5557", address{target: "[::1]:5557"}},
		{"[::1]", address{target: "[::1]:5555"}},
		{"::1", address{target: "[::1]:5555"}},
		{"tcp://node-1", address{target: "node-1:5555"}},
		{"TCP://node-1:1234", address{target: "node-1:1234"}},
		{"tcp://[2001:db8::1]:1234", address{target: "[2001:db8::1]:1234"}},
		{"/run/nvidia/he.sock", address{target: "/run/nvidia/he.sock", unix: true}},
		{"unix:///run/he.sock", address{target: "/run/he.sock", unix: true}},
		{"vsock://2:5555", address{target: "vsock://2:5555", uri: true}},
		{"vsock://2", address{target: "vsock://2:5555", uri: true}},
	} {
		got, err := parseAddress(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("parseAddress(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{
		"", " ", ":5555", "host:", "host:0", "host:65536", "host:http", "a:b:c", "[::1", "[nonsense]:1",
		"tcp://", "tcp:///path", "http://host:1", "unix://", "unix://relative", "unix://host/path",
		"vsock://", "vsock://host:1", "vsock://2:", "ho st",
	} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("parseAddress(%q) = %+v, want an error", text, got)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"localhost:5555", "[::1]:1", "/run/x", "vsock://2:1", "tcp://h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err != nil {
			return
		}
		// What is accepted must mean the same when it is read again.
		again := a.target
		if b, err := parseAddress(again); err != nil || b != a {
			t.Errorf("parseAddress(%q) = %+v, but its target gives %+v, %v", text, a, b, err)
		}
	})
}
