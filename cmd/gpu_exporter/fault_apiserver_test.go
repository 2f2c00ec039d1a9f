// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/podmapper/kubelettest"
)

// apiServer lists one pod and one ResourceSlice over TLS, and holds watches open.
type apiServer struct {
	*httptest.Server
	fault atomic.Pointer[apiFault] // nil: none

	mu       sync.Mutex
	cut      chan struct{} // ends the watches
	requests atomic.Int64
}

type apiFault struct {
	answer func(w http.ResponseWriter, r *http.Request)
	only   string // the value of the parameter watch of the affected requests; empty: all requests
}

func newAPIServer(t *testing.T, uuid string) *apiServer {
	t.Helper()
	s := &apiServer{cut: make(chan struct{})}
	meta := func(name string) map[string]any {
		return map[string]any{"name": name, "uid": uidA, "resourceVersion": "7"}
	}
	pod := meta("claimant")
	pod["namespace"], pod["labels"] = "ml", map[string]string{"team": "vision"}
	lists := map[string]any{
		"/api/v1/pods": map[string]any{"apiVersion": "v1", "kind": "PodList", "metadata": map[string]any{"resourceVersion": "7"},
			"items": []any{map[string]any{"metadata": pod, "spec": map[string]any{"nodeName": "node-1"}}}},
		"/apis/resource.k8s.io/v1/resourceslices": map[string]any{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSliceList",
			"metadata": map[string]any{"resourceVersion": "7"}, "items": []any{map[string]any{"metadata": meta("slice"), "spec": map[string]any{
				"driver": "gpu.nvidia.com", "nodeName": "node-1", "pool": map[string]any{"name": "node-1", "generation": 1, "resourceSliceCount": 1},
				"devices": []any{map[string]any{"name": "gpu-0", "attributes": map[string]any{
					"uuid": map[string]string{"string": uuid}, "type": map[string]string{"string": "gpu"}}}}}}}},
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		watch := r.URL.Query().Get("watch")
		if f := s.fault.Load(); f != nil && (f.only == "" || f.only == watch) {
			f.answer(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		list, ok := lists[r.URL.Path]
		switch {
		case !ok:
			http.Error(w, "404 page not found", http.StatusNotFound)
		case watch == "true":
			s.mu.Lock()
			cut := s.cut
			s.mu.Unlock()
			w.(http.Flusher).Flush()
			select {
			case <-cut:
			case <-r.Context().Done():
			}
		default:
			_ = json.NewEncoder(w).Encode(list)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(func() {
		s.begin(nil)
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// begin begins or ends a fault, and ends all watches.
func (s *apiServer) begin(f *apiFault) {
	s.fault.Store(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cut)
	s.cut = make(chan struct{})
}

// kubeconfig writes a kubeconfig that trusts the certificate.
func (s *apiServer) kubeconfig(t *testing.T, certificate []byte) string {
	t.Helper()
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	return writeFile(t, filepath.Join(t.TempDir(), "kubeconfig"), fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":%q,"certificate-authority-data":%q}}],
"users":[{"name":"u","user":{"token":"good"}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`, s.URL, ca))
}

func refusal(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"refused"}`, http.StatusText(code), code)
	}
}

// TestFaultAPIServer: whatever the API server does, the pods keep their devices and labels,
// a metric reports the failure, and the server is neither dialled in a loop nor forgotten.
func TestFaultAPIServer(t *testing.T) {
	t.Parallel()
	type fault struct {
		name string
		apiFault
	}
	// client-go waits longer after each failure, up to 30 s, so each node has few of them.
	for group, faults := range map[string][]fault{
		"transport": {
			{"gone", apiFault{answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}},
			{"garbage", apiFault{answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00{]<html>")) }}},
			{"closing watches", apiFault{only: "true", answer: func(http.ResponseWriter, *http.Request) {}}},
		},
		"refusals": {
			{"slow", apiFault{answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}},
			{"401", apiFault{answer: refusal(http.StatusUnauthorized)}},
			{"403", apiFault{answer: refusal(http.StatusForbidden)}},
		},
	} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			kubelet, socket := startKubelet(t)
			// The nodes of a scenario have equal GPUs.
			gpu, err := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(t)), "sim"), t.TempDir(), "h100x8").Truth(t.Context(), 2)
			if err != nil {
				t.Fatal(err)
			}
			api := newAPIServer(t, gpu.UUID)
			n := startNode(t, "h100x8", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket, "--kubernetes.node-name=node-1",
				"--path.pod-logs="+t.TempDir(), "--kubernetes.dra", "--kubernetes.pod-labels", "--kubernetes.metadata-source=api-server",
				"--kubernetes.kubeconfig="+api.kubeconfig(t, api.Certificate().Raw))...)
			kubelet.SetPods(kubelettest.Claim("ml", "claimant", "main", "claim", kubelettest.ClaimDevice("gpu.nvidia.com", "node-1", "gpu-0")))
			held := func() bool {
				_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `pod="claimant"`, `team="vision"`)
				return count == 1
			}
			n.eventually(t, "the pod has its device by a claim, and its labels", held)
			watch := watchFault(t, n)
			sources := func() float64 {
				up, _ := sumOf(n.scrape(t), "gpu_exporter_owner_source_up")
				return up
			}
			before := sources()
			for _, f := range faults {
				requests, start := api.requests.Load(), time.Now()
				api.begin(&f.apiFault)
				n.eventually(t, f.name+" is reported or tried again", func() bool {
					if !held() {
						t.Fatalf("%s: the pod has lost its device or its labels", f.name)
					}
					// A watch that closes is no failure, and a slow answer may still come.
					harmless := f.only != "" || f.name == "slow"
					return sources() < before || harmless && api.requests.Load() > requests
				})
				if got, limit := api.requests.Load()-requests, 10*int64(time.Since(start)/time.Second+2); got > limit {
					t.Errorf("%s: %d requests in %v", f.name, got, time.Since(start))
				}
				api.begin(nil)
				api.CloseClientConnections()
				start = time.Now()
				n.eventually(t, f.name+": the sources work again", func() bool { return held() && sources() == before })
				t.Logf("%s: recovered in %v", f.name, time.Since(start).Round(time.Millisecond))
			}
			watch.recovers(t, "values are fresh", func() bool { return gpusUp(n.scrape(t)) == 8 })
		})
	}
}

// TestFaultAPIServerCertificate: an API server with an unknown certificate is a reported
// failure of the source, and no pod label is published.
func TestFaultAPIServerCertificate(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	api := newAPIServer(t, "GPU-0")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	other, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket, "--kubernetes.node-name=node-1", "--path.pod-logs="+t.TempDir(),
		"--kubernetes.pod-labels", "--kubernetes.metadata-source=api-server", "--kubernetes.kubeconfig="+api.kubeconfig(t, other))...)
	kubelet.SetPods(kubelettest.Pod("ml", "claimant", "main", "nvidia.com/gpu", n.uuid(t, "2")))
	n.eventually(t, "the failure is reported, and the pod has its device", func() bool {
		body := n.scrape(t)
		up, sources := sumOf(body, "gpu_exporter_owner_source_up", `source="api_server"`)
		_, pod := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `pod="claimant"`)
		return sources == 1 && up == 0 && pod == 1
	})
	if api.requests.Load() != 0 {
		t.Error("a request was sent, with the token")
	}
}
