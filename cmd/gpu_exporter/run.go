// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"k8s.io/klog/v2"

	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
)

// gcPercent lets the heap grow by a quarter between collections. Exporter and
// sampler allocate little, and the memory belongs to the node's workloads.
const gcPercent = 25

// run is the program: it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if len(args) > 0 && args[0] == sampler.Command {
		return sampler.Main(args[1:], stdin, stderr)
	}
	line, err := parseCommandLine(args, environ, stdout, stderr)
	if err != nil {
		for problem := range strings.Lines(err.Error()) {
			printf(stderr, "%s: error: %s\n", programName, strings.TrimSuffix(problem, "\n"))
		}
		if mistakes := (fileMistakes{}); !errors.As(err, &mistakes) { // which --help does not know of
			printf(stderr, "%s: see --help\n", programName)
		}
		return 1
	}
	switch line.command {
	case "":
		return 0
	case commandCheckConfig:
		return checkConfig(line.config, line.warnings, environ, stdout, stderr)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if line.command == commandDoctor {
		return diagnose(ctx, line, stdout, stderr, environ)
	}
	if line.command == commandFields {
		return listFields(ctx, line, stdout, stderr, environ)
	}
	logger, err := newLogger(line.config, stderr)
	if err != nil {
		printf(stderr, "%s: error: %v\n", programName, err)
		return 1
	}
	signal.Ignore(syscall.SIGHUP) // until there is something to reload
	klog.SetSlogLogger(logger)    // where client-go logs
	if err := runExporter(ctx, line, stdout, stderr, environ, logger); err != nil {
		logError(logger, err, "gpu_exporter ends")
		return 1
	}
	return 0
}

// logError logs msg with err, or first each line of err by itself, if it has several: in
// one record they would be hard to read, and most logs are read by line.
func logError(logger *slog.Logger, err error, msg string, args ...any) {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' })
	if len(lines) <= 1 {
		logger.Error(msg, append(args, "err", strings.Join(lines, ""))...)
		return
	}
	for _, line := range lines {
		logger.Error(line)
	}
	logger.Error(msg, append(args, "errors", len(lines))...)
}

// onHangup calls reload at each SIGHUP, as dcgm-exporter does, until stop.
func onHangup(reload func()) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			reload()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

// runExporter serves, or prints one sample.
func runExporter(ctx context.Context, line commandLine, stdout, stderr io.Writer, environ []string, logger *slog.Logger) error {
	logger.Info("Starting "+programName, "version", version.Info(), "build", version.BuildContext())
	for _, w := range line.warnings {
		logger.Warn(w)
	}
	if line.command == commandServe {
		// Before anything is started that a mistake in it would tear down again.
		if err := web.Validate(line.config.WebConfigFile); err != nil {
			return fmt.Errorf("reading the web configuration %s: %w", line.config.WebConfigFile, err)
		}
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the path of this program: %w", err)
	}
	env, err := newSamplerEnv(line.config, environ, executable)
	defer func() {
		if err := env.Close(); err != nil {
			logger.Warn("Cannot clean up", "err", err)
		}
	}()
	if err != nil {
		return err
	}
	if env.Warning != "" {
		logger.Warn(env.Warning)
	}
	supervisorLog, records := logger, stderr
	if line.command == commandOnce {
		line.config.Interval = min(line.config.Interval, onceInterval)
		if line.config.LogLevel != "debug" {
			// It announces retries, which do not happen. The error at the end is the
			// reason for a missing sample.
			supervisorLog, records = slog.New(slog.DiscardHandler), nil
		}
	}
	e, err := newExporter(line.config, env, logger, supervisorLog, records)
	if err != nil {
		return err
	}
	if line.command == commandOnce {
		defer onHangup(func() { logger.Info("SIGHUP is ignored: one sample is taken with the configuration as it was") })()
		return e.once(ctx, stdout)
	}
	e.reloader = newReloader(logger, line.again, e.reload, e.reloadEnded)
	e.reloader.watchFiles(line.config)
	for _, gauge := range []prometheus.Collector{e.reloader.successful, e.reloader.succeeded} {
		if err := e.registry.Register(gauge); err != nil {
			return fmt.Errorf("registering the metrics of reloading: %w", err)
		}
	}
	defer onHangup(func() { _ = e.reloader.reload("SIGHUP") })() // it says itself how that went
	return e.serve(ctx)
}

// printf writes for people to read. Where nobody reads any more, there is nobody
// to tell of the error.
func printf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

func newLogger(c config, stderr io.Writer) (*slog.Logger, error) {
	level, format := promslog.NewLevel(), promslog.NewFormat()
	if err := level.Set(c.LogLevel); err != nil {
		return nil, fmt.Errorf("setting the log level: %w", err)
	}
	if err := format.Set(c.LogFormat); err != nil {
		return nil, fmt.Errorf("setting the log format: %w", err)
	}
	return promslog.New(&promslog.Config{Level: level, Format: format, Writer: stderr}), nil
}
