// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

// kubeletProcess is a variable. It makes the test binary a kubelet on the socket that
// it contains, so that the cost of each side can be measured.
const kubeletProcess = "PODMAPPER_TEST_KUBELET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(kubeletProcess); socket != "" {
		if err := serveKubelet(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveKubelet serves until its input ends, and then prints the number of connections.
func serveKubelet(socket string) error {
	k := kubelettest.New(socket)
	k.SetPods(fullNode(250)...)
	if err := k.Start(); err != nil {
		return err
	}
	defer k.Stop()
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	_, err := fmt.Println(k.Connections())
	return err
}

// fullNode returns pods of two containers. One of them holds a share of a GPU.
func fullNode(n int) []*podresources.PodResources {
	var all []*podresources.PodResources
	for i := range n {
		p := kubelettest.Pod(fmt.Sprintf("namespace-%d", i%20), fmt.Sprintf("deployment-%d-5d4c8f7b9-x%04d", i%40, i), "main",
			"nvidia.com/gpu.shared", fmt.Sprintf("GPU-5fd4f4e1-9b29-4a1c-b0a6-0f6c8f5ed3%02x::%d", i%16, i/16))
		p.Containers = append(p.Containers, &podresources.ContainerResources{Name: "sidecar"})
		all = append(all, p)
	}
	return all
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRefresh is one refresh over the socket of a kubelet in another
// process, on a node of 250 pods that all hold a device. client-ms and kubelet-ms
// are CPU time. All refreshes go over one connection.
func BenchmarkRefresh(b *testing.B) {
	socket := filepath.Join(b.TempDir(), "kubelet.sock")
	kubelet := exec.Command(os.Args[0])
	kubelet.Env = append(os.Environ(), kubeletProcess+"="+socket)
	kubelet.Stderr = os.Stderr
	in, err := kubelet.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := kubelet.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := kubelet.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		b.Fatal(err)
	}

	m := newMapper(b, Config{Socket: socket})
	if err := m.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	if n := len(m.Table().Assignments); n != 250 {
		b.Fatalf("%d assignments", n)
	}
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		if err := m.Refresh(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	client := cpuTime(b) - start

	in.Close()
	var connections int
	if _, err := fmt.Fscanln(out, &connections); err != nil || connections != 1 {
		b.Errorf("%d connections for %d refreshes, error %v", connections, b.N+1, err)
	}
	if err := kubelet.Wait(); err != nil {
		b.Error(err)
	}
	perRefresh := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(perRefresh(client), "client-ms/op")
	b.ReportMetric(perRefresh(kubelet.ProcessState.UserTime()+kubelet.ProcessState.SystemTime()), "kubelet-ms/op")
	b.ReportMetric(float64(messageSize(fullNode(250))), "answer-bytes")
}
