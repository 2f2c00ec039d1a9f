// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpu_exporter/collector"
)

// The library is loaded in child processes of the test binary only: the
// loader's path is fixed when a process starts, and a fault that is injected
// must not end the test.
const childVariable = "NVML_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := serveChild(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// answer is what a child says to one line of its input.
type answer struct {
	Error     string // of the call as a whole
	NoLibrary bool
	NoDriver  bool
	GPUs      []gpuAnswer
	MIG       []collector.MIGDevice
	Processes []string
}

type gpuAnswer struct {
	GPU
	Lost  bool
	Error string
}

// serveChild answers one line for each line it reads: "open", "gpus",
// "mig devices", "processes", "close".
func serveChild(in io.Reader, out io.Writer) error {
	var l *Library
	migDevices := MIGDevices(slog.New(slog.DiscardHandler))
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var a answer
		var err error
		switch lines.Text() {
		case "open":
			l, err = Open()
		case "gpus":
			var gpus []GPU
			gpus, err = l.GPUs()
			for _, g := range gpus {
				ga := gpuAnswer{GPU: g, Lost: errors.Is(g.Err, ErrLost)}
				if g.Err != nil {
					ga.Error = g.Err.Error()
				}
				ga.Err = nil // an error does not survive JSON
				a.GPUs = append(a.GPUs, ga)
			}
		case "mig devices":
			a.MIG, err = migDevices()
		case "processes":
			a.Processes, err = processes(l)
		case "close":
			err = l.Close()
		}
		if err != nil {
			a.Error, a.NoLibrary, a.NoDriver = err.Error(), errors.Is(err, ErrNoLibrary), errors.Is(err, ErrNoDriver)
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// processes lists what the production code does not read yet, to test the
// stand-in: the processes of each device, and how they use it.
func processes(l *Library) ([]string, error) {
	var list []string
	add := func(name string, d nvml.Device) error {
		compute, ret := d.GetComputeRunningProcesses()
		if ret != nvml.SUCCESS {
			return callError(name+" GetComputeRunningProcesses", ret)
		}
		graphics, ret := d.GetGraphicsRunningProcesses()
		if ret != nvml.SUCCESS {
			return callError(name+" GetGraphicsRunningProcesses", ret)
		}
		for _, p := range compute {
			list = append(list, fmt.Sprintf("%s pid %d MiB %d gi %d ci %d", name, p.Pid, p.UsedGpuMemory>>20, int32(p.GpuInstanceId), int32(p.ComputeInstanceId)))
		}
		for _, p := range graphics {
			list = append(list, fmt.Sprintf("%s pid %d MiB %d graphics", name, p.Pid, p.UsedGpuMemory>>20))
		}
		samples, ret := d.GetProcessUtilization(0)
		switch ret {
		case nvml.SUCCESS:
			busy := make(map[uint32]bool)
			for _, s := range samples {
				if s.SmUtil > 100 || s.MemUtil > 100 || s.TimeStamp == 0 {
					return fmt.Errorf("%s: sample %+v", name, s)
				}
				busy[s.Pid] = busy[s.Pid] || s.SmUtil > 0
			}
			for _, p := range compute {
				if busy[p.Pid] {
					list = append(list, fmt.Sprintf("%s pid %d busy", name, p.Pid))
				}
			}
		case nvml.ERROR_NOT_FOUND: // none is busy
		case nvml.ERROR_NOT_SUPPORTED:
			list = append(list, name+" utilisation not supported")
		default:
			return callError(name+" GetProcessUtilization", ret)
		}
		return nil
	}
	count, ret := l.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, callError("DeviceGetCount", ret)
	}
	for i := range count {
		d, ret := l.lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			return nil, callError("DeviceGetHandleByIndex", ret)
		}
		if err := add(fmt.Sprintf("gpu %d", i), d); err != nil {
			return nil, err
		}
		most, _ := d.GetMaxMigDeviceCount()
		for j := range most {
			if mig, ret := d.GetMigDeviceHandleByIndex(j); ret == nvml.SUCCESS {
				if err := add(fmt.Sprintf("gpu %d mig %d", i, j), mig); err != nil {
					return nil, err
				}
			}
		}
	}
	return list, nil
}

// child is such a process.
type child struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
	cmd *exec.Cmd

	mayDie bool // of what is done to it
}

// startChild starts one with LD_LIBRARY_PATH, and more, in its environment.
func startChild(t *testing.T, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LD_LIBRARY_PATH=") || strings.HasPrefix(v, "DCGMSIM_")
	}), append(env, childVariable+"=1")...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, in: in, out: json.NewDecoder(out), cmd: cmd}
	t.Cleanup(func() {
		in.Close()
		stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer stuck.Stop()
		if err := cmd.Wait(); err != nil && !c.mayDie {
			t.Errorf("child: %v", err)
		}
	})
	return c
}

// ask sends one line and waits for the answer.
func (c *child) ask(what string) answer {
	c.t.Helper()
	a, err := c.tryAsk(what)
	if err != nil {
		c.t.Fatalf("%s: the child gave no answer: %v", what, err)
	}
	return a
}

func (c *child) tryAsk(what string) (a answer, err error) {
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return a, err
	}
	return a, c.out.Decode(&a)
}

// mustAsk is ask for what must not fail.
func (c *child) mustAsk(what string) answer {
	c.t.Helper()
	a := c.ask(what)
	if a.Error != "" {
		c.t.Fatalf("%s: %s", what, a.Error)
	}
	return a
}
