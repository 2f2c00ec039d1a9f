// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"context"
	"slices"
	"time"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
)

// Bounds of reading ResourceClaims. A claim is read once while a pod has it, because
// its allocation does not change.
const (
	claimsTime     = 2 * time.Second  // for all claims of one refresh
	claimRetry     = 2 * time.Second  // after the first failure; it doubles
	claimLastRetry = 10 * time.Minute // also without a permission
)

type claimName struct{ namespace, name string }

// claimRead is what is known of a ResourceClaim.
type claimRead struct {
	admin []device.PublishedName // devices with adminAccess
	retry time.Duration          // zero: it is read
	next  time.Time              // of the next try
}

// withoutMonitors removes the devices that claims have with adminAccess: the monitoring
// pod that has such a claim is no owner. Where claims cannot be read, it counts as one.
func (m *Mapper) withoutMonitors(ctx context.Context, all []Assignment) []Assignment {
	if m.adminAccess == nil {
		return all
	}
	deadline, cancel := context.WithTimeout(ctx, claimsTime)
	defer cancel()
	read := make(map[claimName]*claimRead)
	for i := range all {
		name := claimName{all[i].Owner.Claim.Namespace, all[i].Owner.Claim.Name}
		if name.name == "" || read[name] != nil {
			continue
		}
		c := m.claims[name]
		if c == nil {
			c = &claimRead{retry: claimRetry}
		}
		read[name] = c
		if c.retry > 0 && !time.Now().Before(c.next) {
			m.readClaim(deadline, name, c)
		}
	}
	m.claims = read
	return slices.DeleteFunc(all, func(a Assignment) bool {
		c := read[claimName{a.Owner.Claim.Namespace, a.Owner.Claim.Name}]
		return c != nil && slices.Contains(c.admin, a.Owner.Claim.PublishedName)
	})
}

func (m *Mapper) readClaim(ctx context.Context, name claimName, c *claimRead) {
	admin, err := m.adminAccess(ctx, name.namespace, name.name)
	if err == nil {
		c.admin, c.retry = admin, 0
		return
	}
	reason := poll.ReasonOf(err)
	if reason == poll.Forbidden {
		c.retry = claimLastRetry
		if !m.claimsDenied {
			m.claimsDenied = true
			m.log.Info("ResourceClaims cannot be read; pods with adminAccess count as owners", "err", err,
				"hint", "give the exporter's service account get on resourceclaims (resource.k8s.io)")
		}
	}
	c.next = time.Now().Add(c.retry)
	m.poll.TriggerAfter(c.retry)
	m.log.Debug("ResourceClaim cannot be read", "namespace", name.namespace, "claim", name.name, "reason", reason, "err", err)
	c.retry = min(2*c.retry, claimLastRetry)
}
