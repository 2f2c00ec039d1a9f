// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Reason says in one word why the slices could not be read.
type Reason string

// The reasons for a failure.
const (
	ReasonNotServed    Reason = "not_served"   // no version of the API that is known here
	ReasonForbidden    Reason = "forbidden"    // RBAC
	ReasonUnauthorized Reason = "unauthorized" // the credentials are not accepted (any more)
	ReasonUnavailable  Reason = "unavailable"  // no connection, or an error of the server's own
	ReasonTimeout      Reason = "timeout"      // no answer in time
	ReasonRateLimited  Reason = "rate_limited" // the server has too many requests
	ReasonMalformed    Reason = "malformed"    // an answer that is not of this API, or is too large
	ReasonOther        Reason = "other"
)

// Reasons lists every Reason, for metrics that start at zero.
func Reasons() []Reason {
	return []Reason{
		ReasonNotServed, ReasonForbidden, ReasonUnauthorized, ReasonUnavailable,
		ReasonTimeout, ReasonRateLimited, ReasonMalformed, ReasonOther,
	}
}

// Hint is what a user can do about it.
func (r Reason) Hint() string {
	switch r {
	case ReasonNotServed:
		return "the cluster needs dynamic resource allocation: Kubernetes 1.34 has it, 1.32 and 1.33 with the feature gate DynamicResourceAllocation and --runtime-config=resource.k8s.io/v1beta1=true"
	case ReasonForbidden:
		return "give the exporter's service account get, list and watch on resourceslices in the API group resource.k8s.io (a ClusterRole)"
	case ReasonUnauthorized:
		return "see whether the service account still exists and whether its token is mounted and not expired"
	case ReasonUnavailable:
		return "see whether the API server runs and can be reached from this node"
	case ReasonTimeout:
		return "see whether the API server is overloaded, and whether a firewall or a NetworkPolicy drops the connection"
	case ReasonRateLimited:
		return "see the flow schemas of the API server (kubectl get flowschemas)"
	case ReasonMalformed:
		return "see whether the configured address is that of a Kubernetes API server"
	}
	return "see the API server's log"
}

var (
	errNotServed = errors.New("the API server has none of " + groupName + " v1, v1beta2 and v1beta1")
	errMalformed = errors.New("not an answer of this API")
	errNoAnswer  = errors.New("no answer in time")
	errCutShort  = errors.New("the watch ends without a word each time")
)

func reasonOf(err error) Reason {
	var (
		status  apierrors.APIStatus
		network net.Error
	)
	switch {
	case errors.Is(err, errNotServed):
		return ReasonNotServed
	case errors.Is(err, errMalformed):
		return ReasonMalformed
	case errors.Is(err, errCutShort), errors.Is(err, io.ErrUnexpectedEOF):
		return ReasonUnavailable
	case errors.As(err, &status):
		switch code := int(status.Status().Code); {
		case code == http.StatusNotFound:
			return ReasonNotServed
		case code == http.StatusForbidden:
			return ReasonForbidden
		case code == http.StatusUnauthorized:
			return ReasonUnauthorized
		case code == http.StatusTooManyRequests:
			return ReasonRateLimited
		case code == http.StatusGatewayTimeout:
			return ReasonTimeout
		case code >= http.StatusInternalServerError:
			return ReasonUnavailable
		}
	case errors.Is(err, errNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return ReasonTimeout
	case errors.As(err, &network):
		if network.Timeout() {
			return ReasonTimeout
		}
		return ReasonUnavailable
	}
	return ReasonOther
}
