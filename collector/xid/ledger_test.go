// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// epoch is when every fixture is read.
var epoch = time.Unix(1_700_000_000, 250_000_000)

// ledgerStory plays steps, each a second after the one before unless it says
// otherwise, on one GPU. A step is a source (dcgm or kernel), what it was on (gpu,
// or the number of an instance), a code, and "xN" for N times; or "+DURATION".
// On a GPU that is split the kernel log's source is "kernel/split".
func ledgerStory(t *testing.T, steps string) string {
	t.Helper()
	l, now := NewLedger(), epoch
	l.Twins = true
	for step := range strings.SplitSeq(steps, ",") {
		step = strings.TrimSpace(step)
		if wait, ok := strings.CutPrefix(step, "+"); ok {
			d, err := time.ParseDuration(wait)
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(d)
			continue
		}
		var source, on string
		var code int64
		times := 1
		if n, err := fmt.Sscanf(step, "%s %s %d x%d", &source, &on, &code, &times); n < 3 {
			t.Fatalf("%q: %v", step, err)
		}
		key := model.EntityKey{UUID: "GPU-a", Instance: model.Unknown}
		if on != "gpu" {
			key.Profile = "1g"
			fmt.Sscan(on, &key.Instance)
		}
		for i := range times {
			at := now.Add(time.Duration(i) * time.Microsecond)
			switch source {
			case "dcgm":
				l.AddSample(key, code, at, now)
			case "kernel":
				l.AddRecord(Record{Key: key, Code: code, At: at, Number: model.Unknown}, now)
			case "kernel/split":
				l.AddRecord(Record{Key: key, Code: code, At: at, Partitioned: true, Number: model.Unknown}, now)
			default:
				t.Fatalf("source %q", source)
			}
		}
		now = now.Add(time.Second)
	}
	l.Settle(now)
	var counts []string
	for k, c := range l.Counts.total {
		on := "gpu"
		if k.Instance != model.Unknown {
			on = fmt.Sprint(k.Instance)
		}
		counts = append(counts, fmt.Sprintf("%s %d: %d", on, k.Code, c.Total))
	}
	slices.Sort(counts)
	return strings.Join(counts, ", ")
}

func TestXIDLedger(t *testing.T) {
	for _, tc := range []struct{ name, steps, want string }{
		{"DCGM alone", "dcgm gpu 31, dcgm gpu 31 x2, dcgm gpu 48", "gpu 31: 3, gpu 48: 1"},
		{"kernel log alone", "kernel gpu 31, kernel gpu 31 x2, kernel gpu 48", "gpu 31: 3, gpu 48: 1"},
		{"both", "kernel gpu 31, dcgm gpu 31", "gpu 31: 1"},
		{"DCGM first", "dcgm gpu 31, kernel gpu 31", "gpu 31: 1"},
		{"a burst", "kernel gpu 31 x100, dcgm gpu 31 x100", "gpu 31: 100"},
		{"a burst, DCGM first", "dcgm gpu 31 x100, kernel gpu 31 x100", "gpu 31: 100"},
		{"in turns", "kernel gpu 31 x3, dcgm gpu 31 x2, kernel gpu 31 x2, dcgm gpu 31 x3", "gpu 31: 5"},
		{"DCGM lags by minutes", "kernel gpu 31 x3, +4m, dcgm gpu 31, kernel gpu 31, +4m, dcgm gpu 31, +4m, dcgm gpu 31 x2", "gpu 31: 4"},
		{"DCGM misses some", "kernel gpu 31 x3, dcgm gpu 31, kernel gpu 31, dcgm gpu 31", "gpu 31: 4"},
		{"the kernel log misses one", "dcgm gpu 31, +1m, kernel gpu 31, dcgm gpu 31", "gpu 31: 2"},
		{"what DCGM missed hours ago hides nothing", "kernel gpu 31, +2h, dcgm gpu 31", "gpu 31: 2"},

		{"twice by DCGM", "dcgm gpu 79 x2", "gpu 79: 1"},
		{"twice by DCGM, 100 times", "dcgm gpu 79 x200", "gpu 79: 100"},
		{"twice by DCGM, one after the other", "dcgm gpu 119, +6s, dcgm gpu 119", "gpu 119: 2"},
		{"twice by DCGM, and logged", "kernel gpu 79 x100, dcgm gpu 79 x200", "gpu 79: 100"},
		{"logged between the two", "dcgm gpu 79, kernel gpu 79, dcgm gpu 79", "gpu 79: 1"},
		{"logged after the two", "dcgm gpu 79 x2, kernel gpu 79", "gpu 79: 1"},
		{"the second lags", "kernel gpu 119, dcgm gpu 119, +5m, dcgm gpu 119", "gpu 119: 1"},
		{"once each by DCGM, and logged", "kernel gpu 79 x100, dcgm gpu 79 x100, kernel gpu 79, dcgm gpu 79", "gpu 79: 101"},
		{"twice, on GPU and instance", "kernel/split gpu 79, dcgm gpu 79, dcgm 3 79", "gpu 79: 1"},
		{"another code is never twice", "dcgm gpu 48 x2", "gpu 48: 2"},

		{"DCGM says which instance", "kernel/split gpu 13, dcgm 3 13", "3 13: 1"},
		{"DCGM says which of two", "kernel/split gpu 13 x2, dcgm 3 13, dcgm 4 13", "3 13: 1, 4 13: 1"},
		{"DCGM says that it was the GPU", "kernel/split gpu 13, dcgm gpu 13", "gpu 13: 1"},
		{"not counted while DCGM may say", "kernel/split gpu 13", ""},
		{"DCGM says nothing in time", "kernel/split gpu 13, +10s", "gpu 13: 1"},
		{"DCGM says too late", "kernel/split gpu 13, +5m, dcgm 3 13", "gpu 13: 1"},
		{"DCGM says the newer one in time", "kernel/split gpu 13, +5m, kernel/split gpu 13, dcgm 3 13", "3 13: 1, gpu 13: 1"},
		{"the GPU's own do not wait", "kernel/split gpu 79", "gpu 79: 1"},
		{"the driver says which instance", "kernel/split 3 94, dcgm 3 94", "3 94: 1"},
		{"the driver says, DCGM does not", "kernel/split 3 94, dcgm gpu 94", "3 94: 1"},
		{"two instances", "kernel/split 3 94, kernel/split 4 94, dcgm 4 94, dcgm 3 94", "3 94: 1, 4 94: 1"},
		{"two instances, one source each", "kernel/split 3 94, dcgm 4 94", "3 94: 1, 4 94: 1"},
		{"DCGM first, with the instance", "dcgm 3 94, kernel/split gpu 94", "3 94: 1"},
		{"DCGM first, the driver knows better", "dcgm gpu 94, kernel/split 3 94", "gpu 94: 1"},
		{"DCGM first, of two instances", "dcgm 4 94, dcgm 3 94, kernel/split 3 94, kernel/split 4 94", "3 94: 1, 4 94: 1"},
		{"more than are kept open", "kernel/split gpu 13 x5000, +10s", "gpu 13: 5000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ledgerStory(t, tc.steps); got != tc.want {
				t.Errorf("%s:\ngot  %s\nwant %s", tc.steps, got, tc.want)
			}
		})
	}
}

// An engine that cannot read the kernel log tells of each XID once.
func TestXIDLedgerWithoutTwins(t *testing.T) {
	l := NewLedger()
	gpu := model.EntityKey{UUID: "GPU-a", Instance: model.Unknown}
	for range 100 {
		l.AddSample(gpu, 79, epoch, epoch)
	}
	if n := l.Counts.total[Key{gpu, 79}].Total; n != 100 {
		t.Errorf("%d XIDs, want 100", n)
	}
}

// Nothing is kept for good: neither what both sources told nor what only one did.
func TestXIDLedgerForgets(t *testing.T) {
	l := NewLedger()
	gpu := model.EntityKey{UUID: "GPU-a", Instance: model.Unknown}
	for code := range int64(100) {
		l.AddRecord(Record{Key: gpu, Code: code, At: epoch, Number: model.Unknown}, epoch)
		l.AddSample(gpu, code+50, epoch, epoch)
	}
	l.Settle(epoch.Add(sampleLag + time.Second))
	if len(l.open) != 0 {
		t.Errorf("%d GPUs and codes are kept", len(l.open))
	}
}

// FuzzXIDLedger: whatever comes in whatever order, with a code of which DCGM
// makes one sample, the total is the larger of what the two sources tell and
// never goes back.
func FuzzXIDLedger(f *testing.F) {
	f.Add([]byte{0, 1, 1, 0, 0, 1})
	f.Add([]byte{2, 2, 3, 1, 5, 4, 1})
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) > 2000 {
			return
		}
		l := NewLedger()
		gpu := model.EntityKey{UUID: "GPU-a", Instance: model.Unknown}
		var samples, records, before uint64
		total := func(now time.Time) (n uint64) {
			l.Settle(now)
			for _, c := range l.Counts.total {
				n += c.Total
			}
			return n
		}
		for _, step := range steps { // all within the time in which both sources tell
			switch step % 3 {
			case 0:
				samples++
				l.AddSample(gpu, 31, epoch, epoch)
			case 1:
				records++
				l.AddRecord(Record{Key: gpu, Code: 31, At: epoch, Number: model.Unknown}, epoch)
			case 2:
				records++
				l.AddRecord(Record{Key: gpu, Code: 31, At: epoch, Partitioned: true, Number: model.Unknown}, epoch)
			}
			if n := total(epoch); n < before {
				t.Fatalf("the total went back from %d to %d", before, n)
			} else {
				before = n
			}
		}
		if n := total(epoch.Add(instanceGrace)); n != max(samples, records) {
			t.Fatalf("%d samples and %d records make %d", samples, records, n)
		}
	})
}

// The window of recent XIDs goes by the monotonic clock: one that happened by a wall
// clock that was set back since leaves it, too, and so does one of an engine whose
// clock is ahead.
func TestRecentXIDsWhenClocksDiffer(t *testing.T) {
	c := newCounts()
	c.Window = 30 * time.Millisecond
	key := model.EntityKey{UUID: "GPU-a", Instance: model.Unknown}
	now := time.Now()
	c.add(key, 79, now.Round(0).Add(time.Hour), now)
	c.add(key, 79, now.Round(0).Add(-10*time.Millisecond), now)
	if n := c.Recent(now)[Key{key, 79}]; n != 2 {
		t.Errorf("%d at once, want 2", n)
	}
	if n := c.Recent(now.Add(25 * time.Millisecond))[Key{key, 79}]; n != 1 {
		t.Errorf("%d when the older one has left the window, want 1", n)
	}
	if n := c.Recent(now.Add(31 * time.Millisecond))[Key{key, 79}]; n != 0 {
		t.Errorf("%d when both have left it, want none", n)
	}
}
