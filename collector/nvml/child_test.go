// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package nvml

import (
	"bufio"
	"bytes"
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

	"gpu_exporter/collector/model"
)

// Only child processes of the test binary load the library: the loader's path is fixed
// when a process starts, and an injected fault must not end the test.
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

// answer is a child's answer to one line of input.
type answer struct {
	Error     string // of the call as a whole
	GPUs      []gpuAnswer
	MIG       []model.MIGDevice
	Inventory *model.Inventory
	Processes *model.Processes
	Log       string // of the reader
}

// noLibrary reports whether the loader does not find the library.
func (a answer) noLibrary() bool { return strings.Contains(a.Error, "no "+libraryName+": ") }

type gpuAnswer struct {
	GPU
	Lost  bool
	Error string
}

// serveChild answers one line for each line it reads: "open", "gpus" and "close"
// of a library, and of a reader "mig devices", "inventory", "processes",
// "begin processes" and "end processes", "both", "close reader".
func serveChild(in io.Reader, out io.Writer) error {
	var l *Library
	var log bytes.Buffer
	reader := NewReader(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	inv := &model.Inventory{}
	begun := make(chan answer)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var a answer
		var err error
		switch lines.Text() {
		case "open":
			l, err = open(nvml.New())
		case "gpus":
			var gpus []GPU
			gpus, err = l.GPUs()
			for _, g := range gpus {
				ga := gpuAnswer{GPU: g, Lost: errors.Is(g.Err, errLost)}
				if g.Err != nil {
					ga.Error = g.Err.Error()
				}
				ga.Err = nil // an error does not survive JSON
				a.GPUs = append(a.GPUs, ga)
			}
		case "mig devices":
			a.MIG, err = reader.MIGDevices()
		case "inventory":
			inv, err = inventory(inv.Generation + 1)
			a.Inventory = inv
		case "processes":
			a.Processes, err = reader.Processes(inv)
			a.Log = log.String()
		case "begin processes":
			go func() {
				var a answer
				p, err := reader.Processes(inv)
				if a.Processes = p; err != nil {
					a.Error = err.Error()
				}
				begun <- a
			}()
		case "end processes":
			a = <-begun
		case "both":
			err = both(reader, inv)
		case "close reader":
			reader.Close()
		case "close":
			err = l.Close()
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// inventory returns an inventory of NVML's GPUs and MIG devices.
func inventory(generation uint64) (*model.Inventory, error) {
	l, err := open(nvml.New())
	if err != nil {
		return nil, err
	}
	defer l.Close()
	gpus, err := l.GPUs()
	if err != nil {
		return nil, err
	}
	inv := &model.Inventory{Generation: generation}
	var compute []model.Entity
	for _, g := range gpus {
		inv.Entities = append(inv.Entities, model.Entity{
			Kind: model.KindGPU, UUID: g.UUID, Index: g.Index, MIGMode: g.MIGMode, Parent: model.Unknown, Selected: true,
		})
	}
	for i, g := range gpus {
		for j, m := range g.MIGDevices {
			if j == 0 || m.GPUInstanceID != g.MIGDevices[j-1].GPUInstanceID {
				inv.Entities = append(inv.Entities, model.Entity{
					Kind: model.KindGPUInstance, Parent: i, InstanceID: m.GPUInstanceID, Selected: true,
				})
			}
			compute = append(compute, model.Entity{
				Kind: model.KindComputeInstance, UUID: m.UUID, Parent: len(inv.Entities) - 1, InstanceID: m.ComputeInstanceID, Selected: true,
			})
		}
	}
	inv.Entities = append(inv.Entities, compute...)
	return inv, nil
}

// both repeatedly reads MIG devices and processes at the same time.
func both(reader *Reader, inv *model.Inventory) error {
	devices := make(chan error)
	go func() {
		var errs []error
		for range 20 {
			_, err := reader.MIGDevices()
			errs = append(errs, err)
		}
		devices <- errors.Join(errs...)
	}()
	var errs []error
	for range 20 {
		_, err := reader.Processes(inv)
		errs = append(errs, err)
		reader.Close() // and open it again
	}
	return errors.Join(errors.Join(errs...), <-devices)
}

// child is a process that loads the library.
type child struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
	cmd *exec.Cmd

	mayDie bool // a test makes it crash
}

// startChild starts a child with the given environment variables.
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
		c.t.Fatalf("%s: no answer: %v", what, err)
	}
	return a
}

func (c *child) tryAsk(what string) (a answer, err error) {
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return a, err
	}
	return a, c.out.Decode(&a)
}

// mustAsk is ask, but fails the test on an error.
func (c *child) mustAsk(what string) answer {
	c.t.Helper()
	a := c.ask(what)
	if a.Error != "" {
		c.t.Fatalf("%s: %s", what, a.Error)
	}
	return a
}
