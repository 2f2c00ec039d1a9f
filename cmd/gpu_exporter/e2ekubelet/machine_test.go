// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	namespaces   = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET
	cgroupRoot   = "/sys/fs/cgroup"
	cgroupPrefix = "gpu-exporter-e2e-"

	nodeName = "e2e-node"
	nodeIP   = "10.244.8.1" // a kubelet refuses a loopback address
)

// machine is an environment for a kubelet: namespaces, a directory and cgroups.
type machine struct {
	dir    string // the same path on the host and in the machine
	cgroup string // its name below each hierarchy

	init  *exec.Cmd
	alive io.Closer // process 1 ends when this closes
	pidfd int

	closing sync.Once
	closed  error
}

// machines are cleaned up on a signal.
var machines = struct {
	sync.Mutex
	running map[*machine]bool
}{running: make(map[*machine]bool)}

// newMachine starts a machine that stops at the end of the test.
func newMachine(t *testing.T) *machine {
	t.Helper()
	// The name is short, because the paths of unix sockets are limited to 107 bytes.
	dir, err := os.MkdirTemp("", "e2e-kubelet-")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: dir, cgroup: cgroupPrefix + filepath.Base(dir)[len("e2e-kubelet-"):]}
	machines.Lock()
	machines.running[m] = true
	machines.Unlock()
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, log := range logs {
				t.Logf("end of %s:\n%s", filepath.Base(log), tail(log))
			}
		}
		machines.Lock()
		delete(machines.running, m)
		machines.Unlock()
		if err := m.close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	if err := m.boot(); err != nil {
		t.Fatal(err)
	}
	return m
}

// kubeletDir is mounted on /var/lib/kubelet in the machine. Sockets in it work under both
// paths.
func (m *machine) kubeletDir() string { return filepath.Join(m.dir, "var-lib", "kubelet") }

func (m *machine) boot() error {
	for _, dir := range []string{m.kubeletDir(), filepath.Join(m.dir, "var-log")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("creating a machine: %w", err)
		}
	}
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, dir := range hierarchies {
		if err := os.Mkdir(filepath.Join(dir, m.cgroup), 0o755); err != nil {
			return fmt.Errorf("creating a cgroup: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("locating the test binary: %w", err)
	}
	m.init = exec.Command(self, m.dir)
	m.init.Env = append(os.Environ(), roleVariable+"="+roleInit)
	m.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, PidFD: &m.pidfd}
	m.init.Stderr = os.Stderr
	if m.alive, err = m.init.StdinPipe(); err != nil {
		return fmt.Errorf("creating a machine: %w", err)
	}
	out, err := m.init.StdoutPipe()
	if err != nil {
		return fmt.Errorf("creating a machine: %w", err)
	}
	if err := m.init.Start(); err != nil {
		return fmt.Errorf("creating namespaces: %w", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("process 1 of the machine printed %q: %w", line, err)
	}
	return nil
}

// close stops all processes of the machine and removes its files and cgroups.
func (m *machine) close() error {
	m.closing.Do(func() { m.closed = m.shutDown() })
	return m.closed
}

func (m *machine) shutDown() error {
	if m.init != nil && m.init.Process != nil {
		m.alive.Close()
		// Process 1 exits after all other processes of its PID namespace.
		_ = m.init.Wait()
		unix.Close(m.pidfd)
	}
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, dir := range hierarchies {
		// The kernel releases a cgroup some time after its last process exits.
		err = errors.Join(err, poll(patience, 20*time.Millisecond, func() error {
			return removeTree(filepath.Join(dir, m.cgroup))
		}))
	}
	if *keepFlag {
		fmt.Fprintln(os.Stderr, "kept:", m.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(m.dir))
}

// removeTree removes directories only. The kernel removes the files of a cgroup.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	return os.Remove(dir)
}

// cgroupHierarchies returns the mount points for a container's cgroups: those of the
// cgroup v1 controllers, that of v2, or both.
func cgroupHierarchies() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("looking for cgroups: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 2 && strings.HasPrefix(f[1], cgroupRoot) && (f[2] == "cgroup" || f[2] == "cgroup2") {
			all = append(all, f[1])
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cgroups are mounted below %s", cgroupRoot)
	}
	return all, nil
}

// start starts a program in the machine. Its output goes to a log that has its
// name. The returned function waits until it has ended.
func (m *machine) start(name string, cmd *exec.Cmd) (wait func(), err error) {
	log, err := os.OpenFile(filepath.Join(m.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := m.within(namespaces, cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return func() { <-done }, nil
}

// run runs a program in the machine to its end.
func (m *machine) run(name string, args ...string) (string, error) {
	var out strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := m.within(namespaces, cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// dial connects to an address in the machine.
func (m *machine) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	bad := m.within(unix.CLONE_NEWNET, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return nil
	})
	if bad != nil {
		return nil, bad
	}
	return conn, err
}

// within calls f on a thread in the given namespaces of the machine. Processes that f
// starts are in them too.
func (m *machine) within(flags int, f func() error) error {
	done := make(chan error)
	go func() {
		// The thread is never unlocked, so it exits with the goroutine and no other
		// goroutine runs in these namespaces.
		runtime.LockOSThread()
		if flags&unix.CLONE_NEWNS != 0 {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				done <- fmt.Errorf("entering the machine: %w", err)
				return
			}
		}
		if err := unix.Setns(m.pidfd, flags); err != nil {
			done <- fmt.Errorf("entering the machine: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// runInit is process 1 of a machine. It sets up the machine, prints "ready", and reaps
// orphans until its standard input closes.
func runInit(dir string) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Ignore(os.Interrupt) // the terminal sends it to all processes; the tests stop process 1
	if err := mountAll(dir); err != nil {
		return err
	}
	for _, args := range []string{
		"link set lo up",
		"link add node0 type bridge",
		"address add " + nodeIP + "/24 dev node0",
		"link set node0 up",
		"route add default via 10.244.8.254 dev node0",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	fmt.Println("ready")
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	for {
		select {
		case <-over:
			return nil
		case <-children:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

// mountAll replaces the directories that kubelet and containerd write to, and the kernel
// settings that the kubelet changes.
func mountAll(dir string) error {
	type mount struct {
		source, target, kind string
		flags                uintptr
	}
	mounts := []mount{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{filepath.Join(dir, "var-lib"), "/var/lib", "", syscall.MS_BIND},
		{filepath.Join(dir, "var-log"), "/var/log", "", syscall.MS_BIND},
	}
	// setupKernelTunables of pkg/kubelet/cm/container_manager_linux.go
	for name, value := range map[string]int{
		"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
		"kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000,
	} {
		copied := filepath.Join(dir, "sysctl-"+filepath.Base(name))
		if err := os.WriteFile(copied, []byte(strconv.Itoa(value)+"\n"), 0o644); err != nil {
			return fmt.Errorf("copying kernel settings: %w", err)
		}
		mounts = append(mounts, mount{copied, filepath.Join("/proc/sys", name), "", syscall.MS_BIND})
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}
