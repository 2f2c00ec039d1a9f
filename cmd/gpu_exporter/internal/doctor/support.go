// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// kindSupport is the support for a field on the entities of one kind.
type kindSupport struct {
	Kind      string `json:"kind"`
	Entities  int    `json:"entities"`  // entities on which the field was read
	Supported int    `json:"supported"` // entities with a value
	// Statuses is in the order of [model.Status]: ok is first.
	Statuses []statusSupport `json:"statuses"`
}

// statusSupport lists the entities with the same status.
type statusSupport struct {
	Status   string   `json:"status"`
	Entities int      `json:"entities"`
	IDs      []uint32 `json:"ids"` // DCGM's entity IDs
}

// notRead is the status of fields that are neither numbers nor text.
const notRead = "not_read"

// addSupport samples only the given fields on the node, and sets their support.
func addSupport(ctx context.Context, c config.Config, open Open, fields []description) (err error) {
	c = supportConfig(c, fields)
	if len(c.Counters) == 0 {
		return nil // all fields are binary or computed
	}
	node, stop, err := open(c)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if err := node.Sample(ctx); err != nil {
		return fmt.Errorf("sampling the node: %w", err)
	}
	inv, sample := node.Newest()
	if sample == nil {
		return errors.New("sampling the node: no sample")
	}
	for i := range fields {
		if f, ok := field.ByID(fields[i].ID); ok && !fields[i].Computed {
			fields[i].Node = supportOf(inv, sample, f)
		}
	}
	return nil
}

// supportConfig returns a configuration that reads only the fields, on all entities that
// can have them.
func supportConfig(c config.Config, fields []description) config.Config {
	c.Counters, c.Models = nil, nil
	for _, described := range fields {
		f, ok := field.ByID(described.ID)
		if !ok || described.Computed || !f.Type.Numeric() && f.Type != model.ValueString {
			continue
		}
		counter := field.Counter{Field: f, Name: f.Name, Type: f.Nature, Help: f.Help}
		for _, kind := range config.CollectedKinds() {
			if f.On(kind) {
				counter.Kinds |= model.Kinds(kind)
			}
		}
		c.Counters = append(c.Counters, counter)
	}
	if c.Devices == "f" { // f omits GPUs with instances
		c.Devices = "g+i"
	}
	c.Kubernetes, c.HPCDir, c.DockerSocket, c.Slurm = false, "", "", config.SlurmOff
	c.KernelLog, c.HealthInterval = config.KernelLogOff, 0
	return c
}

// supportOf returns the support for a field, for each kind on which it is read.
func supportOf(inv *model.Inventory, s *model.Sample, f field.Field) []kindSupport {
	all := []kindSupport{}
	for _, kind := range config.CollectedKinds() {
		if !f.On(kind) {
			continue
		}
		column := slices.Index(inv.Columns[kind], f.ID)
		k := kindSupport{Kind: kind.String(), Statuses: []statusSupport{}}
		byStatus := map[model.Status][]uint32{}
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
			if status == model.StatusOK {
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

// supportText summarizes support, such as "gpu 0-3 ok, 4-5 module_not_loaded".
func supportText(support []kindSupport) string {
	var texts []string
	for _, k := range support {
		var parts []string
		for _, s := range k.Statuses {
			switch {
			case len(k.Statuses) == 1:
				parts = append(parts, s.Status)
			case knownByID(k.Kind):
				parts = append(parts, idRanges(s.IDs)+" "+s.Status)
			default:
				parts = append(parts, fmt.Sprintf("%dx %s", s.Entities, s.Status))
			}
		}
		if parts != nil {
			texts = append(texts, k.Kind+" "+strings.Join(parts, ", "))
		}
	}
	if texts == nil {
		return "no such entity"
	}
	return strings.Join(texts, "; ")
}

// knownByID reports whether operators identify entities of the kind by DCGM's IDs.
func knownByID(name string) bool {
	kind, ok := model.KindByName(name)
	return ok && model.Kinds(model.KindGPU, model.KindSwitch, model.KindCPU).Has(kind)
}

// idRanges formats sorted IDs, such as 0-3,5.
func idRanges(ids []uint32) string {
	var ranges []string
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && ids[n] == ids[0]+uint32(n) {
			n++
		}
		text := fmt.Sprint(ids[0])
		if n > 1 {
			text += fmt.Sprintf("-%d", ids[n-1])
		}
		ranges, ids = append(ranges, text), ids[n:]
	}
	return strings.Join(ranges, ",")
}
