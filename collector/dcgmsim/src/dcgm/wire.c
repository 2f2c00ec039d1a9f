/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The private protocol between libdcgm and dcgmsimd: growable buffers, packed values, transfers over a socket. */
#include "dcgm/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

void buffer_add(struct buffer *b, const void *data, size_t len)
{
    if (b->failed)
        return;
    if (b->len + len > b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 256;
        while (cap < b->len + len)
            cap *= 2;
        uint8_t *more = realloc(b->data, cap);
        if (!more) {
            b->failed = true;
            return;
        }
        b->data = more;
        b->cap = cap;
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

struct packed_value { /* for type 's' v is the length of the string that follows */
    uint32_t entity_id;
    uint16_t field;
    uint8_t group;
    char type;
    int32_t status;
    uint32_t unused;
    int64_t ts, v;
};

void buffer_add_value(struct buffer *b, const struct value *v)
{
    struct packed_value p = {v->entity_id, v->field, v->group, v->type, v->status, 0, v->ts, v->v.i64};
    size_t len = 0;
    if (v->type == DCGM_FT_STRING) {
        len = strnlen(v->v.str, DCGM_MAX_STR_LENGTH - 1);
        p.v = (int64_t)len;
    }
    buffer_add(b, &p, sizeof p);
    buffer_add(b, v->v.str, len);
}

bool value_reader_next(struct value_reader *r, struct value *v)
{
    struct packed_value p;
    if ((size_t)(r->end - r->at) < sizeof p)
        return false;
    memcpy(&p, r->at, sizeof p);
    r->at += sizeof p;
    *v = (struct value){.entity_id = p.entity_id, .field = p.field, .group = p.group, .type = p.type, .status = p.status, .ts = p.ts};
    v->v.i64 = p.v;
    if (p.type == DCGM_FT_STRING) {
        if (p.v < 0 || p.v >= (int64_t)sizeof r->text || r->end - r->at < p.v)
            return false;
        memcpy(r->text, r->at, (size_t)p.v);
        r->text[p.v] = 0;
        r->at += p.v;
        v->v.str = r->text;
    }
    return true;
}

int wire_send(int fd, const struct frame *f, const struct call_args *args, const void *payload, size_t len)
{
    struct iovec part[3] = {{(void *)(uintptr_t)f, sizeof *f}, {(void *)(uintptr_t)args, args ? sizeof *args : 0},
                            {(void *)(uintptr_t)payload, len}};
    struct msghdr msg = {.msg_iov = part, .msg_iovlen = 3};
    for (;;) {
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        while (msg.msg_iovlen > 0 && (size_t)n >= msg.msg_iov[0].iov_len) {
            n -= (ssize_t)msg.msg_iov[0].iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen == 0)
            return 0;
        msg.msg_iov[0].iov_base = (char *)msg.msg_iov[0].iov_base + n;
        msg.msg_iov[0].iov_len -= (size_t)n;
    }
}

int wire_read(int fd, void *to, size_t len)
{
    for (char *at = to; len > 0;) {
        ssize_t n = read(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}
