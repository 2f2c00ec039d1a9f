// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import "sync"

// maxUnmatchedLines bounds what one call of LogUnmatched writes.
const maxUnmatchedLines = 20

// unmatched remembers which assignments to no device have been logged.
type unmatched struct {
	mu     sync.Mutex
	logged map[unmatchedKey]bool
}

type unmatchedKey struct{ namespace, pod, container, id string }

// LogUnmatched warns of each assignment that means no device, once as long as
// it lasts. Call it with every Match of the current table, and not with those of
// older ones.
func (m *Mapper) LogUnmatched(match Match) {
	m.unmatched.mu.Lock()
	defer m.unmatched.mu.Unlock()
	if match.Unmatched == 0 {
		m.unmatched.logged = nil
		return
	}
	now := make(map[unmatchedKey]bool, match.Unmatched)
	lines, more := 0, 0
	for _, r := range match.Resolutions {
		if len(r.Devices) > 0 {
			continue
		}
		key := unmatchedKey{r.Owner.Namespace, r.Owner.Pod, r.Owner.Container, r.ID}
		if now[key] || m.unmatched.logged[key] {
			now[key] = true
			continue
		}
		now[key] = true
		if lines == maxUnmatchedLines {
			more++
			continue
		}
		lines++
		m.log.Warn("Device of a pod matches none of this node; its series go without pod labels",
			"namespace", key.namespace, "pod", key.pod, "container", key.container,
			"resource", r.Owner.Resource, "claim", r.Owner.Claim.Name,
			"id", r.ID, "form", r.Known.Form.String(), "reason", r.Reason, "hint", r.Hint)
	}
	if more > 0 {
		m.log.Warn("More devices of pods match none of this node", "devices", more, "hint", "gpu_exporter doctor lists them all")
	}
	m.unmatched.logged = now
}
