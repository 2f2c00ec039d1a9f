// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// fill writes the history of the fleet, with the recording rules of its newest part, to
// blocks in a directory. It prints the cost of the rules.
//
// Rules and pages are written to one database in the order of time, because rules read
// their own results.
func (b *bench) fill(ctx context.Context, f *fleet, dir string) (exceeded bool, err error) {
	opts := tsdb.DefaultOptions()
	opts.WALSegmentSize = -1
	opts.MinBlockDuration = 4 * b.history.Milliseconds() // one head block
	opts.MaxBlockDuration = opts.MinBlockDuration
	db, err := tsdb.Open(filepath.Join(b.dir, "head"), slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.DisableCompactions()
	groups, err := b.loadRules(ctx, db)
	if err != nil {
		return false, err
	}
	ends := time.Now().Truncate(scrapeInterval)
	start := ends.Add(-b.history)
	w := newWriter(f)
	var used, ruled time.Duration
	for step := 0; ; step++ {
		t := start.Add(time.Duration(step) * scrapeInterval)
		if t.After(ends) {
			break
		}
		if err := w.write(ctx, db, t, step, t.Sub(start).Seconds()); err != nil {
			return false, err
		}
		if t.Before(ends.Add(-b.ruled)) {
			continue
		}
		before := cpu()
		for _, g := range groups {
			if t.Sub(start)%g.Interval() == 0 {
				g.Eval(ctx, t)
			}
		}
		used, ruled = used+cpu()-before, ruled+ruleInterval
		if step%10 == 0 {
			fmt.Fprintf(os.Stderr, "\r%s: rules took %v of CPU in %v ", t.Format(time.TimeOnly), used.Round(time.Millisecond), ruled)
		}
	}
	fmt.Fprintln(os.Stderr)
	if err := failures(groups); err != nil {
		return false, err
	}
	added, err := ruleSeries(ctx, db, ends)
	if err != nil {
		return false, err
	}
	share := used.Seconds() / ruled.Seconds()
	gpus := float64(b.nodes * gpusPerNode)
	fmt.Printf("\nRules, for %v\n", ruled)
	fmt.Printf("%-32s %10v %10.1f %% of a core (limit %.0f %%)\n", "CPU", used.Round(time.Millisecond), 100*share, 100*maxRuleCPU)
	fmt.Printf("%-32s %10d %10.2f per GPU   (limit %d)\n", "series of recording rules", added, float64(added)/gpus, maxRuleAdded)
	for _, line := range slowestRules(groups) {
		fmt.Println(line)
	}
	if err := db.Snapshot(dir, true); err != nil {
		return false, err
	}
	return share > maxRuleCPU || float64(added) > maxRuleAdded*gpus, nil
}

// cpu is the CPU time of this process.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // fails only for a wrong argument
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (b *bench) loadRules(ctx context.Context, db *tsdb.DB) ([]*rules.Group, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{Logger: logger, MaxSamples: 50_000_000, Timeout: 2 * time.Minute, Parser: p})
	manager := rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation,
		QueryFunc:            rules.EngineQueryFunc(engine, db),
		NotifyFunc:           func(context.Context, string, ...*rules.Alert) {},
		Context:              ctx, AppendableV2: db, Queryable: db, Logger: logger, Parser: p,
	})
	var files []string
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		files = append(files, filepath.Join(b.rules, name))
	}
	byName, errs := manager.LoadGroups(ruleInterval, labels.EmptyLabels(), "", nil, false, files...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var groups []*rules.Group
	for _, g := range byName {
		groups = append(groups, g)
	}
	// The recording rules are the first file.
	slices.SortFunc(groups, func(a, b *rules.Group) int {
		return cmp.Or(cmp.Compare(filepath.Base(b.File()), filepath.Base(a.File())), cmp.Compare(a.Name(), b.Name()))
	})
	return groups, nil
}

// failures returns the errors of rules.
func failures(groups []*rules.Group) (err error) {
	for _, g := range groups {
		for _, r := range g.Rules() {
			if r.LastError() != nil {
				err = errors.Join(err, fmt.Errorf("rule %s: %w", r.Name(), r.LastError()))
			}
		}
	}
	return err
}

// slowestRules has the time of the last evaluation of the ten slowest rules.
func slowestRules(groups []*rules.Group) (lines []string) {
	var all []rules.Rule
	for _, g := range groups {
		all = append(all, g.Rules()...)
	}
	slices.SortFunc(all, func(a, b rules.Rule) int { return cmp.Compare(b.GetEvaluationDuration(), a.GetEvaluationDuration()) })
	for _, r := range all[:min(10, len(all))] {
		lines = append(lines, fmt.Sprintf("  %-40s %10v", r.Name(), r.GetEvaluationDuration().Round(time.Millisecond)))
	}
	return lines
}

// ruleSeries counts the series of recording rules at a time: their names have a colon.
func ruleSeries(ctx context.Context, db *tsdb.DB, at time.Time) (n int, err error) {
	q, err := db.Querier(at.Add(-ruleInterval).UnixMilli(), at.UnixMilli())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	set := q.Select(ctx, false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+:.+"))
	for set.Next() {
		n++
	}
	return n, set.Err()
}

// writer appends the pages of a fleet.
type writer struct {
	fleet       *fleet
	refs        [][]storage.SeriesRef // by node and series
	generations []int64
}

func newWriter(f *fleet) *writer {
	w := &writer{fleet: f, generations: make([]int64, len(f.nodes))}
	for _, n := range f.nodes {
		w.refs = append(w.refs, make([]storage.SeriesRef, len(n.series)))
	}
	return w
}

// write appends one scrape of every node.
func (w *writer) write(ctx context.Context, db *tsdb.DB, t time.Time, step int, elapsed float64) error {
	ms := t.UnixMilli()
	for i, n := range w.fleet.nodes {
		app := db.AppenderV2(ctx)
		generation := n.generation(t)
		ended := step > 0 && generation != w.generations[i]
		w.generations[i] = generation
		for j := range n.series {
			s := &n.series[j]
			ref := &w.refs[i][j]
			if ended && s.owned && *ref != 0 {
				if _, err := app.Append(*ref, labels.EmptyLabels(), 0, ms, math.Float64frombits(value.StaleNaN), nil, nil, storage.AppendV2Options{}); err != nil {
					return err
				}
				*ref = 0
			}
			ls := labels.EmptyLabels()
			if *ref == 0 {
				ls = n.target(s.name, n.labelsOf(s, generation))
			}
			var err error
			if *ref, err = app.Append(*ref, ls, 0, ms, n.value(s, t, step, elapsed), nil, nil, storage.AppendV2Options{}); err != nil {
				return fmt.Errorf("%s of node %d: %w", s.name, n.number, err)
			}
		}
		if err := app.Commit(); err != nil {
			return err
		}
	}
	return nil
}
