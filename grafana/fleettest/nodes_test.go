// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

// kubernetes imitates what an exporter reads from a node of a cluster: the kubelet's APIs,
// the host's processes and the directory of pod logs.
type kubernetes struct {
	t       *testing.T
	kubelet *kubelettest.Kubelet
	api     *kubelettest.PodsAPI
	proc    string
	logs    string
	held    map[string]*podresources.PodResources
	args    []string
}

func startKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	dir := t.TempDir()
	k := &kubernetes{
		t: t, kubelet: kubelettest.New(filepath.Join(dir, "kubelet.sock")), api: kubelettest.NewPodsAPI(filepath.Join(dir, "pods.sock")),
		proc: newProc(t), logs: t.TempDir(), held: map[string]*podresources.PodResources{},
	}
	for _, server := range []interface {
		Start() error
		Stop()
	}{k.kubelet, k.api} {
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Stop)
	}
	k.args = []string{
		"--kubernetes.enabled", "--kubernetes.pod-resources-socket=" + filepath.Join(dir, "kubelet.sock"),
		"--kubernetes.pods-socket=" + filepath.Join(dir, "pods.sock"), "--path.pod-logs=" + k.logs, "--path.procfs=" + k.proc,
		"--kubernetes.workload", "--kubernetes.pod-labels", "--kubernetes.pod-labels-form=family", "--slurm.jobs=off",
	}
	return k
}

// run starts a pod of a workload that holds devices.
func (k *kubernetes) run(namespace, kind, workload, suffix, resource string, devices ...string) {
	k.t.Helper()
	name := workload + "-" + suffix
	uid := fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012x", len(k.held)+1)
	yes := true
	if err := os.Mkdir(filepath.Join(k.logs, namespace+"_"+name+"_"+uid), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := k.api.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(uid), Labels: map[string]string{"app.kubernetes.io/name": workload, "team": namespace},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: workload, UID: types.UID("owner-of-" + uid), Controller: &yes}},
	}}); err != nil {
		k.t.Fatal(err)
	}
	k.held[name] = kubelettest.Pod(namespace, name, "main", resource, devices...)
	k.publish()
	addProcess(k.t, k.proc, 1000+len(k.held), "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"+strings.ReplaceAll(uid, "-", "_")+
		".slice/cri-containerd-"+fmt.Sprintf("%064x", len(k.held))+".scope")
}

// end ends a pod.
func (k *kubernetes) end(name string) {
	delete(k.held, name)
	k.publish()
}

func (k *kubernetes) publish() {
	var all []*podresources.PodResources
	for _, p := range k.held {
		all = append(all, p)
	}
	k.kubelet.SetPods(all...)
}

// newProc makes a directory that imitates the procfs of a host.
func newProc(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// Kernel threads exist only in the host's PID namespace.
	write(t, filepath.Join(dir, "2", "stat"), "2 (kthreadd) S 0 0 0 0 -1 2129984"+strings.Repeat(" 0", 43))
	return dir
}

// addProcess adds a process in a control group.
func addProcess(t *testing.T, proc string, pid int, cgroup string) {
	t.Helper()
	dir := filepath.Join(proc, fmt.Sprint(pid))
	write(t, filepath.Join(dir, "stat"), fmt.Sprintf("%d (python) R 1 0 0 0 -1 4194304%s", pid, strings.Repeat(" 0", 43)))
	write(t, filepath.Join(dir, "cgroup"), "0::"+cgroup+"\n")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// slurm imitates the control groups and processes of Slurm jobs.
type slurm struct {
	t             *testing.T
	proc, cgroups string
	args          []string
}

func newSlurm(t *testing.T) *slurm {
	t.Helper()
	s := &slurm{t: t, proc: newProc(t), cgroups: t.TempDir()}
	s.args = []string{"--path.procfs=" + s.proc, "--path.cgroupfs=" + s.cgroups, "--slurm.jobs=on", "--slurm.user-names"}
	write(t, filepath.Join(s.cgroups, "system.slice/slurmstepd.scope/cgroup.procs"), "")
	return s
}

// job starts a process of a job.
func (s *slurm) job(pid, id int, user, account, partition string) {
	s.t.Helper()
	cgroup := fmt.Sprintf("/system.slice/slurmstepd.scope/job_%d/step_0/user/task_0", id)
	environ := []string{fmt.Sprint("SLURM_JOB_ID=", id), "SLURM_JOB_USER=" + user, "SLURM_JOB_ACCOUNT=" + account, "SLURM_JOB_PARTITION=" + partition, "SLURM_JOB_NAME=train"}
	write(s.t, filepath.Join(s.proc, fmt.Sprint(pid), "environ"), strings.Join(environ, "\x00")+"\x00")
	addProcess(s.t, s.proc, pid, cgroup)
	write(s.t, filepath.Join(s.cgroups, cgroup, "cgroup.procs"), fmt.Sprintln(pid)) // last, because it makes the job known
}

// end ends a job with one process.
func (s *slurm) end(pid, id int) {
	s.t.Helper()
	for _, path := range []string{filepath.Join(s.proc, fmt.Sprint(pid)), filepath.Join(s.cgroups, fmt.Sprintf("system.slice/slurmstepd.scope/job_%d", id))} {
		if err := os.RemoveAll(path); err != nil {
			s.t.Fatal(err)
		}
	}
}

// uuids returns the UUIDs of the GPUs of a node that runs.
func (n *node) uuids(t *testing.T) map[string]string {
	t.Helper()
	p, err := n.tryScrape(t)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, v := range p.series {
		if labels := labelsOf(v, nil); v.name == "gpu_up" {
			all[labels["gpu"]] = labels["UUID"]
		}
	}
	return all
}

// instances returns a label of gpu_info of the MIG instances of a GPU.
func (n *node) instances(t *testing.T, gpu, label string) []string {
	t.Helper()
	p, err := n.tryScrape(t)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range p.series {
		if labels := labelsOf(v, nil); v.name == "gpu_info" && labels["gpu"] == gpu && labels["GPU_I_ID"] != "" {
			all = append(all, labels[label])
		}
	}
	return all
}
