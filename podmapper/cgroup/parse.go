// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strconv"
	"strings"
)

// Parse takes the content of a /proc/<pid>/cgroup apart. It is a pure function,
// and takes any text; what it does not know it leaves out.
//
// Each line gives the path in one hierarchy. With cgroup v1 and with both
// versions at once the container need not be in all of them, so the line that
// says most counts, and the innermost container of it. Whoever may create
// cgroups in a container (that is, a privileged one) can make its processes
// appear in another container; what is in Outer is out of its reach.
//
// Paths are those that the reader's cgroup namespace shows. From inside of one
// they begin with "/..", and what is common to the reader and the process is
// missing: a process in another container of the reader's pod has a
// ContainerID and no PodUID, one in the reader's own container is in none.
//
// Sources of the forms: containerd internal/cri/server/podsandbox/helpers.go
// (getCgroupsPath), runc libcontainer/cgroups/systemd, CRI-O
// internal/config/cgmgr, kubelet pkg/kubelet/cm/cgroup_manager_linux.go, Podman
// libpod/container_internal_linux.go, Slurm src/plugins/cgroup, systemd
// src/nspawn; kubernetes issue 106514 for slice:prefix:name as a directory.
func Parse(content string) Place {
	var best Place
	for line := range strings.SplitSeq(content, "\n") {
		_, rest, ok := strings.Cut(line, ":") // hierarchy number
		if !ok {
			continue
		}
		_, path, ok := strings.Cut(rest, ":") // controllers
		if !ok {
			continue
		}
		// A removed cgroup whose last process has not been reaped.
		parts := components(strings.TrimSuffix(path, " (deleted)"))
		if p := parseContainers(parts); p.says() > best.says() {
			best.Container, best.Outer = p.Container, p.Outer
		}
		if j := parseJob(parts); j.says() > best.Job.says() {
			best.Job = j
		}
	}
	return best.clone()
}

// says orders places by how much they say.
func (p Place) says() int {
	n := p.Container.says()
	for _, c := range p.Outer {
		n += c.says()
	}
	return n
}

func (c Container) says() int {
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

func (j SlurmJob) says() int {
	n := 0
	for _, s := range []string{j.ID + j.SLUID, j.Step, j.UID, j.Node} {
		if s != "" {
			n++
		}
	}
	return n
}

// clone lets go of the text that the strings were cut out of.
func (p Place) clone() Place {
	p.Container = p.Container.clone()
	p.Outer = slices.Clone(p.Outer)
	for i := range p.Outer {
		p.Outer[i] = p.Outer[i].clone()
	}
	j := &p.Job
	for _, s := range []*string{&j.ID, &j.SLUID, &j.Step, &j.UID, &j.Node} {
		*s = strings.Clone(*s)
	}
	return p
}

func (c Container) clone() Container {
	return Container{
		Runtime:     c.Runtime, // a constant
		ContainerID: strings.Clone(c.ContainerID),
		PodUID:      strings.Clone(c.PodUID),
	}
}

// components cuts a path into its directories. Under a runtime with the
// cgroupfs driver and a kubelet with systemd's, one directory is named
// slice:prefix:name; it becomes the two that systemd would have made of it.
func components(path string) []string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part == "" {
			continue
		}
		slice, unit, ok := strings.Cut(part, ":")
		prefix, name, ok2 := strings.Cut(unit, ":")
		if !ok || !ok2 {
			parts = append(parts, part)
			continue
		}
		if slice != "" {
			parts = append(parts, slice)
		}
		if prefix != "" {
			name = prefix + "-" + name
		}
		parts = append(parts, name)
	}
	return parts
}

func parseContainers(parts []string) Place {
	var found []Container // the outermost first
	var pod string        // around what follows
	around := func() string {
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
			// conmon is the runtime's, although CRI-O puts it below the pod.
			pod = around()
		case part == "supervisor" && nspawnMachine(parent) != "":
			// systemd-nspawn itself, beside the machine's "payload".
			found = found[:len(found)-1]
			pod = around()
		default:
			if uid := podUID(part, parent); uid != "" {
				pod = uid
			}
		}
		parent = part
	}
	if pod != around() {
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
	unitMonitor // of a container, and outside of it
)

// parseUnit recognises the directory of a container: a unit of systemd,
// <prefix>-<id>.scope, or of the cgroupfs driver, with or without a prefix.
func parseUnit(part, parent string) (runtime, id string, kind unitKind) {
	name := strings.TrimSuffix(part, ".scope")
	if isContainerID(name) {
		if parent == "docker" {
			return RuntimeDocker, name, unitContainer
		}
		return "", name, unitContainer
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

// containerIDLength is that of all the runtimes above.
const containerIDLength = 64

func isContainerID(s string) bool { return len(s) == containerIDLength && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// nspawnMachine gives the name of a machine of systemd-nspawn.
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

// unescapeUnit undoes systemd's \x2d for the characters that a unit's name
// cannot have.
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

// podUID recognises the directory of a pod: pod<uid> under the cgroupfs driver,
// kubepods-burstable-pod<uid>.slice under systemd's, where the UID has "_" for
// "-", and a kubelet with its own --cgroup-root has that before the name.
func podUID(part, parent string) string {
	if slice, ok := strings.CutSuffix(part, ".slice"); ok {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 {
			return ""
		}
		above, uid := slice[:i], slice[i+len("-pod"):]
		above = strings.TrimSuffix(strings.TrimSuffix(above, "-burstable"), "-besteffort")
		if above != "kubepods" && !strings.HasSuffix(above, "-kubepods") {
			return ""
		}
		uid = strings.ReplaceAll(uid, "_", "-")
		if !isPodUID(uid) {
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
	// From inside of a cgroup namespace the directories above are missing.
	if len(uid) == 36 && isHex(strings.ReplaceAll(uid, "-", "")) || len(uid) == 32 && isHex(uid) {
		return uid
	}
	return ""
}

// isPodUID: the UID of a static pod may be any text that its manifest has.
func isPodUID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}

// ParseSlurmDir takes the name of the directory of a job below Slurm's own,
// job_<id> or a SLUID.
func ParseSlurmDir(name string) (SlurmJob, bool) {
	if id, ok := strings.CutPrefix(name, "job_"); ok {
		// A number of 32 bits.
		return SlurmJob{ID: id}, isDigits(id) && len(id) <= 10
	}
	return SlurmJob{SLUID: name}, isSLUID(name)
}

// isSLUID: Crockford's base 32, see Slurm's src/common/sluid.c.
func isSLUID(s string) bool {
	if len(s) != 14 || s[0] != 's' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !strings.Contains("0123456789ABCDEFGHJKMNPQRSTVWXYZ", s[i:i+1]) {
			return false
		}
	}
	return true
}

// parseJob recognises
//
//	v1: <CgroupPrepend>/uid_<uid>/job_<id>/step_<step>/task_<n>
//	v2: <CgroupSlice>/slurmstepd.scope/job_<id>/step_<step>/user/task_<n>
//
// The prefix of v1 is a setting, /slurm or /slurm_<node>, so the names below
// must do.
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
			// Not enough to go by. With a step, it is a path from inside of a
			// cgroup namespace.
			continue
		}
		job.Step = step
		found = job // the innermost
	}
	return found
}

// slurmStep gives the step of a directory step_<step>, or "".
func slurmStep(part string) string {
	step, ok := strings.CutPrefix(part, "step_")
	if !ok || len(step) > 32 {
		return ""
	}
	for i := range len(step) {
		c := step[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+':
		default:
			return ""
		}
	}
	return step
}
