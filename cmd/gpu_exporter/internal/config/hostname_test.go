// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"strings"
	"testing"
)

func TestHostnameValue(t *testing.T) {
	machine := func() (string, error) { return "machine", nil }
	tests := []struct {
		name       string
		hostengine string
		kubernetes bool
		nodeName   string
		hostname   string
		want       string
	}{
		{name: "local", want: "machine"},
		{name: "local, node named", nodeName: "node-1", want: "node-1"},
		{name: "kubernetes", kubernetes: true, nodeName: "node-1", want: "node-1"},
		{name: "kubernetes without a node name", kubernetes: true, want: "machine"},
		{name: "kubernetes, remote", kubernetes: true, hostengine: "localhost:5555", nodeName: "node-1", want: "node-1"},
		{name: "remote", hostengine: "gpu7.example.com:5555", nodeName: "node-1", want: "gpu7.example.com"},
		{name: "remote without a port", hostengine: "gpu7", want: "gpu7"},
		{name: "remote on this machine", hostengine: "localhost:5555", want: "machine"},
		{name: "remote on this machine, node named", hostengine: "localhost", nodeName: "node-1", want: "node-1"},
		{name: "loopback", hostengine: "127.0.0.1:5555", want: "machine"},
		{name: "loopback by URL", hostengine: "tcp://127.0.1.1:5555", nodeName: "node-1", want: "node-1"},
		{name: "loopback by IPv6", hostengine: "[::1]:5555", want: "machine"},
		{name: "loopback by mapped IPv6", hostengine: "[::ffff:127.0.0.1]:5555", want: "machine"},
		{name: "kubernetes, remote on a different machine", kubernetes: true, hostengine: "gpu7:5555", nodeName: "node-1", want: "node-1"},
		{name: "given", hostname: "ours", want: "ours"},
		{name: "given, with all others", hostname: "ours", kubernetes: true, hostengine: "gpu7:5555", nodeName: "node-1", want: "ours"},
		{name: "remote by tcp URL", hostengine: "tcp://10.0.0.7:5555", want: "10.0.0.7"},
		{name: "remote by IPv6", hostengine: "[fd00::7]:5555", want: "fd00::7"},
		{name: "unix socket", hostengine: "/run/dcgm.sock", nodeName: "node-1", want: "node-1"},
		{name: "unix URL", hostengine: "unix:///run/dcgm.sock", want: "machine"},
		{name: "vsock", hostengine: "vsock://2:5555", want: "machine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Live{HostnameLabel: "hostname", Hostname: tt.hostname}, Static{Hostengine: tt.hostengine, Kubernetes: tt.kubernetes, NodeName: tt.nodeName}}
			got, err := c.HostnameValue(machine)
			if err != nil || got != tt.want {
				t.Errorf("got %q, error %v; want %q", got, err, tt.want)
			}
		})
	}

	nameless := func() (string, error) { return "", errors.New("no name") }
	if got, err := (&Config{Static: Static{NodeName: "node-1"}}).HostnameValue(nameless); err != nil || got != "" {
		t.Errorf("without the label: %q, %v", got, err)
	}
	if _, err := (&Config{Live: Live{HostnameLabel: "Hostname"}}).HostnameValue(nameless); err == nil || !strings.Contains(err.Error(), "Hostname") {
		t.Errorf("error %v for a machine without a name", err)
	}
}
