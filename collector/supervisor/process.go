// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"gpu_exporter/collector/wire"
)

// process is a sampler process. Tests replace it.
type process interface {
	pid() int
	frames() io.Reader
	output() (stdout, stderr, records io.Reader)
	// resident returns the resident size in bytes.
	resident() (uint64, error)
	// command replaces a command that is not yet written, and never blocks. Calls must
	// not overlap, or follow closeStdin or close.
	command(wire.SamplerCommand)
	closeStdin()
	kill()
	// wait blocks until the process is reaped, which may never happen.
	wait() syscall.WaitStatus
	// close closes the supervisor's ends of all pipes.
	close()
}

type startFunc func(command, env []string, cfg wire.SamplerConfig) (process, error)

// osProcess is a process of the operating system.
type osProcess struct {
	cmd                                   *exec.Cmd
	stdin, frame, records, stdout, stderr *os.File
	commands                              chan wire.SamplerCommand // holds the newest
	endStdin                              func()

	mu     sync.Mutex
	reaped bool
}

// startProcess starts a sampler. The calling thread must outlive the sampler.
func startProcess(command, env []string, cfg wire.SamplerConfig) (process, error) {
	if len(command) == 0 {
		return nil, errors.New("starting sampler: no command")
	}
	var config bytes.Buffer
	if _, err := cfg.WriteTo(&config); err != nil {
		return nil, fmt.Errorf("starting sampler: %w", err)
	}

	var ours, theirs [5]*os.File // indexed by the sampler's file descriptors
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeFiles(append(ours[:], theirs[:]...))
			return nil, fmt.Errorf("starting sampler: %w", err)
		}
		ours[i], theirs[i] = r, w
	}
	ours[0], theirs[0] = theirs[0], ours[0] // stdin

	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	cmd.ExtraFiles = theirs[3:]
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Ctrl-C in a terminal must reach only the exporter, which then stops the
		// sampler in order. The group also allows killing the sampler's children.
		Setpgid: true,
		// A stopped sampler does not notice the end of its standard input. The kernel
		// clears this setting if the binary has file capabilities (prctl(2)).
		Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Start()
	closeFiles(theirs[:])
	if err != nil {
		closeFiles(ours[:])
		return nil, fmt.Errorf("starting sampler: %w", err)
	}
	p := &osProcess{cmd: cmd, stdin: ours[0], stdout: ours[1], stderr: ours[2], frame: ours[wire.FramesFD], records: ours[wire.RecordsFD]}
	p.startStdin(config.Bytes())
	return p, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// startStdin writes the configuration and then the commands. It does not block on a
// sampler that never reads. Write errors mean that the sampler died; its exit status
// explains more.
func (p *osProcess) startStdin(config []byte) {
	p.commands = make(chan wire.SamplerCommand, 1)
	p.endStdin = sync.OnceFunc(func() {
		close(p.commands)
		p.stdin.Close()
	})
	go func() {
		_, err := p.stdin.Write(config)
		commands := json.NewEncoder(p.stdin) // ends each value with a newline
		for c := range p.commands {
			if err == nil {
				err = commands.Encode(c)
			}
		}
	}()
}

func (p *osProcess) pid() int { return p.cmd.Process.Pid }

func (p *osProcess) frames() io.Reader { return p.frame }

func (p *osProcess) output() (stdout, stderr, records io.Reader) {
	return p.stdout, p.stderr, p.records
}

func (p *osProcess) command(c wire.SamplerCommand) {
	select {
	case <-p.commands: // not yet read
	default:
	}
	p.commands <- c
}

func (p *osProcess) closeStdin() { p.endStdin() }

func (p *osProcess) close() {
	p.endStdin()
	closeFiles([]*os.File{p.stdout, p.stderr, p.frame, p.records})
}

// resident reads the second field of /proc/PID/statm, see proc_pid_statm(5).
func (p *osProcess) resident() (uint64, error) {
	var size, resident uint64 // pages
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &resident)
	}
	if err != nil {
		return 0, fmt.Errorf("reading the resident size: %w", err)
	}
	return resident * uint64(os.Getpagesize()), nil
}

// kill kills the sampler and its children.
func (p *osProcess) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails only if the group is empty
	}
}

func (p *osProcess) wait() syscall.WaitStatus {
	// Wait for the death without reaping, so that the group keeps its ID until the
	// children are killed.
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
	_ = p.cmd.Wait() // ProcessState has the result
	if p.cmd.ProcessState == nil {
		return syscall.WaitStatus(255 << 8) // reaped by other code in this process
	}
	ws, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ws
}
