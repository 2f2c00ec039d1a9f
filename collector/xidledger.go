// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"time"
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

// xidLedger counts each XID once, although DCGM and the kernel log may both tell
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
type xidLedger struct {
	// twins says that the engine may be able to read the kernel log.
	twins  bool
	counts xidCounts
	open   map[gpuXID][]openXID
}

type gpuXID struct {
	uuid string
	code int64
}

// openXID is an XID of which one source has told and the other may yet.
type openXID struct {
	key    entityKey
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

func newXIDLedger() xidLedger {
	return xidLedger{counts: newXIDCounts(), open: map[gpuXID][]openXID{}}
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

// addSample takes a sample of DCGM's and says whether it tells of a new XID.
func (l *xidLedger) addSample(key entityKey, code int64, at, now time.Time) bool {
	l.settle(now)
	id := gpuXID{key.uuid, code}
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
		l.counts.add(key, code, at, now)
		l.keep(id, openXID{key: key, number: Unknown, at: at, told: now, samples: 1, sample: at})
		return true
	}
	x := &open[best]
	x.samples++
	x.sample = at
	if x.waits && (x.number == Unknown || key.instance != Unknown) {
		x.key = key
		l.count(id, x)
	}
	l.closeIfTold(id, best)
	return false
}

// samplesOf returns how many samples DCGM may make of one XID.
func (l *xidLedger) samplesOf(code int64) int {
	if l.twins && readByEngine(code) {
		return 2
	}
	return 1
}

// fitsSample says how well a sample fits an XID that is open.
func (l *xidLedger) fitsSample(x *openXID, key entityKey, code int64, at time.Time) fit {
	how := fitNone
	switch {
	case x.number != Unknown && key.instance != Unknown && x.number != key.instance:
		return fitNone // on two instances: two XIDs
	case x.waits:
		how = fitWaits
	case x.key == key:
		how = fitExact
	case x.key.instance == Unknown || key.instance == Unknown:
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

// loggedXID is a record of the kernel log.
type loggedXID struct {
	key  entityKey
	code int64
	at   time.Time
	// split says that the GPU has instances, of which one may be meant.
	split bool
	// number is that of the instance that the driver names, if it is to be decided
	// yet whether it is the one of the key; or Unknown.
	number int
}

// addRecord takes a record of the kernel log and says whether it tells of a new XID.
func (l *xidLedger) addRecord(r loggedXID, now time.Time) bool {
	l.settle(now)
	key, code := r.key, r.code
	id := gpuXID{key.uuid, code}
	open := l.open[id]
	best, how := 0, fitNone
	for i := range open {
		x := &open[i]
		switch {
		case x.logged || now.Sub(x.told) > kernelLag:
		case x.key == key || r.number != Unknown && x.key.instance == r.number:
			best, how = i, fitExact
		case how == fitNone && (x.key.instance == Unknown || key.instance == Unknown && r.number == Unknown):
			best, how = i, fitGPU
		}
		if how == fitExact {
			break
		}
	}
	if how == fitNone {
		waits := r.number != Unknown || r.split && key.instance == Unknown && !readByEngine(code)
		if !waits {
			l.counts.add(key, code, r.at, now)
		}
		l.keep(id, openXID{key: key, number: r.number, at: r.at, told: now, logged: true, waits: waits})
		return true
	}
	open[best].logged = true
	l.closeIfTold(id, best)
	return false
}

// closeIfTold closes an XID that both sources have told all of.
func (l *xidLedger) closeIfTold(id gpuXID, i int) {
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

func (l *xidLedger) keep(id gpuXID, x openXID) {
	open := append(l.open[id], x)
	for len(open) > maxOpen {
		l.count(id, &open[0])
		open = open[1:]
	}
	l.open[id] = open
}

func (l *xidLedger) put(id gpuXID, open []openXID) {
	if len(open) == 0 {
		delete(l.open, id)
		return
	}
	l.open[id] = open
}

// decide says of which instances those XIDs are of which that is open. Where nobody
// knows, DCGM may tell yet.
func (l *xidLedger) decide(of func(key entityKey, number int) entityKey) {
	for id, open := range l.open {
		for i := range open {
			x := &open[i]
			if x.number == Unknown {
				continue
			}
			x.key, x.number = of(x.key, x.number), Unknown
			if x.key.instance != Unknown || x.samples >= l.samplesOf(id.code) {
				l.count(id, x)
			}
		}
		l.put(id, slices.DeleteFunc(open, func(x openXID) bool {
			return !x.waits && x.logged && x.samples >= l.samplesOf(id.code)
		}))
	}
}

// count counts an XID that has waited.
func (l *xidLedger) count(id gpuXID, x *openXID) {
	if x.waits {
		x.waits, x.number = false, Unknown
		l.counts.add(x.key, id.code, x.at, x.told)
	}
}

// settle counts what has waited for long enough, and forgets what is not going
// to be told again.
func (l *xidLedger) settle(now time.Time) {
	for id, open := range l.open {
		for i := range open {
			x := &open[i]
			age := now.Sub(x.told)
			if age < instanceGrace {
				break // so are those after it
			}
			if x.number == Unknown || age >= decisionGrace {
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

func (l *xidLedger) lifetime(x *openXID, code int64) time.Duration {
	switch {
	case x.logged:
		return sampleLag
	case l.samplesOf(code) > 1:
		return twinLag
	}
	return kernelLag
}
