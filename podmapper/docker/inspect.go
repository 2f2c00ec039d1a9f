// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/podmapper"
)

// How a container gets devices, from the sources of moby 29 (daemon/devices.go,
// devices_nvidia_linux.go, cdi.go, start_unix.go), docker/cli (opts/gpus.go),
// NVIDIA Container Toolkit 1.18 (internal/config/image/cuda_image.go,
// internal/modifier/cdi.go, pkg/nvcdi) with libnvidia-container
// (src/cli/common.c), and Podman 4.3 to 6 (libpod/container_inspect.go):
//
//   - HostConfig.DeviceRequests: --gpus, and --device with the name of a CDI
//     device. The driver "nvidia", or none and the capability gpu, is NVIDIA's: a
//     positive Count means the first GPUs by index, a negative one all.
//   - NVIDIA's container runtime takes NVIDIA_VISIBLE_DEVICES from the container's
//     environment, be it from the image or from the user. Other runtimes ignore
//     it. Docker writes the name of its default runtime into
//     HostConfig.Runtime when it starts a container that asks for none.
//   - A device request makes NVIDIA_VISIBLE_DEVICES of the container void: Docker
//     appends its own for the runtime hook, and NVIDIA's CDI specs have
//     NVIDIA_VISIBLE_DEVICES=void.
//   - HostConfig.Devices: files of the host. A privileged container has all files
//     of /dev anyway, which makes it the holder of nothing.
//   - Podman shows CDI devices, also those of --gpus, only by the files that they
//     brought into the container. Its HostConfig.Runtime is always "oci".

// inspection is what is used of the engine's answer.
type inspection struct {
	Config struct {
		Image string
		Env   []string
	}
	HostConfig struct {
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

// described is what an inspection says.
type described struct {
	image      string
	devices    Devices
	unresolved []Unresolved // without the container
}

// Bounds of what is kept of one container. A node has at most 16 GPUs of 7
// instances.
const (
	maxDevices    = 512
	maxUnresolved = 16
)

// describe takes the engine's answer apart. minors is called if the container
// has device files of MIG.
func describe(answer []byte, minors func() (migMinors, error)) (described, error) {
	var present struct{ Config, HostConfig json.RawMessage }
	if err := json.Unmarshal(answer, &present); err != nil {
		return described{}, err
	}
	if len(present.Config) == 0 || len(present.HostConfig) == 0 {
		return described{}, fmt.Errorf("%w: no Config or no HostConfig", errMalformed)
	}
	var i inspection
	if err := json.Unmarshal(answer, &i); err != nil {
		return described{}, err
	}
	s := newSelection()
	s.files(&i, minors)
	if !s.requests(i.HostConfig.DeviceRequests) {
		s.environment(&i)
	}
	return described{image: i.Config.Image, devices: s.devices(), unresolved: s.unresolved}, nil
}

// selection collects devices.
type selection struct {
	all        bool
	ids        map[podmapper.DeviceID]bool
	indexes    map[MIGIndex]bool
	instances  map[MIGInstance]bool
	unresolved []Unresolved
}

func newSelection() *selection {
	return &selection{
		ids:       make(map[podmapper.DeviceID]bool),
		indexes:   make(map[MIGIndex]bool),
		instances: make(map[MIGInstance]bool),
	}
}

func (s *selection) count() int { return len(s.ids) + len(s.indexes) + len(s.instances) }

func (s *selection) devices() Devices {
	if s.all {
		return Devices{All: true}
	}
	return Devices{
		IDs: slices.SortedFunc(maps.Keys(s.ids), func(a, b podmapper.DeviceID) int {
			return cmp.Or(cmp.Compare(a.Form, b.Form), cmp.Compare(a.Number, b.Number), strings.Compare(a.UUID, b.UUID),
				cmp.Compare(a.GPUInstance, b.GPUInstance), cmp.Compare(a.ComputeInstance, b.ComputeInstance))
		}),
		MIGIndexes: slices.SortedFunc(maps.Keys(s.indexes), func(a, b MIGIndex) int {
			return cmp.Or(cmp.Compare(a.GPU, b.GPU), cmp.Compare(a.MIG, b.MIG))
		}),
		MIGInstances: slices.SortedFunc(maps.Keys(s.instances), func(a, b MIGInstance) int {
			return cmp.Or(cmp.Compare(a.Minor, b.Minor), cmp.Compare(a.GPUInstance, b.GPUInstance), cmp.Compare(a.ComputeInstance, b.ComputeInstance))
		}),
	}
}

func (s *selection) doubt(request, reason, hint string) {
	u := Unresolved{Request: printable(request), Reason: reason, Hint: hint}
	if len(s.unresolved) < maxUnresolved && !slices.Contains(s.unresolved, u) {
		s.unresolved = append(s.unresolved, u)
	}
}

// full keeps a selection within bounds.
func (s *selection) full() bool {
	if s.count() < maxDevices {
		return false
	}
	s.doubt("all devices", fmt.Sprintf("the container has more than %d; the rest is left out", maxDevices), "name each device once")
	return true
}

// requests reads DeviceRequests. It says whether they take the place of the
// container's NVIDIA_VISIBLE_DEVICES.
func (s *selection) requests(all []deviceRequest) bool {
	var nvidia [][]string
	instead := false
	for i := range all {
		r := &all[i]
		switch {
		case r.Driver == "cdi":
			for _, name := range r.DeviceIDs {
				instead = s.cdi(name) || instead
			}
		case r.ofNVIDIA():
			if names := s.requested(r); len(names) > 0 {
				nvidia = append(nvidia, names)
			}
		}
	}
	if len(nvidia) == 0 {
		return instead
	}
	last := nvidia[len(nvidia)-1]
	for _, names := range nvidia[:len(nvidia)-1] {
		if !slices.Equal(names, last) {
			s.doubt(strings.Join(names, ","),
				"of several requests for GPUs an engine with NVIDIA's runtime hook fulfils only the last, and one with CDI all; it does not say which it has",
				"ask for all devices in one request")
		}
	}
	for _, name := range visible(last) {
		s.device(name)
	}
	return true
}

// ofNVIDIA says whether Docker gives the request to NVIDIA's driver. Without the
// name of a driver, all capabilities of one of the lists must be the driver's.
func (r *deviceRequest) ofNVIDIA() bool {
	switch r.Driver {
	case "nvidia", "nvidia.cdi", "nvidia.runtime-hook":
		return true
	case "":
		return slices.ContainsFunc(r.Capabilities, func(all []string) bool {
			return !slices.ContainsFunc(all, func(c string) bool { return !driverHas(c) })
		})
	}
	return false
}

// driverHas knows the capabilities that Docker's NVIDIA driver is registered with.
func driverHas(capability string) bool {
	switch capability {
	case "gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display":
		return true
	}
	return false
}

// requested gives the devices that are asked for, as Docker passes them on.
func (s *selection) requested(r *deviceRequest) []string {
	switch {
	case len(r.DeviceIDs) > 0:
		return split(strings.Join(r.DeviceIDs, ","))
	case r.Count < 0:
		return []string{"all"}
	case r.Count > maxDevices:
		s.doubt(fmt.Sprintf("Count %d", r.Count), "no node has so many GPUs", "use --gpus all")
		return nil
	}
	names := make([]string, r.Count)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}

// split takes a list of devices as in NVIDIA_VISIBLE_DEVICES.
func split(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// visible leaves of a list what NVIDIA's tools make of it.
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

// device adds a device by its name.
func (s *selection) device(name string) {
	if strings.EqualFold(name, "all") {
		s.all = true
		return
	}
	if s.full() {
		return
	}
	if id, replica := podmapper.ParseDeviceID(name); replica == "" {
		switch id.Form {
		case podmapper.FormNumber, podmapper.FormGPUUUID, podmapper.FormMIGUUID, podmapper.FormMIGPath:
			s.ids[id] = true
			return
		}
	}
	if i, ok := parseMIGIndex(name); ok {
		s.indexes[i] = true
		return
	}
	if kind, _, ok := strings.Cut(name, "="); ok && strings.Contains(kind, "/") {
		s.cdi(name)
		return
	}
	reason := "it has no known form"
	if strings.Count(name, ":") == 2 && strings.Contains(name, ".") {
		reason = "it is the PCI address of a GPU"
	}
	s.doubt(name, reason, "name GPUs by index or UUID, and MIG devices by UUID or as in 0:1")
}

func parseMIGIndex(name string) (MIGIndex, bool) {
	gpu, mig, ok := strings.Cut(name, ":")
	var i MIGIndex
	ok = ok && number(gpu, "", &i.GPU) && number(mig, "", &i.MIG)
	return i, ok
}

// cdi adds a device by its full CDI name, such as nvidia.com/gpu=0. It says
// whether the device is one of NVIDIA's, or may be.
func (s *selection) cdi(name string) bool {
	const hint = "use a device that nvidia-ctk cdi list shows as nvidia.com/gpu=…"
	kind, device, _ := strings.Cut(name, "=")
	vendor, class, _ := strings.Cut(kind, "/")
	switch vendor {
	case "nvidia.com", "runtime.nvidia.com":
	case "management.nvidia.com":
		return true // the files of all devices, for containers that look after the driver
	default:
		if class != "gpu" || vendor == "amd.com" || vendor == "intel.com" {
			return false
		}
		s.doubt(name, "it is not of a known vendor", hint)
		return true
	}
	switch class {
	case "gpu":
	case "gds", "mofed", "nvswitch", "gdrcopy", "imex-channel":
		return true // no GPUs
	default:
		s.doubt(name, "it is of no known class", hint)
		return true
	}
	// nvidia-ctk cdi generate --device-name-strategy=type-index
	for _, prefix := range [...]string{"gpu", "mig"} {
		if rest, ok := strings.CutPrefix(device, prefix); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			device = rest
		}
	}
	switch {
	case device == "none":
	case device == "", strings.Contains(device, "="):
		s.doubt(name, "it is no name of a CDI device", hint)
	default:
		s.device(device)
	}
	return true
}

// files reads HostConfig.Devices.
func (s *selection) files(i *inspection, minors func() (migMinors, error)) {
	var gpus, caps []int
	for _, d := range i.HostConfig.Devices {
		file := path.Clean(d.PathOnHost)
		var n int
		switch {
		case number(file, "/dev/nvidia", &n):
			gpus = append(gpus, n)
		case number(file, "/dev/nvidia-caps/nvidia-cap", &n):
			caps = append(caps, n)
		}
	}
	var inParts map[int]bool // GPUs of which there are files of instances
	if len(caps) > 0 {
		known, err := minors()
		if err != nil {
			s.doubt("/dev/nvidia-caps", "which MIG devices these files are cannot be read: "+err.Error(),
				"the exporter must see the host's "+DefaultMIGMinors)
			return // a GPU's own file is also that of its instances
		}
		inParts = s.capabilities(caps, known)
	}
	for _, n := range gpus {
		if !inParts[n] && !s.full() {
			s.ids[podmapper.DeviceID{Form: podmapper.FormDeviceName, Number: n}] = true
		}
	}
}

// capabilities adds the MIG devices of nvidia-caps files, and says in which GPUs
// they are.
func (s *selection) capabilities(caps []int, known migMinors) map[int]bool {
	inParts := make(map[int]bool)
	around := make(map[MIGInstance]bool) // GPU instances
	for _, n := range caps {
		if a, ok := known[n]; ok {
			inParts[a.Minor] = true
			if !a.compute {
				around[a.MIGInstance] = true
			}
		}
	}
	usable := make(map[int]bool)
	for _, n := range caps {
		a, ok := known[n]
		if !ok || !a.compute || !around[MIGInstance{Minor: a.Minor, GPUInstance: a.GPUInstance}] || s.full() {
			continue
		}
		usable[a.Minor] = true
		s.instances[a.MIGInstance] = true
	}
	for _, n := range slices.Sorted(maps.Keys(inParts)) {
		if !usable[n] {
			s.doubt(fmt.Sprintf("/dev/nvidia%d", n), "a MIG device needs the files of its GPU instance and of its compute instance, and one is missing",
				"give the container both of /dev/nvidia-caps, or better a MIG device by its name")
		}
	}
	return inParts
}

const (
	visibleDevices = "NVIDIA_VISIBLE_DEVICES"
	hintRequest    = "give devices with --gpus or --device nvidia.com/gpu=… (CDI)"
)

// environment reads what the container's runtime makes of its environment.
func (s *selection) environment(i *inspection) {
	env := variables(i.Config.Env)
	list, set := env[visibleDevices]
	if runtime := i.HostConfig.Runtime; !ofNVIDIA(runtime) {
		if set && !ignoresEnvironment(runtime) && s.count() == 0 && len(visible(split(list))) > 0 {
			reason := fmt.Sprintf("it is not known whether the runtime %s obeys the variable", printable(runtime))
			if runtime == "oci" {
				reason = "Podman does not say whether the container has NVIDIA's runtime or hook, without which the variable means nothing"
			}
			s.doubt(visibleDevices+"="+list, reason, hintRequest)
		}
		return
	}
	// In the order of the toolkit: annotations, mounts, the variables that its
	// configuration prefers, and NVIDIA_VISIBLE_DEVICES.
	if names := annotated(i.HostConfig.Annotations); len(names) > 0 {
		for _, name := range names {
			s.cdi(name)
		}
		return
	}
	for _, m := range i.Mounts {
		if strings.HasPrefix(path.Clean(m.Destination), "/var/run/nvidia-container-devices/") {
			s.doubt(m.Destination, "it is not known whether NVIDIA's runtime is configured to take devices from mounts", hintRequest)
			return
		}
	}
	for _, key := range slices.Sorted(maps.Keys(env)) {
		if value := env[key]; ofSwarm(key, value) && value != list {
			s.doubt(key+"="+value, "it is not known whether NVIDIA's runtime is configured to take devices from this variable of Docker Swarm (swarm-resource)",
				"set NVIDIA_VISIBLE_DEVICES of the service to the same devices")
			return
		}
	}
	if !set && env["CUDA_VERSION"] != "" && env["NVIDIA_REQUIRE_CUDA"] == "" {
		list = "all" // images of CUDA from before the variable
	}
	for _, name := range visible(split(list)) {
		s.device(name)
	}
}

// variables gives an environment by name. As with NVIDIA's runtime, the last one
// of a name counts.
func variables(env []string) map[string]string {
	all := make(map[string]string, len(env))
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			all[name] = value
		}
	}
	return all
}

// ofNVIDIA says whether a runtime is NVIDIA's, by the names that nvidia-ctk and
// NVIDIA's documentation give it: nvidia, nvidia-cdi, nvidia-legacy.
func ofNVIDIA(runtime string) bool {
	return runtime == "nvidia" || strings.HasPrefix(runtime, "nvidia-")
}

// ignoresEnvironment says whether a runtime is known to know nothing of NVIDIA.
func ignoresEnvironment(runtime string) bool {
	switch runtime {
	case "", "runc", "crun", "youki":
		return true
	}
	return strings.HasPrefix(runtime, "io.containerd.runc.") || strings.HasPrefix(runtime, "io.containerd.runtime.")
}

// annotated gives the CDI devices in annotations.
func annotated(annotations map[string]string) []string {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if strings.HasPrefix(key, "cdi.k8s.io/") {
			names = append(names, split(annotations[key])...)
		}
	}
	return names
}

// ofSwarm says whether a variable looks like one by which Docker Swarm tells a
// service which GPUs of the node's generic resources are its own, such as
// DOCKER_RESOURCE_NVIDIA-GPU=GPU-….
func ofSwarm(key, value string) bool {
	resource, ok := strings.CutPrefix(key, "DOCKER_RESOURCE_")
	return ok && value != "" && (strings.Contains(strings.ToUpper(resource), "GPU") ||
		strings.HasPrefix(value, "GPU-") || strings.HasPrefix(value, "MIG-"))
}
