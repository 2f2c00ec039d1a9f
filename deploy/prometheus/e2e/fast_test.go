// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

const day = 24 * time.Hour

// faster divides a duration of a rule by the factor. A day becomes as short as an hour:
// otherwise rules about a day would take half an hour.
func faster(d time.Duration, factor int) time.Duration {
	if d >= day {
		d /= 24
	}
	return d / time.Duration(factor)
}

// fastExpr divides every range, offset and step of an expression, and every number that the age
// of a timestamp is compared with. Rates, ratios and counts remain.
func fastExpr(text string, factor int) (string, error) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return "", err
	}
	var calls, ages int
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.MatrixSelector:
			n.Range = faster(n.Range, factor)
		case *parser.VectorSelector:
			n.OriginalOffset = faster(n.OriginalOffset, factor)
		case *parser.SubqueryExpr:
			n.Range, n.Step = faster(n.Range, factor), faster(n.Step, factor)
			n.OriginalOffset = faster(n.OriginalOffset, factor)
		case *parser.Call:
			if n.Func.Name == "time" {
				calls++
			}
		case *parser.BinaryExpr:
			limit, number := n.RHS.(*parser.NumberLiteral)
			if n.Op.IsComparisonOperator() && number && isAge(n.LHS) {
				limit.Val = faster(time.Duration(limit.Val*float64(time.Second)), factor).Seconds()
				ages++
			}
		}
		return nil
	})
	if calls != ages {
		return "", fmt.Errorf("%s has %d calls of time(), but %d comparisons of an age with a number", text, calls, ages)
	}
	return expr.String(), nil
}

// isAge reports whether an expression is time() - x, possibly in functions such as abs.
func isAge(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return isAge(e.Expr)
	case *parser.BinaryExpr:
		call, ok := e.LHS.(*parser.Call)
		return e.Op == parser.SUB && ok && call.Func.Name == "time"
	case *parser.Call:
		return len(e.Args) > 0 && isAge(e.Args[0])
	}
	return false
}

// ruleFile is the format of Prometheus' rule files.
type ruleFile struct {
	Groups []struct {
		Name     string         `yaml:"name"`
		Interval model.Duration `yaml:"interval,omitempty"`
		Rules    []struct {
			Alert         string            `yaml:"alert"`
			Expr          string            `yaml:"expr"`
			For           model.Duration    `yaml:"for,omitempty"`
			KeepFiringFor model.Duration    `yaml:"keep_firing_for,omitempty"`
			Labels        map[string]string `yaml:"labels"`
			Annotations   map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// scrapePatience is how long GPUExporterDown waits at least. A busy machine answered no scrape for
// 20 s, and a fast copy of the rule counts this as a dead exporter.
const scrapePatience = time.Minute

// fastRules returns the content of alerts.yaml with all durations divided.
func fastRules(t *testing.T, factor int) ruleFile {
	t.Helper()
	content, err := os.ReadFile("../alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for i := range file.Groups {
		g := &file.Groups[i]
		g.Interval = 0 // Prometheus' own, 1 s
		for i := range g.Rules {
			r := &g.Rules[i]
			var err error
			if r.Expr, err = fastExpr(r.Expr, factor); err != nil {
				t.Fatalf("%s: %v", r.Alert, err)
			}
			r.For = model.Duration(faster(time.Duration(r.For), factor))
			if r.Alert == "GPUExporterDown" {
				r.For = max(r.For, model.Duration(scrapePatience))
			}
			r.KeepFiringFor = model.Duration(faster(time.Duration(r.KeepFiringFor), factor))
		}
	}
	return file
}

// fastAlertmanager returns the example's configuration with all durations divided, and with a
// webhook behind each receiver.
func fastAlertmanager(t *testing.T, webhook string, factor int) string {
	t.Helper()
	text, err := os.ReadFile("../examples/alertmanager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	waits := regexp.MustCompile(`(?m)(group_wait|group_interval|repeat_interval): (\w+)`)
	fast := waits.ReplaceAllStringFunc(string(text), func(line string) string {
		m := waits.FindStringSubmatch(line)
		d, err := model.ParseDuration(m[2])
		if err != nil {
			t.Fatal(err)
		}
		// Notifications are not repeated: a repeat_interval of a week remains long.
		return m[1] + ": " + model.Duration(time.Duration(d)/time.Duration(factor)).String()
	})
	var config map[string]any
	if err := yaml.Unmarshal([]byte(fast), &config); err != nil {
		t.Fatal(err)
	}
	receivers, _ := config["receivers"].([]any)
	if len(receivers) == 0 {
		t.Fatal("examples/alertmanager.yaml has no receivers")
	}
	for _, r := range receivers {
		receiver, ok := r.(map[string]any)
		if !ok {
			t.Fatalf("receiver %v", r)
		}
		for key := range receiver {
			if key != "name" {
				delete(receiver, key)
			}
		}
		receiver["webhook_configs"] = []any{map[string]any{"url": webhook, "send_resolved": true}}
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestFastRules: the fast copy of the rules differs only in durations, and has all of them.
func TestFastRules(t *testing.T) {
	for in, want := range map[string]string{
		`time() - max by (UUID) (x) < 600`:                     `time() - max by (UUID) (x) < 10`,
		`abs(time() - x) > 300`:                                `abs(time() - x) > 5`,
		`rate(x[15m] offset 1m) > 0.05`:                        `rate(x[15s] offset 1s) > 0.05`,
		`changes(x[1d]) >= 4`:                                  `changes(x[1m]) >= 4`,
		`count(time() - x < 86400) == 1`:                       `count(time() - x < 60) == 1`,
		`max_over_time((x > 600)[1d:10m])`:                     `max_over_time((x > 600)[1m:10s])`,
		`x unless on (job) (time() - process_start < 900) > 3`: `x unless on (job) (time() - process_start < 15) > 3`,
	} {
		if got, err := fastExpr(in, 60); err != nil || got != want {
			t.Errorf("%s becomes %s (%v), want %s", in, got, err, want)
		}
	}
	if got, err := fastExpr(`max(time() - x) < 600`, 60); err == nil {
		t.Errorf("an age that is not scaled became %s without an error", got)
	}
	for _, g := range fastRules(t, 60).Groups {
		for _, r := range g.Rules {
			if time.Duration(r.For) > time.Minute {
				t.Errorf("%s waits for %v", r.Alert, r.For)
			}
		}
	}
	if config := fastAlertmanager(t, "http://localhost", 60); strings.Contains(config, ": 30s") || !strings.Contains(config, "group_wait: 500ms") {
		t.Errorf("the configuration of Alertmanager is not fast:\n%s", config)
	}
}
