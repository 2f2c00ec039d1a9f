// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"bytes"
	"debug/elf"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var rootDir = flag.String("root", "", "directory with a Debian that boots; empty skips the tests of packages")

const nextVersion = "99.0.0"

// build builds the packages of a version for this machine, as make packages does.
func build(t *testing.T, version string) (dir string) {
	t.Helper()
	if *rootDir == "" {
		t.Skip("no packages: run make test-packages")
	}
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "./build.sh")
	cmd.Env = append(os.Environ(), "OUT="+dir, "PACKAGE_VERSION="+version, "ARCHS="+runtime.GOARCH)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building version %s: %v\n%s", version, err, output)
	}
	return dir
}

// thisVersion is the version of the packages.
func thisVersion() string { return os.Getenv("PACKAGE_VERSION") }

// onePackage returns the path of a package.
func onePackage(t *testing.T, dir, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %v, want one package", pattern, paths)
	}
	return paths[0]
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// TestPackages tests the packages of this machine's architecture.
func TestPackages(t *testing.T) {
	dir := build(t, thisVersion())
	for name, test := range map[string]func(t *testing.T, dir string){
		"lint": testLint, "C library": testCLibrary, "content": testContent, "equal bytes": testEqualBytes,
	} {
		t.Run(name, func(t *testing.T) { test(t, dir) })
	}
	next := build(t, nextVersion)
	t.Run("deb", func(t *testing.T) { testDeb(t, dir, next) })
	t.Run("rpm", func(t *testing.T) { testRPM(t, dir, next) })
}

// Lint reports nothing but what the overrides explain.
func testLint(t *testing.T, dir string) {
	for _, name := range []string{"gpu-exporter_*.deb", "gpu-exporter-sim_*.deb"} {
		t.Run(name, func(t *testing.T) {
			for line := range strings.Lines(run(t, "lintian", "--allow-root", "--fail-on", "none", "--display-info", onePackage(t, dir, name))) {
				if !strings.HasPrefix(line, "N:") { // about overridden ones
					t.Error(line)
				}
			}
		})
	}
	for _, name := range []string{"gpu-exporter-[0-9]*.rpm", "gpu-exporter-sim-*.rpm"} {
		t.Run(name, func(t *testing.T) {
			out := run(t, "rpmlint", "--config", "rpmlint.toml", onePackage(t, dir, name))
			if !strings.Contains(out, " 0 errors, 0 warnings") {
				t.Error(out)
			}
		})
	}
}

// The packages depend on the version of the C library that their programs need.
func testCLibrary(t *testing.T, dir string) {
	for _, name := range []string{"gpu-exporter_*.deb", "gpu-exporter-sim_*.deb"} {
		path, root := onePackage(t, dir, name), filepath.Join(t.TempDir(), "root")
		run(t, "dpkg-deb", "-x", path, root)
		newest := "2.34" // the oldest that the packages allow
		for _, program := range []string{"usr/bin/gpu_exporter", "usr/lib/gpu_exporter/sim/dcgmsimd", "usr/lib/gpu_exporter/sim/libdcgm.so.4", "usr/lib/gpu_exporter/sim/libnvidia-ml.so.1"} {
			f, err := elf.Open(filepath.Join(root, program))
			if os.IsNotExist(err) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			symbols, err := f.ImportedSymbols()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range symbols {
				if version, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && compareVersions(version, newest) > 0 {
					t.Errorf("%s: %s needs the C library %s", program, s.Name, version)
				}
			}
		}
		if depends := run(t, "dpkg-deb", "-f", path, "Depends"); !strings.Contains(depends, "libc6 (>= "+newest+")") {
			t.Errorf("%s depends on %s", name, depends)
		}
	}
}

// compareVersions compares versions of the C library, such as 2.34 and 2.4.
func compareVersions(a, b string) int {
	pad := func(s string) string {
		var padded []string
		for part := range strings.SplitSeq(s, ".") {
			padded = append(padded, strings.Repeat("0", 4-len(part))+part)
		}
		return strings.Join(padded, ".")
	}
	return strings.Compare(pad(a), pad(b))
}

// No package contains a stand-in but the one for them.
func testContent(t *testing.T, dir string) {
	for tool, name := range map[string]string{"dpkg-deb": "gpu-exporter_*.deb", "rpm": "gpu-exporter-[0-9]*.rpm"} {
		args := []string{"-c", onePackage(t, dir, name)}
		if tool == "rpm" {
			args = []string{"-qlp", "--nosignature", onePackage(t, dir, name)}
		}
		list := run(t, tool, args...)
		for _, want := range []string{
			"/usr/bin/gpu_exporter", "/usr/lib/systemd/system/gpu_exporter.service", "/usr/lib/sysusers.d/gpu_exporter.conf",
			"/etc/gpu_exporter/gpu_exporter.yaml", "/etc/default/gpu_exporter", "/usr/share/man/man1/gpu_exporter.1.gz",
			"/usr/share/bash-completion/completions/gpu_exporter", "/_gpu_exporter", "/gpu_exporter.fish",
			"/usr/share/gpu_exporter/rules/alerts.yaml", "/usr/share/gpu_exporter/rules/recording.yaml",
			"/usr/share/gpu_exporter/dashboards/fleet.json", "/usr/share/gpu_exporter/drop-ins/profiling.conf",
		} {
			if !strings.Contains(list, want+"\n") {
				t.Errorf("%s: no %s", name, want)
			}
		}
		if strings.Contains(list, "/sim") {
			t.Errorf("%s contains stand-ins:\n%s", name, list)
		}
	}
}

// Equal sources give equal packages.
func testEqualBytes(t *testing.T, dir string) {
	again := build(t, thisVersion())
	names, err := filepath.Glob(filepath.Join(again, "*.*"))
	if err != nil || len(names) != 4 {
		t.Fatalf("%v: %v", names, err)
	}
	for _, path := range names {
		first, err := os.ReadFile(filepath.Join(dir, filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		second, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%s differs", filepath.Base(path))
		}
	}
}

// Prometheus accepts the configuration of the Slurm site, with the nodes and the rules.
func TestExamples(t *testing.T) {
	promtool, err := filepath.Abs("../../build/tools/promtool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(promtool); err != nil {
		t.Fatalf("%v: run make promtool", err)
	}
	rules, err := filepath.Abs("../prometheus")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../systemd/examples/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := os.ReadFile("../systemd/examples/gpu-nodes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const installed = "/usr/share/gpu_exporter/rules/*.yaml"
	for name, content := range map[string]string{
		"prometheus.yaml": strings.Replace(string(text), "- "+installed, "- "+rules+"/alerts.yaml\n  - "+rules+"/recording.yaml", 1),
		"gpu-nodes.yaml":  string(nodes),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := run(t, promtool, "check", "config", filepath.Join(dir, "prometheus.yaml"))
	if !strings.Contains(out, "2 rule files found") {
		t.Errorf("promtool check config: %s", out)
	}
	out = run(t, promtool, "check", "service-discovery", "--timeout=10s", filepath.Join(dir, "prometheus.yaml"), "gpu_exporter")
	if got := strings.Count(out, `"instance": "gpu`); got != 64 || !strings.Contains(out, `"instance": "gpu64"`) {
		t.Errorf("%d targets, want 64:\n%.2000s", got, out)
	}
}
