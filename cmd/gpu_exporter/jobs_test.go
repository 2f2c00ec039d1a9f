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
	"strings"
	"testing"
	"time"
)

// hostProc is a directory that imitates the procfs of a host.
type hostProc string

func newHostProc(t *testing.T) hostProc {
	t.Helper()
	p := hostProc(t.TempDir())
	// Kernel threads exist only in the host's PID namespace.
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

// process adds a process in a control group.
func (p hostProc) process(t *testing.T, pid int, cgroup string) {
	t.Helper()
	p.write(t, pid, "stat", fmt.Sprintf("%d (python) R 1 0 0 0 -1 4194304%s", pid, strings.Repeat(" 0", 43)))
	p.write(t, pid, "cgroup", "0::"+cgroup+"\n")
}

// TestJobFiles: the files of a prolog assign batch jobs to GPUs. The jobs are exposed in
// dcgm-exporter's form and as gpu_job_info.
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
	if err := os.Mkdir(filepath.Join(dir, "2"), 0o755); err != nil { // not a file: affects GPU 2 only
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", append(fast, "--jobs.directory="+dir)...)
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
	failures, _ := sumOf(body, "gpu_exporter_owner_source_failures_by_reason_total", `source="job_files"`, `reason="not_regular"`)
	if all, _ := sumOf(body, "gpu_exporter_owner_source_failures_total", `source="job_files"`); failures < 1 || all != failures {
		t.Errorf("the directory in place of a file is counted %v times, all failures %v times", failures, all)
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
	owners("2 1 - 0 0 0 0 0") // the jobs of GPU 2 are unknown
	if err := os.Remove(filepath.Join(dir, "1")); err != nil {
		t.Fatal(err)
	}
	n.eventually(t, "the job that ended has no row", func() bool {
		_, count := sumOf(n.scrape(t), "gpu_job_info", `job_id="1003"`)
		return count == 0
	})
	owners("2 0 - 0 0 0 0 0")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	owners("- - - - - - - -")
}

// TestSlurmJobs: Slurm jobs are found by the cgroups of their processes, without a prolog.
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
	n := startNode(t, "h100x8", append(fast, "--path.procfs="+string(proc), "--path.cgroupfs="+cgroups, "--slurm.jobs=on", "--families=lean")...)
	n.has(t, 1, "gpu_job_info", `gpu="3"`, `account="lab"`, `job_id="77"`, `source="slurm"`, `user="ada"`)
	n.command(t, "process gpu 5 pid 4242 memory 100")
	n.has(t, 1, "gpu_job_info", `gpu="5"`, `job_id="77"`)
	if _, count := sumOf(n.scrape(t), "gpu_job_info"); count != 2 {
		t.Errorf("%d rows of gpu_job_info, want two", count)
	}
}

// dockerEngine serves the API of a Docker engine with one container.
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

// TestDockerContainers: a container of a Docker engine has a row for each of its GPUs.
func TestDockerContainers(t *testing.T) {
	t.Parallel()
	socket := dockerEngine(t, `{"Id":"`+strings.Repeat("c", 64)+`","Name":"/notebook","State":{"Status":"running","Running":true},
		"Config":{"Image":"jupyter:1","Env":[],"Labels":{"com.docker.compose.project":"lab","com.docker.compose.service":"nb","org.example.owner":"ada","secret":"x"}},
		"HostConfig":{"Runtime":"runc","DeviceRequests":[{"Driver":"nvidia","Count":0,"DeviceIDs":["1","3"],"Capabilities":[["gpu"]]}]}}`)
	n := startNode(t, "h100x8", append(fast, "--docker.socket="+socket, "--docker.label-allowlist=^org")...)
	n.has(t, 1, "gpu_container_info", `gpu="1"`, `compose_project="lab"`, `compose_service="nb"`, `container_name="notebook"`, `image="jupyter:1"`, `label_org_example_owner="ada"`)
	body := n.scrape(t)
	if _, count := sumOf(body, "gpu_container_info"); count != 2 {
		t.Errorf("%d rows, want one for each of two GPUs", count)
	}
	if strings.Contains(body, "secret") {
		t.Error("a label that no expression matches is exposed")
	}
	n.has(t, 1, "gpu_exporter_owner_source_up", `source="docker"`)
	n.has(t, 2, "gpu_owners")
}

// TestNoOwnerSource: without a source of owners, gpu_owners is absent.
func TestNoOwnerSource(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no Slurm on the machine": {"--path.cgroupfs=" + t.TempDir()},
		"Slurm disabled":          {"--slurm.jobs=off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", append(fast, args...)...)
			n.has(t, 8, "gpu_up")
			for range 3 { // a source would have answered before the third sample
				n.nextSample(t)
				if _, count := sumOf(n.scrape(t), "gpu_owners"); count != 0 {
					t.Fatalf("%d series of gpu_owners", count)
				}
			}
		})
	}
}
