// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	_ "unsafe" // for go:linkname

	godcgm "github.com/NVIDIA/go-dcgm/pkg/dcgm"

	"gpu_exporter/collector"
)

// goDCGMHandle is go-dcgm's connection. go-dcgm keeps it to itself; the other
// way to have it would be to connect by ourselves, and then nothing of go-dcgm
// could be used on the same engine. TestHandle fails when go-dcgm declares it
// otherwise, and connect checks what it finds.
//
//go:linkname goDCGMHandle github.com/NVIDIA/go-dcgm/pkg/dcgm.handle
var goDCGMHandle uintptr

// embeddedHandle is DCGM_EMBEDDED_HANDLE (dcgm_test_apis.h).
const embeddedHandle = 0x7fffffff

// FailureError is returned by [Run] when the sampler cannot go on, and a new one
// may or may not do better.
type FailureError struct {
	Failure collector.Failure
	err     error
}

func (e *FailureError) Error() string { return e.Failure.Message }

// Reason is the word for a metric label.
func (e *FailureError) Reason() string { return e.Failure.Reason }

func (e *FailureError) Unwrap() error { return e.err }

// failure makes a FailureError. err may be nil.
func failure(reason string, err error, format string, args ...any) *FailureError {
	message := fmt.Sprintf(format, args...)
	if err != nil {
		message += ": " + err.Error()
	}
	return &FailureError{collector.Failure{Reason: reason, Message: message}, err}
}

// engine is an open connection to a DCGM engine, embedded or standalone.
type engine struct {
	lib     *library
	version string
	close   func()
	file    os.FileInfo // of the library when it was opened
	// driverFile is there while the driver is loaded. It is empty when it was
	// there at the start, or the engine is not ours.
	driverFile string
}

// driverVersionFile is made by NVIDIA's kernel module.
const driverVersionFile = "/proc/driver/nvidia/version"

// connect loads the library and starts the embedded engine, or connects to the
// standalone one.
func connect(cfg collector.SamplerConfig) (*engine, error) {
	mode, args := godcgm.Embedded, []string(nil)
	if cfg.Hostengine != "" {
		a, err := collector.ParseHostengine(cfg.Hostengine)
		if err != nil {
			return nil, failure(collector.FailureConfig, err, "reading the configuration")
		}
		mode = godcgm.Standalone
		switch {
		case a.URI:
			args = []string{a.Target}
		case a.Unix:
			args = []string{a.Target, "1"}
		default:
			args = []string{a.Target, "0"}
		}
	} else if err := setLog(cfg.DCGMLogLevel); err != nil {
		return nil, failure(collector.FailureInitFailed, err, "directing DCGM's log")
	}

	lib, err := openLibrary()
	var open *openError
	if errors.As(err, &open) && open.missing {
		return nil, failure(collector.FailureSymbolMissing, nil, "libdcgm.so.4 has no function %s: it is older or newer than this exporter can use (DCGM 4.0 and later)", open.detail)
	}
	if err != nil {
		return nil, failure(collector.FailureLibraryMissing, err, "loading libdcgm.so.4 (install DCGM 4, or say where the library is with --dcgm.library-path)")
	}
	if len(args) == 1 && !lib.has("dcgmConnect_v3") {
		return nil, failure(collector.FailureSymbolMissing, nil, "libdcgm.so.4 has no function dcgmConnect_v3: vsock addresses need DCGM 4.5 or later")
	}
	file, err := os.Stat(lib.path)
	if err != nil {
		// Not a path that can be looked at; an update will go unnoticed.
		file = nil
	}

	_, driverErr := os.Stat(driverVersionFile)
	closeEngine, err := godcgm.Init(mode, args...)
	switch {
	case err != nil && mode == godcgm.Standalone:
		return nil, failure(collector.FailureHostengineUnreached, err, "connecting to the DCGM engine at %s", cfg.Hostengine)
	case err != nil:
		return nil, failure(collector.FailureInitFailed, err, "starting the embedded DCGM engine")
	case goDCGMHandle == 0, mode == godcgm.Embedded && goDCGMHandle != embeddedHandle:
		return nil, failure(collector.FailureInitFailed, nil, "go-dcgm has no handle where one was expected (%#x)", goDCGMHandle)
	}
	lib.setHandle(goDCGMHandle)
	e := &engine{lib: lib, close: closeEngine, file: file}
	if mode == godcgm.Embedded && errors.Is(driverErr, os.ErrNotExist) {
		e.driverFile = driverVersionFile
	}
	info, err := godcgm.GetHostengineVersionInfo()
	if err != nil {
		info, err = godcgm.GetVersionInfo()
	}
	if err == nil {
		e.version = buildVersion(info.RawBuildInfoString)
	}
	return e, nil
}

// setLog directs the log of an embedded engine to the standard output, which the
// supervisor copies into ours; DCGM would write /var/log/nv-hostengine.log. The
// library reads the variables when it is initialised, with C's getenv, which
// sees what os.Setenv sets in a program with cgo.
func setLog(level string) error {
	if level == "" {
		level = "NONE"
	}
	if err := os.Setenv("__DCGM_DBG_FILE", "-"); err != nil {
		return err
	}
	return os.Setenv("__DCGM_DBG_LVL", level)
}

// buildVersion takes the version out of DCGM's build information, which is
// key:value;key:value (dcgmVersionInfo_v2 in dcgm_structs.h).
func buildVersion(info string) string {
	for item := range strings.SplitSeq(info, ";") {
		if key, value, ok := strings.Cut(item, ":"); ok && strings.TrimSpace(key) == "version" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// updated says whether the library's file is no longer the one that was loaded.
func (e *engine) updated() bool {
	if e.file == nil {
		return false
	}
	now, err := os.Stat(e.lib.path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	}
	return !os.SameFile(now, e.file)
}

// driverArrived says whether the driver was loaded after an embedded engine had
// started without it: the engine then knows no GPU, and will not look again.
func (e *engine) driverArrived() bool {
	if e.driverFile == "" {
		return false
	}
	_, err := os.Stat(e.driverFile)
	return err == nil
}

// capabilities asks for what each GPU that is up can profile.
func (e *engine) capabilities(top topology) (map[uint32]capability, code) {
	out := make(map[uint32]capability, len(top.gpus))
	for _, g := range top.gpus {
		if !up(g.status) {
			continue
		}
		groups, err := godcgm.GetSupportedMetricGroups(uint(g.id))
		if err != nil {
			c := codeNotSupported
			var dcgmError *godcgm.Error
			if errors.As(err, &dcgmError) {
				c = code(dcgmError.Code)
			}
			if c.lost() {
				return nil, c
			}
			out[g.id] = capability{status: c.status()}
			continue
		}
		fields := make(map[uint16]metricGroup)
		for _, group := range groups {
			for _, f := range group.FieldIds {
				fields[uint16(f)] = metricGroup{group.Major, group.Minor}
			}
		}
		out[g.id] = capability{fields: fields}
	}
	return out, codeOK
}
