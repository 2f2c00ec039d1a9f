// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
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
	control string // of the simulated node
	cmd     *exec.Cmd
	log     bytes.Buffer
	client  *http.Client
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// launch starts a program that serves on the address that it is given.
func (b *bench) launch(path string, args func(address string) []string, environ ...string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{address: address, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DisableCompression: true},
	}}
	p.cmd = exec.Command(path, args(address)...)
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// exporterOn starts the exporter on a simulated node and waits until it serves
// values.
func (b *bench) exporterOn(ctx context.Context, args ...string) (*process, error) {
	return b.exporterWith(ctx, "h100x8", b.counters(), args...)
}

// exporterWith does so with a counters file.
func (b *bench) exporterWith(ctx context.Context, scenario, counters string, args ...string) (*process, error) {
	b.nodes++
	state := filepath.Join(b.dir, fmt.Sprintf("node%d", b.nodes))
	control := state + ".control"
	p, err := b.launch(b.options.exporter, func(address string) []string {
		return append([]string{"--web.listen-address=" + address, "--simulate=" + scenario, "--collectors=" + counters}, args...)
	}, "DCGMSIM_STATE="+state, "DCGMSIM_CONTROL="+control)
	if err != nil {
		return nil, err
	}
	p.control = control
	return p, p.waitFor(ctx, "DCGM_FI_DEV_GPU_TEMP{")
}

// waitFor polls /metrics until its body contains text.
func (p *process) waitFor(ctx context.Context, text string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		body, err := p.get(ctx, "")
		if err == nil && bytes.Contains(body, []byte(text)) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not come up: %w\n%s", p.cmd.Path, err, p.log.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// get scrapes once, asking for the given Content-Encoding.
func (p *process) get(ctx context.Context, encoding string) ([]byte, error) {
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
		return nil, fmt.Errorf("asked for encoding %q, got %q", encoding, got)
	}
	return body, nil
}

func (p *process) stop() {
	p.client.CloseIdleConnections()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// command steers the simulated node.
func (p *process) command(command string) error {
	conn, err := net.DialTimeout("unix", p.control, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(answer, "ok") {
		return fmt.Errorf("%s: %s", command, answer)
	}
	return nil
}

// cpu returns the CPU time that a process has used, all threads together, those
// that ended included.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(ticks) * tick, nil
}

// numberIn returns a number from a file of lines such as "VmRSS:  12 kB": sizes
// are in KiB.
func numberIn(path, name string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, path)
}

// sampler returns the process id of the exporter's sampler.
func (p *process) sampler() (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		if fields := strings.Fields(string(children)); len(fields) > 0 {
			return strconv.Atoi(fields[0])
		}
	}
	return 0, fmt.Errorf("process %d has no sampler", p.cmd.Process.Pid)
}

// metric returns the value of a series without labels.
func metric(body []byte, name string) (float64, error) {
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no %s", name)
}
