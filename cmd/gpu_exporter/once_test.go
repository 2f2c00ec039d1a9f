// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// once runs the subcommand once.
func once(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), built(t), append([]string{"once"}, args...)...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	return out.String(), log.String(), err
}

// parsed returns the families of a page by name.
func parsed(t *testing.T, body string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// TestTextfileCollector: node_exporter can serve the output of once alongside its own
// families and a second textfile. Its rules: no timestamps, no series of another source,
// and one help text and type per family.
func TestTextfileCollector(t *testing.T) {
	t.Parallel()
	out, log, err := once(t, "--simulate=h100x8-mig")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	const second = `# HELP smartmon_device_active Whether the disk is active.
# TYPE smartmon_device_active gauge
smartmon_device_active{disk="/dev/sda"} 1
# HELP promhttp_metric_handler_requests_total Total number of scrapes by HTTP status code.
# TYPE promhttp_metric_handler_requests_total counter
promhttp_metric_handler_requests_total{code="200"} 7
`
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("node_exporter"))
	file := func(body string) prometheus.Gatherer {
		families := slices.Collect(maps.Values(parsed(t, body)))
		return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
	}
	if _, err := (prometheus.Gatherers{own, file(second), file(out)}).Gather(); err != nil {
		t.Error(err)
	}
	others, err := prometheus.Gatherers{own, file(second)}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := parsed(t, out)
	for _, other := range others {
		if families[other.GetName()] != nil {
			t.Errorf("%s is a family of two sources", other.GetName())
		}
	}
	devices := 0
	for name, family := range families {
		if !strings.HasPrefix(name, "DCGM_") && !strings.HasPrefix(name, "gpu_") || strings.HasPrefix(name, "gpu_exporter_") {
			t.Errorf("%s is not a family of the devices", name)
		}
		if family.Help == nil {
			t.Errorf("%s has no help text", name)
		}
		for _, m := range family.Metric {
			devices++
			if m.TimestampMs != nil {
				t.Errorf("%s has a timestamp", name)
			}
		}
	}
	if devices < 100 {
		t.Errorf("%d series", devices)
	}
}

// TestOnce: the subcommand once prints one sample, or one line with the error.
func TestOnce(t *testing.T) {
	t.Parallel()
	t.Run("prints one sample", func(t *testing.T) {
		t.Parallel()
		out, log, err := once(t, "--simulate=h100x8")
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if _, count := sumOf(out, "DCGM_FI_PROF_GR_ENGINE_ACTIVE"); count != 8 {
			t.Errorf("%d GPUs with a profiling value, want 8", count)
		}
	})
	t.Run("prints all families on request", func(t *testing.T) {
		t.Parallel()
		out, log, err := once(t, "--all", "--simulate=h100x8")
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		for family, want := range map[string]int{"gpu_up": 8, "gpu_exporter_sampler_up": 1} {
			if sum, count := sumOf(out, family); sum != float64(want) || count != want {
				t.Errorf("%s: sum %v of %d series, want %d", family, sum, count, want)
			}
		}
		if !strings.Contains(out, "\ngo_goroutines ") || !strings.Contains(out, "\nprocess_open_fds ") {
			t.Error("the families of the process are missing")
		}
	})
	t.Run("fails in one line without a library", func(t *testing.T) {
		t.Parallel()
		out, log, err := once(t)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || out != "" {
			t.Errorf("got %v and %q", err, out)
		}
		if !strings.Contains(log, "libdcgm.so.4") {
			t.Errorf("the reason is missing:\n%s", log)
		}
	})
}
