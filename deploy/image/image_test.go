// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package image tests the image with buildah on a base that is made of files of this system, so
// that no registry is needed. It has no code of the exporter.
package image

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"flag"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	enabled = flag.Bool("image", false, "build and run images, as root; make test-image sets it")
	storage = flag.String("storage", "", "directory that keeps images and layers for the next run; buildah does not add new annotations to a kept image")
)

const (
	maxSize = 45e6 // bytes of the files of the image without DCGM
	version = "0.1.0"
	epoch   = "1700000000" // 2023-11-14T22:13:20Z
)

// machine builds and runs images.
type machine struct {
	t      *testing.T
	tool   []string
	dir    string // of this test's files
	source string // the sources of images
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if !*enabled {
		t.Skip("builds images with buildah for some minutes: make test-image runs it")
	}
	if _, err := exec.LookPath("buildah"); err != nil || os.Getuid() != 0 {
		t.Fatal("the test needs root and buildah: apt-get install buildah runc")
	}
	m := &machine{t: t, dir: t.TempDir(), source: "../.."}
	where := *storage
	if where == "" {
		where = filepath.Join(m.dir, "storage")
		t.Cleanup(func() { m.buildah("umount", "--all"); m.buildah("rm", "--all") })
	}
	m.tool = []string{"buildah", "--root", filepath.Join(where, "root"), "--runroot", filepath.Join(where, "run"), "--storage-driver", "overlay"}
	return m
}

// output runs a command, which must succeed. Clean-up uses it after the end of the test's context.
func (m *machine) output(name string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	var log bytes.Buffer
	cmd.Stderr = &log // buildah warns here of images for other architectures
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, &log)
	}
	return strings.TrimSpace(string(out))
}

func (m *machine) buildah(args ...string) string {
	m.t.Helper()
	return m.output(m.tool[0], append(m.tool[1:len(m.tool):len(m.tool)], args...)...)
}

// image makes an image of a directory.
func (m *machine) image(name, arch, dir, instructions string) {
	m.t.Helper()
	file := filepath.Join(m.dir, "Containerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nCOPY . /\n"+instructions), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.buildah("build", "--layers", "--timestamp", "0", "--platform", "linux/"+arch, "-f", file, "-t", "localhost/"+name, dir)
}

// builder makes an image without files. The build stage uses the compilers and caches of this
// system, which are mounted.
func (m *machine) builder() {
	m.t.Helper()
	dir := filepath.Join(m.dir, "builder")
	for _, d := range []string{"usr", "tmp", "etc", "root", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(dir, d)); err != nil {
			m.t.Fatal(err)
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		// Different content, because kept layers keep their architecture.
		if err := os.WriteFile(filepath.Join(dir, "etc/target"), []byte(arch), 0o644); err != nil {
			m.t.Fatal(err)
		}
		m.image("builder:"+arch, arch, dir, "ENV PATH="+os.Getenv("PATH")+" GOMODCACHE=/cache/modules GOCACHE=/cache/build\n")
	}
}

// command is make image for one variant.
func (m *machine) command(name, arch, target string, args ...string) *exec.Cmd {
	m.t.Helper()
	goenv := func(name string) string { return m.output("go", "env", name) }
	all := []string{"--isolation", "chroot", "--build-arg", "BASE=localhost/base:" + arch, "--build-arg", "GO_IMAGE=localhost/builder:" + arch, "--volume", "/usr:/usr:ro"}
	for path, in := range map[string]string{goenv("GOMODCACHE"): "/cache/modules", goenv("GOCACHE"): "/cache/build"} {
		all = append(all, "--volume", path+":"+in)
	}
	return exec.CommandContext(m.t.Context(), "make", "-s", "-C", m.source, "image", "IMAGE=localhost/gpu_exporter:"+name, "ARCH="+arch, "IMAGE_TARGET="+target,
		"IMAGE_TOOL="+strings.Join(m.tool, " "), "VERSION="+version, "REVISION=0000", "SOURCE_DATE_EPOCH="+epoch, "IMAGE_ARGS="+strings.Join(append(all, args...), " "))
}

func (m *machine) build(name, arch, target string, args ...string) {
	m.t.Helper()
	if out, err := m.command(name, arch, target, append([]string{"--layers"}, args...)...).CombinedOutput(); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

// files returns the regular files of an image, and the directory in which it is mounted.
func (m *machine) files(name string) (root string, files []string, size int64) {
	m.t.Helper()
	container := m.buildah("from", "localhost/gpu_exporter:"+name)
	root = m.buildah("mount", container)
	m.t.Cleanup(func() { m.buildah("rm", container) })
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files, size = append(files, strings.TrimPrefix(path, root)), size+info.Size()
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return root, files, size
}

// copySource makes later builds use a copy of the sources.
func (m *machine) copySource() {
	m.t.Helper()
	m.source = m.t.TempDir()
	m.output("sh", "-c", `cd ../.. && git ls-files -z | xargs -0 cp -P --parents -t "$1"`, "sh", m.source)
}

// run runs the exporter of an image.
func (m *machine) run(name string, options []string, args ...string) (out string, err error) {
	m.t.Helper()
	container := m.buildah("from", "localhost/gpu_exporter:"+name)
	defer m.buildah("rm", container)
	all := slices.Concat(m.tool[1:], []string{"run", "--isolation", "chroot"}, options, []string{container, "--", "/usr/bin/gpu_exporter"}, args)
	b, err := exec.CommandContext(m.t.Context(), m.tool[0], all...).CombinedOutput()
	return string(b), err
}

// reads runs the command once, which must read eight GPUs.
func (m *machine) reads(name string, options []string, args ...string) {
	m.t.Helper()
	out, err := m.run(name, options, append([]string{"once"}, args...)...)
	if gpus := len(regexp.MustCompile(`(?m)^gpu_up\{.*\} 1$`).FindAllString(out, -1)); err != nil || gpus != 8 {
		m.t.Errorf("%s reads %d GPUs, want 8: %v\n%s", name, gpus, err, out)
	}
}

// manifest writes an image as an OCI directory. It returns the digest, annotations and
// configuration.
func (m *machine) manifest(name string) (digest string, annotations map[string]string, config ociConfig) {
	m.t.Helper()
	dir := filepath.Join(m.dir, "oci-"+name)
	m.buildah("push", "localhost/gpu_exporter:"+name, "oci:"+dir)
	var index struct{ Manifests []struct{ Digest string } }
	m.decode(filepath.Join(dir, "index.json"), &index)
	var manifest struct {
		Annotations map[string]string
		Config      struct{ Digest string }
	}
	blob := func(digest string) string { return filepath.Join(dir, "blobs", strings.Replace(digest, ":", "/", 1)) }
	m.decode(blob(index.Manifests[0].Digest), &manifest)
	m.decode(blob(manifest.Config.Digest), &config)
	return index.Manifests[0].Digest, manifest.Annotations, config
}

type ociConfig struct {
	Architecture, Created string
	Config                struct {
		User       string
		Env        []string
		Entrypoint []string
		Labels     map[string]string
	}
}

func (m *machine) decode(path string, into any) {
	m.t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// standIn makes an image like NVIDIA's, with the stand-in as DCGM.
func (m *machine) standIn() (libraries string) {
	m.t.Helper()
	dir := filepath.Join(m.dir, "nvidia")
	libraries = filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	m.output("make", "-s", "-C", "../../collector/dcgmsim", "OUT="+filepath.Join(m.dir, "sim"), "CFLAGS=-O1")
	m.output("install", "-D", "-m", "0644", filepath.Join(m.dir, "sim/libdcgm.so.4"), filepath.Join(libraries, "libdcgm.so.4.5.1"))
	m.output("ln", "-s", "libdcgm.so.4.5.1", filepath.Join(libraries, "libdcgm.so.4"))
	m.output("install", "-m", "0644", filepath.Join(m.dir, "sim/libnvidia-ml.so.1"), filepath.Join(libraries, "libdcgmmoduleconfig.so.4"))
	m.image("nvidia", "amd64", dir, "")
	return libraries
}

func TestImage(t *testing.T) {
	m := newMachine(t)
	for _, arch := range []string{"amd64", "arm64"} {
		dir := filepath.Join(m.dir, "base-"+arch)
		m.output("./base.sh", arch, dir)
		m.image("base:"+arch, arch, dir, "")
	}
	m.builder()
	sub := func(name string, f func(*machine)) {
		t.Run(name, func(t *testing.T) {
			inner := *m
			inner.t = t
			f(&inner)
		})
	}
	m.build("test", "amd64", "exporter")

	sub("contents", func(m *machine) {
		root, files, size := m.files("test")
		_, base, baseSize := m.baseFiles()
		files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(base, f) })
		slices.Sort(files)
		const etc = "/etc/dcgm-exporter/"
		want := []string{etc + "1.x-compatibility-metrics.csv", etc + "dcp-metrics-included.csv", etc + "default-counters.csv", "/usr/bin/gpu_exporter", "/usr/share/doc/gpu_exporter/LICENSE"}
		if !slices.Equal(files, want) {
			m.t.Errorf("the image adds %q, want %q", files, want)
		}
		for file, source := range map[string]string{"default-counters.csv": "default", "dcp-metrics-included.csv": "default", "1.x-compatibility-metrics.csv": "1.x-compatibility"} {
			got, err := os.ReadFile(root + etc + file)
			want, _ := os.ReadFile("../../etc/" + source + "-counters.csv")
			if err != nil || !bytes.Equal(got, want) {
				m.t.Errorf("%s differs from etc/%s-counters.csv: %v", file, source, err)
			}
		}
		m.t.Logf("%.1f MB, of which the base has %.1f MB", float64(size)/1e6, float64(baseSize)/1e6)
		if size > maxSize {
			m.t.Errorf("%d bytes, want at most %.0f", size, maxSize)
		}
	})

	sub("metadata", func(m *machine) {
		_, annotations, config := m.manifest("test")
		const prefix = "org.opencontainers.image."
		for name, want := range map[string]string{"title": "gpu_exporter", "licenses": "Apache-2.0", "version": version, "revision": "0000", "created": "2023-11-14T22:13:20Z"} {
			if annotations[prefix+name] != want || config.Config.Labels[prefix+name] != want {
				m.t.Errorf("%s: annotation %q, label %q, want %q", name, annotations[prefix+name], config.Config.Labels[prefix+name], want)
			}
		}
		if config.Config.User != "65534:65534" || !slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/gpu_exporter"}) || config.Architecture != "amd64" {
			m.t.Errorf("the configuration is %+v", config)
		}
	})

	sub("without DCGM", func(m *machine) {
		for args, want := range map[string]string{
			"once":                   "loading libdcgm.so.4 (install datacenter-gpu-manager-4-core, or set --dcgm.library-path)",
			"once --simulate=h100x8": "no stand-ins for NVIDIA's libraries",
			"check-config -f " + "/etc/dcgm-exporter/dcp-metrics-included.csv": "",
		} {
			out, err := m.run("test", nil, strings.Fields(args)...)
			if (err == nil) != (want == "") || !strings.Contains(out, want) {
				m.t.Errorf("%s: %v, want %q in\n%s", args, err, want, out)
			}
		}
	})

	libraries := m.standIn()
	scenario := []string{"--env", "DCGMSIM_SCENARIO=h100x8"}
	sub("DCGM from an image", func(m *machine) {
		m.build("dcgm", "amd64", "exporter", "--build-arg", "DCGM=localhost/nvidia")
		_, files, _ := m.files("dcgm")
		for _, file := range []string{"/usr/lib/dcgm/libdcgm.so.4.5.1", "/usr/lib/dcgm/libdcgmmoduleconfig.so.4"} {
			if !slices.Contains(files, file) {
				m.t.Errorf("the image has no %s", file)
			}
		}
		m.reads("dcgm", scenario)
	})
	sub("DCGM from the node", func(m *machine) {
		m.reads("test", append([]string{"--volume", libraries + ":/usr/lib/dcgm:ro"}, scenario...))
		m.reads("test", append([]string{"--volume", libraries + ":/opt/dcgm:ro"}, scenario...), "--dcgm.library-path=/opt/dcgm")
	})
	sub("image without DCGM", func(m *machine) {
		out, err := m.command("wrong", "amd64", "exporter", "--layers", "--build-arg", "DCGM=localhost/base:amd64").CombinedOutput()
		if want := "error: the image localhost/base:amd64 has no libdcgm.so.4 below /usr/lib: use an image with DCGM 4"; err == nil || !strings.Contains(string(out), want) {
			m.t.Errorf("%v, want %q in\n%s", err, want, out)
		}
	})
	sub("stand-ins", func(m *machine) {
		m.build("sim", "amd64", "sim")
		m.reads("sim", nil, "--simulate=h100x8")
	})
	sub("arm64", func(m *machine) {
		// buildah 1.28 uses the platform of one FROM for all stages. Docker does not.
		m.copySource()
		m.output("sed", "-i", "s/^FROM --platform=[^ ]*/FROM/", filepath.Join(m.source, "deploy/image/Containerfile"))
		m.build("arm64", "arm64", "sim")
		root, _, _ := m.files("arm64")
		for _, file := range []string{"usr/bin/gpu_exporter", "usr/lib/gpu_exporter/sim/libdcgm.so.4", "usr/lib/aarch64-linux-gnu/libc.so.6"} {
			binary, err := elf.Open(filepath.Join(root, file))
			if err != nil || binary.Machine != elf.EM_AARCH64 {
				m.t.Errorf("%s is not for arm64: %v", file, err)
				continue
			}
			_ = binary.Close()
		}
		if _, _, config := m.manifest("arm64"); config.Architecture != "arm64" {
			m.t.Errorf("the architecture is %s", config.Architecture)
		}
	})
	sub("same digest", func(m *machine) {
		// Layers of earlier builds are not used, and have another history.
		fresh := func(name string) (digest string) {
			if out, err := m.command(name, "amd64", "exporter", "--no-cache").CombinedOutput(); err != nil {
				m.t.Fatalf("%v\n%s", err, out)
			}
			digest, _, _ = m.manifest(name)
			return digest
		}
		first := fresh("first")
		m.copySource()
		if again := fresh("again"); again != first {
			m.t.Errorf("the digest of the second build is %s, want %s", again, first)
		}
		m.t.Log(first)
	})
}

// baseFiles returns the files of the base.
func (m *machine) baseFiles() (root string, files []string, size int64) {
	m.t.Helper()
	m.buildah("tag", "localhost/base:amd64", "localhost/gpu_exporter:base")
	return m.files("base")
}

// TestContext: what make image needs is in the context, and nothing else is.
func TestContext(t *testing.T) {
	text, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	included := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			included[name] = true
			if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
				t.Error(err)
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}", "gpu_exporter/cmd/gpu_exporter").Output()
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]bool{"LICENSE": true, "Makefile": true, "go.mod": true, "go.sum": true}
	for _, path := range strings.Fields(string(out)) {
		needed[strings.Split(path, "/")[1]] = true
	}
	if !maps.Equal(included, needed) {
		t.Errorf("the context has %v, the build needs %v", slices.Sorted(maps.Keys(included)), slices.Sorted(maps.Keys(needed)))
	}
}
