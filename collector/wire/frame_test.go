// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gpu_exporter/collector/model"
)

// frameTime has a nanosecond part and no monotonic reading, as what comes out
// of a frame.
var frameTime = time.Unix(1_790_000_000, 123_456_789)

// frameInventoryOf returns an inventory of GPUs with instances, links and CPUs.
func frameInventoryOf(gpus, instances int) *model.Inventory {
	inv := &model.Inventory{Generation: 3, Time: frameTime, DriverVersion: "580.82.07", DCGMVersion: "4.6.0", InstancesUnknown: instances == 0}
	inv.Columns[model.KindGPU] = []model.FieldID{100, 150, 1001}
	inv.Columns[model.KindGPUInstance] = []model.FieldID{1001}
	inv.Columns[model.KindCPU] = []model.FieldID{1100}
	inv.Derived = []model.FieldID{112, 172}
	for g := range gpus {
		inv.Entities = append(inv.Entities, model.Entity{
			Kind: model.KindGPU, State: model.EntityState(g % 3), ID: uint32(g), Parent: model.Unknown,
			UUID: fmt.Sprintf("GPU-%08d", g), PCIBusID: "00000000:17:00.0", Model: "NVIDIA H100 80GB HBM3",
			Brand: "NVIDIA", Serial: "165", VBIOS: "96.00", Index: g, Minor: 7 - g, MIGMode: instances > 0,
			InstanceID: model.Unknown, PlacementStart: model.Unknown, Port: model.Unknown,
		})
	}
	for g := range gpus {
		for i := range instances {
			inv.Entities = append(inv.Entities, model.Entity{
				Kind: model.KindGPUInstance, ID: uint32(g*7 + i), Parent: g, Index: model.Unknown, Minor: model.Unknown,
				InstanceID: i + 7, Profile: "1g.10gb", PlacementStart: i, Port: model.Unknown,
			})
		}
	}
	inv.Entities = append(inv.Entities,
		model.Entity{Kind: model.KindLink, ID: 0xffffffff, Parent: 0, Index: model.Unknown, Minor: model.Unknown, InstanceID: model.Unknown, Port: 17},
		model.Entity{Kind: model.KindCPU, ID: 0, Parent: model.Unknown, Model: "Grace", Index: model.Unknown, Minor: model.Unknown, InstanceID: model.Unknown, Port: model.Unknown})
	return inv
}

func frameSampleOf() *model.Sample {
	return &model.Sample{
		Generation: 3, Time: frameTime, Duration: 1234 * time.Microsecond, LinksRead: frameTime.Add(-time.Second), SwitchesListed: true,
		Strings: []string{"", "P0", "a\x00\xff\n"},
		Rows: [][]model.Cell{
			{model.Int64Cell(0), model.Int64Cell(math.MinInt64), model.Int64Cell(math.MaxInt64)},
			nil,
			{model.DoubleCell(math.Inf(-1)), model.DoubleCell(0.25), model.StringCell(2)},
			{model.NoValue(model.StatusNoData), model.NoValue(model.StatusNotSupported), model.NoValue(model.StatusError)},
		},
		Derived: [][]model.Cell{{model.Int64Cell(5), model.StringCell(1)}, nil, {model.NoValue(model.StatusEntityLost), model.NoValue(model.StatusEntityLost)}, nil},
	}
}

// writeFrame writes f with the call for what it is.
func writeFrame(w *FrameWriter, f Frame) error {
	switch {
	case f.Inventory != nil:
		return w.WriteInventory(f.Inventory)
	case f.Sample != nil:
		return w.WriteSample(f.Sample)
	case f.Tracks != nil:
		return w.WriteTracks(f.Tracks)
	case f.Processes != nil:
		return w.WriteProcesses(f.Processes)
	case f.Health != nil:
		return w.WriteHealth(f.Health)
	case f.Peers != nil:
		return w.WritePeers(f.Peers)
	case f.Profiling != nil:
		return w.WriteProfiling(f.Profiling)
	case f.Failure != nil:
		return w.WriteFailure(*f.Failure)
	default:
		return w.WriteEvents(f.Generation, f.Events)
	}
}

func frameBytes(t testing.TB, frames ...Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	for _, f := range frames {
		if err := writeFrame(w, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

var frameCases = map[string]Frame{
	"inventory":            {Inventory: frameInventoryOf(2, 0)},
	"inventory, instances": {Inventory: frameInventoryOf(8, 7)},
	"inventory, no GPU":    {Inventory: &model.Inventory{Generation: 1, Time: frameTime, Entities: []model.Entity{}}},
	"sample":               {Sample: frameSampleOf()},
	"sample, no GPU":       {Sample: &model.Sample{Generation: 1, Time: frameTime, Rows: [][]model.Cell{}}},
	"events": {Generation: 4, Events: []model.Event{
		{Kind: model.EventXID, Entity: 0, Time: frameTime, Code: 79},
		{Kind: model.EventXID, Entity: 11, Time: frameTime, Code: math.MinInt64},
	}},
	"processes": {Processes: &model.Processes{
		Generation: 3, Time: frameTime, Duration: 1234 * time.Microsecond,
		Devices: []model.DeviceProcesses{
			{Entity: 0, Processes: []model.Process{
				{PID: 1, Kind: model.ProcessMPS, MemoryBytes: math.MaxInt64, MemoryKnown: true, SM: 1, Encoder: 0.01, Decoder: 0.29},
				{PID: math.MaxUint32, Kind: model.ProcessComputeGraphics},
			}},
			{Entity: 1, Utilization: model.StatusNotSupported},
			{Entity: 8, Listed: model.StatusNotPermitted, Utilization: model.StatusNotPermitted},
		},
	}},
	"health": {Health: &model.Health{
		Generation: 3, Time: frameTime, Duration: 1234 * time.Microsecond,
		Checked: []model.CheckedEntity{{Entity: 0, Since: frameTime}, {Entity: 9, Since: frameTime}},
		Incidents: []model.HealthIncident{
			{Entity: model.Unknown, System: model.HealthDevice, Result: model.HealthFail, Code: math.MaxUint32},
			{Entity: 9, System: model.HealthPower, Result: model.HealthWarn, Code: 12},
		},
	}},
	"health, failed": {Health: &model.Health{Generation: 3, Time: frameTime, Failure: "checking: it is not loaded (-33)"}},
	"peers": {Peers: &model.Peers{Generation: 3, Time: frameTime, Pairs: []model.Peer{
		{Entity: 0, Peer: 1, P2P: 5, NVLinks: model.Unknown, Path: 6}, {Entity: 1, Peer: 0, P2P: model.Unknown, NVLinks: 18},
	}}},
	"processes, no GPU": {Processes: &model.Processes{Generation: 1, Time: frameTime, Devices: []model.DeviceProcesses{}}},
	"tracks": {Tracks: &model.Tracks{Generation: 3, List: []model.Track{
		{Entity: 0, Field: 1001, Points: []model.Point{{At: 1_700_000_000_000_000, Value: 0.5}, {At: 1_700_000_000_100_000, Value: 0}, {At: 5, Value: -1e300}}},
		{Entity: 11, Field: 203, Points: []model.Point{}},
	}}},
	"no events": {Generation: 4, Events: []model.Event{}},
	"profiling": {Profiling: &model.Profiling{Generation: 3, GPUs: []model.GPUProfiling{{Entity: 0, State: model.ProfilingError}, {Entity: 7, State: model.ProfilingFrozen, Rewatches: math.MaxUint32}}}},
	"failure":   {Failure: &model.Failure{Reason: model.FailureLibraryMissing, Message: "libdcgm.so.4: cannot open shared object file"}},
}

func TestFrameRoundTrip(t *testing.T) {
	var all []Frame
	for name, want := range frameCases {
		t.Run(name, func(t *testing.T) {
			got, err := NewFrameReader(bytes.NewReader(frameBytes(t, want))).Next()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
		all = append(all, want)
	}
	// One after the other, and in the smallest pieces that a pipe can deliver.
	t.Run("stream", func(t *testing.T) {
		r := NewFrameReader(iotest.OneByteReader(bytes.NewReader(frameBytes(t, all...))))
		for _, want := range all {
			if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v", got, err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v, want io.EOF", err)
		}
	})
}

// What is read must stay as it is when the reader's buffer is used again.
func TestFrameSharesNothingWithTheBuffer(t *testing.T) {
	first := frameCases["sample"]
	other := Frame{Sample: &model.Sample{Generation: 9, Time: frameTime, Strings: []string{"####", "######", "######"}, Rows: make([][]model.Cell, 40)}}
	r := NewFrameReader(bytes.NewReader(frameBytes(t, first, other)))
	got, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, first) {
		t.Errorf("the first sample became %+v", got.Sample)
	}
}

func TestFrameCutAnywhere(t *testing.T) {
	for name, f := range frameCases {
		t.Run(name, func(t *testing.T) {
			whole := frameBytes(t, f)
			for n := range whole {
				_, err := NewFrameReader(bytes.NewReader(whole[:n])).Next()
				switch {
				case n == 0 && !errors.Is(err, io.EOF):
					t.Errorf("nothing at all: %v, want io.EOF", err)
				case n > 0 && (!errors.Is(err, ErrBadFrame) || !errors.Is(err, io.ErrUnexpectedEOF)):
					t.Errorf("cut after %d bytes: %v, want ErrBadFrame and ErrUnexpectedEOF", n, err)
				}
			}
			// A payload that ends early although its header and checksum are right.
			payload := whole[frameHeaderSize:]
			for n := range payload {
				if _, err := decodeFrame(frameType(whole[5]), payload[:n]); !errors.Is(err, ErrBadFrame) {
					t.Errorf("payload of %d bytes instead of %d: %v, want ErrBadFrame", n, len(payload), err)
				}
			}
		})
	}
}

func TestFrameGarbled(t *testing.T) {
	le := binary.LittleEndian
	reseal := func(b []byte) {
		le.PutUint32(b[8:], uint32(len(b)-frameHeaderSize))
		le.PutUint32(b[12:], crc32.Checksum(b[frameHeaderSize:], crcTable))
	}
	cases := map[string]struct {
		garble func(b []byte) []byte
		says   string
	}{
		"text instead of a frame": {func([]byte) []byte { return []byte("Segmentation fault (core dumped)\n") }, "magic"},
		"wrong magic":             {func(b []byte) []byte { b[0]++; return b }, "magic"},
		"newer version":           {func(b []byte) []byte { b[4]++; return b }, "version 5, this binary speaks 4"},
		"unknown type":            {func(b []byte) []byte { b[5] = 99; return b }, "type 99"},
		"type of another payload": {func(b []byte) []byte { b[5] = byte(frameInventory); return b }, "does not parse"},
		"over-long":               {func(b []byte) []byte { le.PutUint32(b[8:], MaxFrameSize+1); return b }, "over the limit"},
		"longest length":          {func(b []byte) []byte { le.PutUint32(b[8:], math.MaxUint32); return b }, "over the limit"},
		"wrong checksum":          {func(b []byte) []byte { b[12]++; return b }, "checksum"},
		"flipped bit":             {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "checksum"},
		"bytes after the payload": {func(b []byte) []byte { b = append(b, 0); reseal(b); return b }, "does not parse"},
		"unknown status":          {func(b []byte) []byte { b[len(b)-1] = byte(model.StatusCount); reseal(b); return b }, "does not parse"},
		"number of strings over the payload": {func(b []byte) []byte {
			b = b[:frameHeaderSize+24]
			b = binary.AppendVarint(b, 1<<40)
			reseal(b)
			return b
		}, "does not parse"},
		"negative number of strings": {func(b []byte) []byte {
			b = b[:frameHeaderSize+24]
			b = binary.AppendVarint(b, -1)
			reseal(b)
			return b
		}, "does not parse"},
		"varint without end": {func(b []byte) []byte {
			b = append(b[:frameHeaderSize+24], bytes.Repeat([]byte{0xff}, 20)...)
			reseal(b)
			return b
		}, "does not parse"},
	}
	// The last bytes of a frame are those of the last process, and its device's
	// statuses are before it.
	processes := map[string]func(b []byte) []byte{
		"ratio over 1":   func(b []byte) []byte { b = append(b[:len(b)-8], 0, 0, 0, 0, 0, 0, 0, 0x40); reseal(b); return b },
		"negative ratio": func(b []byte) []byte { b[len(b)-1] |= 0x80; reseal(b); return b },
		"ratio NaN": func(b []byte) []byte {
			b = le.AppendUint64(b[:len(b)-8], math.Float64bits(math.NaN()))
			reseal(b)
			return b
		},
		"unknown kind":     func(b []byte) []byte { b[len(b)-processSize+4] = byte(model.ProcessKindCount); reseal(b); return b },
		"unknown list":     func(b []byte) []byte { b[len(b)-processSize-3] = byte(model.StatusCount); reseal(b); return b },
		"unknown use":      func(b []byte) []byte { b[len(b)-processSize-2] = byte(model.StatusCount); reseal(b); return b },
		"too many devices": func(b []byte) []byte { b = binary.AppendVarint(b[:frameHeaderSize+24], 1<<40); reseal(b); return b },
		"process missing":  func(b []byte) []byte { b = b[:len(b)-1]; reseal(b); return b },
	}
	process := Frame{Processes: &model.Processes{Devices: []model.DeviceProcesses{{Processes: []model.Process{{PID: 1, SM: 1, Encoder: 1, Decoder: 0.5}}}}}}
	check := func(name string, frame Frame, garble func(b []byte) []byte, says string) {
		t.Run(name, func(t *testing.T) {
			b := garble(frameBytes(t, frame))
			// Behind it, so that being cut is not what is noticed.
			b = append(b, bytes.Repeat([]byte{0x55}, frameHeaderSize)...)
			_, err := NewFrameReader(bytes.NewReader(b)).Next()
			if !errors.Is(err, ErrBadFrame) || !strings.Contains(fmt.Sprint(err), says) {
				t.Errorf("got %v, want ErrBadFrame that says %q", err, says)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v passes for a stream that was cut", err)
			}
		})
	}
	for name, c := range cases {
		check(name, frameCases["sample"], c.garble, c.says)
	}
	for name, garble := range processes {
		check("processes, "+name, process, garble, "does not parse")
	}
}

// An error of the pipe itself says nothing about the frames.
func TestFrameReadErrorPassesThrough(t *testing.T) {
	broken := errors.New("pipe is broken")
	whole := frameBytes(t, frameCases["sample"])
	for _, n := range []int{0, 5, frameHeaderSize, frameHeaderSize + 1} {
		_, err := NewFrameReader(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken))).Next()
		if !errors.Is(err, broken) || errors.Is(err, ErrBadFrame) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestFrameWriterRefusesOverlongFrame(t *testing.T) {
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	long := &model.Sample{Time: frameTime, Strings: []string{strings.Repeat("x", MaxFrameSize)}}
	if err := w.WriteSample(long); err == nil || b.Len() != 0 {
		t.Errorf("error %v, %d bytes written; want an error and none", err, b.Len())
	}
	if err := w.WriteSample(frameSampleOf()); err != nil {
		t.Errorf("the writer is of no use afterwards: %v", err)
	}
}

func TestFrameWriterWritesAtOnce(t *testing.T) {
	var writes writeCounter
	w := NewFrameWriter(&writes)
	for _, f := range frameCases {
		if err := writeFrame(w, f); err != nil {
			t.Fatal(err)
		}
	}
	if int(writes) != len(frameCases) {
		t.Errorf("%d writes for %d frames", writes, len(frameCases))
	}
	if err := NewFrameWriter(brokenWriter{}).WriteSample(frameSampleOf()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to nobody: %v, want io.ErrClosedPipe", err)
	}
}

type writeCounter int

func (w *writeCounter) Write(b []byte) (int, error) { *w++; return len(b), nil }

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// largeSample is that of 16 GPUs × 7 instances with 60 fields, of which every
// tenth is a string.
func largeSample() *model.Sample {
	s := &model.Sample{Generation: 1, Time: frameTime, Duration: time.Millisecond}
	for i := range 112 {
		row := make([]model.Cell, 60)
		for j := range row {
			switch {
			case j%10 == 0:
				row[j] = model.StringCell(len(s.Strings))
				s.Strings = append(s.Strings, fmt.Sprintf("GPU-%032x-%02d", i, j))
			case j%2 == 0:
				row[j] = model.DoubleCell(float64(i*j) / 7)
			default:
				row[j] = model.Int64Cell(math.MaxInt64 - int64(i*j))
			}
		}
		s.Rows = append(s.Rows, row)
	}
	return s
}

func TestLargeSampleFits(t *testing.T) {
	n := len(frameBytes(t, Frame{Sample: largeSample()})) - frameHeaderSize
	t.Logf("112 instances × 60 fields take %d bytes, the limit is %d", n, MaxFrameSize)
	if n > MaxFrameSize/16 {
		t.Errorf("112 instances × 60 fields take %d bytes: that leaves less than 16 times of room", n)
	}
}

// Reading is part of the garbage that one sample costs the exporter; 256 KiB is
// the bound on all of it. Writing reuses its buffer.
func TestFrameGarbagePerSample(t *testing.T) {
	sample := largeSample()
	whole := frameBytes(t, Frame{Sample: sample})
	const rounds = 50
	r := NewFrameReader(&endless{data: whole})
	if _, err := r.Next(); err != nil { // the buffer grows
		t.Fatal(err)
	}
	read := allocated(func() {
		for range rounds {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}) / rounds
	// What the sample itself takes: cells of 16 bytes, slices, and strings.
	need := uint64(112*60*16 + 112*(24+64) + 672*(16+48))
	if t.Logf("reading: %d bytes a sample, which takes %d itself", read, need); read > need*11/10 {
		t.Errorf("reading allocates %d bytes a sample, more than the %d of the sample", read, need)
	}

	w := NewFrameWriter(io.Discard)
	if err := w.WriteSample(sample); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(rounds, func() { _ = w.WriteSample(sample) }); n != 0 {
		t.Errorf("writing a sample allocates %v times", n)
	}
}

// endless reads the same data again and again.
type endless struct {
	data []byte
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.data[e.at:])
	e.at = (e.at + n) % len(e.data)
	return n, nil
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzFrameReader reads the input as a stream and, so that the checksum does
// not keep the fuzzer out, as the payload of a frame of the given type.
func FuzzFrameReader(f *testing.F) {
	for _, frame := range frameCases {
		b := frameBytes(f, frame)
		f.Add(b[5], b[frameHeaderSize:])
		f.Add(byte(0), b)
	}
	f.Add(byte(0), []byte("no frame at all, and long enough for a header\n"))
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		var frames []Frame
		read := func(stream []byte) {
			r := NewFrameReader(bytes.NewReader(stream))
			for {
				frame, err := r.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, ErrBadFrame) {
						t.Fatalf("a stream from memory gives %v", err)
					}
					return
				}
				frames = append(frames, frame)
			}
		}
		head := make([]byte, frameHeaderSize, frameHeaderSize+len(data))
		le := binary.LittleEndian
		le.PutUint32(head[0:], frameMagic)
		head[4], head[5] = frameVersion, kind
		le.PutUint32(head[8:], uint32(len(data)))
		le.PutUint32(head[12:], crc32.Checksum(data, crcTable))
		sealed := append(head, data...)

		// The most costly items are rows: 1 byte each in the payload, 24 in
		// memory. Two buffers come on top, and the length in a header is believed
		// up to the limit.
		limit := uint64(256<<10 + MaxFrameSize + 64*len(data))
		if n := allocated(func() { read(data); read(sealed) }); n > limit {
			t.Errorf("reading %d bytes allocates %d, more than %d", len(data), n, limit)
		}

		for _, frame := range frames {
			again := frameBytes(t, frame)
			got, err := NewFrameReader(bytes.NewReader(again)).Next()
			if err != nil {
				t.Fatalf("what was read cannot be written and read again: %v\n%+v", err, frame)
			}
			if !reflect.DeepEqual(got, frame) {
				t.Errorf("read     %+v\nand then %+v", frame, got)
			}
		}
	})
}

// A garbled state would be an index further on.
func TestProfilingFrameGarbled(t *testing.T) {
	b := frameBytes(t, Frame{Profiling: &model.Profiling{GPUs: []model.GPUProfiling{{State: model.ProfilingState(model.ProfilingStateCount)}}}})
	if _, err := NewFrameReader(bytes.NewReader(b)).Next(); !errors.Is(err, ErrBadFrame) {
		t.Errorf("got %v, want ErrBadFrame", err)
	}
}
