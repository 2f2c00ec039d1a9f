// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// linkStates returns the ids of links by state: 0 not supported, 1 disabled, 2
// down, 3 up.
func (p *probe) linkStates() map[byte][]int {
	p.t.Helper()
	states := map[byte][]int{}
	for _, w := range strings.Fields(p.ok("links").text) {
		name, digits, _ := strings.Cut(w, "=")
		id := gpuLink
		number, isGPU := strings.CutPrefix(name, "gpu")
		if !isGPU {
			number, id = strings.TrimPrefix(name, "switch"), switchLink
		}
		parent, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		for port, state := range digits {
			states[byte(state-'0')] = append(states[byte(state-'0')], id(parent, port))
		}
	}
	return states
}

func entities(kind int, ids ...int) (pairs [][2]int) {
	for _, id := range ids {
		pairs = append(pairs, [2]int{kind, id})
	}
	return pairs
}

func TestDGXH100(t *testing.T) {
	p := embedded(t, newNode(t, "dgx-h100"))
	up := p.linkStates()[3]
	if len(up) != 216 {
		t.Fatalf("%d links up, want 144 of GPUs and 72 of switches", len(up))
	}
	ports := map[int]int{}
	for _, id := range up {
		if id&0xff == feSwitch {
			ports[id>>24]++
		}
	}
	if ports[0] != 20 || ports[1] != 16 || ports[2] != 16 || ports[3] != 20 {
		t.Errorf("ports of the switches: %v", ports)
	}
	text := p.ok("links").text
	for _, want := range []string{" gpu7=" + strings.Repeat("3", 18) + strings.Repeat("0", 18) + " ", " switch1=" + strings.Repeat("1", 32) + strings.Repeat("3", 16) + strings.Repeat("1", 16) + "00 "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if old := p.ok("links 4").text; !strings.Contains(old, " gpu7="+strings.Repeat("3", 18)+" ") || !strings.Contains(old, " switch3=") {
		t.Errorf("version 4: %s", old)
	}
	if a := p.ok("entities %d 0", feSwitch); !strings.HasPrefix(a.text, "rc=0 0 1 2 3 ") {
		t.Error(a.text)
	}
	p.expect(stNotSupported, "entities %d 0", feLink) // NSCQ does not list links
	p.expect(stNotSupported, "entities 2 0")          // DCGM does not list vGPUs
	if a := p.ok("entities 9 0"); strings.Fields(a.text)[1] == "0" {
		t.Errorf("a ConnectX: %s", a.text)
	}
	p.expect(stModuleNotLoaded, "entities %d 0", feCPU)
	p.expect(stModuleNotLoaded, "cpus")

	g := p.ok("group g").get(t, "id")
	p.ok("add %s %d %d", g, feLink, gpuLink(3, 17))
	p.ok("add %s %d %d", g, feLink, switchLink(2, 40))
	p.ok("add %s %d %d", g, feSwitch, 3)
	p.expect(stBadParam, "add %s %d %d", g, feSwitch, 4)
	p.expect(stBadParam, "add %s %d %d", g, feLink, gpuLink(8, 0))
	p.expect(stBadParam, "add %s %d %d", g, feLink, 2)                      // the parent is neither a GPU nor a switch
	for kind, want := range map[int]string{3: "count=4 ", 4: "count=12 "} { // all switches; all entities
		id := p.ok("group all%d %d", kind, map[int]int{3: 2, 4: 5}[kind]).get(t, "id")
		if a := p.ok("groupinfo %s", id); !strings.Contains(a.text, want) {
			t.Errorf("default group %d: %s", kind, a.text)
		}
	}
}

// The values of links, GPUs and switches agree with each other and with the truth.
func TestLinkTraffic(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base h100x8\nswitches 4 trunks 2\nload gpu 1 util 80\n"))
	p := embedded(t, n)
	if up := p.linkStates()[3]; len(up) != 2*144+8 {
		t.Fatalf("%d links up", len(up))
	}
	var ofGPU []int
	for port := range 18 {
		ofGPU = append(ofGPU, gpuLink(1, port))
	}
	const txRate, rxRate, both, txBytes, state = 1530, 1531, 1529, 1532, 1508
	p.watch("links", 100*time.Millisecond, []int{txRate, rxRate, both, txBytes, state, 1525}, entities(feLink, ofGPU...)...)
	p.watch("gpu", 100*time.Millisecond, []int{449, 897, 1011, 440, 442, 1040, 1042}, [2]int{feGPU, 1})
	ready := func(v fieldValue) bool { return v.status == stOK && v.text != "0" && v.text != int64Blank }
	eventually(t, "rates", func() bool {
		return ready(p.latest(feLink, ofGPU[17], txRate)[txRate]) && ready(p.latest(feLink, ofGPU[17], txBytes)[txBytes]) && ready(p.latest(feGPU, 1, 449)[449])
	})
	sum, before := 0.0, 0.0
	for _, id := range ofGPU {
		v := p.latest(feLink, id, txRate, rxRate, both, txBytes, state, 1525)
		if v[state].text != "1" || v[1525].text != "0" {
			t.Errorf("link %d: %v", id, v)
		}
		tx := v[txBytes].float(t)
		if tx <= before {
			t.Errorf("link %d has traffic %v, the previous one %v: want different traffic", id, tx, before)
		}
		before = tx
		// in thousands of KiB per second, as DCGM computes it
		if got := v[txRate].float(t) * 1024 * 1000; math.Abs(got-tx) > 0.01*tx {
			t.Errorf("link %d: %v bytes/s by one field, %v by the other", id, got, tx)
		}
		sum += tx
	}
	v := p.latest(feGPU, 1, 449, 897, 1011, 440, 442, 1040, 1042)
	if got := v[1011].float(t); math.Abs(got-sum) > 18 {
		t.Errorf("GPU: %v bytes/s, its links together %v", got, sum)
	}
	if got := (v[449].float(t) - v[897].float(t)) * 1024 * 1000; math.Abs(got-sum) > 0.01*sum {
		t.Errorf("GPU, all links: %v bytes/s sent, its links together %v", got, sum)
	}
	if v[440].float(t) >= v[442].float(t) || v[1040].float(t) >= v[1042].float(t) {
		t.Errorf("links 0 and 2 by the GPU's fields: %v", v)
	}

	// The port at the other end reports the same link, with sent and received exchanged.
	p.watch("ports", 100*time.Millisecond, []int{780, 781, 865, 870, 871, 873, 876}, entities(feLink, switchLink(0, 5+2), switchLink(3, 10+4), switchLink(0, 40), switchLink(0, 63))...)
	for port, link := range map[int]int{switchLink(0, 5+2): 2, switchLink(3, 10+4): -1} {
		v := p.latest(feLink, port, 865, 870, 871, 873, 876)
		if v[870].text != "2" || v[871].text != "1" {
			t.Errorf("port %#x: %v", port, v)
		}
		if link >= 0 && v[876].text != strconv.Itoa(link) {
			t.Errorf("port %#x leads to link %s, want %d", port, v[876].text, link)
		}
	}
	if v := p.latest(feLink, switchLink(0, 40), 870, 871, 873); v[870].text != "2" || v[871].text != "2" || v[873].text != int64Blank {
		t.Errorf("a trunk: %v", v)
	}
	if v := p.latest(feLink, switchLink(0, 63), 870, 780); v[870].text != "0" || v[780].text != "0" {
		t.Errorf("a port that is off: %v", v)
	}
	gpu, err := n.GPULink(t.Context(), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	port, err := n.SwitchLink(t.Context(), 0, 5+2)
	if err != nil {
		t.Fatal(err)
	}
	seconds := port.At.Sub(gpu.At).Seconds()
	if more := port.RxBytes - gpu.TxBytes; more < 0 || more > 25e9*seconds+1 {
		t.Errorf("sent %v, received at the other end %v, %v s later", gpu.TxBytes, port.RxBytes, seconds)
	}
	// The switch's own counters are the sum of its ports, in KiB.
	p.watch("switch", 100*time.Millisecond, []int{861, 862, 858, 54, 155}, [2]int{feSwitch, 0})
	total := 0.0
	for i := range 42 {
		x, err := n.SwitchLink(t.Context(), 0, i)
		if err != nil {
			t.Fatal(err)
		}
		total += x.TxBytes
	}
	s := p.latest(feSwitch, 0, 861, 858, 54, 155)
	if got := s[861].float(t) * 1024; math.Abs(got-total) > 0.02*total {
		t.Errorf("switch sent %v, its ports %v", got, total)
	}
	if s[155].status != stNoData || s[858].float(t) < 30 || !strings.HasPrefix(s[54].text, "SWX-") {
		t.Errorf("%v", s)
	}
}

func TestLinksGoDownAndUp(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base h100x8\nswitches 4\nload gpu all util 50\n"))
	p := embedded(t, n)
	down := func() []int { return p.linkStates()[2] }
	p.watch("w", 100*time.Millisecond, []int{1508, 1530, 1527, 870}, entities(feLink, gpuLink(2, 7), switchLink(1, 2*4+2))...)
	p.watch("gpu", 100*time.Millisecond, []int{64, 174, 175, 429, 1011}, entities(feGPU, 2, 3)...)

	// A link has two ends: link 7 of GPU 2 is the third of its four on switch 1.
	n.must(t, "link gpu 2 port 7 down")
	if got := down(); !slices.Equal(got, []int{gpuLink(2, 7), switchLink(1, 2*4+2)}) {
		t.Fatalf("down: %v", got)
	}
	eventually(t, "the fields report the link down", func() bool {
		return p.latest(feLink, gpuLink(2, 7), 1508)[1508].text == "0" && p.latest(feLink, switchLink(1, 2*4+2), 870)[870].text == "3" &&
			p.latest(feLink, gpuLink(2, 7), 1530)[1530].text == "0" && p.latest(feGPU, 2, 175)[175].text == "3"
	})
	first, err := n.GPULink(t.Context(), 2, 7)
	if err != nil {
		t.Fatal(err)
	}
	if a := p.ok("topology 2").text; strings.Count(a, ":0x3ff7f") != 7 {
		t.Errorf("links to other GPUs: %s", a)
	}
	again, err := n.GPULink(t.Context(), 2, 7)
	if err != nil {
		t.Fatal(err)
	}
	if first.Up || first.TxBytes != again.TxBytes {
		t.Errorf("a link that is down has traffic: %+v, %+v", first, again)
	}
	n.must(t, "link gpu 2 port 7 error replay 5")
	n.must(t, "link gpu 2 port 9 error replay 2")
	eventually(t, "errors of the link, and the sum of the GPU's links", func() bool {
		return p.latest(feLink, gpuLink(2, 7), 1527)[1527].text == "5" && p.latest(feGPU, 2, 429)[429].text == "7"
	})
	n.must(t, "link switch 1 port 10 up")
	if got := down(); len(got) != 0 {
		t.Errorf("down: %v", got)
	}

	// A lost switch takes its links down, and remains listed.
	n.must(t, "switch 3 lost")
	if got := down(); len(got) != 2*8*5 {
		t.Errorf("%d ends of links down, want 80", len(got))
	}
	if a := p.ok("entities %d 1", feSwitch); !strings.HasPrefix(a.text, "rc=0 0 1 2 3 ") {
		t.Error(a.text)
	}
	p.watch("lost", 100*time.Millisecond, []int{858, 861}, entities(feSwitch, 2, 3)...)
	if v, other := p.latest(feSwitch, 3, 858, 861), p.latest(feSwitch, 2, 858); v[858].text != int64Blank || v[861].status != stOK || other[858].text == int64Blank {
		t.Errorf("lost switch %v, other %v", v, other)
	}
	n.must(t, "switch 3 back")
	if got := down(); len(got) != 0 {
		t.Errorf("down: %v", got)
	}
	for line, want := range map[string]string{
		"link gpu 2 port 18 down":            "has no link at port 18",
		"link switch 0 port 63 down":         "has no link at port 63",
		"link switch 4 port 0 down":          "no NVSwitch 4",
		"link gpu 0 port 1 sideways":         "link gpu I|switch S port P down|up",
		"link gpu 0 port 1 error parity 3":   "link gpu I|switch S port P down|up",
		"switch 0 sideways":                  "switch S lost|back",
		"sxid 20034 switch 0 port 1 at-once": "sxid N switch S",
	} {
		if _, err := n.Command(t.Context(), line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// A lost GPU takes its links down: their errors are blank. DCGM does not sample
// their throughputs, so the latest sample remains.
func TestLinksOfALostGPU(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base h100x8\nswitches 4\nload gpu all util 50\n"))
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{1525, 1530, 1508, 155}, entities(feLink, gpuLink(4, 0), gpuLink(5, 0))...)
	eventually(t, "a rate", func() bool { return p.latest(feLink, gpuLink(4, 0), 1530)[1530].text != "0" })
	n.must(t, "lose gpu 4")
	eventually(t, "blank errors and state", func() bool {
		v := p.latest(feLink, gpuLink(4, 0), 1525, 1508)
		return v[1525].text == int64Blank && v[1508].text == int64Blank && v[1525].status == stOK
	})
	stale := p.latest(feLink, gpuLink(4, 0), 1530)[1530]
	other := p.latest(feLink, gpuLink(5, 0), 1530)[1530].ts
	eventually(t, "a later sample of another GPU's link", func() bool { return p.latest(feLink, gpuLink(5, 0), 1530)[1530].ts > other })
	if v := p.latest(feLink, gpuLink(4, 0), 1530)[1530]; v != stale || v.text == int64Blank {
		t.Errorf("throughput of a lost GPU's link: %+v, was %+v", v, stale)
	}
	if v := p.latest(feLink, gpuLink(4, 0), 155)[155]; v.status != stNoData {
		t.Errorf("a GPU's field of a link: %+v", v)
	}
	text := p.ok("links").text
	if !strings.Contains(text, " gpu4="+strings.Repeat("0", 36)) || strings.Count(text, "2") < 18 {
		t.Errorf("want the links of a lost GPU not supported, and down at the other end: %s", text)
	}
	if a := p.ok("p2p").text; !strings.Contains(a, " gpu3=00055000 ") || !strings.Contains(a, " gpu4=55555555 ") {
		t.Errorf("P2P: %s", a)
	}
	n.must(t, "return gpu 4")
	eventually(t, "the links are back", func() bool {
		return len(p.linkStates()[2]) == 0 && p.latest(feLink, gpuLink(4, 0), 1508)[1508].text == "1" && p.latest(feLink, gpuLink(4, 0), 1530)[1530].ts > stale.ts
	})
	n.must(t, "detach gpu 4")
	if text := p.ok("links").text; strings.Contains(text, " gpu4=") {
		t.Errorf("a detached GPU: %s", text)
	}
	n.must(t, "attach gpu 4")
	eventually(t, "all GPUs are attached", func() bool { return strings.Contains(p.ok("links").text, " gpu0=") })

	// MIG and NVLink exclude each other. If a GPU is in MIG mode, links that are down are "disabled".
	n.must(t, "mig gpu 0 3g.40gb*2")
	n.must(t, "link gpu 1 port 3 down")
	if text := p.ok("links").text; !strings.Contains(text, " gpu0="+strings.Repeat("0", 36)) || !strings.Contains(text, " gpu1=3331") {
		t.Errorf("with MIG: %s", text)
	}
}

func TestSXids(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{856, 857, 864}, [2]int{feSwitch, 1})
	if v := p.latest(feSwitch, 1, 856, 857, 864); v[856].text != "0" || v[857].text != "0" || v[864].text != "0" {
		t.Errorf("%v", v)
	}
	g := p.ok("group h 2").get(t, "id")
	p.ok("healthset %s -1", g)
	if a := p.ok("health %s", g); a.get(t, "overall") != "0" {
		t.Error(a.text)
	}
	n.must(t, "sxid 20034 switch 1 port 33 fatal")
	eventually(t, "the code", func() bool { return p.latest(feSwitch, 1, 856)[856].text == "20034" })
	v := p.latest(feSwitch, 1, 856)[856]
	eventually(t, "the same again a microsecond later", func() bool {
		w := p.latest(feSwitch, 1, 856)[856]
		return w.ts > v.ts && w.ts < v.ts+1000 && w.text == v.text
	})
	n.must(t, "link switch 2 port 33 down")
	a := p.ok("health %s", g)
	for _, want := range []string{"overall=20", "3/1:system=0x800:health=20:code=15", "3/2:system=0x800:health=20:code=14"} {
		if !strings.Contains(a.text, want) {
			t.Errorf("no %s in %s", want, a.text)
		}
	}
}

func TestGrace(t *testing.T) {
	n := newNode(t, "gb200")
	p := embedded(t, n)
	if a := p.ok("cpus").text; !strings.Contains(a, "cpu0=0+72:0x") || !strings.Contains(a, "cpu1=72+72:0x") {
		t.Error(a)
	}
	if a := p.ok("cpus 1").text; !strings.Contains(a, "cpu1=72+72:") {
		t.Error(a)
	}
	if a := p.ok("entities %d 0", feCPU); !strings.HasPrefix(a.text, "rc=0 0 1 ") {
		t.Error(a.text)
	}
	if got := len(strings.Fields(p.ok("entities %d 0", feCore).text)) - 2; got != 144 {
		t.Errorf("%d cores", got)
	}
	if a := p.ok("entities %d 0", feSwitch); !strings.HasPrefix(a.text, "rc=0 took") {
		t.Errorf("switches of a compute tray: %s", a.text)
	}
	if a := p.ok("topology 2").text; !strings.Contains(a, "cpus=0,0xffffffffffffff00,0xffff ") {
		t.Errorf("CPU affinity: %s", a)
	}
	var cores []int
	for c := range 144 {
		cores = append(cores, c)
	}
	util := []int{1100, 1101, 1102, 1103, 1104}
	p.watch("cores", 100*time.Millisecond, append([]int{1120, 1110}, util...), entities(feCore, cores...)...)
	p.watch("cpus", 100*time.Millisecond, append([]int{1110, 1111, 1112, 1120, 1130, 1131, 1132, 1133, 1140, 1141, 155}, util...), entities(feCPU, 0, 1)...)
	eventually(t, "a second sample of the cores", func() bool { return p.latest(feCore, 143, 1100)[1100].status == stOK })
	for _, c := range []int{0, 71, 72, 143} {
		v := p.latest(feCore, c, append([]int{1120, 1110}, util...)...)
		parts := v[1101].float(t) + v[1102].float(t) + v[1103].float(t) + v[1104].float(t)
		if all := v[1100].float(t); all <= 0 || all > 1 || math.Abs(all-parts) > 1e-9 {
			t.Errorf("core %d: %v of the time, its parts %v", c, all, parts)
		}
		if v[1120].float(t) < 1e6 {
			t.Errorf("core %d: %v kHz", c, v[1120])
		}
	}
	v := p.latest(feCPU, 1, 1100, 1110, 1111, 1112, 1120, 1130, 1131, 1133, 1140, 1141, 155)
	if v[1100].float(t) > 1 || v[1110].float(t) >= v[1111].float(t) || v[1111].float(t) >= v[1112].float(t) || v[1130].float(t) >= v[1131].float(t) || v[1133].float(t) <= v[1130].float(t) {
		t.Errorf("%v", v)
	}
	if v[1120].text != int64Blank || v[1140].text != "Nvidia" || v[1141].text != "Grace" || v[155].status != stNoData {
		t.Errorf("%v", v)
	}
	p.watch("gpus", 100*time.Millisecond, []int{285, 287, 409, 1201, 1220, 172, 1077, 577, 1100}, entities(feGPU, 0, 3)...)
	p.watch("links", 100*time.Millisecond, []int{1201, 585, 1508, 1525}, entities(feLink, gpuLink(3, 17))...)
	g := p.latest(feGPU, 3, 285, 287, 409, 1201, 172, 577, 1100)
	if g[285].text != "5" || g[409].text != int64NotSupported || g[1201].float(t) <= 0 || g[172].text == "00000000-0000-0000-0000-000000000000" || g[577].text != "4" || g[1100].status != stNoData {
		t.Errorf("%v", g)
	}
	n.must(t, "link gpu 3 port 17 down")
	n.must(t, "heat cpu 1 70")
	eventually(t, "the link's own registers", func() bool {
		v := p.latest(feLink, gpuLink(3, 17), 1201, 585, 1508, 1525)
		return v[585].text == "1" && v[1508].text == "0" && v[1525].text == int64NotSupported && v[1201].float(t) > 0
	})
	h := p.ok("group h").get(t, "id")
	p.ok("add %s %d 1", h, feCPU)
	p.ok("healthset %s 0x180", h)
	if a := p.ok("health %s", h); !strings.Contains(a.text, "7/1:system=0x80:health=20:code=36") {
		t.Error(a.text)
	}
}
