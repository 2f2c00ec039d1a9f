// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is for machines that are ten times oversubscribed.
const patience = 3 * time.Minute

// machine is a container with systemd as its first process.
type machine struct {
	pid string // of systemd
	log *strings.Builder
}

// boot starts a machine that sees the directories in binds, and forgets its changes.
func boot(t *testing.T, binds ...string) *machine {
	t.Helper()
	args := []string{"--register=no", "--keep-unit", "--private-network", "--volatile=overlay", "--console=pipe",
		"--capability=CAP_SYSLOG", "-q", "-b", "-D", *rootDir}
	for _, bind := range binds {
		args = append(args, "--bind="+bind)
	}
	m := &machine{log: &strings.Builder{}}
	cmd := exec.Command("systemd-nspawn", args...)
	cmd.Stdout, cmd.Stderr = m.log, m.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-exited
		}
	})
	eventually(t, "the machine is up", func() (string, bool) {
		select {
		case <-exited:
			t.Fatalf("systemd-nspawn ended:\n%s", m.log)
		default:
		}
		if m.pid = initOf(cmd.Process.Pid); m.pid == "" {
			return "no process", false
		}
		out, _ := m.try("systemctl is-system-running")
		return out, strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
	return m
}

// initOf returns the process that is PID 1 of a namespace below a process.
func initOf(pid int) string {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for child := range strings.FieldsSeq(string(children)) {
		if name, _ := os.ReadFile("/proc/" + child + "/comm"); string(name) == "systemd\n" {
			return child
		}
	}
	return ""
}

// eventually waits for a condition, which returns a description of its state.
func eventually(t *testing.T, what string, holds func() (string, bool)) {
	t.Helper()
	state, ok := "", false
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if state, ok = holds(); ok {
			return
		}
	}
	t.Fatalf("not within %v: %s; last: %s", patience, what, state)
}

// try runs a shell command in the machine.
func (m *machine) try(command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", "-t", m.pid, "-m", "-p", "-u", "-i", "-n", "--",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "SYSTEMD_PAGER=", "sh", "-c", command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (m *machine) run(t *testing.T, command string) string {
	t.Helper()
	out, err := m.try(command)
	if err != nil {
		journal, _ := m.try("journalctl -u gpu_exporter -n 50 --no-pager")
		t.Fatalf("%s: %v\n%s\n%s", command, err, out, journal)
	}
	return out
}

// fails runs a command that must fail, and returns what it prints.
func (m *machine) fails(t *testing.T, command string) string {
	t.Helper()
	out, err := m.try(command)
	if err == nil {
		t.Errorf("%s succeeds:\n%s", command, out)
	}
	return out
}

// eventually waits until the output of a command contains a text.
func (m *machine) eventually(t *testing.T, command, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			journal, _ := m.try("journalctl -u gpu_exporter -n 50 --no-pager")
			t.Log(journal)
		}
	}()
	eventually(t, command+" prints "+text, func() (string, bool) {
		out, _ := m.try(command)
		return out, strings.Contains(out, text)
	})
}

func (m *machine) mainPID(t *testing.T) string {
	t.Helper()
	return m.run(t, "systemctl show -P MainPID gpu_exporter")
}

// page prints /metrics.
const page = `exec 3<>/dev/tcp/127.0.0.1/9400; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`

func (m *machine) metric(t *testing.T, line string) {
	t.Helper()
	m.eventually(t, "bash -c "+"'"+strings.ReplaceAll(page, "'", `'\''`)+"'", line)
}

// write writes a file and makes systemd read it.
func (m *machine) write(t *testing.T, path, text string) {
	t.Helper()
	m.run(t, fmt.Sprintf("mkdir -p %s && cat >%s <<'END'\n%s\nEND\nsystemctl daemon-reload", filepath.Dir(path), path, text))
}

const (
	dropIns    = "/etc/systemd/system/gpu_exporter.service.d/"
	configPath = "/etc/gpu_exporter/gpu_exporter.yaml"
	ready      = "systemctl show -P StatusText gpu_exporter"
	active     = "systemctl is-active gpu_exporter"
)

// The life of the deb: installation with one command, upgrade, removal and purge.
func testDeb(t *testing.T, dir, next string) {
	exporter, sim := onePackage(t, dir, "gpu-exporter_*.deb"), onePackage(t, dir, "gpu-exporter-sim_*.deb")
	m := boot(t, dir+":/packages", next+":/next", "/dev/kmsg")
	m.write(t, dropIns+"simulate.conf", "[Service]\nEnvironment=GPU_EXPORTER_SIMULATE=h100x8")
	m.run(t, "dpkg -i /packages/"+filepath.Base(sim))
	m.run(t, "apt-get install -y --no-install-recommends /packages/"+filepath.Base(exporter))
	lifeOf(t, m)

	t.Log("upgrade with an edited configuration")
	m.run(t, "echo 'families: lean' >"+configPath)
	before := m.mainPID(t)
	m.run(t, "apt-get install -y --no-install-recommends /next/gpu-exporter_99*.deb")
	if got := m.run(t, "cat "+configPath); got != "families: lean" {
		t.Errorf("the upgrade changed the configuration to\n%s", got)
	}
	if after := m.mainPID(t); after == before {
		t.Error("the upgrade does not restart the exporter")
	}
	m.eventually(t, ready, "GPUs answer")
	m.run(t, "systemctl disable --now gpu_exporter")
	m.run(t, "dpkg -i /packages/"+filepath.Base(exporter))
	m.fails(t, active)
	m.fails(t, "systemctl is-enabled gpu_exporter")
	m.run(t, "systemctl enable --now gpu_exporter")

	t.Log("removal and purge")
	m.run(t, "apt-get remove -y gpu-exporter")
	removed(t, m)
	m.run(t, "test -e "+configPath+" && test -e /etc/default/gpu_exporter")
	m.run(t, "apt-get purge -y gpu-exporter")
	m.fails(t, "ls -d /etc/gpu_exporter /etc/default/gpu_exporter /usr/share/gpu_exporter | grep .")
}

func removed(t *testing.T, m *machine) {
	t.Helper()
	m.fails(t, active)
	m.fails(t, "pgrep gpu_exporter || ls /usr/bin/gpu_exporter /usr/lib/systemd/system/gpu_exporter.service /etc/systemd/system/*/gpu_exporter.service")
	if state := m.run(t, "systemctl show -P LoadState gpu_exporter"); state != "not-found" {
		t.Errorf("the unit is %s", state)
	}
}

// The life of the rpm, with the program rpm of Debian. It does not know which packages of
// Debian satisfy the dependencies.
func testRPM(t *testing.T, dir, next string) {
	exporter, sim := onePackage(t, dir, "gpu-exporter-[0-9]*.rpm"), onePackage(t, dir, "gpu-exporter-sim-*.rpm")
	m := boot(t, dir+":/packages", next+":/next")
	m.write(t, dropIns+"simulate.conf", "[Service]\nEnvironment=GPU_EXPORTER_SIMULATE=h100x8")
	const rpm = "rpm --nodeps --force-debian "
	m.run(t, rpm+"-i /packages/"+filepath.Base(sim)+" /packages/"+filepath.Base(exporter))
	m.metric(t, "DCGM_FI_DEV_GPU_TEMP")
	m.run(t, "echo 'families: lean' >"+configPath)
	before := m.mainPID(t)
	m.run(t, rpm+"-U /next/gpu-exporter-99*.rpm")
	if got := m.run(t, "cat "+configPath); got != "families: lean" {
		t.Errorf("the upgrade changed the configuration to\n%s", got)
	}
	m.eventually(t, ready, "GPUs answer")
	if after := m.mainPID(t); after == before {
		t.Error("the upgrade does not restart the exporter")
	}
	m.run(t, "rpm -e --nodeps --force-debian gpu-exporter")
	removed(t, m)
	m.run(t, "test -e "+configPath+".rpmsave")
}

// lifeOf tests the unit while it runs.
func lifeOf(t *testing.T, m *machine) {
	t.Helper()
	t.Log("readiness")
	m.run(t, active)
	m.run(t, "systemctl is-enabled gpu_exporter")
	m.eventually(t, ready, "GPUs answer")
	m.metric(t, "gpu_up{")
	m.run(t, "gpu_exporter ready")
	if user := m.run(t, "stat -c %U /proc/"+m.mainPID(t)); user != "gpu_exporter" {
		t.Errorf("the exporter runs as %s", user)
	}

	t.Log("unit")
	if out := m.run(t, "systemd-analyze verify gpu_exporter.service"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	exposure := m.run(t, "systemd-analyze security --offline=true --no-pager --threshold=30 /usr/lib/systemd/system/gpu_exporter.service")
	t.Log(exposure[strings.LastIndex(exposure, "\n")+1:])
	for _, path := range strings.Fields(m.run(t, "ls /usr/share/gpu_exporter/drop-ins/*.conf")) {
		m.run(t, "cp "+path+" "+dropIns+" && systemctl daemon-reload")
		if out := m.run(t, "systemd-analyze verify gpu_exporter.service"); out != "" {
			t.Errorf("systemd-analyze verify with %s: %s", path, out)
		}
		exposure, _ := m.try("systemd-analyze security --offline=true --no-pager gpu_exporter.service")
		t.Log(filepath.Base(path) + exposure[strings.LastIndex(exposure, "\n")+1:])
		m.run(t, "rm "+dropIns+filepath.Base(path)+" && systemctl daemon-reload")
	}

	t.Log("reload")
	before := m.mainPID(t)
	m.run(t, "echo 'sample: {interval: 1s}' >"+configPath+" && systemctl reload gpu_exporter")
	m.eventually(t, "journalctl -u gpu_exporter", "Configuration reloaded")
	m.run(t, "echo 'sample: {intervall: 1s}' >"+configPath)
	m.fails(t, "systemctl reload gpu_exporter")
	m.eventually(t, "journalctl -u gpu_exporter", "intervall")
	m.run(t, "echo 'sample: {interval: 1s}' >"+configPath+" && systemctl reload gpu_exporter")
	m.eventually(t, active, "active")
	if m.mainPID(t) != before {
		t.Error("a reload restarts the exporter")
	}

	t.Log("watchdog")
	m.write(t, dropIns+"watchdog.conf", "[Service]\nWatchdogSec=10")
	m.run(t, "systemctl restart gpu_exporter")
	m.eventually(t, ready, "GPUs answer")
	m.run(t, "kill -STOP "+m.mainPID(t))
	m.eventually(t, "systemctl show -P NRestarts gpu_exporter", "1")
	m.eventually(t, ready, "GPUs answer")
	m.eventually(t, "journalctl -u gpu_exporter", "Watchdog timeout")
	m.run(t, "rm "+dropIns+"watchdog.conf && systemctl daemon-reload")

	t.Log("kernel log, Slurm and devices")
	m.write(t, "/tmp/job.sh", `set -e
useradd ada
dir=/srv/cgroup/system.slice/slurmstepd.scope/job_77/step_0/user/task_0
mkdir -p $dir
setpriv --reuid=ada --regid=ada --clear-groups env SLURM_JOB_ID=77 SLURM_JOB_UID=$(id -u ada) SLURM_STEP_GPUS=3 sleep infinity >/dev/null 2>&1 &
echo $! >$dir/cgroup.procs
# No driver has these numbers: an open that the unit allows finds no device.
mknod -m 666 /dev/nvidia0 c 195 0
mknod -m 666 /dev/other0 c 196 0`)
	m.run(t, "sh /tmp/job.sh")
	m.write(t, dropIns+"node.conf", `[Service]
Environment=GPU_EXPORTER_PATH_CGROUPFS=/srv/cgroup GPU_EXPORTER_SLURM_JOBS=on
Environment=GPU_EXPORTER_PATH_KMSG=/dev/kmsg GPU_EXPORTER_XID_KERNEL_LOG=on
ExecStartPre=-/bin/cat /dev/nvidia0 /dev/other0`)
	m.run(t, "systemctl restart gpu_exporter")
	m.metric(t, `gpu_exporter_owner_source_up{source="slurm"} 1`)
	m.metric(t, "gpu_exporter_kernel_log_up 1")
	m.eventually(t, "journalctl -u gpu_exporter", "/dev/nvidia0: No such device or address")
	if !strings.Contains(m.run(t, "journalctl -u gpu_exporter"), "/dev/other0: Operation not permitted") {
		t.Log("not tested: systemd cannot restrict devices in a container without a devices controller")
	}
	m.run(t, "rm "+dropIns+"node.conf && systemctl daemon-reload && systemctl restart gpu_exporter")
	m.eventually(t, ready, "GPUs answer")
}
