// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

// hostProc is a procfs of a host, in files.
type hostProc string

func newHostProc(t *testing.T) hostProc {
	t.Helper()
	p := hostProc(t.TempDir())
	// Only the host's PID namespace has the kernel's threads.
	p.write(t, 2, "stat", "2 (kthreadd) S 0 0 0 0 -1 2129984"+strings.Repeat(" 0", 43))
	return p
}

func (p hostProc) write(t *testing.T, pid int, name, content string) {
	t.Helper()
	dir := filepath.Join(string(p), fmt.Sprint(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// process puts a process into a control group.
func (p hostProc) process(t *testing.T, pid int, cgroup string) {
	t.Helper()
	p.write(t, pid, "stat", fmt.Sprintf("%d (python) R 1 0 0 0 -1 4194304%s", pid, strings.Repeat(" 0", 43)))
	p.write(t, pid, "cgroup", "0::"+cgroup+"\n")
}

// startKubelet starts a kubelet for a test.
func startKubelet(t *testing.T) (kubelet *kubelettest.Kubelet, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet = kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	return kubelet, socket
}

func (n *node) uuid(t *testing.T, gpu string) string {
	t.Helper()
	m := regexp.MustCompile(`gpu_up\{gpu="` + gpu + `",UUID="([^"]+)"`).FindStringSubmatch(n.scrape(t))
	if m == nil {
		t.Fatalf("no GPU %s", gpu)
	}
	return m[1]
}

// has waits until the sum of the series of a family is a value.
func (n *node) has(t *testing.T, value float64, family string, labels ...string) {
	t.Helper()
	var got float64
	var count int
	defer func() {
		if t.Failed() {
			t.Logf("%s%q was last %v in %d series", family, labels, got, count)
		}
	}()
	n.eventually(t, fmt.Sprintf("%s%q is %v", family, labels, value), func() bool {
		got, count = sumOf(n.scrape(t), family, labels...)
		return count > 0 && got == value
	})
}

const (
	uidA = "0a1b2c3d-0000-4000-8000-00000000000a"
	uidB = "0a1b2c3d-0000-4000-8000-00000000000b"
)

// logDirectory is the kubelet's directory of logs, whose names tell the UIDs of
// pods.
func logDirectory(t *testing.T, pods ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, pod := range pods {
		if err := os.Mkdir(filepath.Join(dir, pod), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func podCgroup(uid, container string) string {
	return "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") +
		".slice/cri-containerd-" + strings.Repeat(container, 64) + ".scope"
}

// Batch jobs are known from the files that a prolog writes, in dcgm-exporter's
// form and as a family of their own.
func TestJobFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, jobs string) {
		t.Helper()
		temporary := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(temporary, []byte(jobs), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("0", "1001\n1002\n")
	write("1", "1003\n")
	if err := os.Mkdir(filepath.Join(dir, "2"), 0o755); err != nil { // which is no file of jobs, and costs only itself
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", append(fast, "--hpc-job-mapping-dir="+dir)...)
	n.has(t, 2, "gpu_job_info", `gpu="0"`)
	body := n.scrape(t)
	for _, job := range []string{"1001", "1002"} {
		if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="0"`, `hpc_job="`+job+`"`); count != 1 {
			t.Errorf("job %s is on %d series of its GPU", job, count)
		}
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP"); count != 9 {
		t.Errorf("%d series of 8 GPUs, one of which has two jobs", count)
	}
	if v, _ := sumOf(body, "gpu_exporter_owner_source_failures_total", `source="job_files"`, `reason="not_regular"`); v < 1 {
		t.Errorf("the directory in place of a file is counted %v times", v)
	}
	owners := func(want string) {
		t.Helper()
		n.eventually(t, "gpu_owners is "+want, func() bool {
			var got []string
			body := n.scrape(t)
			for gpu := range 8 {
				value := "-"
				if v, count := sumOf(body, "gpu_owners", fmt.Sprintf(`gpu="%d"`, gpu)); count > 0 {
					value = fmt.Sprint(v)
				}
				got = append(got, value)
			}
			return strings.Join(got, " ") == want
		})
	}
	owners("2 1 - 0 0 0 0 0") // who has GPU 2 cannot be read
	if err := os.Remove(filepath.Join(dir, "1")); err != nil {
		t.Fatal(err)
	}
	n.eventually(t, "a job that ended has left", func() bool {
		_, count := sumOf(n.scrape(t), "gpu_job_info", `job_id="1003"`)
		return count == 0
	})
	owners("2 0 - 0 0 0 0 0")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	owners("- - - - - - - -")
}

// Slurm's jobs are known from where their processes are, without a prolog.
func TestSlurmJobs(t *testing.T) {
	t.Parallel()
	proc := newHostProc(t)
	proc.process(t, 4242, "/system.slice/slurmstepd.scope/job_77/step_0/user/task_0")
	cgroups := t.TempDir()
	job := filepath.Join(cgroups, "system.slice", "slurmstepd.scope", "job_77", "step_0", "user", "task_0")
	if err := os.MkdirAll(job, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(job, "cgroup.procs"), []byte("4242\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proc.write(t, 4242, "environ", "SLURM_JOB_ID=77\x00SLURM_JOB_USER=ada\x00SLURM_JOB_ACCOUNT=lab\x00SLURM_STEP_GPUS=3\x00")
	n := startNode(t, "h100x8", append(fast, "--path.procfs="+string(proc), "--path.cgroupfs="+cgroups, "--slurm.jobs=on")...)
	n.has(t, 1, "gpu_job_info", `gpu="3"`, `account="lab"`, `job_id="77"`, `source="slurm"`, `user="ada"`)
	n.command(t, "process gpu 5 pid 4242 memory 100")
	n.has(t, 1, "gpu_job_info", `gpu="5"`, `job_id="77"`)
	if _, count := sumOf(n.scrape(t), "gpu_job_info"); count != 2 {
		t.Errorf("%d rows of gpu_job_info, want two", count)
	}
}

// A source that says something new does not change what was true at the time of
// What two pods use of the GPU that they share is told by their processes: by
// cgroup and the names in the kubelet's directory of logs, without any API.
func TestUsageOfASharedGPU(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	proc := newHostProc(t)
	proc.process(t, 1001, podCgroup(uidA, "a"))
	proc.process(t, 1002, podCgroup(uidA, "a"))
	proc.process(t, 2001, "/user.slice/user-1000.slice/session-2.scope")
	logs := logDirectory(t, "ml_a_"+uidA, "ml_b_"+uidB)
	args := append([]string{"-k", "--pod-resources-kubelet-socket=" + socket, "--path.procfs=" + string(proc), "--path.pod-logs=" + logs}, fast...)
	n := startNode(t, "h100x8", args...)
	gpu := n.uuid(t, "7")
	kubelet.SetPods(
		kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu.shared", gpu+"::0"),
		kubelettest.Pod("ml", "b", "main", "nvidia.com/gpu.shared", gpu+"::1"),
	)
	for _, command := range []string{
		"process none", "load gpu 7 util 80",
		"process gpu 7 pid 1001 memory 2048 share 50", "process gpu 7 pid 1002 memory 1024 share 25 mps yes",
		"process gpu 7 pid 2001 memory 512 share 10",
	} {
		n.command(t, command)
	}
	n.has(t, 3072<<20, "gpu_pod_memory_used_bytes", `pod="a"`)
	n.has(t, 0, "gpu_pod_memory_used_bytes", `pod="b"`)
	n.has(t, 2, "gpu_pod_processes", `pod="a"`)
	n.has(t, 1024<<20, "gpu_pod_process_memory_used_bytes", `pod="a"`, `type="mps"`)
	n.has(t, 1, "gpu_exporter_processes_unattributed", `reason="outside"`)
	n.eventually(t, "the time of the SMs is told", func() bool {
		v, count := sumOf(n.scrape(t), "gpu_pod_sm_utilization_ratio", `pod="a"`)
		return count == 1 && v > 0.55 && v < 0.65 // 75 % of 80 %
	})
	n.has(t, 0, "gpu_pod_sm_utilization_ratio", `pod="b"`)
	if _, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_UTIL", `gpu="7"`); count != 1 {
		t.Errorf("%d series of the shared GPU, want one", count)
	}

	// A process of a pod whose name is not known could be of either.
	proc.process(t, 3001, podCgroup("0a1b2c3d-0000-4000-8000-00000000000c", "c"))
	n.command(t, "process gpu 7 pid 3001 memory 100")
	n.has(t, 1, "gpu_exporter_processes_unattributed", `reason="unknown_pod"`)
	if _, count := sumOf(n.scrape(t), "gpu_pod_memory_used_bytes", gpu); count != 0 {
		t.Errorf("what may be another's use is told of %d pods", count)
	}
}

// dcgm-exporter's form of shared GPUs, on request: a copy of each series for each
// pod, and what is split by processes beside the device's own.
func TestVirtualGPUs(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	proc := newHostProc(t)
	proc.process(t, 1001, podCgroup(uidA, "a"))
	logs := logDirectory(t, "ml_a_"+uidA, "ml_b_"+uidB)
	args := append([]string{"-k", "--kubernetes-virtual-gpus", "--pod-resources-kubelet-socket=" + socket, "--path.procfs=" + string(proc), "--path.pod-logs=" + logs}, fast...)
	n := startNode(t, "h100x8", args...)
	gpu := n.uuid(t, "7")
	kubelet.SetPods(
		kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu.shared", gpu+"::0"),
		kubelettest.Pod("ml", "b", "main", "nvidia.com/gpu.shared", gpu+"::1"),
	)
	n.command(t, "process none")
	n.command(t, "process gpu 7 pid 1001 memory 2048 share 50")
	n.has(t, 2048, "DCGM_FI_DEV_FB_USED", `gpu="7"`, `pod="a"`, `pod_uid="`+uidA+`"`, `vgpu="0"`)
	n.has(t, 0, "DCGM_FI_DEV_FB_USED", `gpu="7"`, `pod="b"`, `pod_uid="`+uidB+`"`, `vgpu="1"`)
	body := n.scrape(t)
	if _, count := sumOf(body, "DCGM_FI_DEV_FB_USED", `gpu="7"`); count != 3 {
		t.Errorf("%d series of memory, want the device's and two pods'", count)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`); count != 2 {
		t.Errorf("%d series of temperature, want one for each pod", count)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, "pod_uid="); count != 0 {
		t.Error("the UID is on series that dcgm-exporter has it not on")
	}
}

// dockerEngine is the API of an engine with one container.
func dockerEngine(t *testing.T, inspect string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var found struct {
		ID, Name string
		Config   struct{ Labels json.RawMessage }
	}
	if err := json.Unmarshal([]byte(inspect), &found); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.47")
		w.Header().Set("Content-Type", "application/json")
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/_ping"):
			_, _ = io.WriteString(w, "OK")
		case strings.HasSuffix(path, "/version"):
			_, _ = io.WriteString(w, `{"ApiVersion":"1.47","MinAPIVersion":"1.24"}`)
		case strings.HasSuffix(path, "/containers/json"):
			fmt.Fprintf(w, `[{"Id":%q,"Names":[%q],"Image":"jupyter:1","State":"running","Labels":%s}]`, found.ID, found.Name, found.Config.Labels)
		case strings.HasSuffix(path, "/containers/"+found.ID+"/json"):
			_, _ = io.WriteString(w, inspect)
		case strings.HasSuffix(path, "/events"):
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
		}
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return socket
}

// A container of a plain Docker engine is shown on the GPUs that it was given.
func TestDockerContainers(t *testing.T) {
	t.Parallel()
	socket := dockerEngine(t, `{"Id":"`+strings.Repeat("c", 64)+`","Name":"/notebook","State":{"Status":"running","Running":true},
		"Config":{"Image":"jupyter:1","Env":[],"Labels":{"com.docker.compose.project":"lab","com.docker.compose.service":"nb","org.example.owner":"ada","secret":"x"}},
		"HostConfig":{"Runtime":"runc","DeviceRequests":[{"Driver":"nvidia","Count":0,"DeviceIDs":["1","3"],"Capabilities":[["gpu"]]}]}}`)
	n := startNode(t, "h100x8", append(fast, "--docker.socket="+socket, "--docker.label-allowlist-regex=^org")...)
	n.has(t, 1, "gpu_container_info", `gpu="1"`, `compose_project="lab"`, `compose_service="nb"`, `container_name="notebook"`, `image="jupyter:1"`, `label_org_example_owner="ada"`)
	body := n.scrape(t)
	if _, count := sumOf(body, "gpu_container_info"); count != 2 {
		t.Errorf("%d rows, want one for each of two GPUs", count)
	}
	if strings.Contains(body, "secret") {
		t.Error("a label is shown that was not asked for")
	}
	n.has(t, 1, "gpu_exporter_owner_source_up", `source="docker"`)
	n.has(t, 2, "gpu_owners")
}

// Labels, UID and workload of a pod are on its device's series, from the kubelet's
// own Pods API, without any API server; and go with their source's last word.
func TestPodMetadata(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	podsSocket := filepath.Join(t.TempDir(), "pods.sock")
	api := kubelettest.NewPodsAPI(podsSocket)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	yes := true
	api.SetPods(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ml", Name: "train-5d4f-x", UID: uidA,
		Labels:          map[string]string{"app.kubernetes.io/name": "llm", "device": "mine", "pod-template-hash": "5d4f", "secret": "x"},
		Annotations:     map[string]string{"example.com/cost": "42", "other": "y"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "train-5d4f", UID: "rs", Controller: &yes}},
	}})
	n := startNode(t, "h100x8", append([]string{"-k", "--pod-resources-kubelet-socket=" + socket, "--kubernetes.pods-socket=" + podsSocket, "--path.pod-logs=" + t.TempDir(),
		"--kubernetes-enable-pod-labels", "--kubernetes-pod-label-allowlist-regex=^app,^device$", "--kubernetes.pod-annotation-allowlist-regex=cost",
		"--kubernetes-enable-pod-uid", "--kubernetes.workload"}, fast...)...)
	kubelet.SetPods(kubelettest.Pod("ml", "train-5d4f-x", "main", "nvidia.com/gpu", n.uuid(t, "2")))
	n.eventually(t, "the labels are on the series", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `app_kubernetes_io_name="llm"`, `pod_label_device="mine"`,
			`annotation_example_com_cost="42"`, `pod_uid="`+uidA+`"`, `workload="train",workload_kind="Deployment"`)
		return count == 1
	})
	if body := n.scrape(t); strings.Contains(body, "secret") || strings.Contains(body, "other=") {
		t.Error("what no expression matches is shown")
	}
	n.has(t, 1, "gpu_exporter_owner_source_up", `source="pods_api"`)
	api.Stop()
	// Without the socket, the API server is the source. It has no configuration here.
	n.eventually(t, "the API server is the source, and is down", func() bool {
		body := n.scrape(t)
		up, count := sumOf(body, "gpu_exporter_owner_source_up", `source="api_server"`)
		_, former := sumOf(body, "gpu_exporter_owner_source_up", `source="pods_api"`)
		return up == 0 && count == 1 && former == 0
	})
	if _, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `app_kubernetes_io_name="llm"`, `pod="train-5d4f-x"`); count != 1 {
		t.Error("the labels went with their source at once")
	}
}

// Where nobody is asked who holds the devices, there is no count of them.
func TestNobodyIsAskedForOwners(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no Slurm to be found": {"--path.cgroupfs=" + t.TempDir()},
		"not looked for":       {"--slurm.jobs=off"},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, "h100x8", append(fast, args...)...)
			n.has(t, 8, "gpu_up")
			time.Sleep(300 * time.Millisecond) // whoever answers has done so by then
			if _, count := sumOf(n.scrape(t), "gpu_owners"); count != 0 {
				t.Errorf("%d series", count)
			}
		})
	}
}

// Where the kubelet does not say who holds the devices, no device counts as free.
func TestUnknownOwnersAreNoFreeDevices(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", append(fast, "-k", "--pod-resources-kubelet-socket="+filepath.Join(t.TempDir(), "kubelet.sock"))...)
	n.has(t, 0, "gpu_exporter_pod_mapping_up")
	body := n.scrape(t)
	for _, family := range []string{"gpu_owners", "gpu_exporter_pod_mapping_unmatched_devices"} {
		if _, count := sumOf(body, family); count != 0 {
			t.Errorf("%d series of %s", count, family)
		}
	}
}

// Through re-splits of a GPU, with pods that come and go, a pod is on its own
// instance's series and never on another's, although instances' ids are reused.
func TestPodsThroughResplits(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	checkpoints, socket := filepath.Join(root, "device-plugins"), filepath.Join(root, "pod-resources", "kubelet.sock")
	for _, dir := range []string{checkpoints, filepath.Dir(socket)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	n := startNode(t, "a100x7-mig", append(fast, "-k", "--pod-resources-kubelet-socket="+socket)...)
	gpu := n.uuid(t, "0")
	const family = "DCGM_FI_DEV_FB_USED"
	held := regexp.MustCompile(`GPU_I_ID="(\d+)".*pod="r\d+-gi(\d+)"`)
	instances := func(body string) (ids []string) {
		for _, m := range regexp.MustCompile(family+`\{gpu="0",.*GPU_I_ID="(\d+)"`).FindAllStringSubmatch(body, -1) {
			ids = append(ids, m[1])
		}
		return ids
	}
	set := func(pods ...*podresources.PodResources) {
		t.Helper()
		kubelet.SetPods(pods...)
		if err := kubelettest.WriteCheckpoint(filepath.Join(checkpoints, "kubelet_internal_checkpoint")); err != nil {
			t.Fatal(err)
		}
	}
	layouts := []struct {
		layout, profile string
		count           int
	}{{"3g.20gb*2", "3g.20gb", 2}, {"1g.5gb*7", "1g.5gb", 7}, {"2g.10gb*3", "2g.10gb", 3}}
	for round := range 9 {
		l := layouts[round%len(layouts)]
		set()
		n.eventually(t, "the pods are gone", func() bool {
			_, count := sumOf(n.scrape(t), family, `gpu="0"`, "pod=")
			return count == 0
		})
		n.command(t, "mig gpu 0 "+l.layout)
		n.eventually(t, "the GPU is split anew", func() bool {
			body := n.scrape(t)
			_, count := sumOf(body, family, `gpu="0"`, `GPU_I_PROFILE="`+l.profile+`"`)
			return count == l.count && len(instances(body)) == l.count
		})
		var pods []*podresources.PodResources
		for _, gi := range instances(n.scrape(t)) {
			pods = append(pods, kubelettest.Pod("ml", fmt.Sprintf("r%d-gi%s", round, gi), "main", "nvidia.com/mig-"+l.profile, "MIG-"+gpu+"/"+gi+"/0"))
		}
		set(pods...)
		n.eventually(t, "each instance has its pod", func() bool {
			body := n.scrape(t)
			for line := range strings.Lines(body) {
				if m := held.FindStringSubmatch(line); m != nil && (m[1] != m[2] || !strings.Contains(line, fmt.Sprintf(`pod="r%d-`, round))) {
					t.Fatalf("a pod is on another instance: %s", line)
				}
			}
			_, count := sumOf(body, family, `gpu="0"`, fmt.Sprintf(`pod="r%d-gi`, round))
			return count == l.count
		})
	}
}
