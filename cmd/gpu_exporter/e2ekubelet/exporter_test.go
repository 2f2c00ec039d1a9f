// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	promodel "github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/nvml"
)

// gpus are the simulated GPUs of testdata/node.scenario.
type gpus struct {
	*dcgmsim.Node
	uuids []string          // of the GPUs, by DCGM id
	mig   []model.MIGDevice // in NVML's order
}

func newGPUs(t *testing.T, m *machine) *gpus {
	t.Helper()
	libraries, err := filepath.Abs(filepath.Join(filepath.Dir(*exporterFlag), "sim"))
	if err != nil {
		t.Fatal(err)
	}
	scenario, err := filepath.Abs("testdata/node.scenario")
	if err != nil {
		t.Fatal(err)
	}
	g := &gpus{Node: dcgmsim.NewNode(libraries, m.dir, scenario)}
	// The IDs of simulated processes may be those of real processes.
	g.command(t, "process none")
	for i := range 8 {
		truth, err := g.Truth(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		g.uuids = append(g.uuids, truth.UUID)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(append(os.Environ(), g.Environ()...), roleVariable+"="+roleMIG)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing MIG devices: %v", err)
	}
	if err := json.Unmarshal(out, &g.mig); err != nil {
		t.Fatalf("listing MIG devices: %v", err)
	}
	return g
}

func printMIGDevices(w io.Writer) error {
	reader := nvml.NewReader(slog.New(slog.DiscardHandler))
	defer reader.Close()
	all, err := reader.MIGDevices()
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(all)
}

// command steers the simulated GPUs. It also works during the cleanup of a test.
func (g *gpus) command(t *testing.T, format string, args ...any) {
	t.Helper()
	if _, err := g.Command(context.WithoutCancel(t.Context()), fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

// migOf returns the UUIDs of the MIG devices of a GPU.
func (g *gpus) migOf(gpu int) []string {
	var all []string
	for _, d := range g.mig {
		if d.ParentUUID == g.uuids[gpu] {
			all = append(all, d.UUID)
		}
	}
	return all
}

// device identifies the device of a series by its labels.
type device struct{ uuid, instance string }

// device returns the device that has a device ID of the kubelet.
func (g *gpus) device(id string) device {
	id, _, _ = strings.Cut(id, "::")
	for _, d := range g.mig {
		if d.UUID == id {
			return device{d.ParentUUID, strconv.Itoa(d.GPUInstanceID)}
		}
	}
	return device{uuid: id}
}

// computeInstance returns the number of the only compute instance of a GPU instance. The
// stand-in numbers the compute instances of a GPU in order of creation.
func (g *gpus) computeInstance(of device) int {
	return slices.IndexFunc(g.migOf(slices.Index(g.uuids, of.uuid)), func(id string) bool { return g.device(id) == of })
}

// exporter is a running exporter.
type exporter struct {
	url    string
	client *http.Client
	exited chan struct{}
}

// startExporter starts the exporter with the simulated GPUs and waits until it is ready.
// It is in the PID and mount namespaces of the host and in the network namespace of the
// machine.
func startExporter(t *testing.T, m *machine, g *gpus, port int, args ...string) *exporter {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	e := &exporter{url: "http://" + address, client: m.httpClient(), exited: make(chan struct{})}
	program, err := filepath.Abs(*exporterFlag)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{
		"--web.listen-address=" + address, "--simulate=" + g.Scenario, "--sample.interval=200ms", "--sample.max-age=5s", "--log.level=debug",
		"--families=default,exporter-detail",
	}, args...)...)
	cmd.Env = append(os.Environ(), "DCGMSIM_STATE="+g.State, "DCGMSIM_CONTROL="+g.Control)
	log, err := os.Create(filepath.Join(m.dir, fmt.Sprintf("exporter-%d.log", port)))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// It is not in the machine's PID namespace, so the kernel must kill it when the
	// thread that started it exits.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(e.exited)
		if err := m.within(unix.CLONE_NEWNET, func() error {
			started <- cmd.Start()
			_ = cmd.Wait()
			return nil
		}); err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-e.exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-e.exited
			t.Errorf("SIGTERM did not stop the exporter within %v", patience)
		}
	})
	eventually(t, "the exporter is ready", func() error {
		select {
		case <-e.exited:
			t.Fatalf("the exporter exited:\n%s", tail(log.Name()))
		default:
		}
		_, err := e.get(t.Context(), "/-/ready")
		return err
	})
	return e
}

func (e *exporter) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return get(ctx, e.client, e.url+path)
}

// series is one line of /metrics.
type series struct {
	name   string
	labels map[string]string
	value  float64
}

// exposition is the result of one scrape.
type exposition []series

// scrape reads /metrics and rejects duplicate series.
func (e *exporter) scrape(ctx context.Context) (exposition, error) {
	body, err := e.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(promodel.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	var all exposition
	seen := map[string]bool{}
	for name, family := range families {
		for _, m := range family.Metric {
			s := series{name: name, labels: map[string]string{}, value: valueOf(m)}
			id := name
			for _, l := range m.Label {
				s.labels[l.GetName()] = l.GetValue()
				id += "\x00" + l.GetName() + "\x00" + l.GetValue()
			}
			if seen[id] {
				return nil, fmt.Errorf("two series of %s have the labels %v", name, s.labels)
			}
			seen[id] = true
			all = append(all, s)
		}
	}
	return all, nil
}

func valueOf(m *dto.Metric) float64 {
	switch {
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Counter != nil:
		return m.Counter.GetValue()
	}
	return m.GetUntyped().GetValue()
}

// find returns the series of a family with the given labels.
func (x exposition) find(name string, labels map[string]string) []series {
	var found []series
	for _, s := range x {
		if s.name == name && s.has(labels) {
			found = append(found, s)
		}
	}
	return found
}

// value returns the value of the only series with the labels.
func (x exposition) value(name string, labels map[string]string) (float64, error) {
	found := x.find(name, labels)
	if len(found) != 1 {
		return 0, fmt.Errorf("%d series of %s with %v", len(found), name, labels)
	}
	return found[0].value, nil
}

func (s series) has(labels map[string]string) bool {
	for name, value := range labels {
		if s.labels[name] != value {
			return false
		}
	}
	return true
}

// device returns the device of a series.
func (s series) device() device { return device{s.labels["UUID"], s.labels["GPU_I_ID"]} }

// eventually waits until a scrape passes the check.
func (e *exporter) eventually(t *testing.T, expected string, check func(exposition) error) {
	t.Helper()
	eventually(t, "/metrics shows "+expected, func() error {
		x, err := e.scrape(t.Context())
		if err != nil {
			return err
		}
		return check(x)
	})
}

// always waits until a scrape passes the check, and then scrapes continuously until the
// returned function is called. That function fails the test if a scrape failed the check.
func (e *exporter) always(t *testing.T, check func(exposition) error) (stop func()) {
	t.Helper()
	e.eventually(t, "the owners of all devices", check)
	ctx, cancel := context.WithCancel(t.Context())
	scrapes, wrong := 0, make(chan error, 1)
	go func() {
		wrong <- func() error {
			for ; ctx.Err() == nil; scrapes++ {
				x, err := e.scrape(ctx)
				if err == nil {
					err = check(x)
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					return err
				}
				time.Sleep(5 * time.Millisecond) // leave CPU time to the kubelet
			}
			return nil
		}()
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-wrong; err != nil {
			t.Errorf("after %d correct scrapes: %v", scrapes, err)
		}
		t.Logf("%d scrapes meanwhile", scrapes)
	}
}

// eventuallyUp waits until a metric of a source has the value 0 or 1.
func (e *exporter) eventuallyUp(t *testing.T, up float64, metric string, labels map[string]string) {
	t.Helper()
	e.eventually(t, fmt.Sprintf("%s %v with the value %v", metric, labels, up), func(x exposition) error {
		got, err := x.value(metric, labels)
		if err == nil && got != up {
			err = fmt.Errorf("it is %v", got)
		}
		return err
	})
}

// eventuallyRefreshed waits until the exporter has queried the kubelet after the call.
func (e *exporter) eventuallyRefreshed(t *testing.T) {
	t.Helper()
	since := time.Now()
	e.eventually(t, "a refreshed pod mapping", func(x exposition) error {
		seconds, err := x.value("gpu_exporter_owner_source_last_success_timestamp_seconds", map[string]string{"source": "pod_resources"})
		// The metric has the time of the query.
		if query := time.UnixMilli(int64(seconds * 1e3)); err == nil && query.Before(since) {
			err = fmt.Errorf("the last successful query was at %v", query)
		}
		return err
	})
}
