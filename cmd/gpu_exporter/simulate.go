// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

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
	"time"
)

const (
	dcgmLibrary = "libdcgm.so.4"
	nvmlLibrary = "libnvidia-ml.so.1"
	simEngine   = "dcgmsimd" // a standalone engine over the stand-ins
	simTimeout  = 10 * time.Second
)

// The environment variables that steer the stand-ins; see collector/dcgmsim.
const (
	envScenario = "DCGMSIM_SCENARIO" // name or path
	envState    = "DCGMSIM_STATE"    // file that all stand-ins of a node share
	envControl  = "DCGMSIM_CONTROL"  // unix socket that takes commands
	envKMsg     = "DCGMSIM_KMSG"     // file with the kernel log; none if not set
)

const (
	envLoaderPath = "LD_LIBRARY_PATH"
	envTraceback  = "GOTRACEBACK" // of package runtime
)

func scenarioList() string { return listOf(scenarios()) }

// samplerEnv is what the sampler process finds in its environment beyond the
// exporter's own.
type samplerEnv struct {
	Env      []string // NAME=value
	Summary  string   // what is simulated, in a few words; empty if nothing is
	Steering string   // a command line that steers what is simulated
	Warning  string   // what will probably go wrong; empty if nothing

	inherited func(string) (string, bool)
	remove    string // directory to remove at exit
}

// Close removes the files of a simulation.
func (e samplerEnv) Close() error {
	if e.remove == "" {
		return nil
	}
	if err := os.RemoveAll(e.remove); err != nil {
		return fmt.Errorf("removing the simulation's files: %w", err)
	}
	return nil
}

// newSamplerEnv says where the sampler's loader finds libdcgm, and which node the
// stand-ins simulate. environ is the exporter's environment, executable the path
// of its program. The caller closes the result, also after an error.
func newSamplerEnv(c config, environ []string, executable string) (samplerEnv, error) {
	e := samplerEnv{inherited: lookupIn(environ)}
	if v, _ := e.inherited(envTraceback); v == "" {
		// A fault in native code is told in two lines. The Go stacks behind it say
		// little, and would come again with every restart.
		e.set(envTraceback, "none")
	}
	switch {
	case c.Simulate != "":
		err := e.simulate(c.Simulate, executable)
		return e, err
	case c.LibraryPath != "":
		if _, err := os.Stat(filepath.Join(c.LibraryPath, dcgmLibrary)); err != nil && c.StartupChecks {
			e.Warning = fmt.Sprintf("--%s=%s: there is no %s (%v): the system's will be used if it has one", optLibraryPath, c.LibraryPath, dcgmLibrary, errors.Unwrap(err))
		}
		dir, err := filepath.Abs(c.LibraryPath)
		if err != nil {
			return e, fmt.Errorf("resolving --%s: %w", optLibraryPath, err)
		}
		e.loadFrom(dir)
	}
	return e, nil
}

// findScenario returns what the stand-ins take for a scenario: a known name, or
// the absolute path of a file.
func findScenario(scenario string) (string, error) {
	if slices.Contains(scenarios(), scenario) {
		return scenario, nil
	}
	path, err := filepath.Abs(scenario)
	if err != nil {
		return "", fmt.Errorf("resolving --%s: %w", optSimulate, err)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("--%s=%s: neither the path of a scenario file nor a known name: use %s", optSimulate, scenario, scenarioList())
	}
	return path, nil
}

func (e *samplerEnv) simulate(scenario, executable string) error {
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

	// Whoever sets these already wants to share the simulated node or to steer it.
	state, hasState := e.inherited(envState)
	control, hasControl := e.inherited(envControl)
	hasState, hasControl = hasState && state != "", hasControl && control != ""
	if !hasState || !hasControl {
		dir, err := os.MkdirTemp("", programName+"-sim-")
		if err != nil {
			return fmt.Errorf("making a directory for the simulation: %w", err)
		}
		e.remove = dir
		if !hasState {
			e.set(envState, filepath.Join(dir, "state"))
		}
		if !hasControl {
			control = filepath.Join(dir, "control.sock")
			e.set(envControl, control)
		}
	}
	e.Summary = "node " + scenario
	return e.tryScenario(libraries, scenario)
}

// tryScenario has the scenario read before a sampler does, which would try a
// mistaken one for ever, and says how to steer the node.
func (e *samplerEnv) tryScenario(libraries, scenario string) error {
	engine := filepath.Join(libraries, simEngine)
	if !hasFile(libraries, simEngine) {
		return nil // installed without it: the libraries do the job
	}
	state, _ := lookupIn(e.Env)(envState)
	if state == "" {
		state, _ = e.inherited(envState)
	}
	e.Steering = fmt.Sprintf("%s=%s %s --command 'xid 79 gpu 0'", envState, state, engine)
	ctx, cancel := context.WithTimeout(context.Background(), simTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, engine, "--command", "state")
	cmd.Env = append(os.Environ(), e.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("--%s=%s: %s", optSimulate, scenario, cmp.Or(strings.TrimPrefix(strings.TrimSpace(string(out)), "error: "), err.Error()))
	}
	return nil
}

// simLibraries finds the stand-ins: beside the program, as the build puts them,
// or below the prefix that the program is installed in.
func simLibraries(executable string) (string, error) {
	bin := filepath.Dir(executable)
	dirs := []string{filepath.Join(bin, "sim"), filepath.Join(filepath.Dir(bin), "lib", programName, "sim")}
	for _, dir := range dirs {
		if hasFile(dir, dcgmLibrary) && hasFile(dir, nvmlLibrary) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("--%s: no stand-ins for NVIDIA's libraries (%s and %s) in %s: build them with make build", optSimulate, dcgmLibrary, nvmlLibrary, strings.Join(dirs, " or "))
}

func hasFile(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && !info.IsDir()
}

// loadFrom puts dir in front of where the loader looks.
func (e *samplerEnv) loadFrom(dir string) {
	if before, _ := e.inherited(envLoaderPath); before != "" {
		dir += string(os.PathListSeparator) + before
	}
	e.set(envLoaderPath, dir)
}

func (e *samplerEnv) set(name, value string) { e.Env = append(e.Env, name+"="+value) }
