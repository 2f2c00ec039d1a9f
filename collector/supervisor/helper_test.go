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

// The test binary plays the processes: "sampler DIR BEHAVIOUR" is a sampler,
// "exporter DIR COMMAND…" a process that supervises one. In DIR they leave notes.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 {
		switch os.Args[1] {
		case "sampler":
			playSampler(os.Args[2], os.Args[3])
		case "exporter":
			playExporter(os.Args[2], os.Args[3:])
		}
	}
	os.Exit(m.Run())
}

// quick are timings for tests with processes. Those that can only end a test
// too early are generous.
var quick = timing{
	tick: 20 * time.Millisecond, silence: 5 * time.Second, startup: 30 * time.Second,
	stop: 500 * time.Millisecond, reap: time.Second, drain: 5 * time.Second,
	backoffMin: 5 * time.Millisecond, backoffMax: 50 * time.Millisecond, stable: time.Hour,
}

// samplerCommand is the command line of a sampler with a behaviour.
func samplerCommand(dir, behaviour string) []string {
	return []string{os.Args[0], "sampler", dir, behaviour}
}

// actor is a process that plays a sampler.
type actor struct {
	dir    string
	cfg    wire.SamplerConfig
	frames *os.File
	w      *wire.FrameWriter
}

// behaviours are what a sampler can do wrong, or right. When one returns, the
// sampler exits with 0.
var behaviours = map[string]func(*actor){
	"well": func(a *actor) { a.heedStdin(); a.sample(forever) },
	"none": func(a *actor) { // no GPU
		a.heedStdin()
		_ = a.w.Write(wire.Frame{Inventory: &model.Inventory{Generation: 1, Time: time.Now()}})
		for {
			a.must(a.w.Write(wire.Frame{Sample: &model.Sample{Generation: 1, Time: time.Now()}}))
			time.Sleep(a.cfg.Interval)
		}
	},
	"mute": func(a *actor) { a.heedStdin(); wait() },
	"hang": func(a *actor) { a.heedStdin(); a.sample(2); wait() },
	"deaf": func(a *actor) { // to signals, to standard input and to nobody reading
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
		a.inventory()
		for {
			_ = a.w.Write(wire.Frame{Sample: a.newSample()})
			time.Sleep(a.cfg.Interval)
		}
	},
	"last words": func(a *actor) {
		a.inventory()
		for range 5 {
			a.must(a.w.Write(wire.Frame{Sample: a.newSample()}))
		}
		a.must(a.w.Write(wire.Frame{Failure: &model.Failure{Reason: model.FailureHostengineLost, Message: "connection not valid"}}))
		os.Exit(1)
	},
	"exit":                                  func(a *actor) { a.sample(2); os.Exit(3) },
	"exit before reading the configuration": nil, // see playSampler
	"fault": func(a *actor) {
		a.sample(2)
		var inventory *model.Inventory
		_ = inventory.Entities[0] // SIGSEGV, which the Go runtime turns into a panic
	},
	"segv": func(a *actor) { // as without a Go runtime that catches it
		a.sample(2)
		a.must(syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, os.Environ()))
	},
	"garbage": func(a *actor) {
		a.heedStdin()
		a.sample(2)
		_, err := io.WriteString(a.frames, "NVML: driver/library version mismatch\n")
		a.must(err)
		wait()
	},
	"cut and exit": func(a *actor) { a.sample(2); a.half() },
	"cut and go on": func(a *actor) {
		a.heedStdin()
		a.sample(2)
		a.half()
		a.sample(forever)
	},
	"future": func(a *actor) {
		a.heedStdin()
		a.inventory()
		for {
			a.must(a.w.Write(wire.Frame{Sample: &model.Sample{Generation: 1, Time: time.Now().Add(time.Hour), Rows: make([][]model.Cell, 1)}}))
			time.Sleep(a.cfg.Interval)
		}
	},
	"flood": func(a *actor) {
		a.heedStdin()
		for _, f := range []*os.File{os.Stdout, os.Stderr} {
			go func() {
				long := strings.Repeat("x", 100<<10) + "\n"
				for {
					fmt.Fprintln(f, "libdcgm says something")
					fmt.Fprint(f, long)
				}
			}()
		}
		a.sample(forever)
	},
	"log": func(a *actor) {
		a.heedStdin()
		fmt.Println("printed by the library")
		slog.New(slog.NewJSONHandler(os.Stderr, nil)).Error("cannot watch", "field", 150)
		fmt.Fprintln(os.Stderr, "complained by the library")
		a.sample(forever)
	},
	"leak": func(a *actor) {
		a.heedStdin()
		a.inventory()
		var leaked [][]byte
		for {
			a.must(a.w.Write(wire.Frame{Sample: a.newSample()}))
			if len(leaked) < 64 { // 1 GiB, should nobody stop it
				b := make([]byte, 16<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				leaked = append(leaked, b)
			}
			time.Sleep(a.cfg.Interval)
		}
	},
	"library missing": func(a *actor) {
		if _, err := os.Stat(filepath.Join(a.dir, "library")); err == nil {
			a.heedStdin()
			a.sample(forever)
		}
		a.must(a.w.Write(wire.Frame{Failure: &model.Failure{Reason: model.FailureLibraryMissing, Message: "libdcgm.so.4 is not there"}}))
		os.Exit(1)
	},
	"child": func(a *actor) { // leaves one behind that holds all pipes
		cmd := exec.Command("sleep", "1000")
		cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{a.frames}
		a.must(cmd.Start())
		a.note("child", cmd.Process.Pid)
		a.sample(2)
		os.Exit(3)
	},
	"env": func(a *actor) {
		a.heedStdin()
		a.note("env", os.Getenv("SUPERVISOR_TEST"))
		a.sample(forever)
	},
}

const forever = -1

func wait() {
	for {
		time.Sleep(time.Hour)
	}
}

// playSampler is a sampler. A behaviour that begins with "once " is for the
// first one of a directory; the others behave well.
func playSampler(dir, behaviour string) {
	a := &actor{dir: dir, frames: os.NewFile(3, "frames")}
	a.w = wire.NewFrameWriter(a.frames)
	if rest, once := strings.CutPrefix(behaviour, "once "); once {
		behaviour = "well"
		if f, err := os.OpenFile(filepath.Join(dir, "once"), os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			behaviour = rest
		}
	}
	a.note("pids", os.Getpid())
	// Two at once is what must never be. The lock ends with the process.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	a.must(err)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		a.note("overlap", os.Getpid())
	}
	if behaviour == "exit before reading the configuration" {
		os.Exit(3)
	}
	a.cfg, err = wire.ReadSamplerConfig(os.Stdin)
	a.must(err)
	behaviours[behaviour](a)
	os.Exit(0)
}

// heedStdin exits when the exporter goes, as a sampler has to.
func (a *actor) heedStdin() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		a.note("eof", os.Getpid())
		os.Exit(0)
	}()
}

func (a *actor) note(file string, line any) {
	f, err := os.OpenFile(filepath.Join(a.dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	a.must(err)
	fmt.Fprintln(f, line)
	f.Close()
}

func (a *actor) must(err error) {
	if err != nil {
		if errors.Is(err, syscall.EPIPE) {
			os.Exit(0) // the supervisor does not listen any more
		}
		fmt.Fprintln(os.Stderr, "sampler of the test:", err)
		os.Exit(4)
	}
}

func (a *actor) newSample() *model.Sample {
	return &model.Sample{Generation: 1, Time: time.Now(), Rows: make([][]model.Cell, 1)}
}

// inventory writes one that tells the configuration.
func (a *actor) inventory() {
	a.must(a.w.Write(wire.Frame{Inventory: &model.Inventory{Generation: 1, Time: time.Now(), DriverVersion: a.cfg.Devices,
		Entities: []model.Entity{{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-0"}}}}))
}

// sample writes an inventory and n samples.
func (a *actor) sample(n int) {
	a.inventory()
	for ; n != 0; n-- {
		a.must(a.w.Write(wire.Frame{Sample: a.newSample()}))
		time.Sleep(a.cfg.Interval)
	}
}

// half writes half a frame.
func (a *actor) half() {
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

// playExporter supervises a sampler until something ends it, and notes that
// there are samples.
func playExporter(dir string, command []string) {
	noted := false
	s := New(Config{
		Command: command,
		Sampler: wire.SamplerConfig{Interval: 20 * time.Millisecond},
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
	if err := s.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}
