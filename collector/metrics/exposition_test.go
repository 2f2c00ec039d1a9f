// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/proto"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/state"
)

// Our histograms are those of client_golang.
func TestHistogramAsClientGolang(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	power := make([]float64, 5000)
	for i := range power {
		power[i] = 70 + 630*random.Float64()
	}
	for name, values := range map[string][]float64{
		"none":             nil,
		"zeros":            {0, 0, math.Copysign(0, -1)},
		"bounds":           {1, 2, 4, 0.5, 1024, math.Nextafter(2, 3), math.Nextafter(2, 1)},
		"per cent":         {0, 1, 2, 3, 50, 99, 100, 100},
		"temperatures":     {-5, -0.25, 31, 32, 33, 90},
		"power":            power,
		"far apart":        {1e-300, 1e300, math.MaxFloat64, math.SmallestNonzeroFloat64},
		"no numbers ":      {math.NaN(), 1},
		"the highest bits": {1 << 62, 1<<62 + 1<<20},
	} {
		t.Run(name, func(t *testing.T) {
			// A growth of 1.1 at the most is what schema 3 is for.
			theirs := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", Help: "X.", NativeHistogramBucketFactor: 1.1})
			var ours state.NativeHistogram
			for _, v := range values {
				if !math.IsNaN(v) {
					theirs.Observe(v)
				}
				ours.Observe(v)
			}
			var want dto.Metric
			if err := theirs.Write(&want); err != nil {
				t.Fatal(err)
			}
			want.Histogram.CreatedTimestamp = nil
			got := histogramProto(ours.Snapshot())
			if math.Abs(got.GetSampleSum()-want.Histogram.GetSampleSum()) <= 1e-9*math.Abs(got.GetSampleSum()) {
				got.SampleSum = want.Histogram.SampleSum // they add up in another order
			}
			if !proto.Equal(got, want.Histogram) {
				t.Errorf("got\n%v\nwant\n%v", got, want.Histogram)
			}
		})
	}
}

// The text formats have the histogram as client_golang's encoder writes it.
func TestHistogramInText(t *testing.T) {
	var h state.NativeHistogram
	for _, v := range []float64{0.5, 3, 3, 100} {
		h.Observe(v)
	}
	family := Family{Name: "gpu_x_histogram", Help: "Of \"X\".", Type: field.MetricHistogram, Histograms: []HistogramSeries{
		{NewLabelSet(Label{"gpu", "0"}, Label{"model", `a "b"`}), h.Snapshot()},
		{NewLabelSet(), h.Snapshot()},
	}}
	for _, typ := range []expfmt.FormatType{expfmt.TypeTextPlain, expfmt.TypeOpenMetrics} {
		format := expfmt.NewFormat(typ)
		got, err := (&Exposition{Families: []Family{family}}).Append(nil, format)
		if err != nil {
			t.Fatal(err)
		}
		// The reference implementation, by way of the protobuf form.
		var want bytes.Buffer
		enc := expfmt.NewEncoder(&want, format)
		if err := enc.Encode(family.proto()); err != nil {
			t.Fatal(err)
		}
		if closer, ok := enc.(expfmt.Closer); ok {
			closer.Close()
		}
		if typ == expfmt.TypeOpenMetrics {
			got, want = normalFloats(got), *bytes.NewBuffer(normalFloats(want.Bytes()))
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("got\n%s\nwant\n%s", got, want.Bytes())
		}
	}
}

// normalFloats takes away the ".0" that OpenMetrics encoders like to write and
// parsers do not need.
func normalFloats(b []byte) []byte { return bytes.ReplaceAll(b, []byte(".0\n"), []byte("\n")) }
