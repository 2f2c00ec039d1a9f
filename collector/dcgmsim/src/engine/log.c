/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The engine's log. __DCGM_DBG_FILE names the file ("-": standard output) and
 * __DCGM_DBG_LVL the lowest severity. The default file is in /var/log, as with
 * the real engine; if it cannot be opened, nothing is logged.
 */
#define _GNU_SOURCE
#include "engine/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const levels[] = {"NONE", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "VERB"};

static int level_of(const char *name)
{
    for (int i = 0; name && i < (int)(sizeof levels / sizeof levels[0]); i++)
        if (strcasecmp(name, levels[i]) == 0)
            return i;
    return 3; /* WARN */
}

void engine_log(const char *level, const char *format, ...)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *path = getenv("__DCGM_DBG_FILE");
    if (level_of(level) > level_of(getenv("__DCGM_DBG_LVL")))
        return;
    if (!path || !*path)
        path = "/var/log/nv-hostengine.log";
    char text[512], stamp[32];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    time_t now = time(NULL);
    struct tm tm;
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", localtime_r(&now, &tm));
    pthread_mutex_lock(&lock);
    FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "ae");
    if (f) {
        fprintf(f, "%s %-5s [%d] %s\n", stamp, level, (int)getpid(), text);
        if (f == stdout)
            fflush(f);
        else
            fclose(f);
    }
    pthread_mutex_unlock(&lock);
}
