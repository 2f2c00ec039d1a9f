// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector"
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

// knownGPU is a GPU as it was last seen well. DCGM blanks the name and UUID of a
// lost GPU, and its instances go with it, so they are remembered here.
type knownGPU struct {
	entity    collector.Entity
	instances []knownInstance
}

type knownInstance struct {
	knownPart
	compute []knownPart
}

// knownPart is an instance of either kind. Its id will be another one's when the
// GPU is split anew, and DCGM keeps what it had under that id.
type knownPart struct {
	entity   collector.Entity
	appeared int64  // by the engine's clock; 0: it was there before us
	named    string // NVML's UUID
}

// identities makes inventories, and remembers what each GPU was.
type identities struct {
	lib        *library
	log        *slog.Logger
	migDevices func() ([]collector.MIGDevice, error)
	columns    map[collector.EntityKind][]collector.FieldID
	version    string // DCGM's
	driver     string
	known      map[uint32]*knownGPU
	fabric     fabricIdentities
	started    bool   // there was an inventory
	now        int64  // what time it is for the engine
	migFailure string // why NVML did not list the MIG devices; logged when it changes
}

// found is what there is on the node.
type found struct {
	inv *collector.Inventory
	// appeared is, for each entity, since when it has been there, by the engine's
	// clock; 0 is since before us.
	appeared []int64
	// incomplete says that of something which is up the UUID is not known.
	incomplete bool
}

// inventory makes the inventory of the node as the engine now sees it. The
// generation is the caller's to set. newest is the time of the newest value so
// far, by the engine's clock.
func (id *identities) inventory(top topology, nodeFabric fabric, newest int64) (found, code) {
	id.now = newest
	if c := id.readGPUs(top); c.lost() {
		return found{}, c
	}
	if c := id.readInstances(top); c.lost() {
		return found{}, c
	}
	if c := id.readDriver(top); c.lost() {
		return found{}, c
	}
	id.settle(top)
	id.nameMIGDevices()
	id.fabric.update(nodeFabric, id.known)
	if c := id.readSwitches(); c.lost() {
		return found{}, c
	}
	id.started = true

	var f found
	f.inv = &collector.Inventory{
		Time:          time.Now(),
		DriverVersion: id.driver,
		DCGMVersion:   id.version,
	}
	f.inv.Entities, f.appeared = id.entities()
	for kind, fields := range id.columns {
		f.inv.Columns[kind] = fields
	}
	for i := range f.inv.Entities {
		e := &f.inv.Entities[i]
		named := e.Kind == collector.KindGPU || e.Kind == collector.KindComputeInstance && id.migDevices != nil
		f.incomplete = f.incomplete || named && e.State == collector.EntityUp && e.UUID == ""
	}
	return f, codeOK
}

// same says whether two inventories tell the same of the node.
func same(a, b *collector.Inventory) bool {
	return a.DriverVersion == b.DriverVersion && a.DCGMVersion == b.DCGMVersion &&
		slices.EqualFunc(a.Entities, b.Entities, func(x, y collector.Entity) bool {
			x.Selected, y.Selected = false, false
			return x == y
		})
}

// entities returns all that is known in the order of an inventory, and since
// when each has been there.
func (id *identities) entities() (all []collector.Entity, appeared []int64) {
	gpus := make([]*knownGPU, 0, len(id.known))
	for _, g := range id.known {
		gpus = append(gpus, g)
	}
	slices.SortFunc(gpus, func(a, b *knownGPU) int { return cmp.Compare(a.entity.ID, b.entity.ID) })

	var instances, compute []collector.Entity
	var instancesAppeared, computeAppeared []int64
	for _, g := range gpus {
		all = append(all, g.entity)
	}
	all = append(all, id.fabric.switchEntities()...)
	whole := len(all)
	appeared = make([]int64, whole) // they are named by where they are, so none takes another's id unnoticed
	for i, g := range gpus {
		for _, instance := range g.instances {
			e := instance.entity
			e.Parent = i
			e.State = g.entity.State
			position := whole + len(instances)
			instances = append(instances, e)
			instancesAppeared = append(instancesAppeared, instance.appeared)
			for _, part := range instance.compute {
				c := part.entity
				c.Parent = position
				c.State = g.entity.State
				compute = append(compute, c)
				computeAppeared = append(computeAppeared, part.appeared)
			}
		}
	}
	all = slices.Concat(all, instances, compute)
	appeared = slices.Concat(appeared, instancesAppeared, computeAppeared)
	others := id.fabric.otherEntities(all)
	return append(all, others...), append(appeared, make([]int64, len(others))...)
}

// settle sets each GPU's state and forgets a GPU that moved to another id.
func (id *identities) settle(top topology) {
	present := make(map[uint32]entityStatus, len(top.gpus))
	for _, g := range top.gpus {
		present[g.id] = g.status
	}
	uuids := make(map[string]bool, len(top.gpus))
	for gpu, known := range id.known {
		status, ok := present[gpu]
		switch {
		case ok && up(status):
			known.entity.State = collector.EntityUp
			uuids[known.entity.UUID] = true
		case ok && status == statusLost:
			known.entity.State = collector.EntityLost
		case ok && status == statusUnknown: // it did not say why it is not well
			if known.entity.State == collector.EntityUp {
				known.entity.State = collector.EntityLost
			}
		default:
			known.entity.State = collector.EntityDetached
		}
	}
	for gpu, known := range id.known {
		if known.entity.State != collector.EntityUp && known.entity.UUID != "" && uuids[known.entity.UUID] {
			delete(id.known, gpu)
		}
	}
}

func up(s entityStatus) bool { return s == statusOK || s == statusFake }

// readGPUs reads the identity of the GPUs that can be asked.
func (id *identities) readGPUs(top topology) code {
	var gpus []pair
	for _, g := range top.gpus {
		_, known := id.known[g.id]
		// DCGM still has the UUID, name and bus id of a detached GPU. What it does
		// not support it does not read either, and such a GPU is none of ours.
		if up(g.status) || !known && (g.status == statusLost || g.status == statusDetached) {
			gpus = append(gpus, pairOf(collector.KindGPU, g.id))
		}
	}
	fields := []uint16{
		fieldName, fieldBrand, fieldNVMLIndex, fieldSerial, fieldUUID, fieldMinor, fieldPCIBusID, fieldMIGMode, fieldVBIOS,
	}
	values, c := id.read(gpus, fields)
	if c != codeOK {
		return c
	}
	for i, gpu := range gpus {
		v := values[i]
		e := collector.Entity{
			Kind:           collector.KindGPU,
			ID:             gpu.id,
			Parent:         collector.Unknown,
			UUID:           v.text(fieldUUID),
			PCIBusID:       v.text(fieldPCIBusID),
			Model:          v.text(fieldName),
			Brand:          v.text(fieldBrand),
			Serial:         v.text(fieldSerial),
			VBIOS:          v.text(fieldVBIOS),
			Index:          v.number(fieldNVMLIndex),
			Minor:          v.number(fieldMinor),
			MIGMode:        v.number(fieldMIGMode) == 1,
			InstanceID:     collector.Unknown,
			Port:           collector.Unknown,
			PlacementStart: collector.Unknown,
		}
		known := id.known[gpu.id]
		if known == nil {
			id.known[gpu.id] = &knownGPU{entity: e}
			continue
		}
		if e.UUID != "" && e.UUID != known.entity.UUID && known.entity.UUID != "" {
			id.log.Info("another GPU has taken a GPU's id", "gpu", gpu.id, "was", known.entity.UUID, "is", e.UUID)
			*known = knownGPU{entity: e}
			continue
		}
		if v.number(fieldMIGMode) == collector.Unknown {
			e.MIGMode = known.entity.MIGMode
		}
		known.entity = merge(known.entity, e)
	}
	return codeOK
}

// merge returns what was just read, with what was known where it is blank.
func merge(known, read collector.Entity) collector.Entity {
	for _, s := range []struct{ to, from *string }{
		{&read.UUID, &known.UUID}, {&read.PCIBusID, &known.PCIBusID}, {&read.Model, &known.Model},
		{&read.Brand, &known.Brand}, {&read.Serial, &known.Serial}, {&read.VBIOS, &known.VBIOS},
	} {
		if *s.to == "" {
			*s.to = *s.from
		}
	}
	if read.Index == collector.Unknown {
		read.Index = known.Index
	}
	if read.Minor == collector.Unknown {
		read.Minor = known.Minor
	}
	if read.PlacementStart == collector.Unknown {
		read.PlacementStart = known.PlacementStart
	}
	return read
}

// readInstances reads the GPU instances and compute instances of the GPUs that
// are up. Those of the others stay as they were.
func (id *identities) readInstances(top topology) code {
	isUp := make(map[uint32]bool, len(top.gpus))
	before := make(map[uint32][]knownInstance)
	for _, g := range top.gpus {
		if up(g.status) && id.known[g.id] != nil {
			isUp[g.id] = true
			before[g.id] = id.known[g.id].instances
			id.known[g.id].instances = nil
		}
	}
	var entities []pair
	for _, e := range top.mig {
		entities = append(entities, e.entity)
	}
	values, c := id.read(entities, []uint16{fieldName, fieldUUID})
	if c != codeOK {
		return c
	}
	type place struct {
		gpu   *knownGPU
		index int
	}
	instances := make(map[uint32]place)
	for i, m := range top.mig {
		if m.entity.kind != uint32(collector.KindGPUInstance) || !isUp[m.parent.id] {
			continue
		}
		g := id.known[m.parent.id]
		instances[m.entity.id] = place{g, len(g.instances)}
		part := id.part(collector.Entity{
			Kind:           collector.KindGPUInstance,
			ID:             m.entity.id,
			Index:          collector.Unknown,
			Minor:          collector.Unknown,
			Port:           collector.Unknown,
			InstanceID:     int(m.nvmlGPUInstance),
			Profile:        profile(values[i].text(fieldName)),
			PlacementStart: collector.Unknown,
		})
		for _, old := range before[m.parent.id] {
			part.goesOn(old.knownPart)
		}
		g.instances = append(g.instances, knownInstance{knownPart: part})
	}
	for i, m := range top.mig {
		at, ok := instances[m.parent.id]
		if m.entity.kind != uint32(collector.KindComputeInstance) || !ok {
			continue
		}
		g := &at.gpu.instances[at.index]
		part := id.part(collector.Entity{
			Kind:           collector.KindComputeInstance,
			ID:             m.entity.id,
			UUID:           values[i].text(fieldUUID),
			Index:          collector.Unknown,
			Minor:          collector.Unknown,
			Port:           collector.Unknown,
			InstanceID:     int(m.nvmlComputeInstance),
			Profile:        profile(values[i].text(fieldName)),
			PlacementStart: collector.Unknown,
		})
		for _, old := range before[at.gpu.entity.ID] {
			if !sameInstance(old.entity, g.entity) || old.appeared != g.appeared {
				continue // its GPU instance is another one
			}
			for _, oldPart := range old.compute {
				part.goesOn(oldPart)
			}
		}
		g.compute = append(g.compute, part)
	}
	for gpu := range isUp {
		g := id.known[gpu]
		slices.SortFunc(g.instances, func(a, b knownInstance) int { return cmp.Compare(a.entity.ID, b.entity.ID) })
		for _, instance := range g.instances {
			slices.SortFunc(instance.compute, func(a, b knownPart) int { return cmp.Compare(a.entity.ID, b.entity.ID) })
		}
	}
	return codeOK
}

// part is an instance that was not there before, unless goesOn finds otherwise.
func (id *identities) part(e collector.Entity) knownPart {
	p := knownPart{entity: e}
	if id.started {
		p.appeared = id.now
	}
	return p
}

// goesOn takes over from old what is known of it if it is the same instance.
func (p *knownPart) goesOn(old knownPart) {
	if !sameInstance(old.entity, p.entity) {
		return
	}
	p.appeared, p.named = old.appeared, old.named
	p.entity = merge(old.entity, p.entity)
	if p.entity.Profile == "" {
		p.entity.Profile = old.entity.Profile
	}
}

// sameInstance says whether two instances of a GPU are the same one, read twice.
func sameInstance(a, b collector.Entity) bool {
	return a.ID == b.ID && a.InstanceID == b.InstanceID &&
		(a.Profile == b.Profile || a.Profile == "" || b.Profile == "")
}

// profile takes the profile out of an instance's name, which is the profile
// alone or, as NVML names a MIG device, "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
func profile(name string) string {
	if i := strings.LastIndex(name, "MIG "); i >= 0 {
		return name[i+len("MIG "):]
	}
	return name
}

// nameMIGDevices puts NVML's UUIDs onto the compute instances, and the placements
// onto the GPU instances. NVML's word on UUIDs stands above DCGM's, which is there
// only if DCGM found the device handle.
func (id *identities) nameMIGDevices() {
	type key struct {
		parent            string
		instance, compute int
	}
	uuids := make(map[key]string)
	starts := make(map[key]int)
	for _, d := range id.listMIGDevices() {
		uuids[key{d.ParentUUID, d.GPUInstanceID, d.ComputeInstanceID}] = d.UUID
		starts[key{d.ParentUUID, d.GPUInstanceID, collector.Unknown}] = d.PlacementStart
	}
	for _, g := range id.known {
		for i := range g.instances {
			instance := &g.instances[i]
			start, ok := starts[key{g.entity.UUID, instance.entity.InstanceID, collector.Unknown}]
			if ok && start != collector.Unknown {
				instance.entity.PlacementStart = start
			}
			for i := range instance.compute {
				c := &instance.compute[i]
				if uuid := uuids[key{g.entity.UUID, instance.entity.InstanceID, c.entity.InstanceID}]; uuid != "" {
					c.named = uuid
				}
				if c.named != "" {
					c.entity.UUID = c.named
				}
			}
		}
	}
}

func (id *identities) listMIGDevices() []collector.MIGDevice {
	some := false
	for _, g := range id.known {
		some = some || len(g.instances) > 0 && g.entity.State == collector.EntityUp
	}
	if !some || id.migDevices == nil {
		return nil
	}
	devices, err := id.migDevices()
	if err == nil {
		id.migFailure = ""
		return devices
	}
	if why := err.Error(); why != id.migFailure {
		id.migFailure = why
		id.log.Warn("MIG devices are listed without NVML's UUIDs", "err", err)
	}
	return nil
}

// readDriver reads the driver's version while the driver is there.
func (id *identities) readDriver(top topology) code {
	// It is a value of the node, which DCGM also gives to whoever asks on a GPU.
	ask := []pair{pairOf(collector.KindGlobal, 0)}
	for _, g := range top.gpus {
		if up(g.status) {
			ask = append(ask, pairOf(collector.KindGPU, g.id))
			break
		}
	}
	for _, e := range ask {
		values, c := id.read([]pair{e}, []uint16{fieldDriverVersion})
		if c != codeOK {
			return c
		}
		if v := values[0].text(fieldDriverVersion); v != "" {
			id.driver = v
			return codeOK
		}
	}
	return codeOK
}

// read reads identities, and what time it is for the engine.
func (id *identities) read(entities []pair, fields []uint16) ([]identity, code) {
	values, c := id.lib.readIdentity(entities, fields)
	for _, v := range values {
		id.now = max(id.now, v.at)
	}
	return values, c
}

// identity is what one entity answered.
type identity struct {
	at      int64 // the engine's time
	texts   map[uint16]string
	numbers map[uint16]int
}

func (i identity) text(field uint16) string { return i.texts[field] }

func (i identity) number(field uint16) int {
	if n, ok := i.numbers[field]; ok {
		return n
	}
	return collector.Unknown
}

// readIdentity asks the driver, not the cache: no watch is needed, and the
// fields are constants that cost little.
func (l *library) readIdentity(entities []pair, fields []uint16) ([]identity, code) {
	r := request{entities: entities, fields: fields}
	for i := range entities {
		r.base = append(r.base, uint32(i*len(fields)))
	}
	for i := range fields {
		r.column = append(r.column, uint16(i))
	}
	cells := make([]nativeCell, len(entities)*len(fields))
	l.resetStrings()
	if c := l.read(&r, true, cells); c != codeOK {
		return nil, c
	}
	out := make([]identity, len(entities))
	for i := range out {
		out[i] = identity{texts: make(map[uint16]string), numbers: make(map[uint16]int)}
		for j, field := range fields {
			c := &cells[i*len(fields)+j]
			if c.status != codeOK {
				continue
			}
			out[i].at = max(out[i].at, c.ts)
			switch c.typ {
			case 's':
				if b := l.bytes(c); stringStatus(b) == collector.StatusOK {
					out[i].texts[field] = string(b)
				}
			case 'i':
				if int64Status(c.bits) == collector.StatusOK {
					out[i].numbers[field] = int(c.bits)
				}
			}
		}
	}
	return out, codeOK
}
