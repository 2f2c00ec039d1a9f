// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// logInterval is how often it is looked whether the directories have changed.
const logInterval = 2 * time.Second

// logged is what the names in the log directories say. It is immutable; nil
// says nothing.
//
// The kubelet writes these names (pkg/kubelet/kuberuntime/helpers.go,
// BuildPodLogsDirectory, and legacy.go, logSymlink), and keeps them until it
// removes the pod or the container.
type logged struct {
	pods       map[string]podName      // by UID
	containers map[string]logContainer // by ID
	// of gives the containers of the pods of a name, sorted by ID.
	of map[podName][]Container
	// uids tells how many UIDs of that name there are.
	uids map[podName]int
}

type logContainer struct {
	pod  podName
	name string
}

func newLogged(pods map[string]podName, containers map[string]logContainer) *logged {
	l := &logged{pods: pods, containers: containers, of: make(map[podName][]Container), uids: make(map[podName]int)}
	for _, name := range pods {
		l.uids[name]++
	}
	for _, id := range slices.Sorted(maps.Keys(containers)) {
		c := containers[id]
		l.of[c.pod] = append(l.of[c.pod], Container{ID: id, Name: c.name})
	}
	return l
}

// certain says whether a name means one pod, so that its containers are known
// to be that one's.
func (l *logged) certain(name podName) bool { return l.uids[name] <= 1 }

// replaced says whether another pod has the name of this one by now.
func (l *logged) replaced(p *Pod) bool {
	if l == nil {
		return false
	}
	name := podName{p.Namespace, p.Name}
	return l.uids[name] > 0 && l.pods[p.CgroupUID] != name
}

// complete gives a pod with the containers that the directories know of.
func (l *logged) complete(p *Pod) *Pod {
	if l == nil || p.Containers != nil {
		return p
	}
	name := podName{p.Namespace, p.Name}
	if l.pods[p.CgroupUID] != name || !l.certain(name) || len(l.of[name]) == 0 {
		return p
	}
	with := *p
	with.Containers = l.of[name]
	return &with
}

// others gives the pods that are not in p. Containers of which it is not
// certain whose of several pods they are come in a pod without UID.
func (l *logged) others(p *Pods) []*Pod {
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
		if l.certain(name) {
			pod.Containers = l.of[name]
		}
		pods = append(pods, pod)
	}
	for name, containers := range l.of {
		if l.uids[name] == 1 {
			continue
		}
		pods = append(pods, &Pod{Namespace: name.namespace, Name: name.name, Containers: containers})
	}
	return pods
}

// logDir reads the directories.
type logDir struct {
	pods, containers listing
	interval         time.Duration
	report           func(*logged, error)
}

func newLogDir(pods, containers string, report func(*logged, error)) *logDir {
	return &logDir{pods: listing{path: pods}, containers: listing{path: containers}, interval: logInterval, report: report}
}

// run reads until ctx ends.
func (d *logDir) run(ctx context.Context) {
	ticker := time.NewTicker(d.interval)
	defer ticker.Stop()
	for {
		d.poll()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// poll reports what has changed, and errors each time. Without one of the
// directories the other is used.
func (d *logDir) poll() {
	podsChanged, err := d.pods.read()
	containersChanged, err2 := d.containers.read()
	if err != nil && err2 != nil {
		reason := ReasonOther
		switch {
		case errors.Is(err, fs.ErrNotExist):
			reason = ReasonNoDirectory
		case errors.Is(err, fs.ErrPermission):
			reason = ReasonForbidden
		}
		d.report(nil, failed(reason, "reading the names of log directories: %w", err))
		return
	}
	if !podsChanged && !containersChanged {
		return
	}
	pods := make(map[string]podName, len(d.pods.names))
	for _, entry := range d.pods.names {
		if uid, name, ok := parseLogDirectory(entry); ok {
			pods[uid] = name
		}
	}
	containers := make(map[string]logContainer, len(d.containers.names))
	for _, entry := range d.containers.names {
		if id, c, ok := parseLogSymlink(entry); ok {
			containers[id] = c
		}
	}
	d.report(newLogged(pods, containers), nil)
}

// listing is the names in a directory.
type listing struct {
	path     string
	names    []string
	modified time.Time
	readAt   time.Time
}

// read says whether it has read anything new.
func (l *listing) read() (changed bool, err error) {
	info, err := os.Stat(l.path)
	if err != nil {
		changed = l.names != nil
		*l = listing{path: l.path}
		return changed, err
	}
	// A change right after the last look may have left the time as it was.
	if info.ModTime().Equal(l.modified) && l.readAt.Sub(l.modified) > time.Second {
		return false, nil
	}
	l.modified, l.readAt = info.ModTime(), time.Now()
	names, err := names(l.path)
	if err != nil {
		changed = l.names != nil
		*l = listing{path: l.path}
		return changed, err
	}
	slices.Sort(names)
	changed = l.names == nil || !slices.Equal(l.names, names)
	l.names = names
	return changed, nil
}

// names gives those in a directory; never nil without an error.
func names(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if names == nil {
		names = []string{}
	}
	return names, nil
}

// parseLogDirectory takes <namespace>_<name>_<uid>. None of the three can have
// an underscore.
func parseLogDirectory(entry string) (uid string, name podName, ok bool) {
	parts := strings.Split(entry, "_")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", podName{}, false
	}
	return parts[2], podName{parts[0], parts[1]}, true
}

// parseLogSymlink takes <pod>_<namespace>_<container>-<ID>.log. The kubelet cuts
// longer names than 255 bytes in the middle of the ID; these are left out.
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
