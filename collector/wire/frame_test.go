// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gpu_exporter/collector/model"
)

// frameTime has a nanosecond part and no monotonic reading, like a decoded time.
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

func frameBytes(t testing.TB, frames ...Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	for _, f := range frames {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

var frameCases = map[string]Frame{
	"inventory":            {Inventory: frameInventoryOf(2, 0)},
	"inventory, instances": {Inventory: frameInventoryOf(8, 7)},
	"inventory, no GPU":    {Inventory: &model.Inventory{Generation: 1, Time: frameTime}},
	"sample":               {Sample: frameSampleOf()},
	"sample, no GPU":       {Sample: &model.Sample{Generation: 1, Time: frameTime}},
	"events": {Events: &model.Events{Generation: 4, List: []model.Event{
		{Kind: model.EventXID, Entity: 0, Time: frameTime, Code: 79},
		{Kind: model.EventXID, Entity: 11, Time: frameTime, Code: math.MinInt64},
	}}},
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
	"health, failed": {Health: &model.Health{Generation: 3, Time: frameTime, Failure: "checking: module not loaded (-33)"}},
	"peers": {Peers: &model.Peers{Generation: 3, Time: frameTime, Pairs: []model.Peer{
		{Entity: 0, Peer: 1, P2P: 5, NVLinks: model.Unknown, Path: 6}, {Entity: 1, Peer: 0, P2P: model.Unknown, NVLinks: 18},
	}}},
	"processes, no GPU": {Processes: &model.Processes{Generation: 1, Time: frameTime}},
	"tracks": {Tracks: &model.Tracks{Generation: 3, List: []model.Track{
		{Entity: 0, Field: 1001, Points: []model.Point{{At: 1_700_000_000_000_000, Value: 0.5}, {At: 1_700_000_000_100_000, Value: 0}, {At: 5, Value: -1e300}}},
		{Entity: 11, Field: 203},
	}}},
	"no events": {Events: &model.Events{Generation: 4}},
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
	// The whole stream, in the smallest pieces that a pipe can deliver.
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

// A frame must not change when the reader reuses its buffer.
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

func TestFrameTruncatedAnywhere(t *testing.T) {
	for name, f := range frameCases {
		t.Run(name, func(t *testing.T) {
			whole := frameBytes(t, f)
			for n := range whole {
				_, err := NewFrameReader(bytes.NewReader(whole[:n])).Next()
				switch {
				case n == 0 && !errors.Is(err, io.EOF):
					t.Errorf("empty stream: %v, want io.EOF", err)
				case n > 0 && (!errors.Is(err, ErrBadFrame) || !errors.Is(err, io.ErrUnexpectedEOF)):
					t.Errorf("truncated after %d bytes: %v, want ErrBadFrame and ErrUnexpectedEOF", n, err)
				}
			}
		})
	}
}

// setLength makes the length of the only frame in b match its size.
func setLength(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthSize))
	return b
}

// encoded returns a frame that holds the gob stream of the values.
func encoded(t *testing.T, values ...any) []byte {
	t.Helper()
	b := bytes.NewBuffer(make([]byte, lengthSize))
	encoder := gob.NewEncoder(b)
	for _, v := range values {
		switch frame := v.(type) {
		case Frame:
			v = envelope{Frame: frame}
		case *Frame:
			v = envelope{Frame: *frame}
		}
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	return setLength(b.Bytes())
}

func TestFrameGarbled(t *testing.T) {
	whole := frameBytes(t, frameCases["sample"])
	cases := map[string]struct {
		stream []byte
		want   string
	}{
		"text instead of a frame": {[]byte("Segmentation fault (core dumped)\n"), "exceeds the limit"},
		"length over the limit":   {binary.BigEndian.AppendUint32(nil, MaxFrameSize+1), "exceeds the limit"},
		"largest length":          {binary.BigEndian.AppendUint32(nil, math.MaxUint32), "exceeds the limit"},
		"empty payload":           {make([]byte, lengthSize), "decoding"},
		"payload cut short":       {setLength(bytes.Clone(whole[:len(whole)-1])), "decoding"},
		"bytes after the message": {setLength(append(bytes.Clone(whole), 0)), "follow the message"},
		"two messages":            {encoded(t, Frame{Events: &model.Events{}}, Frame{Events: &model.Events{}}), "follow the message"},
		"another type":            {encoded(t, struct{ Sample string }{"x"}), "decoding"},
		"no member":               {encoded(t, Frame{}), "0 members"},
		"two members":             {encoded(t, Frame{Events: &model.Events{}, Failure: &model.Failure{}}), "2 members"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			// Bytes follow, so that the reader does not take it for a truncated stream.
			stream := append(c.stream, bytes.Repeat([]byte{0x55}, 64)...)
			_, err := NewFrameReader(bytes.NewReader(stream)).Next()
			if !errors.Is(err, ErrBadFrame) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want ErrBadFrame with %q", err, c.want)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v is reported as a truncated stream", err)
			}
		})
	}
}

// An error of the pipe is returned as it is.
func TestFrameReadErrorPassesThrough(t *testing.T) {
	broken := errors.New("pipe is broken")
	whole := frameBytes(t, frameCases["sample"])
	for _, n := range []int{0, 1, lengthSize, lengthSize + 1} {
		_, err := NewFrameReader(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken))).Next()
		if !errors.Is(err, broken) || errors.Is(err, ErrBadFrame) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestFrameWriterRejectsOversizedFrame(t *testing.T) {
	var b bytes.Buffer
	long := &model.Sample{Time: frameTime, Strings: []string{strings.Repeat("x", MaxFrameSize)}}
	if err := NewFrameWriter(&b).Write(Frame{Sample: long}); err == nil || b.Len() != 0 {
		t.Errorf("error %v, %d bytes written; want an error and no bytes", err, b.Len())
	}
}

func TestFrameIsOneWrite(t *testing.T) {
	var writes writeCounter
	w := NewFrameWriter(&writes)
	for _, f := range frameCases {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if int(writes) != len(frameCases) {
		t.Errorf("%d writes for %d frames", writes, len(frameCases))
	}
	if err := NewFrameWriter(brokenWriter{}).Write(Frame{Sample: frameSampleOf()}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a closed pipe: %v, want io.ErrClosedPipe", err)
	}
}

type writeCounter int

func (w *writeCounter) Write(b []byte) (int, error) { *w++; return len(b), nil }

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// largeSample is a sample of 16 GPUs with 7 instances each and 60 fields per
// instance. Every tenth value is a string.
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
	n := len(frameBytes(t, Frame{Sample: largeSample()}))
	t.Logf("112 instances with 60 fields take %d bytes, the limit is %d", n, MaxFrameSize)
	if n > MaxFrameSize/16 {
		t.Errorf("112 instances with 60 fields take %d bytes, want at most a sixteenth of the limit", n)
	}
}

// Both ends of the pipe process one of these per interval.
func BenchmarkFrame(b *testing.B) {
	var stream bytes.Buffer
	w := NewFrameWriter(&stream)
	r := NewFrameReader(&stream)
	frame := Frame{Sample: largeSample()}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Write(frame); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A frame of a corrupt sampler allocates a small multiple of its size.
func TestDecodingAllocatesLittle(t *testing.T) {
	for name, frame := range map[string]Frame{
		"empty rows":     {Sample: &model.Sample{Rows: make([][]model.Cell, 1<<21)}},
		"many cells":     {Sample: &model.Sample{Rows: [][]model.Cell{slices.Repeat([]model.Cell{model.NoValue(model.StatusBlank)}, 1<<21)}}},
		"empty entities": {Inventory: &model.Inventory{Entities: make([]model.Entity, 1<<15)}},
	} {
		data := frameBytes(t, frame)
		if n := allocated(func() {
			if _, err := NewFrameReader(bytes.NewReader(data)).Next(); !errors.Is(err, ErrBadFrame) {
				t.Errorf("%s: %v, want a bad frame", name, err)
			}
		}); n > 16<<20 {
			t.Errorf("%s: reading %d bytes allocates %d", name, len(data), n)
		}
	}
}

// FuzzFrameReader reads the input as a stream and as the payload of one frame.
func FuzzFrameReader(f *testing.F) {
	for _, frame := range frameCases {
		f.Add(frameBytes(f, frame)[lengthSize:])
	}
	f.Add([]byte("text instead of a frame, longer than a length\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var frames []Frame
		read := func(stream []byte) {
			r := NewFrameReader(bytes.NewReader(stream))
			for {
				frame, err := r.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, ErrBadFrame) {
						t.Fatalf("a stream in memory returns %v", err)
					}
					return
				}
				frames = append(frames, frame)
			}
		}
		sealed := setLength(append(make([]byte, lengthSize), data...))
		// An empty row takes 1 byte in the payload and 24 in memory. gob compiles a
		// decoder for the types that a stream declares.
		limit := uint64(16<<20 + MaxFrameSize + 64*len(data))
		if n := allocated(func() { read(data); read(sealed) }); n > limit {
			t.Errorf("reading %d bytes allocates %d, more than %d", len(data), n, limit)
		}
		for _, frame := range frames {
			if _, err := NewFrameReader(bytes.NewReader(frameBytes(t, frame))).Next(); err != nil {
				t.Fatalf("a frame that was read cannot be written and read again: %v\n%+v", err, frame)
			}
		}
	})
}
