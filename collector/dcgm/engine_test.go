// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"os"
	"path/filepath"
	"testing"

	"gpu_exporter/collector/dcgm/native"
)

// TestUpdated shows which changes count as an update of the library.
func TestUpdated(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   bool
	}{
		{"nothing", func(*testing.T, string) {}, false},
		{"a newer file renamed over it", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "new"))
			rename(t, filepath.Join(dir, "new"), filepath.Join(dir, "libdcgm.so.4.6.0"))
		}, true},
		{"the link pointed elsewhere", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "libdcgm.so.4.6.1"))
			link(t, "libdcgm.so.4.6.1", filepath.Join(dir, "link"))
			rename(t, filepath.Join(dir, "link"), filepath.Join(dir, "libdcgm.so.4"))
		}, true},
		{"removed", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "libdcgm.so.4.6.0")); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"another file in the directory", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "libdcgm.so.3")) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "libdcgm.so.4.6.0"))
			path := filepath.Join(dir, "libdcgm.so.4")
			link(t, "libdcgm.so.4.6.0", path)
			file, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			e := engine{lib: &native.Library{Path: path}, file: file}
			tt.change(t, dir)
			if got := e.updated(); got != tt.want {
				t.Errorf("updated: %v, want %v", got, tt.want)
			}
		})
	}
	if e := (engine{lib: &native.Library{Path: "[vdso]"}}); e.updated() {
		t.Error("a library without a file counts as updated")
	}
}

func TestDriverArrived(t *testing.T) {
	file := filepath.Join(t.TempDir(), "version")
	e := engine{driverFile: file}
	if e.driverArrived() {
		t.Error("arrived without the file")
	}
	write(t, file)
	if !e.driverArrived() {
		t.Error("not arrived with the file")
	}
	if (&engine{}).driverArrived() {
		t.Error("a driver that was loaded before counts as arrived")
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestBuildVersion(t *testing.T) {
	for info, want := range map[string]string{
		"version:4.6.0;arch:x86_64;buildtype:Release;builddate:2026-07-06": "4.6.0",
		"arch:x86_64; version : 4.5.1":                                     "4.5.1",
		"arch:x86_64":                                                      "",
		"":                                                                 "",
	} {
		if got := buildVersion(info); got != want {
			t.Errorf("buildVersion(%q) = %q, want %q", info, got, want)
		}
	}
}
