// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"errors"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

const (
	// libraryCheckInterval is the time between checks of the library's file.
	libraryCheckInterval = 10 * time.Second
	// stallTimeout is how long the engine may have no newer value of any field, but
	// at least 3 intervals.
	stallTimeout = 30 * time.Second
	// blankTimeout is how long no GPU of an embedded engine may answer, but at least 3
	// intervals.
	blankTimeout = 5 * time.Second
)

// sample takes and writes one sample.
func (s *sampler) sample() error {
	now := time.Now()
	if err := s.checkLibrary(now); err != nil {
		return err
	}
	if err := s.followTopology(now); err != nil {
		return err
	}
	sample, found, c := s.read()
	if c != native.OK {
		return s.failed(c, model.FailureHostengineLost, "reading values")
	}
	age := s.valueAge(sample.Time)
	sample.Time, sample.Uptime = sample.Time.Add(-age), native.Uptime()-age
	if s.newest != 0 {
		sample.EngineTime = time.UnixMicro(s.newest)
	}
	sample.LinksChanged = s.discovery.LinksChanged(s.inv)
	sample.LinksRead, sample.SwitchesListed = s.fabric.readAt(), s.fabric.listed
	if err := s.write(sample, found, now); err != nil {
		return err
	}
	s.migChanged = found.migChanged // read with the next sample
	if err := s.checkAnswers(now); err != nil {
		return err
	}
	if err := s.checkProgress(age); err != nil {
		return err
	}
	return s.rewatchProfiling(now)
}

// checkLibrary fails if the library was replaced or the driver was loaded.
func (s *sampler) checkLibrary(now time.Time) error {
	if now.Sub(s.libraryCheck) < libraryCheckInterval {
		return nil
	}
	s.libraryCheck = now
	if s.engine.updated() {
		s.flush()
		return failure(model.FailureLibraryUpdated, nil, "%s was replaced on disk", s.lib.Path)
	}
	if s.engine.driverArrived() {
		return failure(model.FailureDriverLoaded, nil, "the NVIDIA driver was loaded after DCGM had started without it")
	}
	return nil
}

// followTopology makes a new inventory if the topology changed, or if identities are
// to be read again.
func (s *sampler) followTopology(now time.Time) error {
	changed, err := s.topologyChanged(now)
	if err != nil {
		return err
	}
	if identity := s.incomplete || s.incapable || s.migChanged; !changed && (!identity || now.Before(s.identityAt)) {
		return nil
	}
	// XIDs and values received until now belong to the old inventory.
	if err := errors.Join(s.pollXIDs(), s.writeTracks()); err != nil {
		return err
	}
	rebuilt, err := s.rebuild(changed)
	if err != nil || !rebuilt {
		return err
	}
	message := "the topology changed"
	if !changed {
		message = "the identity or the profiling fields of GPUs changed"
	}
	s.log.Info(message, "entities", len(s.inv.Entities), "generation", s.inv.Generation)
	return nil
}

// write writes a sample. Everything that is published with it comes first.
func (s *sampler) write(sample *model.Sample, found news, now time.Time) error {
	if err := s.pollTracked(true); err != nil {
		return err
	}
	s.profiler.check(s.reading, now)
	if err := s.writeProfiling(); err != nil {
		return err
	}
	if found.xids || len(s.xids.unread) > 0 || len(s.xids.pending) > 0 {
		if err := s.writeXIDs(); err != nil {
			return err
		}
	}
	if now.Before(s.skipUntil) && s.reading.plan.awaitsProfiling(sample) {
		return nil
	}
	s.skipUntil = time.Time{}
	return s.cfg.Frames.Write(wire.Frame{Sample: sample})
}

// flush writes the XIDs and tracked values since the newest sample, before the engine
// stops.
func (s *sampler) flush() {
	if err := errors.Join(s.writeXIDs(), s.flushXIDs(), s.pollTracked(true)); err != nil {
		s.log.Debug("values since the newest sample were lost", "err", err)
	}
}

// topologyChanged reports whether the topology changed after the newest inventory.
func (s *sampler) topologyChanged(now time.Time) (bool, error) {
	changed, c := s.checkTopology(now)
	if c.EngineLost() {
		return false, s.failed(c, model.FailureHostengineLost, "listing the GPUs")
	}
	if c != native.OK {
		s.log.Debug("the topology was not checked", "err", s.lib.Err(c, "listing the GPUs"))
	}
	s.changed = s.changed || changed
	if s.fabric.updated {
		s.fabric.updated = false
		s.fabric.changed = s.discovery.UpdateFabric(s.fabric.fabric) || s.fabric.changed
	}
	return s.changed || s.fabric.changed, nil
}

// checkTopology reports whether the topology changed after the last call.
func (s *sampler) checkTopology(now time.Time) (bool, native.Code) {
	changed, instances, c := s.lib.CheckTopology()
	if c == native.OK && instances == native.OK {
		s.listed = now
	}
	unlisted := now.Sub(s.listed) > max(instancesTimeout, 2*s.cfg.Sampler.Interval)
	if unlisted == s.unlisted {
		return changed, c
	}
	if s.unlisted = unlisted; unlisted {
		s.log.Warn("MIG instances cannot be listed; their series are omitted", "err", s.lib.Err(cmp.Or(c, instances), "listing the MIG instances"))
	} else {
		s.log.Info("MIG instances are listed again")
	}
	return true, c
}

// read takes a reading.
func (s *sampler) read() (*model.Sample, news, native.Code) {
	sample, found, c := s.reading.take()
	if c != native.OK || s.reading.newest != 0 || s.updated || s.reading.proofs == 0 {
		return sample, found, c
	}
	// Before DCGM 4.6, dcgmWatchFields did not wait for the first values (dcgm_agent.h).
	s.updated = true
	if c := s.lib.Update(); c != native.OK {
		return nil, news{}, c
	}
	return s.reading.take()
}

// checkAnswers fails if no GPU answers any more. After XID 119 every field of every
// GPU is blank until the engine is restarted. A standalone engine is not ours to
// restart.
func (s *sampler) checkAnswers(now time.Time) error {
	if s.reading.answers > 0 || s.cfg.Sampler.Hostengine != "" || s.reading.proofs == 0 {
		s.answeredAt = now
		return nil
	}
	if s.answeredAt.IsZero() {
		return nil // no GPU ever answered: a restart would not help
	}
	if limit := max(blankTimeout, 3*s.cfg.Sampler.Interval); now.Sub(s.answeredAt) > limit {
		return failure(model.FailureEngineBlank, nil, "every field of every GPU has been blank for %s, as after XID 119: DCGM needs a restart", limit)
	}
	return nil
}

// valueAge returns the time since any field last had a newer value.
func (s *sampler) valueAge(now time.Time) time.Duration {
	// A smaller time is progress too: clocks are set back.
	if s.reading.newest != s.newest || s.newest == 0 {
		s.newest, s.newestSince = s.reading.newest, now
	}
	return now.Sub(s.newestSince)
}

// checkProgress fails if the engine answers with old values: its sampling thread hangs
// in the driver.
func (s *sampler) checkProgress(age time.Duration) error {
	if limit := max(stallTimeout, 3*s.cfg.Sampler.Interval); age > limit {
		return failure(model.FailureEngineStalled, nil, "DCGM has had no new value of any field for %s: its sampling thread is stuck, probably in the driver", limit)
	}
	return nil
}

// writeXIDs writes new XIDs. XIDs of instances wait for the next inventory if the
// topology changed or cannot be listed: their IDs may be reused.
func (s *sampler) writeXIDs() error {
	if err := s.pollXIDs(); err != nil {
		return err
	}
	if s.xids.hasInstances() {
		now := time.Now()
		if _, err := s.topologyChanged(now); err != nil {
			return err
		}
		if s.changed || s.listed != now {
			return nil
		}
	}
	return s.writeEvents(s.xids.emit(true))
}

// flushXIDs writes the XIDs that wait for an inventory that will not come.
func (s *sampler) flushXIDs() error { return s.writeEvents(s.xids.emit(false)) }

func (s *sampler) pollXIDs() error {
	c := s.xids.poll(s.reading)
	if c.EngineLost() {
		return s.failed(c, model.FailureHostengineLost, "reading XIDs")
	}
	if c != native.OK {
		s.log.Debug("only the newest XID of each entity was read", "err", s.lib.Err(c, "reading XIDs"))
	}
	return nil
}

func (s *sampler) writeEvents(events []model.Event) error {
	if len(events) == 0 {
		return nil
	}
	return s.cfg.Frames.Write(wire.Frame{Events: &model.Events{Generation: s.inv.Generation, List: events}})
}
