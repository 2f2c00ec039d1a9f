// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

const composeDir = ".."

type service struct {
	Image          string
	CapDrop        []string `yaml:"cap_drop"`
	Ports, Volumes []string
	Command        []string
	Environment    map[string]string
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestComposeServices: ports are local, images have a version, and what is mounted exists.
func TestComposeServices(t *testing.T) {
	var compose struct {
		Services map[string]service
		Volumes  map[string]any
	}
	read(t, filepath.Join(composeDir, "compose.yaml"), &compose)
	if len(compose.Services) != 4 {
		t.Errorf("%d services, want 4", len(compose.Services))
	}
	for name, s := range compose.Services {
		if !regexp.MustCompile(`:(v?[0-9]+\.[0-9]+\.[0-9]+|sim\})$`).MatchString(s.Image) {
			t.Errorf("%s: the image %s has no version", name, s.Image)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s keeps capabilities", name)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: the port %s is reachable from other machines", name, port)
			}
		}
		for _, volume := range s.Volumes {
			source, target, _ := strings.Cut(volume, ":")
			if !strings.HasPrefix(source, ".") {
				if _, ok := compose.Volumes[source]; !ok {
					t.Errorf("%s: the volume %s is not declared", name, source)
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(composeDir, source)); err != nil || !strings.HasSuffix(target, ":ro") {
				t.Errorf("%s: %s: want an existing file, mounted read-only: %v", name, volume, err)
			}
		}
	}
	// The paths of Prometheus are the same in the container as here.
	for _, name := range []string{"prometheus", "alertmanager"} {
		config, _ := strings.CutPrefix(compose.Services[name].Command[0], "--config.file=")
		if _, err := os.Stat(filepath.Join(composeDir, "../..", config)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	home := compose.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if _, err := os.Stat(filepath.Join(composeDir, "../../grafana", home)); err != nil {
		t.Errorf("the first dashboard: %v", err)
	}

	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Type, URL string
			IsDefault bool `yaml:"isDefault"`
		}
	}
	read(t, filepath.Join(composeDir, "grafana/datasources.yaml"), &sources)
	if s := sources.Datasources; len(s) != 1 || s[0].Type != "prometheus" || !s[0].IsDefault || s[0].URL != "http://prometheus:9090" {
		t.Errorf("the data sources are %+v", s)
	}
	var dashboards struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	read(t, filepath.Join(composeDir, "grafana/dashboards.yaml"), &dashboards)
	if p := dashboards.Providers; len(p) != 1 || p[0].Type != "file" ||
		!slices.Contains(compose.Services["grafana"].Volumes, "../../grafana/dashboards:"+p[0].Options.Path+":ro") {
		t.Errorf("the providers of dashboards are %+v", p)
	}
	if sources.APIVersion != 1 || dashboards.APIVersion != 1 {
		t.Error("Grafana reads provisioning files of version 1")
	}
}

// TestComposePrometheus: promtool accepts the configuration with its rules.
func TestComposePrometheus(t *testing.T) {
	promtool := exportertest.Built(t, "tools", "promtool")
	out, err := exec.CommandContext(t.Context(), promtool, "check", "config", "--lint=all", "--lint-fatal", filepath.Join(composeDir, "prometheus.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, rules := range []string{"alerts.yaml", "recording.yaml"} {
		if !regexp.MustCompile(rules + `\s+SUCCESS: [1-9][0-9]* rules found`).Match(out) {
			t.Errorf("promtool did not check %s:\n%s", rules, out)
		}
	}
}

// TestComposeFile: the library of Docker Compose accepts the file.
func TestComposeFile(t *testing.T) {
	compose, err := filepath.Abs("../../../build/tools/compose")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(compose); err != nil {
		t.Skipf("%v: make test-demo builds it", err)
	}
	cmd := exec.CommandContext(t.Context(), compose, "compose.yaml")
	cmd.Dir = composeDir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "published: \"9400\"") {
		t.Errorf("%v\n%s", err, out)
	}
}
