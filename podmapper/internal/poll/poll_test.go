// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package poll

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gpu_exporter/podmapper/internal/sourcetest"
)

// The tests run in bubbles of testing/synctest, so time is virtual.

type table struct{ n int }

// script is a source whose refreshes are set by the test.
type script struct {
	mu      sync.Mutex
	starts  []time.Duration // since the beginning
	began   time.Time
	takes   time.Duration
	err     error
	next    *table // nil: the previous one
	running int
	most    int
	log     sourcetest.Log
}

func (s *script) refresh(ctx context.Context, previous *table) (*table, error) {
	s.mu.Lock()
	s.starts = append(s.starts, time.Since(s.began))
	s.running++
	s.most = max(s.most, s.running)
	takes, err, next := s.takes, s.err, s.next
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.running--; s.mu.Unlock() }()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if next == nil {
		next = previous
	}
	return next, err
}

func (s *script) set(f func()) { s.mu.Lock(); defer s.mu.Unlock(); f() }

func (s *script) count(text string) int { return strings.Count(s.log.String(), text) }

func newPoller(s *script, adjust ...func(*Config[table])) *Poller[table] {
	s.began = time.Now()
	c := Config[table]{
		Options: Options{
			Name: "test", MaxAge: time.Minute,
			Hints: map[Reason]string{NoSocket: "do something about no_socket", Timeout: "do something about timeout", Other: "do something about other"},
			Log:   s.log.Logger(),
		},
		Refresh: s.refresh, Interval: 10 * time.Second,
	}
	for _, f := range adjust {
		f(&c)
	}
	return New(c)
}

// run runs p for a time, and returns when it has ended.
func run(t *testing.T, p *Poller[table], during func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	during()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func equalTimes(got []time.Duration, want ...time.Duration) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if d := got[i] - want[i]; d < 0 || d > 5*time.Millisecond {
			return false
		}
	}
	return true
}

// TestConfirm checks that the first success after Confirm is noticed without a change.
func TestConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}}
		p := newPoller(s)
		run(t, p, func() {
			time.Sleep(time.Second)
			<-p.Changed()
			s.set(func() { s.err = errors.New("broken") })
			p.Confirm()
			time.Sleep(time.Second)
			if n := len(p.Changed()); n != 0 || s.count("Owner source failed") == 0 {
				t.Errorf("%d notices of a failure", n)
			}
			s.set(func() { s.err = nil })
			time.Sleep(30 * time.Second)
			if n := len(p.Changed()); n != 1 {
				t.Errorf("%d notices of a confirmation", n)
			}
			<-p.Changed()
			time.Sleep(30 * time.Second)
			if n := len(p.Changed()); n != 0 {
				t.Errorf("%d notices of the same table", n)
			}
		})
	})
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}}
		p := newPoller(s)
		if p.Table() != nil {
			t.Error("a table before the first refresh")
		}
		run(t, p, func() { time.Sleep(25 * time.Second) })
		if !equalTimes(s.starts, 0, 10*time.Second, 20*time.Second) {
			t.Errorf("refreshes at %v", s.starts)
		}
		if got := p.Table(); got != s.next {
			t.Errorf("table %v", got)
		}
		if n := s.count("Owner source is up"); n != 1 {
			t.Errorf("%d messages about the start", n)
		}
	})
}

func TestTriggers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}, takes: 50 * time.Millisecond}
		p := newPoller(s)
		run(t, p, func() {
			time.Sleep(time.Second)
			p.Trigger()
			time.Sleep(10 * time.Millisecond) // it is running
			for range 1000 {
				p.Trigger()
			}
			p.TriggerAfter(2 * time.Second)
			time.Sleep(14 * time.Second)
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.due) > 3 {
				t.Errorf("%d requests are kept", len(p.due))
			}
		})
		// The triggers during the second refresh need a third, after the least pause.
		if !equalTimes(s.starts, 0, 1000*time.Millisecond, 1150*time.Millisecond, 3010*time.Millisecond, 13060*time.Millisecond) {
			t.Errorf("refreshes at %v", s.starts)
		}
		if s.most != 1 {
			t.Errorf("%d refreshes at the same time", s.most)
		}
	})
}

func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}, takes: 100 * time.Millisecond}
		p := newPoller(s, func(c *Config[table]) { c.Rest = 10 })
		run(t, p, func() {
			for range 100 {
				p.Trigger()
				time.Sleep(50 * time.Millisecond)
			}
		})
		if n := len(s.starts); n < 4 || n > 5 { // each takes 0.1 s and rests 1 s
			t.Errorf("%d refreshes at %v", n, s.starts)
		}
	})
}

// TestRetry checks that no trigger makes a failing source busy, and that a success
// resets the pauses.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{err: errors.New("broken")}
		p := newPoller(s)
		run(t, p, func() {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if !equalTimes(s.starts, 0, 1*time.Second, 3*time.Second, 7*time.Second, 15*time.Second, 25*time.Second) {
				t.Errorf("refreshes at %v", s.starts)
			}
			s.set(func() { s.starts = nil })
			for range 1000 {
				p.Trigger()
				time.Sleep(10 * time.Millisecond)
			}
			s.set(func() {
				if n := len(s.starts); n > 11 {
					t.Errorf("%d refreshes of a failing source in 10 s", n)
				}
			})
			s.set(func() { s.err, s.next = nil, &table{1} })
			time.Sleep(20 * time.Second)
			s.set(func() { s.err, s.starts, s.began = errors.New("broken"), nil, time.Now() })
			time.Sleep(12 * time.Second)
			s.set(func() {
				if n := len(s.starts); n < 2 || s.starts[1]-s.starts[0] > 1100*time.Millisecond {
					t.Errorf("refreshes at %v after a success", s.starts)
				}
			})
		})
	})
}

func TestStatusAndLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}, takes: time.Millisecond}
		p := newPoller(s)
		refresh := func() {
			if err := p.Refresh(t.Context()); !errors.Is(err, s.err) {
				t.Errorf("Refresh: %v, want %v", err, s.err)
			}
		}
		refresh()
		first := time.Now().Add(-time.Millisecond)
		if st := p.Status(); !st.Up || st.Refreshes != 1 || !st.LastSuccess.Equal(first) || st.Duration != time.Millisecond || len(st.Failures) != 3 {
			t.Errorf("status %+v", st)
		}
		s.err = &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission} // not a reason of this source
		refresh()
		refresh()
		s.err = context.DeadlineExceeded
		refresh()
		st := p.Status()
		if st.Up || st.Refreshes != 4 || st.Failures[Other] != 2 || st.Failures[Timeout] != 1 || st.Reason != Timeout || st.Err == nil || !st.LastSuccess.Equal(first) {
			t.Errorf("status %+v", st)
		}
		st.Failures[Other] = 99
		if p.Status().Failures[Other] != 2 {
			t.Error("Status is not a copy")
		}
		if n := s.count("level=WARN"); n != 2 || s.count("do something about timeout") != 1 {
			t.Errorf("%d warnings:\n%s", n, s.log.String())
		}
		if p.Table() != s.next {
			t.Error("a failure took the table")
		}
		s.err = nil
		refresh()
		if st := p.Status(); !st.Up || st.Reason != "" || st.Err != nil || s.count("Owner source is up") != 2 {
			t.Errorf("status %+v\n%s", st, s.log.String())
		}
		s.err = context.DeadlineExceeded
		refresh()
		if n := s.count("level=WARN"); n != 3 {
			t.Errorf("%d warnings after a recovery, want one more: 3", n)
		}
		p.Count(Timeout)
		if p.Status().Failures[Timeout] != 3 {
			t.Error("Count does not count")
		}
	})
}

func TestCanceledRefreshIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}, takes: time.Hour}
		p := newPoller(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _ = p.Refresh(ctx) }()
		time.Sleep(time.Millisecond)
		if err := p.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) { // waits for its turn
			t.Errorf("Refresh: %v", err)
		}
		synctest.Wait()
		if st := p.Status(); st.Refreshes != 0 || st.Err != nil || len(s.starts) != 1 {
			t.Errorf("status %+v, refreshes %v", st, s.starts)
		}
	})
}

func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}}
		p := newPoller(s)
		changed := func() bool {
			select {
			case <-p.Changed():
				return true
			default:
				return false
			}
		}
		for i, want := range []bool{true, false, true} {
			if i == 2 {
				s.next = &table{2}
			}
			_ = p.Refresh(t.Context())
			if got := changed(); got != want {
				t.Errorf("refresh %d: changed %v, want %v", i, got, want)
			}
		}
		p.Forget()
		if p.Table() != nil || !changed() {
			t.Error("Forget keeps the table")
		}
	})
}

// TestExpiry checks that a table expires while a refresh hangs, that this is
// announced and logged once, and that the same table becomes valid again.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{next: &table{1}}
		p := newPoller(s)
		run(t, p, func() {
			time.Sleep(time.Second)
			<-p.Changed()
			s.set(func() { s.takes = 55 * time.Second }) // from 10 s to 65 s
			time.Sleep(58 * time.Second)
			if p.Table() == nil {
				t.Error("expired too early")
			}
			time.Sleep(2 * time.Second)
			if p.Table() != nil {
				t.Error("not expired")
			}
			select {
			case <-p.Changed():
			default:
				t.Error("the expiry is not announced")
			}
			if last, at := p.Last(); last != s.next || at.IsZero() {
				t.Errorf("the last table is %v of %v", last, at)
			}
			s.set(func() { s.takes = 0 })
			time.Sleep(5 * time.Second)
			<-p.Changed()
			if got := p.Table(); got != s.next {
				t.Errorf("table %v", got)
			}
		})
		if s.count("has expired") != 1 || s.count("Owner source is up") != 2 {
			t.Errorf("log:\n%s", s.log.String())
		}
	})
}

// TestLive checks a source of events: its table does not age while it is up, and
// failures of a source that is up for moments only are logged once.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log sourcetest.Log
		s := NewSource[table](Options{
			Name: "live", Hints: map[Reason]string{Unavailable: "", Other: ""}, MaxAge: time.Minute, Live: true,
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		one := &table{1}
		s.Succeed(time.Now(), one)
		time.Sleep(time.Hour)
		if s.Table() != one || time.Since(s.Status().LastSuccess) != 0 {
			t.Error("a live table ages")
		}
		broken := WithReason(Unavailable, errors.New("the stream ended"))
		for range 10 { // it flaps
			s.Fail(time.Now(), broken)
			time.Sleep(time.Second)
			s.Succeed(time.Now(), one)
		}
		if warnings, up := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "is up"); warnings != 1 || up != 2 {
			t.Errorf("%d warnings and %d recoveries of a flapping source", warnings, up)
		}
		time.Sleep(2 * time.Minute)
		s.Fail(time.Now(), broken)
		if warnings := strings.Count(log.String(), "level=WARN"); warnings != 2 {
			t.Errorf("%d warnings after a steady time", warnings)
		}
		time.Sleep(59 * time.Second)
		if s.Table() != one {
			t.Error("expired too early after the end of the stream")
		}
		time.Sleep(2 * time.Second)
		if s.Table() != nil {
			t.Error("not expired after the end of the stream")
		}
		s.Succeed(time.Now(), one)
		s.Stop()
		if st := s.Status(); st.Up || st.Err != nil || s.Table() != nil {
			t.Errorf("stopped: status %+v", st)
		}
	})
}

// TestQuietReasons checks the level of expected failures.
func TestQuietReasons(t *testing.T) {
	var log sourcetest.Log
	s := NewSource[table](Options{
		Name: "quiet", Hints: map[Reason]string{NotFound: "", Other: ""}, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Level: func(r Reason) slog.Level {
			if r == NotFound {
				return slog.LevelDebug
			}
			return slog.LevelWarn
		},
	})
	s.Fail(time.Now(), fs.ErrNotExist)
	if log.String() != "" {
		t.Errorf("log: %s", log.String())
	}
	s.Fail(time.Now(), fs.ErrClosed)
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: %s", log.String())
	}
}

// TestPublish checks a table without a success: it is valid, and ages.
func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSource[table](Options{Name: "listed", Hints: map[Reason]string{Other: ""}, MaxAge: time.Minute, Live: true})
		one := &table{1}
		s.Publish(one)
		<-s.Changed()
		if s.Table() != one || s.Status().Up {
			t.Errorf("table %v, status %+v", s.Table(), s.Status())
		}
		time.Sleep(61 * time.Second)
		if s.Table() != nil {
			t.Error("a table without a success does not age")
		}
		s.Succeed(time.Now(), one)
		s.Publish(&table{2}) // a list between two watches
		time.Sleep(time.Hour)
		if got := s.Table(); got == nil || got.n != 2 || !s.Status().Up {
			t.Errorf("table %v, status %+v", got, s.Status())
		}
	})
}
