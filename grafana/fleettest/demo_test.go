// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"math"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// demo is a fleet with Kubernetes, Slurm, MIG, NVSwitches, a multi-node NVLink tray, a small
// GPU, and a node with faults of every kind that the dashboards show.
func demo(t *testing.T) *fleet {
	t.Helper()
	counters := "--counters.file=" + countersFile(t, "")
	full := []string{"--families=full", counters}
	f := &fleet{}
	add := func(name, base string, args ...string) *node {
		n := newNode(t, name, len(f.nodes)+1, base, args...)
		f.nodes = append(f.nodes, n)
		return n
	}
	at := func(part float64, do func()) { f.events = append(f.events, event{part, do}) }

	k8s := startKubernetes(t)
	pods := add("h100-a", "h100x8", append(full, k8s.args...)...)
	at(0, func() {
		gpu := pods.uuids(t)
		k8s.run("research", "Job", "pretrain", "0", "nvidia.com/gpu", gpu["0"], gpu["1"])
		k8s.run("research", "Job", "pretrain", "1", "nvidia.com/gpu", gpu["2"], gpu["3"])
		k8s.run("chat", "Deployment", "vllm-llama", "7c9f-x", "nvidia.com/gpu", gpu["4"])
		k8s.run("research", "StatefulSet", "notebook", "0", "nvidia.com/gpu", gpu["5"])
		k8s.run("vision", "Deployment", "triton", "5d4f-a", "nvidia.com/gpu.shared", gpu["6"]+"::0")
		k8s.run("vision", "Deployment", "triton", "5d4f-b", "nvidia.com/gpu.shared", gpu["6"]+"::1")
		pods.Command(t, "process none", "load gpu 0 training", "load gpu 1 training", "load gpu 2 training", "load gpu 3 training",
			"load gpu 4 bursty", "load gpu 5 idle", "load gpu 6 util 35", "load gpu 7 idle",
			"process gpu 0 pid 1001 memory 61000 share 100", "process gpu 1 pid 1001 memory 61000 share 100",
			"process gpu 2 pid 1002 memory 61000 share 100", "process gpu 3 pid 1002 memory 61000 share 100",
			"process gpu 4 pid 1003 memory 70000 share 100", "process gpu 5 pid 1004 memory 9000 share 1",
			"process gpu 6 pid 1005 memory 12000 share 60", "process gpu 6 pid 1006 memory 8000 share 30")
	})

	migK8s := startKubernetes(t)
	batchOfMIG := t.TempDir()
	mig := add("mig-a", "h100x8-mig", append(migK8s.args, counters, "--jobs.directory="+batchOfMIG)...)
	at(0, func() {
		write(t, filepath.Join(batchOfMIG, "2."+mig.instances(t, "2", "GPU_I_ID")[0]), "8001\n")
		small, large := mig.instances(t, "0", "mig_uuid"), mig.instances(t, "1", "mig_uuid")
		for i, suffix := range []string{"a", "b", "c", "d"} {
			migK8s.run("students", "Deployment", "notebook", suffix, "nvidia.com/mig-1g.10gb", small[i])
		}
		migK8s.run("vision", "Deployment", "detector", "x1", "nvidia.com/mig-3g.40gb", large[0])
	})

	kernelLog := filepath.Join(t.TempDir(), "kmsg")
	write(t, kernelLog, "")
	dgx := add("dgx-a", "dgx-h100", append(full, "--path.kmsg="+kernelLog, "--xid.kernel-log=on")...)
	nvl := add("gb200-a", "gb200", "--families=full", "--counters.file="+countersFile(t,
		"DCGM_FI_DEV_PLATFORM_CHASSIS_SERIAL_NUMBER, label, Serial number of the chassis.\n"+
			"DCGM_FI_DEV_PLATFORM_CHASSIS_SLOT_NUMBER, gauge, Slot of the chassis in the rack.\n"))
	small := add("t4-a", "t4x1", counters)
	small.Sim.Scenario = small.scenario(t, "driver 570.124.06")

	jobs := newSlurm(t)
	batch := add("slurm-a", "h100x8", append(jobs.args, counters)...)
	at(0, func() {
		jobs.job(4001, 771, "ada", "genomics", "long")
		jobs.job(4002, 772, "grace", "climate", "long")
		jobs.job(4003, 773, "ada", "genomics", "debug")
		batch.Command(t, "process none", "load gpu 0 training", "load gpu 1 training", "load gpu 2 steady", "load gpu 3 idle", "load gpu 4 bursty",
			"process gpu 0 pid 4001 memory 40000", "process gpu 1 pid 4001 memory 40000", "process gpu 2 pid 4002 memory 30000",
			"process gpu 3 pid 4002 memory 500", "process gpu 4 pid 4003 memory 7000")
	})

	badK8s := startKubernetes(t)
	bad := add("h100-b", "dgx-h100", append(full, badK8s.args...)...)
	at(0, func() {
		gpu := bad.uuids(t)
		badK8s.run("research", "Job", "finetune", "0", "nvidia.com/gpu", gpu["0"], gpu["1"], gpu["2"], gpu["3"])
		badK8s.run("chat", "Deployment", "vllm-llama", "7c9f-y", "nvidia.com/gpu", gpu["5"])
		bad.Command(t, "load gpu all training")
	})

	at(0.15, func() { bad.Command(t, "heat gpu 0 25", "link gpu 2 port 3 error crc 12") })
	at(0.2, func() {
		bad.Command(t, "xid 94 gpu 1", "ecc gpu 1 sbe 3", "ecc gpu 1 dbe 1", "remap gpu 1 uncorrectable 1", "remap gpu 1 pending 1", "recovery gpu 1 reset")
	})
	at(0.25, func() { bad.Command(t, "reason gpu 4 hw_power_brake on", "link switch 0 port 3 down", "xid 74 gpu 6") })
	at(0.3, func() { bad.Command(t, "xid 31 gpu 0 count 6", "health gpu 6 nvlink warn 40") })
	at(0.35, func() { bad.KillSampler(t) })
	at(0.4, func() { // a driver update needs a restart of the exporter
		small.stop(t)
		if err := os.Remove(small.Sim.State); err != nil {
			t.Fatal(err)
		}
		small.Sim.Scenario = small.scenario(t, "driver 580.95.05")
	})
	at(0.42, func() { small.start(t) })
	at(0.45, func() { pods.stop(t) })
	at(0.46, func() { pods.start(t) })
	at(0.5, func() {
		bad.Command(t, "xid 79 gpu 3", "lose gpu 3", "remap gpu 2 failure 1", "recovery gpu 2 drain-and-reset")
	})
	at(0.55, func() { nvl.Command(t, "fabric gpu 2 failure 5") })
	at(0.6, func() { dgx.Command(t, "fail dcgmHealthCheck -3") }) // seen at the next check, up to 10 s later
	at(0.6, func() { mig.Command(t, "mig gpu 5 1g.10gb*7", "mig gpu 6 none") })
	at(0.65, func() { // a job ends, and a different one starts
		batch.Command(t, "process gone pid 4003")
		jobs.end(4003, 773)
		jobs.job(4004, 774, "katherine", "orbit", "long")
		batch.Command(t, "load gpu 5 training", "process gpu 5 pid 4004 memory 50000")
	})
	at(0.7, func() {
		k8s.end("pretrain-1")
		k8s.run("chat", "Deployment", "vllm-llama", "7c9f-z", "nvidia.com/gpu", pods.uuids(t)["2"])
	})
	at(0.75, func() { bad.Command(t, "switch 2 lost", "profiling gpu 7 locked") })
	at(0.8, func() { bad.Command(t, "blank field 150 gpu 4") })
	at(0.8, func() { badK8s.kubelet.Stop() }) // seen at the next refresh, up to 10 s later
	return f
}

// countersFile writes a counters file with the names of all generations, so that one recording
// serves all of them, and with further lines.
func countersFile(t *testing.T, lines string) string {
	t.Helper()
	for _, g := range generations {
		body, err := os.ReadFile(filepath.Join(root, "etc", g.counters))
		if err != nil {
			t.Fatal(err)
		}
		lines += string(body)
	}
	path := filepath.Join(t.TempDir(), "counters.csv")
	write(t, path, lines)
	return path
}

// inference writes metrics of inference servers, as vLLM and Triton name them, for pods of
// the fleet.
func (p prometheus) inference(from, to time.Time) {
	p.t.Helper()
	var uuids []string
	parameters := url.Values{"match[]": {`gpu_pod_info{pod=~"triton.*"}`}, "start": {seconds(from)}, "end": {seconds(to)}}
	if err := p.api("label/UUID/values", parameters, &uuids); err != nil || len(uuids) != 1 {
		p.t.Fatalf("the GPUs of Triton are %q: %v", uuids, err)
	}
	var all []series
	counter := func(name string, perSecond float64, labels map[string]string) {
		s := series{labels: map[string]string{"__name__": name, "cluster": "demo", "job": "inference"}}
		for k, v := range labels {
			s.labels[k] = v
		}
		total := 0.0
		for at := from; !at.After(to); at = at.Add(scrapeInterval) {
			s.samples = append(s.samples, sample{at, total})
			total += perSecond * scrapeInterval.Seconds() * (1 + 0.5*math.Sin(at.Sub(from).Minutes()/12))
		}
		all = append(all, s)
	}
	gauge := func(name string, mean float64, labels map[string]string) {
		counter(name, 0, labels)
		s := &all[len(all)-1]
		for i := range s.samples {
			s.samples[i].value = math.Max(0, mean*(1+math.Sin(float64(i)/25)))
		}
	}
	vllm := map[string]string{"namespace": "chat", "pod": "vllm-llama-7c9f-x", "model_name": "llama-3.3-70b"}
	gauge("vllm:num_requests_running", 12, vllm)
	gauge("vllm:num_requests_waiting", 3, vllm)
	gauge("vllm:kv_cache_usage_perc", 0.4, vllm)
	counter("vllm:generation_tokens_total", 900, vllm)
	counter("vllm:prompt_tokens_total", 2500, vllm)
	counter("vllm:request_success_total", 3, vllm)
	triton := map[string]string{"namespace": "vision", "pod": "triton-5d4f-a", "model": "detector", "version": "1"}
	counter("nv_inference_request_success", 45, triton)
	counter("nv_inference_request_failure", 0.1, triton)
	counter("nv_inference_count", 60, triton)
	counter("nv_inference_queue_duration_us", 20000, triton)
	counter("nv_inference_request_duration_us", 90000, triton)
	gauge("nv_gpu_utilization", 0.3, map[string]string{"namespace": "vision", "pod": "triton-5d4f-a", "gpu_uuid": uuids[0]})
	p.write(all)
}
