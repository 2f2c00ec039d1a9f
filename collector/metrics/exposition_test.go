// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/proto"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/wire"
)

// simpleFamily returns a gauge with one series.
func simpleFamily(name string) *dto.MetricFamily {
	f := newFamily(name, "Help.", field.MetricGauge)
	f.add(with(nil, "gpu", "0"), 1)
	return f.MetricFamily
}

// The families of the node and of the process form one sorted page, in every format
// that a scraper can negotiate.
func TestExpositionMergesFamilies(t *testing.T) {
	e := Exposition{
		Families: []*dto.MetricFamily{simpleFamily("b"), simpleFamily("d")},
		Process:  []*dto.MetricFamily{simpleFamily("a"), simpleFamily("c"), simpleFamily("e")},
	}
	for _, format := range expfmt.DefaultOpenMetricsAcceptedFormats() {
		body, err := e.Append([]byte("# kept\n"), format)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		body, ok := bytes.CutPrefix(body, []byte("# kept\n"))
		if !ok {
			t.Errorf("%s: the content of dst is lost", format)
		}
		if eof := bytes.HasSuffix(body, []byte("# EOF\n")); eof != (format.FormatType() == expfmt.TypeOpenMetrics) {
			t.Errorf("%s: ends with # EOF: %v", format, eof)
		}
		switch format.FormatType() {
		case expfmt.TypeTextPlain, expfmt.TypeProtoDelim:
		default:
			continue // without a decoder
		}
		var names []string
		decoder := expfmt.NewDecoder(bytes.NewReader(body), format)
		for {
			var f dto.MetricFamily
			if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			names = append(names, f.GetName())
		}
		if format.FormatType() == expfmt.TypeTextPlain {
			slices.Sort(names) // the decoder of text has no order
		}
		if !slices.Equal(names, []string{"a", "b", "c", "d", "e"}) {
			t.Errorf("%s: %v", format, names)
		}
	}
}

// A family that cannot be encoded is left out and named, and the rest is served.
func TestExpositionWithoutABrokenFamily(t *testing.T) {
	broken := simpleFamily("broken")
	broken.Metric = append(broken.Metric, &dto.Metric{Counter: &dto.Counter{Value: proto.Float64(1)}}) // not a gauge
	e := Exposition{Families: []*dto.MetricFamily{simpleFamily("a"), broken}, Process: []*dto.MetricFamily{simpleFamily("c")}}
	for _, typ := range []expfmt.FormatType{expfmt.TypeTextPlain, expfmt.TypeOpenMetrics} {
		format := expfmt.NewFormat(typ)
		got, err := e.Append(nil, format)
		if err == nil || !strings.Contains(err.Error(), "encoding broken: ") {
			t.Errorf("%s: error %v", format, err)
		}
		whole := Exposition{Families: e.Families[:1], Process: e.Process}
		want, err := whole.Append(nil, format)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
	}
}

// Invalid UTF-8 in a label value would make Prometheus reject the whole page.
func TestLabelValuesAreUTF8(t *testing.T) {
	f := newFamily("a", "Help.", field.MetricGauge)
	f.add(with(nil, "model", "x\xffy"), 1)
	body, err := (&Exposition{Families: []*dto.MetricFamily{f.MetricFamily}}).Append(nil, expfmt.NewFormat(expfmt.TypeTextPlain))
	if want := "a{model=\"x\uFFFDy\"} 1\n"; err != nil || !strings.Contains(string(body), want) {
		t.Errorf("%s (%v), want %s", body, err, want)
	}
}

// Expositions share labels with each other and with those that are being built.
func TestExpositionsAreEncodedConcurrently(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	f.owners = testOwners()
	var wg sync.WaitGroup
	for range 4 {
		deliver(t, node, wire.Frame{Sample: testSample(testInventory(t))})
		e := Exposition{Families: f.Build()}
		for _, typ := range []expfmt.FormatType{expfmt.TypeTextPlain, expfmt.TypeOpenMetrics, expfmt.TypeProtoDelim} {
			wg.Go(func() {
				if body, err := e.Append(nil, expfmt.NewFormat(typ)); err != nil || len(body) == 0 {
					t.Errorf("%d bytes, error %v", len(body), err)
				}
			})
		}
	}
	wg.Wait()
}
