// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import (
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

const (
	// instanceGrace is how long an XID of the kernel log, on a GPU that is split,
	// waits for DCGM to say on which instance it was: two samples at the default
	// interval. Then it counts for the GPU. No longer: an alert waits, too.
	instanceGrace = 10 * time.Second
	// decisionGrace is how long an XID waits for a sample that says which instance has
	// the number that the driver names: the longest usual interval, twice.
	decisionGrace = time.Minute
	// kernelLag is how much later than DCGM's sample the kernel log may be read.
	kernelLag = 10 * time.Second
	// sampleLag is how much later DCGM may tell of what the kernel log has told.
	// Its engine takes in one XID a second for the node (EventThreadMain of DCGM's
	// cache manager sleeps between them), so that a burst of thousands takes as
	// long. After that the XID was one that DCGM missed.
	sampleLag = time.Hour
	// twinWindow is how far apart two samples may be that tell of one XID; see
	// samplesOf. GSP timeouts, which may come one after another, take 6 s each.
	twinWindow = 5 * time.Second
	// twinLag is how much later the second of them may come to us.
	twinLag = 2 * time.Minute
	// maxOpen bounds how many XIDs of one code on one GPU are kept open.
	maxOpen = 4096
)

// readByEngine says whether the code is one of those that DCGM's engine reads
// from the kernel log (DcgmKmsgReaderThread of DCGM 4.6), in addition to the
// driver's event. It puts them down to the GPU, as they are the GPU's as a whole.
func readByEngine(code int64) bool { return code == 79 || code == 119 || code == 120 }

// Ledger counts each XID once, although DCGM and the kernel log may both tell
// of it, in any order, and DCGM minutes later. Times cannot be compared: DCGM
// stamps an XID when it takes it in. So what is the same XID is a matter of
// numbers: on one GPU, with one code, each record of the kernel log is the XID of
// one sample of DCGM's (or two, see samplesOf) and the other way round. For each
// GPU and code the sum over the GPU and its instances is thus the larger of the
// two, and neither source is needed for the other to count.
//
// What it cannot tell apart: without the kernel log, but with an engine that may
// read it, two XIDs 79, 119 or 120 on one GPU within twinWindow, which count as
// one; and an XID that only DCGM has,
// because records of the kernel log were lost, after one that only the kernel
// log had, of the same code on the same GPU less than sampleLag ago.
type Ledger struct {
	// Twins says that the engine may be able to read the kernel log.
	Twins  bool
	Counts Counts
	open   map[gpuCode][]openXID
}

type gpuCode struct {
	uuid string
	code int64
}

// openXID is an XID of which one source has told and the other may yet.
type openXID struct {
	key    model.EntityKey
	at     time.Time // when it happened, by whoever told first
	told   time.Time // when we were told
	logged bool      // the kernel log has told
	waits  bool      // to hear on which instance it was; it is not counted yet
	// number is that of an instance, or Unknown, of which it is not decided yet
	// whether it is the one of the key: see decide.
	number  int
	samples int       // of DCGM's
	sample  time.Time // of the newest of these
}

// NewLedger returns an empty ledger.
func NewLedger() Ledger {
	return Ledger{Counts: newCounts(), open: map[gpuCode][]openXID{}}
}

// fit is how well what one source tells fits an XID of which another has told.
type fit uint8

const (
	fitNone fit = iota
	// The XID has as many samples as it needs, but may have one more.
	fitAgainGPU
	fitAgainWaits
	fitAgain
	// It has none yet: one is of the GPU and the other of an instance, or it waits to
	// hear of which instance it is, or both are of the same.
	fitGPU
	fitWaits
	fitExact
)

// again is the fit with an XID that DCGM has told of already.
func (f fit) again() fit { return f - (fitExact - fitAgain) }

// AddSample takes a sample of DCGM's and says whether it tells of a new XID.
func (l *Ledger) AddSample(key model.EntityKey, code int64, at, now time.Time) bool {
	l.Settle(now)
	id := gpuCode{key.UUID, code}
	open := l.open[id]
	best, how := 0, fitNone
	for i := range open {
		if f := l.fitsSample(&open[i], key, code, at); f > how {
			if best, how = i, f; f == fitExact {
				break
			}
		}
	}
	if how == fitNone {
		l.Counts.add(key, code, at, now)
		l.keep(id, openXID{key: key, number: model.Unknown, at: at, told: now, samples: 1, sample: at})
		return true
	}
	x := &open[best]
	x.samples++
	x.sample = at
	if x.waits && (x.number == model.Unknown || key.Instance != model.Unknown) {
		x.key = key
		l.count(id, x)
	}
	l.closeIfTold(id, best)
	return false
}

// samplesOf returns how many samples DCGM may make of one XID.
func (l *Ledger) samplesOf(code int64) int {
	if l.Twins && readByEngine(code) {
		return 2
	}
	return 1
}

// fitsSample says how well a sample fits an XID that is open.
func (l *Ledger) fitsSample(x *openXID, key model.EntityKey, code int64, at time.Time) fit {
	how := fitNone
	switch {
	case x.number != model.Unknown && key.Instance != model.Unknown && x.number != key.Instance:
		return fitNone // on two instances: two XIDs
	case x.waits:
		how = fitWaits
	case x.key == key:
		how = fitExact
	case x.key.Instance == model.Unknown || key.Instance == model.Unknown:
		how = fitGPU
	default:
		return fitNone // on two instances: two XIDs
	}
	if x.samples == 0 {
		return how
	}
	apart := at.Sub(x.sample).Abs()
	if x.samples < l.samplesOf(code) && (x.logged || apart <= twinWindow) {
		return how.again() // rather one that DCGM has not told at all
	}
	return fitNone
}

// Record is a record of the kernel log.
type Record struct {
	Key  model.EntityKey
	Code int64
	At   time.Time
	// Partitioned says that the GPU has instances, of which one may be meant.
	Partitioned bool
	// Number is that of the instance that the driver names, if it is to be decided
	// yet whether it is the one of the key; or Unknown.
	Number int
}

// AddRecord takes a record of the kernel log and says whether it tells of a new XID.
func (l *Ledger) AddRecord(r Record, now time.Time) bool {
	l.Settle(now)
	key, code := r.Key, r.Code
	id := gpuCode{key.UUID, code}
	open := l.open[id]
	best, how := 0, fitNone
	for i := range open {
		x := &open[i]
		switch {
		case x.logged || now.Sub(x.told) > kernelLag:
		case x.key == key || r.Number != model.Unknown && x.key.Instance == r.Number:
			best, how = i, fitExact
		case how == fitNone && (x.key.Instance == model.Unknown || key.Instance == model.Unknown && r.Number == model.Unknown):
			best, how = i, fitGPU
		}
		if how == fitExact {
			break
		}
	}
	if how == fitNone {
		waits := r.Number != model.Unknown || r.Partitioned && key.Instance == model.Unknown && !readByEngine(code)
		if !waits {
			l.Counts.add(key, code, r.At, now)
		}
		l.keep(id, openXID{key: key, number: r.Number, at: r.At, told: now, logged: true, waits: waits})
		return true
	}
	open[best].logged = true
	l.closeIfTold(id, best)
	return false
}

// closeIfTold closes an XID that both sources have told all of.
func (l *Ledger) closeIfTold(id gpuCode, i int) {
	open := l.open[id]
	if x := &open[i]; x.waits || !x.logged || x.samples < l.samplesOf(id.code) {
		return
	}
	if i == 0 {
		open = open[1:]
	} else {
		open = slices.Delete(open, i, i+1)
	}
	l.put(id, open)
}

func (l *Ledger) keep(id gpuCode, x openXID) {
	open := append(l.open[id], x)
	for len(open) > maxOpen {
		l.count(id, &open[0])
		open = open[1:]
	}
	l.open[id] = open
}

func (l *Ledger) put(id gpuCode, open []openXID) {
	if len(open) == 0 {
		delete(l.open, id)
		return
	}
	l.open[id] = open
}

// Decide says of which instances those XIDs are of which that is open. Where nobody
// knows, DCGM may tell yet.
func (l *Ledger) Decide(of func(key model.EntityKey, number int) model.EntityKey) {
	for id, open := range l.open {
		for i := range open {
			x := &open[i]
			if x.number == model.Unknown {
				continue
			}
			x.key, x.number = of(x.key, x.number), model.Unknown
			if x.key.Instance != model.Unknown || x.samples >= l.samplesOf(id.code) {
				l.count(id, x)
			}
		}
		l.put(id, slices.DeleteFunc(open, func(x openXID) bool {
			return !x.waits && x.logged && x.samples >= l.samplesOf(id.code)
		}))
	}
}

// count counts an XID that has waited.
func (l *Ledger) count(id gpuCode, x *openXID) {
	if x.waits {
		x.waits, x.number = false, model.Unknown
		l.Counts.add(x.key, id.code, x.at, x.told)
	}
}

// Settle counts what has waited for long enough, and forgets what is not going
// to be told again.
func (l *Ledger) Settle(now time.Time) {
	for id, open := range l.open {
		for i := range open {
			x := &open[i]
			age := now.Sub(x.told)
			if age < instanceGrace {
				break // so are those after it
			}
			if x.number == model.Unknown || age >= decisionGrace {
				l.count(id, x)
			}
		}
		past := 0 // one that lives longer keeps those after it, which fit nothing any more
		for past < len(open) && now.Sub(open[past].told) > l.lifetime(&open[past], id.code) {
			past++
		}
		if past > 0 {
			l.put(id, open[past:])
		}
	}
}

func (l *Ledger) lifetime(x *openXID, code int64) time.Duration {
	switch {
	case x.logged:
		return sampleLag
	case l.samplesOf(code) > 1:
		return twinLag
	}
	return kernelLag
}
