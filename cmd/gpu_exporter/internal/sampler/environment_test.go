// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package sampler

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

// install creates a directory with empty files of the given names.
func install(t *testing.T, dir string, names ...string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEnvironmentSimulation(t *testing.T) {
	for _, tt := range []struct {
		name      string
		bin, libs string
	}{{"as built", "build", "build/sim"}, {"as installed", "usr/bin", "usr/lib/gpu_exporter/sim"}} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			libs := install(t, filepath.Join(root, tt.libs), DCGMLibrary, NVMLLibrary)
			executable := filepath.Join(install(t, filepath.Join(root, tt.bin), config.ProgramName), config.ProgramName)
			e, err := NewEnvironment(&config.Static{Simulate: "h100x8"}, []string{"LD_LIBRARY_PATH=/opt/lib"}, executable)
			if err != nil {
				t.Fatal(err)
			}
			dir := e.remove.Name()
			want := []string{
				"GOTRACEBACK=none", "MALLOC_ARENA_MAX=1",
				"LD_LIBRARY_PATH=" + libs + ":/opt/lib",
				"DCGMSIM_SCENARIO=h100x8",
				"DCGMSIM_STATE=" + dir + "/state",
				"DCGMSIM_CONTROL=" + dir + "/control.sock",
			}
			if !slices.Equal(e.Env, want) {
				t.Errorf("got  %q\nwant %q", e.Env, want)
			}
			if e.Summary != "node h100x8" {
				t.Errorf("summary %q", e.Summary)
			}
			install(t, dir, "state")
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%s is left behind (%v)", dir, err)
			}
		})
	}
}

// The files of a simulated node that a test or a second exporter names are kept.
func TestEnvironmentGivenState(t *testing.T) {
	root := t.TempDir()
	install(t, filepath.Join(root, "sim"), DCGMLibrary, NVMLLibrary)
	scenario := filepath.Join(install(t, root, "node.scenario"), "node.scenario")
	e, err := NewEnvironment(&config.Static{Simulate: scenario}, []string{"DCGMSIM_STATE=/s", "DCGMSIM_CONTROL=/c"}, filepath.Join(root, config.ProgramName))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"GOTRACEBACK=none", "MALLOC_ARENA_MAX=1", "LD_LIBRARY_PATH=" + root + "/sim", "DCGMSIM_SCENARIO=" + scenario}
	if !slices.Equal(e.Env, want) || e.remove != nil {
		t.Errorf("got  %q, to remove %v\nwant %q", e.Env, e.remove, want)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestEnvironmentErrors(t *testing.T) {
	root := t.TempDir()
	executable := filepath.Join(root, "bin", config.ProgramName)
	_, err := NewEnvironment(&config.Static{Simulate: "h100x8"}, nil, executable)
	want := "--simulate: no stand-ins for NVIDIA's libraries (libdcgm.so.4 and libnvidia-ml.so.1) in " +
		root + "/bin/sim or " + root + "/lib/gpu_exporter/sim: build them with make build"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err = NewEnvironment(&config.Static{Simulate: "h200x9"}, nil, executable)
	if err == nil || !strings.Contains(err.Error(), "neither the path of a scenario file nor a known name: use h100x8, h100x8-mig, a100x8, a100x7-mig, t4x1, mixed4, dgx-h100, gb200 or none") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironmentLibraryPath(t *testing.T) {
	with, without := install(t, t.TempDir(), DCGMLibrary), t.TempDir()
	tests := []struct {
		name    string
		config  config.Static
		environ []string
		want    []string
		warning string
	}{
		{name: "real libraries", config: config.Static{}, environ: []string{"LD_LIBRARY_PATH=/opt"}},
		{name: "given", config: config.Static{LibraryPath: with}, want: []string{"LD_LIBRARY_PATH=" + with}},
		{name: "given, in front of others", config: config.Static{LibraryPath: with},
			environ: []string{"LD_LIBRARY_PATH=/opt"}, want: []string{"LD_LIBRARY_PATH=" + with + ":/opt"}},
		{name: "missing", config: config.Static{LibraryPath: without}, want: []string{"LD_LIBRARY_PATH=" + without},
			warning: "has no libdcgm.so.4 (no such file or directory)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := NewEnvironment(&tt.config, tt.environ, "/usr/bin/gpu_exporter")
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]string{"GOTRACEBACK=none", "MALLOC_ARENA_MAX=1"}, tt.want...); !slices.Equal(e.Env, want) {
				t.Errorf("got  %q\nwant %q", e.Env, want)
			}
			if (tt.warning == "") != (e.Warning == "") || !strings.Contains(e.Warning, tt.warning) {
				t.Errorf("warning %q, want %q", e.Warning, tt.warning)
			}
			if e.Summary != "" {
				t.Errorf("summary %q, but nothing is simulated", e.Summary)
			}
		})
	}
}

// A directory of a killed process is removed by the next start. That of a running process
// is kept, and a directory that is too new to be locked as well.
func TestSimulationOfAKilledProcess(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	create := func(name string, age time.Duration) string {
		path := filepath.Join(temp, config.ProgramName+"-sim-"+name)
		install(t, path, "state")
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	killed, running, starting := create("killed", time.Hour), create("running", time.Hour), create("starting", 0)
	lock, err := lockDirectory(running)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	dir, err := simDirectory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	for path, want := range map[string]bool{killed: false, running: true, starting: true, dir.Name(): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it to exist: %v", path, err, want)
		}
	}
}
