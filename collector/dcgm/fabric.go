// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

/*
#include "fabric.h"
*/
import "C"

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"time"
	"unsafe"

	"gpu_exporter/collector"
)

// linkState is dcgmNvLinkLinkState_t.
type linkState int32

const (
	linkDisabled linkState = 1
	linkDown     linkState = 2
	linkUp       linkState = 3
)

// nvlink is a port of a GPU or switch.
type nvlink struct {
	parent pair
	port   int
	state  linkState
}

// linkID is the entity id of a link: dcgm_link_t (dcgm_structs.h).
func linkID(parent pair, port int) uint32 {
	return parent.kind | uint32(port)<<8 | parent.id<<24
}

// cpu is one Grace CPU with Linux's numbers of its cores.
type cpu struct {
	id    uint32
	cores []uint32
}

// fabric is what the node has beside GPUs and their instances. Links that do not
// exist are not in it; those that are down are.
type fabric struct {
	switches, connectx, vgpus []uint32
	links                     []nvlink
	cpus                      []cpu
}

// fabricList lists what there is of the kinds that it was made for.
type fabricList struct {
	f *C.struct_fabric
}

// newFabricList returns a list of the wanted kinds, which may be none.
func (l *library) newFabricList(kinds collector.KindSet) fabricList {
	return fabricList{C.fabric_open(l.n, C.uint32_t(kinds))}
}

// linksNotAsked is, in place of the code of listing the links, that it is too early to
// list them again.
const linksNotAsked code = C.FABRIC_NOT_ASKED

// check asks what there is, and says whether that changed. links is the code of
// listing the links, or linksNotAsked: when it is not good, they stay as they were.
func (l fabricList) check() (changed bool, links, c code) {
	var isChanged, ofLinks C.int
	c = code(C.fabric_check(l.f, &isChanged, &ofLinks))
	return isChanged != 0, code(ofLinks), c
}

// current returns what the last check found.
func (l fabricList) current() fabric {
	t := C.fabric_current(l.f)
	ids := func(list *C.struct_fabric_ids) []uint32 {
		return slices.Clone(unsafe.Slice((*uint32)(&list.ids[0]), int(list.count)))
	}
	now := fabric{switches: ids(&t.switches), connectx: ids(&t.connectx), vgpus: ids(&t.vgpus)}
	for i := range int(t.link_count) {
		l := &t.links[i]
		now.links = append(now.links, nvlink{
			parent: pair{uint32(l.parent_kind), uint32(l.parent)},
			port:   int(l.port),
			state:  linkState(l.state),
		})
	}
	for i := range int(t.cpu_count) {
		c := &t.cpus[i]
		found := cpu{id: uint32(c.id)}
		for word, mask := range c.cores {
			for m := uint64(mask); m != 0; m &= m - 1 {
				found.cores = append(found.cores, uint32(word*64+bits.TrailingZeros64(m)))
			}
		}
		now.cpus = append(now.cpus, found)
	}
	return now
}

// fabricKinds are the kinds to look for. Links are looked for in any case: whether
// they are up is worth knowing, and shown.
func fabricKinds(cfg collector.SamplerConfig) collector.KindSet {
	kinds := collector.Kinds(collector.KindSwitch, collector.KindLink)
	for _, kind := range []collector.EntityKind{collector.KindCPU, collector.KindCPUCore, collector.KindConnectX, collector.KindVGPU} {
		if len(cfg.Fields[kind]) > 0 {
			kinds |= collector.Kinds(kind)
		}
	}
	return kinds
}

// fabricIdentities says who the entities of the fabric are.
type fabricIdentities struct {
	now fabric
	// switches are what was ever learned of each, by id. DCGM never takes one off its
	// list, and blanks all of one that fails.
	switches map[uint32]collector.Entity
	// links are those that count as existing, by entity id.
	links map[uint32]collector.Entity
	// known are those that were ever seen, by this sampler or an earlier one.
	known map[knownPort]bool
}

// knownPort is a port that has a link.
type knownPort struct {
	gpu    string // its UUID, so that no other in its place takes anything over
	parent pair   // if that is not known, or no GPU
	port   int
}

// knownPorts are those that the sampler was told of.
func knownPorts(told []collector.KnownLinks) map[knownPort]bool {
	known := make(map[knownPort]bool)
	for _, t := range told {
		p := knownPort{gpu: t.GPU}
		if t.GPU == "" {
			p.parent = pairOf(collector.KindSwitch, t.Switch)
		}
		for _, p.port = range t.Ports {
			known[p] = true
		}
	}
	return known
}

// update takes in what there is now, with the GPUs as they are.
func (f *fabricIdentities) update(now fabric, gpus map[uint32]*knownGPU) {
	f.now = now
	hasMIG := false
	for _, known := range gpus {
		hasMIG = hasMIG || known.entity.MIGMode
	}
	isUp := func(gpu uint32) bool { return gpus[gpu] != nil && gpus[gpu].entity.State == collector.EntityUp }
	linked := make(map[pair]bool) // parents with a link that is up
	for _, l := range now.links {
		if l.state == linkUp {
			linked[l.parent] = true
		}
	}
	links := make(map[uint32]collector.Entity, len(now.links))
	for _, l := range now.links {
		port := knownPort{parent: l.parent, port: l.port}
		if l.parent.kind == uint32(collector.KindGPU) {
			if !isUp(l.parent.id) {
				continue // what is said of a lost GPU's links is not true
			}
			if uuid := gpus[l.parent.id].entity.UUID; uuid != "" {
				port.gpu, port.parent = uuid, pair{}
			}
		}
		switch {
		case l.state == linkUp, f.known[port]:
		case l.state == linkDown && linked[l.parent]:
			// Others of the GPU are up, so this one is meant to be. A GPU without a
			// bridge shows all of its links as down, and has none.
		default:
			continue
		}
		if l.state == linkDisabled && !hasMIG {
			continue
		}
		id := linkID(l.parent, l.port)
		f.known[port] = true
		links[id] = collector.Entity{
			Kind: collector.KindLink, ID: id, Port: l.port, LinkDown: l.state != linkUp,
			Index: collector.Unknown, Minor: collector.Unknown, InstanceID: collector.Unknown, PlacementStart: collector.Unknown,
		}
	}
	for id, e := range f.links {
		parent := parentOfLink(id)
		if parent.kind == uint32(collector.KindGPU) && !isUp(parent.id) {
			links[id] = e
		}
	}
	f.links = links
}

func parentOfLink(id uint32) pair { return pair{id & 0xff, id >> 24} }

// readSwitches reads the identity of the switches.
func (id *identities) readSwitches() code {
	var switches []pair
	for _, s := range id.fabric.now.switches {
		switches = append(switches, pairOf(collector.KindSwitch, s))
	}
	if len(switches) == 0 {
		return codeOK
	}
	values, c := id.read(switches, []uint16{fieldUUID, fieldSwitchDomain, fieldSwitchBus, fieldSwitchDevice, fieldSwitchFunction})
	if c != codeOK {
		return c
	}
	for i, s := range switches {
		v := values[i]
		e := collector.Entity{
			Kind: collector.KindSwitch, ID: s.id, Parent: collector.Unknown, UUID: v.text(fieldUUID),
			Index: collector.Unknown, Minor: collector.Unknown, InstanceID: collector.Unknown,
			PlacementStart: collector.Unknown, Port: collector.Unknown,
		}
		if bus := v.number(fieldSwitchBus); bus != collector.Unknown {
			e.PCIBusID = fmt.Sprintf("%08X:%02X:%02X.%X", max(v.number(fieldSwitchDomain), 0), bus,
				max(v.number(fieldSwitchDevice), 0), max(v.number(fieldSwitchFunction), 0))
		}
		if known, ok := id.fabric.switches[s.id]; ok {
			e = merge(known, e)
		}
		if id.fabric.switches == nil {
			id.fabric.switches = make(map[uint32]collector.Entity)
		}
		id.fabric.switches[s.id] = e
	}
	return codeOK
}

// switchEntities returns the switches in the order of an inventory.
func (f *fabricIdentities) switchEntities() []collector.Entity {
	var all []collector.Entity
	for _, id := range f.now.switches {
		if known, ok := f.switches[id]; ok {
			all = append(all, known)
		}
	}
	slices.SortFunc(all, func(a, b collector.Entity) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// otherEntities returns the links, CPUs, cores, ConnectX devices and vGPUs, in the
// order of an inventory in which the entities of before stand first.
func (f *fabricIdentities) otherEntities(before []collector.Entity) []collector.Entity {
	blank := collector.Entity{
		Parent: collector.Unknown, Index: collector.Unknown, Minor: collector.Unknown,
		InstanceID: collector.Unknown, PlacementStart: collector.Unknown, Port: collector.Unknown,
	}
	parents := make(map[pair]int, len(before))
	for i, e := range before {
		parents[pairOf(e.Kind, e.ID)] = i
	}
	var all []collector.Entity
	for id, e := range f.links {
		parent, ok := parents[parentOfLink(id)]
		if !ok {
			continue // its GPU was forgotten
		}
		e.Parent, e.State = parent, before[parent].State
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b collector.Entity) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Port, b.Port))
	})
	firstCPU := len(before) + len(all)
	for _, c := range f.now.cpus {
		e := blank
		e.Kind, e.ID = collector.KindCPU, c.id
		all = append(all, e)
	}
	for i, c := range f.now.cpus {
		for _, core := range c.cores {
			e := blank
			e.Kind, e.ID, e.Parent = collector.KindCPUCore, core, firstCPU+i
			all = append(all, e)
		}
	}
	for _, list := range []struct {
		kind collector.EntityKind
		ids  []uint32
	}{{collector.KindConnectX, f.now.connectx}, {collector.KindVGPU, f.now.vgpus}} {
		for _, id := range list.ids {
			e := blank
			e.Kind, e.ID = list.kind, id
			all = append(all, e)
		}
	}
	return all
}

// fabricLead is how long before a sample the fabric is looked at, if the interval
// allows: what has changed is in that sample.
const fabricLead = 500 * time.Millisecond

// fabricWait is how long the first sample waits for the first look.
const fabricWait = 2 * time.Second

// fabricReader looks at the fabric beside the samples: the state of each link is a
// call into the driver.
type fabricReader struct {
	beside[struct{}, fabricResult]
	links code      // of listing the links
	read  time.Time // when they were last listed; zero: never
	// listed says that it was found out which switches there are.
	listed bool
	now    fabric
}

type fabricResult struct {
	asked   time.Time
	fabric  fabric // if changed
	changed bool
	links   code
	listed  bool // the switches were
}

// newFabricReader starts a reader of the kinds, and waits a little for its first
// look.
func newFabricReader(lib *library, kinds collector.KindSet, log *slog.Logger) *fabricReader {
	list := lib.newFabricList(kinds)
	r := &fabricReader{beside: newBeside("looking at the NVLinks", log, func(struct{}) fabricResult {
		asked := time.Now() // a link may go down at any time from here on
		changed, links, c := list.check()
		if c != codeOK {
			links = c
		}
		result := fabricResult{asked: asked, changed: changed && c == codeOK, links: links, listed: c == codeOK}
		if result.changed {
			result.fabric = list.current()
		}
		return result
	})}
	r.start(struct{}{})
	select {
	case result := <-r.results:
		r.finish(result)
	case <-time.After(fabricWait):
		log.Warn("listing the NVLinks takes long; their series come when that is done")
	}
	return r
}

// at returns when the links were last listed, by the clock as it is set now; zero if
// they never were.
func (r *fabricReader) at() time.Time {
	if r.read.IsZero() {
		return r.read
	}
	return time.Now().Add(-time.Since(r.read))
}

// finish takes in a result, and says whether anything changed.
func (r *fabricReader) finish(result fabricResult) bool {
	r.beside.finish()
	r.listed = r.listed || result.listed
	if result.links == linksNotAsked {
		return false
	}
	if result.links == codeOK {
		r.read = result.asked
	}
	if result.links != r.links {
		if r.links = result.links; r.links != codeOK {
			r.log.Warn("the NVLinks cannot be listed; whether they are up is withheld when it is too old", "code", int(r.links))
		}
	}
	if result.changed {
		r.now = result.fabric
	}
	return result.changed
}
