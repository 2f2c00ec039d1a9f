// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"testing"
	"time"
)

// Every query of a mute GPU fails, but its handle opens. DCGM does not notice it, and
// keeps the last value of the fields that it reads in bulk.
func TestMuteGPU(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	p.watch("w", 100*time.Millisecond, []int{54, 150, 156, 393, 526}, [2]int{feGPU, 0}, [2]int{feGPU, 1})
	eventually(t, "the first values", func() bool { return p.latest(feGPU, 0, 156)[156].ts > 0 })
	if v := p.latest(feGPU, 0, 526)[526]; v.status != 0 || v.text != "0" {
		t.Errorf("vGPU licence: %+v", v)
	}
	n.must(t, "mute gpu 0")
	eventually(t, "the temperature is blank", func() bool { return p.latest(feGPU, 0, 150)[150].text == int64Blank })
	if got := p.ok("status 0").get(t, "status"); got != "1" {
		t.Errorf("status %s, want 1 (ok)", got)
	}
	before := p.latest(feGPU, 0, 54, 156, 393, 526)
	other := p.latest(feGPU, 1, 156)[156]
	eventually(t, "the other GPU has new values", func() bool { return p.latest(feGPU, 1, 156)[156].ts > other.ts })
	after := p.latest(feGPU, 0, 54, 156, 393, 526)
	for _, field := range []int{156, 393} {
		if after[field] != before[field] || after[field].status != 0 {
			t.Errorf("field %d: %+v, want the old value with its old time: %+v", field, after[field], before[field])
		}
	}
	for _, field := range []int{54, 526} {
		if v := after[field]; v.text != "<<<NULL>>>" || v.status != 0 {
			t.Errorf("field %d: %+v, want <<<NULL>>>", field, v)
		}
	}
	n.must(t, "return gpu 0")
	eventually(t, "the GPU answers again", func() bool { return p.latest(feGPU, 0, 156)[156].ts > before[156].ts })
}

// A bind or unbind event detaches all GPUs for a moment.
func TestUnbindDetachesAllGPUsForAMoment(t *testing.T) {
	n := newNode(t, "h100x8")
	p := embedded(t, n)
	n.must(t, "detach gpu 3")
	eventually(t, "all GPUs are detached", func() bool { return p.ok("status 0").get(t, "status") == "7" })
	eventually(t, "the others are attached", func() bool { return p.ok("status 0").get(t, "status") == "1" })
	if got := p.ok("status 3").get(t, "status"); got != "7" {
		t.Errorf("status %s, want 7 (detached)", got)
	}
}
