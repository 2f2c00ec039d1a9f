// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"strings"
	"testing"
)

func TestParseSelector(t *testing.T) {
	for _, tc := range []struct {
		text, canonical string
		flex            bool
		gpus, instances []uint32 // selected of 0 to 7
	}{
		{"f", "f", true, []uint32{0, 1, 2, 3, 4, 5, 6, 7}, []uint32{0, 1, 2, 3, 4, 5, 6, 7}},
		{"g", "g", false, []uint32{0, 1, 2, 3, 4, 5, 6, 7}, nil},
		{"i", "i", false, nil, []uint32{0, 1, 2, 3, 4, 5, 6, 7}},
		{"g:0,1", "g:0,1", false, []uint32{0, 1}, nil},
		{"g:0-3", "g:0-3", false, []uint32{0, 1, 2, 3}, nil},
		{"i:0,2-4", "i:0,2-4", false, nil, []uint32{0, 2, 3, 4}},
		{"g+i", "g+i", false, []uint32{0, 1, 2, 3, 4, 5, 6, 7}, []uint32{0, 1, 2, 3, 4, 5, 6, 7}},
		{"g:0,1+i:2-4", "g:0,1+i:2-4", false, []uint32{0, 1}, []uint32{2, 3, 4}},
		{"i:2-4+g:0", "g:0+i:2-4", false, []uint32{0}, []uint32{2, 3, 4}},
		{"g+i:7", "g+i:7", false, []uint32{0, 1, 2, 3, 4, 5, 6, 7}, []uint32{7}},
		{"g:5i:6", "g:5+i:6", false, []uint32{5}, []uint32{6}},
		{"gi", "g+i", false, []uint32{0, 1, 2, 3, 4, 5, 6, 7}, []uint32{0, 1, 2, 3, 4, 5, 6, 7}},
		{" g: 0 , 2 - 3 + i:1 ", "g:0,2-3+i:1", false, []uint32{0, 2, 3}, []uint32{1}},
		{"g:007", "g:7", false, []uint32{7}, nil},
		{"g:0-4294967295", "g:0-4294967295", false, []uint32{0, 1, 2, 3, 4, 5, 6, 7}, nil},
	} {
		t.Run(tc.text, func(t *testing.T) {
			s, err := ParseSelector(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if canonical(s) != tc.canonical || s.Flex() != tc.flex {
				t.Errorf("%s, flex %v; want %s, %v", canonical(s), s.Flex(), tc.canonical, tc.flex)
			}
			var gpus, instances []uint32
			for id := range uint32(8) {
				if s.GPU(id) {
					gpus = append(gpus, id)
				}
				if s.GPUInstance(id) {
					instances = append(instances, id)
				}
			}
			if !slices.Equal(gpus, tc.gpus) || !slices.Equal(instances, tc.instances) {
				t.Errorf("GPUs %v and instances %v, want %v and %v", gpus, instances, tc.gpus, tc.instances)
			}
		})
	}
	if zero := (Selector{}); !zero.Flex() || canonical(zero) != "f" {
		t.Errorf("the zero selector is %s", canonical(zero))
	}
}

// canonical returns the selector in the notation of ParseSelector.
func canonical(s Selector) string {
	var parts []string
	for _, part := range []struct {
		letter string
		selection
	}{{"g", s.gpus}, {"i", s.instances}} {
		if !part.given {
			continue
		}
		text := part.letter
		for i, r := range part.ranges {
			text += ":,"[min(i, 1):][:1] + r.String()
		}
		parts = append(parts, text)
	}
	if parts == nil {
		return "f"
	}
	return strings.Join(parts, "+")
}

func TestParseSelectorErrors(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", `device selector "": "" does not begin with g or i; `},
		{"  ", `"" does not begin with g or i`},
		{"x", `"x" does not begin with g or i`},
		{"0,1", `"0,1" does not begin with g or i`},
		{"G:0", `"G:0" does not begin with g or i`},
		{"g:0;i:1", `after g: "0;" is not an ID between 0 and 4294967295`},
		{"g+x", `"x" does not begin with g or i`},
		{" g+é", `"é" does not begin with g or i`},
		{"f:0", `"f:0" does not begin with g or i`},
		{"f+g", `"f+g" does not begin with g or i`},
		{"g+f", `"f" does not begin with g or i`},
		{"g:0+g:1", "g occurs twice"},
		{"i+i", "i occurs twice"},
		{"g:", `after g: "" is not an ID`},
		{"g:0,", `after g: "" is not an ID`},
		{"g:,0", `"" is not an ID`},
		{"g:0-", `after g: "" is not an ID`},
		{"g:-1", `after g: "" is not an ID`},
		{"g:0-1-2", `after g: "1-2" is not an ID`},
		{"g:+1", `after g: "" is not an ID`},
		{"i:3-1", `after i: the range "3-1" is descending`},
		{"i:a", `after i: "a" is not an ID`},
		{"g:4294967296", `"4294967296" is not an ID between 0 and 4294967295`},
		{"g+", `"" does not begin with g or i`},
		{"g:0:1", `"0:1" is not an ID`},
		{"g++i", `"+i" does not begin with g or i`},
	} {
		_, err := ParseSelector(tc.text)
		if err == nil {
			t.Errorf("%q is accepted", tc.text)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) || !strings.HasSuffix(err.Error(), selectorForms) {
			t.Errorf("%q: %v\nwant %s", tc.text, err, tc.want)
		}
	}
}

func TestSelectorUnmatched(t *testing.T) {
	s, err := ParseSelector("g:0,7,8-9,2-20+i:0-1,14")
	if err != nil {
		t.Fatal(err)
	}
	got := s.Unmatched([]uint32{0, 1, 2, 3}, []uint32{7, 8})
	if want := []string{"g:7", "g:8-9", "i:0-1", "i:14"}; !slices.Equal(got, want) {
		t.Errorf("unmatched %v, want %v", got, want)
	}
	for _, text := range []string{"f", "g", "g+i"} {
		s, _ := ParseSelector(text)
		if got := s.Unmatched(nil, nil); got != nil {
			t.Errorf("%s: unmatched %v", text, got)
		}
	}
}

// FuzzParseSelector checks that no input panics, and that an accepted selector can be
// written and parsed again.
func FuzzParseSelector(f *testing.F) {
	for _, s := range []string{"f", "g", "i:0,2-4", "g:0,1+i:2-4", "gi", "g:0-", "i+g:+", " g : 1 ", "g:99999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		again, err := ParseSelector(canonical(s))
		if err != nil {
			t.Fatalf("%q became %q: %v", text, canonical(s), err)
		}
		if canonical(again) != canonical(s) || again.Flex() != s.Flex() {
			t.Fatalf("%q became %q, then %q", text, canonical(s), canonical(again))
		}
		for _, id := range []uint32{0, 1, 2, 7, 1000, 1<<32 - 1} {
			if s.GPU(id) != again.GPU(id) || s.GPUInstance(id) != again.GPUInstance(id) {
				t.Fatalf("%q and %q differ on %d", canonical(s), canonical(again), id)
			}
		}
	})
}
