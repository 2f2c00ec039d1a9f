// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// configMapServer is an API server with the ConfigMap gpu/counters. A nil response hangs.
type configMapServer struct {
	kubeconfig string // file
	response   atomic.Pointer[func(http.ResponseWriter)]
}

func newConfigMapServer(t *testing.T) *configMapServer {
	s := &configMapServer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		respond := s.response.Load()
		if respond == nil {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodGet || r.URL.Path != "/api/v1/namespaces/gpu/configmaps/counters" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "configmaps not found"}`)
			return
		}
		(*respond)(w)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, s.kubeconfig, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "x",
"clusters": [{"name": "x", "cluster": {"server": %q}}], "users": [{"name": "x", "user": {}}],
"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}`, server.URL))
	return s
}

// publish sets the data of the ConfigMap.
func (s *configMapServer) publish(data map[string]string) {
	s.respond(func(w http.ResponseWriter) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]string{"namespace": "gpu", "name": "counters"}, "data": data,
		})
	})
}

func (s *configMapServer) respond(f func(http.ResponseWriter)) { s.response.Store(&f) }

// TestCountersOfAConfigMap: the counters are read from the API server at the start and at
// each reload. A failure at a reload leaves the running counters.
func TestCountersOfAConfigMap(t *testing.T) {
	t.Parallel()
	api := newConfigMapServer(t)
	const temperature = "DCGM_FI_DEV_GPU_TEMP, gauge, Temperature of the GPU (in C).\n"
	api.publish(map[string]string{"metrics": temperature})
	n := startNode(t, "h100x8", append(fast, "-m", "gpu:counters", "--kubernetes.kubeconfig="+api.kubeconfig)...)
	series := func(family string) int {
		_, count := sumOf(n.scrape(t), family)
		return count
	}
	n.eventually(t, "the counters are those of the ConfigMap", func() bool {
		return series("DCGM_FI_DEV_GPU_TEMP") == 8 && series("DCGM_FI_DEV_SM_CLOCK") == 0
	})
	api.publish(map[string]string{"metrics": temperature + "DCGM_FI_DEV_SM_CLOCK, gauge, Clock (in MHz).\n"})
	if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Errorf("reload answers %d: %s", status, body)
	}
	n.eventually(t, "a reload reads the ConfigMap", func() bool { return series("DCGM_FI_DEV_SM_CLOCK") == 8 })
	api.respond(func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "configmaps \"counters\" is forbidden"}`)
	})
	if status, body := n.post(t, "/-/reload"); status == http.StatusOK || !strings.Contains(body, `reading ConfigMap gpu:counters: configmaps "counters" is forbidden`) {
		t.Errorf("reload answers %d: %s", status, body)
	}
	if count := series("DCGM_FI_DEV_SM_CLOCK"); count != 8 {
		t.Errorf("%d series after a failed reload", count)
	}
}

// TestConfigMapMistakes: a failure at the start is one line, as dcgm-exporter does not
// start either.
func TestConfigMapMistakes(t *testing.T) {
	t.Parallel()
	api := newConfigMapServer(t)
	check := func(name, want string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), built(t), "check-config", "-m", name, "--kubernetes.kubeconfig="+api.kubeconfig).CombinedOutput()
		line, rest, _ := strings.Cut(string(out), "\n")
		if err == nil || !strings.Contains(line, want) || rest != "" && rest != "gpu_exporter: see --help\n" {
			t.Errorf("%s: %v\n%s\nwant %s", name, err, out, want)
		}
	}
	check("gpu:counters", "reading ConfigMap gpu:counters: ") // the server hangs
	api.publish(map[string]string{"other": "x"})
	check("gpu:counters", `ConfigMap gpu:counters has no key "metrics" with a counters file`)
	check("gpu:none", "reading ConfigMap gpu:none: configmaps not found")
	check("counters", `"counters" is not the name of a ConfigMap: write NAMESPACE:NAME`)
	api.publish(map[string]string{"metrics": "DCGM_FI_DEV_GPU_TMP, gauge, x\n"})
	check("gpu:counters", "ConfigMap gpu:counters:1: unknown field DCGM_FI_DEV_GPU_TMP: did you mean DCGM_FI_DEV_GPU_TEMP?")
}
