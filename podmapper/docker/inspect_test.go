// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/goldentest"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
)

func testMinors() (migCapabilities, error) { return readMIGMinors("testdata/mig-minors") }

func (d description) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", d.devices)
	for _, u := range d.unresolved {
		fmt.Fprintf(&b, "  unresolved %s: %s\n", u.Request, u.Reason)
	}
	return b.String()
}

// TestDescribe parses responses of engines. Those named podman-* are from Podman
// 4.3.1 with device files and a CDI specification made for this test.
func TestDescribe(t *testing.T) {
	var all strings.Builder
	files, err := filepath.Glob("testdata/inspect/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no responses: %v", err)
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
	goldentest.File(t, "testdata/inspect.golden", all.String(), "golden")
}

func TestDescribeWithoutMIGMinors(t *testing.T) {
	answer, err := os.ReadFile("testdata/inspect/podman-cdi-mig.json")
	if err != nil {
		t.Fatal(err)
	}
	d, err := describe(answer, func() (migCapabilities, error) { return nil, fs.ErrNotExist })
	if err != nil {
		t.Fatal(err)
	}
	if !d.devices.None() || len(d.unresolved) != 1 || d.unresolved[0].Hint == "" {
		t.Errorf("an unreadable list of capabilities: %s", d.text())
	}
}

func TestDescribeMalformed(t *testing.T) {
	for _, answer := range []string{
		``, `{`, `[]`, `null`, `{}`, `"x"`, `{"message":"no such container"}`, `{"Config":{}}`,
		`{"Config":{},"HostConfig":[]}`, `{"Config":{"Env":{}},"HostConfig":{}}`, `{"Config":{},"HostConfig":{}} x`,
		`{"Config":{},"HostConfig":{"DeviceRequests":[{"Count":"all"}]}}`,
	} {
		if d, err := describe([]byte(answer), testMinors); err == nil {
			t.Errorf("describe(%s) = %s", answer, d.text())
		} else if r := poll.ReasonOf(err); r != poll.Malformed {
			t.Errorf("%s: reason %s of %v", answer, r, err)
		}
	}
}

// TestDescribeBounds checks the bounds on the devices of one container.
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
	if n := len(d.devices.IDs); n != maxDevices {
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
	id := func(gpu, gi, ci int) device.ID {
		return device.ID{Form: device.FormMIGCapability, Number: gpu, GPUInstance: gi, ComputeInstance: ci}
	}
	want := migCapabilities{
		3: id(0, 0, device.Unknown), 4: id(0, 0, 0),
		30: id(0, 3, device.Unknown), 31: id(0, 3, 0),
		21: id(1, 2, device.Unknown), 22: id(1, 2, 0), 23: id(1, 2, 1),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, content := range []string{"", "config 1\n", "gpu0/gi1/access\n", "gpu0/gi1/ci/access 3", "gpux/gi1/access 3", "gpu0/gi1/access -3", "gpu0/gi1/ci0/x/access 3"} {
		if got, err := parseMIGMinors(content); err == nil {
			t.Errorf("parseMIGMinors(%q) = %v", content, got)
		}
	}
	if _, err := readMIGMinors("testdata/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
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
		d, err := describe(answer, func() (migCapabilities, error) { return minors, nil })
		if err != nil {
			return
		}
		v := d.devices
		if n := len(v.IDs); n > maxDevices || v.All && n > 0 {
			t.Errorf("all %t and %d IDs", v.All, n)
		}
		if len(d.unresolved) > maxUnresolved {
			t.Errorf("%d unresolved", len(d.unresolved))
		}
		for _, u := range d.unresolved {
			if u.Reason == "" || u.Hint == "" || len(u.Request) > 4*maxMessage+len("…") || strings.ContainsAny(u.Request, "\n\x00") {
				t.Errorf("unresolved: %+v", u)
			}
		}
		if !slices.IsSortedFunc(v.IDs, device.ID.Compare) || len(slices.Compact(slices.Clone(v.IDs))) != len(v.IDs) {
			t.Errorf("not sorted or not unique: %s", v)
		}
		again, err := describe(slices.Clone(answer), func() (migCapabilities, error) { return minors, nil })
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("two results: %s and %s, %v", d.text(), again.text(), err)
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
		_ = decodeList(strings.NewReader(answer), func(c listed) error { // most inputs are malformed
			if !isID(c.ID) || c.name() == "" || strings.Contains(c.name(), "/") {
				t.Errorf("container %q has the name %q", c.ID, c.name())
			}
			return nil
		})
	})
}
