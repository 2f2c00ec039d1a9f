// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Selector selects devices, in dcgm-exporter's notation:
//
//	f          each GPU, or its GPU instances if it has any (the default)
//	g          all GPUs
//	g:0,2-4    the GPUs with these DCGM entity IDs
//	i          all GPU instances
//	i:0,2-4    the GPU instances with these DCGM entity IDs
//	g:0+i:2-4  both
//
// The zero value is f.
type Selector struct {
	gpus, instances selection
}

// selection is the selection of one letter.
type selection struct {
	given  bool
	ranges []idRange // empty: all
}

type idRange struct{ first, last uint32 }

func (r idRange) contains(id uint32) bool { return r.first <= id && id <= r.last }

func (r idRange) String() string {
	if r.first == r.last {
		return fmt.Sprint(r.first)
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

func (s selection) contains(id uint32) bool {
	if len(s.ranges) == 0 {
		return s.given
	}
	return slices.ContainsFunc(s.ranges, func(r idRange) bool { return r.contains(id) })
}

// Flex reports whether the selector is f. GPU and GPUInstance then return true for all IDs,
// and a GPU with instances is not read itself.
func (s Selector) Flex() bool { return !s.gpus.given && !s.instances.given }

// GPU reports whether the GPU with DCGM's entity ID is selected.
func (s Selector) GPU(id uint32) bool { return s.Flex() || s.gpus.contains(id) }

// GPUInstance reports whether the GPU instance with DCGM's entity ID is selected.
func (s Selector) GPUInstance(id uint32) bool { return s.Flex() || s.instances.contains(id) }

// Instances reports whether the selector can select GPU instances.
func (s Selector) Instances() bool { return s.Flex() || s.instances.given }

// Unmatched returns the IDs and ranges of the selector that match no device, such as g:7.
func (s Selector) Unmatched(gpus, instances []uint32) []string {
	var unmatched []string
	add := func(letter string, ranges []idRange, present []uint32) {
		for _, r := range ranges {
			if !slices.ContainsFunc(present, r.contains) {
				unmatched = append(unmatched, letter+":"+r.String())
			}
		}
	}
	add("g", s.gpus.ranges, gpus)
	add("i", s.instances.ranges, instances)
	return unmatched
}

// selectorForms ends every message about a selector.
const selectorForms = "write f, g, i, g:<ids>, i:<ids> or g:<ids>+i:<ids>, with ids such as 0,2-4"

// selectorPart matches a letter, its IDs and the + after it.
var selectorPart = regexp.MustCompile(`^\s*([gi])\s*(:[^+gi]*)?(\+?)`)

// ParseSelector parses a selector. The + is optional, as dcgm-exporter documents: g:0i:1 is
// g:0+i:1.
func ParseSelector(text string) (Selector, error) {
	s, err := parseSelector(strings.TrimSpace(text))
	if err != nil {
		return Selector{}, fmt.Errorf("device selector %q: %w; %s", text, err, selectorForms)
	}
	return s, nil
}

func parseSelector(rest string) (s Selector, err error) {
	if rest == "f" {
		return s, nil
	}
	parts := map[string]*selection{"g": &s.gpus, "i": &s.instances}
	for more := true; more; {
		match := selectorPart.FindStringSubmatch(rest)
		if match == nil {
			return s, fmt.Errorf("%q does not begin with g or i", rest)
		}
		letter, ids := match[1], match[2]
		part := parts[letter]
		if part.given {
			return s, fmt.Errorf("%s occurs twice", letter)
		}
		part.given = true
		if ids != "" {
			if part.ranges, err = parseRanges(ids[1:]); err != nil {
				return s, fmt.Errorf("after %s: %w", letter, err)
			}
		}
		rest = rest[len(match[0]):]
		more = rest != "" || match[3] != ""
	}
	return s, nil
}

func parseRanges(list string) ([]idRange, error) {
	var ranges []idRange
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		from, err := parseID(first)
		if err != nil {
			return nil, err
		}
		to, err := parseID(last)
		if err != nil {
			return nil, err
		}
		if to < from {
			return nil, fmt.Errorf("the range %q is descending", strings.TrimSpace(item))
		}
		ranges = append(ranges, idRange{from, to})
	}
	return ranges, nil
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not an ID between 0 and 4294967295", strings.TrimSpace(text))
	}
	return uint32(id), nil
}
