// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// epoch is the time of the fixtures.
var epoch = time.Unix(1_700_000_000, 250_000_000)

// countedIn plays steps, each a second after the previous one, and returns how often
// each code counts on one GPU. A step is one of
//
//	dcgm CODE [xN]     DCGM reports the XID N times
//	log CODE [xN]      the kernel log has N records of it
//	readable           the kernel log becomes the source, or lost records
//	unreadable         DCGM becomes the source
//	+DURATION          time passes
func countedIn(t *testing.T, a Arbiter, steps string) string {
	t.Helper()
	now := epoch
	counts := map[int64]int{}
	for step := range strings.SplitSeq(steps, ",") {
		words := strings.Fields(step)
		if wait, ok := strings.CutPrefix(words[0], "+"); ok {
			d, err := time.ParseDuration(wait)
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(d)
			continue
		}
		var code int64
		times := 1
		if len(words) > 1 {
			fmt.Sscan(words[1], &code)
		}
		if len(words) > 2 {
			fmt.Sscanf(words[2], "x%d", &times)
		}
		for i := range times {
			isNew := false
			switch words[0] {
			case "dcgm":
				isNew = a.Reported("GPU-a", code, now.Add(time.Duration(i)*time.Microsecond), now)
			case "log":
				isNew = a.Logged("GPU-a", code, now)
			case "readable", "unreadable":
				a.SetKernelLog(words[0] == "readable", now)
			default:
				t.Fatalf("unknown step %q", step)
			}
			if isNew {
				counts[code]++
			}
		}
		now = now.Add(time.Second)
	}
	var texts []string
	for _, code := range slices.Sorted(maps.Keys(counts)) {
		texts = append(texts, fmt.Sprintf("%d: %d", code, counts[code]))
	}
	return strings.Join(texts, ", ")
}

func TestArbiter(t *testing.T) {
	for _, tc := range []struct {
		name    string
		withLog bool // the kernel log is readable at the start
		steps   string
		want    string
	}{
		{"DCGM is the source", false, "dcgm 31, dcgm 31 x2, dcgm 48", "31: 3, 48: 1"},
		{"kernel log is the source", true, "log 31, dcgm 31, log 31 x2, dcgm 31 x2, log 48, dcgm 48", "31: 3, 48: 1"},
		{"kernel log is the source and DCGM is first", true, "dcgm 31, log 31", "31: 1"},
		{"kernel log is the source and DCGM misses some", true, "log 31 x3, dcgm 31", "31: 3"},
		{"kernel log is the source and DCGM is minutes late", true, "log 31 x3, +9m, dcgm 31 x3, log 31", "31: 4"},
		{"kernel log is the source and DCGM reports more", true, "log 31, dcgm 31 x5", "31: 1"},

		{"log becomes unreadable, DCGM late with known XIDs", true, "log 31 x3, unreadable, dcgm 31 x3", "31: 3"},
		{"log becomes unreadable, DCGM late with a new XID, too", true, "log 31 x3, unreadable, dcgm 31 x4", "31: 4"},
		{"log becomes unreadable, other code", true, "log 31, unreadable, dcgm 48", "31: 1, 48: 1"},
		{"log becomes unreadable, DCGM missed XIDs long before", true, "log 31 x3, +11m, unreadable, dcgm 31", "31: 4"},

		{"log becomes readable, DCGM late with older XIDs", false, "readable, dcgm 31 x2, log 31, dcgm 31", "31: 3"},
		{"log becomes readable after DCGM's reports", false, "dcgm 31 x5, readable, log 31, dcgm 31", "31: 6"},
		{"log becomes readable, DCGM first with a logged XID", false, "readable, dcgm 31, log 31", "31: 1"},
		{"log is readable for long", false, "readable, +11m, dcgm 31, log 31, dcgm 31", "31: 1"},
		{"log loses records that DCGM reports", true, "log 31, +1h, readable, dcgm 31 x2, log 31, dcgm 31", "31: 4"},
		{"log becomes readable, old XID late, new ones across the end of the lag", false, "readable, dcgm 31, +9m, log 31, dcgm 31, +9m, log 31, dcgm 31", "31: 3"},
		{"log becomes readable, old XID late, report of a new one after the lag", false, "readable, dcgm 31, +9m55s, log 31, +1m, dcgm 31", "31: 2"},
		{"DCGM is first, then log becomes unreadable", true, "dcgm 31, log 31, unreadable, dcgm 31", "31: 2"},
		{"DCGM reports more, then log becomes unreadable", true, "dcgm 31 x5, +1m, log 31, unreadable, dcgm 31 x2", "31: 2"},
		{"DCGM is first with an XID before a gap", true, "dcgm 31, readable, dcgm 31, log 31, log 31", "31: 2"},
		{"log changes twice", true, "log 31, unreadable, dcgm 31, dcgm 31, readable, log 31, dcgm 31", "31: 3"},

		{"engine reads the log, DCGM reports twice", false, "dcgm 79 x2", "79: 1"},
		{"engine reads the log, 100 XIDs", false, "dcgm 79 x200", "79: 100"},
		{"engine reads the log, separate XIDs", false, "dcgm 119, +6s, dcgm 119", "119: 2"},
		{"engine reads the log, other code", false, "dcgm 48 x2", "48: 2"},
		{"engine reads the log, log is the source", true, "log 79 x100, dcgm 79 x200", "79: 100"},
		{"engine reads the log, log becomes unreadable", true, "log 79 x2, unreadable, dcgm 79 x4, dcgm 79 x2", "79: 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := NewArbiter()
			a.EngineReadsKernelLog = true
			if tc.withLog {
				a.StartWithKernelLog()
			}
			if got := countedIn(t, a, tc.steps); got != tc.want {
				t.Errorf("%s:\ngot  %s\nwant %s", tc.steps, got, tc.want)
			}
		})
	}
}

// An engine that cannot read the kernel log reports each XID once.
func TestArbiterEngineWithoutKernelLog(t *testing.T) {
	if got := countedIn(t, NewArbiter(), "dcgm 79 x100"); got != "79: 100" {
		t.Errorf("got %s, want 79: 100", got)
	}
}

// Each XID that both sources report around a change of the source counts once, in any
// order of the reports.
func FuzzArbiterOrder(f *testing.F) {
	f.Add([]byte{0, 1, 1, 0, 0, 1}, false)
	f.Add([]byte{0, 0, 0, 1, 0, 1}, true)
	f.Fuzz(func(t *testing.T, steps []byte, becomesReadable bool) {
		a := NewArbiter()
		if !becomesReadable {
			a.StartWithKernelLog()
		}
		logged, reported, counted := 0, 0, 0
		count := func(isNew bool) {
			if isNew {
				counted++
			}
		}
		if becomesReadable {
			a.SetKernelLog(true, epoch)
		}
		for _, step := range steps {
			if step%2 == 0 && (becomesReadable || reported == 0) {
				logged++
				count(a.Logged("GPU-a", 31, epoch))
			} else {
				if reported == 0 && !becomesReadable {
					a.SetKernelLog(false, epoch)
				}
				reported++
				count(a.Reported("GPU-a", 31, epoch, epoch))
			}
		}
		if counted != max(logged, reported) {
			t.Fatalf("%d records and %d reports count as %d", logged, reported, counted)
		}
	})
}

// Each XID counts once, whenever the kernel log becomes readable, becomes unreadable or
// loses records, and however late DCGM reports the XID within reportLag.
func FuzzArbiterAroundChanges(f *testing.F) {
	const (
		pass = iota // time passes
		occur
		toggle // the kernel log becomes readable or unreadable
		lose   // an XID occurs, and the kernel log loses its record
	)
	step := func(what, amount byte) byte { return amount<<2 | what }
	f.Add(true, []byte{step(occur, 9), step(occur, 0), step(toggle, 0), step(occur, 3), step(pass, 63)})
	f.Add(false, []byte{step(occur, 63), step(toggle, 0), step(occur, 5), step(pass, 40), step(occur, 20), step(pass, 30), step(occur, 1)})
	f.Add(true, []byte{step(occur, 7), step(lose, 60), step(occur, 1), step(toggle, 0), step(occur, 1), step(toggle, 0), step(occur, 9)})
	f.Fuzz(func(t *testing.T, readable bool, steps []byte) {
		a := NewArbiter()
		if readable {
			a.StartWithKernelLog()
		}
		now, occurred, counted := epoch, 0, 0
		var due []time.Time // when DCGM reports each XID, in order
		count := func(isNew bool) {
			if isNew {
				counted++
			}
		}
		report := func(until time.Time) {
			for len(due) > 0 && !due[0].After(until) {
				count(a.Reported("GPU-a", 31, due[0], due[0]))
				due = due[1:]
			}
		}
		for _, s := range steps {
			amount := reportLag * time.Duration(s>>2) / 63
			switch s & 3 {
			case pass:
				now = now.Add(amount)
				report(now)
			case toggle:
				readable = !readable
				a.SetKernelLog(readable, now)
			default:
				at := now.Add(amount)
				if n := len(due); n > 0 && due[n-1].After(at) {
					at = due[n-1]
				}
				due = append(due, at)
				occurred++
				if readable && s&3 == lose {
					a.SetKernelLog(true, now)
				} else if readable {
					count(a.Logged("GPU-a", 31, now))
				}
			}
		}
		report(now.Add(reportLag))
		if counted != occurred {
			t.Fatalf("%d XIDs count as %d", occurred, counted)
		}
	})
}

// The window of recent XIDs uses the monotonic clock: XIDs leave it in time in spite of
// steps of the wall clock and of an engine whose clock is ahead.
func TestRecentXIDsWhenClocksDiffer(t *testing.T) {
	c := NewCounts()
	c.Window = 30 * time.Millisecond
	key := model.EntityKey{UUID: "GPU-a", Instance: model.Unknown}
	now := time.Now()
	c.Add(key, 79, now.Round(0).Add(time.Hour), now)
	c.Add(key, 79, now.Round(0).Add(-10*time.Millisecond), now)
	if n := c.Recent(now)[Key{key, 79}]; n != 2 {
		t.Errorf("%d XIDs at the start, want 2", n)
	}
	if n := c.Recent(now.Add(25 * time.Millisecond))[Key{key, 79}]; n != 1 {
		t.Errorf("%d XIDs after the older one left the window, want 1", n)
	}
	if n := c.Recent(now.Add(31 * time.Millisecond))[Key{key, 79}]; n != 0 {
		t.Errorf("%d XIDs after both left the window, want 0", n)
	}
}
