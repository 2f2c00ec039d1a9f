// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"
)

// WebConfig is a valid configuration of exporter-toolkit.
type WebConfig struct {
	Content  string // with the content of certificates in place of their paths; empty: none
	sections map[string]bool
}

// Weaker returns a section that protects the page and that next no longer has, or "".
func (w WebConfig) Weaker(next WebConfig) string {
	for _, section := range []string{"tls_server_config", "basic_auth_users"} {
		if w.sections[section] && !next.sections[section] {
			return section
		}
	}
	return ""
}

// readWebConfig reads a web configuration and the files it names. exporter-toolkit would
// read them for each request, would wait for a named pipe, and would serve an open page
// after the file was emptied.
func readWebConfig(path string) (w WebConfig, files []string, err error) {
	files = []string{path}
	text, err := ReadFile(path)
	if err != nil {
		return WebConfig{}, files, err
	}
	var sections map[string]yaml.Node
	if err := yaml.Unmarshal(text, &sections); err != nil {
		return WebConfig{}, files, err
	}
	if len(sections) == 0 {
		return WebConfig{}, files, errors.New("the file is empty, and may have been truncated: omit --web.config.file to serve without protection")
	}
	w.sections = map[string]bool{}
	for name, section := range sections {
		if len(section.Content) == 0 {
			return WebConfig{}, files, fmt.Errorf("%s is empty: remove it, or write its entries", name)
		}
		w.sections[name] = true
	}
	if node, ok := sections["tls_server_config"]; ok {
		named, err := inlineFiles(&node, filepath.Dir(path))
		files = append(files, named...)
		if err != nil {
			return WebConfig{}, files, fmt.Errorf("tls_server_config: %w", err)
		}
		sections["tls_server_config"] = node
	}
	content, err := yaml.Marshal(sections)
	if err != nil {
		return WebConfig{}, files, err
	}
	w.Content = string(content)
	valid, err := NewWebFile(w)
	if err != nil {
		return WebConfig{}, files, err
	}
	defer valid.Close()
	if err := web.Validate(valid.Path()); err != nil {
		return WebConfig{}, files, err
	}
	return w, files, nil
}

// inlineFiles replaces the paths of certificates and keys by the content of these files.
func inlineFiles(node *yaml.Node, dir string) (files []string, err error) {
	tls := map[string]any{}
	if err := node.Decode(&tls); err != nil {
		return nil, err
	}
	for _, key := range []string{"cert", "key", "client_ca"} {
		path, ok := tls[key+"_file"].(string)
		if !ok || path == "" {
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		files = append(files, path)
		content, err := ReadFile(path)
		if err != nil {
			return files, fmt.Errorf("%s_file: %w", key, err)
		}
		delete(tls, key+"_file")
		tls[key] = string(content)
	}
	return files, node.Encode(tls)
}

// WebFile is a file in memory that exporter-toolkit reads for each request.
type WebFile struct{ file *os.File }

// NewWebFile returns a file with the content.
func NewWebFile(w WebConfig) (*WebFile, error) {
	fd, err := unix.MemfdCreate("web-config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "web-config")
	if _, err := f.WriteString(w.Content); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("writing a file in memory: %w", err)
	}
	return &WebFile{f}, nil
}

// Path returns a path that opens the file.
func (w *WebFile) Path() string { return fmt.Sprintf("/proc/self/fd/%d", w.file.Fd()) }

// Replace changes the content at once, so that no reader finds a part of it.
func (w *WebFile) Replace(next WebConfig) error {
	f, err := NewWebFile(next)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Dup3(int(f.file.Fd()), int(w.file.Fd()), unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("replacing the web configuration: %w", err)
	}
	return nil
}

// Close releases the file.
func (w *WebFile) Close() { _ = w.file.Close() } // in memory
