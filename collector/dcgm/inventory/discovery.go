// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package inventory identifies the devices of a node: it joins the IDs that DCGM
// lists with the UUIDs, names and positions that DCGM and NVML report.
//
// It remembers every device, because DCGM blanks the identity of a lost GPU. It
// must not watch fields, and must not decide which devices are sampled.
package inventory

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// The fields that identify an entity (dcgm_fields.h).
const (
	fieldDriverVersion uint16 = 1
	fieldName          uint16 = 50
	fieldBrand         uint16 = 51
	fieldNVMLIndex     uint16 = 52
	fieldSerial        uint16 = 53
	fieldUUID          uint16 = 54
	fieldMinor         uint16 = 55
	fieldPCIBusID      uint16 = 57
	fieldMIGMode       uint16 = 67
	fieldVBIOS         uint16 = 85

	fieldSwitchDomain   uint16 = 866
	fieldSwitchBus      uint16 = 867
	fieldSwitchDevice   uint16 = 868
	fieldSwitchFunction uint16 = 869
)

// Config is the input of [New] that does not change.
type Config struct {
	Library *native.Library
	Logger  *slog.Logger
	// MIGDevices lists the MIG devices by NVML's names; it may be nil.
	MIGDevices func() ([]model.MIGDevice, error)
	// Columns are the columns of the inventories.
	Columns map[model.EntityKind][]model.FieldID
	// DCGMVersion is the engine's version.
	DCGMVersion string
	// Links are the links that earlier samplers knew.
	Links []model.KnownLinks
}

// Discovery makes inventories and remembers the identity of each device.
type Discovery struct {
	cfg        Config
	driver     string
	gpus       map[uint32]*gpu
	fabric     fabric
	known      map[fieldOf]value
	started    bool   // an inventory was made
	now        int64  // the newest time by the engine's clock
	migFailure string // why NVML did not list the MIG devices; logged when it changes
}

// gpu is a GPU as it was last read, with its instances.
type gpu struct {
	entity    model.Entity
	instances []gpuInstance
}

// New returns a Discovery that knows no devices.
func New(cfg Config) *Discovery {
	return &Discovery{cfg: cfg, gpus: make(map[uint32]*gpu), fabric: newFabric(cfg.Links), known: make(map[fieldOf]value)}
}

// Found is the devices of the node.
type Found struct {
	Inventory *model.Inventory
	// Appeared is, for each entity, the engine's time at which it was found; 0 means
	// before this sampler.
	Appeared []int64
	// Incomplete is set if the UUID of an entity that is up is unknown.
	Incomplete bool
}

// Inventory makes the inventory of the given devices. The caller sets its generation.
// newest is the time of the newest value so far, by the engine's clock.
func (d *Discovery) Inventory(top native.Topology, devices native.Fabric, newest int64) (Found, native.Code) {
	d.now = newest
	for _, read := range []func(native.Topology) native.Code{d.readGPUs, d.readInstances, d.readDriver} {
		if c := read(top); c.EngineLost() {
			return Found{}, c
		}
	}
	d.updateStates(top)
	d.nameInstances()
	d.fabric.update(devices, d.gpus)
	if c := d.readSwitches(); c.EngineLost() {
		return Found{}, c
	}
	d.started = true

	var f Found
	f.Inventory = &model.Inventory{Time: time.Now(), DriverVersion: d.driver, DCGMVersion: d.cfg.DCGMVersion}
	f.Inventory.Entities, f.Appeared = d.entities()
	for kind, fields := range d.cfg.Columns {
		f.Inventory.Columns[kind] = fields
	}
	for i := range f.Inventory.Entities {
		e := &f.Inventory.Entities[i]
		named := e.Kind == model.KindGPU || e.Kind == model.KindComputeInstance && d.cfg.MIGDevices != nil
		f.Incomplete = f.Incomplete || named && e.State == model.EntityUp && e.UUID == ""
	}
	return f, native.OK
}

// Equal reports whether two inventories describe the same devices.
func Equal(a, b *model.Inventory) bool {
	return a.DriverVersion == b.DriverVersion && a.DCGMVersion == b.DCGMVersion &&
		slices.EqualFunc(a.Entities, b.Entities, func(x, y model.Entity) bool {
			x.Selected, y.Selected, x.LinkDown, y.LinkDown = false, false, false, false // states change
			return x == y
		})
}

// Key identifies an entity whose DCGM ID may be reused by another entity.
func Key(e *model.Entity) string { return fmt.Sprint(e.Kind, " ", e.ID, " ", e.UUID) }

// newEntity returns an entity of which nothing but the ID is known.
func newEntity(kind model.EntityKind, id uint32) model.Entity {
	return model.Entity{
		Kind: kind, ID: id, Parent: model.Unknown, Index: model.Unknown, Minor: model.Unknown,
		InstanceID: model.Unknown, PlacementStart: model.Unknown, Port: model.Unknown,
	}
}

// entities returns all known entities in the order of an inventory, and the time
// at which each appeared.
func (d *Discovery) entities() (all []model.Entity, appeared []int64) {
	gpus := slices.SortedFunc(maps.Values(d.gpus), func(a, b *gpu) int { return cmp.Compare(a.entity.ID, b.entity.ID) })
	for _, g := range gpus {
		all = append(all, g.entity)
	}
	all = append(all, d.fabric.switchEntities()...)
	appeared = make([]int64, len(all)) // their UUIDs or positions reveal a reused ID

	var compute []model.Entity
	var computeAppeared []int64
	for i, g := range gpus {
		for _, gi := range g.instances {
			e := gi.entity
			e.Parent, e.State = i, g.entity.State
			position := len(all)
			all, appeared = append(all, e), append(appeared, gi.appeared)
			for _, ci := range gi.compute {
				e := ci.entity
				e.Parent, e.State = position, g.entity.State
				compute, computeAppeared = append(compute, e), append(computeAppeared, ci.appeared)
			}
		}
	}
	all, appeared = append(all, compute...), append(appeared, computeAppeared...)
	others := d.fabric.otherEntities(all)
	return append(all, others...), append(appeared, make([]int64, len(others))...)
}

// updateStates sets the state of each GPU. It forgets a GPU that moved to another ID.
func (d *Discovery) updateStates(top native.Topology) {
	listed := make(map[uint32]native.EntityStatus, len(top.GPUs))
	for _, g := range top.GPUs {
		listed[g.ID] = g.Status
	}
	uuids := make(map[string]bool, len(top.GPUs))
	for id, g := range d.gpus {
		status, ok := listed[id]
		switch {
		case ok && status.Up():
			g.entity.State = model.EntityUp
			uuids[g.entity.UUID] = true
		case ok && (status == native.StatusLost || status == native.StatusUnknown && g.entity.State == model.EntityUp):
			g.entity.State = model.EntityLost
		case ok && status == native.StatusUnknown: // keep the last state
		default:
			g.entity.State = model.EntityDetached
		}
	}
	maps.DeleteFunc(d.gpus, func(_ uint32, g *gpu) bool {
		return g.entity.State != model.EntityUp && g.entity.UUID != "" && uuids[g.entity.UUID]
	})
}

// readGPUs reads the identity of the readable GPUs. DCGM still has the UUID, name
// and bus ID of a detached GPU. It does not read unsupported GPUs, so they are
// never part of an inventory.
func (d *Discovery) readGPUs(top native.Topology) native.Code {
	var readable []native.Pair
	for _, g := range top.GPUs {
		_, known := d.gpus[g.ID]
		if g.Status.Up() || !known && (g.Status == native.StatusLost || g.Status == native.StatusDetached) {
			readable = append(readable, native.PairOf(model.KindGPU, g.ID))
		}
	}
	values, c := d.read(readable, fieldName, fieldBrand, fieldNVMLIndex, fieldSerial, fieldUUID, fieldMinor, fieldPCIBusID, fieldMIGMode, fieldVBIOS)
	if c != native.OK {
		return c
	}
	for i, p := range readable {
		v := values[i]
		e := newEntity(model.KindGPU, p.ID)
		e.UUID, e.PCIBusID, e.Model, e.Brand = v.text(fieldUUID), v.text(fieldPCIBusID), v.text(fieldName), v.text(fieldBrand)
		e.Serial, e.VBIOS = v.text(fieldSerial), v.text(fieldVBIOS)
		e.Index, e.Minor, e.MIGMode = v.number(fieldNVMLIndex), v.number(fieldMinor), v.number(fieldMIGMode) == 1
		known := d.gpus[p.ID]
		if known == nil {
			d.gpus[p.ID] = &gpu{entity: e}
			continue
		}
		if e.UUID != "" && e.UUID != known.entity.UUID && known.entity.UUID != "" {
			d.cfg.Logger.Info("a GPU was replaced", "gpu", p.ID, "old_uuid", known.entity.UUID, "uuid", e.UUID)
			*known = gpu{entity: e}
			continue
		}
		if v.number(fieldMIGMode) == model.Unknown {
			e.MIGMode = known.entity.MIGMode
		}
		known.entity = merge(known.entity, e)
	}
	return native.OK
}

// merge returns read, with the known values in place of its unknown ones.
func merge(known, read model.Entity) model.Entity {
	read.UUID, read.PCIBusID = cmp.Or(read.UUID, known.UUID), cmp.Or(read.PCIBusID, known.PCIBusID)
	read.Model, read.Brand = cmp.Or(read.Model, known.Model), cmp.Or(read.Brand, known.Brand)
	read.Serial, read.VBIOS = cmp.Or(read.Serial, known.Serial), cmp.Or(read.VBIOS, known.VBIOS)
	read.Profile = cmp.Or(read.Profile, known.Profile)
	for _, n := range []struct{ read, known *int }{
		{&read.Index, &known.Index}, {&read.Minor, &known.Minor}, {&read.PlacementStart, &known.PlacementStart},
	} {
		if *n.read == model.Unknown {
			*n.read = *n.known
		}
	}
	return read
}

// readDriver reads the driver's version. It is a value of the node, but DCGM also
// returns it for a GPU.
func (d *Discovery) readDriver(top native.Topology) native.Code {
	entities := []native.Pair{native.PairOf(model.KindGlobal, 0)}
	if i := slices.IndexFunc(top.GPUs, func(g native.GPU) bool { return g.Status.Up() }); i >= 0 {
		entities = append(entities, native.PairOf(model.KindGPU, top.GPUs[i].ID))
	}
	for _, e := range entities {
		values, c := d.read([]native.Pair{e}, fieldDriverVersion)
		if c != native.OK {
			return c
		}
		if v := values[0].text(fieldDriverVersion); v != "" {
			d.driver = v
			return native.OK
		}
	}
	return native.OK
}

// value is a text, or a number without a text.
type value struct {
	text   string
	number int
}

// values are the values of one entity, by field.
type values map[uint16]value

func (v values) text(field uint16) string { return v[field].text }

func (v values) number(field uint16) int {
	if n, ok := v[field]; ok {
		return n.number
	}
	return model.Unknown
}

// fieldOf names a field of an entity.
type fieldOf struct {
	entity native.Pair
	field  uint16
}

// read reads fields from the driver: that needs no watch, and constants cost little. A value
// that was not read before counts only if a second reading returns it too. Otherwise a
// damaged answer would be another GPU, and the next good one would report it as lost.
func (d *Discovery) read(entities []native.Pair, fields ...uint16) ([]values, native.Code) {
	out, c := d.readOnce(entities, fields)
	if c != native.OK {
		return nil, c
	}
	var changed []native.Pair
	var at []int // their positions in entities
	for i, e := range entities {
		for field, v := range out[i] {
			if known, ok := d.known[fieldOf{e, field}]; !ok || known != v {
				changed, at = append(changed, e), append(at, i)
				break
			}
		}
	}
	if len(changed) == 0 {
		return out, native.OK
	}
	second, c := d.readOnce(changed, fields)
	if c != native.OK {
		return nil, c
	}
	for i, e := range changed {
		first := out[at[i]]
		for field, v := range first {
			if again, ok := second[i][field]; ok && again == v {
				d.known[fieldOf{e, field}] = v
			} else {
				delete(first, field)
			}
		}
	}
	return out, native.OK
}

func (d *Discovery) readOnce(entities []native.Pair, fields []uint16) ([]values, native.Code) {
	r := native.Request{Entities: entities, Fields: fields}
	for i := range entities {
		r.Base = append(r.Base, uint32(i*len(fields)))
	}
	cells := make([]native.Cell, len(entities)*len(fields))
	d.cfg.Library.ResetStrings()
	if c := d.cfg.Library.Read(&r, true, cells); c != native.OK {
		return nil, c
	}
	out := make([]values, len(entities))
	for i := range out {
		out[i] = make(values)
		for j, field := range fields {
			c := &cells[i*len(fields)+j]
			if c.Status != native.OK {
				continue
			}
			d.now = max(d.now, c.Time)
			if c.Type == 's' {
				if text := d.cfg.Library.Text(c); native.TextStatus(text) == model.StatusOK && utf8.Valid(text) {
					out[i][field] = value{string(text), model.Unknown}
				}
			} else if n, ok := c.Int64(); ok {
				out[i][field] = value{number: int(n)}
			}
		}
	}
	return out, native.OK
}
