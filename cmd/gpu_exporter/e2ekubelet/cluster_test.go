// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const podsPath = "/api/v1/namespaces/" + podNamespace + "/pods"

// TestCluster covers the metadata of pods and the devices of ResourceClaims on a node of a
// cluster with a real API server. The pods of each step remain for the next steps.
func TestCluster(t *testing.T) {
	m := newMachine(t)
	startContainerd(t, m)
	g := newGPUs(t, m)
	api := startAPIServer(t, m)
	api.create(t, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podNamespace}})
	api.permit(t, exporterUser)
	k := startKubelet(t, m, api.kubeconfig(t, nodeUser))
	startPlugin(t, k, wholeGPUs, g.uuids[:2]...)
	mig := g.migOf(7)[0]
	startDRADriver(t, k, api,
		published("gpu-2", "type=gpu", "uuid="+g.uuids[2], "productName=NVIDIA H100 80GB HBM3"),
		published("gpu-3", "type=gpu", "uuid="+g.uuids[3], "productName=NVIDIA H100 80GB HBM3"),
		published("gpu-7-mig-0", "type=mig", "uuid="+mig, "parentUUID="+g.uuids[7], "profile=3g.40gb"),
	)
	e := startExporter(t, m, g, 9400, "--kubernetes.enabled", "--kubernetes.pod-resources-socket="+k.socket(),
		"--kubernetes.kubeconfig="+api.kubeconfig(t, exporterUser), "--kubernetes.node-name="+nodeName,
		"--kubernetes.metadata-source=api-server", "--kubernetes.dra",
		"--kubernetes.pod-labels", "--kubernetes.pod-label-allowlist=^"+teamLabel+"$",
		"--kubernetes.pod-uid", "--kubernetes.workload")
	h := &holdings{}

	step(t, "a pod of a Deployment", func(t *testing.T) {
		pod := newPod("web-5d4f-x7x2p", wholeGPUs, 1)
		pod.OwnerReferences = []metav1.OwnerReference{api.replicaSet(t, "web", "web-5d4f")}
		api.run(t, pod)
		h.addID(g, k.devices(t, pod.Name, pod)[0], pod.Name)
		h.describe(pod, map[string]string{"workload": "web", "workload_kind": "Deployment"})
		e.eventually(t, "the metadata of the pod", h.check)
	})
	t.Run("the usage of a pod", func(t *testing.T) {
		at := (*h)[0]
		g.command(t, "process gpu %d pid %d memory 500", slices.Index(g.uuids, at.uuid), k.process(t, at.pod))
		e.eventually(t, "the memory of the process as the pod's", func(x exposition) error {
			got, err := x.value("gpu_pod_memory_used_bytes", map[string]string{"UUID": at.uuid, "pod": at.pod})
			if err == nil && got != 500<<20 {
				err = fmt.Errorf("the pod uses %v bytes", got)
			}
			return err
		})
	})
	step(t, "a claim for a GPU", func(t *testing.T) {
		claim := api.claim(t, "train", "gpu-2")
		pod := api.runClaiming(t, "train", claim)
		h.add(device{uuid: g.uuids[2]}, pod.Name)
		h.describe(pod, claimed("train", "gpu-2", nil))
		e.eventually(t, "the claim of the pod", h.check)
	})
	step(t, "a claim that two pods share", func(t *testing.T) {
		claim := api.claim(t, "shared", "gpu-3")
		for _, name := range []string{"shared-a", "shared-b"} {
			pod := api.runClaiming(t, name, claim)
			h.add(device{uuid: g.uuids[3]}, pod.Name)
			h.describe(pod, claimed("shared", "gpu-3", nil))
		}
		e.eventually(t, "one row for each of the two pods", h.check)
	})
	step(t, "a claim for a MIG device", func(t *testing.T) {
		claim := api.claim(t, "slice", "gpu-7-mig-0")
		pod := api.runClaiming(t, "slice", claim)
		h.add(g.device(mig), pod.Name)
		h.describe(pod, claimed("slice", "gpu-7-mig-0", map[string]string{"dra_mig_profile": "3g.40gb", "dra_mig_device_uuid": mig}))
		e.eventually(t, "the pod on the instance and not on its GPU", h.check)
	})
	// A kubelet receives these pods from the API server later than it answers first, unlike
	// static pods. A kubelet that starts also deletes all ResourceSlices of its node, and
	// the drivers publish them again after republishAfter.
	step(t, "a kubelet is killed and restarts", func(t *testing.T) {
		stop := e.always(t, h.check)
		if err := k.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		k.wait()
		k.start(t)
		k.eventuallyLists(t, h)
		e.eventuallyRefreshed(t)
		for _, want := range []int{0, 1} {
			eventually(t, fmt.Sprintf("the API server has %d ResourceSlices", want), func() error {
				got, err := api.slices(t.Context())
				if err == nil && got != want {
					err = fmt.Errorf("it has %d", got)
				}
				return err
			})
		}
		stop()
		e.eventually(t, "the owners of all devices with the new slices", h.check)
	})
	step(t, "the API server is killed and restarts", func(t *testing.T) {
		stop := e.always(t, h.check)
		api.kill(t)
		for _, source := range []string{"api_server", "resource_slices"} {
			e.eventuallyUp(t, 0, "gpu_exporter_owner_source_up", map[string]string{"source": source})
		}
		api.start(t)
		for _, source := range []string{"api_server", "resource_slices"} {
			e.eventuallyUp(t, 1, "gpu_exporter_owner_source_up", map[string]string{"source": source})
		}
		stop()
	})
	step(t, "a pod is deleted", func(t *testing.T) {
		if err := api.do(t.Context(), http.MethodDelete, podsPath+"/train", nil, nil); err != nil {
			t.Fatal(err)
		}
		h.remove("train")
		e.eventually(t, "the owners of all remaining pods", h.check)
	})
}

// run creates a pod that is bound to the node.
func (a *apiServer) run(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	pod.Spec.NodeName = nodeName
	a.create(t, podsPath, pod)
}

// replicaSet creates a Deployment and its ReplicaSet in place of the controllers.
func (a *apiServer) replicaSet(t *testing.T, deployment, replicaSet string) metav1.OwnerReference {
	t.Helper()
	labels := map[string]string{"app": deployment}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: newPod("", "", 0).Spec}
	template.Spec.TerminationGracePeriodSeconds = nil
	path := "/apis/apps/v1/namespaces/" + podNamespace
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: deployment},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}
	a.create(t, path+"/deployments", d)
	r := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            replicaSet,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}
	a.create(t, path+"/replicasets", r)
	return *metav1.NewControllerRef(r, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
}

// permit gives a user the permissions that the exporter needs.
func (a *apiServer) permit(t *testing.T, user string) {
	t.Helper()
	watch := []string{"get", "list", "watch"}
	const path = "/apis/rbac.authorization.k8s.io/v1"
	a.create(t, path+"/clusterroles", &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: watch},
			{APIGroups: []string{"apps"}, Resources: []string{"replicasets"}, Verbs: watch},
			{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: watch},
			{APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceslices"}, Verbs: watch},
		},
	})
	a.create(t, path+"/clusterrolebindings", &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
	})
}

// describe adds the metadata of a pod and further labels to its holdings.
func (h holdings) describe(pod *corev1.Pod, more map[string]string) {
	for i := range h {
		if h[i].pod == pod.Name {
			h[i].more = map[string]string{teamLabel: pod.Labels[teamLabel], "pod_uid": string(pod.UID)}
			maps.Copy(h[i].more, more)
		}
	}
}

// claimed returns the labels of a claim.
func claimed(claim, device string, more map[string]string) map[string]string {
	labels := map[string]string{
		"dra_claim_name": claim, "dra_claim_namespace": podNamespace,
		"dra_driver_name": draDriverName, "dra_pool_name": draPool, "dra_device_name": device,
	}
	maps.Copy(labels, more)
	return labels
}
