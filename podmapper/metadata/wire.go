// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxObject bounds one pod in its wire form. etcd takes 1.5 MiB by default and
// few raise that above 8 MiB; manifests of static pods have no limit.
const maxObject = 16 << 20

var (
	errMalformed = errors.New("malformed answer")
	errCut       = errors.New("the answer broke off")
	errTooLarge  = fmt.Errorf("an object of more than %d MiB", maxObject>>20)
)

// fields calls f for each field of a protobuf message that is a text, a message
// (value) or a number (n). Others are skipped: nothing here is of their types.
func fields(b []byte, f func(field protowire.Number, value []byte, n uint64) error) error {
	for len(b) > 0 {
		field, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(size))
		}
		b = b[size:]
		var value []byte
		var n uint64
		switch typ {
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		default:
			size = protowire.ConsumeFieldValue(field, typ, b)
		}
		if size < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(size))
		}
		b = b[size:]
		if typ == protowire.BytesType || typ == protowire.VarintType {
			if err := f(field, value, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// envelopeMagic begins every protobuf object of Kubernetes. A runtime.Unknown
// follows. Source: k8s.io/apimachinery/pkg/runtime/serializer/protobuf.
const envelopeMagic = "k8s\x00"

// Fields of runtime.Unknown and runtime.TypeMeta
// (k8s.io/apimachinery/pkg/runtime/generated.proto).
const (
	unknownTypeMeta protowire.Number = 1
	unknownRaw      protowire.Number = 2

	typeMetaKind protowire.Number = 2
)

// openEnvelope gives the kind of an object and its own message.
func openEnvelope(b []byte) (kind string, object []byte, err error) {
	if len(b) < len(envelopeMagic) || string(b[:len(envelopeMagic)]) != envelopeMagic {
		return "", nil, fmt.Errorf("%w: not a protobuf object of Kubernetes", errMalformed)
	}
	err = fields(b[len(envelopeMagic):], func(field protowire.Number, value []byte, _ uint64) error {
		switch field {
		case unknownTypeMeta:
			var err error
			kind, err = kindOf(value)
			return err
		case unknownRaw:
			object = value
		}
		return nil
	})
	return kind, object, err
}

func kindOf(typeMeta []byte) (kind string, err error) {
	err = fields(typeMeta, func(field protowire.Number, value []byte, _ uint64) error {
		if field == typeMetaKind {
			kind = string(value)
		}
		return nil
	})
	return kind, err
}

// Fields of the messages in k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
const (
	listMetadata protowire.Number = 1
	listItems    protowire.Number = 2

	listMetaResourceVersion protowire.Number = 2
	listMetaContinue        protowire.Number = 3

	watchEventType   protowire.Number = 1
	watchEventObject protowire.Number = 2
	rawExtensionRaw  protowire.Number = 1

	statusMessage protowire.Number = 3
	statusCode    protowire.Number = 6
)

const (
	kindList   = "PartialObjectMetadataList"
	kindObject = "PartialObjectMetadata"
	kindStatus = "Status"
)

// listMeta is the metadata of a list.
type listMeta struct{ resourceVersion, next string }

// readList reads a PartialObjectMetadataList and calls item for each object,
// one after the other, as they arrive: a list of all the pods of a node can have
// many MiB, as a server that answers from its cache does not divide it into
// pages. What item gets is valid during the call only.
func readList(r *bufio.Reader, item func(object []byte) error) (listMeta, error) {
	magic := make([]byte, len(envelopeMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return listMeta{}, cut(err)
	}
	if string(magic) != envelopeMagic {
		return listMeta{}, fmt.Errorf("%w: not a protobuf object of Kubernetes", errMalformed)
	}
	var meta listMeta
	var kind string
	outer := &wireReader{r: r, left: -1}
	for {
		field, err := outer.next()
		switch {
		case errors.Is(err, io.EOF) && kind == kindList:
			return meta, nil
		case errors.Is(err, io.EOF):
			return listMeta{}, fmt.Errorf("%w: a list without a kind", errMalformed)
		case err != nil:
			return listMeta{}, err
		}
		switch field {
		case unknownTypeMeta:
			b, err := outer.bytes()
			if err != nil {
				return listMeta{}, err
			}
			if kind, err = kindOf(b); err != nil {
				return listMeta{}, err
			}
		case unknownRaw:
			if kind != kindList {
				return listMeta{}, fmt.Errorf("%w: a %q instead of a %s", errMalformed, kind, kindList)
			}
			inner, err := outer.message()
			if err != nil {
				return listMeta{}, err
			}
			if err := inner.list(&meta, item); err != nil {
				return listMeta{}, err
			}
		default:
			if err := outer.skip(); err != nil {
				return listMeta{}, err
			}
		}
	}
}

func (w *wireReader) list(meta *listMeta, item func([]byte) error) error {
	for {
		field, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch field {
		case listMetadata:
			b, err := w.bytes()
			if err != nil {
				return err
			}
			err = fields(b, func(field protowire.Number, value []byte, _ uint64) error {
				switch field {
				case listMetaResourceVersion:
					meta.resourceVersion = string(value)
				case listMetaContinue:
					meta.next = string(value)
				}
				return nil
			})
			if err != nil {
				return err
			}
		case listItems:
			b, err := w.bytes()
			if err != nil {
				return err
			}
			if err := item(b); err != nil {
				return err
			}
		default:
			if err := w.skip(); err != nil {
				return err
			}
		}
	}
}

// wireReader reads the fields of a message from a stream.
type wireReader struct {
	r    *bufio.Reader
	left int64 // bytes of the message that are still to come; -1: up to the end of the stream
	typ  protowire.Type
	buf  []byte // of the last value, to be used again
}

// ReadByte implements io.ByteReader within the message.
func (w *wireReader) ReadByte() (byte, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	b, err := w.r.ReadByte()
	if err == nil && w.left > 0 {
		w.left--
	}
	return b, err
}

// next gives the number of the next field. The error is io.EOF, and nothing
// else, where the message ends.
func (w *wireReader) next() (protowire.Number, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	if w.left < 0 {
		if _, err := w.r.Peek(1); err != nil {
			return 0, err
		}
	}
	tag, err := w.varint()
	if err != nil {
		return 0, err
	}
	field, typ := protowire.DecodeTag(tag)
	if field < protowire.MinValidNumber {
		return 0, fmt.Errorf("%w: no field number", errMalformed)
	}
	w.typ = typ
	return field, nil
}

func (w *wireReader) varint() (uint64, error) {
	n, err := binary.ReadUvarint(w)
	if err != nil {
		return 0, cut(err)
	}
	return n, nil
}

// length reads that of the value of the field.
func (w *wireReader) length() (int64, error) {
	if w.typ != protowire.BytesType {
		return 0, fmt.Errorf("%w: a field of another type", errMalformed)
	}
	n, err := w.varint()
	if err != nil {
		return 0, err
	}
	if n > 1<<40 || w.left >= 0 && int64(n) > w.left {
		return 0, fmt.Errorf("%w: a field longer than its message", errMalformed)
	}
	return int64(n), nil
}

// bytes gives the value of the field, valid until the next call.
func (w *wireReader) bytes() ([]byte, error) {
	n, err := w.length()
	if err != nil {
		return nil, err
	}
	if n > maxObject {
		return nil, errTooLarge
	}
	if w.buf, err = readExactly(w.r, w.buf, int(n)); err != nil {
		return nil, err
	}
	w.took(n)
	return w.buf, nil
}

// message gives a reader for the value of the field. It must be read to its end
// before w goes on.
func (w *wireReader) message() (*wireReader, error) {
	n, err := w.length()
	if err != nil {
		return nil, err
	}
	w.took(n)
	return &wireReader{r: w.r, left: n}, nil
}

func (w *wireReader) skip() error {
	var n int64
	var err error
	switch w.typ {
	case protowire.VarintType:
		_, err = w.varint()
		return err
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	default:
		n, err = w.length()
	}
	if err != nil {
		return err
	}
	if w.left >= 0 && n > w.left {
		return fmt.Errorf("%w: a field longer than its message", errMalformed)
	}
	if _, err := io.CopyN(io.Discard, w.r, n); err != nil {
		return cut(err)
	}
	w.took(n)
	return nil
}

func (w *wireReader) took(n int64) {
	if w.left >= 0 {
		w.left -= n
	}
}

// readExactly reads n bytes into buf, which grows as they arrive and not as
// they are announced.
func readExactly(r io.Reader, buf []byte, n int) ([]byte, error) {
	const step = 1 << 20
	buf = buf[:0]
	for len(buf) < n {
		from := len(buf)
		to := min(n, max(cap(buf), from+step))
		if to > cap(buf) {
			grown := make([]byte, to)
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:to]
		if _, err := io.ReadFull(r, buf[from:]); err != nil {
			return buf[:0], cut(err)
		}
	}
	return buf, nil
}

// cut makes the end of a stream in the middle of something an error of its own,
// and leaves others, such as a timeout, as they are.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}
