// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package packages tests the deb and rpm packages, which build.sh makes. It must not contain
// code that a package installs.
package packages
