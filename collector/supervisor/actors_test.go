// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// TestMain also runs the processes of the tests: "sampler DIR BEHAVIOUR" is a sampler,
// "exporter DIR COMMAND…" a process that supervises one. They write notes to DIR.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 {
		switch os.Args[1] {
		case "sampler":
			runSampler(os.Args[2], os.Args[3])
		case "exporter":
			runExporter(os.Args[2], os.Args[3:])
		}
	}
	os.Exit(m.Run())
}

// quick is the timing of tests with processes. Limits are generous where exceeding them
// on a slow machine would fail a test.
var quick = timing{
	tick: 20 * time.Millisecond, silence: 5 * time.Second, startup: time.Minute,
	stop: 3 * time.Second, reap: 5 * time.Second, drain: 10 * time.Second,
	backoffMin: 5 * time.Millisecond, backoffMax: 50 * time.Millisecond, stable: time.Hour,
}

func samplerCommand(dir, behaviour string) []string {
	return []string{os.Args[0], "sampler", dir, behaviour}
}

// testSampler is a sampler process of a test.
type testSampler struct {
	dir    string
	cfg    wire.SamplerConfig
	frames *os.File
	w      *wire.FrameWriter
}

// behaviours are the correct and faulty samplers. When one returns, the sampler exits
// with 0.
var behaviours = map[string]func(*testSampler){
	"healthy": func(a *testSampler) { a.exitWithStdin(); a.sample(forever) },
	"no GPU": func(a *testSampler) {
		a.exitWithStdin()
		_ = a.w.Write(wire.Frame{Inventory: &model.Inventory{Generation: 1, Time: time.Now()}})
		for {
			a.must(a.w.Write(wire.Frame{Sample: &model.Sample{Generation: 1, Time: time.Now()}}))
			time.Sleep(a.cfg.Interval)
		}
	},
	"no frames": func(a *testSampler) { a.exitWithStdin(); blockForever() },
	"hangs":     func(a *testSampler) { a.exitWithStdin(); a.sample(2); blockForever() },
	"ignores stdin": func(a *testSampler) { // and signals and a closed frame pipe
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
		a.inventory()
		for {
			_ = a.w.Write(wire.Frame{Sample: a.newSample()})
			time.Sleep(a.cfg.Interval)
		}
	},
	"reports failure": func(a *testSampler) {
		a.inventory()
		for range 5 {
			a.must(a.w.Write(wire.Frame{Sample: a.newSample()}))
		}
		a.must(a.w.Write(wire.Frame{Failure: &model.Failure{Reason: model.FailureHostengineLost, Message: "connection not valid"}}))
		os.Exit(1)
	},
	"exits":          func(a *testSampler) { a.sample(2); os.Exit(3) },
	"exits at start": nil, // see runSampler
	"Go fault": func(a *testSampler) {
		a.sample(2)
		var inventory *model.Inventory
		_ = inventory.Entities[0] // SIGSEGV, which the Go runtime turns into a panic
	},
	"native fault": func(a *testSampler) { // no Go runtime catches the signal
		a.sample(2)
		a.must(syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, os.Environ()))
	},
	"garbage": func(a *testSampler) {
		a.exitWithStdin()
		a.sample(2)
		_, err := io.WriteString(a.frames, "NVML: driver/library version mismatch\n")
		a.must(err)
		blockForever()
	},
	"truncated frame, exits": func(a *testSampler) { a.sample(2); a.writeHalfFrame() },
	"truncated frame, continues": func(a *testSampler) {
		a.exitWithStdin()
		a.sample(2)
		a.writeHalfFrame()
		a.sample(forever)
	},
	"future": func(a *testSampler) {
		a.exitWithStdin()
		a.inventory()
		for {
			a.must(a.w.Write(wire.Frame{Sample: &model.Sample{Generation: 1, Time: time.Now().Add(time.Hour), Rows: make([][]model.Cell, 1)}}))
			time.Sleep(a.cfg.Interval)
		}
	},
	"flood": func(a *testSampler) {
		a.exitWithStdin()
		for _, f := range []*os.File{os.Stdout, os.Stderr} {
			go func() {
				long := strings.Repeat("x", 100<<10) + "\n"
				for {
					fmt.Fprintln(f, "a line of libdcgm")
					fmt.Fprint(f, long)
				}
			}()
		}
		a.sample(forever)
	},
	"log": func(a *testSampler) {
		a.exitWithStdin()
		fmt.Println("printed by the library")
		slog.New(slog.NewTextHandler(os.NewFile(wire.RecordsFD, "records"), nil)).Error("cannot watch", "field", 150)
		fmt.Fprintln(os.Stderr, "complained by the library")
		a.sample(forever)
	},
	"leak": func(a *testSampler) {
		a.exitWithStdin()
		a.inventory()
		var leaked [][]byte
		for {
			a.must(a.w.Write(wire.Frame{Sample: a.newSample()}))
			if len(leaked) < 64 { // at most 1 GiB
				b := make([]byte, 16<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				leaked = append(leaked, b)
			}
			time.Sleep(a.cfg.Interval)
		}
	},
	"library missing": func(a *testSampler) {
		if _, err := os.Stat(filepath.Join(a.dir, "library")); err == nil {
			a.exitWithStdin()
			a.sample(forever)
		}
		a.must(a.w.Write(wire.Frame{Failure: &model.Failure{Reason: model.FailureLibraryMissing, Message: "libdcgm.so.4 is missing"}}))
		os.Exit(1)
	},
	"child": func(a *testSampler) { // leaves a child that holds all pipes
		cmd := exec.Command("sleep", "1000")
		cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{a.frames}
		a.must(cmd.Start())
		a.note("child", cmd.Process.Pid)
		a.sample(2)
		os.Exit(3)
	},
	"env": func(a *testSampler) {
		a.exitWithStdin()
		a.note("env", os.Getenv("SUPERVISOR_TEST"))
		a.sample(forever)
	},
}

const forever = -1

func blockForever() {
	for {
		time.Sleep(time.Hour)
	}
}

// runSampler is the main function of a sampler. The prefix "once " restricts a behaviour
// to the first sampler of a directory; the next ones are healthy.
func runSampler(dir, behaviour string) {
	a := &testSampler{dir: dir, frames: os.NewFile(wire.FramesFD, "frames")}
	a.w = wire.NewFrameWriter(a.frames)
	if rest, once := strings.CutPrefix(behaviour, "once "); once {
		behaviour = "healthy"
		if f, err := os.OpenFile(filepath.Join(dir, "once"), os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			behaviour = rest
		}
	}
	a.note("pids", os.Getpid())
	// Two samplers must never overlap. The lock ends with the process.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	a.must(err)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		a.note("overlap", os.Getpid())
	}
	if behaviour == "exits at start" {
		os.Exit(3)
	}
	a.cfg, err = wire.ReadSamplerConfig(os.Stdin)
	a.must(err)
	behaviours[behaviour](a)
	os.Exit(0)
}

// exitWithStdin exits when the exporter closes standard input, as every sampler must.
func (a *testSampler) exitWithStdin() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		a.note("eof", os.Getpid())
		os.Exit(0)
	}()
}

func (a *testSampler) note(file string, line any) {
	f, err := os.OpenFile(filepath.Join(a.dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	a.must(err)
	fmt.Fprintln(f, line)
	f.Close()
}

func (a *testSampler) must(err error) {
	if err != nil {
		if errors.Is(err, syscall.EPIPE) {
			os.Exit(0) // the supervisor closed the pipe
		}
		fmt.Fprintln(os.Stderr, "sampler of the test:", err)
		os.Exit(4)
	}
}

func (a *testSampler) newSample() *model.Sample {
	return &model.Sample{Generation: 1, Time: time.Now(), Rows: make([][]model.Cell, 1)}
}

// inventory writes an inventory whose driver version is the device selector of the
// configuration.
func (a *testSampler) inventory() {
	a.must(a.w.Write(wire.Frame{Inventory: &model.Inventory{Generation: 1, Time: time.Now(), DriverVersion: a.cfg.Devices,
		Entities: []model.Entity{{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-0"}}}}))
}

// sample writes an inventory and n samples, or samples without end if n is forever.
func (a *testSampler) sample(n int) {
	a.inventory()
	for ; n != 0; n-- {
		a.must(a.w.Write(wire.Frame{Sample: a.newSample()}))
		time.Sleep(a.cfg.Interval)
	}
}

func (a *testSampler) writeHalfFrame() {
	pr, pw := io.Pipe()
	go func() {
		_ = wire.NewFrameWriter(pw).Write(wire.Frame{Sample: a.newSample()})
		pw.Close()
	}()
	whole, err := io.ReadAll(pr)
	a.must(err)
	_, err = a.frames.Write(whole[:len(whole)/2])
	a.must(err)
}

// runExporter is the main function of an exporter. It creates the file "samples" when
// the first sample arrives.
func runExporter(dir string, command []string) {
	noted := false
	s := New(Config{
		Command: command,
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
		timing:  quick,
		Deliver: func(f wire.Frame) error {
			if f.Sample != nil && !noted {
				noted = true
				return os.WriteFile(filepath.Join(dir, "samples"), nil, 0o600)
			}
			return nil
		},
	})
	s.Reconfigure(wire.SamplerConfig{Interval: 20 * time.Millisecond})
	if err := s.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}
