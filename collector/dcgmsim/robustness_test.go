// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sampling a whole DGX each second is cheap: 8 GPUs × 60 fields, 4 switches, 216 links × 10 fields.
func TestFabricIsCheap(t *testing.T) {
	p := embedded(t, newNode(t, "dgx-h100"))
	gpuFields := []int{
		100, 101, 102, 110, 111, 112, 113, 114, 140, 150, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164,
		190, 200, 201, 202, 203, 204, 206, 207, 230, 235, 236, 237, 238, 240, 241, 250, 251, 252, 253, 254,
		310, 311, 312, 313, 393, 394, 395, 396, 449, 1001, 1002, 1003, 1004, 1005, 1009, 1010, 50, 54, 57, 1,
	}
	linkFields := []int{1525, 1526, 1527, 1528, 1529, 1530, 1531, 1532, 1533, 1508}
	portFields := []int{780, 781, 784, 785, 786, 787, 788, 870, 805, 789}
	links := p.linkStates()[3]
	gpuLinks, ports := links[:144], links[144:]
	p.watch("gpus", time.Second, gpuFields, entities(feGPU, 0, 1, 2, 3, 4, 5, 6, 7)...)
	p.watch("links", time.Second, linkFields, entities(feLink, gpuLinks...)...)
	p.watch("ports", time.Second, portFields, entities(feLink, ports...)...)
	p.watch("switches", time.Second, []int{701, 705, 706, 707, 856, 857, 858, 861, 862}, entities(feSwitch, 0, 1, 2, 3)...)
	join := func(ids []int) string {
		var b strings.Builder
		for i, id := range ids {
			fmt.Fprintf(&b, "%s%d", map[bool]string{true: ",", false: ""}[i > 0], id)
		}
		return b.String()
	}
	start := time.Now()
	before := p.ok("cpu").number(t, "ms")
	ts := p.latest(feGPU, 7, 155)[155].ts
	eventually(t, "five more samples", func() bool { return p.latest(feGPU, 7, 155)[155].ts > ts+5_000_000 })
	took := time.Since(start)
	used := p.ok("cpu").number(t, "ms") - before
	a := p.ok("bulkof 200 %d %s %s", feLink, join(gpuLinks), list(linkFields))
	b := p.ok("bulkof 200 %d %s %s", feLink, join(ports), list(portFields))
	if a.number(t, "good") != 1440 || b.number(t, "good") != 720 {
		t.Errorf("%s; %s", a.text, b.text)
	}
	t.Logf("%.1f ms of CPU in %v; reading 144 links × 10 fields %s µs, 72 ports × 10 fields %s µs", used, took, a.get(t, "median_us"), b.get(t, "median_us"))
	if perSecond := used / took.Seconds(); perSecond > 100 { // about 5 on an idle machine
		t.Errorf("%.1f ms of CPU a second", perSecond)
	}
}

// The bulk read of each sampler interval is cheap in the stand-in.
func TestBulkReadAndMemory(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	fields := []int{
		100, 101, 102, 110, 111, 112, 113, 114, 140, 150, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164,
		190, 200, 201, 202, 203, 204, 206, 207, 230, 235, 236, 237, 238, 240, 241, 250, 251, 252, 253, 254,
		310, 311, 312, 313, 393, 394, 395, 396, 449, 1001, 1002, 1003, 1004, 1005, 1009, 1010, 50, 54, 57, 1,
	}
	if len(fields) != 60 {
		t.Fatalf("%d fields", len(fields))
	}
	g := p.ok("group g 0").get(t, "id")
	f := p.ok("fields f %s", list(fields)).get(t, "id")
	p.ok("watch %s %s 100000 0 1", g, f)
	before := p.ok("rss").number(t, "kib")
	a := p.ok("bulk 2000 8 %s", list(fields))
	if good := a.number(t, "good"); good < 8*59 {
		t.Errorf("%v good values of %d", good, 8*60)
	}
	median := a.number(t, "median_us")
	if median > 1000 { // about ten on an idle machine
		t.Errorf("%v µs for 8 GPUs × 60 fields", median)
	}
	time.Sleep(3 * time.Second)
	after := p.ok("rss").number(t, "kib")
	t.Logf("8 GPUs × 60 fields in %v µs (median); resident %v KiB, after 3 s at 100 ms %v KiB", median, before, after)
	if after > 12*1024 {
		t.Errorf("%v KiB resident", after)
	}
}

// Many threads call the library at once, under the sanitizers.
func TestSanitized(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the libraries twice more")
	}
	source, err := sourceDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, sanitizer := range map[string]string{"address": "address,undefined", "thread": "thread"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			flags := []string{"-fsanitize=" + sanitizer, "-fno-omit-frame-pointer", "-g"}
			build := exec.CommandContext(t.Context(), "make", "-s", "-f", filepath.Join(source, "Makefile"), "OUT="+dir, "SANITIZE="+strings.Join(flags, " "), "CFLAGS=-O1 -g -Wno-error")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			program := filepath.Join(dir, "probe")
			if err := compileProbe(dir, program, flags...); err != nil {
				t.Fatal(err)
			}
			log := filepath.Join(dir, "report")
			option := fmt.Sprintf("log_path=%s:exitcode=66:halt_on_error=1", log)
			n := NewNode(dir, t.TempDir(), scenarioFile(t, "base h100x8-mig\nswitches 4 trunks 3\ncpus 2 cores 72\n"))
			p := startProgram(t, program, append(n.Environ(), "ASAN_OPTIONS="+option, "TSAN_OPTIONS="+option, "UBSAN_OPTIONS="+option+":print_stacktrace=1")...)
			p.ok("init")
			p.ok("start")
			g, f := p.watch("w", 100*time.Millisecond, []int{50, 54, 155, 230, 449, 1001}, [2]int{feGPU, 7}, [2]int{feGPUI, 0}, [2]int{feGPUCI, 0}, [2]int{feGPU, 6})
			p.watch("links", 100*time.Millisecond, []int{780, 789, 870, 1508, 1525, 1530, 1532, 1201}, entities(feLink, gpuLink(7, 0), gpuLink(7, 17), gpuLink(6, 40), switchLink(0, 0), switchLink(3, 42), switchLink(3, 200))...)
			p.watch("rest", 100*time.Millisecond, []int{54, 856, 858, 861, 1100, 1110, 1120, 1133, 1141}, [2]int{feSwitch, 0}, [2]int{feSwitch, 3}, [2]int{feCPU, 1}, [2]int{feCore, 143})
			p.watch("violations", 100*time.Millisecond, []int{112, 241, 246, 318, 449}, [2]int{feGPU, 6}, [2]int{feGPU, 7})
			p.ok("policy %s 0x41 1", g)
			p.ok("healthset %s -1", g)
			p.send("threads 6")
			for _, command := range []string{"xid 79 gpu 6", "xid 31 gpu 0 ci 0", "mig gpu 0 3g.40gb*2", "lose gpu 1", "return gpu 1", "mig gpu 0 off", "set field 311 value 2 gpu 6", "slow dcgmGroupCreate 1",
				"link gpu 7 port 17 down", "link switch 3 port 42 down", "switch 0 lost", "sxid 20034 switch 0 fatal", "reason gpu 6 hw_thermal on", "heat gpu 7 80",
				"ecc gpu 6 sbe 3 l2", "profiling gpu 7 frozen", "xid 13 gpu 6 count 100", "health switch 0 nvswitch-fatal fail", "truth link switch 3 port 1", "clear"} {
				if _, err := Command(t.Context(), n.Control, command); err != nil {
					t.Error(err)
				}
			}
			p.receive("threads 6")
			p.ok("since %s %s 0", g, f)
			p.ok("all %s %s", g, f)
			for _, command := range []string{"hierarchy", "health " + g, "links", "links 4", "cpus", "cpus 1", "p2p", "topology 7", "entities 8 0"} {
				p.ok("%s", command)
			}
			p.expect(stNotSupported, "pause")
			eventually(t, "a violation", func() bool { return strings.Contains(p.ok("violations").text, "condition=") })
			p.ok("stop")
			p.ok("shutdown")
			_ = p.in.Close()
			for range p.answers {
			}
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
			reports, _ := filepath.Glob(log + "*")
			for _, r := range reports {
				text, _ := os.ReadFile(r)
				t.Errorf("%s", text)
			}
		})
	}
}

// No command line may crash the program that reads it.
func FuzzCommand(f *testing.F) {
	for _, line := range []string{
		"xid 79 gpu 0", "mig gpu 0 3g.40gb/1c,2c+1g.10gb*2", "set field 311 value 1e300 gpu all", "load gpu all util 50 mem 20",
		"link gpu 0 port 3 down", "link switch 1 port 3 error crc 9", "switch 1 lost", "sxid 3 switch 0 fatal", "reason gpu 0 hw_thermal on",
		"heat cpu 0 5", "ecc gpu 0 dbe 1 l2", "remap gpu 0 pending 1", "retire gpu 0 sbe 2", "recovery gpu 0 reset", "fabric gpu 0 failure -3",
		"health gpu 0 nvlink fail 13", "profiling gpu all locked -37", "truth link gpu 0 port 1", "xid 13 gpu 0 count 3", "xid pace 5",
		"process gpu 0 pid 1 ci 0 name x", "process gpu 0 pid 1 memory unknown graphics also mps yes", "fail * -1", "at 1s xid 79 gpu 0", "print stdout ", "mig gpu 0 1g.10gb*", "truth gpu",
	} {
		f.Add(line)
	}
	dir, err := libraries()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsRune(line, 0) || strings.Contains(line, "crash") || strings.Contains(line, "hang") {
			return // arguments have no NUL; the others crash or hang on purpose
		}
		n := NewNode(dir, t.TempDir(), "h100x8-mig")
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "dcgmsimd"), "--command", line)
		cmd.Env = append(os.Environ(), n.Environ()...)
		out, err := cmd.Output()
		if cmd.ProcessState.ExitCode() < 0 || cmd.ProcessState.ExitCode() > 1 {
			t.Fatalf("%q: %v", line, err)
		}
		if text := string(out); !strings.HasPrefix(text, "ok") && !strings.HasPrefix(text, "error: ") {
			t.Fatalf("%q answered %q", line, text)
		}
	})
}
