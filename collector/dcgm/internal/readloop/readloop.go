// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package readloop makes the bulk reads of a sample in C and discards the values. That
// is the lower bound with which BenchmarkSample compares a sample. Only tests import it.
package readloop

/*
#cgo CFLAGS: -O2 -Wall -I${SRCDIR}/../../native
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include "library.h"

static int read_all(uintptr_t handle, void *entities, uint32_t entity_count, uint16_t *fields, uint32_t field_count)
{
    int (*get_latest)(uintptr_t, struct abi_pair *, uint32_t, uint16_t *, uint32_t, uint32_t, struct abi_value2 *) =
        dlsym(RTLD_DEFAULT, "dcgmEntitiesGetLatestValues");
    static struct abi_value2 *values;
    if (!values && !(values = calloc(NATIVE_CHUNK, sizeof(*values)))) // as native_open does
        return ABI_GENERIC_ERROR;
    for (uint32_t f = 0; f < field_count; f += ABI_MAX_FIELDS) {
        uint32_t nf = field_count - f < ABI_MAX_FIELDS ? field_count - f : ABI_MAX_FIELDS;
        uint32_t step = NATIVE_CHUNK / nf;
        for (uint32_t e = 0; e < entity_count; e += step) {
            uint32_t ne = entity_count - e < step ? entity_count - e : step;
            int rc = get_latest(handle, (struct abi_pair *)entities + e, ne, fields + f, nf, 0, values);
            if (rc != ABI_OK)
                return rc;
        }
    }
    return ABI_OK;
}
*/
import "C"

import (
	"unsafe"

	"gpu_exporter/collector/dcgm/native"
)

// Read makes the calls that [native.Library.Read] makes for the request.
func Read(lib *native.Library, r *native.Request) native.Code {
	return native.Code(C.read_all(C.uintptr_t(lib.Handle()),
		unsafe.Pointer(&r.Entities[0]), C.uint32_t(len(r.Entities)),
		(*C.uint16_t)(&r.Fields[0]), C.uint32_t(len(r.Fields))))
}
