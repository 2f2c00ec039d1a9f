// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"net/http"

	"gpu_exporter/podmapper/internal/poll"
)

// Reason is the cause of a failed refresh in one word.
type Reason = poll.Reason

// The reasons for a failed refresh.
const (
	ReasonNoSocket    = poll.NoSocket          // the socket does not exist
	ReasonForbidden   = poll.Forbidden         // no permission to open it, or status 401 or 403
	ReasonUnavailable = poll.Unavailable       // no program answers, or the response is truncated
	ReasonTimeout     = poll.Timeout           // no response in time
	ReasonTooLarge    = poll.TooLarge          // a response exceeds its bound of bytes or containers
	ReasonMalformed   = poll.Malformed         // the response is not one of Docker's API
	ReasonUnsupported = poll.Unsupported       // the engine does not have this call or version
	ReasonEngine      = Reason("engine_error") // the engine reports an internal error
	ReasonOther       = poll.Other
)

// Reasons returns every Reason, for metrics that start at zero.
func Reasons() []Reason {
	return []Reason{
		ReasonNoSocket, ReasonForbidden, ReasonUnavailable, ReasonTimeout, ReasonTooLarge,
		ReasonMalformed, ReasonUnsupported, ReasonEngine, ReasonOther,
	}
}

// hint returns what a user can do about a failure.
func hint(r Reason) string {
	switch r {
	case ReasonNoSocket:
		return "check that the engine runs and that the path of its socket is right; in a container, mount the socket's directory, because engines replace the socket when they start (Podman: systemctl enable --now podman.socket)"
	case ReasonForbidden:
		return "run the exporter as root or in the group of the socket (docker); a proxy must allow GET /version, /containers and /events"
	case ReasonUnavailable:
		return "check that the engine runs; in a container, mount the socket's directory instead of the socket"
	case ReasonTimeout:
		return "check whether the engine is overloaded or hangs (docker ps)"
	case ReasonTooLarge, ReasonMalformed:
		return "check which program listens on the socket"
	case ReasonUnsupported:
		return "use an engine with Docker's API: Docker 19.03 or later, or Podman 3 or later"
	}
	return "check the engine's log (journalctl -u docker)"
}

// statusReason classifies a status other than 200.
func statusReason(status int) Reason {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ReasonForbidden
	case status == http.StatusNotFound, status == http.StatusBadRequest:
		return ReasonUnsupported
	case status >= http.StatusInternalServerError:
		return ReasonEngine
	}
	return ReasonOther
}

func malformed(format string, args ...any) error {
	return poll.WithReason(ReasonMalformed, fmt.Errorf("not a response of Docker's API: "+format, args...))
}

func tooLarge(format string, args ...any) error {
	return poll.WithReason(ReasonTooLarge, fmt.Errorf("response is too large: "+format, args...))
}
