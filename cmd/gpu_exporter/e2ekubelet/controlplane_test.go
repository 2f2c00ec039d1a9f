// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet && e2echart

package e2ekubelet

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// cluster is a node with the whole control plane and a network of pods.
type cluster struct {
	m          *machine
	api        *apiServer
	kubelet    *kubelet
	kubeconfig string
	chart      string // programs in the machine have another working directory
}

// startCluster starts all programs of a cluster, and imports an image into its node.
func startCluster(t *testing.T, image []byte) *cluster {
	t.Helper()
	m := newMachine(t)
	writeNetwork(t, m)
	startContainerd(t, m)
	importImage(t, m, image)
	c := &cluster{m: m, api: startAPIServerAt(t, m, nodeIP, "--allow-privileged=true", "--service-cluster-ip-range=10.96.0.0/16",
		"--kubelet-preferred-address-types=InternalIP")}
	c.kubeconfig = c.api.kubeconfig(t, admin)
	var err error
	if c.chart, err = filepath.Abs("../../../deploy/helm/gpu-exporter"); err != nil {
		t.Fatal(err)
	}
	for program, args := range map[string][]string{
		"kube-controller-manager": {"--service-account-private-key-file=" + filepath.Join(m.dir, "service-account.key"), "--root-ca-file=" + c.api.certificate()},
		"kube-scheduler":          nil,
	} {
		path, err := filepath.Abs(filepath.Join(*kubernetesFlag, program))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.start(program, exec.Command(path, append(args, "--kubeconfig="+c.kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1")...)); err != nil {
			t.Fatal(err)
		}
	}
	c.kubelet = startKubelet(t, m, c.api.kubeconfig(t, nodeUser))
	c.serveDNS(t)
	eventually(t, "the node is ready", func() error {
		var node corev1.Node
		if err := c.api.do(t.Context(), http.MethodGet, "/api/v1/nodes/"+nodeName, nil, &node); err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", node.Status.Conditions)
	})
	return c
}

// writeNetwork configures the network of pods: the bridge of the machine.
func writeNetwork(t *testing.T, m *machine) {
	t.Helper()
	dir := filepath.Join(m.dir, "cni")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, plugin := range []string{"bridge", "host-local", "loopback"} {
		const installed = "/usr/lib/cni"
		if _, err := os.Stat(filepath.Join(installed, plugin)); err != nil {
			t.Fatalf("%v: install containernetworking-plugins", err)
		}
		if err := os.Symlink(filepath.Join(installed, plugin), filepath.Join(dir, plugin)); err != nil {
			t.Fatal(err)
		}
	}
	network := marshal(t, map[string]any{
		"cniVersion": "0.4.0", "name": "pods",
		"plugins": []any{map[string]any{"type": "bridge", "bridge": "node0", "ipam": map[string]any{
			"type": "host-local", "routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			"ranges": []any{[]any{map[string]any{"subnet": "10.244.8.0/24", "rangeStart": "10.244.8.10", "gateway": nodeIP}}},
		}}},
	})
	if err := os.WriteFile(filepath.Join(dir, "pods.conflist"), network, 0o644); err != nil {
		t.Fatal(err)
	}
}

// serveDNS answers the names of Services with the address of one of their pods. It is the
// cluster's DNS and its proxy of Services.
func (c *cluster) serveDNS(t *testing.T) {
	t.Helper()
	var conn net.PacketConn
	err := c.m.within(unix.CLONE_NEWNET, func() (err error) {
		conn, err = net.ListenPacket("udp4", nodeIP+":53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		query := make([]byte, 512)
		for {
			n, client, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			if answer := c.answer(query[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, client)
			}
		}
	}()
}

// answer returns the answer to a DNS query (RFC 1035, section 4.1), without an address if the
// name is not that of a Service, or if another type is asked for.
func (c *cluster) answer(query []byte) []byte {
	var name []string
	end := 12 // of the header
	for end < len(query) && query[end] != 0 {
		next := end + 1 + int(query[end])
		if next >= len(query) {
			return nil
		}
		name = append(name, string(query[end+1:next]))
		end = next
	}
	end += 5 // the root, type and class
	if end > len(query) || len(name) == 0 {
		return nil
	}
	answer := append([]byte{}, query[:end]...)
	copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}) // a response without errors, with one question
	if len(name) < 3 || name[2] != "svc" || query[end-3] != 1 {
		return answer
	}
	pods, err := c.pods(context.Background(), name[1], "app.kubernetes.io/name=gpu-exporter")
	if err != nil || len(pods) == 0 {
		return answer
	}
	answer[7] = 1
	answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, A, IN, no caching, 4 bytes
	return append(answer, binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(net.ParseIP(pods[0].Status.PodIP).To4()))...)
}

// pods returns pods that are not being deleted and have an address.
func (c *cluster) pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := c.api.do(ctx, http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods?labelSelector="+selector, nil, &list); err != nil {
		return nil, err
	}
	var live []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil && p.Status.PodIP != "" {
			live = append(live, p)
		}
	}
	return live, nil
}

// kubectl runs the kubectl of the cluster's version as the administrator.
func (c *cluster) kubectl(args ...string) (string, error) {
	program, err := filepath.Abs(filepath.Join(*kubernetesFlag, "kubectl"))
	if err != nil {
		return "", err
	}
	return c.m.run(program, append([]string{"--kubeconfig=" + c.kubeconfig, "--cache-dir=" + filepath.Join(c.m.dir, "kubectl")}, args...)...)
}

// exporterImage returns an image with the exporter, the stand-ins and the libraries that they
// load.
func exporterImage(t *testing.T, name string) []byte {
	t.Helper()
	var files []file
	add := func(path, source string, mode int64) {
		data, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{strings.TrimPrefix(path, "/"), mode, data})
	}
	add("/usr/bin/gpu_exporter", *exporterFlag, 0o755)
	libraries := map[string]bool{}
	sim := filepath.Join(filepath.Dir(*exporterFlag), "sim")
	entries, err := os.ReadDir(sim)
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{*exporterFlag}
	for _, e := range entries {
		if e.Type().IsRegular() {
			add("/usr/lib/gpu_exporter/sim/"+e.Name(), filepath.Join(sim, e.Name()), 0o755)
			programs = append(programs, filepath.Join(sim, e.Name()))
		}
	}
	for _, program := range programs {
		out, err := exec.CommandContext(t.Context(), "ldd", program).CombinedOutput()
		if err != nil {
			continue // not a program
		}
		for field := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(field, "/lib") && !libraries[field] {
				libraries[field] = true
				add(field, field, 0o755)
			}
		}
	}
	if len(libraries) == 0 {
		t.Fatal("ldd lists no libraries of the exporter")
	}
	return imageArchive(t, name, "/usr/bin/gpu_exporter", files...)
}

// errNone is an absent object.
var errNone = errors.New("none")

// event returns the message of the first event with a reason.
func (c *cluster) event(ctx context.Context, namespace, reason string) (string, error) {
	var list corev1.EventList
	if err := c.api.do(ctx, http.MethodGet, "/api/v1/namespaces/"+namespace+"/events", nil, &list); err != nil {
		return "", err
	}
	for _, e := range list.Items {
		if e.Reason == reason {
			return e.Message, nil
		}
	}
	return "", fmt.Errorf("event %s: %w", reason, errNone)
}

// moduleDir returns the directory of a module in the module cache.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module).Output()
	if err != nil {
		t.Fatalf("downloading %s: %v", module, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}
