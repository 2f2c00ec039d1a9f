// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// wrapped runs the exporter by another program, which executes it in its own place.
func wrapped(t *testing.T, program string, args ...string) func(*node) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return func(n *node) {
		n.cmd.Args = append(append([]string{path}, args...), n.cmd.Args...)
		n.cmd.Path = path
	}
}

// inMounts runs the exporter in mounts of its own, after a shell script.
func inMounts(t *testing.T, script string) func(*node) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("mount namespaces are not allowed here: %v: %s", err, out)
	}
	return wrapped(t, "unshare", "-m", "sh", "-ec", script+`; exec "$@"`, "sh")
}

// TestFaultLimitsDescriptors: with 64 descriptors, clients do not keep a sampler from
// being started, nor a scraper out.
func TestFaultLimitsDescriptors(t *testing.T) {
	t.Parallel()
	n := launchNodeWith(t, "h100x8", wrapped(t, "prlimit", "--nofile=64:64"), fast...)
	n.eventually(t, "values exist", func() bool { return n.temperatures(t, 8) })
	watch := watchFault(t, n)
	closeAll := n.dial(t, 200, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 2 {
		watch.replacesSampler(t)
	}
	closeAll()
}

// TestFaultLimitsReadOnlyRoot: the exporter writes no files.
func TestFaultLimitsReadOnlyRoot(t *testing.T) {
	t.Parallel()
	n := launchNodeWith(t, "h100x8", func(n *node) {
		dir := filepath.Dir(n.sim.State) // of the simulated node only
		inMounts(t, "mount --make-rprivate /; mount --bind "+dir+" "+dir+"; mount -o remount,ro,bind /; ! touch /tmp/written")(n)
	}, fast...)
	n.eventually(t, "values exist", func() bool { return n.temperatures(t, 8) })
	watch := watchFault(t, n)
	watch.replacesSampler(t)
}

// TestFaultLimitsAtStart: without /proc, without a directory for temporary files, and on
// a full disk, the exporter ends with one clear message.
func TestFaultLimitsAtStart(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	for name, tt := range map[string]struct {
		script string
		env    string
		want   string
	}{
		"no /proc":               {"mount --make-rprivate /; mount -t tmpfs none /proc", "", "mount /proc"},
		"no temporary directory": {"", "TMPDIR=/nonexistent", "set TMPDIR to a writable directory"},
		"full disk":              {"mount --make-rprivate /; mount -t tmpfs -o size=64k none " + full, "TMPDIR=" + full, "No space left on device"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &node{cmd: exec.Command(built(t), "--simulate=h100x8", "--web.listen-address=127.0.0.1:0")}
			if tt.script != "" {
				inMounts(t, tt.script)(n)
			}
			n.cmd.Env = append(os.Environ(), tt.env)
			out, err := n.cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "bus error") {
				t.Errorf("%v, no %q in\n%s", err, tt.want, out)
			}
		})
	}
}

// TestFaultLimitsFullDisk: a log file that cannot grow costs records, which are counted.
func TestFaultLimitsFullDisk(t *testing.T) {
	t.Parallel()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const limit = 4 << 10 // bytes of a file
	n := launchNodeWith(t, "h100x8", func(n *node) {
		n.command(t, "state") // creates the file of the simulated node, which is larger
		wrapped(t, "prlimit", "--fsize="+strconv.Itoa(limit)+":"+strconv.Itoa(limit))(n)
		n.cmd.Stdout, n.cmd.Stderr = log, log
		go func() {
			var size int
			for { // until the listening address is known
				text, err := os.ReadFile(log.Name())
				if err != nil || strings.Contains(n.log.String(), "Listening on") {
					return
				}
				_, _ = n.log.Write(text[size:])
				size = len(text)
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}, append(fast, "--log.level=debug")...)
	n.eventually(t, "values exist", func() bool { return n.temperatures(t, 8) })
	watch := watchFault(t, n)
	layouts := []string{"1g.10gb*2", "off"}
	n.eventually(t, "a record is dropped", func() bool {
		n.command(t, "mig gpu 0 "+layouts[0])
		layouts[0], layouts[1] = layouts[1], layouts[0]
		n.nextSample(t)
		dropped, _ := sumOf(n.scrape(t), "gpu_exporter_log_records_dropped_total")
		return dropped > 0
	})
	if info, err := log.Stat(); err != nil || info.Size() > limit {
		t.Errorf("%v, or the log has more than %d bytes", err, limit)
	}
	n.command(t, "mig gpu 0 off") // eight GPUs have values again
	watch.replacesSampler(t)
}

// TestFaultLimitsMemory: clients that vary all that a client can choose do not fill the
// memory.
func TestFaultLimitsMemory(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	watch := watchFault(t, n)
	for round := range 5 {
		var requests strings.Builder
		for i := range 200 {
			fmt.Fprintf(&requests, "GET /metrics?x=%d HTTP/1.1\r\nHost: x\r\nAccept: text/plain;version=0.0.4;escaping=%s;q=0.%d%d\r\nAccept-Encoding: %s\r\nX: %s\r\n\r\n",
				i, []string{"values", "dots", "underscores", "allow-utf-8"}[i%4], round+1, i, []string{"gzip", "zstd", "identity"}[i%3], strings.Repeat("x", 1000))
		}
		closeAll := n.dial(t, 20, requests.String())
		n.nextSample(t)
		if size := proportionalSize(n.cmd.Process.Pid, "Pss_Anon"); size > watch.before.memory+64<<20 {
			t.Errorf("the exporter has %.0f MiB, both processes had %.0f MiB", size/(1<<20), watch.before.memory/(1<<20))
		}
		closeAll()
	}
	watch.recovers(t, "values are fresh", func() bool { return n.temperatures(t, 8) })
}

// TestFaultLimitsSamplerMemory: a driver that demands a buffer of 8 GiB ends the sampler
// before it uses that memory. The sampler is replaced, and works when the fault has ended.
func TestFaultLimitsSamplerMemory(t *testing.T) {
	t.Parallel()
	n := startRestartable(t, "h100x8", everyCall...)
	watch := watchFault(t, n.node)
	watch.maxLog *= 2
	for _, call := range []string{"nvmlDeviceGetProcessUtilization", "nvmlDeviceGetComputeRunningProcesses*"} {
		crashes := func() float64 {
			v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"crash"`)
			return v
		}
		before, most := crashes(), 0.0
		n.command(t, "garbage "+call+" size")
		n.eventually(t, "the sampler ends: "+call, func() bool {
			most = max(most, proportionalSize(n.samplerPID(), "Pss_Anon"))
			return crashes() > before
		})
		t.Logf("%s: the sampler had at most %.0f MiB", call, most/(1<<20))
		if most > 256<<20 {
			t.Errorf("%s: the sampler had %.0f MiB", call, most/(1<<20))
		}
		n.command(t, "clear")
		n.restart(t) // ends the back-off
		watch.recovers(t, call, func() bool { return gpusUp(n.scrape(t)) == 8 && n.temperatures(t, 8) })
	}
}
