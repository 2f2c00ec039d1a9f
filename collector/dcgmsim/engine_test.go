// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestReadingNeedsAWatch(t *testing.T) {
	p := embedded(t, newNode(t, "h100x8-mig"))
	if v := p.latest(feGPU, 0, 155)[155]; v.status != stNotWatched || v.text != fp64Blank {
		t.Errorf("unwatched: %+v", v)
	}
	p.watch("all", 100*time.Millisecond, []int{155, 230, 1001, 191, 780, 54}, [2]int{feGPU, 6})
	v := p.latest(feGPU, 6, 155, 230, 1001, 191, 780, 54)
	if v[155].status != stOK || v[155].float(t) < 70 || v[155].float(t) > 700 {
		t.Errorf("power: %+v", v[155])
	}
	if v[230].status != stNoData || v[230].text != int64Blank {
		t.Errorf("XID before the first one: %+v", v[230])
	}
	if v[1001].status != stOK || v[1001].text != fp64Blank {
		t.Errorf("first sample of a profiling field: %+v", v[1001])
	}
	if v[191].status != stOK || v[191].text != int64NotSupported {
		t.Errorf("fan of a GPU without one: %+v", v[191])
	}
	if v[780].status != stNoData {
		t.Errorf("switch field on a GPU: %+v", v[780])
	}
	eventually(t, "a second sample of a profiling field has a ratio", func() bool {
		v := p.latest(feGPU, 6, 1001)[1001]
		return v.status == stOK && v.text != fp64Blank && v.float(t) > 0 && v.float(t) <= 1
	})
	// A group of GPUs covers neither their instances nor their compute instances.
	for _, group := range []int{feGPUI, feGPUCI} {
		if v := p.latest(group, 0, 155)[155]; v.status != stNotWatched {
			t.Errorf("entity kind %d: %+v", group, v)
		}
	}
	if v := p.values("live", feGPU, 7, 54)[54]; v.status != stOK || !strings.HasPrefix(v.text, "GPU-") {
		t.Errorf("live value without a watch: %+v", v)
	}
}

// Without a watcher a field is not sampled, and its samples remain
// (DcgmCacheManager.cpp, RemoveWatcher and PrecheckWatchInfoForSamples). They
// remain under the id of an instance after the instance is gone.
func TestUnwatchEnds(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	p := embedded(t, n)
	g, f := p.watch("w", 100*time.Millisecond, []int{250}, [2]int{feGPUI, 0})
	if v := p.latest(feGPUI, 0, 250)[250]; v.status != stOK {
		t.Fatalf("watched: %+v", v)
	}
	p.ok("unwatch %s %s", g, f)
	last := p.latest(feGPUI, 0, 250)[250]
	n.must(t, "mig gpu 0 7g.40gb")
	time.Sleep(300 * time.Millisecond)
	if v := p.latest(feGPUI, 0, 250)[250]; v != last {
		t.Errorf("unwatched: %+v, last %+v", v, last)
	}
	p.ok("watch %s %s 100000 1 1", g, f)
	eventually(t, "the new instance is sampled", func() bool { return p.latest(feGPUI, 0, 250)[250].text != last.text })
}

// Each watch has its own interval and retention.
func TestIntervalsAndRetention(t *testing.T) {
	p := embedded(t, newNode(t, "t4x1"))
	fast, fastFields := p.watch("fast", 100*time.Millisecond, []int{150}, [2]int{feGPU, 0})
	slow, slowFields := p.watch("slow", 10*time.Second, []int{155}, [2]int{feGPU, 0})
	time.Sleep(2500 * time.Millisecond)
	samples := func(group, fields string) []int64 {
		var ts []int64
		for _, w := range strings.Fields(p.ok("since %s %s 0", group, fields).text) {
			if _, v, ok := parseValue(w); ok {
				ts = append(ts, v.ts)
			}
		}
		return ts
	}
	// With maxKeepAge 0 and one sample, one second is kept.
	if got := samples(fast, fastFields); len(got) < 3 || len(got) > 14 || !slices.IsSorted(got) {
		t.Errorf("%d samples of a watch at 100 ms that keeps a second: %v", len(got), got)
	}
	if got := samples(slow, slowFields); len(got) < 1 || len(got) > 2 {
		t.Errorf("%d samples of a watch at 10 s", len(got))
	}
	next := p.ok("since %s %s 0", fast, fastFields).get(t, "next")
	eventually(t, "only newer samples since the last look", func() bool {
		a := p.ok("since %s %s %s", fast, fastFields, next)
		for _, w := range strings.Fields(a.text) {
			if _, v, ok := parseValue(w); ok {
				since, _ := strconv.ParseInt(next, 10, 64)
				if v.ts < since {
					t.Fatalf("sample of %d since %d", v.ts, since)
				}
				return true
			}
		}
		return false
	})
}

func TestLimits(t *testing.T) {
	p := embedded(t, newNode(t, "t4x1"))
	field := func(n int) string { return list(slices.Repeat([]int{155}, n)) }
	p.ok("fields largest %s", field(128))
	p.expect(stBadParam, "fields larger %s", field(129))
	p.expect(stDuplicateKey, "fields largest 155")
	p.expect(stBadParam, "fields unknown 7")
	for i := range 59 { // four are the engine's own, one is above
		p.ok("fields f%d 155", i)
	}
	p.expect(stMaxLimit, "fields one-more 155")
	for i := range 62 { // two are the engine's own
		p.ok("group g%d", i)
	}
	p.expect(stMaxLimit, "group one-more")
	p.ok("drop 2")
	p.ok("group one-more")
	p.expect(stNotConfigured, "drop 2")
	p.ok("add 3 1 0")
	p.expect(stBadParam, "add 3 1 0") // twice
	p.expect(stBadParam, "add 3 1 9") // no such GPU
}

func TestLostGPU(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	fields := []int{155, 156, 50, 54, 57, 203, 1001}
	p.watch("w", 100*time.Millisecond, fields, [2]int{feGPU, 3}, [2]int{feGPU, 4})
	before := p.latest(feGPU, 3, fields...)
	n.must(t, "lose gpu 3")
	eventually(t, "every value of the lost GPU is blank, including name and UUID", func() bool {
		for _, v := range p.latest(feGPU, 3, fields...) {
			if v.status != stOK {
				t.Fatalf("status of a lost GPU's value: %+v", v)
			}
			if v.text != map[string]string{"i": int64Blank, "d": fp64Blank, "s": strBlank}[v.kind] {
				return false
			}
		}
		return true
	})
	if v := p.latest(feGPU, 4, 155)[155]; v.float(t) < 70 {
		t.Errorf("another GPU: %+v", v)
	}
	if a := p.ok("supported"); strings.Contains(a.text, " 3 ") || !strings.Contains(p.ok("devices").text, " 3 ") {
		t.Errorf("supported devices: %s", a.text)
	}
	if got := p.ok("status 3").get(t, "status"); got != "4" {
		t.Errorf("status %s, want 4 (lost)", got)
	}
	g := p.ok("group again").get(t, "id")
	p.expect(stGPUIsLost, "add %s 1 3", g)
	n.must(t, "return gpu 3")
	eventually(t, "the GPU is back", func() bool { return p.latest(feGPU, 3, 54)[54].text == before[54].text })
	p.ok("add %s 1 3", g)
	n.must(t, "detach gpu 3")
	if got := p.ok("status 3").get(t, "status"); got != "7" {
		t.Errorf("status %s, want 7 (detached)", got)
	}
	n.must(t, "attach gpu 3")
	eventually(t, "the GPU is attached", func() bool { return p.ok("status 3").get(t, "status") == "1" })
}

func TestBlankAndOverriddenFields(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{150, 311}, [2]int{feGPU, 0}, [2]int{feGPU, 1})
	n.must(t, "blank field 150 gpu 1")
	n.must(t, "set field 311 value 3")
	eventually(t, "GPU 1's temperature is blank, GPU 0's is not, both have three errors", func() bool {
		a, b := p.latest(feGPU, 0, 150, 311), p.latest(feGPU, 1, 150, 311)
		return a[150].text != int64Blank && b[150].text == int64Blank && a[311].text == "3" && b[311].text == "3"
	})
	n.must(t, "unblank field 150 gpu 1")
	n.must(t, "unset field 311")
	eventually(t, "both have their own values", func() bool {
		b := p.latest(feGPU, 1, 150, 311)
		return b[150].text != int64Blank && b[311].text == "0"
	})
}

func TestXIDs(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	p := embedded(t, n)
	p.watch("w", time.Second, []int{230}, [2]int{feGPU, 0}, [2]int{feGPU, 7}, [2]int{feGPUI, 2}, [2]int{feGPUCI, 2})
	n.must(t, "xid 13 gpu 7")
	n.must(t, "xid 79 gpu 7")
	n.must(t, "xid 31 gpu 0 ci 2")
	eventually(t, "the newest XID of GPU 7, and that of the compute instance", func() bool {
		return p.latest(feGPU, 7, 230)[230].text == "79" && p.latest(feGPUCI, 2, 230)[230].text == "31"
	})
	for _, e := range [][2]int{{feGPU, 0}, {feGPUI, 2}} {
		if v := p.latest(e[0], e[1], 230)[230]; v.status != stNoData {
			t.Errorf("the XID of a compute instance shows on %v: %+v", e, v)
		}
	}
	// Both XIDs are samples.
	g := p.ok("group h").get(t, "id")
	p.ok("add %s 1 7", g)
	f := p.ok("fields h 230").get(t, "id")
	if got := strings.Count(p.ok("since %s %s 0", g, f).text, "230:i:0:"); got != 2 {
		t.Errorf("%d samples of field 230, want 2", got)
	}
}

// After a fatal XID the engine does not call the driver until it restarts.
func TestXID119BlanksEverything(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	watch := func() { p.watch("w", 100*time.Millisecond, []int{155, 54}, [2]int{feGPU, 0}, [2]int{feGPU, 5}) }
	watch()
	n.must(t, "xid 119 gpu 5")
	eventually(t, "every field of every GPU is blank", func() bool {
		a, b := p.latest(feGPU, 0, 155, 54), p.latest(feGPU, 5, 155, 54)
		return a[155].text == fp64Blank && a[54].text == strBlank && b[155].text == fp64Blank
	})
	p.ok("stop")
	p.ok("start")
	watch()
	if v := p.latest(feGPU, 5, 155)[155]; v.text == fp64Blank {
		t.Errorf("after a restart: %+v", v)
	}
	if v := p.latest(feGPU, 5, 230)[230]; v.status != stNotWatched {
		t.Errorf("a new engine reports old XIDs: %+v", v)
	}
}

func TestProfilingNeedsAModuleBeforeHopper(t *testing.T) {
	p := embedded(t, newNode(t, "mixed4"))
	g := p.ok("group g").get(t, "id")
	for _, id := range []int{0, 1, 3, 5} {
		p.ok("add %s 1 %d", g, id)
	}
	f := p.ok("fields f 1001 155").get(t, "id")
	p.expect(stModuleNotLoaded, "watch %s %s 100000 0 1", g, f)
	eventually(t, "the H100 of the group works", func() bool { return p.latest(feGPU, 0, 1001)[1001].text != fp64Blank })
	if v := p.latest(feGPU, 1, 1001, 155); v[1001].status != stNoData || v[155].status != stOK {
		t.Errorf("A100: %+v", v)
	}
	p.ok("metricgroups 0")
	p.expect(stModuleNotLoaded, "metricgroups 1")

	with := filepath.Join(t.TempDir(), "module.scenario")
	if err := os.WriteFile(with, []byte("base mixed4\nprofiling yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = embedded(t, newNode(t, with))
	p.ok("metricgroups 1")
	p.watch("w", 100*time.Millisecond, []int{1001}, [2]int{feGPU, 1})
	eventually(t, "profiling on an A100 whose scenario has the module", func() bool {
		v := p.latest(feGPU, 1, 1001)[1001]
		return v.status == stOK && v.text != fp64Blank
	})
}

func TestMIG(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	p := embedded(t, n)
	h := p.ok("hierarchy").text
	for _, want := range []string{
		"4/0<1/0:gi=7:ci=-1:slices=1:index=0", "5/0<4/0:gi=7:ci=0:slices=1:index=0", "4/6<1/0:gi=13:",
		"4/7<1/1:gi=1:ci=-1:slices=3", "4/14<1/2:", "5/14<4/14:gi=1:ci=0:slices=2", "5/15<4/14:gi=1:ci=1:slices=2",
	} {
		if !strings.Contains(h, want) {
			t.Errorf("no %s in %s", want, h)
		}
	}
	fields := []int{50, 54, 150, 155, 203, 206, 207, 250, 252, 1001, 1005, 1009, 1010, 1011, 156, 67}
	p.watch("w", 100*time.Millisecond, fields, [2]int{feGPU, 0}, [2]int{feGPUI, 0}, [2]int{feGPUCI, 0}, [2]int{feGPUI, 6}, [2]int{feGPU, 3})
	eventually(t, "profiling fields have their second sample", func() bool { return p.latest(feGPUI, 0, 1001)[1001].text != fp64Blank })
	gpu, gi, ci, other := p.latest(feGPU, 0, fields...), p.latest(feGPUI, 0, fields...), p.latest(feGPUCI, 0, fields...), p.latest(feGPUI, 6, fields...)
	for _, field := range []int{203, 206, 207} { // blank on the GPU and its instances
		for what, v := range map[string]fieldValue{"GPU": gpu[field], "instance": gi[field], "compute instance": ci[field]} {
			if v.status != stOK || v.text != int64Blank {
				t.Errorf("field %d of the %s: %+v", field, what, v)
			}
		}
	}
	for _, field := range []int{150, 155, 156} { // the values of the GPU
		if gi[field].text != gpu[field].text {
			t.Errorf("field %d: %s for the instance, %s for its GPU", field, gi[field].text, gpu[field].text)
		}
	}
	if gi[50].text != "NVIDIA_H100_80GB_HBM3_MIG_1g.10gb" || !strings.HasPrefix(gi[54].text, "MIG-") || gi[54].text == other[54].text {
		t.Errorf("identity of instances: %+v %+v %+v", gi[50], gi[54], other[54])
	}
	if total := gi[250].float(t); total < 9000 || total > 10240 || gi[252].float(t) > total {
		t.Errorf("memory of the instance: %+v used of %+v", gi[252], gi[250])
	}
	for _, field := range []int{1009, 1010, 1011} {
		if gi[field].text != int64Blank || gpu[field].text == int64Blank {
			t.Errorf("field %d: instance %+v, GPU %+v", field, gi[field], gpu[field])
		}
	}
	if gi[1005].text == fp64Blank || ci[1005].text != fp64Blank {
		t.Errorf("field 1005: instance %+v, compute instance %+v", gi[1005], ci[1005])
	}
	if v := p.latest(feGPU, 3, 67)[67]; v.text != "1" {
		t.Errorf("MIG mode of a GPU with MIG on and no instances: %+v", v)
	}

	// A repartition reuses entity ids for different instances; the watch continues with the new one.
	n.must(t, "mig gpu 0 3g.40gb+1g.10gb")
	eventually(t, "entity 0 is another instance", func() bool {
		v := p.latest(feGPUI, 0, 54, 50)
		return v[54].text != gi[54].text && strings.HasSuffix(v[50].text, "3g.40gb")
	})
	if v := p.latest(feGPUI, 6, 54)[54]; v.text != strBlank {
		t.Errorf("a destroyed instance: %+v", v)
	}
	n.must(t, "mig gpu 0 off")
	eventually(t, "with MIG off the GPU has a utilisation again", func() bool { return p.latest(feGPU, 0, 203)[203].text != int64Blank })
	if strings.Contains(p.ok("hierarchy").text, "4/0<") {
		t.Error("instances of a GPU with MIG off")
	}
}
