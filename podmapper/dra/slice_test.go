// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"gpu_exporter/collector/goldentest"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
)

// examples are ResourceSlices as drivers publish them. The attributes are those
// in the sources of kubernetes-sigs/dra-driver-nvidia-gpu (main of August 2026,
// and 25.3), run-ai/fake-gpu-operator, Project-HAMi/k8s-dra-driver and
// kubernetes-sigs/dra-example-driver.
func examples(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	return files
}

// decode decodes an object as the dynamic client does.
func decode(t testing.TB, text []byte) (object map[string]any) {
	t.Helper()
	if err := utiljson.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseSlice(t *testing.T) {
	for _, file := range examples(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			s, err := parseSlice(decode(t, readFile(t, file)))
			if err != nil {
				t.Fatal(err)
			}
			goldentest.File(t, strings.TrimSuffix(file, "json")+"golden", describe(s), "golden")
		})
	}
}

// describe writes what is known of each device, a line each.
func describe(s slice) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s, pool %s/%s, generation %d, %d slices in all\n", s.node, s.pool.driver, s.pool.name, s.generation, s.count)
	for _, d := range s.devices {
		fmt.Fprintf(&b, "%s:", d.name)
		text := func(name, value string) {
			if value != "" {
				fmt.Fprintf(&b, " %s=%s", name, value)
			}
		}
		number := func(name string, value int) {
			if value != device.Unknown {
				fmt.Fprintf(&b, " %s=%d", name, value)
			}
		}
		text("type", d.Type)
		text("uuid", d.UUID)
		text("parent", d.ParentUUID)
		text("profile", d.Profile)
		number("start", d.PlacementStart)
		number("index", d.Index)
		number("minor", d.Minor)
		text("pci", d.PCIBusID)
		fmt.Fprintln(&b)
	}
	return b.String()
}

// The examples are objects that Kubernetes knows, to the last field.
func TestExamplesAreResourceSlices(t *testing.T) {
	for _, file := range examples(t) {
		var object any
		switch name := strings.TrimSuffix(file, ".json"); {
		case strings.HasSuffix(name, "-v1"):
			object = &resourcev1.ResourceSlice{}
		case strings.HasSuffix(name, "-v1beta2"):
			object = &resourcev1beta2.ResourceSlice{}
		case strings.HasSuffix(name, "-v1beta1"):
			object = &resourcev1beta1.ResourceSlice{}
		}
		d := json.NewDecoder(bytes.NewReader(readFile(t, file)))
		d.DisallowUnknownFields()
		if err := d.Decode(object); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// A slice means the same in each version of the API.
func TestVersionsAgree(t *testing.T) {
	for _, group := range [][]string{
		{"nvidia-gpu-v1", "nvidia-gpu-v1beta2", "nvidia-gpu-v1beta1"},
		{"nvidia-mig-dynamic-v1", "nvidia-mig-dynamic-v1beta1"},
	} {
		for _, name := range group[1:] {
			if !bytes.Equal(readFile(t, "testdata/"+group[0]+".golden"), readFile(t, "testdata/"+name+".golden")) {
				t.Errorf("%s and %s differ", group[0], name)
			}
		}
	}
}

func TestParseBadSlice(t *testing.T) {
	for _, tc := range []struct {
		name, object string
		devices      []string // that are found all the same
		err          string
	}{
		{"no driver", `{"spec":{"pool":{"name":"p"}}}`, nil, "it has no driver or no pool"},
		{"no pool", `{"spec":{"driver":"d"}}`, nil, "it has no driver or no pool"},
		{
			"one bad device among good ones",
			`{"spec":{"driver":"d","pool":{"name":"p"},"devices":[{"name":"a"},{"name":"b","attributes":{"uuid":{"string":5}}},{},{"name":"c"}]}}`,
			[]string{"a", "c"}, "device 1: ",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parseSlice(decode(t, []byte(tc.object)))
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			var names []string
			for _, d := range s.devices {
				names = append(names, d.name)
			}
			if !slices.Equal(names, tc.devices) {
				t.Errorf("devices %q, want %q", names, tc.devices)
			}
		})
	}
}

func TestFirstMemorySlice(t *testing.T) {
	for _, tc := range []struct {
		description string
		want        int
	}{
		{`{}`, device.Unknown},
		{`{"capacity":{"memorySlice4":{"value":"1"},"memorySlice5":{"value":"1"},"memory":{"value":"9856Mi"}}}`, 4},
		{`{"capacity":{"gpu.nvidia.com/memorySlice10":{"value":"1"},"gpu.nvidia.com/memorySlice9":{"value":"1"}}}`, 9},
		{`{"consumesCounters":[{"counters":{"memory-slice-0":{"value":"0"},"memory-slice-6":{"value":"1"}}}]}`, 6},
		{`{"consumesCounters":[{"counters":{"memory":{"value":"1"}}},{"counters":{"memory-slice-2":{"value":1}}}]}`, 2},
		{`{"consumesCounters":[{"counters":{"memory-slice-3":{"value":"1"}}}],"capacity":{"memorySlice0":{"value":"1"}}}`, 3},
		{`{"capacity":{"memorySlice":{"value":"1"},"memorySliceA":{"value":"1"},"memorySlice-1x":{"value":"1"},"memorySlice999":{"value":"1"}}}`, device.Unknown},
	} {
		var w wireDescription
		if err := fromUnstructured(decode(t, []byte(tc.description)), &w); err != nil {
			t.Fatal(err)
		}
		if got := w.firstMemorySlice(); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.description, got, tc.want)
		}
	}
}

func TestJoin(t *testing.T) {
	gpu := func(names ...string) []namedDevice {
		var ds []namedDevice
		for _, n := range names {
			name, uuid, _ := strings.Cut(n, "=")
			ds = append(ds, namedDevice{name, device.PublishedDevice{UUID: cmp.Or(uuid, "GPU-"+name)}})
		}
		return ds
	}
	p, q := pool{"d", "p"}, pool{"d", "q"}
	for _, tc := range []struct {
		name       string
		slices     []slice
		devices    []string
		incomplete []string
	}{
		{"none", nil, nil, nil},
		{
			"a pool of two slices",
			[]slice{{pool: p, generation: 1, count: 2, devices: gpu("a")}, {pool: p, generation: 1, count: 2, devices: gpu("b")}},
			[]string{"d/p/a=GPU-a", "d/p/b=GPU-b"}, nil,
		},
		{
			"older generations do not count",
			[]slice{{pool: p, generation: 2, count: 1, devices: gpu("a", "b=GPU-old")}, {pool: p, generation: 10, count: 1, devices: gpu("b")}},
			[]string{"d/p/b=GPU-b"}, nil,
		},
		{
			"generations are those of each pool",
			[]slice{{pool: p, generation: 2, count: 1, devices: gpu("a")}, {pool: q, generation: 1, count: 1, devices: gpu("a")}},
			[]string{"d/p/a=GPU-a", "d/q/a=GPU-a"}, nil,
		},
		{
			"an incomplete pool is used",
			[]slice{{pool: p, generation: 2, count: 3, devices: gpu("a")}, {pool: p, generation: 1, count: 3, devices: gpu("b")}},
			[]string{"d/p/a=GPU-a"}, []string{"d/p: 1 of 3 slices"},
		},
		{
			"a device that is described twice, but not alike, is neither",
			[]slice{{pool: p, generation: 1, count: 2, devices: gpu("a", "b", "c")}, {pool: p, generation: 1, count: 2, devices: gpu("b=GPU-x", "c")}},
			[]string{"d/p/a=GPU-a", "d/p/c=GPU-c"}, nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := make(map[string]slice)
			for i, s := range tc.slices {
				all[fmt.Sprint(i)] = s
			}
			devices, incomplete := join(all)
			var got []string
			for name, d := range devices {
				got = append(got, name.String()+"="+d.UUID)
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.devices) || !slices.Equal(incomplete, tc.incomplete) {
				t.Errorf("devices %q, incomplete %q; want %q and %q", got, incomplete, tc.devices, tc.incomplete)
			}
		})
	}
}

func FuzzParseSlice(f *testing.F) {
	for _, file := range examples(f) {
		f.Add(readFile(f, file))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var object map[string]any
		if utiljson.Unmarshal(text, &object) != nil {
			return
		}
		s, err := parseSlice(object)
		if again, _ := parseSlice(object); describe(again) != describe(s) {
			t.Errorf("twice parsed, twice different:\n%s\n%s", describe(s), describe(again))
		}
		if (s.pool.driver == "" || s.pool.name == "") && (err == nil || len(s.devices) > 0) {
			t.Errorf("devices of no pool: %+v", s)
		}
		for _, d := range s.devices {
			if d.name == "" || d.PlacementStart < device.Unknown || d.Index < device.Unknown || d.Minor < device.Unknown {
				t.Errorf("impossible device %+v", d)
			}
			mig := d.Type == device.TypeMIG || d.ParentUUID != "" || d.Profile != ""
			if !mig && d.PlacementStart != device.Unknown {
				t.Errorf("a whole GPU has a place: %+v", d)
			}
		}
		// What Kubernetes takes for a ResourceSlice is understood in full.
		var known resourcev1.ResourceSlice
		if json.Unmarshal(text, &known) == nil && known.Spec.Driver != "" && known.Spec.Pool.Name != "" &&
			!slices.ContainsFunc(known.Spec.Devices, func(d resourcev1.Device) bool { return d.Name == "" }) &&
			err == nil && len(s.devices) != len(known.Spec.Devices) {
			t.Errorf("%d devices of %d", len(s.devices), len(known.Spec.Devices))
		}
		all := map[string]slice{"a": s, "b": s}
		first, _ := join(all)
		second, _ := join(all)
		if !maps.Equal(first, second) {
			t.Error("twice joined, twice different")
		}
	})
}

// TestAdminAccess reads the devices that a ResourceClaim has with adminAccess.
func TestAdminAccess(t *testing.T) {
	c := newCluster(t, "v1")
	w := newWatcher(t, c)
	if _, err := w.AdminAccess(t.Context(), "gpu", "monitor"); poll.ReasonOf(err) != poll.Unavailable {
		t.Errorf("before the first list: %v", err)
	}
	c.apply("slice-a", node, map[string]any{"nodeName": node, "driver": "gpu.nvidia.com", "pool": map[string]any{"name": node, "resourceSliceCount": 1}})
	c.change(func() {
		c.answer = func(r *http.Request) (int, string) {
			if r.URL.Path != "/apis/resource.k8s.io/v1/namespaces/gpu/resourceclaims/monitor" {
				return 0, ""
			}
			return http.StatusOK, `{"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"name":"monitor","namespace":"gpu"},"status":{"allocation":{"devices":{"results":[
				{"request":"all","driver":"gpu.nvidia.com","pool":"n","device":"gpu-0","adminAccess":true},
				{"request":"one","driver":"gpu.nvidia.com","pool":"n","device":"gpu-1"}]}}}}`
		}
	})
	w.run()
	defer w.stop()
	for deadline := time.Now().Add(time.Minute); w.Status().APIVersion == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no list")
		}
	}
	names, err := w.AdminAccess(t.Context(), "gpu", "monitor")
	if want := (device.PublishedName{Driver: "gpu.nvidia.com", Pool: "n", Device: "gpu-0"}); err != nil || len(names) != 1 || names[0] != want {
		t.Errorf("%v, %v, want %v", names, err, want)
	}
	if _, err := w.AdminAccess(t.Context(), "gpu", "gone"); poll.ReasonOf(err) != poll.NotFound {
		t.Errorf("a claim that does not exist: %v", err)
	}
}
