// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// rulesFile is the part of a file of rules that the tests evaluate.
type rulesFile struct {
	Groups []struct {
		Interval string
		Rules    []struct {
			Record string
			Expr   string
			Labels map[string]string
		}
	}
}

// readRules returns the recording rules. They may be absent.
func readRules(t *testing.T) rulesFile {
	t.Helper()
	var f rulesFile
	body, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/recording.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("there are no recording rules: deploy/prometheus/recording.yaml is missing")
		return f
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(body, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// evaluate writes the series of the recording rules, in the order of the file, with the
// interval of their group.
func (p prometheus) evaluate(f rulesFile, from, to time.Time) {
	p.t.Helper()
	for _, group := range f.Groups {
		interval, err := time.ParseDuration(group.Interval)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, rule := range group.Rules {
			if rule.Record == "" {
				continue
			}
			results, err := p.span(rule.Expr, from, to, interval)
			if err != nil {
				p.t.Fatalf("rule %s: %v", rule.Record, err)
			}
			var all []series
			for _, r := range results {
				s := series{labels: map[string]string{}}
				maps.Copy(s.labels, r.Metric)
				maps.Copy(s.labels, rule.Labels)
				s.labels["__name__"] = rule.Record
				for _, v := range r.Values {
					s.samples = append(s.samples, sample(v))
				}
				s.endGaps(to, interval)
				all = append(all, s)
			}
			p.write(all)
		}
	}
}
