// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Exposition is the content of /metrics. It is immutable: one exposition answers
// all scrapes until the next one replaces it.
type Exposition struct {
	// Families are those of [Families.Build].
	Families []*dto.MetricFamily
	// Process are the families of the exporter process, as its registry gathered
	// them. No name is also in Families.
	Process []*dto.MetricFamily
}

// Append encodes the exposition in the given format, sorted by name. A family that
// cannot be encoded is left out and named in the error; the returned body is valid
// nevertheless.
func (e *Exposition) Append(dst []byte, format expfmt.Format) ([]byte, error) {
	families := slices.Concat(e.Families, e.Process)
	slices.SortFunc(families, compareFamilies)
	if dst == nil { // most series take less than 250 bytes of text
		size := 0
		for _, f := range families {
			size += 500 + 250*len(f.Metric)
		}
		dst = make([]byte, 0, size)
	}
	out := bytes.NewBuffer(dst)
	encoder := expfmt.NewEncoder(out, format)
	var errs []error
	for _, f := range families {
		before := out.Len()
		if err := encoder.Encode(f); err != nil {
			out.Truncate(before)
			errs = append(errs, fmt.Errorf("encoding %s: %w", f.GetName(), err))
		}
	}
	if closer, ok := encoder.(expfmt.Closer); ok { // writes # EOF in OpenMetrics
		if err := closer.Close(); err != nil {
			errs = append(errs, fmt.Errorf("completing the exposition: %w", err))
		}
	}
	return out.Bytes(), errors.Join(errs...)
}

func compareFamilies(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) }
