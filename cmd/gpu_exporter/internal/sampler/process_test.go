// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/dcgm"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// TestMain makes the test binary the sampler process of some tests.
func TestMain(m *testing.M) {
	switch way := os.Getenv(envSampler); way {
	case "":
	case "main":
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stderr))
	default:
		os.Exit(runTestSampler(way))
	}
	os.Exit(m.Run())
}

// envSampler selects the way in which the test binary samples.
const envSampler = "TEST_SAMPLER"

// samplings are ways of sampling without native libraries.
var samplings = map[string]sampling{
	"steady": func(ctx context.Context, c wire.SamplerConfig, _ <-chan wire.SamplerCommand, frames *wire.FrameWriter, logger *slog.Logger) error {
		logger.Info("sampling", "interval", c.Interval)
		if err := frames.Write(wire.Frame{Inventory: &model.Inventory{Generation: 1, DCGMVersion: c.Devices}}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	},
	"fails": func(context.Context, wire.SamplerConfig, <-chan wire.SamplerCommand, *wire.FrameWriter, *slog.Logger) error {
		return fmt.Errorf("starting: %w", &dcgm.FailureError{Failure: model.Failure{Reason: "library_missing", Message: "no libdcgm.so.4"}})
	},
	"fails without a reason": func(context.Context, wire.SamplerConfig, <-chan wire.SamplerCommand, *wire.FrameWriter, *slog.Logger) error {
		return errors.New("broken")
	},
	"greedy": func(_ context.Context, _ wire.SamplerConfig, _ <-chan wire.SamplerCommand, frames *wire.FrameWriter, _ *slog.Logger) error {
		if err := limitMemory(); err != nil {
			return err
		}
		for _, size := range []int{1 << 30, maxGrowth} { // untouched: only the address space is used
			b := make([]byte, size)
			if err := frames.Write(wire.Frame{Inventory: &model.Inventory{Generation: uint64(len(b))}}); err != nil {
				return err
			}
		}
		return nil
	},
	"hangs": func(_ context.Context, _ wire.SamplerConfig, _ <-chan wire.SamplerCommand, frames *wire.FrameWriter, _ *slog.Logger) error {
		if err := frames.Write(wire.Frame{Inventory: &model.Inventory{Generation: 1}}); err != nil {
			return err
		}
		select {} // as a call into a stuck driver
	},
}

// runTestSampler is what the test binary does as a sampler process.
func runTestSampler(way string) int {
	ignoreGroupSignals()
	grace := 200 * time.Millisecond
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return run(os.Stdin, os.NewFile(wire.FramesFD, "frames"), logger, samplings[way], grace)
}

// samplerProcess is a sampler with this test as its exporter.
type samplerProcess struct {
	*exec.Cmd
	stdin  io.WriteCloser
	frames *wire.FrameReader
	stderr bytes.Buffer // complete after exit
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
	if err := r.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	p.frames = wire.NewFrameReader(r)
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
	if _, err := (wire.SamplerConfig{Interval: time.Second, Devices: "g:0"}).WriteTo(p.stdin); err != nil {
		t.Fatal(err)
	}
}

func (p *samplerProcess) next(t *testing.T) wire.Frame {
	t.Helper()
	frame, err := p.frames.Next()
	if err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	return frame
}

// exit waits for the process and checks its exit status.
func (p *samplerProcess) exit(t *testing.T, status int) {
	t.Helper()
	watchdog := time.AfterFunc(2*time.Minute, func() { _ = p.Process.Kill() })
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

// Ctrl-C in a terminal and systemd's SIGTERM reach exporter and sampler. The sampler
// continues until the exporter ends it.
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
	for way, want := range map[string]model.Failure{
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

// The sampler logs in the exporter's level and format, to a separate pipe.
func TestSamplerLogsAsTheExporter(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // empty: it logs to stderr
	}{
		"JSON":    {[]string{"info", "json"}, `"level":"ERROR"`},
		"logfmt":  {[]string{"warn", "logfmt"}, "level=ERROR"},
		"by hand": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			executable, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd := exec.Command(executable, tc.args...) // its empty configuration is an error
			cmd.Env = append(os.Environ(), envSampler+"=main")
			cmd.Stderr, cmd.ExtraFiles = &stderr, []*os.File{w, w}
			_ = cmd.Run()
			_ = w.Close()
			records, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			const message = "run by the exporter, not by hand"
			if tc.want == "" {
				if !strings.Contains(stderr.String(), message) || len(records) > 0 {
					t.Errorf("stderr %q, records %q", &stderr, records)
				}
				return
			}
			for _, want := range []string{message, tc.want, "component"} {
				if !strings.Contains(string(records), want) {
					t.Errorf("records %q, want %q in them", records, want)
				}
			}
			if stderr.Len() > 0 {
				t.Errorf("stderr %q", &stderr)
			}
		})
	}
}

// The hidden subcommand explains that it is not run by hand.
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

// An allocation that no sampler needs fails and ends the process, although the machine may
// have the memory. A large one does not.
func TestMemoryIsLimited(t *testing.T) {
	p := startSampler(t, "greedy")
	p.configure(t)
	if got := p.next(t).Inventory.Generation; got != 1<<30 {
		t.Errorf("allocated %d bytes", got)
	}
	if frame, err := p.frames.Next(); err == nil {
		t.Errorf("allocated %d bytes", frame.Inventory.Generation)
	}
	status, message := 2, "out of memory" // of Go's runtime
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		status, message = 66, "failed to allocate" // of the race detector, which doubles each allocation
	}
	p.exit(t, status)
	if !strings.Contains(p.stderr.String(), message) {
		t.Errorf("stderr %q", &p.stderr)
	}
}
