// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Selector says which devices are read, in dcgm-exporter's notation:
//
//	f          each GPU, or its GPU instances where it has any (the default)
//	g          all GPUs
//	g:0,2-4    the GPUs with these DCGM entity ids
//	i          all GPU instances
//	i:0,2-4    the GPU instances with these DCGM entity ids
//	g:0+i:2-4  both of them
//
// The zero value is f.
type Selector struct {
	gpus, instances selection
}

// selection is what one letter selects.
type selection struct {
	given  bool
	ranges []idRange // none: all
}

type idRange struct{ first, last uint32 }

func (s selection) contains(id uint32) bool {
	if len(s.ranges) == 0 {
		return s.given
	}
	for _, r := range s.ranges {
		if r.first <= id && id <= r.last {
			return true
		}
	}
	return false
}

// Flex says whether the selector is f: GPU and GPUInstance are then true for
// all, and of a GPU that has instances only these are to be read.
func (s Selector) Flex() bool { return !s.gpus.given && !s.instances.given }

// GPU says whether the GPU with DCGM's entity id is selected.
func (s Selector) GPU(id uint32) bool { return s.Flex() || s.gpus.contains(id) }

// GPUInstance says whether the GPU instance with DCGM's entity id is selected.
func (s Selector) GPUInstance(id uint32) bool { return s.Flex() || s.instances.contains(id) }

// Instances says whether any GPU instance may be selected.
func (s Selector) Instances() bool { return s.Flex() || s.instances.given }

// Unmatched returns the ids and ranges of the selector that match nothing of
// what is there, such as g:7, for a warning.
func (s Selector) Unmatched(gpus, instances []uint32) []string {
	var missing []string
	for _, part := range []struct {
		letter string
		selection
		present []uint32
	}{{"g", s.gpus, gpus}, {"i", s.instances, instances}} {
	ranges:
		for _, r := range part.ranges {
			for _, id := range part.present {
				if r.first <= id && id <= r.last {
					continue ranges
				}
			}
			missing = append(missing, part.letter+":"+r.String())
		}
	}
	return missing
}

func (r idRange) String() string {
	if r.first == r.last {
		return strconv.FormatUint(uint64(r.first), 10)
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

// selectorForms ends every message about a selector.
const selectorForms = "write f, g, i, g:<ids>, i:<ids> or g:<ids>+i:<ids>, with ids such as 0,2-4"

// ParseSelector reads a selector. dcgm-exporter documents the + as optional, so
// that g:0i:1 is g:0+i:1.
func ParseSelector(text string) (Selector, error) {
	bad := func(format string, args ...any) (Selector, error) {
		return Selector{}, fmt.Errorf("device selector %q: %s; %s", text, fmt.Sprintf(format, args...), selectorForms)
	}
	rest := strings.TrimSpace(text)
	if rest == "f" {
		return Selector{}, nil
	}
	if rest == "" {
		return bad("it is empty")
	}
	var s Selector
	for {
		var part *selection
		letter := rest[0]
		switch letter {
		case 'g':
			part = &s.gpus
		case 'i':
			part = &s.instances
		case 'f':
			if strings.HasPrefix(rest, "f:") {
				return bad("f takes no ids")
			}
			return bad("f stands alone")
		default:
			return bad("%q at position %d is neither g nor i", firstRune(rest), position(text, rest))
		}
		if part.given {
			return bad("%c stands there twice", letter)
		}
		part.given = true
		rest = strings.TrimLeft(rest[1:], " ")
		if strings.HasPrefix(rest, ":") {
			list := rest[1:]
			if end := strings.IndexAny(list, "+gi"); end >= 0 {
				list = list[:end]
			}
			rest = rest[1+len(list):]
			ranges, err := parseRanges(list)
			if err != nil {
				return bad("after %c: %v", letter, err)
			}
			part.ranges = ranges
		}
		if rest == "" {
			return s, nil
		}
		if rest[0] == '+' {
			rest = strings.TrimLeft(rest[1:], " ")
			if rest == "" {
				return bad("nothing follows the +")
			}
		}
	}
}

func parseRanges(list string) ([]idRange, error) {
	var ranges []idRange
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			return nil, fmt.Errorf("an id is missing in %q", list)
		}
		first, last, isRange := strings.Cut(item, "-")
		r := idRange{}
		var err error
		if r.first, err = parseID(first); err != nil {
			return nil, fmt.Errorf("in %q: %w", item, err)
		}
		r.last = r.first
		if isRange {
			if r.last, err = parseID(last); err != nil {
				return nil, fmt.Errorf("in %q: %w", item, err)
			}
		}
		if r.last < r.first {
			return nil, fmt.Errorf("the range %q runs backwards", item)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func parseID(s string) (uint32, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, fmt.Errorf("an id is missing")
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q is not a number", s)
		}
	}
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is above the highest id, %d", s, uint32(math.MaxUint32))
	}
	return uint32(id), nil
}

// position returns where in text its tail rest starts, counted from 1.
func position(text, rest string) int {
	return len(strings.TrimRight(text, " \t\r\n")) - len(strings.TrimRight(rest, " \t\r\n")) + 1
}

func firstRune(s string) string {
	for _, r := range s {
		return string(r)
	}
	return ""
}
