// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubernetes builds programs of a Kubernetes release from the Go module
// proxy.
//
//	kubernetes -version v1.37.2 -out DIR kubelet kube-apiserver
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "k8s.io/kubernetes"

func main() {
	version := flag.String("version", "", "release, such as v1.37.2")
	out := flag.String("out", "", "directory for the programs")
	flag.Parse()
	if err := build(*version, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// build creates a module that requires Kubernetes and builds the programs in it. `go install`
// fails, because the go.mod of Kubernetes replaces the staging modules by local paths. The
// proxy has them as v0.37.2 for v1.37.2.
func build(version, out string, programs []string) error {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, ok := strings.Cut(rest, ".")
	if !ok || major != "1" || out == "" || len(programs) == 0 {
		return errors.New("usage: kubernetes -version v1.MINOR.PATCH -out DIR PROGRAM…")
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("locating %s: %w", out, err)
	}
	dir := filepath.Join(out, "module")
	if err := writeModule(dir, version, "v0."+rest); err != nil {
		return err
	}
	ldflags := "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=" + version +
		" -X k8s.io/component-base/version.gitMajor=" + major +
		" -X k8s.io/component-base/version.gitMinor=" + minor +
		" -X k8s.io/client-go/pkg/version.gitVersion=" + version
	for _, program := range programs {
		// The final name appears only when the program is complete.
		target := filepath.Join(out, program)
		_, err := run(dir, "build", "-mod=mod", "-buildvcs=false", "-trimpath", "-ldflags", ldflags,
			"-o", target+".new", module+"/cmd/"+program)
		if err != nil {
			return fmt.Errorf("building %s %s: %w", program, version, err)
		}
		if err := os.Rename(target+".new", target); err != nil {
			return fmt.Errorf("building %s: %w", program, err)
		}
	}
	return nil
}

func writeModule(dir, version, staging string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("creating a module: %w", err)
	}
	answer, err := run(dir, "mod", "download", "-json", module+"@"+version)
	if err != nil {
		return fmt.Errorf("downloading %s %s: %w", module, version, err)
	}
	var source struct{ Dir string }
	if err := json.Unmarshal(answer, &source); err != nil {
		return fmt.Errorf("downloading %s %s: %w", module, version, err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(source.Dir, name))
		if err != nil {
			return fmt.Errorf("reading the Kubernetes module: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("creating a module: %w", err)
		}
	}
	answer, err = run(dir, "mod", "edit", "-json")
	if err != nil {
		return fmt.Errorf("reading the Kubernetes module: %w", err)
	}
	var upstream struct {
		Replace []struct{ Old, New struct{ Path string } }
	}
	if err := json.Unmarshal(answer, &upstream); err != nil {
		return fmt.Errorf("reading the Kubernetes module: %w", err)
	}
	edit := []string{"mod", "edit", "-module=kubernetes-programs", "-require=" + module + "@" + version}
	for _, r := range upstream.Replace {
		if strings.HasPrefix(r.New.Path, "./") {
			edit = append(edit, "-replace="+r.Old.Path+"="+r.Old.Path+"@"+staging)
		}
	}
	if _, err := run(dir, edit...); err != nil {
		return fmt.Errorf("creating a module: %w", err)
	}
	return nil
}

// run calls the go command and returns its output.
func run(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	// The environment may have flags and a workspace for a different module.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := cmd.Run()
	return out.Bytes(), err
}
