// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	id1  = "aaefb9d8feed2d453b543f6d928cede7a4dbefa6a0ae7c9b990dd234c56e93b9"
	id2  = "79fedb3bd23ca77c9d9ccb41909038316f713df22b54b7d942b71d3812e7c74e"
	id3  = "2227daf62df6694645fee5df53c1f91271546a9560e8600a525690ae252b7f63"
	uid1 = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340"
	uid2 = "90d81341-92de-11e7-8cf2-507b9d4141fa"
	hash = "36b6d6be73b1065af369b3985edafa09" // of a static pod's manifest

	uid1Unit = "2fc932ce_fdcc_454b_97bd_aadfdeb4c340"
	uid2Unit = "90d81341_92de_11e7_8cf2_507b9d4141fa"
)

// v1 returns the content of /proc/<pid>/cgroup with cgroup v1: the same path in
// every hierarchy.
func v1(path string) string {
	var b strings.Builder
	for _, h := range []string{
		"12:freezer", "11:cpuset", "10:memory", "9:devices", "8:net_cls,net_prio", "7:pids", "6:hugetlb",
		"5:blkio", "4:perf_event", "3:rdma", "2:cpu,cpuacct", "1:name=systemd",
	} {
		b.WriteString(h + ":" + path + "\n")
	}
	return b.String()
}

// v2 returns the content of /proc/<pid>/cgroup with cgroup v2.
func v2(path string) string { return "0::" + path + "\n" }

func in(runtime, id, pod string) Place {
	return Place{Container: Container{Runtime: runtime, ContainerID: id, PodUID: pod}}
}

func (p Place) within(outer ...Container) Place {
	p.Outer = outer
	return p
}

func job(j SlurmJob) Place { return Place{Job: j} }

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		content string
		want    Place
	}{
		// Kubernetes, cgroupfs driver. Only CRI-O's paths name the runtime.
		{"kubepods, cgroupfs, burstable", v1("/kubepods/burstable/pod" + uid1 + "/" + id1), in("", id1, uid1)},
		{"kubepods, cgroupfs, best effort", v2("/kubepods/besteffort/pod" + uid1 + "/" + id1), in("", id1, uid1)},
		{"kubepods, cgroupfs, guaranteed", v1("/kubepods/pod" + uid1 + "/" + id1), in("", id1, uid1)},
		{"kubepods, cgroupfs, static pod", v1("/kubepods/burstable/pod" + hash + "/" + id1), in("", id1, hash)},
		{"kubepods, cgroupfs, static pod with a UID from its manifest", v2("/kubepods/burstable/poddcgm-on.node7/" + id1), in("", id1, "dcgm-on.node7")},
		{"kubepods, cgroupfs, CRI-O", v2("/kubepods/burstable/pod" + uid1 + "/crio-" + id1), in(RuntimeCRIO, id1, uid1)},
		{"kubepods, cgroupfs, CRI-O's conmon", v2("/kubepods/burstable/pod" + uid1 + "/crio-conmon-" + id1), Place{}},
		{"kubepods, a pod without a container", v2("/kubepods/burstable/pod" + uid1), in("", "", uid1)},
		{"kubepods, a cgroup created inside the container", v2("/kubepods/burstable/pod" + uid1 + "/" + id1 + "/podlike/init"), in("", id1, uid1)},

		// Kubernetes, systemd driver.
		{"kubepods, systemd, containerd", v2("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid1Unit + ".slice/cri-containerd-" + id1 + ".scope"),
			in(RuntimeContainerd, id1, uid1)},
		{"kubepods, systemd, CRI-O", v1("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid1Unit + ".slice/crio-" + id1 + ".scope"),
			in(RuntimeCRIO, id1, uid1)},
		{"kubepods, systemd, CRI-O with crun", v2("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid1Unit + ".slice/crio-" + id1 + ".scope/container"),
			in(RuntimeCRIO, id1, uid1)},
		{"kubepods, systemd, CRI-O's conmon", v2("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid1Unit + ".slice/crio-conmon-" + id1 + ".scope"),
			Place{}},
		{"kubepods, systemd, cri-dockerd", v1("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid2Unit + ".slice/docker-" + id3 + ".scope"),
			in(RuntimeDocker, id3, uid2)},
		{"kubepods, systemd, guaranteed", v2("/kubepods.slice/kubepods-pod" + uid1Unit + ".slice/cri-containerd-" + id1 + ".scope"), in(RuntimeContainerd, id1, uid1)},
		{"kubepods, systemd, static pod", v2("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hash + ".slice/cri-containerd-" + id1 + ".scope"),
			in(RuntimeContainerd, id1, hash)},
		{"kubelet systemd, containerd cgroupfs", v1("/system.slice/containerd.service/kubepods-burstable-pod" + hash + ".slice:cri-containerd:" + id2),
			in(RuntimeContainerd, id2, hash)},
		{"kubelet systemd, containerd cgroupfs, top level", v2("/kubepods-besteffort-pod" + uid1Unit + ".slice:cri-containerd:" + id1),
			in(RuntimeContainerd, id1, uid1)},
		{"containerd cgroupfs without a pod", v2("/system.slice:cri-containerd:" + id1), in(RuntimeContainerd, id1, "")},
		{"kubelet with --cgroup-root", v2("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + uid1Unit + ".slice/cri-containerd-" + id1 + ".scope"),
			in(RuntimeContainerd, id1, uid1)},

		// Nested.
		{"kind node, cgroupfs", v1("/docker/" + id3 + "/kubelet/kubepods/burstable/pod" + uid1 + "/" + id1),
			in("", id1, uid1).within(Container{Runtime: RuntimeDocker, ContainerID: id3})},
		{"kind node, systemd", v2("/system.slice/docker-" + id3 + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + uid1Unit + ".slice/cri-containerd-" + id1 + ".scope"),
			in(RuntimeContainerd, id1, uid1).within(Container{Runtime: RuntimeDocker, ContainerID: id3})},
		{"Docker in a pod", v1("/kubepods/besteffort/pod" + uid1 + "/" + id1 + "/docker/" + id2),
			in(RuntimeDocker, id2, uid1).within(Container{ContainerID: id1, PodUID: uid1})},
		{"kind in Docker in a pod", v2("/kubepods/besteffort/pod" + uid1 + "/" + id1 + "/docker/" + id2 + "/kubelet/kubepods/pod" + uid2 + "/" + id3),
			in("", id3, uid2).within(Container{Runtime: RuntimeDocker, ContainerID: id2, PodUID: uid1}, Container{ContainerID: id1, PodUID: uid1})},
		{"Docker in Docker", v1("/docker/" + id1 + "/docker/" + id2),
			in(RuntimeDocker, id2, "").within(Container{Runtime: RuntimeDocker, ContainerID: id1})},
		{"conmon in Docker", v1("/docker/" + id1 + "/libpod_parent/libpod-conmon-" + id2), in(RuntimeDocker, id1, "")},
		{"Docker in a machine of systemd-nspawn", v2("/machine.slice/machine-build\\x2d7.scope/payload/system.slice/docker-" + id1 + ".scope"),
			in(RuntimeDocker, id1, "").within(Container{Runtime: RuntimeNspawn, ContainerID: "build-7"})},

		// Plain engines.
		{"Docker, cgroupfs", v1("/docker/" + id1), in(RuntimeDocker, id1, "")},
		{"Docker, systemd", v2("/system.slice/docker-" + id1 + ".scope"), in(RuntimeDocker, id1, "")},
		{"Docker, rootless", v2("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id1 + ".scope"), in(RuntimeDocker, id1, "")},
		{"Docker, --cgroup-parent", v1("/ecs/9781c248-0edd-4cdb-9a93-f63cb662a5d3/" + id1), in("", id1, "")},
		{"Docker, the engine itself", v2("/system.slice/docker.service"), Place{}},
		{"Podman", v2("/machine.slice/libpod-" + id1 + ".scope"), in(RuntimePodman, id1, "")},
		{"Podman with crun", v2("/machine.slice/libpod-" + id1 + ".scope/container"), in(RuntimePodman, id1, "")},
		{"Podman in a Podman pod", v2("/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope/container"), in(RuntimePodman, id1, "")},
		{"Podman, rootless", v2("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope/container"), in(RuntimePodman, id1, "")},
		{"Podman, cgroupfs", v1("/libpod_parent/libpod-" + id1), in(RuntimePodman, id1, "")},
		{"Podman, quadlet", v2("/system.slice/train.service/libpod-payload-" + id1), in(RuntimePodman, id1, "")},
		{"Podman, quadlet's conmon", v2("/system.slice/train.service/runtime"), Place{}},
		{"Podman's conmon", v2("/machine.slice/libpod-conmon-" + id1 + ".scope"), Place{}},
		{"nerdctl", v2("/system.slice/nerdctl-" + id1 + ".scope"), in(RuntimeContainerd, id1, "")},
		{"systemd-nspawn, service", v2("/machine.slice/systemd-nspawn@web.service/payload"), in(RuntimeNspawn, "web", "")},
		{"systemd-nspawn, its supervisor", v2("/machine.slice/systemd-nspawn@web.service/supervisor"), Place{}},
		{"systemd-nspawn, a payload's supervisor", v2("/machine.slice/systemd-nspawn@web.service/payload/system.slice/supervisor"), in(RuntimeNspawn, "web", "")},
		{"a virtual machine of libvirt", v2("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator"), Place{}},

		// From inside a cgroup namespace.
		{"another pod, seen from a pod, cgroupfs", v2("/../../pod" + uid2 + "/" + id2), in("", id2, uid2)},
		{"another pod of a different QoS class, seen from a pod", v2("/../../../burstable/pod" + uid2 + "/" + id2), in("", id2, uid2)},
		{"another pod, seen from a pod, systemd", v2("/../../kubepods-burstable-pod" + uid2Unit + ".slice/cri-containerd-" + id2 + ".scope"), in(RuntimeContainerd, id2, uid2)},
		{"another container, seen from the same pod", v2("/../cri-containerd-" + id2 + ".scope"), in(RuntimeContainerd, id2, "")},
		{"a CRI-O container, seen from the same pod", v2("/../crio-" + id2), in(RuntimeCRIO, id2, "")},
		{"the reader's own container", v2("/"), Place{}},
		{"a Slurm job, seen from a container", v2("/../../slurmstepd.scope/job_42/step_0/user/task_0"), job(SlurmJob{ID: "42", Step: "0"})},
		{"a Slurm step, seen from the scope", v2("/../job_42/step_batch/user/task_0"), job(SlurmJob{ID: "42", Step: "batch"})},

		// Hybrid: the most detailed line wins.
		{"hybrid, container in v1 only", "12:pids:/docker/" + id1 + "\n1:name=systemd:/docker/" + id1 + "\n0::/system.slice/containerd.service\n", in(RuntimeDocker, id1, "")},
		{"hybrid, container in v2 only", "2:devices:/\n1:name=systemd:/system.slice/containerd.service\n0::/system.slice/docker-" + id1 + ".scope\n", in(RuntimeDocker, id1, "")},
		{"hybrid, one controller only", "4:memory:/user.slice\n3:devices:/kubepods/pod" + uid1 + "/" + id1 + "\n2:cpu:/\n0::/\n", in("", id1, uid1)},
		{"hybrid, the deepest line", "3:devices:/docker/" + id1 + "\n2:cpu:/docker/" + id1 + "/docker/" + id2 + "\n0::/docker/" + id1 + "\n",
			in(RuntimeDocker, id2, "").within(Container{Runtime: RuntimeDocker, ContainerID: id1})},
		{"hybrid, no container in any hierarchy", "9:name=systemd:/\n8:pids:/\n4:memory:/process_api/fd988f2a0d9376f26a80f42bff6cad8a\n0::/\n", Place{}},

		// Slurm.
		{"Slurm, v1", v1("/slurm/uid_1000/job_42/step_0/task_0"), job(SlurmJob{ID: "42", Step: "0", UID: "1000"})},
		{"Slurm, v1, some controllers", "11:freezer:/slurm/uid_1000/job_42/step_batch\n10:memory:/slurm/uid_1000/job_42/step_batch/task_0\n9:pids:/system.slice/slurmd.service\n",
			job(SlurmJob{ID: "42", Step: "batch", UID: "1000"})},
		{"Slurm, v1, several slurmd", v1("/slurm_node-7/uid_1000/job_42/step_extern"), job(SlurmJob{ID: "42", Step: "extern", UID: "1000", Node: "node-7"})},
		{"Slurm, v1, custom prefix", v1("/batch/uid_1000/job_42/step_interactive/task_0"), job(SlurmJob{ID: "42", Step: "interactive", UID: "1000"})},
		{"Slurm, v2", v2("/system.slice/slurmstepd.scope/job_42/step_batch/user/task_0"), job(SlurmJob{ID: "42", Step: "batch"})},
		{"Slurm, v2, slurmstepd", v2("/system.slice/slurmstepd.scope/job_42/step_0/slurm"), job(SlurmJob{ID: "42", Step: "0"})},
		{"Slurm, v2, heterogeneous", v2("/system.slice/slurmstepd.scope/job_43/step_0+1/user/task_special"), job(SlurmJob{ID: "43", Step: "0+1"})},
		{"Slurm, v2, several slurmd", v2("/system.slice/node7_slurmstepd.scope/job_42/step_extern/user/task_0"), job(SlurmJob{ID: "42", Step: "extern", Node: "node7"})},
		{"Slurm, v2, custom slice", v2("/hpc.slice/slurmstepd.scope/job_42/step_interactive/user/task_0"), job(SlurmJob{ID: "42", Step: "interactive"})},
		{"Slurm 26.05, v2", v2("/system.slice/slurmstepd.scope/sEKNKTV3WPV500/step_batch/user/task_0"), job(SlurmJob{SLUID: "sEKNKTV3WPV500", Step: "batch"})},
		{"Slurm's system cgroup", v2("/system.slice/slurmstepd.scope/system"), Place{}},
		{"slurmd", v2("/system.slice/slurmd.service"), Place{}},
		{"a job in a pod", v2("/kubepods.slice/kubepods-pod" + uid1Unit + ".slice/cri-containerd-" + id1 + ".scope/system.slice/slurmstepd.scope/job_42/step_0/user/task_0"),
			Place{Container: Container{Runtime: RuntimeContainerd, ContainerID: id1, PodUID: uid1}, Job: SlurmJob{ID: "42", Step: "0"}}},
		{"a container in a job", v1("/slurm/uid_1000/job_42/step_0/task_0/libpod_parent/libpod-" + id1),
			Place{Container: Container{Runtime: RuntimePodman, ContainerID: id1}, Job: SlurmJob{ID: "42", Step: "0", UID: "1000"}}},
		{"a directory named like a job", v2("/user.slice/job_42/run"), Place{}},

		// Unrelated and malformed paths.
		{"a login", v2("/user.slice/user-1000.slice/session-4.scope"), Place{}},
		{"a desktop", v2("/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Podcasts-4711.scope"), Place{}},
		{"removed cgroup with an unreaped process", v2("/system.slice/docker-" + id1 + ".scope (deleted)"), in(RuntimeDocker, id1, "")},
		{"not a container ID", v2("/docker/" + id1[1:]), Place{}},
		{"not hexadecimal", v2("/docker/" + strings.ToUpper(id1)), Place{}},
		{"similar to a Kubernetes pod", v2("/podman/pods/pod-" + uid1), Place{}},
		{"empty", "", Place{}},
		{"no cgroup file", "nothing\nof:use\n", Place{}},
		{"no newline at the end", "0::/docker/" + id1, in(RuntimeDocker, id1, "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Parse(tt.content); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Parse(%q)\n got %+v\nwant %+v", tt.content, got, tt.want)
			}
		})
	}
}

func TestParseSlurmDir(t *testing.T) {
	for _, tt := range []struct {
		name string
		want SlurmJob
		ok   bool
	}{
		{"job_42", SlurmJob{ID: "42"}, true},
		{"job_4294967293", SlurmJob{ID: "4294967293"}, true},
		{"sEKNKTV3WPV500", SlurmJob{SLUID: "sEKNKTV3WPV500"}, true},
		{"job_", SlurmJob{}, false},
		{"job_42x", SlurmJob{}, false},
		{"job_42949672930", SlurmJob{}, false},
		{"sEKNKTV3WPV50U", SlurmJob{}, false}, // base 32 has no U
		{"system", SlurmJob{}, false},
		{"system.slice01", SlurmJob{}, false},
	} {
		got, ok := ParseSlurmDir(tt.name)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("ParseSlurmDir(%q) = %+v, %v; want %+v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzParse checks that every parsed ID is well-formed and part of the content.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		v1("/kubepods/burstable/pod" + uid1 + "/" + id1),
		v2("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid1Unit + ".slice/cri-containerd-" + id1 + ".scope"),
		v2("/system.slice/containerd.service/kubepods-burstable-pod" + hash + ".slice:cri-containerd:" + id2),
		v1("/docker/" + id3 + "/kubelet/kubepods/burstable/pod" + uid1 + "/" + id1),
		v2("/machine.slice/systemd-nspawn@a\\x2db.service/payload"),
		v2("/machine.slice/libpod-conmon-" + id1 + ".scope"),
		v1("/slurm_n/uid_1000/job_42/step_0+1/task_0"),
		v2("/system.slice/n_slurmstepd.scope/sEKNKTV3WPV500/step_batch/user/task_0 (deleted)"),
		"::::\n:/:/\n0::/../../pod/ -pod.slice:::",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content string) {
		p := Parse(content)
		for i, c := range append([]Container{p.Container}, p.Outer...) {
			if i > 0 && c == (Container{}) {
				t.Errorf("empty outer container: %+v", p)
			}
			switch c.Runtime {
			case RuntimeNspawn:
				if c.ContainerID == "" {
					t.Errorf("machine without a name: %+v", p)
				}
			case "", RuntimeContainerd, RuntimeCRIO, RuntimeDocker, RuntimePodman:
				if c.ContainerID == "" && c.Runtime == "" {
					break
				}
				if !isContainerID(c.ContainerID) || !strings.Contains(content, c.ContainerID) {
					t.Errorf("container ID %q", c.ContainerID)
				}
			default:
				t.Errorf("runtime %q", c.Runtime)
			}
			if c.PodUID != "" && !isPodUID(c.PodUID) {
				t.Errorf("pod UID %q", c.PodUID)
			}
		}
		j := p.Job
		if j.ID != "" && !isDigits(j.ID) || j.SLUID != "" && !isSLUID(j.SLUID) || j.UID != "" && !isDigits(j.UID) || j.ID != "" && j.SLUID != "" {
			t.Errorf("job %+v", j)
		}
		if p.NoJob() && j != (SlurmJob{}) {
			t.Errorf("step without a job: %+v", j)
		}
		if utf8.ValidString(content) && !utf8.ValidString(j.Step+j.Node) {
			t.Errorf("truncated character: %+v", j)
		}
	})
}
