// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const reasonsField = 112

// Clock event reasons follow the load, the heat and forced reasons. The violation
// counters show how long each was active.
func TestClockEventReasons(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base h100x8\nload gpu all util 50\n"))
	p := embedded(t, n)
	violations := []int{240, 241, 242, 243, 244, 245, 246, 247, 1420, 1421, 1422, 1423, 1424}
	p.watch("w", 100*time.Millisecond, append([]int{reasonsField, 100, 150}, violations...), entities(feGPU, 0, 1)...)
	for _, field := range violations {
		if v := p.latest(feGPU, 0, field)[field]; v.text != "0" {
			t.Errorf("field %d of a GPU whose clocks were never held: %+v", field, v)
		}
	}
	reasons := func() string { return p.latest(feGPU, 0, reasonsField)[reasonsField].text }
	for _, c := range []struct{ command, want string }{
		{"load gpu 0 idle", "1"},
		{"load gpu 0 util 100", "4"},
		{"load gpu 0 util 50", "0"},
		{"heat gpu 0 100", "72"}, // hardware thermal, which is also a slowdown
		{"reason gpu 0 hw_slowdown off", "64"},
		{"heat gpu 0 0", "0"},
		{"reason gpu 0 sync_boost on", "16"},
		{"reason gpu 0 hw_power_brake on", "144"},
		{"clear", "0"},
	} {
		n.must(t, c.command)
		eventually(t, "after "+c.command+" the reasons are "+c.want, func() bool { return reasons() == c.want })
	}

	// The time of a forced reason is exact, however often it is read.
	start, err := n.Truth(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	clock := p.latest(feGPU, 1, 100)[100].float(t)
	n.must(t, "reason gpu 1 hw_thermal on")
	from, err := n.Truth(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "half the clock, and a growing violation counter", func() bool {
		v := p.latest(feGPU, 1, 100, 1423)
		return v[100].float(t) < 0.6*clock && v[1423].float(t) > 2e8
	})
	n.must(t, "reason gpu 1 hw_thermal auto")
	to, err := n.Truth(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	held := to.Held["hw_thermal"]
	if held < from.Held["hw_thermal"]+200*time.Millisecond || held > to.At.Sub(start.At) {
		t.Errorf("active for %v between %v and %v", held, start.At, to.At)
	}
	eventually(t, "the counters stop", func() bool {
		v := p.latest(feGPU, 1, 241, 246, 1423, 240)
		ns := strconv.FormatInt(int64(held), 10)
		return v[1423].text == ns && v[241].text == ns && v[246].text == ns && v[240].text == "0"
	})
	if other := p.latest(feGPU, 0, 1423)[1423]; other.text == "0" {
		t.Errorf("GPU 0 has no thermal time: %+v", other)
	}
	for _, line := range []string{"reason gpu 1 boredom on", "reason gpu 1 hw_thermal", "heat gpu 1", "heat cpu 0 3", "heat switch 0 3"} {
		if answer, err := n.Command(t.Context(), line); err == nil {
			t.Errorf("%s: %s", line, answer)
		}
	}
}

// After an hour of uptime at full load, the clocks were held for an hour.
func TestViolationsSinceBoot(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base t4x1\nuptime 1h\nload gpu 0 util 100\n"))
	x, err := n.Truth(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := x.Held["power_cap"]; math.Abs((got-time.Hour).Seconds()) > 5 || x.Held["idle"] != 0 {
		t.Errorf("held %v", x.Held)
	}
}

func TestMemoryErrors(t *testing.T) {
	n := newNode(t, scenarioFile(t, "model old like t4\nmodel old ecc_locations yes\nmodel none like t4\nmodel none has_ecc no\ngpu h100\ngpu old\ngpu none\n"))
	p := embedded(t, n)
	fields := []int{310, 311, 312, 313, 316, 317, 318, 319, 328, 342, 343, 344, 385, 386, 390, 391, 392, 393, 394, 395, 396, 1507, 1523}
	p.watch("w", 100*time.Millisecond, fields, entities(feGPU, 0, 1, 2)...)
	for _, line := range []string{
		"ecc gpu 0 sbe 3", "ecc gpu 0 dbe 1 sram", "ecc gpu 0 sbe 4 l2", "ecc gpu 1 dbe 2 l2", "remap gpu 0 correctable 2",
		"remap gpu 0 uncorrectable 1", "remap gpu 0 pending 1", "retire gpu 1 dbe 2", "retire gpu 1 pending 1", "recovery gpu 0 drain-and-reset",
	} {
		n.must(t, line)
	}
	want := map[int]map[int]string{
		0: {310: "7", 311: "1", 312: "7", 313: "1", 316: int64NotSupported, 317: int64NotSupported, 318: "3", 319: "0", 328: "3", 342: "4", 343: "1", 344: "4",
			385: "637", 386: "3", 390: int64NotSupported, 393: "1", 394: "2", 395: "0", 396: "1", 1507: "0", 1523: "4"},
		1: {310: "0", 311: "2", 316: "0", 317: "2", 343: "2", 391: "2", 392: "1", 393: int64NotSupported, 396: int64NotSupported, 1523: "0"},
		2: {310: int64NotSupported, 318: int64NotSupported, 342: int64NotSupported, 390: int64NotSupported},
	}
	eventually(t, "the counters of each GPU", func() bool { return p.latest(feGPU, 0, 1523)[1523].text == "4" })
	for gpu, values := range want {
		got := p.latest(feGPU, gpu, fields...)
		for field, text := range values {
			if got[field].text != text || got[field].status != stOK {
				t.Errorf("GPU %d, field %d: %+v, want %s", gpu, field, got[field], text)
			}
		}
	}
	g := p.ok("group h 0").get(t, "id")
	p.ok("healthset %s 0x210", g)
	if a := p.ok("health %s", g); !strings.Contains(a.text, "1/0:system=0x200:health=20:code=128") {
		t.Error(a.text)
	}
	for _, line := range []string{"ecc gpu 2 sbe 1", "ecc gpu 0 sbe 1 attic", "remap gpu 1 correctable 1", "retire gpu 0 sbe 1", "recovery gpu 0 pray", "ecc gpu 0 sbe"} {
		if answer, err := n.Command(t.Context(), line); err == nil {
			t.Errorf("%s: %s", line, answer)
		}
	}
}

func TestFabricManager(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{170, 171, 172, 173, 174, 175}, entities(feGPU, 0, 1)...)
	if v := p.latest(feGPU, 0, 170, 171, 172, 173, 174, 175); v[170].text != "3" || v[171].text != "0" || v[172].text != "00000000-0000-0000-0000-000000000000" || v[174].text != "2" || v[175].text != "1" {
		t.Errorf("%v", v)
	}
	n.must(t, "fabric gpu 0 in-progress")
	eventually(t, "no error before training ends", func() bool {
		v := p.latest(feGPU, 0, 170, 171)
		return v[170].text == "2" && v[171].text == int64Blank && v[171].status == stOK
	})
	n.must(t, "fabric gpu 0 failure -11")
	eventually(t, "a failure and its error", func() bool {
		v := p.latest(feGPU, 0, 170, 171, 175)
		return v[170].text == "4" && v[171].text == "-11" && v[175].text == "2"
	})
	if v := p.latest(feGPU, 1, 170)[170]; v.text != "3" {
		t.Errorf("another GPU: %+v", v)
	}
}

func TestHealthByCommand(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := embedded(t, n)
	g := p.ok("group g 5").get(t, "id")
	p.ok("healthset %s -1", g)
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("a healthy node: %s", a.text)
	}
	n.must(t, "health gpu 5 inforom warn")
	n.must(t, "health gpu 6 nvlink fail 13")
	n.must(t, "health switch 2 nvswitch-nonfatal warn")
	n.must(t, "reason gpu 1 power_cap on")
	n.must(t, "link gpu 2 port 4 down")
	a := p.ok("health %s", g)
	for _, want := range []string{
		"overall=20", "1/5:system=0x40:health=10:code=9", "1/6:system=0x2:health=20:code=13", "3/2:system=0x400:health=10:code=16",
		"1/2:system=0x2:health=20:code=14",
	} {
		if !strings.Contains(a.text, want) {
			t.Errorf("no %s in %s", want, a.text)
		}
	}
	eventually(t, "a power violation", func() bool { return strings.Contains(p.ok("health %s", g).text, "1/1:system=0x100:health=10:code=12") })
	n.must(t, "health gpu 5 inforom pass")
	if a := p.ok("health %s", g); strings.Contains(a.text, "1/5:") {
		t.Error(a.text)
	}
	n.must(t, "clear")
	p.ok("healthset %s -1", g)
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Errorf("after clear: %s", a.text)
	}
}

// A new watch repairs profiling that is frozen or zero on a busy GPU.
func TestProfilingFaults(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base h100x8\nload gpu all util 60\n"))
	p := embedded(t, n)
	fields := []int{1001, 1005, 203}
	g, f := p.watch("w", 100*time.Millisecond, fields, entities(feGPU, 0, 1)...)
	active := func(gpu int) string { return p.latest(feGPU, gpu, 1001)[1001].text }
	eventually(t, "profiling works", func() bool { return active(0) == "0.59999999999999998" && active(1) == active(0) })
	n.must(t, "profiling gpu 0 zero")
	eventually(t, "zeros on a busy GPU", func() bool { return active(0) == "0" && p.latest(feGPU, 0, 203)[203].text == "60" })
	n.must(t, "profiling gpu 0 frozen")
	n.must(t, "load gpu all util 90")
	eventually(t, "GPU 1 continues", func() bool { return active(1) == "0.90000000000000002" && p.latest(feGPU, 0, 203)[203].text == "90" })
	frozen := p.latest(feGPU, 0, 1001)[1001]
	if frozen.text != "0.59999999999999998" {
		t.Errorf("frozen at a load of 0.6: %+v", frozen)
	}
	eventually(t, "the same value in a new sample", func() bool {
		v := p.latest(feGPU, 0, 1001)[1001]
		return v.ts > frozen.ts && v.text == frozen.text
	})
	p.ok("unwatch %s %s", g, f)
	p.ok("watch %s %s 100000 0 1", g, f)
	n.must(t, "load gpu all util 30")
	eventually(t, "a new watch repairs it", func() bool { return active(0) == "0.29999999999999999" })

	n.must(t, "profiling gpu 0 zero for-good")
	eventually(t, "zeros", func() bool { return active(0) == "0" })
	p.ok("unwatch %s %s", g, f)
	p.ok("watch %s %s 100000 0 1", g, f)
	ts := p.latest(feGPU, 0, 1001)[1001].ts
	eventually(t, "a later sample", func() bool { v := p.latest(feGPU, 0, 1001)[1001]; return v.ts > ts+150_000 })
	if got := active(0); got != "0" {
		t.Errorf("a new watch repaired a permanent fault: %s", got)
	}
	n.must(t, "profiling gpu 0 ok")
	eventually(t, "profiling works", func() bool { return active(0) == "0.29999999999999999" })

	// A different client holds the lock: watched fields are blank, and a new watch fails with all of its fields.
	n.must(t, "profiling gpu all locked")
	eventually(t, "blank", func() bool { return active(0) == fp64Blank })
	p.ok("unwatch %s %s", g, f)
	p.expect(stProfiling, "watch %s %s 100000 0 1", g, f)
	ts = p.latest(feGPU, 0, 203)[203].ts
	h, k := p.watch("other", 100*time.Millisecond, []int{150}, entities(feGPU, 0)...)
	eventually(t, "a sample of another watch", func() bool { return p.latest(feGPU, 0, 150)[150].ts > ts+150_000 })
	if got := p.latest(feGPU, 0, 203)[203].ts; got != ts {
		t.Errorf("a failed watch continues to sample: %d, was %d", got, ts)
	}
	p.ok("unwatch %s %s", h, k)
	n.must(t, "profiling gpu all locked -34")
	p.expect(-34, "watch %s %s 100000 0 1", g, f)
	n.must(t, "profiling gpu all ok")
	p.ok("watch %s %s 100000 0 1", g, f)
	eventually(t, "profiling works", func() bool { return active(0) == "0.29999999999999999" })
}

// DCGM can pause the module that profiles GPUs before Hopper, but not newer GPUs.
func TestProfilingPause(t *testing.T) {
	p := embedded(t, newNode(t, "h100x8"))
	p.expect(stNotSupported, "pause")
	p.expect(stNotSupported, "resume")

	p = embedded(t, newNode(t, scenarioFile(t, "gpu h100\ngpu a100-80\nprofiling yes\nload gpu all util 60\n")))
	p.ok("pause")
	p.watch("w", 100*time.Millisecond, []int{1001}, entities(feGPU, 0, 1)...)
	active := func(gpu int) string { return p.latest(feGPU, gpu, 1001)[1001].text }
	eventually(t, "the H100 continues", func() bool { return active(0) != fp64Blank })
	if got := active(1); got != fp64Blank {
		t.Errorf("paused: %s", got)
	}
	p.ok("pause") // a second pause succeeds
	p.ok("resume")
	eventually(t, "resumed", func() bool { return active(1) != fp64Blank })
	p.ok("pause")
	eventually(t, "paused again", func() bool { return active(1) == fp64Blank })
}

// All XIDs of a burst within one interval are samples, in order, for a reader of
// the values since a time.
func TestXIDBurst(t *testing.T) {
	n := newNode(t, "h100x8")
	n.must(t, "xid pace 0")
	p := embedded(t, n)
	g, f := p.watch("w", 5*time.Second, []int{230}, entities(feGPU, 0, 1, 2, 3, 4, 5, 6, 7)...)
	for gpu := range 8 {
		n.must(t, fmt.Sprintf("xid %d gpu %d count 100", 13+gpu, gpu))
	}
	samples := func(since string) (out []fieldValue, next string) {
		a := p.do("since %s %s %s", g, f, since)
		for _, w := range strings.Fields(a.text) {
			if _, v, ok := parseValue(w); ok {
				out = append(out, v)
			}
		}
		return out, a.get(t, "next")
	}
	eventually(t, "800 samples", func() bool { got, _ := samples("0"); return len(got) == 800 })
	got, next := samples("0")
	count := map[string]int{}
	for i, v := range got {
		count[v.text]++
		if i%100 > 0 && v.ts < got[i-1].ts {
			t.Fatalf("sample %d at %d, the one before at %d", i, v.ts, got[i-1].ts)
		}
	}
	if len(count) != 8 || count["13"] != 100 || count["20"] != 100 {
		t.Errorf("%v", count)
	}
	if more, _ := samples(next); len(more) != 0 {
		t.Errorf("%d more", len(more))
	}
	// One at a time, as the real engine receives them.
	n.must(t, "xid pace 300")
	n.must(t, "xid 31 gpu 3 count 3")
	eventually(t, "all three", func() bool { more, _ := samples(next); return len(more) == 3 })
	more, _ := samples(next)
	for i, v := range more[1:] {
		if apart := v.ts - more[i].ts; apart < 300_000 {
			t.Errorf("%d µs apart", apart)
		}
	}
}

func TestKernelLog(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	n.KernelLog = filepath.Join(t.TempDir(), "kmsg")
	n.must(t, "xid pace 0")
	p := embedded(t, n)
	g, f := p.watch("w", time.Second, []int{230}, [2]int{feGPU, 7}, [2]int{feGPUCI, 2})
	n.must(t, "process none gpu 7")
	n.must(t, "process gpu 7 pid 4242 name trainer")
	n.must(t, "xid 13 gpu 7")
	n.must(t, "xid 79 gpu 7 kmsg only")
	n.must(t, "xid 31 gpu 0 ci 2 count 2 kmsg both")
	n.must(t, "xid 120 gpu 7 kmsg twice")
	codes := func() []string {
		var out []string
		for _, w := range strings.Fields(p.do("since %s %s 0", g, f).text) {
			if _, v, ok := parseValue(w); ok {
				out = append(out, v.text)
			}
		}
		return out
	}
	eventually(t, "the XIDs that DCGM reports", func() bool { return slices.Equal(codes(), []string{"13", "120", "120", "31", "31"}) })
	text, err := os.ReadFile(n.KernelLog)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	form := regexp.MustCompile(`^3,(\d+),(\d+),-;NVRM: Xid \(PCI:(0000:[0-9a-f]{2}:00(?: GPU-I:\d\d GPU-CI:\d\d)?)\): (\d+), pid=(\d+), name=(\S+), `)
	var got []string
	for _, line := range lines {
		m := form.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a record of an XID: %q", line)
		}
		got = append(got, m[1]+" "+m[3]+" "+m[4])
	}
	if want := []string{"1 0000:db:00 79", "2 0000:18:00 GPU-I:09 GPU-CI:00 31", "3 0000:18:00 GPU-I:09 GPU-CI:00 31", "4 0000:db:00 120"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !strings.Contains(lines[0], "pid=4242, name=trainer, ") {
		t.Error(lines[0])
	}
	n.KernelLog = ""
	bare := newNode(t, "t4x1")
	for _, line := range []string{"xid 79 gpu 0 kmsg only", "xid 79 gpu 0 kmsg maybe", "xid 79 gpu 0 count 0", "xid pace never"} {
		if answer, err := bare.Command(t.Context(), line); err == nil {
			t.Errorf("%s: %s", line, answer)
		}
	}
}

func TestOverridesOfOtherEntities(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{858, 705}, entities(feSwitch, 0, 1)...)
	n.must(t, "set field 858 value 99 switch 1")
	n.must(t, "blank field 705 switch 0")
	eventually(t, "each override applies to one switch", func() bool {
		a, b := p.latest(feSwitch, 0, 858, 705), p.latest(feSwitch, 1, 858, 705)
		return a[858].text != "99" && b[858].text == "99" && a[705].text == int64Blank && b[705].text != int64Blank
	})
	n.must(t, "unset field 858 switch 1")
	n.must(t, "unblank field 705 switch 0")
	eventually(t, "both have their own values", func() bool {
		return p.latest(feSwitch, 1, 858)[858].text != "99" && p.latest(feSwitch, 0, 705)[705].text != int64Blank
	})
}
