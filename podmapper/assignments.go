// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"slices"
	"strings"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/device"
)

// Bounds of a table. A node has at most 16 GPUs of 7 instances that are shared some
// ten times, and names in Kubernetes have at most 253 bytes.
const (
	maxAssignments    = 16384
	maxPodAssignments = 2048
	// maxPodUnknown bounds the IDs of no known form of one pod, such as those of pseudo
	// devices that count memory.
	maxPodUnknown = 64
	maxName       = 253
)

const nvidiaDomain = "nvidia.com/"

// resourceFilter selects the resources that can be GPUs.
type resourceFilter struct {
	// names are in addition to those below nvidia.com/. A minus in front excludes one.
	names  map[string]bool
	claims bool // include the devices of ResourceClaims
	self   Pod  // has all devices to monitor them, and holds none
}

func (f resourceFilter) wants(resource string) bool {
	name, ok := strings.CutPrefix(resource, nvidiaDomain)
	return f.names[resource] || ok && !isOtherResource(name) && !f.names["-"+resource]
}

// isOtherResource reports whether a resource below nvidia.com/ is not a GPU: shares
// of memory or cores that a scheduler counts (HAMi, KAI, Volcano's plugin), and network
// devices (NVIDIA's network operator).
func isOtherResource(name string) bool {
	switch name {
	case "gpumem", "gpumem-percentage", "gpucores", "gpu.memory", "gpu.cores", "gpu-memory", "gpu-core", "priority", "hostdev":
		return true
	}
	return slices.ContainsFunc([]string{"rdma_", "rdma-", "sriov", "mlnx", "hostdev", "bf3", "cx"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// numbersAreGPUs reports whether a bare number in this resource can mean a GPU. The
// IDs of NVIDIA's KubeVirt and sandbox plugins (nvidia.com/GA102GL_A10,
// nvidia.com/pgpu) are numbers of IOMMU groups.
func (f resourceFilter) numbersAreGPUs(resource string) bool {
	rest, ok := strings.CutPrefix(resource, nvidiaDomain+"gpu")
	return f.names[resource] || ok && (rest == "" || rest[0] == '.' || rest[0] == '-')
}

// collector collects the assignments of an answer.
type collector struct {
	filter      resourceFilter
	assignments []Assignment
	pod         int // assignments of the current pod
	unknown     int // of no known form among them
	truncated   int
}

// collect returns the assignments of an answer, sorted and without repetitions: the
// kubelet lists a container's devices in one entry per resource and NUMA node. It
// also returns how many IDs and names exceeded the bounds of a pod.
func (f resourceFilter) collect(answer *podresources.ListPodResourcesResponse) (all []Assignment, truncated int) {
	c := collector{filter: f}
	for _, pod := range answer.GetPodResources() {
		if f.self.is(pod.GetNamespace(), pod.GetName()) {
			continue
		}
		c.pod, c.unknown = 0, 0
		for _, container := range pod.GetContainers() {
			c.container(pod, container)
		}
	}
	slices.SortFunc(c.assignments, compareAssignments)
	return slices.Clip(slices.Compact(c.assignments)), c.truncated
}

func (c *collector) container(pod *podresources.PodResources, container *podresources.ContainerResources) {
	owner := func() Owner {
		return Owner{Namespace: c.name(pod.GetNamespace()), Pod: c.name(pod.GetName()), Container: c.name(container.GetName())}
	}
	for _, devices := range container.GetDevices() {
		resource := devices.GetResourceName()
		if len(devices.GetDeviceIds()) == 0 || !c.filter.wants(resource) {
			continue
		}
		o := owner()
		o.Resource = c.name(resource)
		for _, text := range devices.GetDeviceIds() {
			id, replica := device.ParseID(text)
			if id.Form == device.FormNumber && !c.filter.numbersAreGPUs(resource) {
				id, replica = device.ID{}, ""
			}
			o.Replica = replica
			c.add(Assignment{Owner: o, ID: c.name(text), Known: id})
		}
	}
	if !c.filter.claims {
		return
	}
	for _, claim := range container.GetDynamicResources() {
		for _, r := range claim.GetClaimResources() {
			o := owner()
			o.Claim = Claim{
				Namespace: c.name(claim.GetClaimNamespace()), Name: c.name(claim.GetClaimName()),
				PublishedName: device.PublishedName{Driver: c.name(r.GetDriverName()), Pool: c.name(r.GetPoolName()), Device: c.name(r.GetDeviceName())},
				Share:         c.name(r.GetShareId()),
			}
			c.add(Assignment{Owner: o, ID: o.Claim.String(), Known: device.ID{Form: device.FormClaim}})
		}
	}
}

func (c *collector) add(a Assignment) {
	unknown := a.Known.Form == device.FormUnknown
	if c.pod == maxPodAssignments || unknown && c.unknown == maxPodUnknown || len(c.assignments) == maxAssignments {
		c.truncated++
		return
	}
	c.pod++
	if unknown {
		c.unknown++
	}
	c.assignments = append(c.assignments, a)
}

// name bounds a name or an ID.
func (c *collector) name(s string) string {
	if len(s) <= maxName {
		return s
	}
	c.truncated++
	return strings.ToValidUTF8(strings.Clone(s[:maxName]), "")
}
