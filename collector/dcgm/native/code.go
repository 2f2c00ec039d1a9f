// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

// #include "library.h"
import "C"

import (
	"fmt"

	"gpu_exporter/collector/model"
)

// Code is a dcgmReturn_t (dcgm_structs.h).
type Code int32

// The codes that this package or its callers distinguish.
const (
	OK                      Code = 0
	BadParam                Code = -1
	NotSupported            Code = -6
	Uninitialized           Code = -10
	Timeout                 Code = -11
	UnknownField            Code = -13
	NoData                  Code = -14
	StaleData               Code = -15
	NotWatched              Code = -16
	NoPermission            Code = -17
	GPULost                 Code = -18
	ResetRequired           Code = -19
	ConnectionInvalid       Code = -21
	GPUNotSupported         Code = -22
	RequiresRoot            Code = -29
	FieldUnsupported        Code = -32
	ModuleNotLoaded         Code = -33
	InUse                   Code = -34
	ProfilingNotSupported   Code = -36
	ProfilingLibraryError   Code = -37
	InstanceNotFound        Code = -45
	ComputeInstanceNotFound Code = -46
	NVMLNotLoaded           Code = -56
	NVMLDriverTimeout       Code = -57
	GPUsDetached            Code = -67
	// NoAnswer marks a cell that the engine did not return.
	NoAnswer Code = C.NATIVE_NO_ANSWER
)

// EngineLost reports whether the engine does not answer any more.
func (c Code) EngineLost() bool {
	return c == ConnectionInvalid || c == Timeout || c == Uninitialized
}

// Locked reports whether a watch of profiling fields was refused because another
// client uses the hardware counters. DCGM returns an unrecoverable error of its
// profiling library (NVIDIA/DCGM issues 56 and 62) or "in use".
func (c Code) Locked() bool { return c == ProfilingLibraryError || c == InUse }

// Status returns the status of a cell whose value or call has the code.
func (c Code) Status() model.Status {
	switch c {
	case OK:
		return model.StatusOK
	case NoData, StaleData:
		return model.StatusNoData
	case NotSupported, GPUNotSupported, FieldUnsupported, ProfilingNotSupported:
		return model.StatusNotSupported
	case NoPermission, RequiresRoot:
		return model.StatusNotPermitted
	case UnknownField, InstanceNotFound, ComputeInstanceNotFound:
		return model.StatusNotFound
	case NotWatched:
		return model.StatusNotWatched
	case ModuleNotLoaded:
		return model.StatusModuleMissing
	case GPULost, GPUsDetached, NVMLNotLoaded, ResetRequired, NVMLDriverTimeout:
		return model.StatusEntityLost
	}
	return model.StatusError
}

// Err returns nil for [OK], and otherwise an error with DCGM's text. doing is the
// failed action.
func (l *Library) Err(c Code, doing string) error {
	if c == OK {
		return nil
	}
	return fmt.Errorf("%s: %s (%d)", doing, C.GoString(C.native_error_text(l.n, C.int(c))), c)
}
