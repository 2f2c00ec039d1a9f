// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	wholeGPUs  = "nvidia.com/gpu"
	migDevices = "nvidia.com/mig-1g.10gb"
	sharedGPUs = "nvidia.com/gpu.shared"
)

// TestStaticPods covers static pods on a node without an API server. The pods of each step
// remain for the next steps.
func TestStaticPods(t *testing.T) {
	m := newMachine(t)
	startContainerd(t, m)
	g := newGPUs(t, m)
	k := startKubelet(t, m, "")
	whole := startPlugin(t, k, wholeGPUs, g.uuids[:4]...)
	startPlugin(t, k, sharedGPUs, g.uuids[4]+"::0", g.uuids[4]+"::1")
	startPlugin(t, k, migDevices, g.migOf(6)...)
	common := []string{"--kubernetes.enabled", "--kubernetes.pod-resources-socket=" + k.socket(), "--kubernetes.metadata-source=kubelet", "--kubernetes.pods-socket=" + k.podsSocket()}
	e := startExporter(t, m, g, 9400, common...)
	labelled := startExporter(t, m, g, 9401, append(common, "--kubernetes.pod-uid",
		"--kubernetes.pod-labels", "--kubernetes.pod-label-allowlist=^"+teamLabel+"$")...)
	h := &holdings{}

	step(t, "no pods", func(t *testing.T) {
		e.eventually(t, "no owners", h.check)
	})
	one := newPod("one", wholeGPUs, 1)
	step(t, "a pod with one GPU", func(t *testing.T) {
		for _, id := range k.run(t, one) {
			h.addID(g, id, staticName(one))
		}
		e.eventually(t, "the pod on its GPU", h.check)
	})
	step(t, "a pod with two GPUs", func(t *testing.T) {
		two := newPod("two", wholeGPUs, 2)
		for _, id := range k.run(t, two) {
			h.addID(g, id, staticName(two))
		}
		e.eventually(t, "the pod on both GPUs", h.check)
	})
	step(t, "a pod with a MIG device", func(t *testing.T) {
		mig := newPod("mig", migDevices, 1)
		ids := k.run(t, mig)
		h.addID(g, ids[0], staticName(mig))
		if g.device(ids[0]).instance == "" {
			t.Fatalf("%s is no MIG device", ids[0])
		}
		e.eventually(t, "the pod on the instance and not on its GPU", h.check)
	})
	step(t, "two pods that share a GPU", func(t *testing.T) {
		for _, name := range []string{"left", "right"} {
			pod := newPod(name, sharedGPUs, 1)
			h.addID(g, k.run(t, pod)[0], staticName(pod))
		}
		e.eventually(t, "one row for each of the two pods", h.check)
		x, err := e.scrape(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(x.find("DCGM_FI_DEV_GPU_TEMP", map[string]string{"UUID": g.uuids[4]})); n != 1 {
			t.Errorf("the shared GPU has %d temperatures", n)
		}
	})
	t.Run("the usage of pods", func(t *testing.T) { testUsage(t, k, g, e, h) })
	t.Run("labels and UIDs of pods, without an API server", func(t *testing.T) {
		labelled.eventually(t, "labels and UIDs of the pods", k.labelled(t, *h).check)
	})
	step(t, "the delay of new pods", func(t *testing.T) { testFreshness(t, k, g, e, h, whole) })
	step(t, "a pod is withdrawn", func(t *testing.T) {
		k.withdraw(t, one)
		h.remove(staticName(one))
		e.eventually(t, "the owners of all remaining pods", h.check)
	})
	step(t, "a pod succeeds", func(t *testing.T) {
		job := newPod("job", wholeGPUs, 1)
		job.Spec.RestartPolicy = "Never"
		h.addID(g, k.run(t, job)[0], staticName(job))
		e.eventually(t, "the pod on a GPU", h.check)
		if err := syscall.Kill(k.process(t, staticName(job)), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		h.remove(staticName(job))
		e.eventually(t, "no device of the pod, which still exists", h.check)
		k.withdraw(t, job)
	})
	step(t, "a kubelet stops and restarts", func(t *testing.T) {
		stop, stopLabelled := e.always(t, h.check), labelled.always(t, k.labelled(t, *h).check)
		k.stop(t)
		e.eventuallyUp(t, 0, "gpu_exporter_owner_source_up", map[string]string{"source": "pod_resources"})
		k.start(t)
		e.eventuallyUp(t, 1, "gpu_exporter_owner_source_up", map[string]string{"source": "pod_resources"})
		k.eventuallyLists(t, h)
		e.eventuallyRefreshed(t)
		labelled.eventuallyRefreshed(t)
		stop()
		stopLabelled()
	})
	step(t, "a kubelet is killed and restarts", func(t *testing.T) {
		stop, stopLabelled := e.always(t, h.check), labelled.always(t, k.labelled(t, *h).check)
		if err := k.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		k.wait()
		k.start(t)
		k.eventuallyLists(t, h)
		e.eventuallyRefreshed(t)
		labelled.eventuallyRefreshed(t)
		stop()
		stopLabelled()
	})
	step(t, "a device plugin is killed", func(t *testing.T) {
		eventually(t, "the plugin has registered with the new kubelet", func() error {
			return k.allocates(t, wholeGPUs, len(whole.ids))
		})
		stop := e.always(t, h.check)
		whole.stop()
		eventually(t, "the kubelet has no allocatable GPU", func() error { return k.allocates(t, wholeGPUs, 0) })
		e.eventuallyRefreshed(t)
		stop()
		e.eventually(t, "the owners of all pods", h.check)
	})
}

// step runs a subtest that the next subtests need.
func step(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

// allocates checks the number of devices that the kubelet can allocate.
func (k *kubelet) allocates(t *testing.T, resource string, want int) error {
	all, err := k.allocatable(t.Context())
	if err == nil && all[resource] != want {
		err = fmt.Errorf("allocatable: %v", all)
	}
	return err
}

// eventuallyLists waits until the kubelet lists all pods that hold devices.
func (k *kubelet) eventuallyLists(t *testing.T, h *holdings) {
	t.Helper()
	eventually(t, "the kubelet lists the pods", func() error {
		held, err := k.held(t.Context())
		if err != nil {
			return err
		}
		for _, one := range *h {
			if len(held[one.pod]) == 0 {
				return fmt.Errorf("it has %v", held)
			}
		}
		return nil
	})
}

// testFreshness measures the time from the allocation of a device to its labels, and from
// the kubelet's list without the pod to the series without labels.
func testFreshness(t *testing.T, k *kubelet, g *gpus, e *exporter, h *holdings, plugin *plugin) {
	var seen, gone []time.Duration
	for i := range 5 {
		pod := newPod(fmt.Sprintf("fresh-%d", i), wholeGPUs, 1)
		k.place(t, pod)
		name := map[string]string{"pod": staticName(pod)}
		var id string
		eventually(t, "the device has labels", func() error {
			x, err := e.scrape(t.Context())
			if err != nil {
				return err
			}
			found := x.find("DCGM_FI_DEV_GPU_TEMP", name)
			if len(found) == 0 {
				return fmt.Errorf("no series of %s", staticName(pod))
			}
			id = found[0].labels["UUID"]
			return nil
		})
		seen = append(seen, time.Since(plugin.allocationOf(id)))
		h.addID(g, id, staticName(pod))
		e.eventually(t, "the owners of all devices", h.check)

		k.withdraw(t, pod)
		eventually(t, "the kubelet does not list the pod", func() error {
			held, err := k.held(t.Context())
			if err == nil && len(held[staticName(pod)]) > 0 {
				err = fmt.Errorf("the kubelet lists %v", held)
			}
			return err
		})
		since := time.Now()
		h.remove(staticName(pod))
		e.eventually(t, "the owners of all devices", h.check)
		gone = append(gone, time.Since(since))
	}
	t.Logf("samples every 200 ms; from the allocation of a device to its labels: %s; from the kubelet's List without a pod to /metrics without its labels: %s",
		spread(seen), spread(gone))
}

func spread(d []time.Duration) string {
	slices.Sort(d)
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("min %s, median %s, max %s", round(d[0]), round(d[len(d)/2]), round(d[len(d)-1]))
}
