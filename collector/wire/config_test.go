// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gpu_exporter/collector/model"
)

func TestSamplerConfigRoundTrip(t *testing.T) {
	for name, want := range map[string]SamplerConfig{
		"zero": {},
		"full": {
			Interval: 1500 * time.Millisecond,
			Fields: map[model.EntityKind][]model.FieldID{
				model.KindGPU:         {100, 150, 203, 1001},
				model.KindGPUInstance: {1001, 1004},
				model.KindCPUCore:     {1120},
			},
			Devices:      "g:0,1+i:3",
			Hostengine:   "tcp://[::1]:5555",
			DCGMLogLevel: "WARN",
		},
		"line break in a value": {Devices: "g\n{}"},
	} {
		t.Run(name, func(t *testing.T) {
			var line bytes.Buffer
			n, err := want.WriteTo(&line)
			if err != nil || n != int64(line.Len()) {
				t.Fatalf("wrote %d of %d bytes, error %v", n, line.Len(), err)
			}
			if strings.Count(line.String(), "\n") != 1 || !strings.HasSuffix(line.String(), "\n") {
				t.Errorf("not exactly one line: %q", line.String())
			}
			line.WriteString("rest")
			got, err := ReadSamplerConfig(&line)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			// The commands after the configuration are not read.
			if line.String() != "rest" {
				t.Errorf("%q is left, want %q", line.String(), "rest")
			}
		})
	}
}

func TestSamplerConfigErrors(t *testing.T) {
	broken := errors.New("pipe is broken")
	for name, c := range map[string]struct {
		in   io.Reader
		want error // nil for any
	}{
		"empty":                {strings.NewReader(""), io.EOF},
		"exporter died midway": {strings.NewReader(`{"Interval":1`), io.EOF},
		"pipe is broken":       {iotest.ErrReader(broken), broken},
		"not JSON":             {strings.NewReader("interval=5s\n"), nil},
		"empty line":           {strings.NewReader("\n"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadSamplerConfig(c.in)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := (SamplerConfig{}).WriteTo(brokenWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a closed pipe: %v, want io.ErrClosedPipe", err)
	}
}
