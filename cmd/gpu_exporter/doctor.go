// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/common/version"

	"gpu_exporter/collector"
)

// finding is one line of what the doctor found.
type finding struct {
	About  string  `json:"about"` // library, driver, engine, gpu, fields, kubelet, …
	Name   string  `json:"name"`  // which of them
	State  verdict `json:"state"`
	Detail string  `json:"detail,omitempty"` // what was found
	Advice string  `json:"advice,omitempty"` // what to do, unless all is well
}

// verdict says how a finding is to be taken.
type verdict string

// The verdicts. Only broken makes the exit status 1.
const (
	healthy verdict = "ok"
	noted   verdict = "note"   // worth knowing; nothing that was asked for lacks
	lacking verdict = "warn"   // part of what was asked for is not there
	broken  verdict = "broken" // what was asked for does not work
)

// diagnosis is all that the doctor found.
type diagnosis struct {
	Healthy  bool            `json:"healthy"`
	Version  string          `json:"version"`
	Findings []finding       `json:"findings"`
	Devices  []deviceFinding `json:"device_ids"` // what the kubelet says containers hold
}

// deviceFinding says what a device ID was taken for.
type deviceFinding struct {
	ID        string   `json:"id"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Container string   `json:"container"`
	Resource  string   `json:"resource"`
	Form      string   `json:"form"`
	Devices   []string `json:"devices"`       // what it is, in words; empty if it is nothing known
	Why       string   `json:"why,omitempty"` // it is none
	Advice    string   `json:"advice,omitempty"`
}

func newDiagnosis() diagnosis {
	return diagnosis{Version: version.Version, Findings: []finding{}, Devices: []deviceFinding{}}
}

func (d *diagnosis) add(about, name string, v verdict, detail, advice string) {
	d.Findings = append(d.Findings, finding{about, name, v, detail, advice})
}

func (d *diagnosis) conclude() {
	d.Healthy = !slices.ContainsFunc(d.Findings, func(f finding) bool { return f.State == broken })
}

// write prints the diagnosis, as one screen of text or as JSON.
func (d *diagnosis) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(d)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range d.Findings {
		printf(table, "%s\t%s\t%s\t%s\n", f.State, f.About, f.Name, f.Detail)
		if f.Advice != "" {
			printf(table, "\t\t\t→ %s\n", f.Advice)
		}
	}
	for _, dev := range d.Devices {
		state, what := healthy, strings.Join(dev.Devices, ", ")
		if len(dev.Devices) == 0 {
			state, what = lacking, dev.Why
		}
		printf(table, "%s\tdevice id\t%s\t%s of %s/%s/%s: %s\n", state, dev.ID, dev.Form, dev.Namespace, dev.Pod, dev.Container, what)
		if dev.Advice != "" {
			printf(table, "\t\t\t→ %s\n", dev.Advice)
		}
	}
	return table.Flush()
}

// examine finds out what works and what does not, by doing once what serving
// does all the time.
func (e *exporter) examine(ctx context.Context) diagnosis {
	d := newDiagnosis()
	e.examineSampling(ctx, &d)
	e.examineOwners(ctx, &d)
	examineKernelLog(e.kernelLog, &d)
	d.conclude()
	return d
}

// doctorTimeout bounds what the sampler may take.
const doctorTimeout = 40 * time.Second

// examineSampling starts a sampler, waits for two samples, and looks at them.
func (e *exporter) examineSampling(ctx context.Context, d *diagnosis) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	err := e.takeSamples(ctx)
	inv, sample := e.node.Newest()
	if inv == nil {
		if err == nil {
			err = fmt.Errorf("no inventory")
		}
		d.add("library", dcgmLibrary, broken, err.Error(), "")
		return
	}
	d.add("library", dcgmLibrary, healthy, fmt.Sprintf("DCGM %s, %s", orUnknown(inv.DCGMVersion), e.cfg.source()), "")
	if inv.DriverVersion == "" {
		d.add("driver", "nvidia", broken, "DCGM knows no driver", "load NVIDIA's driver, or give the container access to it")
	} else {
		d.add("driver", "nvidia", healthy, inv.DriverVersion, "")
	}
	e.examineGPUs(inv, d)
	if sample == nil {
		d.add("engine", "samples", broken, err.Error(), "")
		return
	}
	if err != nil {
		d.add("engine", "samples", broken, err.Error(), "")
	}
	d.add("engine", "samples", healthy, fmt.Sprintf("one takes %v", sample.Duration.Round(10*time.Microsecond)), "")
	e.examineFields(inv, sample, d)
}

func (e *exporter) examineGPUs(inv *collector.Inventory, d *diagnosis) {
	found := false
	for i := range inv.Entities {
		g := &inv.Entities[i]
		if g.Kind != collector.KindGPU {
			continue
		}
		found = true
		state, detail := healthy, fmt.Sprintf("%s, %s, %s", g.UUID, g.Model, g.PCIBusID)
		var advice string
		switch {
		case g.State != collector.EntityUp:
			state, advice = broken, "see dmesg for XIDs; a lost GPU needs a reset or a reboot"
			detail += ", " + g.State.String()
		case !g.Selected:
			state = noted
			detail += ", not selected by --devices"
		case inv.InstancesUnknownOf(i):
			state, advice = broken, "see the log of the sampler; an nv-hostengine of another version may be why"
			detail += ", MIG: DCGM does not list the instances"
		case g.MIGMode:
			profiles := instances(inv, i)
			detail += ", MIG: " + profiles
			if profiles == "" {
				state, detail = noted, strings.TrimSuffix(detail, ": ")+" without instances"
			}
		}
		d.add("gpu", fmt.Sprint(g.ID), state, detail, advice)
	}
	if !found {
		d.add("gpu", "-", broken, "no GPU", "see whether nvidia-smi lists any, and whether the container was given them")
	}
}

// instances lists the GPU instances of a GPU in words.
func instances(inv *collector.Inventory, gpu int) string {
	var all []string
	for _, e := range inv.Entities {
		if e.Kind == collector.KindGPUInstance && e.Parent == gpu {
			all = append(all, fmt.Sprintf("%d %s", e.InstanceID, e.Profile))
		}
	}
	return strings.Join(all, ", ")
}

// examineFields says which fields have no value where and why. Fields of which the
// same is to be said share a line.
func (e *exporter) examineFields(inv *collector.Inventory, s *collector.Sample, d *diagnosis) {
	type lack struct {
		status    collector.Status
		where     string
		profiling bool
	}
	var lacks []lack
	fields := map[lack][]string{}
	total, good := 0, 0
	for _, c := range e.shown().counters.List {
		without := map[collector.Status][]int{}
		entities := 0
		for i := range inv.Entities {
			column := slices.Index(inv.Columns[inv.Entities[i].Kind], c.Field.ID)
			if column < 0 || len(s.Rows[i]) == 0 || inv.Entities[i].State != collector.EntityUp {
				continue
			}
			entities++
			if status := s.Rows[i][column].Status; status != collector.StatusOK {
				without[status] = append(without[status], i)
			} else {
				good++
			}
		}
		total += entities
		for _, status := range slices.Sorted(maps.Keys(without)) {
			l := lack{status, entityNames(inv, without[status], entities), c.Field.Profiling()}
			if fields[l] == nil {
				lacks = append(lacks, l)
			}
			fields[l] = append(fields[l], c.Name)
		}
	}
	d.add("fields", fmt.Sprintf("%d of %d", good, total), healthy, "values that were asked for are there", "")
	for _, l := range lacks {
		state, advice := missingValue(l.profiling, l.status)
		d.add("fields", l.status.String(), state, strings.Join(fields[l], ", ")+" on "+l.where, advice)
	}
}

// entityNames names entities, of which there are some more with the same field.
func entityNames(inv *collector.Inventory, at []int, of int) string {
	const most = 3
	if len(at) == of {
		return "all that could have it"
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

// missingValue says how to take it that a field has no value.
func missingValue(profiling bool, status collector.Status) (verdict, string) {
	switch status {
	case collector.StatusNotPermitted:
		if profiling {
			return lacking, "profiling needs root with CAP_SYS_ADMIN, or the driver's option NVreg_RestrictProfilingToAdminUsers=0"
		}
		return lacking, "run the exporter, or nv-hostengine, as root"
	case collector.StatusModuleMissing:
		return lacking, "install datacenter-gpu-manager-4-proprietary, which has DCGM's profiling module"
	case collector.StatusNotWatched, collector.StatusError, collector.StatusUnexpectedType, collector.StatusStale:
		return lacking, "see the log with --log.level=debug"
	}
	return noted, "" // the hardware does not have it, or nothing has happened yet
}

// entityName names an entity as people do.
func entityName(inv *collector.Inventory, i int) string {
	e := &inv.Entities[i]
	gpu, ok := inv.GPU(i)
	switch {
	case !ok:
		return fmt.Sprintf("%s %d", e.Kind, e.ID)
	case e.Kind == collector.KindGPU:
		return fmt.Sprintf("GPU %d", e.ID)
	case e.Kind == collector.KindGPUInstance:
		return fmt.Sprintf("GPU %d instance %d", gpu.ID, e.InstanceID)
	case e.Kind == collector.KindComputeInstance:
		return fmt.Sprintf("GPU %d instance %d/%d", gpu.ID, inv.Entities[e.Parent].InstanceID, e.InstanceID)
	}
	return fmt.Sprintf("GPU %d %s %d", gpu.ID, e.Kind, e.ID)
}

func orUnknown(s string) string {
	if s == "" {
		return "of unknown version"
	}
	return s
}

// diagnose is the doctor subcommand: it prints what works and what does not and
// why, and returns the exit status, 1 if something that was asked for is broken.
func diagnose(ctx context.Context, line commandLine, stdout, stderr io.Writer, environ []string) int {
	logger := slog.New(slog.DiscardHandler)
	if line.config.LogLevel == "debug" {
		var err error
		if logger, err = newLogger(line.config, stderr); err != nil {
			printf(stderr, "%s: error: %v\n", programName, err)
			return 1
		}
	}
	d := diagnoseConfig(ctx, line, environ, logger)
	for _, w := range line.warnings {
		d.add("flags", "-", lacking, w, "")
	}
	if err := d.write(stdout, line.outputJSON); err != nil {
		printf(stderr, "%s: error: printing: %v\n", programName, err)
		return 1
	}
	if !d.Healthy {
		return 1
	}
	return 0
}

func diagnoseConfig(ctx context.Context, line commandLine, environ []string, logger *slog.Logger) diagnosis {
	failed := func(about string, err error) diagnosis {
		d := newDiagnosis()
		for problem := range strings.Lines(err.Error()) {
			d.add(about, "-", broken, strings.TrimSpace(problem), "")
		}
		return d
	}
	executable, err := os.Executable()
	if err != nil {
		return failed("program", err)
	}
	env, err := newSamplerEnv(line.config, environ, executable)
	defer func() { _ = env.Close() }()
	if err != nil {
		return failed("library", err)
	}
	line.config.Interval = min(line.config.Interval, onceInterval)
	e, err := newExporter(line.config, env, logger, logger, nil)
	if err != nil {
		return failed("configuration", err)
	}
	return e.examine(ctx)
}
