/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libdcgm: initialisation, the embedded engine, connections, versions. */
#define _GNU_SOURCE
#include "access/faults.h"
#include "access/statefile.h"
#include "dcgm/client.h"
#include "dcgm/transact.h"
#include "engine/introspect.h"

#include <stdlib.h>
#include <string.h>

/* Applies the faults on a call of libdcgm itself, if the process has a node. */
static dcgmReturn_t enter_library(const char *name)
{
    char err[256];
    if (!getenv("DCGMSIM_STATE") && !acquire())
        return DCGM_ST_OK;
    if (!getenv("DCGMSIM_STATE"))
        release();
    struct node_state *n = node_open(err, sizeof err);
    return n ? (dcgmReturn_t)node_enter_call(n, name) : DCGM_ST_OK;
}

dcgmReturn_t dcgmInit(void)
{
    dcgmReturn_t rc = enter_library(__func__);
    if (rc != DCGM_ST_OK)
        return rc;
    DcgmFieldsInit();
    library_init();
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmShutdown(void)
{
    dcgmReturn_t rc = enter_library(__func__);
    if (rc != DCGM_ST_OK)
        return rc;
    if (library_shutdown())
        DcgmFieldsTerm();
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmStartEmbedded(dcgmOperationMode_t mode, dcgmHandle_t *handle)
{
    if (!handle || (mode != DCGM_OPERATION_MODE_AUTO && mode != DCGM_OPERATION_MODE_MANUAL))
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = enter_library(__func__);
    if (rc == DCGM_ST_OK)
        rc = library_start_engine();
    if (rc == DCGM_ST_OK)
        *handle = DCGM_EMBEDDED_HANDLE;
    return rc;
}

dcgmReturn_t dcgmStopEmbedded(dcgmHandle_t handle)
{
    if (handle != DCGM_EMBEDDED_HANDLE)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = enter_library(__func__);
    return rc == DCGM_ST_OK ? library_stop_engine() : rc;
}

/* address: HOST, HOST:PORT, [IPV6]:PORT or a path; the client has the default port */
static dcgmReturn_t connect_to(const char *name, const char *address, bool is_unix, unsigned timeout_ms, bool persist,
                               dcgmHandle_t *handle)
{
    if (!address || !*address || !handle)
        return DCGM_ST_BADPARAM;
    if (!library_initialised())
        return DCGM_ST_UNINITIALIZED;
    dcgmReturn_t rc = enter_library(name);
    return rc != DCGM_ST_OK ? rc : client_connect(address, is_unix, timeout_ms, persist, handle);
}

dcgmReturn_t dcgmConnect(const char *address, dcgmHandle_t *handle)
{
    return connect_to(__func__, address, false, 0, false, handle);
}

dcgmReturn_t dcgmConnect_v2(const char *address, dcgmConnectV2Params_t *params, dcgmHandle_t *handle)
{
    if (!params)
        return DCGM_ST_BADPARAM;
    if (params->version != dcgmConnectV2Params_version && params->version != dcgmConnectV2Params_version1)
        return DCGM_ST_VER_MISMATCH;
    bool v2 = params->version == dcgmConnectV2Params_version;
    return connect_to(__func__, address, v2 && params->addressIsUnixSocket, v2 ? params->timeoutMs : 0,
                      params->persistAfterDisconnect, handle);
}

dcgmReturn_t dcgmConnect_v3(const char *address, dcgmConnectV3Params_t *params, dcgmHandle_t *handle)
{
    if (!params || !address)
        return DCGM_ST_BADPARAM;
    if (params->version != dcgmConnectV3Params_version)
        return DCGM_ST_VER_MISMATCH;
    bool is_unix = strncasecmp(address, DCGM_UNIX_SOCKET_PREFIX, strlen(DCGM_UNIX_SOCKET_PREFIX)) == 0;
    if (is_unix)
        address += strlen(DCGM_UNIX_SOCKET_PREFIX);
    else if (strncasecmp(address, DCGM_TCP_SOCKET_PREFIX, strlen(DCGM_TCP_SOCKET_PREFIX)) == 0)
        address += strlen(DCGM_TCP_SOCKET_PREFIX);
    else if (strncasecmp(address, DCGM_VSOCK_SOCKET_PREFIX, strlen(DCGM_VSOCK_SOCKET_PREFIX)) == 0)
        return DCGM_ST_CONNECTION_NOT_VALID; /* a simulated machine has no hypervisor */
    return connect_to(__func__, address, is_unix, params->timeoutMs, params->persistAfterDisconnect, handle);
}

dcgmReturn_t dcgmDisconnect(dcgmHandle_t handle)
{
    dcgmReturn_t rc = enter_library(__func__);
    return rc != DCGM_ST_OK ? rc : client_disconnect(handle);
}

dcgmReturn_t dcgmVersionInfo(dcgmVersionInfo_t *info)
{
    if (!info)
        return DCGM_ST_BADPARAM;
    if (info->version != dcgmVersionInfo_version)
        return DCGM_ST_VER_MISMATCH;
    strncpy(info->rawBuildInfoString, build_info(), sizeof info->rawBuildInfoString - 1);
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmHostengineVersionInfo(dcgmHandle_t handle, dcgmVersionInfo_t *info)
{
    CHECK(info, dcgmVersionInfo_version);
    info->rawBuildInfoString[sizeof info->rawBuildInfoString - 1] = 0;
    return transact(handle, CALL_dcgmHostengineVersionInfo, ARGS(0), NULL, 0, info->rawBuildInfoString,
                    sizeof info->rawBuildInfoString - 1, NULL);
}

dcgmReturn_t dcgmHostengineIsHealthy(dcgmHandle_t handle, dcgmHostengineHealth_t *health)
{
    CHECK(health, dcgmHostengineHealth_version);
    health->overallHealth = 0;
    return simple(handle, CALL_dcgmHostengineIsHealthy, ARGS(0));
}
