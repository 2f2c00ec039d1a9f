// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
)

// Reason says in one word why the engine could not be asked.
type Reason string

// The reasons for a failed refresh.
const (
	ReasonNoSocket    Reason = "no_socket"    // the socket's file is not there
	ReasonForbidden   Reason = "forbidden"    // no permission to open it, or the answer is 401 or 403
	ReasonUnavailable Reason = "unavailable"  // nothing answers on it, or the answer ends early
	ReasonTimeout     Reason = "timeout"      // no answer in time
	ReasonTooLarge    Reason = "too_large"    // the answer has more bytes or containers than a node can have
	ReasonMalformed   Reason = "malformed"    // the answer is not one of this API
	ReasonUnsupported Reason = "unsupported"  // the API has no such call, or not in this version
	ReasonEngine      Reason = "engine_error" // the engine answers that it failed
	ReasonOther       Reason = "other"
)

// Reasons lists every Reason, for metrics that start at zero.
func Reasons() []Reason {
	return []Reason{
		ReasonNoSocket, ReasonForbidden, ReasonUnavailable, ReasonTimeout, ReasonTooLarge,
		ReasonMalformed, ReasonUnsupported, ReasonEngine, ReasonOther,
	}
}

// Hint is what a user can do about it.
func (r Reason) Hint() string {
	switch r {
	case ReasonNoSocket:
		return "see whether the engine runs, and give its socket's path; in a container, mount the socket's directory, not the file, which an engine replaces when it starts (podman: systemctl enable --now podman.socket)"
	case ReasonForbidden:
		return "run the exporter as root or in the group of the socket (docker); a proxy in front of the engine must let through GET /version, /containers and /events"
	case ReasonUnavailable:
		return "see whether the engine runs; after its restart the socket must be seen through a mount of its directory, not of the file"
	case ReasonTimeout:
		return "see whether the engine is overloaded or stuck (docker ps)"
	case ReasonTooLarge, ReasonMalformed:
		return "see which program listens on the socket"
	case ReasonUnsupported:
		return "the engine must serve Docker's API: Docker 19.03 and newer, Podman 3 and newer"
	}
	return "see the engine's log (journalctl -u docker)"
}

var (
	errTooLarge  = errors.New("answer is too large")
	errMalformed = errors.New("not an answer of Docker's API")
)

// statusError is an answer with a status other than 200.
type statusError struct {
	status  int
	message string // the engine's own, shortened
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// reasonOf sorts an error of engine.
func reasonOf(err error) Reason {
	var status *statusError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var netErr net.Error
	switch {
	case errors.As(err, &status):
		switch {
		case status.status == http.StatusUnauthorized, status.status == http.StatusForbidden:
			return ReasonForbidden
		case status.status == http.StatusNotFound, status.status == http.StatusBadRequest:
			return ReasonUnsupported
		case status.status >= 500:
			return ReasonEngine
		}
		return ReasonOther
	case errors.Is(err, errTooLarge):
		return ReasonTooLarge
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return ReasonTimeout
	case errors.Is(err, errMalformed), errors.As(err, &syntax), errors.As(err, &kind),
		// net/http has no type for what is no HTTP.
		strings.Contains(err.Error(), "malformed HTTP"):
		return ReasonMalformed
	case errors.Is(err, fs.ErrNotExist):
		return ReasonNoSocket
	case errors.Is(err, fs.ErrPermission):
		return ReasonForbidden
	}
	// Refused, reset, or ended early.
	return ReasonUnavailable
}
