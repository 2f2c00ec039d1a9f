// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/collector/model"
	"gpu_exporter/podmapper/kubelettest"
)

// built returns the path of the binary of make build.
func built(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../../build/gpu_exporter")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// examined runs the command doctor and returns its output as JSON and text.
func examined(t *testing.T, args ...string) (d diagnosis, status int, text string) {
	t.Helper()
	args = append([]string{"doctor"}, args...)
	run := func(extra ...string) ([]byte, int) {
		cmd := exec.CommandContext(t.Context(), built(t), append(args, extra...)...)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return out, cmd.ProcessState.ExitCode()
	}
	out, status := run("--output=json")
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	plain, again := run()
	if again != status {
		t.Errorf("status %d with text, %d with JSON", again, status)
	}
	return d, status, string(plain)
}

func (d *diagnosis) find(about, name string) *owners.Finding {
	for i := range d.Findings {
		if f := &d.Findings[i]; f.About == about && (name == "" || f.Name == name) {
			return f
		}
	}
	return nil
}

// TestDoctorOnABareMachine: without DCGM, the findings name the missing parts, with advice.
func TestDoctorOnABareMachine(t *testing.T) {
	t.Parallel()
	d, status, text := examined(t, "-k", "--kubernetes.pod-resources-socket="+filepath.Join(t.TempDir(), "kubelet.sock"))
	if status != 1 || d.Healthy {
		t.Errorf("status %d, healthy %v", status, d.Healthy)
	}
	if f := d.find("library", ""); f == nil || f.State != owners.Broken || !strings.Contains(f.Detail, "install datacenter-gpu-manager-4-core") {
		t.Errorf("library: %+v", f)
	}
	for _, name := range []string{"driver", "gpus"} {
		if f := d.find("machine", name); f == nil || f.State != owners.Broken || f.Advice == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := d.find("kubelet", "pod-resources"); f == nil || f.State != owners.Broken || !strings.Contains(f.Advice, "mount") {
		t.Errorf("kubelet: %+v", f)
	}
	if !strings.Contains(text, "broken") || strings.Count(text, "\n") > 16 {
		t.Errorf("printed:\n%s", text)
	}
}

// TestDoctorOnAnUnreachableEngine: the finding is about the engine's address, not about the
// library.
func TestDoctorOnAnUnreachableEngine(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for engine, reason := range map[string]string{
		address: "connection refused",
		filepath.Join(t.TempDir(), "engine.sock"): "no such file or directory",
	} {
		d, status, _ := examined(t, "--simulate=h100x8", "-r", engine)
		f := d.find("engine", engine)
		if status != 1 || f == nil || f.State != owners.Broken || !strings.HasPrefix(f.Detail, "does not answer: ") || !strings.Contains(f.Detail, reason) {
			t.Errorf("%s: status %d, %+v", engine, status, d.Findings)
		}
		if f := d.find("library", ""); f != nil {
			t.Errorf("%s: %+v", engine, f)
		}
	}
}

// TestDoctorOnAnotherProgram: a program that is no engine accepts connections.
func TestDoctorOnAnotherProgram(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	d := newDiagnosis()
	c := config.Config{Static: config.Static{Hostengine: listener.Addr().String()}}
	d.addFailure(t.Context(), c, model.Failure{Reason: model.FailureHostengineUnreached}, errors.New("not reached"))
	if f := d.find("engine", c.Hostengine); f == nil || f.Detail != "does not answer: a program accepts connections, but it is not nv-hostengine of DCGM 4" {
		t.Errorf("%+v", d.Findings)
	}
}

// TestMachine: the driver and the GPUs are found without DCGM.
func TestMachine(t *testing.T) {
	root := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(required bool, driver, gpus owners.Finding) {
		t.Helper()
		d := newDiagnosis()
		d.examineMachine(root, required)
		for name, want := range map[string]owners.Finding{"driver": driver, "gpus": gpus} {
			if f := d.find("machine", name); f == nil || f.State != want.State || f.Detail != want.Detail || (f.Advice != "") != (want.State != owners.OK) {
				t.Errorf("%+v, want %+v", f, want)
			}
		}
	}
	noDriver := owners.Finding{State: owners.Broken, Detail: "NVIDIA's kernel module is not loaded: /proc/driver/nvidia/version does not exist"}
	check(true, noDriver, owners.Finding{State: owners.Broken, Detail: "GPUs of NVIDIA on the PCI bus: 0; device files /dev/nvidiaN: 0"})
	write("sys/bus/pci/devices/0000:18:00.0/vendor", "0x10de\n")
	write("sys/bus/pci/devices/0000:18:00.0/class", "0x030200\n")
	write("sys/bus/pci/devices/0000:19:00.0/vendor", "0x10de\n")
	write("sys/bus/pci/devices/0000:19:00.0/class", "0x068000\n") // an NVSwitch
	check(true, noDriver, owners.Finding{State: owners.Broken, Detail: "GPUs of NVIDIA on the PCI bus: 1; device files /dev/nvidiaN: 0"})
	noDriver.State = owners.Noted
	check(false, noDriver, owners.Finding{State: owners.Noted, Detail: "GPUs of NVIDIA on the PCI bus: 1; device files /dev/nvidiaN: 0"})
	write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\nGCC version:  gcc 13.2.0\n")
	write("dev/nvidia0", "")
	write("dev/nvidiactl", "")
	check(true, owners.Finding{State: owners.OK, Detail: "NVIDIA's kernel module 570.133.20 is loaded"},
		owners.Finding{State: owners.OK, Detail: "GPUs of NVIDIA on the PCI bus: 1; device files /dev/nvidiaN: 1"})
}

func TestDoctorOnAHealthyNode(t *testing.T) {
	t.Parallel()
	d, status, text := examined(t, "--simulate=h100x8-mig")
	if status != 0 || !d.Healthy {
		t.Errorf("status %d:\n%s", status, text)
	}
	for _, want := range []struct{ about, name, detail string }{
		{"library", "", "DCGM 4.6.0"},
		{"driver", "", "570.133.20"},
		{"gpu", "1", "MIG: 1 3g.40gb"},
		{"gpu", "3", "MIG without instances"},
		{"fields", "no_data", "DCGM_FI_DEV_XID_ERRORS"},
	} {
		if f := d.find(want.about, want.name); f == nil || !strings.Contains(f.Detail, want.detail) {
			t.Errorf("%s %s: %+v, want %s", want.about, want.name, f, want.detail)
		}
	}
	if lines := strings.Count(text, "\n"); lines > 24 {
		t.Errorf("%d lines are more than a screen:\n%s", lines, text)
	}
}

// TestDoctorResolvesDeviceIDs: each device ID has a device or a reason.
func TestDoctorResolvesDeviceIDs(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	defer kubelet.Stop()
	kubelet.SetPods(
		kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", "nvidia6"),
		kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", "MIG-bebc783d-a031-524e-9ca3-055daed0bee5"), // on GPU 0
		kubelettest.Pod("ml", "stranger", "main", "nvidia.com/gpu", "GPU-00000000-0000-0000-0000-000000000000"),
	)
	d, status, text := examined(t, "--simulate=h100x8-mig", "-k", "--kubernetes.pod-resources-socket="+socket)
	if status != 0 {
		t.Errorf("status %d: an unknown ID breaks nothing\n%s", status, text)
	}
	got := map[string]device{}
	for _, dev := range d.Devices {
		got[dev.Pod] = dev
	}
	if dev := got["train"]; strings.Join(dev.Devices, ",") != "GPU 6" {
		t.Errorf("train: %+v", dev)
	}
	if dev := got["slice"]; !strings.Contains(strings.Join(dev.Devices, ","), "GPU 0 instance 7") {
		t.Errorf("slice: %+v", dev)
	}
	if dev := got["stranger"]; len(dev.Devices) != 0 || dev.Why == "" {
		t.Errorf("stranger: %+v", dev)
	}
	if !strings.Contains(text, "GPU-00000000-0000-0000-0000-000000000000") {
		t.Errorf("the unknown ID is missing in the text:\n%s", text)
	}
}

// TestDoctorOnAnUnreadableKernelLog: the finding is a note, or a fault if the kernel log is
// required.
func TestDoctorOnAnUnreadableKernelLog(t *testing.T) {
	d := newDiagnosis()
	d.examineKernelLog("", true, nil)
	d.examineKernelLog("/absent", false, errors.New("absent"))
	if len(d.Findings) != 1 || d.Findings[0].State != owners.Noted || !d.Healthy {
		t.Errorf("not required: %+v", d)
	}
	d.examineKernelLog("/absent", true, errors.New("absent"))
	if len(d.Findings) != 2 || d.Findings[1].State != owners.Broken || d.Healthy {
		t.Errorf("required: %+v", d)
	}
}
