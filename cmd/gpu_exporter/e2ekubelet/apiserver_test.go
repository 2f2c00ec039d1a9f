// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Users of the API server. Each name is also the token.
const (
	admin        = "admin"
	nodeUser     = "node"
	exporterUser = "exporter"
)

// apiServer is a real API server with etcd. It has no controllers, so the tests create
// the objects that controllers would create.
type apiServer struct {
	m       *machine
	address string
	args    []string // further arguments
	cmd     *exec.Cmd
	wait    func()
	client  *http.Client
}

func startAPIServer(t *testing.T, m *machine) *apiServer {
	t.Helper()
	// The plugin needs a controller that creates default accounts.
	return startAPIServerAt(t, m, "127.0.0.1", "--disable-admission-plugins=ServiceAccount")
}

// startAPIServerAt starts an API server on an address, with further arguments.
func startAPIServerAt(t *testing.T, m *machine, address string, args ...string) *apiServer {
	t.Helper()
	const etcdURL = "http://127.0.0.1:2379"
	if _, err := m.start("etcd", exec.Command("etcd", "--data-dir="+filepath.Join(m.dir, "etcd"),
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL, "--listen-peer-urls=http://127.0.0.1:2380")); err != nil {
		t.Fatal(err)
	}
	a := &apiServer{m: m, address: address, args: args}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tokens := strings.Join([]string{
		admin + "," + admin + ",1,system:masters",
		nodeUser + ",system:node:" + nodeName + ",2,system:nodes",
		exporterUser + "," + exporterUser + ",3",
	}, "\n")
	for name, text := range map[string][]byte{
		"service-account.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"tokens.csv":          []byte(tokens),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.start(t)
	return a
}

func (a *apiServer) start(t *testing.T) {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(*kubernetesFlag, "kube-apiserver"))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(a.m.dir, "service-account.key")
	a.cmd = exec.Command(program, append([]string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=" + a.address, "--secure-port=6443", "--advertise-address=" + nodeIP,
		"--cert-dir=" + filepath.Join(a.m.dir, "certificates"), // where it writes its own certificate
		"--token-auth-file=" + filepath.Join(a.m.dir, "tokens.csv"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
	}, a.args...)...)
	if a.wait, err = a.m.start("kube-apiserver", a.cmd); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API server is ready", func() error {
		if a.client == nil {
			if a.client, err = a.newClient(); err != nil {
				return err
			}
		}
		return a.do(t.Context(), http.MethodGet, "/readyz", nil, nil)
	})
}

func (a *apiServer) url() string { return "https://" + a.address + ":6443" }

func (a *apiServer) kill(t *testing.T) {
	t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.wait()
}

// certificate returns the path of the API server's self-signed certificate.
func (a *apiServer) certificate() string {
	return filepath.Join(a.m.dir, "certificates", "apiserver.crt")
}

func (a *apiServer) newClient() (*http.Client, error) {
	text, err := os.ReadFile(a.certificate())
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate in " + a.certificate())
	}
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DialContext: a.m.dial, TLSClientConfig: &tls.Config{RootCAs: pool}},
	}, nil
}

// kubeconfig writes the kubeconfig of a user and returns its path.
func (a *apiServer) kubeconfig(t *testing.T, user string) string {
	t.Helper()
	path := filepath.Join(a.m.dir, user+".kubeconfig")
	text := marshal(t, map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
		"clusters": []any{map[string]any{"name": "e2e", "cluster": map[string]any{"server": a.url(), "certificate-authority": a.certificate()}}},
		"users":    []any{map[string]any{"name": user, "user": map[string]any{"token": user}}},
		"contexts": []any{map[string]any{"name": "e2e", "context": map[string]any{"cluster": "e2e", "user": user}}},
	})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// create creates an object as the administrator and updates it from the response.
func (a *apiServer) create(t *testing.T, path string, object any) {
	t.Helper()
	if err := a.do(t.Context(), http.MethodPost, path, object, object); err != nil {
		t.Fatal(err)
	}
}

// do sends a request as the administrator.
func (a *apiServer) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url()+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, path, err)
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
