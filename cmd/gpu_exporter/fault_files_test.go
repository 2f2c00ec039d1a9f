// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// unusual are what may take the place of a file, and the reason in the log.
var unusual = map[string]struct {
	create func(path string) error
	reason string
}{
	"named pipe":   {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "it is a named pipe, not a regular file"},
	"device":       {func(path string) error { return os.Symlink("/dev/zero", path) }, "it is a device, not a regular file"},
	"directory":    {func(path string) error { return os.Mkdir(path, 0o700) }, "it is a directory, not a regular file"},
	"symlink loop": {func(path string) error { return os.Symlink(filepath.Base(path), path) }, "too many levels of symbolic links"},
	"nothing":      {func(string) error { return nil }, "no such file or directory"},
	"huge file": {func(path string) error {
		return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
	}, "longer than 1048576 bytes"},
	"empty file":  {func(path string) error { return os.WriteFile(path, nil, 0o600) }, ""},
	"binary file": {func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{0, 0xff, '\n'}, 1000), 0o600) }, ""},
}

// TestFaultFilesUnusual: whatever takes the place of a file of the configuration, the
// running configuration remains, the reason is logged, and SIGTERM is obeyed.
func TestFaultFilesUnusual(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"configuration", "counters", "catalogue"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			content := map[string]string{
				"counters":  "DCGM_FI_DEV_GPU_TEMP, gauge, Temperature.\n",
				"catalogue": "XID,name,severity,action,meaning\n",
			}
			if catalogue, err := os.ReadFile("../../etc/xid-catalogue.csv"); err == nil {
				content["catalogue"] = string(catalogue)
			}
			counters := writeFile(t, filepath.Join(dir, "counters"), content["counters"])
			catalogue := writeFile(t, filepath.Join(dir, "catalogue"), content["catalogue"])
			content["configuration"] = "sample: {interval: 200ms}\ncounters: {file: [" + counters + "]}\nxid: {catalogue: " + catalogue + "}\n"
			configuration := writeFile(t, filepath.Join(dir, "configuration"), content["configuration"])
			n := startNode(t, "h100x8", "--config.file="+configuration, "--web.enable-admin-api")
			n.eventually(t, "values exist", func() bool { return n.temperatures(t, 8) })
			watch := watchFault(t, n)
			path := filepath.Join(dir, file)
			successful := func() float64 {
				v, _ := sumOf(n.scrape(t), "gpu_exporter_config_last_reload_successful")
				return v
			}
			for name, kind := range unusual {
				if err := errors.Join(os.Remove(path), kind.create(path)); err != nil {
					t.Fatal(err)
				}
				before := len(n.log.String())
				if status, body := n.post(t, "/-/reload"); status != http.StatusInternalServerError || strings.Contains(body, dir) {
					t.Errorf("%s: reload answers %d %s", name, status, body)
				}
				n.eventually(t, name+" is logged", func() bool {
					log := n.log.String()[before:]
					return strings.Contains(log, kind.reason) || name == "nothing" && strings.Contains(log, "does not exist")
				})
				n.eventually(t, name+" is in the metric", func() bool { return successful() == 0 })
				if !n.temperatures(t, 8) {
					t.Errorf("%s: the running configuration is gone", name)
				}
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				writeFile(t, path, content[file])
				watch.recovers(t, name+" is replaced by a file", func() bool { return successful() == 1 })
			}
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
			watch.stop()
			n.terminates(t)
		})
	}
}

// TestFaultFilesAtStart: a file that is no file is one clear error at the start.
func TestFaultFilesAtStart(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--config.file", "--counters.file", "--xid.catalogue", "--web.config.file"} {
		for name, kind := range unusual {
			path := filepath.Join(t.TempDir(), "file")
			if err := kind.create(path); err != nil {
				t.Fatal(err)
			}
			cmd, log := startProgram(t, "--web.listen-address=127.0.0.1:0", flag+"="+path)
			if status := exitStatus(t, cmd); status != 1 || !strings.Contains(log.String(), kind.reason) {
				t.Errorf("%s, %s: status %d\n%s", flag, name, status, log)
			}
		}
	}
}

// TestFaultFilesWebConfig: an emptied, broken or vanished web configuration never opens
// the page. A changed password is applied.
func TestFaultFilesWebConfig(t *testing.T) {
	t.Parallel()
	const hash = "$2a$04$E6hWqFlFHdyoxWEfMayoceM/4PQCwgolywbMrmkbxisVkrPd3SOGe" // of secret
	path := writeFile(t, filepath.Join(t.TempDir(), "web.yml"), "basic_auth_users: {prometheus: "+hash+"}\n")
	n := launchNode(t, "t4x1", append(fast, "--web.config.file="+path)...)
	get := func(user string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			req.SetBasicAuth(user, "secret")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	protected := func(name, user string) {
		t.Helper()
		if anonymous, known := get(""), get(user); anonymous != http.StatusUnauthorized || known != http.StatusOK {
			t.Errorf("%s: status %d without, %d with a password", name, anonymous, known)
		}
	}
	protected("at the start", "prometheus")
	faults := map[string]func(string) error{
		"without users": func(path string) error { return os.WriteFile(path, []byte("basic_auth_users:\n"), 0o600) },
		"without protection": func(path string) error {
			return os.WriteFile(path, []byte("http_server_config: {http2: true}\n"), 0o600)
		},
	}
	for name, kind := range unusual {
		faults[name] = kind.create
	}
	for name, create := range faults {
		before := strings.Count(n.log.String(), "The configuration was rejected")
		if err := errors.Join(os.RemoveAll(path), create(path), n.cmd.Process.Signal(syscall.SIGHUP)); err != nil {
			t.Fatal(err)
		}
		protected(name, "prometheus")
		n.eventually(t, name+" is rejected", func() bool {
			return strings.Count(n.log.String(), "The configuration was rejected") > before
		})
		protected(name, "prometheus")
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "basic_auth_users: {other: "+hash+"}\n")
	n.eventually(t, "the new user is known", func() bool { return get("other") == http.StatusOK })
	protected("changed user", "other")
	if status := get("prometheus"); status != http.StatusUnauthorized {
		t.Errorf("the removed user gets status %d", status)
	}
}
