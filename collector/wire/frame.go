// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

// A frame is what the sampler writes into its pipe: a header of 16 bytes (magic,
// version, type, two zero bytes, payload length, CRC-32C of the payload; little
// endian) and the payload. Both ends are the same binary, so the version guards
// against a binary replaced under a running exporter, nothing more.
const (
	frameMagic      = 0x46555047 // "GPUF"
	frameVersion    = 4
	frameHeaderSize = 16
	// MaxFrameSize bounds the payload: 64 times a node of 112 instances with 60
	// fields, far below what a garbled length could ask for.
	MaxFrameSize = 4 << 20
)

// cellSize is what a cell with a value takes in a frame: status, type, value.
const cellSize = 1 + 1 + 8

// processSize is what a process takes: PID, kind, memory and whether it is
// known, three ratios.
const processSize = 4 + 1 + 1 + 8 + 3*8

type frameType uint8

const (
	frameInventory frameType = 1
	frameSample    frameType = 2
	frameEvents    frameType = 3
	frameFailure   frameType = 4
	frameProcesses frameType = 5
	frameTracks    frameType = 6
	frameHealth    frameType = 7
	frameProfiling frameType = 8
	framePeers     frameType = 10 // 9 never was one
)

// ErrBadFrame is wrapped by the errors of [FrameReader.Next] after which the
// stream cannot be read on: garbage, a wrong checksum, or a truncated frame.
var ErrBadFrame = errors.New("bad frame")

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// FrameWriter writes frames. It reuses one buffer, and each frame is one Write.
type FrameWriter struct {
	w   io.Writer
	buf []byte
}

// NewFrameWriter returns a writer of frames to w.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

func (f *FrameWriter) begin() { f.buf = append(f.buf[:0], make([]byte, frameHeaderSize)...) }

func (f *FrameWriter) flush(t frameType) error {
	payload := f.buf[frameHeaderSize:]
	if len(payload) > MaxFrameSize {
		return fmt.Errorf("writing frame: %d bytes, at most %d fit", len(payload), MaxFrameSize)
	}
	le := binary.LittleEndian
	le.PutUint32(f.buf[0:], frameMagic)
	f.buf[4] = frameVersion
	f.buf[5] = byte(t)
	le.PutUint32(f.buf[8:], uint32(len(payload)))
	le.PutUint32(f.buf[12:], crc32.Checksum(payload, crcTable))
	if _, err := f.w.Write(f.buf); err != nil {
		return fmt.Errorf("writing frame: %w", err)
	}
	return nil
}

func (f *FrameWriter) u8(v uint8) { f.buf = append(f.buf, v) }

func (f *FrameWriter) u32(v uint32) { f.buf = binary.LittleEndian.AppendUint32(f.buf, v) }

func (f *FrameWriter) u64(v uint64) { f.buf = binary.LittleEndian.AppendUint64(f.buf, v) }

func (f *FrameWriter) num(v int) { f.buf = binary.AppendVarint(f.buf, int64(v)) }

func (f *FrameWriter) ratio(v float64) { f.u64(math.Float64bits(v)) }

// moment writes a time that may be zero.
func (f *FrameWriter) moment(t time.Time) {
	if t.IsZero() {
		f.u64(0)
		return
	}
	f.u64(uint64(t.UnixNano()))
}

func (f *FrameWriter) bool(v bool) {
	if v {
		f.u8(1)
	} else {
		f.u8(0)
	}
}

func (f *FrameWriter) str(s string) {
	f.num(len(s))
	f.buf = append(f.buf, s...)
}

// WriteInventory writes the inventory that the following samples belong to.
func (f *FrameWriter) WriteInventory(inv *model.Inventory) error {
	f.begin()
	f.u64(inv.Generation)
	f.u64(inv.Revision)
	f.u64(uint64(inv.Time.UnixNano()))
	f.str(inv.DriverVersion)
	f.str(inv.DCGMVersion)
	f.bool(inv.InstancesUnknown)
	for _, columns := range inv.Columns {
		f.num(len(columns))
		for _, id := range columns {
			f.num(int(id))
		}
	}
	f.num(len(inv.Derived))
	for _, id := range inv.Derived {
		f.num(int(id))
	}
	f.num(len(inv.Entities))
	for i := range inv.Entities {
		e := &inv.Entities[i]
		f.u8(uint8(e.Kind))
		f.u8(uint8(e.State))
		f.bool(e.Selected)
		f.u32(e.ID)
		f.num(e.Parent)
		f.str(e.UUID)
		f.str(e.PCIBusID)
		f.str(e.Model)
		f.str(e.Brand)
		f.str(e.Serial)
		f.str(e.VBIOS)
		f.num(e.Index)
		f.num(e.Minor)
		f.bool(e.MIGMode)
		f.num(e.InstanceID)
		f.str(e.Profile)
		f.num(e.PlacementStart)
		f.num(e.Port)
		f.bool(e.LinkDown)
	}
	return f.flush(frameInventory)
}

// WriteSample writes one sample.
func (f *FrameWriter) WriteSample(s *model.Sample) error {
	f.begin()
	f.u64(s.Generation)
	f.u64(uint64(s.Time.UnixNano()))
	f.u64(uint64(s.Duration))
	f.moment(s.LinksRead)
	f.bool(s.SwitchesListed)
	f.num(len(s.Strings))
	for _, v := range s.Strings {
		f.str(v)
	}
	f.rows(s.Rows)
	f.rows(s.Derived)
	return f.flush(frameSample)
}

func (f *FrameWriter) rows(rows [][]model.Cell) {
	f.num(len(rows))
	// The one loop of the sampler that is long: on a slice of its own, which the
	// compiler can keep in registers.
	b := f.buf
	for _, row := range rows {
		b = binary.AppendVarint(b, int64(len(row)))
		b = slices.Grow(b, len(row)*cellSize)
		for i := range row {
			c := &row[i]
			if c.Status != model.StatusOK {
				b = append(b, uint8(c.Status))
				continue
			}
			n := len(b)
			b = b[:n+cellSize]
			b[n], b[n+1] = uint8(model.StatusOK), uint8(c.Type)
			binary.LittleEndian.PutUint64(b[n+2:], c.Bits)
		}
	}
	f.buf = b
}

// WriteEvents writes events on the entities of the inventory with the given
// generation.
func (f *FrameWriter) WriteEvents(generation uint64, events []model.Event) error {
	f.begin()
	f.u64(generation)
	f.num(len(events))
	for _, e := range events {
		f.u8(uint8(e.Kind))
		f.num(e.Entity)
		f.u64(uint64(e.Time.UnixNano()))
		f.u64(uint64(e.Code))
	}
	return f.flush(frameEvents)
}

// WriteProcesses writes a reading of the processes on the devices of the
// inventory with its generation.
func (f *FrameWriter) WriteProcesses(p *model.Processes) error {
	f.begin()
	f.u64(p.Generation)
	f.u64(uint64(p.Time.UnixNano()))
	f.u64(uint64(p.Duration))
	f.num(len(p.Devices))
	for i := range p.Devices {
		d := &p.Devices[i]
		f.num(d.Entity)
		f.u8(uint8(d.Listed))
		f.u8(uint8(d.Utilization))
		f.num(len(d.Processes))
		for _, process := range d.Processes {
			f.u32(process.PID)
			f.u8(uint8(process.Kind))
			f.bool(process.MemoryKnown)
			f.u64(process.MemoryBytes)
			f.ratio(process.SM)
			f.ratio(process.Encoder)
			f.ratio(process.Decoder)
		}
	}
	return f.flush(frameProcesses)
}

// WriteFailure writes why the sampler is about to exit.
func (f *FrameWriter) WriteFailure(fail model.Failure) error {
	f.begin()
	f.str(fail.Reason)
	f.str(fail.Message)
	return f.flush(frameFailure)
}

// Frame is one decoded frame: exactly one of its pointers is set, or Events.
type Frame struct {
	Inventory *model.Inventory
	Sample    *model.Sample
	Processes *model.Processes
	Tracks    *model.Tracks
	Profiling *model.Profiling
	Health    *model.Health
	Peers     *model.Peers
	Failure   *model.Failure
	// Generation is the inventory that Events refer to.
	Generation uint64
	Events     []model.Event
}

// FrameReader reads frames. What it returns shares nothing with its buffer.
type FrameReader struct {
	r    *bufio.Reader
	head [frameHeaderSize]byte
	buf  []byte
}

// NewFrameReader returns a reader of frames from r.
func NewFrameReader(r io.Reader) *FrameReader {
	return &FrameReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Next blocks for the next frame. It returns io.EOF at a clean end, an error
// that wraps [ErrBadFrame] where the stream is garbled or cut, and any other
// error as the reader gave it. The error of a stream that was cut also wraps
// io.ErrUnexpectedEOF: its writer died, which is no fault of the stream.
func (f *FrameReader) Next() (Frame, error) {
	head := &f.head
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Frame{}, fmt.Errorf("%w: cut in the header: %w", ErrBadFrame, io.ErrUnexpectedEOF)
		}
		return Frame{}, err
	}
	le := binary.LittleEndian
	if m := le.Uint32(head[0:]); m != frameMagic {
		return Frame{}, fmt.Errorf("%w: magic %#x", ErrBadFrame, m)
	}
	if head[4] != frameVersion {
		return Frame{}, fmt.Errorf("%w: version %d, this binary speaks %d (was it replaced while running?)", ErrBadFrame, head[4], frameVersion)
	}
	size := le.Uint32(head[8:])
	if size > MaxFrameSize {
		return Frame{}, fmt.Errorf("%w: length %d is over the limit of %d", ErrBadFrame, size, MaxFrameSize)
	}
	if uint32(cap(f.buf)) < size {
		f.buf = make([]byte, size)
	}
	payload := f.buf[:size]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Frame{}, fmt.Errorf("%w: cut in the payload: %w", ErrBadFrame, io.ErrUnexpectedEOF)
		}
		return Frame{}, err
	}
	if crc := crc32.Checksum(payload, crcTable); crc != le.Uint32(head[12:]) {
		return Frame{}, fmt.Errorf("%w: checksum does not match", ErrBadFrame)
	}
	return decodeFrame(frameType(head[5]), payload)
}

func decodeFrame(t frameType, payload []byte) (Frame, error) {
	d := decoder{b: payload}
	var frame Frame
	switch t {
	case frameInventory:
		frame.Inventory = d.inventory()
	case frameSample:
		frame.Sample = d.sample()
	case frameEvents:
		frame.Generation, frame.Events = d.events()
	case frameProcesses:
		frame.Processes = d.processes()
	case frameTracks:
		frame.Tracks = d.tracks()
	case frameProfiling:
		frame.Profiling = d.profiling()
	case frameHealth:
		frame.Health = d.health()
	case framePeers:
		frame.Peers = d.peers()
	case frameFailure:
		frame.Failure = &model.Failure{Reason: d.str(), Message: d.str()}
	default:
		return Frame{}, fmt.Errorf("%w: type %d", ErrBadFrame, t)
	}
	if d.failed || len(d.b) != 0 {
		return Frame{}, fmt.Errorf("%w: payload of type %d does not parse", ErrBadFrame, t)
	}
	return frame, nil
}

// decoder consumes a payload. After the first failure every read gives zero, so
// that callers check once at the end.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) take(n int) []byte {
	if d.failed || n < 0 || n > len(d.b) {
		d.failed = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() uint8 {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) num() int {
	v, n := binary.Varint(d.b)
	if d.failed || n <= 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

// count reads a number of items that take at least minSize bytes each, so that
// a garbled count cannot make the caller allocate more than the payload's size.
func (d *decoder) count(minSize int) int {
	n := d.num()
	if n < 0 || n > len(d.b)/minSize {
		d.failed = true
		return 0
	}
	return n
}

func (d *decoder) str() string { return string(d.take(d.num())) }

func (d *decoder) time() time.Time { return time.Unix(0, int64(d.u64())) }

// moment reads a time that may be zero.
func (d *decoder) moment() time.Time {
	if ns := d.u64(); ns != 0 {
		return time.Unix(0, int64(ns))
	}
	return time.Time{}
}

func (d *decoder) status() model.Status {
	s := model.Status(d.u8())
	if int(s) >= model.StatusCount {
		d.failed = true // it is an index further on
	}
	return s
}

// ratio reads a number from 0 to 1.
func (d *decoder) ratio() float64 {
	v := math.Float64frombits(d.u64())
	if !(v >= 0 && v <= 1) { // nor is it NaN
		d.failed = true
	}
	return v
}

func (d *decoder) inventory() *model.Inventory {
	inv := &model.Inventory{
		Generation:       d.u64(),
		Revision:         d.u64(),
		Time:             d.time(),
		DriverVersion:    d.str(),
		DCGMVersion:      d.str(),
		InstancesUnknown: d.u8() != 0,
	}
	for k := range inv.Columns {
		n := d.count(1)
		if n == 0 {
			continue
		}
		inv.Columns[k] = make([]model.FieldID, n)
		for i := range inv.Columns[k] {
			inv.Columns[k][i] = model.FieldID(d.num())
		}
	}
	if n := d.count(1); n > 0 {
		inv.Derived = make([]model.FieldID, n)
		for i := range inv.Derived {
			inv.Derived[i] = model.FieldID(d.num())
		}
	}
	inv.Entities = make([]model.Entity, d.count(22))
	for i := range inv.Entities {
		inv.Entities[i] = model.Entity{
			Kind:           model.EntityKind(d.u8()),
			State:          model.EntityState(d.u8()),
			Selected:       d.u8() != 0,
			ID:             d.u32(),
			Parent:         d.num(),
			UUID:           d.str(),
			PCIBusID:       d.str(),
			Model:          d.str(),
			Brand:          d.str(),
			Serial:         d.str(),
			VBIOS:          d.str(),
			Index:          d.num(),
			Minor:          d.num(),
			MIGMode:        d.u8() != 0,
			InstanceID:     d.num(),
			Profile:        d.str(),
			PlacementStart: d.num(),
			Port:           d.num(),
			LinkDown:       d.u8() != 0,
		}
	}
	return inv
}

func (d *decoder) sample() *model.Sample {
	s := &model.Sample{
		Generation: d.u64(),
		Time:       d.time(),
		Duration:   time.Duration(d.u64()),
		LinksRead:  d.moment(),

		SwitchesListed: d.u8() != 0,
	}
	if n := d.count(1); n > 0 {
		s.Strings = make([]string, n)
		for i := range s.Strings {
			s.Strings[i] = d.str()
		}
	}
	s.Rows = d.rows()
	if derived := d.rows(); len(derived) > 0 {
		s.Derived = derived
	}
	return s
}

func (d *decoder) rows() [][]model.Cell {
	rows := make([][]model.Cell, d.count(1))
	for i := range rows {
		n := d.count(1)
		if n == 0 {
			continue
		}
		row := make([]model.Cell, n)
		for j := range row {
			c := model.Cell{Status: d.status()}
			if c.Status == model.StatusOK {
				c.Type = model.ValueType(d.u8())
				c.Bits = d.u64()
			}
			row[j] = c
		}
		rows[i] = row
	}
	return rows
}

func (d *decoder) processes() *model.Processes {
	p := &model.Processes{
		Generation: d.u64(),
		Time:       d.time(),
		Duration:   time.Duration(d.u64()),
		Devices:    make([]model.DeviceProcesses, d.count(4)),
	}
	for i := range p.Devices {
		device := model.DeviceProcesses{
			Entity:      d.num(),
			Listed:      d.status(),
			Utilization: d.status(),
		}
		if n := d.count(processSize); n > 0 {
			device.Processes = make([]model.Process, n)
		}
		for j := range device.Processes {
			process := model.Process{
				PID:         d.u32(),
				Kind:        model.ProcessKind(d.u8()),
				MemoryKnown: d.u8() != 0,
				MemoryBytes: d.u64(),
				SM:          d.ratio(),
				Encoder:     d.ratio(),
				Decoder:     d.ratio(),
			}
			if int(process.Kind) >= model.ProcessKindCount {
				d.failed = true // it is an index further on
			}
			device.Processes[j] = process
		}
		p.Devices[i] = device
	}
	return p
}

func (d *decoder) events() (uint64, []model.Event) {
	generation := d.u64()
	events := make([]model.Event, d.count(18))
	for i := range events {
		events[i] = model.Event{
			Kind:   model.EventKind(d.u8()),
			Entity: d.num(),
			Time:   d.time(),
			Code:   int64(d.u64()),
		}
	}
	return generation, events
}
