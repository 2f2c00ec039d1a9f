// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"log/slog"
	"sync"

	"gpu_exporter/podmapper/internal/poll"
)

// Source is where pods are known from.
type Source string

// The sources.
const (
	SourcePodsAPI   Source = "pods_api"      // the kubelet's Pods API
	SourceAPIServer Source = "api_server"    // the API server
	SourceLogDir    Source = "log_directory" // names below /var/log; identities only
	// SourceAuto is for Config only: the Pods API if its socket exists, otherwise the
	// API server.
	SourceAuto Source = "auto"
)

// Reason is why a source fails, in one word.
type Reason = poll.Reason

// Reasons of this package only.
const (
	reasonNoDirectory Reason = "no_directory" // no log directory exists
	reasonDropped     Reason = "dropped"      // the kubelet ended a watch that is too slow
)

// Reasons returns all reasons of a source, for metrics that start at zero.
func (s Source) Reasons() []Reason {
	switch s {
	case SourcePodsAPI:
		return []Reason{poll.NoSocket, poll.Forbidden, poll.Unavailable, poll.Timeout, poll.Unsupported,
			poll.TooLarge, poll.Malformed, reasonDropped, poll.Other}
	case SourceAPIServer:
		return []Reason{poll.NoConfig, poll.Unauthorized, poll.Forbidden, poll.Unavailable, poll.Timeout,
			poll.RateLimited, poll.Unsupported, poll.TooLarge, poll.Malformed, poll.Other}
	case SourceLogDir:
		return []Reason{reasonNoDirectory, poll.Forbidden, poll.Other}
	}
	return nil
}

// OwnerReasons returns all reasons for which the owner of a pod cannot be looked up.
func OwnerReasons() []Reason {
	return []Reason{poll.Unauthorized, poll.Forbidden, poll.Unavailable, poll.Timeout, poll.RateLimited,
		poll.Unsupported, poll.NotFound, poll.TooLarge, poll.Malformed, poll.Other}
}

// Hint returns what a user can do about a failure.
func (s Source) Hint(r Reason) string {
	switch r {
	case poll.NoSocket:
		return "needs Kubernetes 1.37 or newer: mount the node's /var/lib/kubelet/pods-api into the container, or set --kubernetes.pods-socket"
	case reasonNoDirectory:
		return "mount the node's /var/log/pods and /var/log/containers into the container"
	case poll.NoConfig:
		return "run in a pod with a service account and NODE_NAME set from spec.nodeName, or set --kubernetes.kubeconfig and --kubernetes.node-name"
	case poll.Unauthorized:
		return "check whether the token or the client certificate has expired; each try reads both again"
	case poll.Forbidden:
		if s == SourceAPIServer {
			return "allow the service account to list and watch pods"
		}
		return "run the exporter as a user that may open it (root by default)"
	case poll.Unavailable, poll.Timeout:
		if s == SourceAPIServer {
			return "check whether the API server runs and is reachable from this node"
		}
		return "check whether the kubelet runs; mount the directory of the socket, not the file, so that a restarted kubelet is visible"
	case poll.Unsupported:
		if s == SourcePodsAPI {
			return "the kubelet must serve the Pods API (Kubernetes 1.37 or newer; feature gate PodsAPI)"
		}
		return "the API server must serve the metadata of pods (Kubernetes 1.15 or newer)"
	}
	return "check the log of the source"
}

// onceLogger logs what concerns one pod or owner: the first message of a subject is a
// warning, the others are for debugging.
type onceLogger struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]bool
}

// maxSubjects bounds the memory of a onceLogger, because pods choose the subjects.
const maxSubjects = 1024

func (l *onceLogger) warn(subject, message string, args ...any) {
	l.mu.Lock()
	level := slog.LevelDebug
	if !l.seen[subject] && len(l.seen) < maxSubjects {
		level = slog.LevelWarn
		l.seen[subject] = true
	}
	l.mu.Unlock()
	l.log.Log(context.Background(), level, message, args...)
}
