/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* GPU policies, and the callbacks that report violations about a second after they occur. */
#include "engine/policy.h"

#include "engine/groups.h"
#include "engine/snapshot.h"
#include "engine/values.h"

#include <string.h>

#define MAX_VIOLATIONS 128

static double nvlink_errors(struct engine *e, int gpu)
{
    return value_counter(e, gpu, DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL) +
           value_counter(e, gpu, DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_TOTAL) +
           value_counter(e, gpu, DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL) +
           value_counter(e, gpu, DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL);
}

dcgmReturn_t policy_set(struct engine *e, uintptr_t group, const dcgmPolicy_t *policy)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    struct group *g = group_find_locked(e, group);
    for (uint32_t i = 0; g && i < g->count; i++) {
        struct location at;
        if (g->entities[i].entityGroupId != DCGM_FE_GPU ||
            !snapshot_locate(&e->snapshot, DCGM_FE_GPU, g->entities[i].entityId, &at))
            continue;
        struct policy *p = &e->policies[at.gpu];
        p->value = *policy;
        if (!p->set) { /* errors before the first policy are not violations */
            p->dbe = value_counter(e, at.gpu, DCGM_FI_DEV_ECC_DBE_VOL_TOTAL);
            p->pci = value_counter(e, at.gpu, DCGM_FI_DEV_PCIE_REPLAY_TOTAL);
            p->retired_sbe = value_counter(e, at.gpu, DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL);
            p->retired_dbe = value_counter(e, at.gpu, DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL);
            p->nvlink = nvlink_errors(e, at.gpu);
        }
        p->set = true;
    }
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}

dcgmReturn_t policy_get(struct engine *e, uintptr_t group, int count, dcgmPolicy_t *out)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    int n = 0;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    struct group *g = group_find_locked(e, group);
    for (uint32_t i = 0; g && rc == DCGM_ST_OK && i < g->count; i++) {
        struct location at;
        if (g->entities[i].entityGroupId != DCGM_FE_GPU ||
            !snapshot_locate(&e->snapshot, DCGM_FE_GPU, g->entities[i].entityId, &at))
            continue;
        if (n == count) {
            rc = DCGM_ST_INSUFFICIENT_SIZE;
            break;
        }
        unsigned version = out[n].version;
        memset(&out[n], 0, sizeof out[n]);
        if (e->policies[at.gpu].set)
            out[n] = e->policies[at.gpu].value;
        out[n++].version = version;
    }
    pthread_mutex_unlock(&e->lock);
    return g ? rc : DCGM_ST_NOT_CONFIGURED;
}

dcgmReturn_t policy_register(struct engine *e, uint32_t owner, uintptr_t group, uint32_t conditions, uint64_t id,
                             policy_deliver deliver, void *to)
{
    dcgmReturn_t rc = DCGM_ST_MAX_LIMIT;
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, group);
    if (!g)
        rc = DCGM_ST_NOT_CONFIGURED;
    for (int i = 0; g && i < MAX_REGISTRATIONS; i++) {
        struct registration *r = &e->registrations[i];
        if (r->used)
            continue;
        *r = (struct registration){.used = true, .owner = owner, .group = g->id, .conditions = conditions, .id = id, .deliver = deliver, .to = to};
        rc = DCGM_ST_OK;
        break;
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t policy_unregister(struct engine *e, uint32_t owner, uintptr_t group, uint32_t conditions)
{
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, group);
    for (int i = 0; g && i < MAX_REGISTRATIONS; i++) {
        struct registration *r = &e->registrations[i];
        if (!r->used || r->owner != owner || r->group != g->id)
            continue;
        r->conditions &= ~conditions;
        r->used = r->conditions != 0;
    }
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}

void policy_forget_owner_locked(struct engine *e, uint32_t owner)
{
    for (int i = 0; i < MAX_REGISTRATIONS; i++)
        if (e->registrations[i].owner == owner)
            e->registrations[i].used = false;
}

struct violations {
    dcgmPolicyCallbackResponse_t list[MAX_VIOLATIONS];
    int count;
};

static dcgmPolicyCallbackResponse_t *add_violation(struct violations *v, struct engine *e, int gpu,
                                                   dcgmPolicyCondition_t condition)
{
    if (v->count == MAX_VIOLATIONS || !e->policies[gpu].set || !(e->policies[gpu].value.condition & condition))
        return NULL;
    dcgmPolicyCallbackResponse_t *r = &v->list[v->count++];
    memset(r, 0, sizeof *r);
    r->version = dcgmPolicyCallbackResponse_version2;
    r->condition = condition;
    r->gpuId = e->snapshot.gpu[gpu].dcgm_id;
    return r;
}

static void check_gpu_policy(struct engine *e, int gpu, struct violations *v)
{
    struct policy *p = &e->policies[gpu];
    const struct node_gpu *g = &e->snapshot.gpu[gpu];
    if (!p->set || g->lost || g->detached || e->driver_dead)
        return;
    dcgmPolicyCallbackResponse_t *r;
    int64_t now = e->snapshot.time_us;
    double dbe = value_counter(e, gpu, DCGM_FI_DEV_ECC_DBE_VOL_TOTAL);
    double pci = value_counter(e, gpu, DCGM_FI_DEV_PCIE_REPLAY_TOTAL);
    double sbe_pages = value_counter(e, gpu, DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL);
    double dbe_pages = value_counter(e, gpu, DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL), nvlink = nvlink_errors(e, gpu);
    double temp = value_counter(e, gpu, DCGM_FI_DEV_GPU_TEMP_CELSIUS);
    double power = value_counter(e, gpu, DCGM_FI_DEV_BOARD_POWER_WATTS);
    if (dbe > p->dbe && (r = add_violation(v, e, gpu, DCGM_POLICY_COND_DBE))) {
        r->val.dbe.timestamp = now;
        r->val.dbe.location = DEVICE;
        r->val.dbe.numerrors = (unsigned)dbe;
    }
    if (pci > p->pci && (r = add_violation(v, e, gpu, DCGM_POLICY_COND_PCI))) {
        r->val.pci.timestamp = now;
        r->val.pci.counter = (unsigned)pci;
    }
    double limit = (double)p->value.parms[DCGM_POLICY_COND_IDX_MAX_PAGES_RETIRED].val.llval;
    if (sbe_pages + dbe_pages > p->retired_sbe + p->retired_dbe && sbe_pages + dbe_pages >= limit &&
        (r = add_violation(v, e, gpu, DCGM_POLICY_COND_MAX_PAGES_RETIRED))) {
        r->val.mpr.timestamp = now;
        r->val.mpr.sbepages = (unsigned)sbe_pages;
        r->val.mpr.dbepages = (unsigned)dbe_pages;
    }
    bool over_temperature = temp > (double)p->value.parms[DCGM_POLICY_COND_IDX_THERMAL].val.llval;
    if (over_temperature && !p->over_temperature && (r = add_violation(v, e, gpu, DCGM_POLICY_COND_THERMAL))) {
        r->val.thermal.timestamp = now;
        r->val.thermal.thermalViolation = (unsigned)temp;
    }
    bool over_power = power > (double)p->value.parms[DCGM_POLICY_COND_IDX_POWER].val.llval;
    if (over_power && !p->over_power && (r = add_violation(v, e, gpu, DCGM_POLICY_COND_POWER))) {
        r->val.power.timestamp = now;
        r->val.power.powerViolation = (unsigned)power;
    }
    if (nvlink > p->nvlink && (r = add_violation(v, e, gpu, DCGM_POLICY_COND_NVLINK))) {
        r->val.nvlink.timestamp = now;
        r->val.nvlink.fieldId = DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL;
        r->val.nvlink.counter = (unsigned)nvlink;
    }
    p->dbe = dbe;
    p->pci = pci;
    p->retired_sbe = sbe_pages;
    p->retired_dbe = dbe_pages;
    p->nvlink = nvlink;
    p->over_temperature = over_temperature;
    p->over_power = over_power;
}

static void check_xid_policy(struct engine *e, struct violations *v)
{
    struct node_state *n = e->node;
    node_lock(n);
    uint64_t newest = atomic_load(&n->xid_seq), seq = e->policy_xid_seen + 1;
    if (newest - e->policy_xid_seen > NODE_MAX_JOURNAL)
        seq = newest - NODE_MAX_JOURNAL + 1;
    for (; seq <= newest; seq++) {
        const struct node_xid *x = &n->xid[seq % NODE_MAX_JOURNAL];
        dcgmPolicyCallbackResponse_t *r = add_violation(v, e, (int)x->gpu, DCGM_POLICY_COND_XID);
        if (r) {
            r->val.xid.timestamp = x->at_us;
            r->val.xid.errnum = x->xid;
        }
    }
    e->policy_xid_seen = newest;
    node_unlock(n);
}

void policy_tick(struct engine *e)
{
    struct violations v;
    struct {
        policy_deliver deliver;
        void *to;
        uint64_t id;
        int violation;
    } call[MAX_VIOLATIONS];
    int calls = 0;
    v.count = 0;
    pthread_mutex_lock(&e->lock);
    bool any = false;
    for (int i = 0; i < MAX_REGISTRATIONS; i++)
        any = any || e->registrations[i].used;
    if (any) {
        snapshot_take(e);
        check_xid_policy(e, &v);
        for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
            check_gpu_policy(e, (int)i, &v);
    } else {
        e->policy_xid_seen = atomic_load(&e->node->xid_seq);
    }
    for (int k = 0; k < v.count; k++) {
        for (int i = 0; i < MAX_REGISTRATIONS && calls < MAX_VIOLATIONS; i++) {
            const struct registration *r = &e->registrations[i];
            struct group *g = r->used && (r->conditions & v.list[k].condition) ? group_find_locked(e, r->group) : NULL;
            for (uint32_t m = 0; g && m < g->count; m++) {
                if (g->entities[m].entityGroupId == DCGM_FE_GPU && g->entities[m].entityId == v.list[k].gpuId) {
                    call[calls].deliver = r->deliver;
                    call[calls].to = r->to;
                    call[calls].id = r->id;
                    call[calls++].violation = k;
                    break;
                }
            }
        }
    }
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < calls; i++)
        call[i].deliver(call[i].to, call[i].id, &v.list[call[i].violation]);
}
