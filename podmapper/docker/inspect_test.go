// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func testMinors() (migMinors, error) { return readMIGMinors("testdata/mig-minors") }

func (d described) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", d.devices)
	for _, u := range d.unresolved {
		fmt.Fprintf(&b, "  cannot tell %s: %s\n", u.Request, u.Reason)
	}
	return b.String()
}

// TestDescribe reads answers of engines. Those whose names begin with podman are
// Podman 4.3.1's own, with device files and a CDI specification made for it.
func TestDescribe(t *testing.T) {
	var all strings.Builder
	files, err := filepath.Glob("testdata/inspect/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no answers: %v", err)
	}
	for _, file := range files {
		answer, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d, err := describe(answer, testMinors)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if d.image == "" {
			t.Errorf("%s: no image", file)
		}
		fmt.Fprintf(&all, "%s: %s", strings.TrimSuffix(filepath.Base(file), ".json"), d.text())
	}
	const golden = "testdata/inspect.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := all.String(); got != string(want) {
		t.Errorf("not as in %s (-update writes it):\n%s", golden, got)
	}
}

func TestDescribeWithoutMIGMinors(t *testing.T) {
	answer, err := os.ReadFile("testdata/inspect/podman-cdi-mig.json")
	if err != nil {
		t.Fatal(err)
	}
	d, err := describe(answer, func() (migMinors, error) { return nil, fs.ErrNotExist })
	if err != nil {
		t.Fatal(err)
	}
	if !d.devices.None() || len(d.unresolved) != 1 || d.unresolved[0].Hint == "" {
		t.Errorf("a MIG device that cannot be told is %s", d.text())
	}
}

func TestDescribeGarbage(t *testing.T) {
	for _, answer := range []string{
		``, `{`, `[]`, `null`, `{}`, `"x"`, `{"message":"no such container"}`, `{"Config":{}}`,
		`{"Config":{},"HostConfig":[]}`, `{"Config":{"Env":{}},"HostConfig":{}}`, `{"Config":{},"HostConfig":{}} x`,
		`{"Config":{},"HostConfig":{"DeviceRequests":[{"Count":"all"}]}}`,
	} {
		if d, err := describe([]byte(answer), testMinors); err == nil {
			t.Errorf("%s is taken for %s", answer, d.text())
		} else if r := reasonOf(err); r != ReasonMalformed {
			t.Errorf("%s: reason %s of %v", answer, r, err)
		}
	}
}

// TestDescribeBounds: nothing makes a container hold more than a node can have.
func TestDescribeBounds(t *testing.T) {
	var names []string
	for i := range 10 * maxDevices {
		names = append(names, fmt.Sprintf(`"%d:%d"`, i/100, i%100), fmt.Sprintf(`"odd-%d"`, i))
	}
	answer := `{"Config":{},"HostConfig":{"DeviceRequests":[{"Driver":"nvidia","DeviceIDs":[` + strings.Join(names, ",") + `]}]}}`
	d, err := describe([]byte(answer), testMinors)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.devices.MIGIndexes); n != maxDevices {
		t.Errorf("%d devices", n)
	}
	if n := len(d.unresolved); n != maxUnresolved {
		t.Errorf("%d unresolved", n)
	}
}

func TestParseMIGMinors(t *testing.T) {
	got, err := testMinors()
	if err != nil {
		t.Fatal(err)
	}
	want := migMinors{
		3: {MIGInstance{0, 0, 0}, false}, 4: {MIGInstance{0, 0, 0}, true},
		30: {MIGInstance{0, 3, 0}, false}, 31: {MIGInstance{0, 3, 0}, true},
		21: {MIGInstance{1, 2, 0}, false}, 22: {MIGInstance{1, 2, 0}, true}, 23: {MIGInstance{1, 2, 1}, true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, content := range []string{"", "config 1\n", "gpu0/gi1/access\n", "gpu0/gi1/ci/access 3", "gpux/gi1/access 3", "gpu0/gi1/access -3", "gpu0/gi1/ci0/x/access 3"} {
		if got, err := parseMIGMinors(strings.NewReader(content)); err == nil {
			t.Errorf("%q is taken for %v", content, got)
		}
	}
	if _, err := readMIGMinors("testdata/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

func FuzzDescribe(f *testing.F) {
	files, err := filepath.Glob("testdata/inspect/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		answer, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(answer)
	}
	f.Add([]byte(`{"Config":{"Env":["NVIDIA_VISIBLE_DEVICES=0,1:0"]},"HostConfig":{"Runtime":"nvidia","DeviceRequests":[{"Driver":"cdi","DeviceIDs":["nvidia.com/gpu=0"]}]}}`))
	minors, err := testMinors()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		d, err := describe(answer, func() (migMinors, error) { return minors, nil })
		if err != nil {
			return
		}
		v := d.devices
		if n := len(v.IDs) + len(v.MIGIndexes) + len(v.MIGInstances); n > maxDevices || v.All && n > 0 {
			t.Errorf("all %t and %d others", v.All, n)
		}
		if len(d.unresolved) > maxUnresolved {
			t.Errorf("%d unresolved", len(d.unresolved))
		}
		for _, u := range d.unresolved {
			if u.Reason == "" || u.Hint == "" || len(u.Request) > 4*maxMessage+len("…") || strings.ContainsAny(u.Request, "\n\x00") {
				t.Errorf("unresolved: %+v", u)
			}
		}
		seen := make(map[any]bool)
		for _, id := range v.IDs {
			seen[id] = true
		}
		for _, m := range v.MIGIndexes {
			seen[m] = true
		}
		for _, m := range v.MIGInstances {
			seen[m] = true
		}
		if len(seen) != len(v.IDs)+len(v.MIGIndexes)+len(v.MIGInstances) {
			t.Errorf("repetitions in %s", v)
		}
		again, err := describe(slices.Clone(answer), func() (migMinors, error) { return minors, nil })
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("once %s, then %s, %v", d.text(), again.text(), err)
		}
	})
}

func FuzzDecodeList(f *testing.F) {
	const id = "4fa6e0f0c8be4f2a8a7ab2e1f7f2f0f44fa6e0f0c8be4f2a8a7ab2e1f7f2f0f4"
	f.Add(`[{"Id":"` + id + `","Names":["/web/db","/db"],"Image":"postgres","Labels":{"a":"b"}},{"Id":"` + id + `"}]`)
	f.Add(`null`)
	f.Add(`[]`)
	f.Add(`[{"Id":"../x"}]`)
	f.Fuzz(func(t *testing.T, answer string) {
		_ = decodeList(strings.NewReader(answer), func(c listed) error { // most are no lists
			if !isID(c.ID) || c.name() == "" || strings.Contains(c.name(), "/") {
				t.Errorf("%q is called %q", c.ID, c.name())
			}
			return nil
		})
	})
}
