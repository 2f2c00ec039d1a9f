/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Parsing of values in scenario files, and error reports. */
#include "scenario/parser.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum statement_result fail(struct parser *p, const char *format, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    snprintf(p->err, p->err_len, "%s:%d: %s", p->file, p->line, what);
    return STATEMENT_FAILED;
}

bool parse_uint(const char *word, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)word[0]))
        return false;
    unsigned long long v = strtoull(word, &end, 0);
    if (errno || *end || v > max)
        return false;
    *out = v;
    return true;
}

bool parse_double(const char *word, double *out)
{
    char *end;
    *out = strtod(word, &end);
    return end != word && !*end;
}

bool parse_duration(const char *word, int64_t *us)
{
    static const struct {
        const char *suffix;
        double us;
    } units[] = {{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}, {"h", 3600e6}};
    char *end;
    double v = strtod(word, &end);
    if (end == word || v < 0)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(units[i].suffix, end) != 0)
            continue;
        *us = (int64_t)(v * units[i].us);
        return true;
    }
    return false;
}

bool parse_yes_no(const char *word, bool *out)
{
    *out = strcmp(word, "yes") == 0;
    return *out || strcmp(word, "no") == 0;
}
