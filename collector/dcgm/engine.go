// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	godcgm "github.com/NVIDIA/go-dcgm/pkg/dcgm"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// FailureError is the reason why the sampler cannot continue. A new sampler may succeed.
type FailureError struct {
	Failure model.Failure
	err     error
}

func (e *FailureError) Error() string { return e.Failure.Message }

func (e *FailureError) Unwrap() error { return e.err }

// failure makes a FailureError. err may be nil.
func failure(reason string, err error, format string, args ...any) *FailureError {
	message := fmt.Sprintf(format, args...)
	if err != nil {
		message += ": " + err.Error()
	}
	return &FailureError{model.Failure{Reason: reason, Message: message}, err}
}

// engine is an open connection to a DCGM engine, embedded or standalone.
type engine struct {
	lib     *native.Library
	version string
	close   func()
	file    os.FileInfo // of the library when it was opened; nil if unknown
	// driverFile appears when the driver is loaded. It is empty if the driver was
	// loaded before, or if the engine is standalone.
	driverFile string
}

// driverVersionFile is a file of NVIDIA's kernel module.
const driverVersionFile = "/proc/driver/nvidia/version"

// connect loads the library and starts the embedded engine, or connects to the
// standalone engine.
//
// go-dcgm does not export its handle. Our calls to the embedded engine use its
// constant handle, and our calls to a standalone engine use a second connection.
func connect(cfg wire.SamplerConfig) (*engine, error) {
	embedded := cfg.Hostengine == ""
	var address wire.Hostengine
	var err error
	if embedded {
		if err := setLog(cfg.DCGMLogLevel); err != nil {
			return nil, failure(model.FailureInitFailed, err, "redirecting DCGM's log")
		}
	} else if address, err = wire.ParseHostengine(cfg.Hostengine); err != nil {
		return nil, failure(model.FailureConfig, err, "reading the configuration")
	}

	lib, err := native.Open()
	var open *native.OpenError
	if errors.As(err, &open) && open.Missing {
		return nil, failure(model.FailureSymbolMissing, nil, "libdcgm.so.4 has no function %s: its version is not supported (use DCGM 4.0 or later)", open.Detail)
	}
	if err != nil {
		return nil, failure(model.FailureLibraryMissing, err, "loading libdcgm.so.4 (install datacenter-gpu-manager-4-core, or set --dcgm.library-path)")
	}
	if address.URI && !lib.Has("dcgmConnect_v3") {
		return nil, failure(model.FailureSymbolMissing, nil, "libdcgm.so.4 has no function dcgmConnect_v3: vsock addresses need DCGM 4.5 or later")
	}
	e := &engine{lib: lib}
	e.file, _ = os.Stat(lib.Path) // nil if it is not a file: then an update remains unnoticed
	if embedded {
		if _, err := os.Stat(driverVersionFile); errors.Is(err, os.ErrNotExist) {
			e.driverFile = driverVersionFile
		}
		if e.close, err = godcgm.Init(godcgm.Embedded); err != nil {
			return nil, failure(model.FailureInitFailed, err, "starting the embedded DCGM engine")
		}
		lib.UseEmbedded()
	} else if err := e.connectStandalone(address); err != nil {
		return nil, failure(model.FailureHostengineUnreached, err, "connecting to the DCGM engine at %s", cfg.Hostengine)
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

// connectStandalone makes the connections of go-dcgm and of our own calls.
func (e *engine) connectStandalone(address wire.Hostengine) error {
	kind, args := native.AddressTCP, []string{address.Target, "0"}
	switch {
	case address.URI:
		kind, args = native.AddressURI, []string{address.Target}
	case address.Unix:
		kind, args = native.AddressUnix, []string{address.Target, "1"}
	}
	closeEngine, err := godcgm.Init(godcgm.Standalone, args...)
	if err != nil {
		return err
	}
	if c := e.lib.Connect(address.Target, kind); c != native.OK {
		closeEngine()
		return e.lib.Err(c, "opening a second connection")
	}
	e.close = func() {
		e.lib.Disconnect()
		closeEngine()
	}
	return nil
}

// setLog redirects the log of an embedded engine to the standard output, which the
// supervisor copies into our log. By default DCGM writes /var/log/nv-hostengine.log.
// The library reads the variables with C's getenv when it is initialised; with cgo,
// os.Setenv sets those as well.
func setLog(level string) error {
	if level == "" {
		level = "NONE"
	}
	if err := os.Setenv("__DCGM_DBG_FILE", "-"); err != nil {
		return err
	}
	return os.Setenv("__DCGM_DBG_LVL", level)
}

// buildVersion returns the version in DCGM's build information, a list
// "key:value;key:value" (dcgmVersionInfo_v2 in dcgm_structs.h).
func buildVersion(info string) string {
	for item := range strings.SplitSeq(info, ";") {
		if key, value, ok := strings.Cut(item, ":"); ok && strings.TrimSpace(key) == "version" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// updated reports whether the library's file was replaced or removed.
func (e *engine) updated() bool {
	if e.file == nil {
		return false
	}
	now, err := os.Stat(e.lib.Path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	}
	return !os.SameFile(now, e.file)
}

// driverArrived reports whether the driver was loaded after an embedded engine
// started without it. Such an engine never finds the GPUs.
func (e *engine) driverArrived() bool {
	if e.driverFile == "" {
		return false
	}
	_, err := os.Stat(e.driverFile)
	return err == nil
}

// capabilities returns the profiling fields of each GPU that is up, by its ID.
func (e *engine) capabilities(top native.Topology) (map[uint32]capability, native.Code) {
	out := make(map[uint32]capability, len(top.GPUs))
	for _, g := range top.GPUs {
		if !g.Status.Up() {
			continue
		}
		list, c := e.lib.ProfilingFields(g.ID)
		if c.EngineLost() {
			return nil, c
		}
		fields := make(map[uint16]bool, len(list))
		for _, f := range list {
			fields[f] = true
		}
		out[g.ID] = capability{fields: fields, status: c.Status()}
	}
	return out, native.OK
}
