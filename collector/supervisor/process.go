// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"gpu_exporter/collector/wire"
)

// process is a sampler as the supervisor needs it.
type process interface {
	pid() int
	frames() io.Reader
	output() (stdout, stderr io.Reader)
	resident() (uint64, error)
	// command hands a command over; it does not wait until it is read. Of several
	// that are not read yet the last one counts.
	command(wire.SamplerCommand)
	closeStdin()
	kill()
	// wait blocks until the process is reaped, which may be never.
	wait() syscall.WaitStatus
	// close closes this side of all pipes.
	close()
}

type startFunc func(command, env []string, cfg wire.SamplerConfig) (process, error)

// osProcess is a process of the operating system.
type osProcess struct {
	cmd                          *exec.Cmd
	stdin, frame, stdout, stderr *os.File
	commands                     commandQueue
	statm                        *os.File
	statmBuf                     [128]byte

	mu     sync.Mutex
	reaped bool
}

// startProcess starts a sampler. It must be called on a thread that outlives
// the sampler.
func startProcess(command, env []string, cfg wire.SamplerConfig) (process, error) {
	if len(command) == 0 {
		return nil, errors.New("starting sampler: no command")
	}
	var config bytes.Buffer
	if _, err := cfg.WriteTo(&config); err != nil {
		return nil, fmt.Errorf("starting sampler: %w", err)
	}

	var ours, theirs [4]*os.File // stdin, stdout, stderr, frames: as the sampler numbers them
	closeAll := func(files []*os.File) {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours[:])
			closeAll(theirs[:])
			return nil, fmt.Errorf("starting sampler: %w", err)
		}
		ours[i], theirs[i] = r, w
		if i == 0 {
			ours[i], theirs[i] = w, r
		}
	}

	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	cmd.ExtraFiles = theirs[3:]
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own: Ctrl-C in a terminal is for the exporter, which
		// then stops the sampler in order; and all of the group can be killed.
		Setpgid: true,
		// A sampler that is stopped, or whose runtime is stuck, does not notice
		// the end of its standard input. The kernel clears this setting if the
		// binary has file capabilities (prctl(2)); then the pipe is all there is.
		Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Start()
	closeAll(theirs[:])
	if err != nil {
		closeAll(ours[:])
		return nil, fmt.Errorf("starting sampler: %w", err)
	}
	p := &osProcess{cmd: cmd, stdin: ours[0], stdout: ours[1], stderr: ours[2], frame: ours[3]}
	// Left nil where there is no /proc; resident then says so.
	p.statm, _ = os.Open(fmt.Sprintf("/proc/%d/statm", cmd.Process.Pid))
	// A sampler that never reads could block this for ever. If it has died
	// already, its exit status tells more than the write error.
	p.commands = newCommandQueue()
	go func() {
		if _, err := p.stdin.Write(config.Bytes()); err == nil {
			p.commands.writeTo(p.stdin)
		}
	}()
	return p, nil
}

func (p *osProcess) pid() int { return p.cmd.Process.Pid }

func (p *osProcess) frames() io.Reader { return p.frame }

func (p *osProcess) output() (stdout, stderr io.Reader) { return p.stdout, p.stderr }

func (p *osProcess) command(c wire.SamplerCommand) { p.commands.put(c) }

func (p *osProcess) closeStdin() { p.commands.close(); p.stdin.Close() }

func (p *osProcess) close() {
	p.commands.close()
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr, p.frame, p.statm} {
		if f != nil {
			f.Close()
		}
	}
}

// resident reads the second field of /proc/PID/statm, the resident pages; see
// proc_pid_statm(5).
func (p *osProcess) resident() (uint64, error) {
	if p.statm == nil {
		return 0, errors.New("reading resident size: no statm file")
	}
	n, err := p.statm.ReadAt(p.statmBuf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("reading resident size: %w", err)
	}
	fields := bytes.Fields(p.statmBuf[:n])
	if len(fields) < 2 {
		return 0, fmt.Errorf("reading resident size: unexpected content %q", p.statmBuf[:n])
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading resident size: %w", err)
	}
	return pages * uint64(os.Getpagesize()), nil
}

// kill kills the sampler and whatever it has started.
func (p *osProcess) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		// The only error is that there is nothing left to kill.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

func (p *osProcess) wait() syscall.WaitStatus {
	// Wait for the death without reaping, so that the number of the group still
	// belongs to it when the rest of the group is killed.
	const pPID = 1 // P_PID of waitid(2)
	errno := syscall.EINTR
	for errno == syscall.EINTR {
		_, _, errno = syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(p.cmd.Process.Pid), 0,
			syscall.WEXITED|syscall.WNOWAIT, 0, 0)
	}
	if errno == 0 {
		p.kill()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	_ = p.cmd.Wait() // what it says stands in ProcessState
	if p.cmd.ProcessState == nil {
		return syscall.WaitStatus(255 << 8) // somebody else has reaped it
	}
	ws, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ws
}
