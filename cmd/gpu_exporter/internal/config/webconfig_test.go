// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const testUser = "basic_auth_users: {prometheus: $2a$04$E6hWqFlFHdyoxWEfMayoceM/4PQCwgolywbMrmkbxisVkrPd3SOGe}\n"

// An emptied or invalid web configuration is an error, never an open page.
func TestWebConfigIsNotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.yml")
	for _, tt := range []struct{ name, text, want string }{
		{"valid", testUser, ""},
		{"numeric user", strings.Replace(testUser, "prometheus", "123", 1), ""},
		{"empty", "", "the file is empty"},
		{"comment", "# basic_auth_users\n", "the file is empty"},
		{"empty mapping", "{}\n", "the file is empty"},
		{"no users", "basic_auth_users:\n", "basic_auth_users is empty"},
		{"no users, with other sections", "basic_auth_users: {}\nhttp_server_config: {http2: true}\n", "basic_auth_users is empty"},
		{"unknown section", "users: {a: b}\n", "users"},
		{"no hash", "basic_auth_users: {a: b}\n", "hashedSecret too short"},
		{"missing certificate", "tls_server_config: {cert_file: a.pem, key_file: a.key}\n", "cert_file: open"},
		{"not YAML", "a: b: c\n", "mapping values are not allowed"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, files, err := readWebConfig(path)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || len(files) == 0 || files[0] != path {
			t.Errorf("%s: files %q, error %v", tt.name, files, err)
		}
	}
}

func TestWebConfigWeaker(t *testing.T) {
	read := func(text string) WebConfig {
		path := filepath.Join(t.TempDir(), "web.yml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w, _, err := readWebConfig(path)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	users, headers := read(testUser), read("http_server_config: {http2: true}\n")
	if got := users.Weaker(headers); got != "basic_auth_users" {
		t.Errorf("without users: %q", got)
	}
	if got := headers.Weaker(users) + users.Weaker(users); got != "" {
		t.Errorf("not weaker: %q", got)
	}
}

func TestWebFile(t *testing.T) {
	f, err := NewWebFile(WebConfig{Content: "first, and longer"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := f.Path()
	for _, want := range []string{"first, and longer", "second"} {
		if err := f.Replace(WebConfig{Content: want}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q, error %v", got, err)
		}
	}
}

// Only regular files of a limited size are read, and none blocks.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	name := func(n string) string { return filepath.Join(dir, n) }
	for _, err := range []error{
		os.WriteFile(name("file"), []byte("x"), 0o600), os.Symlink("file", name("link")),
		os.WriteFile(name("huge"), nil, 0o600), os.Truncate(name("huge"), 1<<40),
		syscall.Mkfifo(name("fifo"), 0o600), os.Symlink("loop", name("loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		name("file"): "", name("link"): "", name("huge"): "longer than 1048576 bytes", name("fifo"): "it is a named pipe, not a regular file",
		name("loop"): "too many levels of symbolic links", dir: "it is a directory", "/dev/zero": "it is a device", name("none"): "no such file",
	} {
		content, err := ReadFile(path)
		if want == "" && (err != nil || string(content) != "x") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %d bytes, error %v, want %q", path, len(content), err, want)
		}
	}
}
