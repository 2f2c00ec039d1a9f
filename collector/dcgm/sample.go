// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"errors"
	"time"

	"gpu_exporter/collector"
)

// sample reads everything once and writes what it finds.
func (s *sampler) sample() error {
	now := time.Now()
	if err := s.checkLibrary(now); err != nil {
		return err
	}
	if err := s.followTopology(now); err != nil {
		return err
	}
	sample, found, c := s.take()
	if c != codeOK {
		return s.failed(c, collector.FailureHostengineLost, "reading values")
	}
	stuck := s.stuck(sample.Time)
	sample.Time = sample.Time.Add(-stuck)
	sample.LinksRead, sample.SwitchesListed = s.fabric.at(), s.fabric.listed
	if err := s.write(sample, found, now); err != nil {
		return err
	}
	if s.migChanged = found.migChanged; s.migChanged && !now.Before(s.migQuiet) {
		s.rebuildAt = now // at the next sample
	}
	if err := s.checkBlank(now); err != nil {
		return err
	}
	if err := s.checkProgress(stuck); err != nil {
		return err
	}
	return s.rewatchProfiling(now)
}

// checkLibrary finds out, now and then, that another library or driver is there than
// the one in use.
func (s *sampler) checkLibrary(now time.Time) error {
	if now.Sub(s.updateChecks) < updateCheck {
		return nil
	}
	s.updateChecks = now
	if s.engine.updated() {
		s.tellRest()
		return failure(collector.FailureLibraryUpdated, nil, "%s was replaced on disk", s.lib.path)
	}
	if s.engine.driverArrived() {
		return failure(collector.FailureDriverLoaded, nil, "the NVIDIA driver was loaded after DCGM had started without it")
	}
	return nil
}

// followTopology makes a new inventory if the node is another one now, or may be.
func (s *sampler) followTopology(now time.Time) error {
	changed, err := s.topologyChanged(now)
	if err != nil {
		return err
	}
	if !changed && (s.rebuildAt.IsZero() || now.Before(s.rebuildAt)) {
		return nil
	}
	// What was heard and seen under the old inventory belongs to it.
	if err := errors.Join(s.hearXIDs(), s.writeTracks()); err != nil {
		return err
	}
	rebuilt, err := s.rebuild(changed)
	if err != nil || !rebuilt {
		return err
	}
	what := "the topology changed"
	if !changed {
		what = "the GPUs tell more, or other, of themselves"
	}
	s.log.Info(what, "entities", len(s.inv.Entities), "generation", s.inv.Generation)
	return nil
}

// write writes a sample after all that belongs to it, which is shown with it.
func (s *sampler) write(sample *collector.Sample, found news, now time.Time) error {
	if err := s.look(true); err != nil {
		return err
	}
	s.profiler.look(s.reading, now)
	if err := s.writeProfiling(); err != nil {
		return err
	}
	if found.xids || len(s.xids.unread) > 0 || len(s.xids.pending) > 0 {
		if err := s.writeXIDs(); err != nil {
			return err
		}
	}
	if s.skip > 0 && s.reading.plan.warming(sample) {
		s.skip--
		return nil
	}
	s.skip = 0
	return s.cfg.Frames.Write(collector.Frame{Sample: sample})
}

// tellRest writes what has come since the newest sample, before the engine ends.
func (s *sampler) tellRest() {
	if err := errors.Join(s.writeXIDs(), s.tellHeld(), s.look(true)); err != nil {
		s.log.Debug("what came since the newest sample is not told", "err", err)
	}
}

// tellHeld writes the XIDs that wait for an inventory which will not come.
func (s *sampler) tellHeld() error { return s.writeEvents(s.xids.tell(false)) }

// leave ends the engine.
func (s *sampler) leave() {
	s.tellRest()
	s.engine.close()
}

// topologyChanged says whether the node is another one than that of the newest
// inventory.
func (s *sampler) topologyChanged(now time.Time) (bool, error) {
	changed, c := s.checkTopology(now)
	if c.lost() {
		return false, s.failed(c, collector.FailureHostengineLost, "listing the GPUs")
	}
	if c != codeOK {
		// The readings say more about what is wrong.
		s.log.Debug("topology not checked", "err", s.lib.err(c, "listing the GPUs"))
	}
	s.changed = s.changed || changed
	return s.changed || s.fabricChanged, nil
}

// checkTopology says whether the node is another one than at the last time.
func (s *sampler) checkTopology(now time.Time) (bool, code) {
	changed, instances, c := s.lib.checkTopology()
	if c == codeOK && instances == codeOK {
		s.listed = now
	}
	unlisted := now.Sub(s.listed) > max(instancesTimeout, 2*s.cfg.Sampler.Interval)
	if unlisted == s.unlisted {
		return changed, c
	}
	if s.unlisted = unlisted; unlisted {
		s.log.Warn("MIG instances cannot be listed; nothing of them is shown until they can", "err", s.lib.err(cmp.Or(c, instances), "listing the MIG instances"))
	} else {
		s.log.Info("MIG instances are listed again")
	}
	return true, c
}

// take takes a reading.
func (s *sampler) take() (*collector.Sample, news, code) {
	sample, found, c := s.reading.take()
	if c != codeOK || s.reading.newest != 0 || s.updated || !s.readsGPUs() {
		return sample, found, c
	}
	// Before DCGM 4.6, dcgmWatchFields left the first values to the next cycle
	// (dcgm_agent.h): have it now, once.
	s.updated = true
	if c := s.lib.update(); c != codeOK {
		return nil, news{}, c
	}
	return s.reading.take()
}

// checkBlank finds an embedded engine that has lost its hold on the driver: after
// XID 119 every field of every GPU is blank until the engine is started anew. A
// standalone engine is not ours to restart, and GPUs that are known to be lost
// need no new engine.
func (s *sampler) checkBlank(now time.Time) error {
	if s.reading.values > 0 || s.cfg.Sampler.Hostengine != "" || !s.readsGPUs() {
		s.valuesAt = now
		return nil
	}
	if s.valuesAt.IsZero() {
		return nil // never had one: a new engine would not either
	}
	if limit := max(blankTimeout, 3*s.cfg.Sampler.Interval); now.Sub(s.valuesAt) > limit {
		return failure(collector.FailureEngineBlank, nil, "every field of every GPU has been blank for %s, as after XID 119: DCGM needs a new start", limit)
	}
	return nil
}

// readsGPUs says whether the plan reads any GPU, or instance of one, that is up.
func (s *sampler) readsGPUs() bool {
	for i := range s.inv.Entities {
		gpu, ok := s.inv.GPU(i)
		if ok && s.inv.Entities[i].Kind.OfGPU() && gpu.State == collector.EntityUp && s.reading.plan.read[i] {
			return true
		}
	}
	return false
}

// stuck says for how long there has been no newer value of anything. The values
// of a sample are that much older than their reading.
func (s *sampler) stuck(now time.Time) time.Duration {
	// Any other time is progress: clocks are set back, too.
	if s.reading.newest != s.newest || s.newest == 0 {
		s.newest, s.newestSince = s.reading.newest, now
	}
	return now.Sub(s.newestSince)
}

// checkProgress finds an engine that answers but no longer samples, because its
// own thread is stuck in the driver: it would give the same old values for ever.
func (s *sampler) checkProgress(stuck time.Duration) error {
	if limit := max(stallTimeout, 3*s.cfg.Sampler.Interval); stuck > limit {
		return failure(collector.FailureEngineStalled, nil, "DCGM has had no new value of any field for %s: its sampling thread is stuck, probably in the driver", limit)
	}
	return nil
}

// writeXIDs writes the XIDs that came. Those of instances wait for the next inventory
// if the topology is another one since the newest, or cannot be known: the instance may
// be another one.
func (s *sampler) writeXIDs() error {
	if err := s.hearXIDs(); err != nil {
		return err
	}
	if s.xids.ofInstances() {
		now := time.Now()
		if _, err := s.topologyChanged(now); err != nil {
			return err
		}
		if s.changed || s.listed != now {
			return nil
		}
	}
	return s.writeEvents(s.xids.tell(true))
}

func (s *sampler) hearXIDs() error {
	c := s.xids.hear(s.reading)
	if c.lost() {
		return s.failed(c, collector.FailureHostengineLost, "reading XIDs")
	}
	if c != codeOK {
		s.log.Debug("XIDs are read one by one", "err", s.lib.err(c, "reading XIDs"))
	}
	return nil
}

func (s *sampler) writeEvents(events []collector.Event) error {
	if len(events) == 0 {
		return nil
	}
	return s.cfg.Frames.Write(collector.Frame{Events: &collector.Events{Generation: s.inv.Generation, List: events}})
}
