// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

const asDemo = "DEMO_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// needAlertmanager skips a test if Alertmanager, which make test does not build, is missing.
func needAlertmanager(t *testing.T) {
	t.Helper()
	path := filepath.Join(filepath.Dir(exportertest.Built(t, "gpu_exporter")), "tools", "alertmanager")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%v: make test-demo builds it", err)
	}
}

// runningDemo is a demo in a process of its own.
type runningDemo struct {
	*exportertest.Server
	data string // directory below which it has its files
}

func startDemo(t *testing.T, args ...string) *runningDemo {
	t.Helper()
	d := &runningDemo{Server: &exportertest.Server{Log: &exportertest.Output{}, Exited: make(chan struct{})}, data: t.TempDir()}
	cmd := exec.Command(os.Args[0], append([]string{"-root=../../.."}, args...)...)
	cmd.Env = append(os.Environ(), asDemo+"=yes", "TMPDIR="+d.data)
	cmd.Stdout, cmd.Stderr = d.Log, d.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.Process = cmd.Process
	go func() {
		_ = cmd.Wait()
		close(d.Exited)
	}()
	t.Cleanup(func() {
		d.Stop(t)
		if t.Failed() {
			t.Log(d.Log)
		}
	})
	return d
}

// address waits until the demo prints an address.
func (d *runningDemo) address(t *testing.T, name string) string {
	t.Helper()
	var address string
	exportertest.Eventually(t, "the demo prints the address of "+name, func() bool {
		if m := regexp.MustCompile(`(?m)^` + name + ` +http://(\S+)$`).FindStringSubmatch(d.Log.String()); m != nil {
			address = m[1]
		} else {
			d.MustRun(t)
		}
		return address != ""
	})
	return address
}

// processes returns the running processes of a demo, which all name its directory.
func (d *runningDemo) processes(t *testing.T) (commands []string) {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environments {
		environment, _ := os.ReadFile(path) // processes end, and a zombie has none
		if bytes.Contains(environment, []byte("TMPDIR="+d.data)) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			commands = append(commands, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return commands
}

// gone waits until neither a process nor a file of the demo is left.
func (d *runningDemo) gone(t *testing.T) {
	t.Helper()
	exportertest.Eventually(t, "no process of the demo runs", func() bool { return len(d.processes(t)) == 0 })
	left, err := filepath.Glob(filepath.Join(d.data, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left %q, %v", left, err)
	}
}

// query decodes the field data of an answer of Prometheus.
func query(t *testing.T, address, path string, data any) {
	t.Helper()
	body, err := (&exportertest.Server{Address: address}).Get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &struct{ Data any }{data}); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, body)
	}
}

// TestDemo: Prometheus scrapes the simulated node, has all rules and sends its alerts to
// Alertmanager. Ctrl-C leaves neither processes nor files.
func TestDemo(t *testing.T) {
	needAlertmanager(t)
	d := startDemo(t, "-node=127.0.0.1:0", "-prometheus=127.0.0.1:0", "-alertmanager=127.0.0.1:0")
	prometheus, alertmanager := d.address(t, "Prometheus"), d.address(t, "Alertmanager")
	exportertest.Eventually(t, "the target is up", func() bool {
		var targets struct{ ActiveTargets []struct{ Health string } }
		query(t, prometheus, "/api/v1/targets", &targets)
		return len(targets.ActiveTargets) == 1 && targets.ActiveTargets[0].Health == "up"
	})
	exportertest.Eventually(t, "all eight GPUs are up, under the name of the node", func() bool {
		var gpus struct{ Result []any }
		query(t, prometheus, `/api/v1/query?query=gpu_up{instance="demo-node",hostname="demo-node"}==1`, &gpus)
		return len(gpus.Result) == 8
	})
	for kind, file := range map[string]string{"record": "recording.yaml", "alert": "alerts.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../prometheus", file))
		if err != nil {
			t.Fatal(err)
		}
		want, loaded := len(regexp.MustCompile(`(?m)^ +- `+kind+`: `).FindAll(text, -1)), 0
		var rules struct {
			Groups []struct{ Rules []struct{ Health string } }
		}
		query(t, prometheus, "/api/v1/rules?type="+kind, &rules)
		for _, group := range rules.Groups {
			loaded += len(group.Rules)
		}
		if loaded != want || want == 0 {
			t.Errorf("%d rules of %s are loaded, want %d", loaded, file, want)
		}
	}
	exportertest.Eventually(t, "Prometheus knows Alertmanager", func() bool {
		var managers struct{ ActiveAlertmanagers []struct{ URL string } }
		query(t, prometheus, "/api/v1/alertmanagers", &managers)
		return len(managers.ActiveAlertmanagers) == 1 && strings.Contains(managers.ActiveAlertmanagers[0].URL, alertmanager)
	})
	if n := len(d.processes(t)); n < 5 { // the demo, three servers and the sampler
		t.Errorf("found %d processes: %q", n, d.processes(t))
	}
	if err := d.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-d.Exited
	d.gone(t)
}

// TestKilledDemo: the servers end with a demo that is killed.
func TestKilledDemo(t *testing.T) {
	needAlertmanager(t)
	d := startDemo(t, "-node=127.0.0.1:0", "-prometheus=127.0.0.1:0", "-alertmanager=127.0.0.1:0")
	d.address(t, "Prometheus")
	if err := d.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	exportertest.Eventually(t, "no process of the demo runs", func() bool { return len(d.processes(t)) == 0 })
}

// TestDemoPortInUse: the demo names the server that cannot start and the reason, and ends
// the others.
func TestDemoPortInUse(t *testing.T) {
	needAlertmanager(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := startDemo(t, "-node=127.0.0.1:0", "-prometheus="+taken.Addr().String(), "-alertmanager=127.0.0.1:0")
	<-d.Exited
	for _, want := range []string{"demo: prometheus ended (exit status 1)", "address already in use"} {
		if !strings.Contains(d.Log.String(), want) {
			t.Errorf("the demo printed %q, want %q in it", d.Log, want)
		}
	}
	d.gone(t)
}
