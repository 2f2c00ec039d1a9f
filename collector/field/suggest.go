// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"strings"

	"gpu_exporter/collector/model"
)

// maxSuggestLength is longer than any field name.
const maxSuggestLength = 96

// Suggest returns the name of the field or computed counter that is most similar to a
// mistyped name, or "". Case and a missing prefix do not count as differences.
func Suggest(name string) string {
	name = strings.ToUpper(strings.TrimSpace(name))
	if name == "" || len(name) > maxSuggestLength {
		return ""
	}
	for _, prefix := range []string{"DCGM_FI_DEV_", "DCGM_FI_PROF_", "DCGM_FI_SYSTEM_", "DCGM_FI_", "DCGM_", "DCGM_FI_DEV_GPU_"} {
		if f, ok := ByName(prefix + name); ok && f.Type != model.ValueNone {
			return prefix + name
		}
	}
	best, limit := "", len(name)/4 // more than one edit per four letters is a different word
	consider := func(candidate string) {
		if d := EditDistance(name, strings.ToUpper(candidate), limit); d < limit || d == limit && best == "" {
			best, limit = candidate, d
		}
	}
	for f := range All() {
		if f.Type != model.ValueNone {
			for _, name := range f.Names() {
				consider(name)
			}
		}
	}
	for _, c := range computedCounters {
		consider(c.name)
	}
	return best
}

// EditDistance returns the number of bytes that must be inserted, removed or replaced to
// turn a into b. It may return limit+1 for any distance above limit.
func EditDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1) // distances of a prefix of a to the prefixes of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
