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
	"runtime"
	"syscall"

	"github.com/prometheus/common/version"
	"k8s.io/klog/v2"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/doctor"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/cmd/gpu_exporter/internal/reload"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
)

// heapProfileRate is the number of bytes per sample of the heap; main sets none.
const heapProfileRate = 512 << 10 // the default of package runtime

// run is the program: it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	if len(args) > 0 && args[0] == sampler.Command {
		return sampler.Main(args[1:], stdin, stderr)
	}
	line, err := config.Parse(args, environ, stdout, owners.ReadConfigMap)
	if err != nil {
		var mistakes *config.Error
		if !errors.As(err, &mistakes) {
			mistakes = &config.Error{Mistakes: []string{err.Error()}}
		}
		for _, mistake := range mistakes.Mistakes {
			fmt.Fprintf(stderr, "%s: error: %s\n", config.ProgramName, mistake)
		}
		if !mistakes.InFile { // --help does not describe the file
			fmt.Fprintf(stderr, "%s: see --help\n", config.ProgramName)
		}
		return 1
	}
	switch line.Command {
	case "":
		return 0
	case config.CheckConfig:
		return doctor.CheckConfig(line, checkSetup(environ), stdout, stderr)
	}

	ends := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	if line.Command == config.Doctor || line.Command == config.Fields {
		ends = append(ends, syscall.SIGHUP) // of a terminal; hangup.go ignores it
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	switch line.Command {
	case config.Doctor:
		return doctor.Run(ctx, line, openNode(environ, stderr), stdout, stderr)
	case config.Ready:
		return ready(ctx, line.Exporter, stdout, stderr)
	case config.Fields:
		return doctor.Fields(ctx, line, openNode(environ, stderr), stdout, stderr)
	}
	if line.Config.Pprof {
		runtime.MemProfileRate = heapProfileRate
	}
	log, logger, err := newLogQueue(line.Config, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", config.ProgramName, err)
		return 1
	}
	defer log.close()
	if line.Command == config.Serve {
		// A log without a reader must not end the server. Without Notify, a write to
		// standard error then kills the process.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	}
	klog.SetSlogLogger(logger) // where client-go logs
	if err := runExporter(ctx, line, stdout, log, environ, logger); err != nil {
		reload.LogError(logger, err, "gpu_exporter ends")
		return 1
	}
	return 0
}

// runExporter serves, or prints one sample.
func runExporter(ctx context.Context, line config.CommandLine, stdout io.Writer, log *logQueue, environ []string, logger *slog.Logger) error {
	logger.Info("Starting "+config.ProgramName, "version", version.Info(), "build", version.BuildContext())
	for _, w := range line.Warnings {
		logger.Warn(w)
	}
	env, err := newSamplerEnv(&line.Config.Static, environ)
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
	supervisorLog, records := logger, io.Writer(log)
	if line.Command == config.Once {
		line.Config.Interval = min(line.Config.Interval, onceInterval)
		if line.Config.LogLevel != "debug" {
			// It announces retries, which do not happen. The error at the end is the
			// reason for a missing sample.
			supervisorLog, records = slog.New(slog.DiscardHandler), nil
		}
	}
	e, err := newExporter(line.Config, env, logger, supervisorLog, records)
	if err != nil {
		return err
	}
	if line.Command == config.Once {
		defer reload.OnHangup(func() { logger.Info("SIGHUP is ignored: one sample is taken with the configuration as it was") })()
		return e.once(ctx, stdout, line.All)
	}
	if err := e.registry.Register(log.metric(func() uint64 { return e.collector.SamplerStatus().LinesDropped })); err != nil {
		return fmt.Errorf("registering the metric of the log: %w", err)
	}
	e.reloader = reload.New(reload.Config{Log: logger, Files: line.Config.Files, Load: func() (config.Config, []string, error) {
		e.systemd.reloading()
		return line.Again()
	}, Apply: e.reload, Done: e.reloaded})
	if err := e.reloader.Register(e.registry); err != nil {
		return err
	}
	defer reload.OnHangup(func() { _ = e.reloader.Reload(ctx, "SIGHUP") })() // logged there
	return e.serve(ctx)
}
