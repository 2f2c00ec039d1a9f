// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Statuses and sentinels of dcgm_structs.h.
const (
	stOK              = 0
	stBadParam        = -1
	stNotConfigured   = -5
	stNotSupported    = -6
	stUninitialized   = -10
	stTimeout         = -11
	stNoData          = -14
	stNotWatched      = -16
	stGPUIsLost       = -18
	stConnNotValid    = -21
	stMaxLimit        = -24
	stDuplicateKey    = -26
	stModuleNotLoaded = -33
	stProfiling       = -37

	int64Blank        = "9223372036854775792"
	int64NotSupported = "9223372036854775794"
	fp64Blank         = "140737488355328"
	strBlank          = "<<<NULL>>>"

	feGPU, feSwitch, feGPUI, feGPUCI, feLink, feCPU, feCore = 1, 3, 4, 5, 6, 7, 8
)

// gpuLink and switchLink are ids of links: dcgm_link_t of dcgm_structs.h.
func gpuLink(gpu, port int) int         { return feGPU | port<<8 | gpu<<24 }
func switchLink(nvswitch, port int) int { return feSwitch | port<<8 | nvswitch<<24 }

// libraries builds the stand-ins once per run.
var libraries = sync.OnceValues(func() (string, error) {
	return BuildShared(context.Background())
})

// probeProgram builds testdata/probe.c once per run, next to the libraries.
var probeProgram = sync.OnceValues(func() (string, error) {
	dir, err := libraries()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "probe")
	return program, compileProbe(dir, program)
})

func compileProbe(dir, program string, flags ...string) error {
	headers, err := goDCGM()
	if err != nil {
		return err
	}
	args := append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-isystem", filepath.Join(headers, "pkg", "dcgm")}, flags...)
	args = append(args, "testdata/probe.c", "-o", program, "-L"+dir, "-l:libdcgm.so.4", "-lpthread", "-ldl")
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the probe: %w\n%s", err, out)
	}
	return nil
}

func goDCGM() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-dcgm").Output()
	return strings.TrimSpace(string(out)), err
}

func newNode(t *testing.T, scenario string) *Node {
	t.Helper()
	dir, err := libraries()
	if err != nil {
		t.Fatal(err)
	}
	return NewNode(dir, t.TempDir(), scenario)
}

func (n *Node) must(t *testing.T, line string) string {
	t.Helper()
	answer, err := n.Command(t.Context(), line)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// probe is a process that uses libdcgm.
type probe struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan string
}

func startProbe(t *testing.T, env ...string) *probe {
	t.Helper()
	program, err := probeProgram()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, program, env...)
}

func startProgram(t *testing.T, program string, env ...string) *probe {
	t.Helper()
	p := &probe{t: t, cmd: exec.CommandContext(t.Context(), program), answers: make(chan string)}
	p.cmd.Env = append(os.Environ(), "__DCGM_DBG_FILE=/dev/null")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.answers)
		r := bufio.NewReaderSize(out, 1<<20)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			p.answers <- strings.TrimSpace(line)
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// embedded starts a probe with an embedded engine on the node.
func embedded(t *testing.T, n *Node) *probe {
	t.Helper()
	p := startProbe(t, n.Environ()...)
	p.ok("init")
	p.ok("start")
	return p
}

func (p *probe) kill() {
	_ = p.cmd.Process.Kill()
	for range p.answers { // the reader ends with the process
	}
	_ = p.cmd.Wait()
}

type answer struct {
	rc   int
	text string
}

func (p *probe) send(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
}

func (p *probe) receive(line string) answer {
	p.t.Helper()
	select {
	case text, ok := <-p.answers:
		if !ok {
			p.t.Fatalf("%s: the probe died", line)
		}
		a := answer{rc: 999, text: text}
		if rc, found := a.find("rc"); found {
			a.rc, _ = strconv.Atoi(rc)
		}
		return a
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s: no answer within 30 s", line)
	}
	return answer{}
}

func (p *probe) do(format string, args ...any) answer {
	p.t.Helper()
	line := fmt.Sprintf(format, args...)
	p.send(line)
	return p.receive(line)
}

func (p *probe) ok(format string, args ...any) answer {
	p.t.Helper()
	return p.expect(stOK, format, args...)
}

func (p *probe) expect(rc int, format string, args ...any) answer {
	p.t.Helper()
	a := p.do(format, args...)
	if a.rc != rc {
		p.t.Fatalf("%s: got %s, want rc=%d", fmt.Sprintf(format, args...), a.text, rc)
	}
	return a
}

// find returns the VALUE of a word KEY=VALUE.
func (a answer) find(key string) (string, bool) {
	for _, w := range strings.Fields(a.text) {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			return v, true
		}
	}
	return "", false
}

func (a answer) get(t *testing.T, key string) string {
	t.Helper()
	v, ok := a.find(key)
	if !ok {
		t.Fatalf("no %s in %s", key, a.text)
	}
	return v
}

func (a answer) number(t *testing.T, key string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(a.get(t, key), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type fieldValue struct {
	kind   string
	status int
	ts     int64
	text   string
}

func (v fieldValue) float(t *testing.T) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func parseValue(word string) (field string, v fieldValue, ok bool) {
	part := strings.SplitN(word, ":", 5)
	if len(part) != 5 {
		return "", v, false
	}
	v.kind, v.text = part[1], part[4]
	v.status, _ = strconv.Atoi(part[2])
	v.ts, _ = strconv.ParseInt(part[3], 10, 64)
	return part[0], v, true
}

// latest returns the latest samples of fields of one entity.
func (p *probe) latest(group, id int, fields ...int) map[int]fieldValue {
	p.t.Helper()
	return p.values("latest", group, id, fields...)
}

func (p *probe) values(how string, group, id int, fields ...int) map[int]fieldValue {
	p.t.Helper()
	a := p.ok("%s %d %d %s", how, group, id, list(fields))
	out := map[int]fieldValue{}
	for _, w := range strings.Fields(a.text) {
		if field, v, ok := parseValue(w); ok {
			n, _ := strconv.Atoi(field)
			out[n] = v
		}
	}
	if len(out) != len(fields) {
		p.t.Fatalf("%d values for %d fields: %s", len(out), len(fields), a.text)
	}
	return out
}

func list(fields []int) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%d ", f)
	}
	return b.String()
}

// watch watches fields of entities (group/id pairs) and returns the two groups.
func (p *probe) watch(name string, interval time.Duration, fields []int, entities ...[2]int) (group, fieldGroup string) {
	p.t.Helper()
	group = p.ok("group %s", name).get(p.t, "id")
	for _, e := range entities {
		p.ok("add %s %d %d", group, e[0], e[1])
	}
	fieldGroup = p.ok("fields %s %s", name, list(fields)).get(p.t, "id")
	p.ok("watch %s %s %d 0 1", group, fieldGroup, interval.Microseconds())
	return group, fieldGroup
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
