// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"net/http"

	"gpu_exporter/podmapper/internal/poll"
)

// reasonEngine means that the engine reports an internal error.
const reasonEngine poll.Reason = "engine_error"

// hints returns what a user can do about each failure of a refresh.
func hints() map[poll.Reason]string {
	return map[poll.Reason]string{
		poll.NoSocket:    "check that the engine runs and that the path of its socket is right; in a container, mount the socket's directory, because engines replace the socket when they start (Podman: systemctl enable --now podman.socket)",
		poll.Forbidden:   "run the exporter as root or in the group of the socket (docker); a proxy must allow GET /version, /containers and /events",
		poll.Unavailable: "check that the engine runs; in a container, mount the socket's directory instead of the socket",
		poll.Timeout:     "check whether the engine is overloaded or hangs (docker ps)",
		poll.TooLarge:    "check which program listens on the socket",
		poll.Malformed:   "check which program listens on the socket",
		poll.Unsupported: "use an engine with Docker's API: Docker 19.03 or later, or Podman 3 or later",
		reasonEngine:     "check the engine's log (journalctl -u docker)",
		poll.Other:       "check the engine's log (journalctl -u docker)",
	}
}

// statusReason classifies a status that is not 200.
func statusReason(status int) poll.Reason {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return poll.Forbidden
	case status == http.StatusNotFound, status == http.StatusBadRequest:
		return poll.Unsupported
	case status >= http.StatusInternalServerError:
		return reasonEngine
	}
	return poll.Other
}

func malformed(format string, args ...any) error {
	return poll.WithReason(poll.Malformed, fmt.Errorf("not a response of Docker's API: "+format, args...))
}

func tooLarge(format string, args ...any) error {
	return poll.WithReason(poll.TooLarge, fmt.Errorf("response is too large: "+format, args...))
}
