// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strconv"
	"strings"
)

// Parse parses /proc/<pid>/cgroup. It accepts any text and ignores unknown forms.
//
// Each line has the path in one hierarchy. In cgroup v1 and hybrid set-ups a
// container need not be in all hierarchies, so the most detailed line wins. A
// privileged container can create cgroups that imitate an inner container. It
// cannot change Outer.
//
// Paths are relative to the reader's cgroup namespace. Inside a namespace they
// start with "/.." and omit the common prefix. Example: a process in another
// container of the reader's pod has a ContainerID and no PodUID.
//
// Sources of the forms: containerd internal/cri/server/podsandbox/helpers.go
// (getCgroupsPath), runc libcontainer/cgroups/systemd, CRI-O
// internal/config/cgmgr, kubelet pkg/kubelet/cm/cgroup_manager_linux.go, Podman
// libpod/container_internal_linux.go, Slurm src/plugins/cgroup, systemd
// src/nspawn; kubernetes issue 106514 for slice:prefix:name as a directory.
func Parse(content string) Place {
	var best Place
	for line := range strings.SplitSeq(content, "\n") {
		fields := strings.SplitN(line, ":", 3) // hierarchy, controllers, path
		if len(fields) < 3 {
			continue
		}
		// The kernel marks a removed cgroup with an unreaped process as deleted.
		// The clone lets the caller free the content.
		parts := components(strings.Clone(strings.TrimSuffix(fields[2], " (deleted)")))
		if p := parseContainers(parts); p.detail() > best.detail() {
			best.Container, best.Outer = p.Container, p.Outer
		}
		if j := parseJob(parts); j.detail() > best.Job.detail() {
			best.Job = j
		}
	}
	return best
}

// detail ranks places by the number of known properties.
func (p Place) detail() int {
	n := p.Container.detail()
	for _, c := range p.Outer {
		n += c.detail()
	}
	return n
}

func (c Container) detail() int {
	n := 0
	if c != (Container{}) {
		n += 4
	}
	if c.PodUID != "" {
		n += 2
	}
	if c.Runtime != "" {
		n++
	}
	return n
}

func (j SlurmJob) detail() int {
	n := 0
	for _, s := range []string{j.ID + j.SLUID, j.Step, j.UID, j.Node} {
		if s != "" {
			n++
		}
	}
	return n
}

// components splits a path into directory names. A runtime with the cgroupfs
// driver under a kubelet with the systemd driver creates one directory named
// slice:prefix:name. It becomes the two directories of systemd.
func components(path string) []string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if unit := strings.SplitN(part, ":", 3); len(unit) == 3 {
			parts = append(parts, unit[0])
			part = unit[2]
			if unit[1] != "" {
				part = unit[1] + "-" + part
			}
		}
		parts = append(parts, part)
	}
	return slices.DeleteFunc(parts, func(part string) bool { return part == "" })
}

func parseContainers(parts []string) Place {
	var found []Container // outermost first
	var pod string        // UID of the pod that encloses the next directories
	enclosingPod := func() string {
		if len(found) == 0 {
			return ""
		}
		return found[len(found)-1].PodUID
	}
	var parent string
	for _, part := range parts {
		runtime, id, kind := parseUnit(part, parent)
		switch {
		case kind == unitContainer:
			found = append(found, Container{Runtime: runtime, ContainerID: id, PodUID: pod})
		case kind == unitMonitor:
			// conmon belongs to the runtime, although CRI-O starts it below the pod.
			pod = enclosingPod()
		case part == "supervisor" && nspawnMachine(parent) != "":
			// systemd-nspawn itself; the machine is in "payload".
			found = found[:len(found)-1]
			pod = enclosingPod()
		default:
			if uid := podUID(part, parent); uid != "" {
				pod = uid
			}
		}
		parent = part
	}
	if pod != enclosingPod() {
		found = append(found, Container{PodUID: pod})
	}
	if len(found) == 0 {
		return Place{}
	}
	slices.Reverse(found)
	p := Place{Container: found[0]}
	if len(found) > 1 {
		p.Outer = found[1:]
	}
	return p
}

type unitKind uint8

const (
	unitOther unitKind = iota
	unitContainer
	unitMonitor // monitors a container from outside
)

// parseUnit parses the directory of a container. The systemd driver names it
// <prefix>-<id>.scope; the cgroupfs driver <id> or <prefix>-<id>.
func parseUnit(part, parent string) (runtime, id string, kind unitKind) {
	name := strings.TrimSuffix(part, ".scope")
	if isContainerID(name) {
		if parent == "docker" {
			runtime = RuntimeDocker
		}
		return runtime, name, unitContainer
	}
	if i := len(name) - containerIDLength; i > 0 && isContainerID(name[i:]) {
		id = name[i:]
		switch name[:i] {
		case "cri-containerd-", "nerdctl-":
			return RuntimeContainerd, id, unitContainer
		case "crio-":
			return RuntimeCRIO, id, unitContainer
		case "docker-":
			return RuntimeDocker, id, unitContainer
		case "libpod-", "libpod-payload-": // the latter with --cgroups=split
			return RuntimePodman, id, unitContainer
		case "crio-conmon-", "libpod-conmon-":
			return "", "", unitMonitor
		}
		return "", "", unitOther
	}
	if machine := nspawnMachine(part); machine != "" {
		return RuntimeNspawn, machine, unitContainer
	}
	return "", "", unitOther
}

// containerIDLength is the same for all supported runtimes except systemd-nspawn.
const containerIDLength = 64

const (
	digits        = "0123456789"
	letters       = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	hexDigits     = digits + "abcdef"
	sluidAlphabet = digits + "ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base 32
)

// madeOf reports whether s has only characters of the alphabet.
func madeOf(s, alphabet string) bool { return strings.Trim(s, alphabet) == "" }

func isContainerID(s string) bool { return len(s) == containerIDLength && madeOf(s, hexDigits) }

func isDigits(s string) bool { return s != "" && madeOf(s, digits) }

// nspawnMachine returns the name of a systemd-nspawn machine, or "".
func nspawnMachine(part string) string {
	if s, ok := strings.CutPrefix(part, "systemd-nspawn@"); ok {
		if s, ok = strings.CutSuffix(s, ".service"); ok {
			return unescapeUnit(s)
		}
		return ""
	}
	s, ok := strings.CutPrefix(part, "machine-")
	if !ok {
		return ""
	}
	if s, ok = strings.CutSuffix(s, ".scope"); !ok {
		return ""
	}
	name := unescapeUnit(s)
	// libvirt registers its guests in the same way, as qemu-<n>-<name>.
	for _, driver := range []string{"qemu-", "lxc-"} {
		if rest, ok := strings.CutPrefix(name, driver); ok {
			if number, _, ok := strings.Cut(rest, "-"); ok && isDigits(number) {
				return ""
			}
		}
	}
	return name
}

// unescapeUnit decodes systemd's escapes in unit names. Example: a\x2db is a-b.
func unescapeUnit(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if c, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil && c >= ' ' && c < 0x7f {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// podUID returns the UID in the directory name of a pod, or "". The cgroupfs
// driver uses pod<uid>; the systemd driver kubepods-burstable-pod<uid>.slice, with
// "_" for "-" in the UID. A kubelet with --cgroup-root prepends that.
func podUID(part, parent string) string {
	if slice, ok := strings.CutSuffix(part, ".slice"); ok {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 {
			return ""
		}
		above := strings.TrimSuffix(strings.TrimSuffix(slice[:i], "-burstable"), "-besteffort")
		uid := strings.ReplaceAll(slice[i+len("-pod"):], "_", "-")
		if above != "kubepods" && !strings.HasSuffix(above, "-kubepods") || !isPodUID(uid) {
			return ""
		}
		return uid
	}
	uid, ok := strings.CutPrefix(part, "pod")
	if !ok || !isPodUID(uid) {
		return ""
	}
	switch parent {
	case "kubepods", "burstable", "besteffort":
		return uid
	}
	// Inside a cgroup namespace the parent directories are missing.
	if len(uid) == 36 && madeOf(uid, hexDigits+"-") || len(uid) == 32 && madeOf(uid, hexDigits) {
		return uid
	}
	return ""
}

// isPodUID accepts more than UUIDs: the manifest of a static pod can set any UID.
func isPodUID(s string) bool {
	return s != "" && len(s) <= 128 && madeOf(s, digits+letters+"-.")
}

// ParseSlurmDir parses the directory name of a job below Slurm's own directory:
// job_<id> or a SLUID.
func ParseSlurmDir(name string) (SlurmJob, bool) {
	if id, ok := strings.CutPrefix(name, "job_"); ok {
		return SlurmJob{ID: id}, isDigits(id) && len(id) <= 10 // uint32
	}
	return SlurmJob{SLUID: name}, isSLUID(name)
}

// isSLUID follows src/common/sluid.c of Slurm.
func isSLUID(s string) bool {
	return len(s) == 14 && s[0] == 's' && madeOf(s[1:], sluidAlphabet)
}

// parseJob finds the innermost Slurm job. The forms are
//
//	v1: <CgroupPrepend>/uid_<uid>/job_<id>/step_<step>/task_<n>
//	v2: <CgroupSlice>/slurmstepd.scope/job_<id>/step_<step>/user/task_<n>
//
// The v1 prefix is configurable (/slurm or /slurm_<node>), so it is not required.
func parseJob(parts []string) SlurmJob {
	var found SlurmJob
	for i, part := range parts {
		job, ok := ParseSlurmDir(part)
		if !ok {
			continue
		}
		var above string
		if i > 0 {
			above = parts[i-1]
		}
		uid, inUser := strings.CutPrefix(above, "uid_")
		inUser = inUser && isDigits(uid)
		node, inScope := strings.CutSuffix(above, "slurmstepd.scope")
		var step string
		if i+1 < len(parts) {
			step = slurmStep(parts[i+1])
		}
		switch {
		case inUser:
			job.UID = uid
			if i > 1 {
				if name, ok := strings.CutPrefix(parts[i-2], "slurm_"); ok {
					job.Node = name
				}
			}
		case inScope:
			job.Node = strings.TrimSuffix(node, "_")
		case step == "":
			// Only a step proves that it is a job, seen from a cgroup namespace.
			continue
		}
		job.Step = step
		found = job
	}
	return found
}

// slurmStep returns the step of a directory step_<step>, or "".
func slurmStep(part string) string {
	step, ok := strings.CutPrefix(part, "step_")
	if !ok || len(step) > 32 || !madeOf(step, digits+letters+"+") {
		return ""
	}
	return step
}
