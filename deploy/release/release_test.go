// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package release tests the files of a release. It has no code of the exporter.
package release

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

var (
	enabled = flag.Bool("release", false, "build releases; make test-release sets it")
	cold    = flag.Bool("cold", false, "compile the second release without a cache")
)

const version = "0.1.0"

func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// build copies the sources to a directory without a history, builds a release there, and returns
// the directory of its files and what was printed.
func build(t *testing.T, dir, key string, environ ...string) (out, printed string) {
	t.Helper()
	output(t, "../..", "sh", "-c", `mkdir -p "$1" && git ls-files -z | xargs -0 cp -P --parents -t "$1"`, "sh", dir)
	out = filepath.Join(dir, "build", "release")
	cmd := exec.CommandContext(t.Context(), "make", "-s", "-C", dir, "release", "VERSION="+version, "REVISION=0000", "SOURCE_DATE_EPOCH=1700000000",
		"SIGN_KEY="+key, "TOOLS="+filepath.Dir(exportertest.Built(t, "tools", "minisign")))
	cmd.Env = append(os.Environ(), environ...)
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make release: %v\n%s", err, b)
	}
	return out, string(b)
}

// sums returns the digests of the files of a directory.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		all[e.Name()] = hex.EncodeToString(sum[:])
	}
	return all
}

// contents returns the names of the files in an archive.
func contents(t *testing.T, path string) (names []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Uname != "" || header.ModTime.Unix() != 1700000000 {
			t.Errorf("%s: %s has the owner %d %q and the time %v", path, header.Name, header.Uid, header.Uname, header.ModTime)
		}
		if header.Typeflag == tar.TypeReg {
			names = append(names, header.Name)
		}
	}
}

// TestRelease: releases of equal sources are equal, and have what they state.
func TestRelease(t *testing.T) {
	if !*enabled {
		t.Skip("builds two releases for some minutes: make test-release runs it")
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	output(t, dir, exportertest.Built(t, "tools", "minisign"), "-G", "-W", "-p", key+".pub", "-s", key)
	first, printed := build(t, filepath.Join(dir, "a"), key)
	t.Log(printed)

	files := sums(t, first)
	expect := []string{"SHA256SUMS", "SHA256SUMS.minisig", "gpu_exporter-rules-" + version + ".tar.gz", "gpu_exporter-dashboards-" + version + ".tar.gz", "gpu-exporter-" + version + ".tgz"}
	for _, name := range []string{"gpu-exporter", "gpu-exporter-sim"} {
		for deb, rpm := range map[string]string{"amd64": "x86_64", "arm64": "aarch64"} {
			expect = append(expect, name+"_"+version+"-1_"+deb+".deb", name+"-"+version+"-1."+rpm+".rpm")
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		name := "gpu_exporter-" + version + ".linux-" + arch
		expect = append(expect, name+".tar.gz", name+".cdx.json", "gpu_exporter-sim-"+version+".linux-"+arch+".tar.gz")
		if want := arch + ": the binary reads 8 simulated GPUs"; !strings.Contains(printed, want) {
			t.Errorf("make release printed %q, want %q in it", printed, want)
		}
	}
	for _, name := range expect {
		if files[name] == "" {
			t.Errorf("%s is missing in %q", name, slices.Sorted(maps.Keys(files)))
		}
	}
	if t.Failed() {
		t.FailNow()
	}

	for _, arch := range []string{"amd64", "arm64"} {
		root := "gpu_exporter-" + version + ".linux-" + arch + "/"
		normal := contents(t, filepath.Join(first, "gpu_exporter-"+version+".linux-"+arch+".tar.gz"))
		for _, file := range []string{"gpu_exporter", "LICENSE", "CHANGELOG.md", "etc/default-counters.csv", "etc/gpu_exporter.yaml"} {
			if !slices.Contains(normal, root+file) {
				t.Errorf("%s: the archive has no %s: %q", arch, file, normal)
			}
		}
		if i := slices.IndexFunc(normal, func(f string) bool { return strings.Contains(f, "sim") || strings.Contains(f, ".so") }); i >= 0 {
			t.Errorf("%s: the archive has the stand-in %s", arch, normal[i])
		}
		want := []string{root + "sim/dcgmsimd", root + "sim/libdcgm.so.4", root + "sim/libnvidia-ml.so.1"}
		if sim := contents(t, filepath.Join(first, "gpu_exporter-sim-"+version+".linux-"+arch+".tar.gz")); !slices.Equal(sim, want) {
			t.Errorf("%s: the archive of stand-ins has %q, want %q", arch, sim, want)
		}
		var sbom struct {
			BOMFormat, SpecVersion string
			Metadata               struct {
				Component struct{ Name, Version string }
			}
			Components []struct{ Name, Version string }
		}
		text, err := os.ReadFile(filepath.Join(first, strings.TrimSuffix(root, "/")+".cdx.json"))
		if err == nil {
			err = json.Unmarshal(text, &sbom)
		}
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]string{}
		for _, c := range sbom.Components {
			known[c.Name] = c.Version
		}
		if sbom.BOMFormat != "CycloneDX" || sbom.Metadata.Component.Version != version || known["github.com/NVIDIA/go-dcgm"] == "" || known["std"] == "" {
			t.Errorf("%s: the SBOM %s %s of %+v has %d components: %v", arch, sbom.BOMFormat, sbom.SpecVersion, sbom.Metadata, len(known), known)
		}
	}
	if rules := contents(t, filepath.Join(first, "gpu_exporter-rules-"+version+".tar.gz")); !slices.Contains(rules, "gpu_exporter-rules-"+version+"/alerts.yaml") {
		t.Errorf("the rules are %q", rules)
	}
	output(t, first, "sha256sum", "--check", "--strict", "SHA256SUMS")
	if listed, err := os.ReadFile(filepath.Join(first, "SHA256SUMS")); err != nil || strings.Count(string(listed), "\n") != len(files)-2 {
		t.Errorf("SHA256SUMS does not list all files: %v\n%s", err, listed)
	}
	output(t, first, exportertest.Built(t, "tools", "minisign"), "-V", "-p", key+".pub", "-m", "SHA256SUMS")

	// Dependencies and results of the compiler have other paths in the second build.
	environ := []string{"TMPDIR=" + filepath.Join(dir, "temporary")}
	if err := os.Mkdir(filepath.Join(dir, "temporary"), 0o700); err != nil {
		t.Fatal(err)
	}
	if *cold {
		environ = append(environ, "GOCACHE="+filepath.Join(dir, "cache"))
	}
	second, _ := build(t, filepath.Join(dir, "another", "directory"), key, environ...)
	if again := sums(t, second); !maps.Equal(again, files) {
		for name, sum := range files {
			if again[name] != sum {
				t.Errorf("%s has the SHA-256 %s, then %q", name, sum, again[name])
			}
		}
	}
	for name, sum := range files {
		t.Logf("%s  %s", sum, name)
	}
}

// TestReleaseVersion: a version that packages and charts reject is rejected at once.
func TestReleaseVersion(t *testing.T) {
	for _, version := range []string{"v0.1.0", "0.1", "0.1.0 "} {
		cmd := exec.CommandContext(t.Context(), "./release.sh")
		cmd.Env = append(os.Environ(), "VERSION="+version, "REVISION=0", "SOURCE_DATE_EPOCH=0", "TOOLS=/nowhere", "OUT=/nowhere")
		out, err := cmd.CombinedOutput()
		if want := "error: VERSION=" + version + ": use a semantic version without v, such as 0.1.0\n"; err == nil || string(out) != want {
			t.Errorf("%v, %q, want %q", err, out, want)
		}
	}
}
