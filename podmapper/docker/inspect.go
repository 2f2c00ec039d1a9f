// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/podmapper/device"
)

// How a container receives devices. Sources: moby 29 (daemon/devices.go,
// devices_nvidia_linux.go, cdi.go, start_unix.go), docker/cli (opts/gpus.go),
// NVIDIA Container Toolkit 1.18 (internal/config/image/cuda_image.go,
// internal/modifier/cdi.go, pkg/nvcdi), libnvidia-container (src/cli/common.c),
// and Podman 4.3 to 6 (libpod/container_inspect.go).
//
//   - HostConfig.DeviceRequests has --gpus, and --device with a CDI device name. A
//     request is NVIDIA's if its driver is "nvidia", or if it has no driver and
//     the capability gpu. A positive Count requests the first GPUs by index, a
//     negative one all GPUs.
//   - NVIDIA's container runtime reads NVIDIA_VISIBLE_DEVICES from the
//     container's environment, which the image or the user sets. Different
//     runtimes ignore it. Docker stores the name of its default runtime in
//     HostConfig.Runtime when it starts a container that requests none.
//   - A device request overrides NVIDIA_VISIBLE_DEVICES. Docker appends its own
//     value for the runtime hook, and NVIDIA's CDI specifications set it to void.
//   - HostConfig.Devices has device files of the host. A privileged container has
//     all files of /dev, so that does not make it an owner.
//   - Podman reports CDI devices, including those of --gpus, only as the files
//     that they add to the container. Its HostConfig.Runtime is always "oci".

// inspection is the used part of the engine's description of a container.
type inspection struct {
	Config *struct {
		Image string
		Env   []string
	}
	HostConfig *struct {
		Runtime        string
		Devices        []struct{ PathOnHost string }
		DeviceRequests []deviceRequest
		Annotations    map[string]string
	}
	Mounts []struct{ Destination string }
}

type deviceRequest struct {
	Driver       string
	Count        int
	DeviceIDs    []string
	Capabilities [][]string
}

// description is the result of an inspection.
type description struct {
	image      string
	devices    Devices
	unresolved []Unresolved // without the container
}

// Bounds per container. A node has at most 16 GPUs with 7 instances each.
const (
	maxDevices    = 512
	maxUnresolved = 16
)

// describe parses the engine's description of a container. It calls capabilities
// only if the container has device files of MIG.
func describe(response []byte, capabilities func() (migCapabilities, error)) (description, error) {
	var i inspection
	if err := json.Unmarshal(response, &i); err != nil {
		return description{}, err
	}
	if i.Config == nil || i.HostConfig == nil {
		return description{}, malformed("no Config or no HostConfig")
	}
	s := selection{ids: make(map[device.ID]bool)}
	s.addFiles(&i, capabilities)
	if !s.addRequests(i.HostConfig.DeviceRequests) {
		s.addEnvironment(&i)
	}
	d := description{image: i.Config.Image, devices: Devices{All: s.all}, unresolved: s.unresolved}
	if !s.all {
		d.devices.IDs = slices.SortedFunc(maps.Keys(s.ids), device.ID.Compare)
	}
	return d, nil
}

// selection collects the devices of one container.
type selection struct {
	all        bool
	ids        map[device.ID]bool
	unresolved []Unresolved
}

func (s *selection) addUnresolved(request, reason, hint string) {
	u := Unresolved{Request: printable(request), Reason: reason, Hint: hint}
	if len(s.unresolved) < maxUnresolved && !slices.ContainsFunc(s.unresolved, func(v Unresolved) bool { return compareUnresolved(u, v) == 0 }) {
		s.unresolved = append(s.unresolved, u)
	}
}

func (s *selection) add(id device.ID) {
	if len(s.ids) >= maxDevices {
		s.addUnresolved("all devices", fmt.Sprintf("the container has more than %d devices; the rest is ignored", maxDevices), "name each device once")
		return
	}
	s.ids[id] = true
}

// addRequests adds the devices of DeviceRequests. It reports whether they override
// the container's NVIDIA_VISIBLE_DEVICES.
func (s *selection) addRequests(requests []deviceRequest) (override bool) {
	var nvidia [][]string
	for i := range requests {
		r := &requests[i]
		switch {
		case r.Driver == "cdi":
			for _, name := range r.DeviceIDs {
				override = s.addCDI(name) || override
			}
		case r.isNVIDIA():
			if names := s.requested(r); len(names) > 0 {
				nvidia = append(nvidia, names)
			}
		}
	}
	if len(nvidia) == 0 {
		return override
	}
	last := nvidia[len(nvidia)-1]
	for _, names := range nvidia[:len(nvidia)-1] {
		if !slices.Equal(names, last) {
			s.addUnresolved(strings.Join(names, ","),
				"with several requests for GPUs, NVIDIA's runtime hook grants the last and CDI grants all; the engine does not report which one it uses",
				"request all devices in one request")
		}
	}
	for _, name := range visible(last) {
		s.addName(name)
	}
	return true
}

// isNVIDIA reports whether Docker passes the request to NVIDIA's driver. Without a
// driver name, all capabilities of one list must be the driver's.
func (r *deviceRequest) isNVIDIA() bool {
	switch r.Driver {
	case "nvidia", "nvidia.cdi", "nvidia.runtime-hook":
		return true
	case "":
		// The capabilities with which Docker registers NVIDIA's driver.
		registered := []string{"gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display"}
		return slices.ContainsFunc(r.Capabilities, func(all []string) bool {
			return !slices.ContainsFunc(all, func(c string) bool { return !slices.Contains(registered, c) })
		})
	}
	return false
}

// requested returns the names of the requested devices as Docker passes them on.
func (s *selection) requested(r *deviceRequest) []string {
	switch {
	case len(r.DeviceIDs) > 0:
		return split(strings.Join(r.DeviceIDs, ","))
	case r.Count < 0:
		return []string{"all"}
	case r.Count > maxDevices:
		s.addUnresolved(fmt.Sprintf("Count %d", r.Count), "no node has so many GPUs", "use --gpus all")
		return nil
	}
	names := make([]string, r.Count)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}

// split returns the names in a list as in NVIDIA_VISIBLE_DEVICES.
func split(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// visible applies the special names of NVIDIA's tools to a list.
func visible(names []string) []string {
	if slices.Contains(names, "void") {
		return nil
	}
	for _, name := range names {
		switch {
		case strings.EqualFold(name, "all"):
			return []string{"all"}
		case name == "none":
			return nil
		}
	}
	return names
}

// addName adds a device by a name of NVIDIA's container tools.
func (s *selection) addName(name string) {
	if strings.EqualFold(name, "all") {
		s.all = true
		return
	}
	if id, replica := device.ParseID(name); replica == "" {
		switch id.Form {
		case device.FormNumber:
			s.add(device.ID{Form: device.FormIndex, Number: id.Number})
			return
		case device.FormGPUUUID, device.FormMIGUUID, device.FormMIGPath:
			s.add(id)
			return
		}
	}
	gpu, mig, _ := strings.Cut(name, ":")
	gpuIndex, ok1 := cutNumber(gpu, "")
	migIndex, ok2 := cutNumber(mig, "")
	if ok1 && ok2 {
		s.add(device.ID{Form: device.FormMIGIndex, Number: gpuIndex, MIGIndex: migIndex})
		return
	}
	if kind, _, ok := strings.Cut(name, "="); ok && strings.Contains(kind, "/") {
		s.addCDI(name)
		return
	}
	if id, ok := device.ParsePCIBusID(name); ok { // libnvidia-container accepts it
		s.add(id)
		return
	}
	s.addUnresolved(name, "the name has an unknown form", "name GPUs by index or UUID, and MIG devices by UUID or by indexes such as 0:1")
}

// addCDI adds a device by its CDI name, such as nvidia.com/gpu=0. It reports
// whether the device is or may be NVIDIA's.
func (s *selection) addCDI(name string) bool {
	const hint = "use a device nvidia.com/gpu=… from nvidia-ctk cdi list"
	kind, dev, _ := strings.Cut(name, "=")
	vendor, class, _ := strings.Cut(kind, "/")
	switch vendor {
	case "nvidia.com", "runtime.nvidia.com":
	case "management.nvidia.com":
		return true // the files of all devices, for containers that manage the driver
	default:
		if class != "gpu" || vendor == "amd.com" || vendor == "intel.com" {
			return false
		}
		s.addUnresolved(name, "its vendor is unknown", hint)
		return true
	}
	switch class {
	case "gpu":
	case "gds", "mofed", "nvswitch", "gdrcopy", "imex-channel":
		return true // not GPUs
	default:
		s.addUnresolved(name, "its class is unknown", hint)
		return true
	}
	// nvidia-ctk cdi generate --device-name-strategy=type-index: gpu0, mig0:1
	for _, prefix := range [...]string{"gpu", "mig"} {
		if rest, ok := strings.CutPrefix(dev, prefix); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			dev = rest
		}
	}
	switch {
	case dev == "none":
	case dev == "", strings.Contains(dev, "="):
		s.addUnresolved(name, "it is not the name of a CDI device", hint)
	default:
		s.addName(dev)
	}
	return true
}

// addFiles adds the devices of HostConfig.Devices.
func (s *selection) addFiles(i *inspection, read func() (migCapabilities, error)) {
	var gpus, caps []int
	for _, d := range i.HostConfig.Devices {
		file := path.Clean(d.PathOnHost)
		if n, ok := cutNumber(file, "/dev/nvidia"); ok {
			gpus = append(gpus, n)
		} else if n, ok := cutNumber(file, "/dev/nvidia-caps/nvidia-cap"); ok {
			caps = append(caps, n)
		}
	}
	var partitioned map[int]bool
	if len(caps) > 0 {
		known, err := read()
		if err != nil {
			s.addUnresolved("/dev/nvidia-caps", "the list of MIG device files is not readable: "+err.Error(),
				"mount the host's "+DefaultMIGMinors)
			return // the file of a GPU is also needed for its instances
		}
		partitioned = s.addCapabilities(caps, known)
	}
	for _, n := range gpus {
		if !partitioned[n] {
			s.add(device.ID{Form: device.FormDeviceName, Number: n})
		}
	}
}

// addCapabilities adds the MIG devices of /dev/nvidia-caps files. It returns the
// minor numbers of their GPUs. A MIG device needs the files of its GPU instance
// and of its compute instance.
func (s *selection) addCapabilities(caps []int, known migCapabilities) map[int]bool {
	partitioned := make(map[int]bool)
	granted := make(map[device.ID]bool)
	for _, n := range caps {
		if id, ok := known[n]; ok {
			partitioned[id.Number] = true
			granted[id] = true
		}
	}
	usable := make(map[int]bool)
	for _, n := range caps {
		id, ok := known[n]
		instance := id
		instance.ComputeInstance = device.Unknown
		if ok && id != instance && granted[instance] {
			usable[id.Number] = true
			s.add(id)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(partitioned)) {
		if !usable[n] {
			s.addUnresolved(fmt.Sprintf("/dev/nvidia%d", n), "a MIG device needs the files of its GPU instance and of its compute instance, and one is missing",
				"add both files of /dev/nvidia-caps, or request the MIG device by name")
		}
	}
	return partitioned
}

const (
	visibleDevices = "NVIDIA_VISIBLE_DEVICES"
	hintRequest    = "request devices with --gpus or --device nvidia.com/gpu=… (CDI)"
)

// addEnvironment adds the devices that the container's runtime derives from the
// environment, annotations and mounts.
func (s *selection) addEnvironment(i *inspection) {
	env := variables(i.Config.Env)
	list, set := env[visibleDevices]
	if runtime := i.HostConfig.Runtime; !isNVIDIARuntime(runtime) {
		if set && !ignoresEnvironment(runtime) && len(s.ids) == 0 && len(visible(split(list))) > 0 {
			reason := fmt.Sprintf("it is unknown whether the runtime %s uses the variable", printable(runtime))
			if runtime == "oci" {
				reason = "Podman does not report whether the container has NVIDIA's runtime or hook, which use the variable"
			}
			s.addUnresolved(visibleDevices+"="+list, reason, hintRequest)
		}
		return
	}
	// The order of the toolkit: annotations, mounts, the variables that its
	// configuration prefers, NVIDIA_VISIBLE_DEVICES.
	if names := annotatedDevices(i.HostConfig.Annotations); len(names) > 0 {
		for _, name := range names {
			s.addCDI(name)
		}
		return
	}
	for _, m := range i.Mounts {
		if strings.HasPrefix(path.Clean(m.Destination), "/var/run/nvidia-container-devices/") {
			s.addUnresolved(m.Destination, "it is unknown whether NVIDIA's runtime is configured to read devices from mounts", hintRequest)
			return
		}
	}
	for _, key := range slices.Sorted(maps.Keys(env)) {
		if value := env[key]; isSwarmResource(key, value) && value != list {
			s.addUnresolved(key+"="+value, "it is unknown whether NVIDIA's runtime is configured to read devices from this variable of Docker Swarm (swarm-resource)",
				"set NVIDIA_VISIBLE_DEVICES of the service to the same devices")
			return
		}
	}
	if !set && env["CUDA_VERSION"] != "" && env["NVIDIA_REQUIRE_CUDA"] == "" {
		list = "all" // CUDA images that predate the variable
	}
	for _, name := range visible(split(list)) {
		s.addName(name)
	}
}

// variables returns an environment by name. As in NVIDIA's runtime, the last value
// of a name wins.
func variables(env []string) map[string]string {
	all := make(map[string]string, len(env))
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			all[name] = value
		}
	}
	return all
}

// isNVIDIARuntime recognizes the names from nvidia-ctk and NVIDIA's documentation:
// nvidia, nvidia-cdi, nvidia-legacy.
func isNVIDIARuntime(runtime string) bool {
	return runtime == "nvidia" || strings.HasPrefix(runtime, "nvidia-")
}

// ignoresEnvironment reports whether a runtime is known to ignore NVIDIA's
// variables.
func ignoresEnvironment(runtime string) bool {
	switch runtime {
	case "", "runc", "crun", "youki":
		return true
	}
	return strings.HasPrefix(runtime, "io.containerd.runc.") || strings.HasPrefix(runtime, "io.containerd.runtime.")
}

// annotatedDevices returns the CDI devices in annotations.
func annotatedDevices(annotations map[string]string) []string {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if strings.HasPrefix(key, "cdi.k8s.io/") {
			names = append(names, split(annotations[key])...)
		}
	}
	return names
}

// isSwarmResource recognizes the variable in which Docker Swarm passes the GPUs of
// a service. Example: DOCKER_RESOURCE_NVIDIA-GPU=GPU-….
func isSwarmResource(key, value string) bool {
	resource, ok := strings.CutPrefix(key, "DOCKER_RESOURCE_")
	return ok && value != "" && (strings.Contains(strings.ToUpper(resource), "GPU") ||
		strings.HasPrefix(value, "GPU-") || strings.HasPrefix(value, "MIG-"))
}
