// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/prometheus/common/model"

	conf "gpu_exporter/cmd/gpu_exporter/internal/config"
)

// The names by which the parts that are not in packages of their own yet use package
// config.

type config = conf.Config

const (
	programName = conf.ProgramName

	commandServe   = conf.Serve
	commandOnce    = conf.Once
	commandSampler = conf.Sampler

	kernelLogAuto = conf.KernelLogAuto
	kernelLogOn   = conf.KernelLogOn
	kernelLogOff  = conf.KernelLogOff
	defaultKMsg   = conf.DefaultKMsg

	slurmAuto = conf.SlurmAuto
	slurmOff  = conf.SlurmOff

	metadataKubelet   = conf.MetadataKubelet
	metadataAPIServer = conf.MetadataAPIServer

	optAdminAPI      = "web.enable-admin-api"
	optMaxRequests   = "web.max-requests"
	optAnnotations   = "kubernetes.pod-annotation-allowlist-regex"
	optDockerLabels  = "docker.label-allowlist-regex"
	optKernelLog     = "xid.kernel-log"
	optKubeconfig    = "kubernetes.kubeconfig"
	optLibraryPath   = "dcgm.library-path"
	optPodLabelAllow = "kubernetes-pod-label-allowlist-regex"
	optPodUsage      = "kubernetes.pod-usage"
	optSimulate      = "simulate"
)

func listOf(words []string) string { return conf.ListOf(words) }

func anyDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	d, err := model.ParseDuration(s)
	return time.Duration(d), err
}

func lookupIn(environ []string) func(string) (string, bool) { return conf.Lookup(environ) }

func scenarios() []string { return conf.Scenarios() }

// printf writes for people to read. An error is the reader's, who has gone away.
func printf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
