/* SPDX-License-Identifier: MIT */
/* What the embedding programs share: checks that end the program, a `done` that remembers. */
#ifndef SPEC_EMBEDDING_CHECK_H
#define SPEC_EMBEDDING_CHECK_H

#include "sluice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/** A case of a program: `PROGRAM NAME` runs it. */
typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

/** How a spawned chunk ended. */
typedef struct outcome {
    int calls, status;
    char text[4096];
} outcome;

static inline void on_done(void *user, int status, const char *text, size_t len)
{
    outcome *end = user;
    end->calls++;
    end->status = status;
    CHECK(strlen(text) == len);
    snprintf(end->text, sizeof end->text, "%s", text);
}

static inline void on_error(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "on_error: %s\n", text);
}

static inline sluice_options plain_options(void)
{
    return (sluice_options){.size = sizeof(sluice_options), .on_error = on_error};
}

static inline sluice *open_plain(void)
{
    sluice_options options = plain_options();
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    return s;
}

static inline int spawn(sluice *s, const char *chunk, outcome *end)
{
    memset(end, 0, sizeof *end);
    return sluice_spawn(s, "=chunk", chunk, strlen(chunk), on_done, end);
}

/** Pumps and waits until the chunk has ended. */
static inline void run_to_end(sluice *s, const outcome *end)
{
    while (!end->calls) {
        if (sluice_pump(s, 2000) > 0 || end->calls)
            continue;
        CHECK(sluice_wait(s, -1) == SLUICE_OK);
    }
}

/** Runs a chunk to its end. */
static inline void run(sluice *s, const char *chunk, outcome *end)
{
    CHECK(spawn(s, chunk, end) > 0);
    run_to_end(s, end);
}

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/** What this thread ran: without what a busy machine took from it. */
static inline double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline int run_case(const test_case *cases, int argc, char **argv)
{
    for (const test_case *one = cases; argc == 2 && one->name; one++) {
        if (strcmp(one->name, argv[1]) != 0)
            continue;
        one->run();
        puts("ok");
        return 0;
    }
    fprintf(stderr, "usage: %s CASE\n", argv[0]);
    return 2;
}

#endif
