/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol between libdcgm and dcgmsimd. Each call has fixed arguments, a
 * request payload and an answer payload. An embedded call is a function call;
 * a standalone call crosses a socket. The protocol is private to the stand-in.
 */
#ifndef DCGMSIM_DCGM_WIRE_H
#define DCGMSIM_DCGM_WIRE_H

#include "engine/sample.h"

#define WIRE_MAGIC 0x4d495344u /* "DSIM" */
#define WIRE_VERSION 1
#define WIRE_MAX_PAYLOAD (64u << 20)

struct call_args {
    uint64_t a, b, c;
    int64_t d;
    double f;
};

enum frame_kind { FRAME_REQUEST, FRAME_ANSWER, FRAME_POLICY };

struct frame {
    uint32_t magic, length; /* of the rest: call_args of a request, then the payload */
    uint32_t id;
    uint16_t call, kind;
    int32_t status;
    uint32_t unused;
};

struct buffer {
    uint8_t *data;
    size_t len, cap;
    bool failed; /* out of memory */
};
void buffer_add(struct buffer *b, const void *data, size_t len);
void buffer_add_value(struct buffer *b, const struct value *v);

/* Reads values that buffer_add_value wrote; false at the end or on malformed input. */
struct value_reader {
    const uint8_t *at, *end;
    char text[DCGM_MAX_STR_LENGTH]; /* of the value read last */
};
bool value_reader_next(struct value_reader *r, struct value *v);

/* Blocking transfers of a whole buffer. Return 0, or -1 if the peer is gone. */
int wire_send(int fd, const struct frame *f, const struct call_args *args, const void *payload, size_t len);
int wire_read(int fd, void *to, size_t len);

#endif
