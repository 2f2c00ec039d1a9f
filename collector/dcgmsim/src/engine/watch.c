/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Watches: each samples one field of one entity at its own interval and keeps the samples for a bounded time. */
#include "engine/watch.h"

#include "access/faults.h"
#include "engine/entities.h"
#include "engine/groups.h"
#include "engine/log.h"
#include "engine/profiling.h"
#include "engine/snapshot.h"
#include "engine/values.h"

#include <stdlib.h>
#include <string.h>

static uint64_t watch_key(int group, uint32_t id, unsigned field)
{
    return (uint64_t)(unsigned)group << 48 | (uint64_t)field << 32 | id;
}

static uint64_t key_of(const struct watch *w)
{
    return watch_key(w->group, w->entity_id, w->field);
}

static uint32_t index_slot(const struct engine *e, uint64_t key)
{
    key *= 0x9e3779b97f4a7c15ULL;
    return (uint32_t)(key >> 32) & (e->index_cap - 1);
}

static void insert_index(struct engine *e, uint32_t position)
{
    uint32_t at = index_slot(e, key_of(e->watches[position]));
    while (e->index[at])
        at = (at + 1) & (e->index_cap - 1);
    e->index[at] = position + 1;
}

static bool grow(struct engine *e)
{
    uint32_t cap = e->watch_cap ? e->watch_cap * 2 : 256;
    struct watch **watches = realloc(e->watches, cap * sizeof *watches);
    if (!watches)
        return false;
    e->watches = watches;
    uint32_t *index = calloc((size_t)cap * 4, sizeof *index);
    if (!index)
        return false;
    free(e->index);
    e->index = index;
    e->index_cap = cap * 4;
    e->watch_cap = cap;
    for (uint32_t i = 0; i < e->watch_count; i++)
        insert_index(e, i);
    return true;
}

struct watch *watch_find_locked(struct engine *e, int group, uint32_t id, unsigned field, bool create)
{
    const struct field_info *f = field_info(field);
    if (!f)
        return NULL;
    if (f->scope == DCGM_FS_GLOBAL) { /* one watch for the whole node */
        group = DCGM_FE_NONE;
        id = 0;
    }
    uint64_t key = watch_key(group, id, field);
    if (e->index_cap) {
        for (uint32_t at = index_slot(e, key); e->index[at]; at = (at + 1) & (e->index_cap - 1)) {
            struct watch *w = e->watches[e->index[at] - 1];
            if (key_of(w) == key)
                return w;
        }
    }
    if (!create || (e->watch_count == e->watch_cap && !grow(e)))
        return NULL;
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->group = (uint8_t)group;
    w->entity_id = id;
    w->field = (uint16_t)field;
    w->type = f->type;
    w->due_us = INT64_MAX;
    w->max_age_us = DCGM_MAX_AGE_USEC_DEFAULT;
    e->watches[e->watch_count] = w;
    insert_index(e, e->watch_count++);
    return w;
}

void watch_free_all(struct engine *e)
{
    for (uint32_t i = 0; i < e->watch_count; i++) {
        free(e->watches[i]->watchers);
        free(e->watches[i]->ring);
        free(e->watches[i]);
    }
    free(e->watches);
    free(e->index);
}

static struct sample *newest(const struct watch *w)
{
    return w->len ? &w->ring[(w->head + w->len - 1) % w->cap] : NULL;
}

void watch_append_locked(struct engine *e, struct watch *w, struct sample s)
{
    (void)e;
    const struct sample *last = newest(w);
    bool step = last && s.ts < last->ts - 1000000; /* the clock was set back */
    if (last && s.ts <= last->ts && !step && w->field != DCGM_FI_DEV_XID_ERROR) /* XIDs can have equal times */
        s.ts = last->ts + 1;
    while (w->len && w->ring[w->head].ts < s.ts - w->max_age_us) {
        w->head = (w->head + 1) % w->cap;
        w->len--;
    }
    if (w->len == w->cap) {
        uint32_t cap = w->cap ? w->cap * 2 : 4;
        struct sample *ring = malloc(cap * sizeof *ring);
        if (!ring)
            return;
        for (uint32_t i = 0; i < w->len; i++)
            ring[i] = w->ring[(w->head + i) % w->cap];
        free(w->ring);
        w->ring = ring;
        w->cap = cap;
        w->head = 0;
    }
    w->ring[(w->head + w->len++) % w->cap] = s;
}

/* The shortest interval and the longest age of all watchers apply. */
static void apply_strictest(struct watch *w)
{
    if (w->watcher_count == 0) {
        w->interval_us = 0;
        w->due_us = INT64_MAX;
        return;
    }
    int64_t interval = INT64_MAX, age = 0;
    for (uint32_t i = 0; i < w->watcher_count; i++) {
        if (w->watchers[i].interval_us < interval)
            interval = w->watchers[i].interval_us;
        if (w->watchers[i].max_age_us > age)
            age = w->watchers[i].max_age_us;
    }
    w->max_age_us = age;
    if (interval != w->interval_us) {
        /* Without a previous watcher, a field of a GPU is due at once; a field of an instance keeps its schedule. */
        bool again = w->interval_us == 0 && w->group != DCGM_FE_GPU && w->sampled_us != 0;
        w->interval_us = interval;
        w->due_us = again ? w->sampled_us + interval : 0; /* 0: due at once */
    }
}

static dcgmReturn_t add_watcher(struct watch *w, uint32_t owner, int64_t interval_us, int64_t max_age_us)
{
    struct watcher *mine = NULL;
    for (uint32_t i = 0; i < w->watcher_count; i++)
        if (w->watchers[i].owner == owner)
            mine = &w->watchers[i];
    if (!mine) {
        struct watcher *more = realloc(w->watchers, (w->watcher_count + 1) * sizeof *more);
        if (!more)
            return DCGM_ST_MEMORY;
        w->watchers = more;
        mine = &w->watchers[w->watcher_count++];
    }
    *mine = (struct watcher){owner, interval_us, max_age_us};
    apply_strictest(w);
    return DCGM_ST_OK;
}

static void remove_watcher(struct watch *w, uint32_t owner)
{
    for (uint32_t i = 0; i < w->watcher_count; i++) {
        if (w->watchers[i].owner != owner)
            continue;
        w->watchers[i] = w->watchers[--w->watcher_count];
        apply_strictest(w);
        break;
    }
    if (w->watcher_count == 0) { /* no watcher is left; the samples remain, as with the real engine */
        free(w->watchers);
        w->watchers = NULL;
        w->profiling_primed = w->cpu_primed = false;
        w->last_total_us = 0;
    }
}

void watch_forget_owner_locked(struct engine *e, uint32_t owner)
{
    for (uint32_t i = 0; i < e->watch_count; i++)
        remove_watcher(e->watches[i], owner);
}

static int64_t max_age(int64_t interval_us, double age_s, int samples)
{
    /* As DCGM: whole seconds, 1.1 times the span of the samples, at least one second. */
    int64_t age = age_s > 0 ? (int64_t)age_s * 1000000 : 0;
    int64_t span = samples > 0 ? (int64_t)((double)samples * (double)interval_us * 1.1) : 0;
    if (age < 1000000)
        age = 1000000;
    return span > age ? span : age;
}

dcgmReturn_t watch_fields(struct engine *e, uint32_t owner, uintptr_t group, uintptr_t fields, int64_t interval_us,
                          double max_age_s, int max_samples)
{
    if (group == 0 || interval_us <= 0 || max_age_s < 0 || max_samples < 0)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = DCGM_ST_OK, locked = DCGM_ST_OK;
    bool module_missing = false;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    struct group *g = group_find_locked(e, group);
    struct field_group *fg = field_group_find_locked(e, fields);
    if (!g)
        rc = DCGM_ST_NOT_CONFIGURED;
    else if (!fg)
        rc = DCGM_ST_NO_DATA;
    for (uint32_t i = 0; rc == DCGM_ST_OK && i < g->count; i++) {
        const dcgmGroupEntityPair_t *entity = &g->entities[i];
        if (entity_status(&e->snapshot, (int)entity->entityGroupId, entity->entityId) == DcgmEntityStatusDetached)
            continue;
        struct location at;
        bool here = snapshot_locate(&e->snapshot, (int)entity->entityGroupId, entity->entityId, &at);
        for (uint32_t k = 0; rc == DCGM_ST_OK && k < fg->count; k++) {
            unsigned field = fg->fields[k];
            int64_t interval = interval_us;
            if (profiling_is_field(field) && here && !e->snapshot.gpu[at.gpu].model.profiling)
                module_missing = true; /* the watch remains, without data */
            if ((field == DCGM_FI_DEV_INFOROM_CHECKSUM || field == DCGM_FI_DEV_INFOROM_VALID) && interval < 30000000)
                interval = 30000000;
            struct watch *w = watch_find_locked(e, (int)entity->entityGroupId, entity->entityId, field, true);
            uint32_t watchers = w ? w->watcher_count : 0;
            rc = w ? add_watcher(w, owner, interval, max_age(interval, max_age_s, max_samples)) : DCGM_ST_MEMORY;
            if (!w || !here || !profiling_is_field(field))
                continue;
            if (profiling_lock_status(e, at.gpu) != DCGM_ST_OK)
                locked = profiling_lock_status(e, at.gpu);
            else if (w->watcher_count > watchers)
                profiling_repair(e, at.gpu);
        }
    }
    pthread_mutex_unlock(&e->lock);
    if (rc == DCGM_ST_OK && locked != DCGM_ST_OK) { /* the whole call fails, for its other fields too */
        unwatch_fields(e, owner, group, fields);
        return locked;
    }
    if (rc == DCGM_ST_OK)
        rc = watch_update_all(e);
    return rc == DCGM_ST_OK && module_missing ? DCGM_ST_MODULE_NOT_LOADED : rc;
}

dcgmReturn_t unwatch_fields(struct engine *e, uint32_t owner, uintptr_t group, uintptr_t fields)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, group);
    struct field_group *fg = field_group_find_locked(e, fields);
    if (!g)
        rc = DCGM_ST_NOT_CONFIGURED;
    else if (!fg)
        rc = DCGM_ST_NO_DATA;
    for (uint32_t i = 0; rc == DCGM_ST_OK && i < g->count; i++) {
        for (uint32_t k = 0; k < fg->count; k++) {
            struct watch *w =
                watch_find_locked(e, (int)g->entities[i].entityGroupId, g->entities[i].entityId, fg->fields[k], false);
            if (w)
                remove_watcher(w, owner);
        }
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

int64_t watch_sample_due_locked(struct engine *e)
{
    int64_t now = node_now_us(), next = INT64_MAX;
    bool taken = false;
    for (uint32_t i = 0; i < e->watch_count; i++) {
        struct watch *w = e->watches[i];
        if (w->due_us <= now) {
            if (!taken) {
                snapshot_take(e);
                taken = true;
            }
            struct sample s;
            w->sampled_us = now;
            if (value_sample(e, field_info(w->field), w->group, w->entity_id, w, &s))
                watch_append_locked(e, w, s);
            /* Aligned with the other watches of this interval, so that one pass samples all of them. */
            int64_t since = now - e->started_us;
            w->due_us = e->started_us + (since / w->interval_us + 1) * w->interval_us;
        }
        if (w->due_us < next)
            next = w->due_us;
    }
    return next;
}

void watch_take_xids_locked(struct engine *e)
{
    struct node_state *n = e->node;
    uint64_t newest_seq = atomic_load(&n->xid_seq);
    if (e->xid_seen == newest_seq)
        return;
    node_lock(n);
    newest_seq = atomic_load(&n->xid_seq);
    uint64_t seq = e->xid_seen + 1;
    if (newest_seq - e->xid_seen > NODE_MAX_JOURNAL)
        seq = newest_seq - NODE_MAX_JOURNAL + 1;
    int64_t now = node_now_us();
    if (n->xid_pace_us > 0) { /* One XID, with the current time: the real engine sleeps after each. */
        newest_seq = now < e->xid_due_us ? e->xid_seen : seq;
        if (now >= e->xid_due_us)
            e->xid_due_us = now + n->xid_pace_us;
    }
    for (; seq <= newest_seq; seq++) {
        struct node_xid x = n->xid[seq % NODE_MAX_JOURNAL];
        if (n->xid_pace_us > 0)
            x.at_us = now;
        uint32_t gpu_id = n->gpu[x.gpu].dcgm_id;
        dcgmGroupEntityPair_t entity = xid_entity(&x, gpu_id);
        engine_log("ERROR", "XID %u on GPU %u", x.xid, gpu_id);
        if (x.xid == 119) { /* GSP RPC timeout: DCGM stops calling the driver */
            e->driver_dead = true;
            engine_log("ERROR", "fatal XID 119: every field is blank until the engine restarts");
        }
        /* XIDs are recorded even without a watch. */
        struct watch *w = watch_find_locked(e, (int)entity.entityGroupId, entity.entityId, DCGM_FI_DEV_XID_ERROR, true);
        if (w)
            watch_append_locked(e, w, (struct sample){.ts = x.at_us + atomic_load(&n->engine_clock_us), .v.i64 = x.xid});
    }
    e->xid_seen = newest_seq;
    node_unlock(n);
}

dcgmReturn_t watch_update_all(struct engine *e)
{
    int rc = node_enter_call(e->node, "sampling");
    if (rc != 0)
        return DCGM_ST_OK; /* a failing driver does not fail the call */
    pthread_mutex_lock(&e->lock);
    watch_take_xids_locked(e);
    watch_sample_due_locked(e);
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

static void set_no_value(struct value *out, dcgmReturn_t status)
{
    out->status = status;
    out->ts = 0;
    if (out->type == DCGM_FT_DOUBLE)
        out->v.dbl = DCGM_FP64_BLANK;
    else if (out->type == DCGM_FT_STRING)
        out->v.str = DCGM_STR_BLANK;
    else
        out->v.i64 = out->type == DCGM_FT_BINARY ? 0 : DCGM_INT64_BLANK;
}

static void set_value(struct value *out, const struct sample *s)
{
    out->status = DCGM_ST_OK;
    out->ts = s->ts;
    if (out->type == DCGM_FT_STRING)
        out->v.str = s->v.str;
    else
        out->v.i64 = s->v.i64;
}

void watch_latest_locked(struct engine *e, int group, uint32_t id, unsigned field, bool live, struct value *out)
{
    const struct field_info *f = field_info(field);
    out->entity_id = id;
    out->group = (uint8_t)group;
    out->field = (uint16_t)field;
    out->type = f ? f->type : DCGM_FT_INT64;
    if (!f) {
        set_no_value(out, DCGM_ST_UNKNOWN_FIELD);
        return;
    }
    if (live) {
        struct sample s;
        if (value_sample(e, f, group, id, NULL, &s))
            set_value(out, &s);
        else
            set_no_value(out, DCGM_ST_NO_DATA);
        return;
    }
    const struct watch *w = watch_find_locked(e, group, id, field, false);
    const struct sample *last = w ? newest(w) : NULL;
    if (last) {
        set_value(out, last);
        if (field == DCGM_FI_DEV_VGPU_LICENSE_STATUS && DCGM_INT64_IS_BLANK(last->v.i64)) {
            out->type = DCGM_FT_STRING; /* of an unreachable GPU: not the type of the field */
            out->v.str = DCGM_STR_BLANK;
        }
    } else
        set_no_value(out, w && w->watcher_count ? DCGM_ST_NO_DATA : DCGM_ST_NOT_WATCHED);
}

static void put_value(void *to, const struct value *v)
{
    if (v->type == DCGM_FT_STRING) {
        size_t len = strnlen(v->v.str, DCGM_MAX_STR_LENGTH - 1);
        memcpy(to, v->v.str, len);
        ((char *)to)[len] = 0;
    } else {
        memcpy(to, &v->v.i64, sizeof v->v.i64);
    }
}

void value_to_v1(const struct value *v, dcgmFieldValue_v1 *out)
{
    out->version = dcgmFieldValue_version1;
    out->fieldId = v->field;
    out->fieldType = (unsigned short)v->type;
    out->status = v->status;
    out->ts = v->ts;
    put_value(&out->value, v);
}

void value_to_v2(const struct value *v, dcgmFieldValue_v2 *out)
{
    out->version = dcgmFieldValue_version2;
    out->entityGroupId = (dcgm_field_entity_group_t)v->group;
    out->entityId = v->entity_id;
    out->fieldId = v->field;
    out->fieldType = (unsigned short)v->type;
    out->status = v->status;
    out->unused = 0;
    out->ts = v->ts;
    put_value(&out->value, v);
}

dcgmReturn_t watch_latest(struct engine *e, const dcgmGroupEntityPair_t *entities, unsigned entity_count,
                          const unsigned short *fields, unsigned field_count, unsigned flags, dcgmFieldValue_v2 *out)
{
    if (!entities || !fields || !out || entity_count < 1 || field_count < 1 ||
        entity_count > DCGM_GROUP_MAX_ENTITIES_V2 ||
        field_count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP)
        return DCGM_ST_BADPARAM;
    bool live = flags & DCGM_FV_FLAG_LIVE_DATA;
    pthread_mutex_lock(&e->lock);
    if (live)
        snapshot_take(e);
    for (unsigned i = 0; i < entity_count; i++) {
        for (unsigned k = 0; k < field_count; k++) {
            struct value v;
            watch_latest_locked(e, (int)entities[i].entityGroupId, entities[i].entityId, fields[k], live, &v);
            value_to_v2(&v, out++);
        }
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

static dcgmReturn_t collect_since(struct engine *e, const dcgmGroupEntityPair_t *entity, unsigned field,
                                  int64_t since_us,
                                  int64_t until_us, struct value_list *out)
{
    struct watch *w = watch_find_locked(e, (int)entity->entityGroupId, entity->entityId, field, false);
    if (!w || (w->watcher_count == 0 && w->len == 0))
        return DCGM_ST_NOT_WATCHED;
    for (uint32_t k = 0; k < w->len; k++) {
        const struct sample *s = &w->ring[(w->head + k) % w->cap];
        if (s->ts < since_us || s->ts > until_us)
            continue;
        struct value v = {.entity_id = entity->entityId, .group = (uint8_t)entity->entityGroupId,
                          .field = (uint16_t)field, .type = w->type};
        set_value(&v, s);
        if (!value_list_add(out, &v))
            return DCGM_ST_MEMORY;
    }
    return DCGM_ST_OK;
}

dcgmReturn_t watch_collect(struct engine *e, uintptr_t group, uintptr_t fields, bool latest, int64_t since_us,
                           int64_t *next_us, struct value_list *out)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    int64_t until = node_now_us() + atomic_load(&e->node->engine_clock_us);
    struct group *g = group_find_locked(e, group);
    struct field_group *fg = field_group_find_locked(e, fields);
    if (!fg)
        rc = DCGM_ST_NO_DATA;
    else if (!g)
        rc = DCGM_ST_NOT_CONFIGURED;
    for (uint32_t i = 0; rc == DCGM_ST_OK && i < g->count; i++) {
        for (uint32_t k = 0; rc == DCGM_ST_OK && k < fg->count; k++) {
            if (!latest) {
                rc = collect_since(e, &g->entities[i], fg->fields[k], since_us, until, out);
                continue;
            }
            struct value v;
            watch_latest_locked(e, (int)g->entities[i].entityGroupId, g->entities[i].entityId, fg->fields[k], false,
                                &v);
            if (!value_list_add(out, &v))
                rc = DCGM_ST_MEMORY;
        }
    }
    pthread_mutex_unlock(&e->lock);
    if (rc == DCGM_ST_OK && next_us)
        *next_us = until + 1;
    return rc;
}
