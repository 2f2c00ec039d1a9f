// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Scenarios lists the built-in scenarios.
func Scenarios() []string {
	return []string{"h100x8", "h100x8-mig", "a100x8", "a100x7-mig", "t4x1", "mixed4", "dgx-h100", "gb200", "none"}
}

// Node is a simulated node for tests. Its state outlives the processes that use
// it.
type Node struct {
	Libraries string // directory that Build filled
	Scenario  string // built-in name or path
	State     string // path of the state file
	Control   string // path of the control socket, which a running engine serves
	KernelLog string // path of the kernel log, in the form of /dev/kmsg; empty: none
}

// NewNode returns a node with its state in dir. The first process or command that
// uses the node creates it.
func NewNode(libraries, dir, scenario string) *Node {
	return &Node{
		Libraries: libraries,
		Scenario:  scenario,
		State:     filepath.Join(dir, "node.state"),
		Control:   filepath.Join(dir, "control.sock"),
	}
}

// Environ returns the environment variables with which a process uses the
// libraries and the node.
func (n *Node) Environ() []string {
	return []string{
		"LD_LIBRARY_PATH=" + n.Libraries,
		"DCGMSIM_SCENARIO=" + n.Scenario,
		"DCGMSIM_STATE=" + n.State,
		"DCGMSIM_CONTROL=" + n.Control,
		"DCGMSIM_KMSG=" + n.KernelLog,
	}
}

// Command runs one command (see the package documentation) and returns its answer
// without the "ok". It changes the state and needs no engine.
func (n *Node) Command(ctx context.Context, line string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(n.Libraries, "dcgmsimd"), "--command", line)
	cmd.Env = append(os.Environ(), n.Environ()...)
	out, err := cmd.Output()
	answer, bad := parseAnswer(line, string(out))
	if bad == nil && err != nil {
		return "", fmt.Errorf("command %q: %w", line, err)
	}
	return answer, bad
}

// Truth has the exact readings of a GPU, and its totals since the node's boot.
type Truth struct {
	At                           time.Time
	Util                         float64 // 0 to 1, at the time At
	BusySeconds                  float64 // integral of Util
	PowerWatts                   float64
	EnergyMillijoules            float64 // integral of power
	PCIeTxBytes, PCIeRxBytes     float64
	NVLinkTxBytes, NVLinkRxBytes float64
	Held                         map[string]time.Duration // by clock event reason: how long it was active
	UUID                         string
}

// Truth reads a GPU by its DCGM id.
func (n *Node) Truth(ctx context.Context, gpu int) (Truth, error) {
	answer, err := n.Command(ctx, "truth gpu "+strconv.Itoa(gpu))
	if err != nil {
		return Truth{}, err
	}
	t := Truth{Held: map[string]time.Duration{}}
	to := map[string]*float64{
		"util": &t.Util, "busy_s": &t.BusySeconds, "power_w": &t.PowerWatts, "energy_mj": &t.EnergyMillijoules,
		"pcie_tx_bytes": &t.PCIeTxBytes, "pcie_rx_bytes": &t.PCIeRxBytes,
		"nvlink_tx_bytes": &t.NVLinkTxBytes, "nvlink_rx_bytes": &t.NVLinkRxBytes,
	}
	for _, word := range strings.Fields(answer) {
		key, value, _ := strings.Cut(word, "=")
		switch at := to[key]; {
		case key == "uuid":
			t.UUID = value
		case key == "at_us":
			us, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return Truth{}, fmt.Errorf("truth about GPU %d: %w", gpu, err)
			}
			t.At = time.UnixMicro(us)
		case strings.HasSuffix(key, "_ns"):
			ns, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return Truth{}, fmt.Errorf("truth about GPU %d: %w", gpu, err)
			}
			t.Held[strings.TrimSuffix(key, "_ns")] = time.Duration(ns)
		case at != nil:
			if *at, err = strconv.ParseFloat(value, 64); err != nil {
				return Truth{}, fmt.Errorf("truth about GPU %d: %w", gpu, err)
			}
		}
	}
	return t, nil
}

// LinkTruth has the exact state of an NVLink at one of its ends, and its totals
// since the node's boot.
type LinkTruth struct {
	At               time.Time
	Up               bool
	TxBytes, RxBytes float64
	Errors           map[string]uint64 // replay, recovery, flit, crc, ecc
}

// GPULink reads a link of the GPU with a DCGM id. Ports count from 0.
func (n *Node) GPULink(ctx context.Context, gpu, port int) (LinkTruth, error) {
	return n.linkTruth(ctx, fmt.Sprintf("truth link gpu %d port %d", gpu, port))
}

// SwitchLink reads a port of an NVSwitch.
func (n *Node) SwitchLink(ctx context.Context, nvswitch, port int) (LinkTruth, error) {
	return n.linkTruth(ctx, fmt.Sprintf("truth link switch %d port %d", nvswitch, port))
}

func (n *Node) linkTruth(ctx context.Context, line string) (LinkTruth, error) {
	answer, err := n.Command(ctx, line)
	if err != nil {
		return LinkTruth{}, err
	}
	t := LinkTruth{Errors: map[string]uint64{}}
	for _, word := range strings.Fields(answer) {
		key, text, _ := strings.Cut(word, "=")
		value, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return LinkTruth{}, fmt.Errorf("%s: %w", line, err)
		}
		switch key {
		case "at_us":
			t.At = time.UnixMicro(int64(value))
		case "up":
			t.Up = value == 1
		case "tx_bytes":
			t.TxBytes = float64(value)
		case "rx_bytes":
			t.RxBytes = float64(value)
		default:
			t.Errors[key] = value
		}
	}
	return t, nil
}

// Engine is a running dcgmsimd.
type Engine struct {
	Address string // host:port, or the path of a unix socket
	cmd     *exec.Cmd
	done    chan struct{}
	err     error
}

// StartEngine starts dcgmsimd on the node and waits until it listens. args are the
// arguments of dcgmsimd; the default is "--port", "0". The engine ends when ctx
// is done.
func (n *Node) StartEngine(ctx context.Context, args ...string) (*Engine, error) {
	if len(args) == 0 {
		args = []string{"--port", "0"}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(n.Libraries, "dcgmsimd"), args...)
	// The default log file is in /var/log.
	cmd.Env = append(append([]string{"__DCGM_DBG_FILE=/dev/null"}, os.Environ()...), n.Environ()...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting dcgmsimd: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting dcgmsimd: %w", err)
	}
	e := &Engine{cmd: cmd, done: make(chan struct{})}
	first := make(chan string, 1)
	go func() {
		defer close(e.done)
		lines := bufio.NewScanner(out)
		if lines.Scan() {
			first <- lines.Text()
		}
		close(first)
		for lines.Scan() { // the engine must not block on a full pipe
		}
		e.err = cmd.Wait()
	}()
	line, ok := <-first
	address, listening := strings.CutPrefix(line, "listening on ")
	if !ok || !listening {
		<-e.done
		return nil, fmt.Errorf("dcgmsimd did not start: %w", errors.Join(errors.New(line), e.err))
	}
	e.Address = address
	return e, nil
}

// Kill ends the engine with SIGKILL, like a crash.
func (e *Engine) Kill() error { return e.end(syscall.SIGKILL) }

// Close stops the engine and waits for it.
func (e *Engine) Close() error { return e.end(syscall.SIGTERM) }

// Stop suspends the engine, and returns when all of its threads are suspended.
func (e *Engine) Stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("suspending dcgmsimd: %w", err)
	}
	for !suspended(e.cmd.Process.Pid) {
		select {
		case <-e.done:
			return fmt.Errorf("suspending dcgmsimd: %w", os.ErrProcessDone)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// suspended reports whether every thread of a process has the state T (proc(5)).
func suspended(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text[bytes.LastIndexByte(text, ')')+1:]), " T ") {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

// Cont resumes the engine.
func (e *Engine) Cont() error { return e.cmd.Process.Signal(syscall.SIGCONT) }

func (e *Engine) end(signal syscall.Signal) error {
	if err := e.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping dcgmsimd: %w", err)
	}
	<-e.done
	return nil
}

// Command sends one command to a control socket and returns the answer without
// the "ok". It needs a running engine; [Node.Command] does not.
func Command(ctx context.Context, control, line string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", control)
	if err != nil {
		return "", fmt.Errorf("command %q: %w", line, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", fmt.Errorf("command %q: %w", line, err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("command %q: %w", line, err)
	}
	return parseAnswer(line, answer)
}

func parseAnswer(line, answer string) (string, error) {
	answer = strings.TrimSpace(answer)
	if text, bad := strings.CutPrefix(answer, "error: "); bad {
		return "", fmt.Errorf("command %q: %s", line, text)
	}
	text, good := strings.CutPrefix(answer, "ok")
	if !good {
		return "", fmt.Errorf("command %q: unexpected answer %q", line, answer)
	}
	return strings.TrimSpace(text), nil
}
