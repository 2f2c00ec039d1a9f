// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

// kind is a node of which the fleet has many.
type kind struct {
	name     string
	share    int    // parts of 100 nodes
	scenario string // content of a scenario file
	pods     int    // pods with one GPU or MIG instance each
	first    page
	second   page // recorded later
	between  time.Duration
}

// page is the series of one node, by name and labels.
type page map[string]recorded

type recorded struct {
	family  string
	labels  map[string]string
	value   float64
	counter bool
}

// kinds are the nodes of the fleet. One in a hundred has faults.
func nodeKinds() []*kind {
	return []*kind{
		{name: "plain", share: 79, scenario: "base h100x8\n", pods: 6},
		{name: "mig", share: 10, scenario: "base h100x8-mig\n", pods: 6},
		{name: "switches", share: 10, scenario: "base dgx-h100\n", pods: 8},
		{name: "faults", share: 1, pods: 4, scenario: `base h100x8
at 10s lose gpu 3
at 10s xid 79 gpu 3
at 10s xid 94 gpu 1
at 10s recovery gpu 1 reset
at 10s remap gpu 2 pending 1
at 10s link gpu 4 port 3 down
at 10s ecc gpu 5 dbe 2
`},
	}
}

const betweenPages = 20 * time.Second

// record takes two pages of each kind of node.
func (b *bench) record(ctx context.Context) ([]*kind, error) {
	kinds := nodeKinds()
	errs := make(chan error)
	for _, k := range kinds {
		go func() { errs <- b.recordKind(ctx, k) }()
	}
	var err error
	for range kinds {
		err = errors.Join(err, <-errs)
	}
	return kinds, err
}

func (b *bench) recordKind(ctx context.Context, k *kind) (err error) {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	scenario := filepath.Join(b.dir, k.name+".scenario")
	if err := os.WriteFile(scenario, []byte(k.scenario), 0o644); err != nil {
		return err
	}
	socket := filepath.Join(b.dir, k.name+".sock")
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		return err
	}
	defer kubelet.Stop()
	node := exec.CommandContext(ctx, b.exporter, "--simulate="+scenario, "--web.listen-address="+address, "--sample.interval=1s",
		"--kubernetes.enabled", "--kubernetes.pod-resources-socket="+socket)
	var log strings.Builder
	node.Stderr = &log
	if err := node.Start(); err != nil {
		return err
	}
	defer func() {
		_ = node.Process.Signal(os.Interrupt)
		_ = node.Wait() // the exit status says that it was interrupted
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", k.name, err, log.String())
		}
	}()
	devices, err := waitFor(ctx, address, func(p page) []string { return p.devices() })
	if err != nil {
		return err
	}
	var pods []*podresources.PodResources
	for i, id := range devices[:min(k.pods, len(devices))] {
		resource := "nvidia.com/gpu"
		if strings.HasPrefix(id, "MIG-") {
			resource = "nvidia.com/mig"
		}
		pods = append(pods, kubelettest.Pod(fmt.Sprintf("team-%d", i%4), fmt.Sprintf("train-%d", i), "main", resource, id))
	}
	kubelet.SetPods(pods...)
	if _, err := waitFor(ctx, address, func(p page) (found []string) {
		owners := p.of("gpu_pod_info")
		if len(owners) < len(pods) {
			return nil
		}
		return owners
	}); err != nil {
		return err
	}
	start := time.Now()
	if k.first, err = scrape(ctx, address); err != nil {
		return err
	}
	select {
	case <-time.After(betweenPages):
	case <-ctx.Done():
		return ctx.Err()
	}
	k.between = time.Since(start)
	k.second, err = scrape(ctx, address)
	return err
}

// devices returns the UUIDs of MIG instances, or of GPUs if there are none.
func (p page) devices() []string {
	var gpus, instances []string
	for _, r := range p {
		switch {
		case r.family != "gpu_info", r.labels["UUID"] == "", strings.Contains(r.labels["mig_uuid"], ","): // of several compute instances
		case r.labels["mig_uuid"] != "":
			instances = append(instances, r.labels["mig_uuid"])
		default:
			gpus = append(gpus, r.labels["UUID"])
		}
	}
	if len(instances) > 0 {
		return instances
	}
	return gpus
}

func (p page) of(family string) (keys []string) {
	for key, r := range p {
		if r.family == family {
			keys = append(keys, key)
		}
	}
	return keys
}

// waitFor scrapes until the page has what is wanted.
func waitFor(ctx context.Context, address string, wanted func(page) []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		p, err := scrape(ctx, address)
		if found := wanted(p); err == nil && len(found) > 0 {
			return found, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(errors.New("the simulated node has no such series"), err, ctx.Err())
		}
	}
}

func scrape(ctx context.Context, address string) (page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bufio.NewReader(resp.Body))
	if err != nil {
		return nil, err
	}
	p := page{}
	for name, f := range families {
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			r := recorded{family: name, labels: labels}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				r.value, r.counter = m.Counter.GetValue(), true
			case dto.MetricType_GAUGE:
				r.value = m.Gauge.GetValue()
			default:
				continue // only go_gc_duration_seconds is none of both
			}
			p[fmt.Sprint(name, " ", labels)] = r
		}
	}
	return p, nil
}

// uuids are the identities that no two nodes share.
var uuids = regexp.MustCompile(`^(GPU|MIG)-[0-9a-f]{8}`)
