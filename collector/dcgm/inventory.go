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
)

// knownGPU is a GPU as it was last seen well. DCGM blanks the name and UUID of a
// lost GPU, and its instances go with it, so they are remembered here.
type knownGPU struct {
	entity    collector.Entity
	instances []knownInstance
}

type knownInstance struct {
	entity  collector.Entity
	compute []collector.Entity
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
	generation uint64
}

// inventory makes the inventory of the node as the engine now sees it.
// incomplete says that a GPU which is up did not tell its UUID.
func (id *identities) inventory(top topology) (inv *collector.Inventory, incomplete bool, c code) {
	if c := id.readGPUs(top); c.lost() {
		return nil, false, c
	}
	if c := id.readInstances(top); c.lost() {
		return nil, false, c
	}
	if c := id.readDriver(top); c.lost() {
		return nil, false, c
	}
	id.settle(top)
	id.nameMIGDevices()

	id.generation++
	inv = &collector.Inventory{
		Generation:    id.generation,
		Time:          time.Now(),
		DriverVersion: id.driver,
		DCGMVersion:   id.version,
		Entities:      id.entities(),
	}
	for kind, fields := range id.columns {
		inv.Columns[kind] = fields
	}
	for i := range inv.Entities {
		e := &inv.Entities[i]
		incomplete = incomplete || e.Kind == collector.KindGPU && e.State == collector.EntityUp && e.UUID == ""
	}
	return inv, incomplete, codeOK
}

// entities returns all that is known in the order of an inventory.
func (id *identities) entities() []collector.Entity {
	gpus := make([]*knownGPU, 0, len(id.known))
	for _, g := range id.known {
		gpus = append(gpus, g)
	}
	slices.SortFunc(gpus, func(a, b *knownGPU) int { return cmp.Compare(a.entity.ID, b.entity.ID) })

	var all, instances, compute []collector.Entity
	for _, g := range gpus {
		all = append(all, g.entity)
	}
	for i, g := range gpus {
		for _, instance := range g.instances {
			e := instance.entity
			e.Parent = i
			e.State = g.entity.State
			position := len(gpus) + len(instances)
			instances = append(instances, e)
			for _, c := range instance.compute {
				c.Parent = position
				c.State = g.entity.State
				compute = append(compute, c)
			}
		}
	}
	return append(append(all, instances...), compute...)
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
	values, c := id.lib.readIdentity(gpus, fields)
	if c != codeOK {
		return c
	}
	for i, gpu := range gpus {
		v := values[i]
		e := collector.Entity{
			Kind:       collector.KindGPU,
			ID:         gpu.id,
			Parent:     collector.Unknown,
			UUID:       v.text(fieldUUID),
			PCIBusID:   v.text(fieldPCIBusID),
			Model:      v.text(fieldName),
			Brand:      v.text(fieldBrand),
			Serial:     v.text(fieldSerial),
			VBIOS:      v.text(fieldVBIOS),
			Index:      v.number(fieldNVMLIndex),
			Minor:      v.number(fieldMinor),
			MIGMode:    v.number(fieldMIGMode) == 1,
			InstanceID: collector.Unknown,
			Port:       collector.Unknown,
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
	return read
}

// readInstances reads the GPU instances and compute instances of the GPUs that
// are up. Those of the others stay as they were.
func (id *identities) readInstances(top topology) code {
	isUp := make(map[uint32]bool, len(top.gpus))
	for _, g := range top.gpus {
		if up(g.status) && id.known[g.id] != nil {
			isUp[g.id] = true
			id.known[g.id].instances = nil
		}
	}
	var entities []pair
	for _, e := range top.mig {
		entities = append(entities, e.entity)
	}
	values, c := id.lib.readIdentity(entities, []uint16{fieldName, fieldUUID})
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
		g.instances = append(g.instances, knownInstance{entity: collector.Entity{
			Kind:       collector.KindGPUInstance,
			ID:         m.entity.id,
			Index:      collector.Unknown,
			Minor:      collector.Unknown,
			Port:       collector.Unknown,
			InstanceID: int(m.nvmlGPUInstance),
			Profile:    profile(values[i].text(fieldName)),
		}})
	}
	for i, m := range top.mig {
		at, ok := instances[m.parent.id]
		if m.entity.kind != uint32(collector.KindComputeInstance) || !ok {
			continue
		}
		g := &at.gpu.instances[at.index]
		g.compute = append(g.compute, collector.Entity{
			Kind:       collector.KindComputeInstance,
			ID:         m.entity.id,
			UUID:       values[i].text(fieldUUID),
			Index:      collector.Unknown,
			Minor:      collector.Unknown,
			Port:       collector.Unknown,
			InstanceID: int(m.nvmlComputeInstance),
			Profile:    profile(values[i].text(fieldName)),
		})
	}
	for gpu := range isUp {
		g := id.known[gpu]
		slices.SortFunc(g.instances, func(a, b knownInstance) int { return cmp.Compare(a.entity.ID, b.entity.ID) })
		for _, instance := range g.instances {
			slices.SortFunc(instance.compute, func(a, b collector.Entity) int { return cmp.Compare(a.ID, b.ID) })
		}
	}
	return codeOK
}

// profile takes the profile out of an instance's name, which is the profile
// alone or, as NVML names a MIG device, "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
func profile(name string) string {
	if i := strings.LastIndex(name, "MIG "); i >= 0 {
		return name[i+len("MIG "):]
	}
	return name
}

// nameMIGDevices puts NVML's UUIDs onto the compute instances. NVML's word
// stands above DCGM's, which is there only if DCGM found the device handle.
func (id *identities) nameMIGDevices() {
	any := false
	for _, g := range id.known {
		any = any || len(g.instances) > 0 && g.entity.State == collector.EntityUp
	}
	if !any || id.migDevices == nil {
		return
	}
	devices, err := id.migDevices()
	if err != nil {
		id.log.Warn("MIG devices are listed without NVML's UUIDs", "err", err)
		return
	}
	type key struct {
		parent            string
		instance, compute int
	}
	uuids := make(map[key]string, len(devices))
	for _, d := range devices {
		uuids[key{d.ParentUUID, d.GPUInstanceID, d.ComputeInstanceID}] = d.UUID
	}
	for _, g := range id.known {
		for _, instance := range g.instances {
			for i := range instance.compute {
				c := &instance.compute[i]
				if uuid := uuids[key{g.entity.UUID, instance.entity.InstanceID, c.InstanceID}]; uuid != "" {
					c.UUID = uuid
				}
			}
		}
	}
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
		values, c := id.lib.readIdentity([]pair{e}, []uint16{fieldDriverVersion})
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

// identity is what one entity answered.
type identity struct {
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
		out[i] = identity{make(map[uint16]string), make(map[uint16]int)}
		for j, field := range fields {
			c := &cells[i*len(fields)+j]
			if c.status != codeOK {
				continue
			}
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
