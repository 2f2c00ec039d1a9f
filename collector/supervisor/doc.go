// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package supervisor starts the sampler process, reads its frames, forwards its output to
// the log, and replaces it when it hangs, exits, leaks or needs another configuration.
//
// This package must not interpret frames: it passes them on, and counts those that are
// rejected. It must not load native libraries, and never starts a second sampler while
// the first one exists.
package supervisor
