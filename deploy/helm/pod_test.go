// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// podOf returns the pods that the DaemonSet creates.
func podOf(t *testing.T, objects []object) any {
	t.Helper()
	return at(of(t, objects, "DaemonSet"), "spec", "template", "spec")
}

// args returns the arguments of the exporter.
func args(pod any) []string {
	var args []string
	list, _ := at(pod, "containers", 0, "args").([]any)
	for _, a := range list {
		args = append(args, a.(string))
	}
	return args
}

// variable returns a variable of the exporter.
func variable(pod any, name string) any {
	variables, _ := at(pod, "containers", 0, "env").([]any)
	for _, v := range variables {
		if at(v, "name") == name {
			return at(v, "value")
		}
	}
	return nil
}

// privileges is what a pod may do on its node.
type privileges struct {
	uid         int
	capability  any
	privileged  any
	hostPID     any
	hostNetwork any
	token       bool
	directories []string // of the node
}

// level returns the lowest Pod Security level that admits a pod with privileges.
func (p privileges) level() string {
	switch {
	case p.privileged != nil || p.hostPID != nil || p.hostNetwork != nil || p.capability != nil || len(p.directories) > 0:
		return "privileged"
	case p.uid == 0:
		return "baseline"
	}
	return "restricted"
}

// TestPrivileges: each privilege needs its value.
func TestPrivileges(t *testing.T) {
	const kubelet = "/var/lib/kubelet/"
	pods := func(more ...string) []string { return append([]string{kubelet + "pod-resources"}, more...) }
	tests := []struct {
		name, values string
		level        string
		want         privileges
	}{
		{"default", "", "privileged", privileges{directories: pods()}},
		{"restricted", "kubernetes: {enabled: false}", "restricted", privileges{uid: 65534}},
		{"restricted with a hostengine", "kubernetes: {enabled: false}\nsource: {type: hostengine}", "restricted", privileges{uid: 65534}},
		{"profiling", "privileges: {profiling: true}", "privileged", privileges{capability: "SYS_ADMIN", directories: pods()}},
		{"usage", "hostPID: true", "privileged", privileges{hostPID: true, directories: pods("/var/log/pods", "/var/log/containers")}},
		{"kernel log", "privileges: {kernelLog: true}", "privileged", privileges{privileged: true, directories: pods("/dev/kmsg")}},
		{"device files", "privileges: {devices: true}", "privileged", privileges{privileged: true, directories: pods()}},
		{"device plugins", "privileges: {devicePlugins: true}", "privileged", privileges{directories: pods(kubelet + "device-plugins")}},
		{"labels", "kubernetes: {enablePodLabels: true}", "privileged", privileges{token: true, directories: pods(kubelet + "pods-api")}},
		{"labels from the API server", "kubernetes: {enablePodLabels: true, metadataSource: api-server}", "privileged", privileges{token: true, directories: pods()}},
		{"labels from the kubelet", "kubernetes: {enablePodLabels: true, metadataSource: kubelet}", "privileged", privileges{directories: pods(kubelet + "pods-api")}},
		{"labels without the mapping of pods", "kubernetes: {enabled: false, enablePodLabels: true}", "restricted", privileges{uid: 65534}},
		{"DRA", "kubernetesDRA: {enabled: true}", "privileged", privileges{token: true, directories: pods()}},
		{"socket of the hostengine", "source: {type: hostengine, hostengine: /run/nvidia/he.sock}", "privileged", privileges{directories: pods("/run/nvidia")}},
		{"libraries of the node", "kubernetes: {enabled: false}\nsource: {libraryPath: /usr/lib64}", "privileged", privileges{uid: 65534, directories: []string{"/usr/lib64"}}},
		{"network of the node", "hostNetwork: true", "privileged", privileges{hostNetwork: true, directories: pods()}},
	}
	helmed(t, func(t *testing.T, helm string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				pod := podOf(t, render(t, helm, tt.values))
				security := at(pod, "containers", 0, "securityContext")
				got := privileges{
					uid:         at(pod, "securityContext", "runAsUser").(int),
					capability:  at(security, "capabilities", "add", 0),
					privileged:  at(security, "privileged"),
					hostPID:     at(pod, "hostPID"),
					hostNetwork: at(pod, "hostNetwork"),
					token:       at(pod, "automountServiceAccountToken").(bool),
				}
				for _, v := range at(pod, "volumes").([]any) {
					if path := at(v, "hostPath", "path"); path != nil {
						got.directories = append(got.directories, path.(string))
					}
				}
				slices.Sort(got.directories)
				slices.Sort(tt.want.directories)
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("privileges %+v, want %+v", got, tt.want)
				}
				if got.level() != tt.level {
					t.Errorf("needs the Pod Security level %s, want %s", got.level(), tt.level)
				}
				// The kubelet rejects the others in a privileged container.
				hardened := at(security, "capabilities", "drop", 0) == "ALL" && at(security, "allowPrivilegeEscalation") == false
				if hardened != (got.privileged == nil) || at(security, "readOnlyRootFilesystem") != true {
					t.Errorf("security context of the container: %v", security)
				}
				if at(pod, "securityContext", "seccompProfile", "type") != "RuntimeDefault" || at(pod, "securityContext", "runAsNonRoot") != (got.uid != 0) {
					t.Errorf("security context of the pod: %v", at(pod, "securityContext"))
				}
			})
		}
	})
}

// TestPlatforms: OpenShift's constraints allow the privileges of the pod, and no more.
func TestPlatforms(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for values, want := range map[string]string{
			"":                              "false false true [ALL] []",
			"kubernetes: {enabled: false}":  "false false false [ALL] []",
			"privileges: {profiling: true}": "false false true [] [SYS_ADMIN]",
			"privileges: {kernelLog: true}": "true false true [] []",
			"hostPID: true":                 "false true true [ALL] []",
		} {
			scc := of(t, render(t, helm, "openshift: {scc: {create: true}}\n"+values), "SecurityContextConstraints")
			got := fmt.Sprint(scc["allowPrivilegedContainer"], " ", scc["allowHostPID"], " ", scc["allowHostDirVolumePlugin"], " ", scc["requiredDropCapabilities"], " ", scc["allowedCapabilities"])
			if got != want {
				t.Errorf("%q: constraints %s, want %s", values, got, want)
			}
		}
	})
}

// TestNodes: without a value, only nodes with a label of GPUs are selected.
func TestNodes(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		terms := func(values string) int {
			list, _ := at(podOf(t, render(t, helm, values)), "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").([]any)
			return len(list)
		}
		for values, want := range map[string]int{
			"": 8,
			"nodeSelector: {kubernetes.io/os: linux}": 0,
			"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}": 1,
		} {
			if got := terms(values); got != want {
				t.Errorf("%q: %d terms, want %d", values, got, want)
			}
		}
		if got := at(podOf(t, render(t, helm, "")), "tolerations"); !reflect.DeepEqual(got, []any{object{"effect": "NoSchedule", "operator": "Exists"}}) {
			t.Errorf("tolerations %v", got)
		}
	})
}

// TestSources: arguments, access to GPUs and memory follow from the source.
func TestSources(t *testing.T) {
	tests := []struct{ values, arg, devices, memory string }{
		{"", "", "all", "512Mi"},
		{"source: {type: hostengine}", "--dcgm.hostengine=$(HOST_IP):5555", "all", "128Mi"},
		{"source: {type: hostengine}\nkubernetes: {enabled: false}", "--dcgm.hostengine=$(HOST_IP):5555", "void", "128Mi"},
		{"simulate: h100x8", "--simulate=h100x8", "void", "128Mi"},
		{"source: {libraryPath: /opt/nvidia}", "--dcgm.library-path=/opt/dcgm", "all", "512Mi"},
	}
	helmed(t, func(t *testing.T, helm string) {
		for _, tt := range tests {
			pod := podOf(t, render(t, helm, tt.values))
			if got := args(pod); tt.arg != "" && !slices.Contains(got, tt.arg) {
				t.Errorf("%q: arguments %v lack %s", tt.values, got, tt.arg)
			}
			if got := variable(pod, "NVIDIA_VISIBLE_DEVICES"); got != tt.devices {
				t.Errorf("%q: devices %v, want %s", tt.values, got, tt.devices)
			}
			if got := at(pod, "containers", 0, "resources", "limits", "memory"); got != tt.memory {
				t.Errorf("%q: at most %v, want %s", tt.values, got, tt.memory)
			}
		}
	})
}

// TestNoProfilingFields: without them, no counter and no family uses the profiling hardware.
func TestNoProfilingFields(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for _, counters := range []string{"", "customMetrics: |\n  DCGM_FI_DEV_GPU_TEMP, gauge, x\n    DCGM_FI_PROF_DRAM_ACTIVE, gauge, x\n"} {
			objects := render(t, helm, "source: {profilingFields: false}\n"+counters)
			file := at(of(t, objects, "ConfigMap"), "data", "counters.csv").(string)
			for line := range strings.Lines(file) {
				if strings.HasPrefix(strings.TrimSpace(line), "DCGM_FI_PROF_") {
					t.Errorf("the counters file has %s", line)
				}
			}
			if !strings.Contains(file, "DCGM_FI_DEV_GPU_TEMP,") {
				t.Errorf("the counters file does not have the other fields:\n%s", file)
			}
			got := args(podOf(t, objects))
			for _, want := range []string{"--families=-busy,-engines,-traffic,-profiling", "--counters.file=/etc/gpu_exporter/config/counters.csv"} {
				if !slices.Contains(got, want) {
					t.Errorf("arguments %v lack %s", got, want)
				}
			}
		}
	})
}

// TestFiles: the exporter sees a change of its files, because directories are mounted, and a
// change of the ConfigMap does not restart pods.
func TestFiles(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		render := func(interval string) (pod, config any) {
			objects := render(t, helm, "config: {sample: {interval: "+interval+"}}\nbasicAuth: {users: {a: $2y$10$x}}\ntlsServerConfig: {enabled: true, existingSecret: tls}")
			return podOf(t, objects), at(of(t, objects, "ConfigMap"), "data")
		}
		before, old := render("5s")
		after, changed := render("10s")
		if !reflect.DeepEqual(before, after) || reflect.DeepEqual(old, changed) {
			t.Errorf("the pod changes with the configuration, or the ConfigMap does not")
		}
		for _, m := range at(before, "containers", 0, "volumeMounts").([]any) {
			if at(m, "subPath") != nil || at(m, "readOnly") != true && at(m, "name") != "tmp" {
				t.Errorf("mount %v", m)
			}
		}
	})
}

// TestProbes: the kubelet uses TLS, and without credentials it only connects.
func TestProbes(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for values, want := range map[string]any{
			"": object{"path": "/-/ready", "port": "metrics", "scheme": "HTTP"},
			"tlsServerConfig: {enabled: true, existingSecret: x}": object{"path": "/-/ready", "port": "metrics", "scheme": "HTTPS"},
			"basicAuth: {users: {a: $2y$10$x}}":                   nil,
		} {
			probe := at(podOf(t, render(t, helm, values)), "containers", 0, "readinessProbe")
			if got := at(probe, "httpGet"); !reflect.DeepEqual(got, want) || (want == nil) != (at(probe, "tcpSocket", "port") == "metrics") {
				t.Errorf("%q: probe %v, want %v", values, probe, want)
			}
		}
	})
}

// TestImage: a digest wins over a tag, and the registry of all charts is the default.
func TestImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	helmed(t, func(t *testing.T, helm string) {
		for values, want := range map[string]string{
			"": "gpu_exporter:" + version(t),
			"image: {registry: r.example.com/, repository: a/b, tag: x}":     "r.example.com/a/b:x",
			"image: {tag: x, digest: " + digest + "}":                        "gpu_exporter@" + digest,
			"global: {imageRegistry: g.example.com}":                         "g.example.com/gpu_exporter:" + version(t),
			"global: {imageRegistry: g.example.com}\nimage: {registry: r.x}": "r.x/gpu_exporter:" + version(t),
		} {
			objects := render(t, helm, values)
			if got := at(podOf(t, objects), "containers", 0, "image"); got != want {
				t.Errorf("%q: image %v, want %s", values, got, want)
			}
			if got := at(of(t, objects, "Pod"), "spec", "containers", 0, "image"); got != want {
				t.Errorf("%q: the test's image is %v, want %s", values, got, want)
			}
		}
	})
}

// TestUpdates: an update replaces one tenth of the pods at a time, or waits for deletions.
func TestUpdates(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for values, want := range map[string]any{
			"":                                   object{"type": "RollingUpdate", "rollingUpdate": object{"maxUnavailable": "10%", "maxSurge": 0}},
			"rollingUpdate: {maxUnavailable: 1}": object{"type": "RollingUpdate", "rollingUpdate": object{"maxUnavailable": 1, "maxSurge": 0}},
			"updateStrategy: OnDelete":           object{"type": "OnDelete"},
		} {
			if got := at(of(t, render(t, helm, values), "DaemonSet"), "spec", "updateStrategy"); !reflect.DeepEqual(got, want) {
				t.Errorf("%q: %v, want %v", values, got, want)
			}
		}
	})
}

// TestReadyPod: helm test verifies the certificate of the exporter, without privileges.
func TestReadyPod(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		const host = "gpu-gpu-exporter.monitoring.svc"
		for values, url := range map[string]string{
			"service: {port: 9500}":                                 "http://" + host + ":9500",
			"tlsServerConfig: {enabled: true, existingSecret: tls}": "https://" + host + ":9400",
		} {
			pod := at(of(t, render(t, helm, values), "Pod"), "spec")
			if got := args(pod); !slices.Equal(got, []string{"ready", url}) {
				t.Errorf("%q: arguments %v, want %s", values, got, url)
			}
			if secure := strings.HasPrefix(url, "https"); (variable(pod, "SSL_CERT_FILE") == "/etc/gpu_exporter/tls/ca.crt") != secure {
				t.Errorf("%q: certificate %v", values, variable(pod, "SSL_CERT_FILE"))
			}
			if at(pod, "securityContext", "runAsNonRoot") != true || at(pod, "containers", 0, "securityContext", "capabilities", "drop", 0) != "ALL" {
				t.Errorf("security contexts of %v", pod)
			}
		}
	})
}
