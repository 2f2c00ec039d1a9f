// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	dcgmLibrary = "libdcgm.so.4"
	nvmlLibrary = "libnvidia-ml.so.1"
)

// The environment variables that steer the stand-ins; see collector/dcgmsim.
const (
	envScenario = "DCGMSIM_SCENARIO" // name or path
	envState    = "DCGMSIM_STATE"    // file that all stand-ins of a node share
	envControl  = "DCGMSIM_CONTROL"  // unix socket that takes commands
)

const envLoaderPath = "LD_LIBRARY_PATH"

// scenarios are the names that --simulate knows.
func scenarios() []string {
	return []string{"h100x8", "h100x8-mig", "a100x8", "a100x7-mig", "t4x1", "mixed4", "none"}
}

func scenarioList() string { return listOf(scenarios()) }

// samplerEnv is what the sampler process finds in its environment beyond the
// exporter's own.
type samplerEnv struct {
	Env     []string // NAME=value
	Summary string   // what is simulated, in one line; empty if nothing is
	Warning string   // what will probably go wrong; empty if nothing

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

func (e *samplerEnv) simulate(scenario, executable string) error {
	known := slices.Contains(scenarios(), scenario)
	if !known {
		path, err := filepath.Abs(scenario)
		if err != nil {
			return fmt.Errorf("resolving --%s: %w", optSimulate, err)
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("--%s=%s: neither the path of a scenario file nor a known name: use %s", optSimulate, scenario, scenarioList())
		}
		scenario = path
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
	e.Summary = fmt.Sprintf("simulated node %s (stand-ins in %s, steered through %s)", scenario, libraries, control)
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
