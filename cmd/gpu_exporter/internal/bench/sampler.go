// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "context"

func (b *bench) sampler(context.Context) ([]row, error) { return nil, nil }
