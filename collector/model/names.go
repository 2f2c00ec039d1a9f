// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
)

// NameOf returns the name at position v, or the type and the number of a value without a
// name, such as kind(12).
func NameOf[T ~uint8](names []string, v T, typeName string) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", typeName, uint8(v))
}
