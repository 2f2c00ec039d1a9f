// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector"
)

// envSampler makes the test binary a sampler process that samples in the given
// way; see TestMain.
const envSampler = "TEST_SAMPLER"

// ways of sampling, beside the real one.
var samplings = map[string]sampling{
	"steady": func(ctx context.Context, c collector.SamplerConfig, _ <-chan collector.SamplerCommand, frames *collector.FrameWriter, logger *slog.Logger) error {
		logger.Info("sampling", "interval", c.Interval)
		if err := frames.Write(collector.Frame{Inventory: &collector.Inventory{Generation: 1, DCGMVersion: c.Devices}}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	},
	"fails": func(context.Context, collector.SamplerConfig, <-chan collector.SamplerCommand, *collector.FrameWriter, *slog.Logger) error {
		return fmt.Errorf("starting: %w", &samplingError{collector.Failure{Reason: "library_missing", Message: "no libdcgm.so.4"}})
	},
	"fails without a reason": func(context.Context, collector.SamplerConfig, <-chan collector.SamplerCommand, *collector.FrameWriter, *slog.Logger) error {
		return errors.New("broken")
	},
	"hangs": func(_ context.Context, _ collector.SamplerConfig, _ <-chan collector.SamplerCommand, frames *collector.FrameWriter, _ *slog.Logger) error {
		if err := frames.Write(collector.Frame{Inventory: &collector.Inventory{Generation: 1}}); err != nil {
			return err
		}
		select {} // as a call into a stuck driver
	},
}

// runTestSampler is what the test binary does as a sampler process.
func runTestSampler(way string) int {
	ignoreGroupSignals()
	grace := 200 * time.Millisecond
	return runSampler(os.Stdin, os.NewFile(framesFD, "frames"), newSamplerLogger(os.Stderr), samplings[way], grace)
}

// samplerProcess is a sampler with this test as its exporter.
type samplerProcess struct {
	*exec.Cmd
	stdin  io.WriteCloser
	frames *collector.FrameReader
	stderr syncBuffer
}

func startSampler(t *testing.T, way string) *samplerProcess {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &samplerProcess{Cmd: exec.Command(executable)}
	p.Env = append(os.Environ(), envSampler+"="+way)
	p.Stderr = &p.stderr
	if p.stdin, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.ExtraFiles = []*os.File{w}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.frames = collector.NewFrameReader(r)
	t.Cleanup(func() {
		_ = r.Close()
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

func (p *samplerProcess) configure(t *testing.T) {
	t.Helper()
	if _, err := (collector.SamplerConfig{Interval: time.Second, Devices: "g:0"}).WriteTo(p.stdin); err != nil {
		t.Fatal(err)
	}
}

func (p *samplerProcess) next(t *testing.T) collector.Frame {
	t.Helper()
	frame, err := p.frames.Next()
	if err != nil {
		t.Fatalf("reading a frame: %v\n%s", err, p.stderr.String())
	}
	return frame
}

// exit waits for the process and checks its exit status.
func (p *samplerProcess) exit(t *testing.T, status int) {
	t.Helper()
	watchdog := time.AfterFunc(30*time.Second, func() { _ = p.Process.Kill() })
	defer watchdog.Stop()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := p.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d (%v), want %d\n%s", got, p.ProcessState, status, p.stderr.String())
	}
}

func TestSamplerEndsWithItsExporter(t *testing.T) {
	for way, status := range map[string]int{"steady": 0, "hangs": 1} {
		t.Run(way, func(t *testing.T) {
			p := startSampler(t, way)
			p.configure(t)
			if frame := p.next(t); frame.Inventory == nil {
				t.Fatalf("first frame %+v", frame)
			}
			if err := p.stdin.Close(); err != nil {
				t.Fatal(err)
			}
			p.exit(t, status)
		})
	}
}

// Ctrl-C in a terminal reaches exporter and sampler; the sampler goes on until
// the exporter ends it. So it is with systemd's SIGTERM.
func TestSamplerSurvivesGroupSignals(t *testing.T) {
	p := startSampler(t, "steady")
	p.configure(t)
	p.next(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	p.exit(t, 0) // and not by a signal
}

func TestSamplerReportsFailure(t *testing.T) {
	for way, want := range map[string]collector.Failure{
		"fails":                  {Reason: "library_missing", Message: "no libdcgm.so.4"},
		"fails without a reason": {Reason: "other", Message: "broken"},
	} {
		t.Run(way, func(t *testing.T) {
			p := startSampler(t, way)
			p.configure(t)
			if frame := p.next(t); frame.Failure == nil || !reflect.DeepEqual(*frame.Failure, want) {
				t.Errorf("frame %+v, want failure %+v", frame, want)
			}
			p.exit(t, 1)
		})
	}
}

func TestSamplerLogsJSON(t *testing.T) {
	p := startSampler(t, "steady")
	p.configure(t)
	p.next(t)
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	p.exit(t, 0)
	if log := p.stderr.String(); !strings.Contains(log, `"level":"INFO","msg":"sampling"`) {
		t.Errorf("log %q", log)
	}
}

// Whoever runs the hidden subcommand by hand is told.
func TestSamplerByHand(t *testing.T) {
	for _, input := range []string{"", "hello\n", `{"Interval":`} {
		p := startSampler(t, "steady")
		if _, err := io.WriteString(p.stdin, input); err != nil {
			t.Fatal(err)
		}
		if err := p.stdin.Close(); err != nil {
			t.Fatal(err)
		}
		p.exit(t, 1)
		if !strings.Contains(p.stderr.String(), "run by the exporter, not by hand") {
			t.Errorf("input %q: log %q", input, p.stderr.String())
		}
	}
}
