// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

// The libraries that the sampler loads.
const (
	DCGMLibrary = "libdcgm.so.4"
	NVMLLibrary = "libnvidia-ml.so.1"
)

const (
	simEngine  = "dcgmsimd" // a standalone engine over the stand-ins
	simTimeout = 10 * time.Second
)

// Environment variables. Those of the stand-ins are documented in
// collector/dcgmsim.
const (
	envScenario = "DCGMSIM_SCENARIO" // name or path
	envState    = "DCGMSIM_STATE"    // file that all stand-ins of a node share
	envControl  = "DCGMSIM_CONTROL"  // unix socket that receives commands
	envKMsg     = "DCGMSIM_KMSG"     // file with the kernel log; unset: none

	envLoaderPath = "LD_LIBRARY_PATH"
	envTraceback  = "GOTRACEBACK"      // of package runtime
	envArenas     = "MALLOC_ARENA_MAX" // of glibc, see mallopt(3)
)

// ErrNoStandIns is returned by [NewEnvironment] if the stand-ins that --simulate
// needs are not installed.
var ErrNoStandIns = errors.New("no stand-ins for NVIDIA's libraries")

// Environment is the sampler's environment beyond the exporter's own.
type Environment struct {
	Env       []string // NAME=value
	Summary   string   // what is simulated; empty: nothing
	Steering  string   // the start of a command line that steers the simulated node; a command follows
	KernelLog string   // of the simulated node; empty: none
	Warning   string   // a probable mistake; empty: none

	inherited func(string) (string, bool) // the exporter's environment
	remove    *os.File                    // directory to remove at exit, which the process locks
}

// Close removes the files of a simulation.
func (e *Environment) Close() error {
	if e.remove == nil {
		return nil
	}
	err := errors.Join(os.RemoveAll(e.remove.Name()), e.remove.Close())
	e.remove = nil
	if err != nil {
		return fmt.Errorf("removing the simulation's files: %w", err)
	}
	return nil
}

// simDirectory creates a directory and locks it for the life of the process. It first
// removes those whose process was killed.
func simDirectory() (*os.File, error) {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), config.ProgramName+"-sim-*"))
	for _, path := range left {
		// A process that is starting may not have locked its directory yet.
		if info, err := os.Lstat(path); err != nil || !info.IsDir() || time.Since(info.ModTime()) < simTimeout {
			continue
		}
		if dir, err := lockDirectory(path); err == nil {
			_ = errors.Join(os.RemoveAll(path), dir.Close()) // fails for directories of other users
		}
	}
	path, err := os.MkdirTemp("", config.ProgramName+"-sim-")
	if err != nil {
		return nil, fmt.Errorf("creating a directory for the simulation: %w: set TMPDIR to a writable directory", err)
	}
	return lockDirectory(path)
}

func lockDirectory(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the simulation's directory: %w", err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("locking the simulation's directory: %w", err)
	}
	return dir, nil
}

// NewEnvironment finds the libraries and prepares the simulated node. environ is
// the exporter's environment, executable the path of its program. The caller
// closes the result, also after an error.
func NewEnvironment(c *config.Static, environ []string, executable string) (Environment, error) {
	e := Environment{inherited: config.Lookup(environ)}
	for _, unlessSet := range []struct{ name, value string }{
		// A crash in native code then prints two lines. The Go stacks explain little,
		// and would be printed again by each restart.
		{envTraceback, "none"},
		// Go makes native calls from many threads. With an arena each, every thread would
		// keep the memory of its largest message: 1 MiB for a health check.
		{envArenas, "1"},
	} {
		if e.lookup(unlessSet.name) == "" {
			e.set(unlessSet.name, unlessSet.value)
		}
	}
	switch {
	case c.Simulate != "":
		err := e.simulate(c.Simulate, executable)
		return e, err
	case c.LibraryPath != "":
		if _, err := os.Stat(filepath.Join(c.LibraryPath, DCGMLibrary)); err != nil {
			e.Warning = fmt.Sprintf("--dcgm.library-path=%s has no %s (%v): the system's library is used if there is one", c.LibraryPath, DCGMLibrary, errors.Unwrap(err))
		}
		dir, err := filepath.Abs(c.LibraryPath)
		if err != nil {
			return e, fmt.Errorf("resolving --dcgm.library-path: %w", err)
		}
		e.loadFrom(dir)
	}
	return e, nil
}

// findScenario returns a built-in name, or the absolute path of a scenario file.
func findScenario(scenario string) (string, error) {
	if slices.Contains(config.Scenarios(), scenario) {
		return scenario, nil
	}
	path, err := filepath.Abs(scenario)
	if err != nil {
		return "", fmt.Errorf("resolving --simulate: %w", err)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("--simulate=%s: neither the path of a scenario file nor a known name: use %s", scenario, config.ListOf(config.Scenarios()))
	}
	return path, nil
}

func (e *Environment) simulate(scenario, executable string) error {
	scenario, err := findScenario(scenario)
	if err != nil {
		return err
	}
	libraries, err := simLibraries(executable)
	if err != nil {
		return err
	}
	e.loadFrom(libraries)
	e.set(envScenario, scenario)
	e.KernelLog = e.lookup(envKMsg)

	// A caller that sets these shares the simulated node, or steers it.
	state, control := e.lookup(envState), e.lookup(envControl)
	if state == "" || control == "" {
		if e.remove, err = simDirectory(); err != nil {
			return err
		}
	}
	if state == "" {
		state = filepath.Join(e.remove.Name(), "state")
		e.set(envState, state)
	}
	if control == "" {
		e.set(envControl, filepath.Join(e.remove.Name(), "control.sock"))
	}
	e.Summary = "node " + scenario
	if !isFile(libraries, simEngine) {
		return nil // installed without the engine, which is optional
	}
	engine := filepath.Join(libraries, simEngine)
	e.Steering = fmt.Sprintf("%s=%s %s --command", envState, state, engine)
	return e.tryScenario(engine, scenario)
}

// tryScenario makes the engine read the scenario. The sampler would retry a
// scenario with a mistake for ever.
func (e *Environment) tryScenario(engine, scenario string) error {
	ctx, cancel := context.WithTimeout(context.Background(), simTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, engine, "--command", "state")
	cmd.Env = append(os.Environ(), e.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("--simulate=%s: %s", scenario, cmp.Or(strings.TrimPrefix(strings.TrimSpace(string(out)), "error: "), err.Error()))
	}
	return nil
}

// simLibraries finds the stand-ins: next to the program, where the build puts
// them, or below the prefix that the program is installed in.
func simLibraries(executable string) (string, error) {
	bin := filepath.Dir(executable)
	dirs := []string{filepath.Join(bin, "sim"), filepath.Join(filepath.Dir(bin), "lib", config.ProgramName, "sim")}
	for _, dir := range dirs {
		if isFile(dir, DCGMLibrary) && isFile(dir, NVMLLibrary) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("--simulate: %w (%s and %s) in %s: build them with make build", ErrNoStandIns, DCGMLibrary, NVMLLibrary, strings.Join(dirs, " or "))
}

func isFile(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && !info.IsDir()
}

// loadFrom makes the loader search dir first.
func (e *Environment) loadFrom(dir string) {
	if before := e.lookup(envLoaderPath); before != "" {
		dir += string(os.PathListSeparator) + before
	}
	e.set(envLoaderPath, dir)
}

func (e *Environment) set(name, value string) { e.Env = append(e.Env, name+"="+value) }

func (e *Environment) lookup(name string) string {
	value, _ := e.inherited(name)
	return value
}
