// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"time"

	"gpu_exporter/collector/model"
)

// The file descriptors that a sampler writes to. Standard output and standard error
// belong to the libraries that it loads.
const (
	FramesFD  = 3
	RecordsFD = 4 // the sampler's own log
)

// MaxFrameSize bounds an encoded frame. A node of 112 instances with 60 fields
// takes a thirtieth of it.
const MaxFrameSize = 4 << 20

// lengthSize is the size of the big-endian length that precedes each frame.
const lengthSize = 4

// ErrBadFrame is wrapped by each error of [FrameReader.Next] that makes the rest of
// the stream unusable: garbage, an oversized frame or a truncated frame.
var ErrBadFrame = errors.New("bad frame")

// Frame is one message of the sampler. Exactly one member is set.
type Frame struct {
	Inventory *model.Inventory
	Sample    *model.Sample
	Events    *model.Events
	Processes *model.Processes
	Tracks    *model.Tracks
	Profiling *model.Profiling
	Health    *model.Health
	Peers     *model.Peers
	Failure   *model.Failure
	// Wait announces a call that may take that long although DCGM works.
	Wait time.Duration
}

// members returns how many members are set.
func (f *Frame) members() int {
	n := 0
	for _, set := range [...]bool{
		f.Inventory != nil, f.Sample != nil, f.Events != nil, f.Processes != nil, f.Tracks != nil,
		f.Profiling != nil, f.Health != nil, f.Peers != nil, f.Failure != nil, f.Wait != 0,
	} {
		if set {
			n++
		}
	}
	return n
}

// envelope is the encoding of a frame. Its rows are those of the sample, whose decoding
// allocates little. gob would allocate 24 bytes for each byte of empty rows.
type envelope struct {
	Frame         Frame
	Rows, Derived []byte
}

// seal makes e the envelope of a frame. It reuses the memory of e and of sample.
func (e *envelope) seal(frame Frame, sample *model.Sample) {
	e.Frame, e.Rows, e.Derived = frame, e.Rows[:0], e.Derived[:0]
	if frame.Sample == nil {
		return
	}
	e.Rows, e.Derived = frame.Sample.Rows.AppendTo(e.Rows), frame.Sample.Derived.AppendTo(e.Derived)
	*sample = *frame.Sample
	sample.Rows, sample.Derived, e.Frame.Sample = nil, nil, sample
}

// open returns the frame.
func (e *envelope) open() (Frame, error) {
	s := e.Frame.Sample
	if s == nil {
		return e.Frame, nil
	}
	return e.Frame, errors.Join(s.Rows.Decode(e.Rows), s.Derived.Decode(e.Derived))
}

// FrameWriter writes a stream of frames. Each frame is one Write, so that a reader
// never waits for the second half of a frame whose writer was killed in between.
type FrameWriter struct {
	w       io.Writer
	encoder *gob.Encoder
	buf     bytes.Buffer
	sealed  envelope
	sample  model.Sample // of sealed
}

// NewFrameWriter returns a writer of a new stream to w.
func NewFrameWriter(w io.Writer) *FrameWriter {
	f := &FrameWriter{w: w}
	f.encoder = gob.NewEncoder(&f.buf)
	return f
}

// Write writes one frame. After an error the stream is unusable.
func (f *FrameWriter) Write(frame Frame) error {
	f.buf.Reset()
	f.buf.Write(make([]byte, lengthSize))
	f.sealed.seal(frame, &f.sample)
	if err := f.encoder.Encode(&f.sealed); err != nil {
		return fmt.Errorf("encoding frame: %w", err)
	}
	b := f.buf.Bytes()
	size := len(b) - lengthSize
	if size > MaxFrameSize {
		return fmt.Errorf("writing frame: %d bytes exceed the limit of %d", size, MaxFrameSize)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	if _, err := f.w.Write(b); err != nil {
		return fmt.Errorf("writing frame: %w", err)
	}
	return nil
}

// FrameReader reads a stream of frames. It checks the encoding only; whether a frame
// fits its inventory is for [gpu_exporter/collector/state] to check.
type FrameReader struct {
	r       *bufio.Reader
	decoder *gob.Decoder
	payload bytes.Reader // what the decoder reads from
	buf     []byte
}

// NewFrameReader returns a reader of the stream r from its beginning.
func NewFrameReader(r io.Reader) *FrameReader {
	f := &FrameReader{r: bufio.NewReaderSize(r, 64<<10)}
	f.decoder = gob.NewDecoder(&f.payload)
	return f
}

// Next blocks until the next frame. It returns io.EOF at the end of the stream, and an
// error that wraps [ErrBadFrame] if the stream is garbled or truncated. The error of a
// truncated stream also wraps io.ErrUnexpectedEOF: its writer died. Other errors are
// those of the underlying reader.
func (f *FrameReader) Next() (Frame, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(f.r, length[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Frame{}, fmt.Errorf("%w: truncated in its length: %w", ErrBadFrame, io.ErrUnexpectedEOF)
		}
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > MaxFrameSize {
		return Frame{}, fmt.Errorf("%w: length %d exceeds the limit of %d", ErrBadFrame, size, MaxFrameSize)
	}
	if uint32(cap(f.buf)) < size {
		f.buf = make([]byte, size)
	}
	payload := f.buf[:size]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Frame{}, fmt.Errorf("%w: truncated: %w", ErrBadFrame, io.ErrUnexpectedEOF)
		}
		return Frame{}, err
	}
	f.payload.Reset(payload)
	var sealed envelope
	if err := f.decoder.Decode(&sealed); err != nil {
		// Not wrapped: an end of file inside the payload is no truncated stream.
		return Frame{}, fmt.Errorf("%w: decoding: %v", ErrBadFrame, err) //nolint:errorlint // see above
	}
	if n := f.payload.Len(); n != 0 {
		return Frame{}, fmt.Errorf("%w: %d bytes follow the message", ErrBadFrame, n)
	}
	frame, err := sealed.open()
	if err != nil {
		return Frame{}, fmt.Errorf("%w: rows: %w", ErrBadFrame, err)
	}
	if n := frame.members(); n != 1 {
		return Frame{}, fmt.Errorf("%w: %d members are set, must be 1", ErrBadFrame, n)
	}
	return frame, nil
}
