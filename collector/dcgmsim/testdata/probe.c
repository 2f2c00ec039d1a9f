/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program that uses libdcgm for the Go tests. It reads one command per line
 * and prints one answer per line, with the status as "rc=N".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "dcgm_agent.h"
#include "dcgm_errors.h"
#include "dcgm_fields.h"
#include "dcgm_structs.h"
#include "dcgm_test_apis.h"

#define MAX_WORDS 400

static dcgmHandle_t handle = DCGM_EMBEDDED_HANDLE;
static char *word[MAX_WORDS];
static int words;
static pthread_mutex_t print_lock = PTHREAD_MUTEX_INITIALIZER;
static char policies[4096];

static long number(int i)
{
    return i < words ? strtol(word[i], NULL, 0) : 0;
}

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* field:type:status:timestamp:value */
static void print_value(int field, int type, int status, long long ts, const void *value)
{
    long long i;
    double d;
    printf(" %d:%c:%d:%lld:", field, type, status, ts);
    if (type == DCGM_FT_STRING) {
        for (const char *c = value; *c; c++)
            putchar(*c == ' ' ? '_' : *c);
    } else if (type == DCGM_FT_DOUBLE) {
        memcpy(&d, value, sizeof d);
        printf("%.17g", d);
    } else {
        memcpy(&i, value, sizeof i);
        printf("%lld", i);
    }
}

static int on_value(dcgm_field_entity_group_t group, dcgm_field_eid_t id, dcgmFieldValue_v1 *v, int n, void *user)
{
    (void)user;
    for (int i = 0; i < n; i++) {
        printf(" %d/%u", (int)group, id);
        print_value(v[i].fieldId, v[i].fieldType, v[i].status, v[i].ts, &v[i].value);
    }
    return 0;
}

static int on_policy(dcgmPolicyCallbackResponse_t *r, uint64_t user)
{
    char text[128];
    pthread_mutex_lock(&print_lock);
    snprintf(text, sizeof text, " gpu=%u,condition=%d,xid=%u,user=%llu", r->gpuId, (int)r->condition,
             r->condition == DCGM_POLICY_COND_XID ? r->val.xid.errnum : 0, (unsigned long long)user);
    if (strlen(policies) + strlen(text) < sizeof policies)
        strcat(policies, text);
    pthread_mutex_unlock(&print_lock);
    return 0;
}

static int command_connect(void)
{
    if (strstr(word[1], "://")) {
        dcgmConnectV3Params_t p = {.version = dcgmConnectV3Params_version};
        return dcgmConnect_v3(word[1], &p, &handle);
    }
    dcgmConnectV2Params_t p = {.version = dcgmConnectV2Params_version, .addressIsUnixSocket = (unsigned)number(2)};
    return dcgmConnect_v2(word[1], &p, &handle);
}

static int command_latest(unsigned flags)
{
    static dcgmFieldValue_v2 v[DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP];
    unsigned short fields[MAX_WORDS];
    unsigned n = 0;
    for (int i = 3; i < words; i++)
        fields[n++] = (unsigned short)number(i);
    dcgmGroupEntityPair_t e = {(dcgm_field_entity_group_t)number(1), (dcgm_field_eid_t)number(2)};
    int rc = dcgmEntitiesGetLatestValues(handle, &e, 1, fields, n, flags, v);
    printf("rc=%d", rc);
    for (unsigned i = 0; rc == 0 && i < n; i++)
        print_value(v[i].fieldId, v[i].fieldType, v[i].status, v[i].ts, &v[i].value);
    return 1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* bulk ROUNDS GPUS FIELDS…: the median time in µs of a bulk read into a reused buffer */
static int command_bulk(void)
{
    unsigned short fields[MAX_WORDS];
    dcgmGroupEntityPair_t e[DCGM_MAX_NUM_DEVICES];
    unsigned n = 0, gpus = (unsigned)number(2);
    int rounds = (int)number(1), rc = 0;
    for (int i = 3; i < words; i++)
        fields[n++] = (unsigned short)number(i);
    for (unsigned i = 0; i < gpus; i++)
        e[i] = (dcgmGroupEntityPair_t){DCGM_FE_GPU, i};
    dcgmFieldValue_v2 *v = calloc((size_t)gpus * n, sizeof *v);
    double *took = calloc((size_t)rounds, sizeof *took);
    for (int i = 0; i < rounds && rc == 0; i++) {
        double start = now_us();
        rc = dcgmEntitiesGetLatestValues(handle, e, gpus, fields, n, 0, v);
        took[i] = now_us() - start;
    }
    qsort(took, (size_t)rounds, sizeof *took, compare);
    int good = 0;
    for (unsigned i = 0; i < gpus * n; i++)
        good += v[i].status == 0;
    printf("rc=%d median_us=%.1f good=%d", rc, took[rounds / 2], good);
    free(took);
    free(v);
    return 1;
}

/* bulkof ROUNDS KIND ID,ID,… FIELDS…: the same for any entities */
static int command_bulk_of(void)
{
    static dcgmGroupEntityPair_t e[DCGM_GROUP_MAX_ENTITIES_V2];
    unsigned short fields[MAX_WORDS];
    unsigned n = 0, count = 0;
    int rounds = (int)number(1), rc = 0, good = 0;
    char *save = NULL;
    for (char *id = strtok_r(word[3], ",", &save); id && count < DCGM_GROUP_MAX_ENTITIES_V2; id = strtok_r(NULL, ",", &save))
        e[count++] = (dcgmGroupEntityPair_t){(dcgm_field_entity_group_t)number(2), (dcgm_field_eid_t)strtoul(id, NULL, 0)};
    for (int i = 4; i < words; i++)
        fields[n++] = (unsigned short)number(i);
    dcgmFieldValue_v2 *v = calloc((size_t)count * n, sizeof *v);
    double *took = calloc((size_t)rounds, sizeof *took);
    for (int i = 0; i < rounds && rc == 0; i++) {
        double start = now_us();
        rc = dcgmEntitiesGetLatestValues(handle, e, count, fields, n, 0, v);
        took[i] = now_us() - start;
    }
    qsort(took, (size_t)rounds, sizeof *took, compare);
    for (unsigned i = 0; i < count * n; i++)
        good += v[i].status == 0;
    printf("rc=%d median_us=%.1f good=%d", rc, took[rounds / 2], good);
    free(took);
    free(v);
    return 1;
}

/* links [4]: one digit per link for its state; 4: with version 4 of the struct */
static int command_links(void)
{
    static dcgmNvLinkStatus_v5 s;
    static dcgmNvLinkStatus_v4 old;
    memset(&s, 0, sizeof s);
    s.version = dcgmNvLinkStatus_version5;
    old.version = dcgmNvLinkStatus_version4;
    bool v4 = number(1) == 4;
    int rc = dcgmGetNvLinkLinkStatus(handle, v4 ? (dcgmNvLinkStatus_v5 *)(void *)&old : &s);
    printf("rc=%d", rc);
    for (unsigned i = 0; rc == 0 && i < (v4 ? old.numGpus : s.numGpus); i++) {
        printf(" gpu%u=", v4 ? old.gpus[i].entityId : s.gpus[i].entityId);
        for (int k = 0; k < (v4 ? 18 : DCGM_NVLINK_MAX_LINKS_PER_GPU); k++)
            printf("%d", (int)(v4 ? old.gpus[i].linkState[k] : s.gpus[i].linkState[k]));
    }
    const dcgmNvLinkNvSwitchLinkStatus_t *sw = v4 ? old.nvSwitches : s.nvSwitches;
    for (unsigned i = 0; rc == 0 && i < (v4 ? old.numNvSwitches : s.numNvSwitches); i++) {
        printf(" switch%u=", sw[i].entityId);
        for (int k = 0; k < 66; k++)
            printf("%d", (int)sw[i].linkState[k]);
    }
    return 1;
}

/* cpus [1]: CPUs with their cores and serial numbers; 1: with version 1 of the struct, which has no serial numbers */
static int command_cpus(void)
{
    static dcgmCpuHierarchy_v2 h;
    static dcgmCpuHierarchy_v1 old;
    h.version = dcgmCpuHierarchy_version2;
    old.version = dcgmCpuHierarchy_version1;
    bool v1 = number(1) == 1;
    int rc = v1 ? dcgmGetCpuHierarchy(handle, &old) : dcgmGetCpuHierarchy_v2(handle, &h);
    printf("rc=%d", rc);
    for (unsigned i = 0; rc == 0 && i < (v1 ? old.numCpus : h.numCpus); i++) {
        const dcgmCpuHierarchyOwnedCores_v1 *c = v1 ? &old.cpus[i].ownedCores : &h.cpus[i].ownedCores;
        int first = -1, count = 0;
        for (int k = 0; k < DCGM_MAX_NUM_CPU_CORES; k++) {
            if (!(c->bitmask[k / 64] >> (k % 64) & 1))
                continue;
            first = first < 0 ? k : first;
            count++;
        }
        printf(" cpu%u=%d+%d:%s", v1 ? old.cpus[i].cpuId : h.cpus[i].cpuId, first, count, v1 ? "" : h.cpus[i].serial);
    }
    return 1;
}

/* p2p: for each GPU, one digit per DCGM id for the status between them */
static int command_p2p(void)
{
    static dcgmNvLinkP2PStatus_v1 s;
    memset(&s, 0, sizeof s);
    s.version = dcgmNvLinkP2PStatus_version1;
    int rc = dcgmGetNvLinkP2PStatus(handle, &s);
    printf("rc=%d", rc);
    for (unsigned i = 0; rc == 0 && i < s.numGpus; i++) {
        printf(" gpu%u=", s.gpus[i].entityId);
        for (unsigned k = 0; k < s.numGpus; k++)
            printf("%d", (int)s.gpus[i].linkStatus[k]);
    }
    return 1;
}

static int command_topology(void)
{
    static dcgmDeviceTopology_v2 t;
    memset(&t, 0, sizeof t);
    t.version = dcgmDeviceTopology_version2;
    int rc = dcgmGetDeviceTopology(handle, (unsigned)number(1), &t);
    printf("rc=%d cpus=%#lx,%#lx,%#lx", rc, t.cpuAffinityMask[0], t.cpuAffinityMask[1], t.cpuAffinityMask[2]);
    for (unsigned i = 0; rc == 0 && i < t.numGpus; i++)
        printf(" gpu%u=%#llx:%#lx", t.gpuPaths[i].gpuId, (unsigned long long)t.gpuPaths[i].path, (unsigned long)t.gpuPaths[i].localNvLinkIds);
    return 1;
}

static int command_attributes(void)
{
    static dcgmDeviceAttributes_t a;
    memset(&a, 0, sizeof a);
    a.version = dcgmDeviceAttributes_version;
    int rc = dcgmGetDeviceAttributes(handle, (unsigned)number(1), &a);
    printf("rc=%d uuid=%s bus=%s name=%s driver=%s fb=%u power=%u mig=%u", rc, a.identifiers.uuid, a.identifiers.pciBusId,
           a.identifiers.deviceName, a.identifiers.driverVersion, a.memoryUsage.fbTotal, a.powerLimits.defaultPowerLimit,
           a.settings.migModeEnabled);
    return 1;
}

static int command_hierarchy(void)
{
    static dcgmMigHierarchy_v2 h;
    memset(&h, 0, sizeof h);
    h.version = dcgmMigHierarchy_version2;
    int rc = dcgmGetGpuInstanceHierarchy(handle, &h);
    printf("rc=%d", rc);
    for (unsigned i = 0; rc == 0 && i < h.count; i++)
        printf(" %d/%u<%d/%u:gi=%d:ci=%d:slices=%u:index=%u", (int)h.entityList[i].entity.entityGroupId,
               h.entityList[i].entity.entityId, (int)h.entityList[i].parent.entityGroupId, h.entityList[i].parent.entityId,
               (int)h.entityList[i].info.nvmlInstanceId, (int)h.entityList[i].info.nvmlComputeInstanceId,
               h.entityList[i].info.nvmlProfileSlices, h.entityList[i].info.nvmlGpuIndex);
    return 1;
}

static int command_health(void)
{
    static dcgmHealthResponse_t h;
    memset(&h, 0, sizeof h);
    h.version = dcgmHealthResponse_version;
    int rc = dcgmHealthCheck(handle, (dcgmGpuGrp_t)number(1), &h);
    printf("rc=%d overall=%d", rc, (int)h.overallHealth);
    for (unsigned i = 0; rc == 0 && i < h.incidentCount; i++)
        printf(" %d/%u:system=%#x:health=%d:code=%u", (int)h.incidents[i].entityInfo.entityGroupId,
               h.incidents[i].entityInfo.entityId, (unsigned)h.incidents[i].system, (int)h.incidents[i].health,
               h.incidents[i].error.code);
    return 1;
}

static int command_policy(void)
{
    dcgmPolicy_t p = {.version = dcgmPolicy_version, .condition = (dcgmPolicyCondition_t)number(2)};
    p.parms[DCGM_POLICY_COND_IDX_THERMAL].val.llval = 100;
    p.parms[DCGM_POLICY_COND_IDX_POWER].val.llval = 100000;
    int rc = dcgmPolicySet(handle, (dcgmGpuGrp_t)number(1), &p, 0);
    if (rc == 0)
        rc = dcgmPolicyRegister_v2(handle, (dcgmGpuGrp_t)number(1), p.condition, on_policy, (uint64_t)number(3));
    return rc;
}

static int command_list(void)
{
    unsigned ids[DCGM_GROUP_MAX_ENTITIES_V2];
    int count = DCGM_GROUP_MAX_ENTITIES_V2;
    int rc = strcmp(word[0], "devices") == 0    ? dcgmGetAllDevices(handle, ids, &count)
             : strcmp(word[0], "supported") == 0 ? dcgmGetAllSupportedDevices(handle, ids, &count)
                                                 : dcgmGetEntityGroupEntities(handle, (dcgm_field_entity_group_t)number(1), ids, &count, (unsigned)number(2));
    printf("rc=%d", rc);
    for (int i = 0; rc == 0 && i < count; i++)
        printf(" %u", ids[i]);
    return 1;
}

/* nvml INDEX: the UUID of a GPU, read through libnvidia-ml in the same process */
static int command_nvml(void)
{
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL), *device = NULL;
    if (!lib)
        return printf("rc=1 %s", dlerror());
    int (*init)(void) = (int (*)(void))dlsym(lib, "nvmlInit_v2");
    int (*find)(unsigned, void **) = (int (*)(unsigned, void **))dlsym(lib, "nvmlDeviceGetHandleByIndex_v2");
    int (*name)(void *, char *, unsigned) = (int (*)(void *, char *, unsigned))dlsym(lib, "nvmlDeviceGetUUID");
    char uuid[96] = "";
    int rc = init && find && name ? init() : 999;
    if (rc == 0)
        rc = find((unsigned)number(1), &device);
    if (rc == 0)
        rc = name(device, uuid, sizeof uuid);
    return printf("rc=%d uuid=%s", rc, uuid);
}

static int command_latest_sampled(void)
{
    return command_latest(0);
}

static int command_live(void)
{
    return command_latest(DCGM_FV_FLAG_LIVE_DATA);
}

static int command_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return printf("rc=0 ms=%.3f", (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3);
}

static int command_rss(void)
{
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    int n = f ? fscanf(f, "%ld %ld", &size, &resident) : 0;
    if (f)
        fclose(f);
    return printf("rc=%d kib=%ld", n == 2 ? 0 : 1, resident * (sysconf(_SC_PAGESIZE) / 1024));
}

static int command_since(void)
{
    long long next = 0;
    printf("values"); /* printed before the status is known */
    int rc = dcgmGetValuesSince_v2(handle, (uintptr_t)number(1), (uintptr_t)number(2), number(3), &next, on_value, NULL);
    return printf(" rc=%d next=%lld", rc, next);
}

static int command_all(void)
{
    printf("values");
    return printf(" rc=%d", dcgmGetLatestValues_v2(handle, (uintptr_t)number(1), (uintptr_t)number(2), on_value, NULL));
}

static int command_group(void)
{
    uintptr_t id = 0;
    int rc = dcgmGroupCreate(handle, words > 2 ? (dcgmGroupType_t)number(2) : DCGM_GROUP_EMPTY, word[1], &id);
    return printf("rc=%d id=%lu", rc, (unsigned long)id);
}

static int command_groupinfo(void)
{
    static dcgmGroupInfo_t g;
    g.version = dcgmGroupInfo_version3;
    int rc = dcgmGroupGetInfo(handle, (uintptr_t)number(1), &g);
    return printf("rc=%d count=%u name=%s", rc, rc == 0 ? g.count : 0, rc == 0 ? g.groupName : "");
}

static int command_fields(void)
{
    uintptr_t id = 0;
    unsigned short fields[MAX_WORDS];
    int n = 0;
    for (int i = 2; i < words; i++)
        fields[n++] = (unsigned short)number(i);
    int rc = dcgmFieldGroupCreate(handle, n, fields, word[1], &id);
    return printf("rc=%d id=%lu", rc, (unsigned long)id);
}

static int command_status(void)
{
    DcgmEntityStatus_t s = 0;
    int rc = dcgmGetGpuStatus(handle, (unsigned)number(1), &s);
    return printf("rc=%d status=%d", rc, (int)s);
}

static int command_meta(void)
{
    dcgm_field_meta_p m = DcgmFieldGetById((unsigned short)number(1));
    return m ? printf("rc=0 id=%d type=%c scope=%d level=%d tag=%s", m->fieldId, m->fieldType, m->scope, (int)m->entityLevel, m->tag)
             : printf("rc=1");
}

static int command_metricgroups(void)
{
    dcgmProfGetMetricGroups_t g = {.version = dcgmProfGetMetricGroups_version3, .gpuId = (unsigned)number(1)};
    int rc = dcgmProfGetSupportedMetricGroups(handle, &g);
    return printf("rc=%d groups=%u", rc, g.numMetricGroups);
}

static int command_violations(void)
{
    pthread_mutex_lock(&print_lock);
    int n = printf("rc=0%s", policies);
    pthread_mutex_unlock(&print_lock);
    return n;
}

static int command_pid(void)
{
    static dcgmPidInfo_t p;
    memset(&p, 0, sizeof p);
    p.version = dcgmPidInfo_version2;
    p.pid = (unsigned)number(2);
    int rc = dcgmGetPidInfo(handle, (uintptr_t)number(1), &p);
    return printf("rc=%d gpus=%d gpu=%u memory=%lld", rc, p.numGpus, p.gpus[0].gpuId, p.gpus[0].maxGpuMemoryUsed);
}

/* Creates, watches, reads and destroys groups for half a second. */
static void *hammer(void *arg)
{
    long me = (long)(intptr_t)arg;
    double until = now_us() + 5e5;
    dcgmFieldValue_v2 *v = calloc(2, sizeof *v);
    long calls = 0;
    while (now_us() < until) {
        char name[64];
        uintptr_t g = 0, f = 0;
        unsigned short fields[2] = {155, 203};
        dcgmGroupEntityPair_t e = {DCGM_FE_GPU, 0};
        snprintf(name, sizeof name, "hammer-%ld-%ld", me, calls);
        if (dcgmGroupCreate(handle, DCGM_GROUP_EMPTY, name, &g) == 0) {
            dcgmGroupAddDevice(handle, g, 0);
            if (dcgmFieldGroupCreate(handle, 2, fields, name, &f) == 0) {
                dcgmWatchFields(handle, g, f, 100000, 0, 1);
                dcgmEntitiesGetLatestValues(handle, &e, 1, fields, 2, 0, v);
                dcgmUnwatchFields(handle, g, f);
                dcgmFieldGroupDestroy(handle, f);
            }
            dcgmGroupDestroy(handle, g);
        }
        calls++;
    }
    free(v);
    return (void *)(intptr_t)calls;
}

/* threads N: uses the library from N threads */
static int command_threads(void)
{
    pthread_t t[16];
    long total = 0;
    int n = (int)number(1);
    for (int i = 0; i < n; i++)
        pthread_create(&t[i], NULL, hammer, (void *)(intptr_t)i);
    for (int i = 0; i < n; i++) {
        void *calls;
        pthread_join(t[i], &calls);
        total += (long)(intptr_t)calls;
    }
    return printf("rc=0 calls=%ld", total);
}

static int call_init(void) { return dcgmInit(); }
static int call_shutdown(void) { return dcgmShutdown(); }
static int call_start(void) { return dcgmStartEmbedded(DCGM_OPERATION_MODE_AUTO, &handle); }
static int call_stop(void) { return dcgmStopEmbedded(handle); }
static int call_disconnect(void) { return dcgmDisconnect(handle); }
static int call_drop(void) { return dcgmGroupDestroy(handle, (uintptr_t)number(1)); }
static int call_unwatch(void) { return dcgmUnwatchFields(handle, (uintptr_t)number(1), (uintptr_t)number(2)); }
static int call_healthset(void) { return dcgmHealthSet(handle, (uintptr_t)number(1), (dcgmHealthSystems_t)number(2)); }
static int call_pause(void) { return dcgmProfPause(handle); }
static int call_resume(void) { return dcgmProfResume(handle); }
static int call_watchpids(void) { return dcgmWatchPidFields(handle, (uintptr_t)number(1), 1000000, 60, 0); }

static int call_add(void)
{
    return dcgmGroupAddEntity(handle, (uintptr_t)number(1), (dcgm_field_entity_group_t)number(2), (unsigned)number(3));
}

/* watch GROUP FIELDS INTERVAL_US AGE_S SAMPLES */
static int call_watch(void)
{
    return dcgmWatchFields(handle, (uintptr_t)number(1), (uintptr_t)number(2), number(3), (double)number(4), (int)number(5));
}

static const struct {
    const char *name;
    bool prints; /* run prints the answer; otherwise it returns the status to print */
    int (*run)(void);
} commands[] = {
    {"all", true, command_all},
    {"attributes", true, command_attributes},
    {"bulk", true, command_bulk},
    {"bulkof", true, command_bulk_of},
    {"cpu", true, command_cpu},
    {"cpus", true, command_cpus},
    {"devices", true, command_list},
    {"entities", true, command_list},
    {"fields", true, command_fields},
    {"group", true, command_group},
    {"groupinfo", true, command_groupinfo},
    {"health", true, command_health},
    {"hierarchy", true, command_hierarchy},
    {"latest", true, command_latest_sampled},
    {"links", true, command_links},
    {"live", true, command_live},
    {"meta", true, command_meta},
    {"metricgroups", true, command_metricgroups},
    {"nvml", true, command_nvml},
    {"p2p", true, command_p2p},
    {"pid", true, command_pid},
    {"rss", true, command_rss},
    {"since", true, command_since},
    {"status", true, command_status},
    {"supported", true, command_list},
    {"threads", true, command_threads},
    {"topology", true, command_topology},
    {"violations", true, command_violations},
    {"add", false, call_add},
    {"connect", false, command_connect},
    {"disconnect", false, call_disconnect},
    {"drop", false, call_drop},
    {"healthset", false, call_healthset},
    {"init", false, call_init},
    {"pause", false, call_pause},
    {"policy", false, command_policy},
    {"resume", false, call_resume},
    {"shutdown", false, call_shutdown},
    {"start", false, call_start},
    {"stop", false, call_stop},
    {"unwatch", false, call_unwatch},
    {"watch", false, call_watch},
    {"watchpids", false, call_watchpids},
};

static void run(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        int rc = commands[i].run();
        if (!commands[i].prints)
            printf("rc=%d text=%s", rc, errorString((dcgmReturn_t)rc));
        return;
    }
    printf("rc=999 unknown command %s", name);
}

int main(void)
{
    static char line[8192];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    while (fgets(line, sizeof line, stdin)) {
        char *save = NULL;
        words = 0;
        for (char *w = strtok_r(line, " \n", &save); w && words < MAX_WORDS; w = strtok_r(NULL, " \n", &save))
            word[words++] = w;
        if (words == 0)
            continue;
        double start = now_us();
        run(word[0]);
        printf(" took_ms=%.0f\n", (now_us() - start) / 1e3);
        fflush(stdout);
    }
    return 0;
}
