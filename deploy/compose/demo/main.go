// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo runs a simulated node, Prometheus with the rules, and Alertmanager without
// containers, until Ctrl-C. It must not contain what the servers do: the configurations are
// those of deploy/compose and deploy/prometheus. Run it with make demo.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// grace is how long a server may take to end after SIGTERM.
const grace = 20 * time.Second

func main() {
	// The kernel kills the servers when the thread that started them ends (prctl(2)).
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	d := demo{ended: make(chan *server, 3)}
	flag.StringVar(&d.root, "root", ".", "directory of the repository, with programs in build and build/tools")
	flag.StringVar(&d.scenario, "scenario", "h100x8", "simulated node")
	flag.StringVar(&d.node, "node", "127.0.0.1:9400", "address of the exporter")
	flag.StringVar(&d.prometheus, "prometheus", "127.0.0.1:9090", "address of Prometheus")
	flag.StringVar(&d.alertmanager, "alertmanager", "127.0.0.1:9093", "address of Alertmanager")
	flag.Parse()
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is the servers that run.
type demo struct {
	root, scenario                 string
	node, prometheus, alertmanager string // addresses
	dir                            string // logs and data
	servers                        []*server
	ended                          chan *server
}

// server is a process that logs the address on which it listens.
type server struct {
	name, log string
	cmd       *exec.Cmd
	exited    chan struct{}
}

// run returns when the context ends or a server exits. No server runs then.
func (d *demo) run(ctx context.Context) error {
	root, err := filepath.Abs(d.root)
	if err != nil {
		return fmt.Errorf("locating the repository: %w", err)
	}
	if d.dir, err = os.MkdirTemp("", "gpu_exporter-demo-"); err != nil {
		return fmt.Errorf("creating a directory for logs and data: %w", err)
	}
	defer os.RemoveAll(d.dir)
	defer d.stop()

	rules := filepath.Join(root, "deploy/prometheus")
	if d.node, err = d.start(ctx, filepath.Join(root, "build/gpu_exporter"),
		"--web.listen-address="+d.node, "--simulate="+d.scenario, "--hostname=demo-node"); err != nil {
		return err
	}
	if d.alertmanager, err = d.start(ctx, filepath.Join(root, "build/tools/alertmanager"),
		"--web.listen-address="+d.alertmanager, "--cluster.listen-address=", "--storage.path="+filepath.Join(d.dir, "alertmanager"),
		"--config.file="+filepath.Join(rules, "examples/alertmanager.yaml")); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(root, "deploy/compose/prometheus.yaml"))
	if err != nil {
		return fmt.Errorf("reading the configuration of Prometheus: %w", err)
	}
	text := strings.NewReplacer("node:9400", d.node, "alertmanager:9093", d.alertmanager, "../prometheus", rules).Replace(string(config))
	path := filepath.Join(d.dir, "prometheus.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the configuration of Prometheus: %w", err)
	}
	if d.prometheus, err = d.start(ctx, filepath.Join(root, "build/tools/prometheus"),
		"--web.listen-address="+d.prometheus, "--storage.tsdb.path="+filepath.Join(d.dir, "data"), "--config.file="+path); err != nil {
		return err
	}
	if ctx.Err() == nil {
		fmt.Printf("exporter      http://%s\nPrometheus    http://%s\nAlertmanager  http://%s\nlogs          %s\nCtrl-C ends the demo.\n",
			d.node, d.prometheus, d.alertmanager, d.dir)
	}
	select {
	case <-ctx.Done():
		return nil
	case s := <-d.ended:
		return s.failure()
	}
}

// start starts a server and waits until it is ready, or the context ends.
func (d *demo) start(ctx context.Context, program string, args ...string) (address string, err error) {
	s := &server{name: filepath.Base(program), exited: make(chan struct{})}
	s.log = filepath.Join(d.dir, s.name+".log")
	log, err := os.Create(s.log)
	if err != nil {
		return "", fmt.Errorf("creating the log of %s: %w", s.name, err)
	}
	defer log.Close()
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// Ctrl-C reaches the demo only, which ends the servers in order.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return "", fmt.Errorf("starting %s: %w: build it with make demo", s.name, err)
	}
	d.servers = append(d.servers, s)
	go func() {
		_ = s.cmd.Wait()
		close(s.exited)
		d.ended <- s
	}()
	// The three servers log their address in these forms.
	listening := regexp.MustCompile(`msg="Listening on" (?:component=web )?address=(\S+)`)
	for {
		text, err := os.ReadFile(s.log)
		if err != nil {
			return "", fmt.Errorf("reading the log of %s: %w", s.name, err)
		}
		if m := listening.FindSubmatch(text); m != nil && ready(ctx, string(m[1])) {
			return string(m[1]), nil
		}
		select {
		case <-ctx.Done():
			return "", nil
		case s := <-d.ended:
			return "", s.failure()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ready reports whether a server answers requests, which it may do some time after it listens.
func ready(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/-/ready", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// failure returns the last line of the log of a server that exited.
func (s *server) failure() error {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return fmt.Errorf("reading the log of %s: %w", s.name, err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%s ended (%v): %s", s.name, s.cmd.ProcessState, lines[len(lines)-1])
}

// stop ends the servers, the last one first, and waits for them.
func (d *demo) stop() {
	for i := len(d.servers) - 1; i >= 0; i-- {
		s := d.servers[i]
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(grace):
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
	}
}
