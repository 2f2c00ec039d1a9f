// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"gpu_exporter/podmapper/internal/poll"
)

// logInterval is the interval of reading the log directories.
const logInterval = 2 * time.Second

// logNames is what the names in the log directories contain. It is immutable; a nil
// *logNames is empty.
//
// The kubelet writes these names (pkg/kubelet/kuberuntime/helpers.go,
// BuildPodLogsDirectory, and legacy.go, logSymlink). They remain until it removes the
// pod or the container.
type logNames struct {
	pods       map[string]podName      // by UID
	containers map[string]logContainer // by ID
	// containersOf contains the containers of all pods of a name, sorted by ID.
	containersOf map[podName][]Container
	uids         map[podName]int // number of UIDs of a name
}

type logContainer struct {
	pod  podName
	name string
}

func newLogNames(pods map[string]podName, containers map[string]logContainer) *logNames {
	l := &logNames{pods: pods, containers: containers, containersOf: make(map[podName][]Container), uids: make(map[podName]int)}
	for _, name := range pods {
		l.uids[name]++
	}
	for _, id := range slices.Sorted(maps.Keys(containers)) {
		c := containers[id]
		l.containersOf[c.pod] = append(l.containersOf[c.pod], Container{ID: id, Name: c.name})
	}
	return l
}

// replaced reports whether only other pods have the name of this one.
func (l *logNames) replaced(p *Pod) bool {
	if l == nil {
		return false
	}
	name := podName{p.Namespace, p.Name}
	return l.uids[name] > 0 && l.pods[p.CgroupUID] != name
}

// complete returns a pod with its containers, if the source does not report them and
// no other pod has the same name.
func (l *logNames) complete(p *Pod) *Pod {
	if l == nil || p.Containers != nil {
		return p
	}
	name := podName{p.Namespace, p.Name}
	if l.pods[p.CgroupUID] != name || l.uids[name] > 1 || len(l.containersOf[name]) == 0 {
		return p
	}
	with := *p
	with.Containers = l.containersOf[name]
	return &with
}

// missingFrom returns the pods that p does not contain. If the pods of several UIDs
// share a name, their containers are in a pod without UID.
func (l *logNames) missingFrom(p *Pods) []*Pod {
	if l == nil {
		return nil
	}
	var pods []*Pod
	for _, uid := range slices.Sorted(maps.Keys(l.pods)) {
		if p.byCgroupUID[uid] != nil {
			continue
		}
		name := l.pods[uid]
		pod := &Pod{Namespace: name.namespace, Name: name.name, UID: uid, CgroupUID: uid}
		if l.uids[name] == 1 {
			pod.Containers = l.containersOf[name]
		}
		pods = append(pods, pod)
	}
	for name, containers := range l.containersOf {
		if l.uids[name] != 1 {
			pods = append(pods, &Pod{Namespace: name.namespace, Name: name.name, Containers: containers})
		}
	}
	return pods
}

// readLogDirs reads the log directories until ctx ends, while they are needed.
func (s *Store) readLogDirs(ctx context.Context) {
	d := logDirs{pods: s.c.LogDir, containers: s.c.ContainerLogDir}
	ticker := time.NewTicker(s.logInterval)
	defer ticker.Stop()
	for {
		now := time.Now()
		if !s.needsLogDir(now) {
			s.logDir.Stop()
		} else if names, err := d.read(); err != nil {
			s.logDir.Fail(now, err)
		} else {
			s.logDir.Succeed(now, names)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// logDirs reads the log directories.
type logDirs struct {
	pods, containers string // paths
	entries          []string
	last             *logNames
}

// read returns the same pointer while nothing changes. It needs only one of the two
// directories.
func (d *logDirs) read() (*logNames, error) {
	podEntries, err := readNames(d.pods)
	containerEntries, err2 := readNames(d.containers)
	if err != nil && err2 != nil {
		err = fmt.Errorf("reading the log directories: %w", err)
		if errors.Is(err, fs.ErrNotExist) {
			err = poll.WithReason(reasonNoDirectory, err)
		}
		return nil, err
	}
	entries := slices.Concat(podEntries, containerEntries)
	if d.last != nil && slices.Equal(entries, d.entries) {
		return d.last, nil
	}
	pods := make(map[string]podName, len(podEntries))
	for _, entry := range podEntries {
		if uid, name, ok := parseLogDirectory(entry); ok {
			pods[uid] = name
		}
	}
	containers := make(map[string]logContainer, len(containerEntries))
	for _, entry := range containerEntries {
		if id, c, ok := parseLogSymlink(entry); ok {
			containers[id] = c
		}
	}
	d.entries, d.last = entries, newLogNames(pods, containers)
	return d.last, nil
}

// readNames returns the sorted names in a directory.
func readNames(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// parseLogDirectory parses <namespace>_<name>_<uid>. None of them can contain an
// underscore.
func parseLogDirectory(entry string) (uid string, name podName, ok bool) {
	parts := strings.Split(entry, "_")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", podName{}, false
	}
	return parts[2], podName{parts[0], parts[1]}, true
}

// parseLogSymlink parses <pod>_<namespace>_<container>-<ID>.log. The kubelet cuts
// names longer than 255 bytes in the middle of the ID; these are rejected.
func parseLogSymlink(entry string) (id string, c logContainer, ok bool) {
	const idLength = 64
	parts := strings.Split(strings.TrimSuffix(entry, ".log"), "_")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || len(parts[2]) < idLength+2 || !strings.HasSuffix(entry, ".log") {
		return "", logContainer{}, false
	}
	at := len(parts[2]) - idLength
	id, name := parts[2][at:], parts[2][:at]
	name, ok = strings.CutSuffix(name, "-")
	if !ok || strings.Trim(id, "0123456789abcdef") != "" {
		return "", logContainer{}, false
	}
	return id, logContainer{pod: podName{parts[1], parts[0]}, name: name}, true
}
