// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"gpu_exporter/podmapper/kubelettest"
)

// TestFaultGPUsAllAtOnce: if all GPUs are lost or mute, or only their driver is stuck, all
// keep their labels with gpu_up 0 and no value is published. All return.
func TestFaultGPUsAllAtOnce(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	n.has(t, 8, "gpu_up")
	identities := regexp.MustCompile(`(?m)^gpu_up(\{.*\}) 1$`).FindAllStringSubmatch(n.scrape(t), -1)
	watch := watchFault(t, n)
	for _, fault := range []struct{ begin, end string }{{"lose", "return"}, {"mute", "return"}, {"hang sampling", "clear"}} {
		each := func(command string) {
			if strings.Contains(command, " ") || command == "clear" {
				n.command(t, command)
				return
			}
			for gpu := range 8 {
				n.command(t, fmt.Sprintf("%s gpu %d", command, gpu))
			}
		}
		each(fault.begin)
		n.eventually(t, fault.begin+": every GPU is down under its labels, without values", func() bool {
			body := n.scrape(t)
			for _, id := range identities {
				if !strings.Contains(body, "gpu_up"+id[1]+" 0\n") {
					return false
				}
			}
			_, values := sumOf(body, "DCGM_FI_DEV_GPU_TEMP")
			_, energy := sumOf(body, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")
			return values == 0 && energy == 0
		})
		if status, why := n.tryGet(t, "/-/ready"); status != http.StatusServiceUnavailable {
			t.Errorf("%s: ready: %s", fault.begin, why)
		}
		each(fault.end)
		watch.recovers(t, fault.begin, func() bool {
			body := n.scrape(t)
			for _, id := range identities {
				if !strings.Contains(body, "gpu_up"+id[1]+" 1\n") {
					return false
				}
			}
			return n.temperatures(t, 8)
		})
	}
}

// TestFaultGPUsMIGStorm: while a GPU is repartitioned several times a second and pods hold
// instances, no instance has the labels of a pod that holds another one.
func TestFaultGPUsMIGStorm(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8-mig", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket, "--families=default,usage-detail")...)
	stable := kubelettest.Pod("ml", "stable", "main", "nvidia.com/gpu", n.uuid(t, "7"))
	// The owner of the first instance of GPU 0, by its UUID. After a repartition no
	// instance has this UUID, so the pod holds none of the current ones.
	slice := kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", firstMIGDevice)
	kubelet.SetPods(stable, slice)
	owned := func(body string) (int, int) {
		_, slices := sumOf(body, "DCGM_FI_DEV_FB_USED", `gpu="0"`, `pod="slice"`)
		_, whole := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, `pod="stable"`)
		return slices, whole
	}
	n.eventually(t, "the pods have their devices", func() bool {
		slices, whole := owned(n.scrape(t))
		return slices == 1 && whole == 1
	})
	watch := watchFault(t, n)
	layouts := []string{"3g.40gb*2", "4g.40gb+2g.20gb", "2g.20gb*3"} // not the first one: equal instances have equal UUIDs
	n.command(t, "mig gpu 0 "+layouts[len(layouts)-1])
	n.eventually(t, "the first repartition", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_FB_USED", `gpu="0"`, `GPU_I_PROFILE="2g.20gb"`)
		return count == 3
	})
	for i := range 12 {
		n.command(t, "mig gpu 0 "+layouts[i%len(layouts)])
		for range 4 {
			body := n.scrape(t)
			slices, whole := owned(body)
			if slices != 0 || whole != 1 {
				t.Fatalf("repartition %d: the ended instance's pod is on %d series, the other pod on %d", i, slices, whole)
			}
			if free, count := sumOf(body, "gpu_owners", `gpu="7"`); count == 1 && free != 1 {
				t.Fatalf("repartition %d: GPU 7 has %v owners", i, free)
			}
		}
	}
	n.command(t, "mig gpu 0 3g.40gb*2")
	watch.recovers(t, "the last layout is visible, and GPU 7 has its pod", func() bool {
		body := n.scrape(t)
		_, instances := sumOf(body, "DCGM_FI_DEV_FB_USED", `gpu="0"`, `GPU_I_PROFILE="3g.40gb"`)
		slices, whole := owned(body)
		return instances == 2 && slices == 0 && whole == 1
	})
	if restarts, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total"); restarts != 0 {
		t.Errorf("%v restarts of the sampler", restarts)
	}
}
