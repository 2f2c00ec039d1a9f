// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
)

var resplits = flag.Int("resplits", 10, "how often TestResplits splits a GPU anew, twice a second")

// topologyCounters has something of every kind of entity.
const topologyCounters = `
DCGM_FI_DEV_GPU_TEMP, gauge, Temperature.
DCGM_FI_DEV_FB_TOTAL, gauge, Memory.
DCGM_FI_PROF_GR_ENGINE_ACTIVE, gauge, Engine.
DCGM_FI_DEV_NVLINK_TX_THROUGHPUT_PER_LINK, gauge, Throughput.
DCGM_FI_DEV_NVSWITCH_POWER_VDD, gauge, Power of a switch.
`

func countersFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counters.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A GPU that is split anew twice a second never shows a series that is wrong: a
// scrape has the instances of one layout, that of now or of one interval ago,
// with the memory that each has; the other GPUs go on; nothing grows.
func TestResplits(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", "--collect-interval=100ms", "--collectors="+countersFile(t, topologyCounters))
	layouts := []string{"3g.40gb*2", "1g.10gb*7", "2g.20gb*3", "4g.40gb+2g.20gb", "none"}
	series := regexp.MustCompile(`^DCGM_FI_DEV_FB_TOTAL\{gpu="0".*GPU_I_PROFILE="([^"]*)",GPU_I_ID="(\d+)".*\} (\d+)`)
	// shape is the instances of GPU 0 with their memory, in a form to compare.
	shape := func(body string) string {
		var all []string
		for line := range strings.Lines(body) {
			if m := series.FindStringSubmatch(line); m != nil {
				all = append(all, m[1]+"/"+m[2]+"="+m[3])
			}
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	sampled := func(body string) float64 {
		at, _ := sumOf(body, "gpu_exporter_last_sample_timestamp_seconds")
		return at
	}
	profiles := func(layout string) (list []string) {
		for part := range strings.SplitSeq(layout, "+") {
			profile, times, _ := strings.Cut(part, "*")
			count, _ := strconv.Atoi(times)
			for range max(count, 1) {
				list = append(list, profile)
			}
		}
		if layout == "none" {
			return nil
		}
		slices.Sort(list)
		return list
	}
	is := func(shape, layout string) bool {
		var got []string
		for _, s := range strings.Fields(shape) {
			got = append(got, s[:strings.IndexByte(s, '/')])
		}
		slices.Sort(got)
		return slices.Equal(got, profiles(layout))
	}
	memory := map[string]string{} // of each profile, learnt at leisure
	learn := func(layout string) {
		n.command(t, "mig gpu 0 "+layout)
		n.eventually(t, "the layout "+layout, func() bool { return is(shape(n.scrape(t)), layout) })
		for _, s := range strings.Fields(shape(n.scrape(t))) {
			memory[s[:strings.IndexByte(s, '/')]] = s[strings.IndexByte(s, '=')+1:]
		}
	}
	for _, layout := range layouts {
		learn(layout)
	}
	n.command(t, "xid 94 gpu 3")
	size := func(body string) map[string]float64 {
		sizes := map[string]float64{}
		for _, family := range []string{"go_goroutines", "process_open_fds"} {
			sizes[family], _ = sumOf(body, family)
		}
		_, series := sumOf(body, "gpu_xid_errors_total")
		sizes["series"] = float64(series)
		return sizes
	}
	n.eventually(t, "the XID is counted", func() bool {
		total, _ := sumOf(n.scrape(t), "gpu_xid_errors_total", `gpu="3"`, `xid="94"`)
		return total == 1
	})
	before, sampler := size(n.scrape(t)), n.samplerPID()

	old := layouts[len(layouts)-1]
	scrapes, slowest := 0, time.Duration(0)
	for i := range *resplits {
		layout := layouts[i%len(layouts)]
		n.command(t, "mig gpu 0 "+layout)
		split := time.Now()
		// Scrape for 500 ms, and then until the new layout is seen.
		seen := time.Duration(0)
		for time.Since(split) < 500*time.Millisecond || seen == 0 && layout != "none" {
			if time.Since(split) > 2*time.Minute {
				t.Fatalf("split %d into %s is never seen", i, layout)
			}
			body := n.scrape(t)
			scrapes++
			got := shape(body)
			// A value that the engine read before the split may lag by an interval of ours and one of its own.
			late := strictDurations && sampled(body) > float64(split.UnixMilli())/1e3+0.3
			switch {
			case is(got, layout):
				if seen == 0 {
					seen = time.Since(split)
				}
			case got == "" || seen == 0 && !late && is(got, old): // no value yet, or the layout before
			default:
				t.Fatalf("split %d into %s, before %s: a scrape has %s", i, layout, old, got)
			}
			for _, s := range strings.Fields(got) {
				if want := memory[s[:strings.IndexByte(s, '/')]]; s[strings.IndexByte(s, '=')+1:] != want {
					t.Fatalf("split %d into %s: %s, want memory %s", i, layout, s, want)
				}
			}
			if _, others := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="6"`); others == 0 {
				t.Fatalf("split %d: GPU 6 has no value", i)
			}
			if total, _ := sumOf(body, "gpu_xid_errors_total", `gpu="3"`, `xid="94"`); total != 1 {
				t.Fatalf("split %d: GPU 3 counts %v XIDs", i, total)
			}
			time.Sleep(10 * time.Millisecond)
		}
		slowest = max(slowest, seen)
		old = layout
	}
	learn(layouts[len(layouts)-1])
	after := size(n.scrape(t))
	for name := range maps.Keys(before) {
		if after[name] > before[name]+3 {
			t.Errorf("%s grew from %v to %v", name, before[name], after[name])
		}
	}
	if now := n.samplerPID(); now != sampler {
		t.Errorf("the sampler was replaced: %d, %d", sampler, now)
	}
	t.Logf("%d repartitions, %d scrapes, the slowest seen after %v; before %v, after %v", *resplits, scrapes, slowest, before, after)
	if strictDurations && slowest > 500*time.Millisecond {
		t.Errorf("a repartition was seen after %v, want 500 ms", slowest)
	}
}

// What comes and goes on a node is right after one interval, and what stays goes
// on: no process is started anew for it.
func TestLiveTopology(t *testing.T) {
	t.Parallel()
	n := startNode(t, "dgx-h100", append(fast, "--collectors="+countersFile(t, topologyCounters))...)
	sampler := n.samplerPID()
	value := n.valueOf(t)
	value(216, 216, "gpu_nvlink_up")
	n.command(t, "xid 94 gpu 5")
	value(1, 1, "gpu_xid_errors_total", `gpu="5"`, `xid="94"`)

	n.command(t, "link gpu 3 port 17 down")
	value(0, 1, "gpu_nvlink_up", `nvlink="17",gpu="3"`)
	value(215, 216, "gpu_nvlink_up")
	n.command(t, "link gpu 3 port 17 up")
	value(216, 216, "gpu_nvlink_up")

	n.command(t, "lose gpu 2")
	value(0, 1, "gpu_up", `gpu="2"`)
	value(198, 198, "gpu_nvlink_up")
	n.command(t, "return gpu 2")
	value(1, 1, "gpu_up", `gpu="2"`)
	value(216, 216, "gpu_nvlink_up")

	// Whatever the counters name of switches.
	value(4, 4, "gpu_nvswitch_up")
	n.command(t, "switch 2 lost")
	value(0, 1, "gpu_nvswitch_up", `nvswitch="nvswitch2"`)
	value(3, 4, "gpu_nvswitch_up")
	value(4, 4, "gpu_nvswitch_info", "pci_bus_id=", "uuid=")
	n.command(t, "switch 2 back")
	value(4, 4, "gpu_nvswitch_up")
	value(216, 216, "gpu_nvlink_up")

	n.command(t, "detach gpu 5")
	value(0, 1, "gpu_up", `gpu="5"`)
	value(1, 1, "gpu_xid_errors_total", `gpu="5"`, `xid="94"`)
	n.command(t, "attach gpu 5")
	value(1, 1, "gpu_up", `gpu="5"`)
	n.command(t, "xid 94 gpu 5")
	value(2, 1, "gpu_xid_errors_total", `gpu="5"`, `xid="94"`)

	before, _ := sumOf(n.scrape(t), "gpu_busy_seconds_total", `gpu="1"`)
	n.command(t, "mig gpu 1 3g.40gb*2")
	n.eventually(t, "GPU 1 has two instances and no links", func() bool {
		body := n.scrape(t)
		_, instances := sumOf(body, "DCGM_FI_DEV_FB_TOTAL", `gpu="1"`, "GPU_I_ID=")
		_, links := sumOf(body, "gpu_nvlink_up", `gpu="1"`)
		return instances == 2 && links == 0
	})
	n.eventually(t, "the instances are busy in GPU 1's place, and it draws energy", func() bool {
		body := n.scrape(t)
		_, busy := sumOf(body, "gpu_busy_seconds_total", `gpu="1"`)
		_, source := sumOf(body, "gpu_busy_source_info", `gpu="1"`)
		_, instances := sumOf(body, "gpu_busy_seconds_total", `gpu="1"`, "GPU_I_ID=")
		_, energy := sumOf(body, "gpu_energy_joules_total", `gpu="1"`)
		return busy == 2 && instances == 2 && source == 2 && energy == 1
	})
	n.command(t, "mig gpu 1 off")
	value(216, 216, "gpu_nvlink_up")
	n.eventually(t, "GPU 1 goes on where it was", func() bool {
		after, series := sumOf(n.scrape(t), "gpu_busy_seconds_total", `gpu="1"`)
		return series == 1 && after >= before
	})
	value(2, 1, "gpu_xid_errors_total", `gpu="5"`, `xid="94"`)
	if now := n.samplerPID(); now != sampler {
		t.Errorf("the sampler was replaced: %d, %d", sampler, now)
	}
}

// Which links are up is withheld when it cannot be read any more, and told again when
// it can; all else goes on.
func TestLinkStatesAge(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"fail dcgmGetNvLinkLinkStatus -3", "hang dcgmGetNvLinkLinkStatus"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "dgx-h100", fast...)
			value := n.valueOf(t)
			value(216, 216, "gpu_nvlink_up")
			value(1, 1, "gpu_exporter_nvlink_read_up")
			n.command(t, fault)
			n.command(t, "link gpu 0 port 3 down")
			value(0, 0, "gpu_nvlink_up")
			body := n.scrape(t)
			if up, count := sumOf(body, "gpu_exporter_nvlink_read_up"); up != 0 || count != 1 {
				t.Errorf("gpu_exporter_nvlink_read_up is %v in %d series", up, count)
			}
			if _, count := sumOf(body, "gpu_exporter_nvlink_last_read_timestamp_seconds"); count != 1 {
				t.Error("it is not told when the links were last read")
			}
			if up, _ := sumOf(body, "gpu_up"); up != 8 {
				t.Errorf("%v GPUs are up", up)
			}
			if up, _ := sumOf(body, "gpu_nvswitch_up"); up != 4 {
				t.Errorf("%v switches are up", up)
			}
			// A sampler that starts now knows no more.
			kill(t, n)
			value(1, 1, "gpu_exporter_sampler_restarts_total", `"killed"`)
			value(1, 1, "gpu_exporter_sampler_up")
			body = n.scrape(t)
			if _, count := sumOf(body, "gpu_nvlink_up"); count != 0 {
				t.Errorf("a new sampler shows %d links", count)
			}
			if up, count := sumOf(body, "gpu_nvswitch_up"); strings.HasPrefix(fault, "fail") && up != 4 || int(up) != count {
				t.Errorf("a new sampler shows %v of %d switches up", up, count)
			}
			n.command(t, "clear dcgmGetNvLinkLinkStatus")
			value(215, 216, "gpu_nvlink_up")
			value(4, 4, "gpu_nvswitch_up")
			value(1, 1, "gpu_exporter_nvlink_read_up")
		})
	}
}

// Links that are down are not gone because another sampler looks at them, which finds
// that no link of their GPU or switch is up.
func TestDownLinksOutliveTheSampler(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	const config = "collect-interval: 200ms\nsample.max-age: 5s\nfields: [DCGM_FI_DEV_GPU_TEMP]\ninclude: []\n"
	writeFile(t, path, config)
	n := startNode(t, "dgx-h100", "--config.file="+path)
	value := n.valueOf(t)
	value(216, 216, "gpu_nvlink_up")
	for port := range 18 {
		n.command(t, fmt.Sprintf("link gpu 0 port %d down", port))
	}
	n.command(t, "mig gpu 2 3g.40gb*2")
	// Switch 1 has the ends of 4 links of each GPU, two of which have none now.
	n.command(t, "switch 1 lost")
	downs := func() {
		t.Helper()
		value(0, 18, "gpu_nvlink_up", `gpu="0"`)
		value(0, 0, "gpu_nvlink_up", `gpu="2"`)
		value(0, 16, "gpu_nvlink_up", `nvswitch="nvswitch1"`)
		value(14, 18, "gpu_nvlink_up", `gpu="7"`)
		value(140, 198, "gpu_nvlink_up")
	}
	downs()
	restarted := func(reason string) {
		t.Helper()
		n.eventually(t, "another sampler samples", func() bool {
			body := n.scrape(t)
			up, _ := sumOf(body, "gpu_exporter_sampler_up")
			restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total", reason)
			return up == 1 && restarts == 1
		})
	}
	pid := n.samplerPID()
	kill(t, n)
	restarted(`"killed"`)
	downs()
	writeFile(t, path, strings.ReplaceAll(config, "200ms", "300ms"))
	if status, answer := n.post(t, "/-/reload"); status != http.StatusOK {
		t.Fatalf("/-/reload: %d %s", status, answer)
	}
	restarted(`"reconfigured"`)
	downs()
	if now := n.samplerPID(); now == pid {
		t.Error("the sampler is still the first")
	}
	n.command(t, "clear")
	value(198, 198, "gpu_nvlink_up")
}

// MIG instances that cannot be listed are not shown as what they were, as others may
// have their ids by now, nor their GPUs in their place.
func TestInstancesUnknown(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8-mig", fast...)
	value := n.valueOf(t)
	instances := func(want int, labels ...string) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%d instances have a temperature", want), func() bool {
			_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", append(labels, "GPU_I_ID=")...)
			return count == want
		})
	}
	instances(17)
	value(1, 1, "gpu_exporter_mig_read_up")
	_, wholes := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
	wholes -= 17 // one of them in MIG mode, without instances
	n.command(t, "fail dcgmGetGpuInstanceHierarchy -3")
	n.command(t, "mig gpu 5 3g.40gb*2")
	withheld := func() {
		t.Helper()
		value(0, 1, "gpu_exporter_mig_read_up")
		instances(0)
		body := n.scrape(t)
		if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP"); count != wholes-1 {
			t.Errorf("%d temperatures, want those of the %d GPUs without MIG", count, wholes-1)
		}
		if _, count := sumOf(body, "gpu_busy_seconds_total", `gpu="5"`); count != 0 {
			t.Errorf("GPU 5 is busy in %d series", count)
		}
		if up, count := sumOf(body, "gpu_up"); up != 8 || count != 8 {
			t.Errorf("%v of %d GPUs are up", up, count)
		}
	}
	withheld()
	kill(t, n)
	value(1, 1, "gpu_exporter_sampler_restarts_total", `"killed"`)
	value(1, 1, "gpu_exporter_sampler_up")
	withheld()
	n.command(t, "clear")
	instances(2, `gpu="5"`, `GPU_I_PROFILE="3g.40gb"`)
	value(1, 1, "gpu_exporter_mig_read_up")
}

// valueOf waits until the series of a family with the labels are so many with such a sum.
func (n *node) valueOf(t *testing.T) func(want float64, count int, family string, labels ...string) {
	return func(want float64, count int, family string, labels ...string) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%s%v is %v in sum of %d", family, labels, want, count), func() bool {
			sum, series := sumOf(n.scrape(t), family, labels...)
			return sum == want && series == count
		})
	}
}

// A host engine that comes back with other GPUs: these are shown, those that are
// gone stay as down, and none takes over what another had counted.
func TestHostengineWithOtherGPUs(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "he.sock")
	n := launchNode(t, "h100x8", append(fast, "-r", socket)...)
	engineOf := func(scenario string) (*dcgmsim.Node, *dcgmsim.Engine) {
		other := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(t)), "sim"), t.TempDir(), scenario)
		engine, err := other.StartEngine(t.Context(), "--domain-socket", socket)
		if err != nil {
			t.Fatal(err)
		}
		return other, engine
	}
	first, engine := engineOf("h100x8")
	n.eventually(t, "eight GPUs are up", func() bool {
		_, body := n.tryGet(t, "/metrics")
		up, _ := sumOf(body, "gpu_up")
		return up == 8
	})
	if _, err := first.Command(t.Context(), "xid 94 gpu 0"); err != nil {
		t.Fatal(err)
	}
	n.eventually(t, "the XID is counted", func() bool {
		total, _ := sumOf(n.scrape(t), "gpu_xid_errors_total", `gpu="0"`, `xid="94"`)
		return total == 1
	})
	uuid := n.uuid(t, "0")
	if err := engine.Kill(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "others.txt")
	if err := os.WriteFile(path, []byte("seed 99\nbase mixed4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, engine = engineOf(path)
	defer engine.Close()
	n.eventually(t, "four other GPUs are up, and the eight are down", func() bool {
		body := n.scrape(t)
		up, all := sumOf(body, "gpu_up")
		return up == 4 && all == 12
	})
	body := n.scrape(t)
	if total, _ := sumOf(body, "gpu_xid_errors_total", uuid, `xid="94"`); total != 1 {
		t.Errorf("the GPU that is gone counts %v XIDs", total)
	}
	if total, _ := sumOf(body, "gpu_xid_errors_total", `xid="94"`); total != 1 {
		t.Errorf("all count %v XIDs", total)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", uuid); count != 0 {
		t.Errorf("the GPU that is gone has %d temperatures", count)
	}
}
