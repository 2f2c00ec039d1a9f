// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"gpu_exporter/collector"
)

// hostnameValue is the value of the hostname label, by dcgm-exporter's rule
// (internal/pkg/hostname): a node's name from $NODE_NAME, else the machine's;
// for a remote engine without Kubernetes the host in its address, which may
// well be localhost. An engine behind a unix or vsock socket is on this machine,
// so it gets the local name; dcgm-exporter would put the path there.
func hostnameValue(c config, hostname func() (string, error)) (string, error) {
	if c.HostnameLabel == "" {
		return "", nil
	}
	if c.Hostengine != "" && !c.Kubernetes {
		h, err := collector.ParseHostengine(c.Hostengine)
		if err != nil {
			return "", fmt.Errorf("reading the address of the host engine: %w", err)
		}
		if h.Host != "" {
			return h.Host, nil
		}
	}
	if c.NodeName != "" {
		return c.NodeName, nil
	}
	name, err := hostname()
	if err != nil {
		return "", fmt.Errorf("reading the machine's name for the %s label: %w (set NODE_NAME, or leave the label out with --%s)", c.HostnameLabel, err, optNoHostname)
	}
	return name, nil
}
