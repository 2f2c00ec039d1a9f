// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// systemd reports the state of the exporter to systemd (sd_notify(3)). It does nothing
// unless the unit has Type=notify, which sets NOTIFY_SOCKET.
type systemd struct {
	log       *slog.Logger
	ready     func() (bool, string) // whether GPUs answer, and if not, why
	refresh   func()                // requests a publication
	published chan struct{}         // holds one notice of a publication
}

// statusInterval is the time between reports without a watchdog.
const statusInterval = 30 * time.Second

func newSystemd(log *slog.Logger, ready func() (bool, string), refresh func()) *systemd {
	return &systemd{log: log, ready: ready, refresh: refresh, published: make(chan struct{}, 1)}
}

// serving reports that the exporter answers scrapes, which ends a start and a reload. It
// does not wait for a GPU: a restart cures neither a driver nor an engine.
func (s *systemd) serving() { s.notify(daemon.SdNotifyReady) }

// reloading reports that a reload has begun. Type=notify-reload needs the time.
func (s *systemd) reloading() {
	s.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// alive is called after each publication, and never blocks.
func (s *systemd) alive() {
	select {
	case s.published <- struct{}{}:
	default:
	}
}

// run answers the watchdog, and keeps the line in `systemctl status` up to date, until ctx
// ends. An answer follows a publication, so that systemd restarts an exporter whose
// publisher is stuck. The publisher does not wait for the driver, the engine or systemd.
func (s *systemd) run(ctx context.Context) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		<-ctx.Done()
		return nil
	}
	defer s.notify(daemon.SdNotifyStopping)
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading the time of the watchdog from WATCHDOG_USEC: %w", err)
	}
	pause := statusInterval
	if watchdog > 0 {
		pause = watchdog / 2 // as sd_watchdog_enabled(3) recommends
	}
	for {
		s.refresh()
		select {
		case <-ctx.Done():
			return nil
		case <-s.published:
		}
		status := "GPUs answer"
		if ready, why := s.ready(); !ready {
			status = "Not ready: " + why
		}
		s.notify(daemon.SdNotifyWatchdog + "\nSTATUS=" + status)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (s *systemd) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("Cannot report to systemd", "err", err)
	}
}
