// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// computedConfig is testConfig with the computed counters about XIDs, under the names
// and types of dcgm-exporter's files.
func computedConfig(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t)
	counters, err := field.ParseCounters(strings.NewReader(fixture.Counters+`
DCGM_EXP_XID_ERRORS_COUNT, counter, XIDs in the window.
DCGM_EXP_XID_ERRORS_TOTAL, gauge, XIDs.
`), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Counters, cfg.XIDWindow = counters.List, 5*time.Minute
	return cfg
}

// As with dcgm-exporter, the label fields and the counter's own labels are sorted
// together, before the labels of the pod.
func TestXIDErrorsCount(t *testing.T) {
	f, node, clock := newTestFamilies(t, computedConfig(t))
	f.owners = testOwners()
	add := func(row int, code int64, at time.Time) {
		t.Helper()
		deliver(t, node, wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: row, Time: at, Code: code}}}})
	}
	const family = "DCGM_EXP_XID_ERRORS_COUNT"
	const gpu0 = family + `{gpu="0",UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1",DCGM_FI_DRIVER_VERSION="570.133.20",`
	const pod = `container="main",namespace="ml",pod="train-0"}`
	got := func() string { return series(encode(t, f, expfmt.TypeTextPlain), family) }

	// XIDs from before the window was configured are not in it.
	if want := gpu0 + `window_size_in_ms="300000",` + pod + " 0\n"; !strings.Contains(got(), want) {
		t.Errorf("no XID yet: got\n%s\nwant %s", got(), want)
	}
	if n := strings.Count(got(), "\n"); n != 5 || strings.Contains(got(), "xid=") {
		t.Errorf("%d series, want one for each entity, without a code:\n%s", n, got())
	}
	add(0, 31, epoch)
	add(0, 31, epoch)
	add(0, 31, epoch.Add(-4*time.Minute))
	add(0, 999, epoch)
	for _, want := range []string{
		gpu0 + `window_size_in_ms="300000",xid="31",` + pod + " 3\n", gpu0 + `window_size_in_ms="300000",xid="999",` + pod + " 1\n",
	} {
		if !strings.Contains(got(), want) {
			t.Errorf("got\n%s\nwant %s", got(), want)
		}
	}
	if typ := "# TYPE " + family + " gauge\n"; !strings.Contains(string(encode(t, f, expfmt.TypeTextPlain)), typ) {
		t.Errorf("no %s", typ)
	}
	later := func(d time.Duration) {
		t.Helper()
		*clock = clock.Add(d)
		inv := testInventory(t)
		s := testSample(inv)
		s.Time = *clock
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	}
	later(2 * time.Minute)
	if want := `xid="31",` + pod + " 2\n"; !strings.Contains(got(), want) {
		t.Errorf("after one left the window: got\n%s\nwant %s", got(), want)
	}
	later(4 * time.Minute)
	if want := gpu0 + `window_size_in_ms="300000",` + pod + " 0\n"; !strings.Contains(got(), want) {
		t.Errorf("after all left the window: got\n%s\nwant %s", got(), want)
	}
	if total := series(encode(t, f, expfmt.TypeTextPlain), "DCGM_EXP_XID_ERRORS_TOTAL"); !strings.Contains(total, `gpu="0"`) || !strings.Contains(total, `xid="999",`+pod+" 1\n") {
		t.Errorf("the total does not cover all time:\n%s", total)
	}
}

// A counter that alerts need exists before its first event. Its type is counter,
// regardless of the type in the file.
func TestXIDErrorsTotal(t *testing.T) {
	f, _, _ := newTestFamilies(t, computedConfig(t))
	body := encode(t, f, expfmt.TypeTextPlain)
	got := series(body, "DCGM_EXP_XID_ERRORS_TOTAL")
	for _, want := range []string{
		`hostname="node1",DCGM_FI_DRIVER_VERSION="570.133.20",xid="79"} 0`,
		`GPU_I_PROFILE="1g.5gb",GPU_I_ID="11",hostname="node1",DCGM_FI_DRIVER_VERSION="570.133.20",xid="31"} 2`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %s", got, want)
		}
	}
	if !strings.Contains(string(body), "# TYPE DCGM_EXP_XID_ERRORS_TOTAL counter\n") {
		t.Error("its type is not counter")
	}
}

// A computed counter has no field to read.
func TestComputedCounterHasNoField(t *testing.T) {
	cfg := computedConfig(t)
	for _, c := range cfg.Counters {
		if c.Computed != 0 && (c.On(model.KindGPU) || c.On(model.KindGlobal)) {
			t.Errorf("%s is read", c.Name)
		}
	}
}
