// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"strings"

	"gpu_exporter/collector/model"
)

// maxSuggestLength is more than the longest field name; longer words resemble
// none and are not worth the comparison.
const maxSuggestLength = 96

// Suggest returns the name of a field, or of a computed counter, that a
// mistyped one most likely means, or "" where none is close. Case and a forgotten prefix do not count as distance.
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
	// A slip for every four letters is a typing error; more is another word.
	best, limit := "", len(name)/4
	for i := range nameTable {
		candidate := nameTable[i].name
		d := EditDistance(name, strings.ToUpper(candidate), limit)
		if d > limit || (best != "" && d == limit) {
			continue
		}
		if f, ok := ByID(nameTable[i].id); !ok || f.Type == model.ValueNone {
			continue
		}
		best, limit = candidate, d
		if d == 0 {
			break
		}
	}
	for i := range computedCounters {
		candidate := computedCounters[i].name
		if d := EditDistance(name, candidate, limit); d < limit || d == limit && best == "" {
			best, limit = candidate, d
		}
	}
	return best
}

// EditDistance returns how many letters must be inserted, removed or replaced to
// make b of a, or something above limit once it is above limit. It is behind the
// suggestions for mistyped names, of fields here and of flags in the program.
func EditDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		lowest := row[0]
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
			lowest = min(lowest, row[j+1])
		}
		if lowest > limit {
			return limit + 1
		}
	}
	return row[len(b)]
}
