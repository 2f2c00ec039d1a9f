// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"
)

// Source is where pods are known from.
type Source string

// The sources, best first.
const (
	SourcePodsAPI   Source = "pods_api"      // the kubelet's Pods API
	SourceAPIServer Source = "api_server"    // the API server
	SourceLogDir    Source = "log_directory" // names below /var/log; identities only
)

// SourceAuto is for Config only: the Pods API, or the API server where there is
// none.
const SourceAuto Source = "auto"

// Reason says in one word why a source fails.
type Reason string

// The reasons.
const (
	ReasonNoSocket     Reason = "no_socket"    // the Pods API's socket is not there
	ReasonNoDirectory  Reason = "no_directory" // neither of the log directories is there
	ReasonNoConfig     Reason = "no_config"    // it is not known how to reach the API server, or for which node
	ReasonUnauthorized Reason = "unauthorized" // the API server does not accept who we are
	ReasonForbidden    Reason = "forbidden"    // no permission
	ReasonUnavailable  Reason = "unavailable"  // nothing answers, or it answers that it cannot
	ReasonTimeout      Reason = "timeout"      // no answer in time
	ReasonRateLimited  Reason = "rate_limited" // too many requests
	ReasonUnsupported  Reason = "unsupported"  // this version does not serve what we need
	ReasonNotFound     Reason = "not_found"    // an owner is not there
	ReasonTooLarge     Reason = "too_large"    // one object is over 16 MiB
	ReasonMalformed    Reason = "malformed"    // an answer, or one pod in it, cannot be read
	ReasonDropped      Reason = "dropped"      // the kubelet ended the watch as we were slow
	ReasonOther        Reason = "other"
)

// Reasons lists those that a source can have, for metrics that start at zero.
func (s Source) Reasons() []Reason {
	switch s {
	case SourcePodsAPI:
		return []Reason{ReasonNoSocket, ReasonForbidden, ReasonUnavailable, ReasonTimeout, ReasonUnsupported,
			ReasonTooLarge, ReasonMalformed, ReasonDropped, ReasonOther}
	case SourceAPIServer:
		return []Reason{ReasonNoConfig, ReasonUnauthorized, ReasonForbidden, ReasonUnavailable, ReasonTimeout,
			ReasonRateLimited, ReasonUnsupported, ReasonTooLarge, ReasonMalformed, ReasonOther}
	case SourceLogDir:
		return []Reason{ReasonNoDirectory, ReasonForbidden, ReasonOther}
	}
	return nil
}

// OwnerReasons lists the reasons for which an owner of a pod is not found out.
func OwnerReasons() []Reason {
	return []Reason{ReasonUnauthorized, ReasonForbidden, ReasonUnavailable, ReasonTimeout, ReasonRateLimited,
		ReasonUnsupported, ReasonNotFound, ReasonTooLarge, ReasonMalformed, ReasonOther}
}

// Hint is what a user can do about it.
func (s Source) Hint(r Reason) string {
	switch r {
	case ReasonNoSocket:
		return "Kubernetes 1.37 and newer has it: mount the node's /var/lib/kubelet/pods-api into the container, or give the socket's path with --kubernetes.pods-socket"
	case ReasonNoDirectory:
		return "mount the node's /var/log/pods and /var/log/containers into the container"
	case ReasonNoConfig:
		return "run it in a pod with a service account and NODE_NAME set from spec.nodeName, or give --kubernetes.kubeconfig and --kubernetes.node-name"
	case ReasonUnauthorized:
		return "see whether the token or the client certificate has expired; both are read again at each try"
	case ReasonForbidden:
		if s == SourceAPIServer {
			return "allow the service account to list and watch pods"
		}
		return "run the exporter as a user that may open it (root by default)"
	case ReasonUnavailable, ReasonTimeout:
		if s == SourceAPIServer {
			return "see whether the API server runs and can be reached from this node"
		}
		return "see whether the kubelet runs; after its restart the socket must be seen through a mount of its directory, not of the file"
	case ReasonUnsupported:
		if s == SourcePodsAPI {
			return "the kubelet must serve the Pods API (Kubernetes 1.37 and newer; the feature gate is PodsAPI)"
		}
		return "the API server must serve metadata of pods (Kubernetes 1.15 and newer)"
	}
	return "see its log"
}

// failure is an error with its reason.
type failure struct {
	reason Reason
	err    error
	after  time.Duration // how long the server wants us to wait; 0 if it does not say
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(r Reason, format string, args ...any) error {
	return &failure{reason: r, err: fmt.Errorf(format, args...)}
}

// reasonOf sorts an error. What carries no reason comes from the network or
// from a reader of its answers.
func reasonOf(err error) Reason {
	var f *failure
	var network net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &f):
		return f.reason
	case errors.Is(err, errTooLarge):
		return ReasonTooLarge
	case errors.Is(err, errMalformed):
		return ReasonMalformed
	case errors.As(err, &certificate):
		return ReasonOther
	case errors.Is(err, errNoAnswer), errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return ReasonTimeout
	case errors.Is(err, fs.ErrPermission):
		return ReasonForbidden
	case errors.Is(err, errCut), errors.As(err, &network):
		return ReasonUnavailable
	}
	return ReasonOther
}
