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

// hints returns what a user can do about each failure of a source.
func (s Source) hints() map[Reason]string {
	const seeLog = "check the log of the source"
	switch s {
	case SourcePodsAPI:
		return map[Reason]string{
			poll.NoSocket:    "needs Kubernetes 1.37 or newer: mount the node's /var/lib/kubelet/pods-api into the container, or set --kubernetes.pods-socket",
			poll.Forbidden:   "run the exporter as a user that may open it (root by default)",
			poll.Unavailable: "check whether the kubelet runs; mount the directory of the socket, not the file, so that a restarted kubelet is visible",
			poll.Timeout:     "check whether the kubelet hangs; mount the directory of the socket, not the file, so that a restarted kubelet is visible",
			poll.Unsupported: "the kubelet must serve the Pods API (Kubernetes 1.37 or newer; feature gate PodsAPI)",
			poll.TooLarge:    seeLog,
			poll.Malformed:   seeLog,
			reasonDropped:    seeLog,
			poll.Other:       seeLog,
		}
	case SourceLogDir:
		return map[Reason]string{
			reasonNoDirectory: "mount the node's /var/log/pods and /var/log/containers into the container",
			poll.Forbidden:    "run the exporter as a user that may open it (root by default)",
			poll.Other:        seeLog,
		}
	}
	return map[Reason]string{
		poll.NoConfig:     "run in a pod with a service account and NODE_NAME set from spec.nodeName, or set --kubernetes.kubeconfig and --kubernetes.node-name",
		poll.Unauthorized: "check whether the token or the client certificate has expired; each try reads both again",
		poll.Forbidden:    "allow the service account to list and watch pods",
		poll.Unavailable:  "check whether the API server runs and is reachable from this node",
		poll.Timeout:      "check whether the API server runs and is reachable from this node",
		poll.RateLimited:  seeLog,
		poll.Unsupported:  "the API server must serve the metadata of pods (Kubernetes 1.15 or newer)",
		poll.TooLarge:     seeLog,
		poll.Malformed:    seeLog,
		poll.Other:        seeLog,
	}
}

// ownerHints returns what a user can do about each failed lookup of a pod's owner.
func ownerHints() map[Reason]string {
	hints := SourceAPIServer.hints()
	delete(hints, poll.NoConfig)
	hints[poll.NotFound] = ""
	hints[poll.Forbidden] = "allow the service account to get objects of this kind"
	return hints
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
