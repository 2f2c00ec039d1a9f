// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import (
	"slices"
	"strings"
	"testing"

	"gpu_exporter/etc"
)

func shippedXIDs(t *testing.T) *Catalogue {
	t.Helper()
	c, err := ParseCatalogue(etc.XIDCatalogue(), etc.XIDCatalogueName)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestXIDCatalogueLookup(t *testing.T) {
	c := shippedXIDs(t)
	if n := len(c.All()); n != 111 {
		t.Errorf("%d codes, want 111", n)
	}
	x, ok := c.Lookup(79)
	if !ok || x.Name != "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS" || x.Action != "RESTART_BM" || x.Severity != Critical {
		t.Errorf("XID 79 is %+v, %v", x, ok)
	}
	for _, code := range []int64{-1, 0, 1, 173, 1 << 40} {
		if x, ok := c.Lookup(code); ok {
			t.Errorf("XID %d is %+v", code, x)
		}
		if got := c.Message(code); (got == "No Error") != (code == 0) || (got == "Unknown Error") != (code != 0) {
			t.Errorf("message of XID %d: %q", code, got)
		}
	}
	if got := c.Message(79); got != x.Meaning || got == "" {
		t.Errorf("message of XID 79: %q", got)
	}
	var none Catalogue
	if got := none.Message(79); got != "Unknown Error" || none.CallsForAction() != nil {
		t.Errorf("the zero catalogue returns %q and %v", got, none.CallsForAction())
	}
}

func TestXIDsThatCallForAction(t *testing.T) {
	c := shippedXIDs(t)
	codes := c.CallsForAction()
	if len(codes) != 36 {
		t.Errorf("%d codes, want 36: each is a series for every device", len(codes))
	}
	for _, code := range []int64{46, 48, 62, 64, 74, 79, 94, 95, 109, 119, 120, 136, 140, 143, 144, 150, 154} {
		if !slices.Contains(codes, code) {
			t.Errorf("XID %d is missing", code)
		}
	}
	for _, code := range []int64{8, 13, 31, 43, 45, 63, 68, 92, 106} {
		if slices.Contains(codes, code) {
			t.Errorf("XID %d is included, but calls for no action", code)
		}
	}
	// Every line follows the rules at the head of the file.
	for _, x := range c.All() {
		switch x.Action {
		case "RESET_GPU", "RESTART_BM", "RESTART_VM", "WORKFLOW_XID_48", "WORKFLOW_NVLINK_ERR", "WORKFLOW_NVLINK5_ERR":
			if x.Severity != Critical {
				t.Errorf("XID %d asks for %s and is %s", x.Code, x.Action, x.Severity)
			}
		case "IGNORE", "WORKFLOW_XID_45":
			if x.Severity != Application {
				t.Errorf("XID %d asks for %s and is %s", x.Code, x.Action, x.Severity)
			}
		case "RESTART_APP":
			if want := x.Code == 94; (x.Severity == Warning) != want {
				t.Errorf("XID %d asks for %s and is %s", x.Code, x.Action, x.Severity)
			}
		case "":
			if x.Severity == Critical {
				t.Errorf("XID %d asks for no action and is %s", x.Code, x.Severity)
			}
		default:
			if x.Severity != Warning {
				t.Errorf("XID %d asks for %s and is %s", x.Code, x.Action, x.Severity)
			}
		}
	}
}

func TestParseXIDCatalogueErrors(t *testing.T) {
	const header = "code,name,severity,action,investigation,meaning\n"
	for _, tc := range []struct {
		name, file string
		want       []string
	}{
		{"empty", "", []string{"x.csv: the file is empty or has only comments: write code,name,severity,action,investigation,meaning on the first line and"}},
		{"comments", "# ours\n\n", []string{"x.csv: the file is empty or has only comments"}},
		{"no header", "79,A,critical,RESET_GPU,,Meaning\n", []string{"x.csv:1: the first line of an XID catalogue must be code,name,"}},
		{"quotes in the header", "# ours\ncode,\"name\n", []string{"x.csv:2: extraneous or missing \" in quoted-field"}},
		{"quotes", header + "79,A,critical,,,\"Gone\" for good\n80,A,application,,,\"not\nclosed\n", []string{
			"x.csv:2: extraneous or missing \" in quoted-field", "x.csv:3: extraneous or missing \" in quoted-field"}},
		{
			"all errors at once", "# a comment\n" + header + "79,A,critical,,,Gone\nx,A,application,,,B\n80,A,high,,,B\n81,A,application,,,\n79,A,application,,,B\n82,A,info\n-1,A,application,,,B\n90,A,application,,,B,C\n",
			[]string{
				`x.csv:4: code "x" is not a number`, `x.csv:5: code 80 has severity "high": write application, warning or critical`,
				"x.csv:6: code 81 has no meaning", "x.csv:7: code 79 is out of order", "x.csv:8: 3 columns instead of 6 (code,name,severity,action,investigation,meaning): keep the commas of empty columns", "x.csv:10: 7 columns instead of 6 (code,name,severity,action,investigation,meaning): quote a text that contains a comma", `x.csv:9: code "-1"`,
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseCatalogue(strings.NewReader(tc.file), "x.csv")
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not contain %s", err, want)
				}
			}
		})
	}
}

// FuzzParseXIDCatalogue: no input panics, and an accepted catalogue is in order.
func FuzzParseXIDCatalogue(f *testing.F) {
	f.Add("code,name,severity,action,investigation,meaning\n79,A,critical,RESTART_BM,,Gone\n80,B,application,,,\"a, b\"\n")
	f.Add("code,name\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCatalogue(strings.NewReader(text), "x.csv")
		if err != nil {
			return
		}
		for _, x := range c.All() {
			if got, ok := c.Lookup(x.Code); !ok || got != x {
				t.Fatalf("%+v is found as %+v, %v", x, got, ok)
			}
		}
	})
}

// A user's catalogue contains only differences: changed codes and additional codes.
func TestXIDCatalogueWith(t *testing.T) {
	changes, err := ParseCatalogue(strings.NewReader("code,name,severity,action,investigation,meaning\n"+
		"31,PAGE_FAULT,critical,CALL_US,,Ours\n109,CTXSW_TIMEOUT,application,,,The application's\n999,NEW,warning,,,New\n"), "x.csv")
	if err != nil {
		t.Fatal(err)
	}
	all := shippedXIDs(t)
	c := all.With(changes)
	if n := len(c.All()); n != len(all.All())+1 {
		t.Errorf("%d codes", n)
	}
	if x, _ := c.Lookup(31); x.Name != "PAGE_FAULT" || x.Severity != Critical {
		t.Errorf("31 is %+v", x)
	}
	codes := c.CallsForAction()
	if !slices.Contains(codes, 31) || slices.Contains(codes, 109) || !slices.Contains(codes, 79) || !slices.Contains(codes, 999) || !slices.IsSorted(codes) {
		t.Errorf("calls for action: %v", codes)
	}
	if x, _ := all.Lookup(31); x.Severity != Application {
		t.Errorf("the original has changed: %+v", x)
	}
}
