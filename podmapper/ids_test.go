// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

const (
	gpuA = "GPU-5fd4f4e1-9b29-4a1c-b0a6-0f6c8f5ed3a0"
	gpuB = "GPU-0b1ad8e2-3c44-4f0e-8f53-7f6d2f4b9c11"
	migA = "MIG-6a7e2b0c-1d7f-5d52-a63a-1f3fbb0c2c01"
	migB = "MIG-77c1c8a5-f8d4-5e0e-9a0b-0d5a8bd1f102"
)
