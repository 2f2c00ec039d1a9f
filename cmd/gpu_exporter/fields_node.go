// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"gpu_exporter/collector"
)

// kindSupport says how a field was answered for on the entities of one kind.
type kindSupport struct {
	Kind      string `json:"kind"`
	Entities  int    `json:"entities"`  // that were asked
	Supported int    `json:"supported"` // that have a value
	// Statuses are in the order of [collector.Status], so that ok comes first.
	Statuses []statusSupport `json:"statuses"`
}

// statusSupport is the entities that have the same status.
type statusSupport struct {
	Status   string   `json:"status"`
	Entities int      `json:"entities"`
	IDs      []uint32 `json:"ids"` // DCGM's
}

// notRead is the status of fields that are no numbers and no texts.
const notRead = "not_read"

// nodeSupport samples the node with nothing but the fields, and returns for each
// what its entities have.
func nodeSupport(ctx context.Context, cfg config, fields []collector.Field, stderr io.Writer, environ []string) (support map[collector.FieldID][]kindSupport, err error) {
	cfg = supportConfig(cfg, fields)
	logger := slog.New(slog.DiscardHandler)
	if cfg.LogLevel == "debug" {
		if logger, err = newLogger(cfg, stderr); err != nil {
			return nil, err
		}
	}
	if len(cfg.Fields) == 0 {
		return nil, nil // all of them are binary
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the path of this program: %w", err)
	}
	env, err := newSamplerEnv(cfg, environ, executable)
	defer func() { err = errors.Join(err, env.Close()) }()
	if err != nil {
		return nil, err
	}
	e, err := newExporter(cfg, env, logger, logger, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	if err := e.takeSamples(ctx); err != nil {
		return nil, fmt.Errorf("sampling the node: %w", err)
	}
	inv, sample := e.node.Newest()
	if sample == nil {
		return nil, errors.New("sampling the node: no sample")
	}
	support = make(map[collector.FieldID][]kindSupport, len(fields))
	for _, f := range fields {
		support[f.ID] = supportOf(inv, sample, f)
	}
	return support, nil
}

// supportConfig asks for the fields on all that could have them, and for nothing
// else.
func supportConfig(cfg config, fields []collector.Field) config {
	cfg.Include = []string{} // no counters file
	cfg.Fields, cfg.Models = nil, nil
	for _, f := range fields {
		if !f.Type.Numeric() && f.Type != collector.ValueString {
			continue
		}
		c := collector.Counter{Field: f, Name: f.Name, Type: f.Nature, Help: f.Help}
		for _, kind := range collectedKinds() {
			if f.On(kind) {
				c.Kinds |= collector.Kinds(kind)
			}
		}
		cfg.Fields = append(cfg.Fields, c)
	}
	if cfg.Devices == "f" { // which leaves out GPUs that have instances
		cfg.Devices = "g+i"
	}
	cfg.Interval = min(cfg.Interval, onceInterval)
	cfg.Kubernetes, cfg.HPCDir, cfg.DockerSocket, cfg.Slurm = false, "", "", slurmOff
	cfg.KernelLog, cfg.HealthInterval = kernelLogOff, 0
	return cfg
}

// supportOf says what the entities of each kind that is asked for the field have.
func supportOf(inv *collector.Inventory, s *collector.Sample, f collector.Field) []kindSupport {
	all := []kindSupport{}
	for _, kind := range collectedKinds() {
		if !f.On(kind) {
			continue
		}
		column := slices.Index(inv.Columns[kind], f.ID)
		k := kindSupport{Kind: kind.String(), Statuses: []statusSupport{}}
		byStatus := map[collector.Status][]uint32{}
		var unread []uint32
		for i := range inv.Entities {
			switch e := &inv.Entities[i]; {
			case e.Kind != kind:
			case column < 0:
				unread = append(unread, e.ID)
			case len(s.Rows[i]) > column:
				status := s.Rows[i][column].Status
				byStatus[status] = append(byStatus[status], e.ID)
			}
		}
		for _, status := range slices.Sorted(maps.Keys(byStatus)) {
			ids := byStatus[status]
			k.Entities += len(ids)
			if status == collector.StatusOK {
				k.Supported = len(ids)
			}
			k.Statuses = append(k.Statuses, statusSupport{status.String(), len(ids), ids})
		}
		if len(unread) > 0 {
			k.Statuses = append(k.Statuses, statusSupport{notRead, len(unread), unread})
		}
		all = append(all, k)
	}
	return all
}

// supportText says it in a few words, such as "gpu 0-3 ok, 4-5 module_not_loaded".
func supportText(support []kindSupport) string {
	var texts []string
	for _, k := range support {
		switch len(k.Statuses) {
		case 0: // there is no such entity here
		case 1:
			texts = append(texts, fmt.Sprintf("%s %s", k.Kind, k.Statuses[0].Status))
		default:
			var parts []string
			for _, s := range k.Statuses {
				which := fmt.Sprintf("%dx", s.Entities)
				if fewAndNumbered(k.Kind) {
					which = idRanges(s.IDs)
				}
				parts = append(parts, which+" "+s.Status)
			}
			texts = append(texts, k.Kind+" "+strings.Join(parts, ", "))
		}
	}
	if len(texts) == 0 {
		return "no such entity"
	}
	return strings.Join(texts, "; ")
}

// fewAndNumbered says whether people know entities of the kind by DCGM's ids.
func fewAndNumbered(kind string) bool {
	switch kind {
	case collector.KindGPU.String(), collector.KindSwitch.String(), collector.KindCPU.String():
		return true
	}
	return false
}

// idRanges writes sorted ids as 0-3,5.
func idRanges(ids []uint32) string {
	var b strings.Builder
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, ids[i])
		if j > i {
			fmt.Fprintf(&b, "-%d", ids[j])
		}
		i = j + 1
	}
	return b.String()
}
