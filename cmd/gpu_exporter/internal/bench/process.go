// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server under measurement.
type process struct {
	address string
	cmd     *exec.Cmd
	log     bytes.Buffer
	client  *http.Client
}

// launch starts a program that serves on the given address.
func launch(path string, args func(address string) []string, environ ...string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String() // free again after Close
	if err := l.Close(); err != nil {
		return nil, err
	}
	p := &process{address: address, cmd: exec.Command(path, args(address)...), client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DisableCompression: true},
	}}
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	return p, p.cmd.Start()
}

// startExporter starts the exporter on a simulated node, with the built-in counters if
// counters is nil, and waits until it serves values.
func (b *bench) startExporter(ctx context.Context, scenario string, counters []byte, args ...string) (*process, error) {
	b.nodes++
	state := filepath.Join(b.dir, fmt.Sprintf("node%d", b.nodes))
	if counters != nil {
		if err := os.WriteFile(state+".csv", counters, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--counters.file="+state+".csv")
	}
	p, err := launch(b.exporter, func(address string) []string {
		return append([]string{"--web.listen-address=" + address, "--simulate=" + scenario}, args...)
	}, "DCGMSIM_STATE="+state, "DCGMSIM_CONTROL="+state+".control")
	if err != nil {
		return nil, err
	}
	if err := p.waitFor(ctx, "", "DCGM_FI_DEV_GPU_TEMP{"); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// waitFor polls /metrics until its body contains the text.
func (p *process) waitFor(ctx context.Context, encoding, text string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		body, err := p.scrape(ctx, encoding)
		if err == nil && bytes.Contains(body, []byte(text)) {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s serves no %q after 30 s", p.cmd.Path, text), err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// scrape requests /metrics once with the given Content-Encoding.
func (p *process) scrape(ctx context.Context, encoding string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	if encoding != "" {
		req.Header.Set("Accept-Encoding", encoding)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics answers %s", resp.Status)
	}
	if got := resp.Header.Get("Content-Encoding"); got != encoding {
		return nil, fmt.Errorf("requested encoding %q, got %q", encoding, got)
	}
	return body, nil
}

func (p *process) stop() {
	p.client.CloseIdleConnections()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	watchdog := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer watchdog.Stop()
	_ = p.cmd.Wait()
}

// cpu returns the CPU time that all threads of the process have used.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(ticks) * tick, nil
}

// proportionalSetSize returns the PSS of a process in MiB.
func proportionalSetSize(pid int) (float64, error) {
	path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no Pss in %s", path)
}

// sampler returns the process ID of the exporter's sampler.
func (p *process) sampler() (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue // the thread ended
		}
		if fields := strings.Fields(string(children)); len(fields) > 0 {
			return strconv.Atoi(fields[0])
		}
	}
	return 0, fmt.Errorf("process %d has no sampler", p.cmd.Process.Pid)
}
