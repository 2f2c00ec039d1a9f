// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"slices"
	"strings"

	"gpu_exporter/collector/model"
)

// maxSuggestLength is longer than any field name.
const maxSuggestLength = 96

// Suggest returns the name of the field or computed counter that a mistyped or removed
// name probably means, or "". Case and a wrong or missing prefix do not count as
// differences. A word that other names use is no typing error: CPU_TEMP is not GPU_TEMP.
func Suggest(name string) string {
	name = strings.TrimSpace(name)
	subject := subjectOf(name)
	if subject == "" || len(name) > maxSuggestLength {
		return ""
	}
	var names []string
	for f := range All() {
		if f.Type != model.ValueNone {
			names = append(names, f.Names()...)
		}
	}
	for _, c := range computedCounters {
		names = append(names, c.name)
	}
	// Names of dcgm-exporter 1.x are of interest only to those who use them.
	if strings.ToUpper(name) == name {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "dcgm_") })
	}
	vocabulary := map[string]bool{}
	for _, name := range names {
		for word := range strings.SplitSeq(subjectOf(name), "_") {
			vocabulary[word] = true
		}
	}
	best, limit, whole := "", len(subject)/4, 2*maxSuggestLength // more than one edit per four letters is a different word
	for _, candidate := range names {
		other := subjectOf(candidate)
		d := EditDistance(subject, other, limit)
		if d > limit || replacesWord(subject, other, vocabulary) {
			continue
		}
		if w := EditDistance(strings.ToUpper(name), strings.ToUpper(candidate), whole); d < limit || w < whole {
			best, limit, whole = candidate, d, w
		}
	}
	if best == "" {
		best = sharedStart(subject, names)
	}
	return best
}

// subjectOf returns a name in upper case, without its prefix.
func subjectOf(name string) string {
	subject := strings.ToUpper(name)
	for _, part := range []string{"DCGM_", "FI_", "EXP_", "DEV_", "PROF_", "SYSTEM_"} {
		subject = strings.TrimPrefix(subject, part)
	}
	return subject
}

// replacesWord reports whether the other subject has a different word in place of one of the
// vocabulary. EVENT and EVENTS are not different, GPU and CPU are.
func replacesWord(subject, other string, vocabulary map[string]bool) bool {
	words := strings.Split(other, "_")
	for word := range strings.SplitSeq(subject, "_") {
		similar := func(other string) bool {
			return strings.HasPrefix(other, word[:1]) && EditDistance(word, other, 1) <= 1
		}
		if word != "" && vocabulary[word] && !slices.ContainsFunc(words, similar) {
			return true
		}
	}
	return false
}

// sharedStart returns the longest of the names that the subject continues, or else the
// shortest that continues the subject, in whole words. Example: GPU_UTIL_SAMPLES continues
// DCGM_FI_DEV_GPU_UTIL.
func sharedStart(subject string, names []string) (best string) {
	longest, shortest := "", ""
	for _, name := range names {
		switch other := subjectOf(name); {
		case strings.HasPrefix(subject, other+"_") && strings.Contains(other, "_"):
			if len(other) > len(longest) {
				best, longest = name, other
			}
		case longest == "" && strings.HasPrefix(other, subject+"_") && strings.Contains(subject, "_"):
			if shortest == "" || len(other) < len(shortest) {
				best, shortest = name, other
			}
		}
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
