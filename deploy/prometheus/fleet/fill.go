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
	"runtime/debug"
	"slices"
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
	costs := costsOf(groups)
	ends := time.Now().Truncate(scrapeInterval)
	gc, err := b.play(ctx, db, f, costs, ends)
	if err != nil {
		return false, err
	}
	if err := failures(groups); err != nil {
		return false, err
	}
	added, err := ruleSeries(ctx, db, ends)
	if err != nil {
		return false, err
	}
	share := printCosts(costs, gc)
	gpus := float64(b.nodes * gpusPerNode)
	fmt.Printf("%-54s %10.2f per GPU (limit %d): %d\n", "series of recording rules", float64(added)/gpus, maxRuleAdded, added)
	if err := db.Snapshot(dir, true); err != nil {
		return false, err
	}
	return share > maxRuleCPU || float64(added) > maxRuleAdded*gpus, nil
}

// play writes the history and evaluates the rules at its newest part.
func (b *bench) play(ctx context.Context, db *tsdb.DB, f *fleet, costs []*groupCost, ends time.Time) (gc collections, err error) {
	start, w := ends.Add(-b.history), newWriter(f)
	for step := 0; ; step++ {
		t := start.Add(time.Duration(step) * scrapeInterval)
		if t.After(ends) {
			fmt.Fprintln(os.Stderr)
			return gc, nil
		}
		if err := w.write(ctx, db, t, step, t.Sub(start).Seconds()); err != nil {
			return gc, err
		}
		if step%10 == 0 {
			fmt.Fprintf(os.Stderr, "\r%v of %v ", t.Sub(start), b.history)
		}
		if t.Before(ends.Add(-b.ruled)) {
			continue
		}
		if gc.count == 0 {
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
		}
		gc.collect()
		for _, g := range costs {
			if t.Sub(start)%g.Interval() == 0 {
				g.evaluate(ctx, t)
			}
		}
	}
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
