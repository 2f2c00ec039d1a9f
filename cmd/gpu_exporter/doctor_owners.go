// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
)

// examineOwners queries every source of owners once, and resolves the device IDs.
func (e *exporter) examineOwners(ctx context.Context, d *diagnosis) {
	if !e.cfg.Kubernetes {
		if _, err := os.Stat(e.cfg.KubeletSocket); err == nil {
			d.add("kubelet", e.cfg.KubeletSocket, noted, "exists, but pods are not mapped", "give --kubernetes")
		}
	}
	stop := e.owners.Settle(ctx)
	defer stop()
	inv, _ := e.node.Newest()
	r := e.owners.Examine(inv)
	for _, f := range r.Findings {
		d.add(f.About, f.Name, verdict(f.State), f.Detail, f.Advice)
	}
	for _, f := range r.Devices {
		names := []string{}
		for _, i := range f.Entities {
			names = append(names, entityName(inv, i))
		}
		d.Devices = append(d.Devices, deviceFinding{
			ID: f.ID, Namespace: f.Namespace, Pod: f.Pod, Container: f.Container, Resource: f.Resource,
			Form: f.Form, Devices: names, Why: f.Why, Advice: f.Advice,
		})
	}
}
