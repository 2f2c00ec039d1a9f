// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// pauseImage is the image of all containers, including sandboxes.
const pauseImage = "localhost/pause:e2e"

// startContainerd starts containerd and imports pauseImage.
func startContainerd(t *testing.T, m *machine) {
	t.Helper()
	config := filepath.Join(m.dir, "containerd.toml")
	if err := os.WriteFile(config, []byte(containerdConfig(m)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.start("containerd", exec.Command("containerd", "--config", config)); err != nil {
		t.Fatal(err)
	}
	if err := poll(patience, 20*time.Millisecond, func() error {
		_, err := m.run("ctr", "--address", containerdSocket(m), "version")
		return err
	}); err != nil {
		t.Fatalf("waiting for containerd: %v", err)
	}
	importImage(t, m, pauseArchive(t, m.dir))
}

// importImage imports an image in the format of docker save.
func importImage(t *testing.T, m *machine, image []byte) {
	t.Helper()
	archive := filepath.Join(m.dir, "image.tar")
	if err := os.WriteFile(archive, image, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.run("ctr", "--address", containerdSocket(m), "--namespace", "k8s.io", "images", "import", archive); err != nil {
		t.Fatal(err)
	}
}

func containerdSocket(m *machine) string { return filepath.Join(m.dir, "containerd.sock") }

// containerdConfig is valid for containerd 1.6 and 1.7. Pods use the machine's network, so
// no CNI plugin is needed. restrict_oom_score_adj allows running without CAP_SYS_RESOURCE,
// which many containers and sandboxes do not have.
func containerdConfig(m *machine) string {
	return fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = %[3]q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[4]q
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[5]q
    conf_dir = %[5]q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`, filepath.Join(m.dir, "containerd"), filepath.Join(m.dir, "containerd-state"), containerdSocket(m), pauseImage, filepath.Join(m.dir, "cni"))
}

// pauseArchive builds the image in the format of docker save.
func pauseArchive(t *testing.T, dir string) []byte {
	t.Helper()
	program := filepath.Join(dir, "pause")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./pause")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building pause: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return imageArchive(t, pauseImage, "/pause", file{"pause", 0o755, binary})
}

// imageArchive returns an image of files in the format of docker save.
func imageArchive(t *testing.T, name, entrypoint string, files ...file) []byte {
	t.Helper()
	layer := archive(t, files...)
	config := marshal(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{entrypoint}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	manifest := marshal(t, []map[string]any{{
		"Config": sum(config) + ".json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"},
	}})
	return archive(t, file{sum(config) + ".json", 0o644, config}, file{"layer.tar", 0o644, layer}, file{"manifest.json", 0o644, manifest})
}

type file struct {
	name string
	mode int64
	data []byte
}

func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
