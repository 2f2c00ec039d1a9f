// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// Node is an exporter without an HTTP server.
type Node interface {
	// Sample runs a sampler until it has delivered a few samples, or for a limited time, and
	// stops it. It returns the reason why it has not delivered them.
	Sample(ctx context.Context) error
	// SamplerStatus has the reason of a failure.
	SamplerStatus() model.SamplerStatus
	// Newest returns the newest inventory and sample. Both can be nil.
	Newest() (*model.Inventory, *model.Sample)
	Owners() *owners.Owners
	// KernelLog returns the path of the kernel log, or "" if it is disabled. The error is
	// the reason why it is not readable.
	KernelLog() (path string, err error)
}

// Open sets up a node that samples at a short interval. The stop function releases it, also
// after an error.
type Open func(config.Config) (node Node, stop func() error, err error)

// Run implements the command doctor. It returns the exit status: 1 if a configured part is
// broken.
func Run(ctx context.Context, line config.CommandLine, open Open, stdout, stderr io.Writer) int {
	d := newDiagnosis()
	if err := d.examine(ctx, line.Config, open); err != nil {
		d.addError("configuration", err)
	}
	for _, w := range line.Warnings {
		d.add("flags", "-", owners.Limited, w, "")
	}
	if err := d.write(stdout, line.Output == config.OutputJSON); err != nil {
		return fail(stderr, fmt.Errorf("printing: %w", err))
	}
	if !d.Healthy {
		return 1
	}
	return 0
}

// fail prints the lines of an error, and returns the exit status.
func fail(stderr io.Writer, err error) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "%s: error: %s\n", config.ProgramName, strings.TrimSuffix(line, "\n"))
	}
	return 1
}

// examine runs each part of the exporter once.
func (d *diagnosis) examine(ctx context.Context, c config.Config, open Open) (err error) {
	node, stop, err := open(c)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	d.examineSampling(ctx, c, node)
	if c.Simulate == "" {
		inv, _ := node.Newest()
		d.examineMachine("/", c.Hostengine == "" && inv == nil)
	}
	if _, err := os.Stat(c.KubeletSocket); err == nil && !c.Kubernetes {
		d.add("kubelet", c.KubeletSocket, owners.Noted, "the socket exists, but pods are not mapped", "add --kubernetes.enabled")
	}
	d.examineOwners(ctx, node)
	path, err := node.KernelLog()
	d.examineKernelLog(path, c.KernelLog == config.KernelLogOn, err)
	return nil
}

// examineKernelLog reports whether the kernel log at path can be read.
func (d *diagnosis) examineKernelLog(path string, required bool, err error) {
	switch {
	case path == "":
	case err == nil:
		d.add("kernel log", path, owners.OK, "XIDs of the kernel log are counted", "")
	default:
		state := owners.Noted
		if required {
			state = owners.Broken
		}
		d.add("kernel log", path, state, err.Error(), "run with CAP_SYSLOG, and mount the device in a container, to count XIDs that DCGM misses")
	}
}

// examineSampling takes samples and examines their content.
func (d *diagnosis) examineSampling(ctx context.Context, c config.Config, node Node) {
	err := node.Sample(ctx)
	inv, sample := node.Newest()
	if inv == nil {
		if err == nil {
			err = errors.New("no inventory")
		}
		d.addFailure(ctx, c, node.SamplerStatus().LastFailure, err)
		return
	}
	dcgm := "DCGM of unknown version"
	if inv.DCGMVersion != "" {
		dcgm = "DCGM " + inv.DCGMVersion
	}
	d.add("library", "libdcgm.so.4", owners.OK, dcgm+", "+c.Source(), "")
	if inv.DriverVersion == "" {
		d.add("driver", "nvidia", owners.Broken, "DCGM does not find a driver", "load NVIDIA's driver, or give the container access to it")
	} else {
		d.add("driver", "nvidia", owners.OK, inv.DriverVersion, "")
	}
	d.examineGPUs(inv)
	if err != nil {
		d.add("engine", "samples", owners.Broken, err.Error(), "")
	}
	if sample == nil {
		return
	}
	d.add("engine", "samples", owners.OK, fmt.Sprintf("a sample takes %v", sample.Duration.Round(10*time.Microsecond)), "")
	d.examineFields(inv, sample, c.Counters)
}

// examineOwners queries every source of owners once, and resolves the device IDs.
func (d *diagnosis) examineOwners(ctx context.Context, node Node) {
	stop := node.Owners().Settle(ctx)
	defer stop()
	inv, _ := node.Newest()
	r := node.Owners().Examine(inv)
	for _, f := range r.Findings {
		d.add(f.About, f.Name, f.State, f.Detail, f.Advice)
	}
	for _, f := range r.Devices {
		names := []string{}
		for _, i := range f.Entities {
			names = append(names, entityName(inv, i))
		}
		d.Devices = append(d.Devices, device{
			ID: f.ID, Namespace: f.Namespace, Pod: f.Pod, Container: f.Container, Resource: f.Resource,
			Form: f.Form, Devices: names, Why: f.Why, Advice: f.Advice,
		})
	}
}

func (d *diagnosis) examineGPUs(inv *model.Inventory) {
	found := false
	for i := range inv.Entities {
		g := &inv.Entities[i]
		if g.Kind != model.KindGPU {
			continue
		}
		found = true
		state, detail, advice := owners.OK, "", ""
		switch {
		case g.State != model.EntityUp:
			state, detail, advice = owners.Broken, ", "+g.State.String(), "see dmesg for XIDs; a lost GPU needs a reset or a reboot"
		case !g.Selected:
			state, detail = owners.Noted, ", not selected by --devices.gpus"
		case inv.InstancesUnknownOf(i):
			state, detail = owners.Broken, ", MIG: DCGM does not list the instances"
			advice = "see the sampler's log; a different version of nv-hostengine can be the cause"
		case g.MIGMode:
			if instances := instances(inv, i); instances != "" {
				detail = ", MIG: " + instances
			} else {
				state, detail = owners.Noted, ", MIG without instances"
			}
		}
		d.add("gpu", fmt.Sprint(g.ID), state, fmt.Sprintf("%s, %s, %s%s", g.UUID, g.Model, g.PCIBusID, detail), advice)
	}
	if !found {
		d.add("gpu", "-", owners.Broken, "no GPU", "check that nvidia-smi lists GPUs and that the container has access to them")
	}
}

// instances describes the GPU instances of a GPU, such as "1 3g.40gb, 7 1g.10gb".
func instances(inv *model.Inventory, gpu int) string {
	var all []string
	for _, e := range inv.Entities {
		if e.Kind == model.KindGPUInstance && e.Parent == gpu {
			all = append(all, fmt.Sprintf("%d %s", e.InstanceID, e.Profile))
		}
	}
	return strings.Join(all, ", ")
}

// examineFields reports the fields without a value, with the entities and the reason.
// Fields with the same result share a line.
func (d *diagnosis) examineFields(inv *model.Inventory, s *model.Sample, counters []field.Counter) {
	type missing struct {
		status    model.Status
		where     string
		profiling bool
	}
	var order []missing
	fields := map[missing][]string{}
	total, good := 0, 0
	for _, c := range counters {
		without := map[model.Status][]int{}
		entities := 0
		for i := range inv.Entities {
			column := slices.Index(inv.Columns[inv.Entities[i].Kind], c.Field.ID)
			if column < 0 || len(s.Rows[i]) == 0 || inv.Entities[i].State != model.EntityUp {
				continue
			}
			entities++
			if status := s.Rows[i][column].Status; status != model.StatusOK {
				without[status] = append(without[status], i)
			} else {
				good++
			}
		}
		total += entities
		for _, status := range slices.Sorted(maps.Keys(without)) {
			m := missing{status, entityNames(inv, without[status], entities), c.Field.Profiling()}
			if fields[m] == nil {
				order = append(order, m)
			}
			fields[m] = append(fields[m], c.Name)
		}
	}
	d.add("fields", fmt.Sprintf("%d of %d", good, total), owners.OK, "values are available", "")
	for _, m := range order {
		state, advice := missingValue(m.profiling, m.status)
		d.add("fields", m.status.String(), state, strings.Join(fields[m], ", ")+" on "+m.where, advice)
	}
}

// entityNames returns the names of up to three entities. total is the number of entities
// on which the field is read.
func entityNames(inv *model.Inventory, at []int, total int) string {
	const most = 3
	if len(at) == total {
		return "all entities that could have a value"
	}
	var names []string
	for _, i := range at[:min(most, len(at))] {
		names = append(names, entityName(inv, i))
	}
	if more := len(at) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// missingValue returns the severity of a missing value, and the advice.
func missingValue(profiling bool, status model.Status) (owners.State, string) {
	switch status {
	case model.StatusNotPermitted:
		if profiling {
			return owners.Limited, "profiling needs root with CAP_SYS_ADMIN, or the driver's option NVreg_RestrictProfilingToAdminUsers=0"
		}
		return owners.Limited, "run the exporter, or nv-hostengine, as root"
	case model.StatusModuleMissing:
		return owners.Limited, "install datacenter-gpu-manager-4-proprietary, which contains DCGM's profiling module"
	case model.StatusNotWatched, model.StatusError, model.StatusUnexpectedType, model.StatusStale:
		return owners.Limited, "see the log with --log.level=debug"
	}
	return owners.Noted, "" // the hardware does not support the field, or has no value yet
}

// entityName returns a name such as "GPU 0 instance 7".
func entityName(inv *model.Inventory, i int) string {
	e := &inv.Entities[i]
	gpu, ok := inv.GPU(i)
	switch {
	case !ok:
		return fmt.Sprintf("%s %d", e.Kind, e.ID)
	case e.Kind == model.KindGPU:
		return fmt.Sprintf("GPU %d", e.ID)
	case e.Kind == model.KindGPUInstance:
		return fmt.Sprintf("GPU %d instance %d", gpu.ID, e.InstanceID)
	case e.Kind == model.KindComputeInstance:
		return fmt.Sprintf("GPU %d instance %d/%d", gpu.ID, inv.Entities[e.Parent].InstanceID, e.InstanceID)
	}
	return fmt.Sprintf("GPU %d %s %d", gpu.ID, e.Kind, e.ID)
}
